"""What a healthy state folder is like; a check reads, and changes nothing."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from arta_mcp.files import explain_sharing
from arta_mcp.redaction import sanitize
from arta_mcp.state.records import StateCheck


def check_folder(name: str, setting: str, folder: Path, *, private: bool) -> StateCheck:
    """Whether a folder can be written to, or made; `private` also asks whose it is."""
    elsewhere = f"set {setting} elsewhere"
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir():
        return StateCheck(name, "fail", f"{there} is no folder", elsewhere)
    if private and folder.is_symlink():
        return StateCheck(name, "fail", f"{folder} is a link", elsewhere)
    if not os.access(there, os.W_OK | os.X_OK):
        remedy = f"chmod it, or {elsewhere}"
        return StateCheck(name, "fail", f"{there} cannot be written to", remedy)
    if there != folder:
        return StateCheck(name, "ok", f"{folder}, made when it is needed")
    if private and os.name == "posix":
        found = folder.stat()
        if found.st_uid != os.getuid():
            return StateCheck(name, "fail", f"{folder} belongs to another user", elsewhere)
        if found.st_mode & 0o077:
            if why := explain_sharing(folder):
                remedy = f"{elsewhere}; or, if all in it is arta-mcp's, chmod -R go= {folder}"
                return StateCheck(name, "fail", f"{folder} {why}", remedy)
            mode = f"{stat.S_IMODE(found.st_mode):o}"
            detail = f"{folder} has mode {mode}: others can look inside"
            remedy = f"chmod 700 {folder}; the next call does it too"
            return StateCheck(name, "warn", detail, remedy)
    return StateCheck(name, "ok", f"{folder}, {'yours alone' if private else 'writable'}")


def check_modes(account_files: Iterable[Path]) -> Iterator[StateCheck]:
    """A line for each account file that others can read."""
    if os.name == "posix":
        for path in sorted(account_files):
            if path.stat().st_mode & 0o077:
                detail, remedy = f"others can read {path}", f"chmod 600 {path}"
                yield StateCheck("account file", "fail", detail, remedy)


def check_journal(path: Path) -> StateCheck:
    """Whether a journal can be read, and how much is in it; the server moves a damaged one."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            found = db.execute("PRAGMA quick_check(1)").fetchone()
            count = db.execute("SELECT count(*) FROM generations").fetchone()[0]
    except sqlite3.Error as exc:
        found, count = (sanitize(str(exc)),), 0
    if found == ("ok",):
        counted = f"{count} generation{'' if count == 1 else 's'}"
        return StateCheck("journal", "ok", f"{counted} in {path.name}")
    remedy = "the next call moves it aside and begins anew; to keep it, copy it now"
    return StateCheck("journal", "warn", f"{path} is damaged: {found[0]}", remedy)
