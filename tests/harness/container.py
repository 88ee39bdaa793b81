"""The container image without an engine: built by Buildah on a Debian that debootstrap makes.

Both are Debian's own packages, and the Dockerfile is read by a real builder. What is built is run
in namespaces of its own, as an engine would: its user, its environment, a read-only root.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.clients import ROOT, Need
from harness.roads import run

CACHE = ROOT / ".cache" / "container"
BASE = "debian:trixie-slim"
NEEDED = ("buildah", "debootstrap", "unshare")


@dataclass(frozen=True)
class Image:
    """A built image: its root file system, unpacked, and what it says of itself."""

    root: Path
    config: dict[str, Any]

    def launcher(self, path: Path, state: Path, *command: str, **settings: str) -> Path:
        """A program that runs `command` (or else the entry point) in a container of this image.

        The state folder is mounted under its own name, so that paths mean the same inside and out.
        """
        user = self.config["User"]
        environ = dict(pair.split("=", 1) for pair in self.config["Env"])
        environ |= {"ARTA_STATE_DIR": str(state), **settings}
        inside = self.root / state.relative_to("/")
        inside.mkdir(parents=True, exist_ok=True)
        state.mkdir(exist_ok=True)
        uid, gid = map(int, user.split(":"))
        os.chown(state, uid, gid)
        state.chmod(0o700)
        words = command or self.config["Entrypoint"]
        given = shlex.join([f"{name}={value}" for name, value in environ.items()])
        root, bound = shlex.quote(str(self.root)), shlex.quote(str(inside))
        path.write_text(
            f"""#!/bin/sh
exec unshare --mount --pid --fork --kill-child /bin/sh -ec '
mount --bind {root} {root}
mount -t tmpfs tmpfs {root}/tmp
mkdir -p {bound}
mount --bind {shlex.quote(str(state))} {bound}
mount --rbind /dev {root}/dev
mount -t proc proc {root}/proc
mount -o remount,ro,bind {root}
cd {root}
exec chroot --userspec={user} {root} /usr/bin/env -i {given} {shlex.join(words)} "$@"
' sh "$@"
""",
            encoding="utf-8",
        )
        path.chmod(0o755)
        return path


@contextmanager
def built_image(checkout: Path, need: Need) -> Generator[Image]:
    """The image of a checkout's Dockerfile; the Debian under it is made once and kept."""
    need(sys.platform == "linux" and os.geteuid() == 0, "only root builds an image on Linux here")
    for program in NEEDED:
        need(shutil.which(program) is not None, f"{program} is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    if not _buildah("images", "--quiet", "--filter", f"reference={BASE}"):
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            run("debootstrap", "--variant=minbase", "trixie", folder)
            container = _buildah("from", "scratch")
            _buildah("copy", "--quiet", container, folder)
            _buildah("commit", "--quiet", "--rm", container, BASE)
    with tempfile.TemporaryDirectory() as folder:
        mounts = [f"--volume={name}" for name in _network_files(Path(folder))]
        build = ("build", "--pull-never", "--format=docker", "--tag=arta-mcp", *mounts)
        _buildah(*build, str(checkout))
    config = json.loads(_buildah("inspect", "--type=image", "arta-mcp"))["Docker"]["config"]
    container = _buildah("from", "--pull-never", "arta-mcp")
    try:
        yield Image(Path(_buildah("mount", container)), config)
    finally:
        _buildah("rm", container)
        _buildah("rmi", "arta-mcp")


def _network_files(folder: Path) -> list[str]:
    """What pip needs inside to reach an index, where this machine has certificates of its own."""
    certificates = os.environ.get("SSL_CERT_FILE")
    if certificates is None:
        return []
    settings = folder / "pip.conf"
    settings.write_text("[global]\ncert = /run/certificates.crt\n", encoding="utf-8")
    return [f"{certificates}:/run/certificates.crt:ro", f"{settings}:/etc/pip.conf:ro"]


def _buildah(*words: str) -> str:
    stores = ("--storage-driver=vfs", f"--root={CACHE / 'store'}", f"--runroot={CACHE / 'run'}")
    return run("buildah", *stores, *words, environ={"BUILDAH_ISOLATION": "chroot"}).strip()
