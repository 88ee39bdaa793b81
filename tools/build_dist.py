"""Builds all that a release holds into one folder, and checks it: `make dist`.

Wheel and sdist, the bundle for Claude Desktop, what the registry of servers is told, and checksums.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

import build_bundle
import write_documents

ROOT = Path(__file__).parent.parent


def build(out: Path, *, container: str | None = None) -> list[Path]:
    """The files of a release, new in `out`; raises CalledProcessError for what a check refuses."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    python = [sys.executable, "-m"]
    # In this environment, whose tools are pinned: the bytes of the wheel are theirs, too.
    subprocess.run([*python, "build", "--no-isolation", "--outdir", out, ROOT], check=True)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    subprocess.run([*python, "twine", "check", "--strict", wheel, sdist], check=True)
    bundle = build_bundle.build(wheel, out)
    server = out / "server.json"
    text = write_documents.server_json(digest(bundle), container)
    server.write_text(text, encoding="utf-8")
    files = [wheel, sdist, bundle, server]
    sums = "".join(f"{digest(file)}  {file.name}\n" for file in files)
    (out / "SHA256SUMS").write_text(sums, encoding="utf-8")
    return files


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--container", metavar="IMAGE", help="name and tag of an image that exists")
    options = parser.parse_args()
    for made in build(options.out, container=options.container):
        print(f"{made.stat().st_size:>9}  {made}")
