"""Builds the site of docs/ into a folder, and fails on a dead link or a stale table: `make docs`.

Pages that lie elsewhere, because a forge looks for them there, and pages that the code writes are
put beside those of docs/ first; the generator (Zensical) then sees one folder, and so can another.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import write_clients
import write_documents
import write_performance

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCE = "https://github.com/arta-mcp/arta-mcp/blob/main/"

ELSEWHERE = {
    "security.md": "SECURITY.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
"""page -> the file at the top of the repository"""

SETTINGS = """\
# Settings

Environment variables; what a host leaves empty counts as not set.
Plain `http://` is accepted for loopback addresses only.
All wrong settings are told at once, each with a hint; a name that means nothing gets one warning.

"""


class StalePage(Exception):
    """A page is not what the code says, or leads nowhere; the text names it."""


def check_tables() -> None:
    """Raises StalePage for a table that its script would write otherwise."""
    for generate, page in (
        (write_documents.readme, ROOT / "README.md"),
        (write_clients.clients_page, write_clients.PAGE),
        *((write_performance.render, page) for page in write_performance.PAGES),
    ):
        text = page.read_text(encoding="utf-8")
        if generate(text) != text:
            raise StalePage(f"a table of {page.relative_to(ROOT)} is not what the code says")


def gather(folder: Path) -> None:
    """Every page and picture of the site, in one folder."""
    shutil.copytree(DOCS, folder, dirs_exist_ok=True)
    for page, source in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        # Links as they are read from docs/, where all other pages are.
        text = re.sub(r"\]\((?!\w+:|#)(docs/)?", lambda m: "](" if m[1] else "](../", text)
        (folder / page).write_text(text, encoding="utf-8")
    table = re.sub(r"docs/(\w+)\.md", r"[\1](\1.md)", write_documents.settings_table())
    (folder / "settings.md").write_text(SETTINGS + table, encoding="utf-8")
    for page in folder.glob("*.md"):
        page.write_text(lead_out(page), encoding="utf-8")


def lead_out(page: Path) -> str:
    """The page; its links out of docs/ lead to the page that the file is here, or to the forge."""
    pages = {source: name for name, source in ELSEWHERE.items()}
    settings = "README.md", "#settings"

    def lead(found: re.Match[str]) -> str:
        file, anchor = found[1], found[2] or ""
        if not (ROOT / file).exists():
            raise StalePage(f"{page.name} leads to {file}, which is not there")
        if (file, anchor) == settings:
            return "](settings.md)"
        return f"]({pages.get(file, SOURCE + file)}{anchor})"

    return re.sub(r"\]\(\.\./([^)#]+)(#[^)]*)?\)", lead, page.read_text(encoding="utf-8"))


def configure(folder: Path) -> dict[str, Any]:
    """mkdocs.yml; raises StalePage when its navigation and the pages differ."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed, there = set(find_pages(config["nav"])), {page.name for page in folder.glob("*.md")}
    if wrong := sorted(listed ^ there):
        raise StalePage(f"the navigation of mkdocs.yml and the pages differ in {', '.join(wrong)}")
    return config


def find_pages(nav: Any) -> Iterator[str]:
    """The files of a navigation, but no addresses."""
    if isinstance(nav, str):
        if "://" not in nav:
            yield nav
        return
    for entry in nav:
        for inside in entry.values() if isinstance(entry, dict) else [entry]:
            yield from find_pages(inside)


def build(out: Path) -> None:
    """The site in `out`; raises StalePage, or CalledProcessError for a dead link."""
    check_tables()
    stage = out.with_name(f"{out.name}-source")
    shutil.rmtree(stage, ignore_errors=True)
    gather(stage / "docs")
    config = configure(stage / "docs")
    (stage / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    subprocess.run([*command, "--config-file", "mkdocs.yml"], cwd=stage, check=True)
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(stage / "site", out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    try:
        build(parser.parse_args().out)
    except (StalePage, subprocess.CalledProcessError) as exc:
        sys.exit(f"error: {exc}")
