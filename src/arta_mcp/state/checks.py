"""What a healthy state folder is like; a check leaves everything as it was."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from arta_mcp.errors import ConfigError, Unavailable
from arta_mcp.files import UnsafeFolder, explain_sharing
from arta_mcp.redaction import sanitize
from arta_mcp.state.journal import VERSION, name_damaged_rows
from arta_mcp.state.records import StateCheck


def check_folder(name: str, setting: str, folder: Path, *, private: bool) -> StateCheck:
    """Whether a folder can be written to, or made; `private` also asks whose it is."""
    elsewhere = f"set {setting} elsewhere"
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir():
        return StateCheck(name, "fail", f"{there} is no folder", elsewhere)
    if private and folder.is_symlink():
        return StateCheck(name, "fail", f"{folder} is a link", elsewhere)
    # Tried, since `os.access` is wrong about /proc, and about root on a file system of others.
    probe = there / f".arta-mcp-{os.urandom(6).hex()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as exc:
        why = sanitize(exc.strerror or type(exc).__name__).lower()
        remedy = f"chmod it or make room, or {elsewhere}"
        return StateCheck(name, "fail", f"{there} cannot be written to ({why})", remedy)
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


def explain_folder_error(folder: Path, exc: OSError) -> ConfigError | Unavailable:
    """What to do about a state folder that cannot be used."""
    where = f"the state folder {folder}"
    if isinstance(exc, UnsafeFolder):
        return ConfigError(f"{where} {exc}", hint="set ARTA_STATE_DIR elsewhere")
    why = exc.strerror or type(exc).__name__
    return Unavailable(
        f"{where} cannot be used: {sanitize(why)}",
        hint="make room or set the permissions, or set ARTA_STATE_DIR elsewhere",
    )


def check_modes(account_files: Iterable[Path]) -> Iterator[StateCheck]:
    """A line for each account file that others can read."""
    if os.name == "posix":
        for path in sorted(account_files):
            if path.stat().st_mode & 0o077:
                detail, remedy = f"others can read {path}", f"chmod 600 {path}"
                yield StateCheck("account file", "fail", detail, remedy)


def check_journal(path: Path) -> StateCheck:
    """Whether a journal can be read, and how much is in it; the server moves a damaged one."""
    damaged: list[str] = []
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                detail = f"{path} belongs to a newer arta-mcp"
                remedy = "start the newer version, or set ARTA_STATE_DIR elsewhere"
                return StateCheck("journal", "fail", detail, remedy)
            found = db.execute("PRAGMA quick_check(1)").fetchone()
            count = db.execute("SELECT count(*) FROM generations").fetchone()[0]
            if version == VERSION:
                damaged += name_damaged_rows(db)
    except sqlite3.Error as exc:
        found, count = (sanitize(str(exc)),), 0
    if found != ("ok",):
        remedy = "the next call moves it aside and begins anew; to keep it, copy it now"
        return StateCheck("journal", "warn", f"{path} is damaged: {found[0]}", remedy)
    counted = f"{count} generation{'' if count == 1 else 's'} in {path.name}"
    if damaged:
        detail = f"{counted}; {'; '.join(damaged[:3])}"
        return StateCheck("journal", "warn", detail, "the others work; nothing needs to be done")
    return StateCheck("journal", "ok", counted)
