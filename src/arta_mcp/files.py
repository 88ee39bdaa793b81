"""Private folders, locked folders, and files that are written whole or not at all.

Only the standard library: what goes wrong is an OSError, and each room says it in its own words.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class UnsafeFolder(OSError):
    """What stands at a path is no folder of this user's own; the text goes on after the path."""


def make_private_folder(path: Path) -> None:
    """Makes a folder that only its owner can enter, and what is missing above it.

    One that is open to others is closed to them, unless they use it, too. Raises OSError,
    UnsafeFolder among them for a shared folder, another user's, a link, or another kind of file.
    """
    for folder in (*reversed(path.parents), path):  # `mkdir(parents=True)` gives its mode to one
        if not folder.exists():
            with suppress(FileExistsError):  # another process was faster
                folder.mkdir(mode=0o700)
    found = path.lstat()
    # A link or a stranger's folder in a shared place could be turned elsewhere after this check.
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFolder("is a link or no folder")
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise UnsafeFolder("belongs to another user")
    if os.name == "posix" and found.st_mode & 0o077:
        if why := explain_sharing(path):
            raise UnsafeFolder(why)
        path.chmod(0o700)


def explain_sharing(folder: Path) -> str:
    """Why others may need a folder that is open to them, after its path; "" when none does.

    All that we write is its owner's alone, so what others can read there is not ours. Raises
    OSError.
    """
    if folder.stat().st_mode & stat.S_ISVTX:
        return "is shared by all users, as its sticky bit says"
    for inside in sorted(folder.iterdir()):
        with suppress(FileNotFoundError):
            found = inside.lstat()
            is_open = found.st_mode & 0o077 or found.st_uid != os.getuid()
            if is_open and not stat.S_ISLNK(found.st_mode) and _keeps_modes(folder):
                return f"is open to others, and so is {inside.name!r} in it"
    return ""


def _keeps_modes(folder: Path) -> bool:
    # Where all files have one mode (a Windows disk under Linux), a mode says nothing of anybody.
    probe = folder / f".{os.urandom(6).hex()}.draft"
    probe.mkdir(mode=0o700)
    try:
        return not probe.stat().st_mode & 0o077
    finally:
        probe.rmdir()


@contextmanager
def lock_folder(folder: Path, *, timeout: float) -> Generator[None]:
    """Holds a folder to the end of the block: no other process that asks for it holds it, too.

    A killed process holds nothing, and no lock file is left behind. Does nothing on Windows, and
    on network folders without locks. Raises TimeoutError after `timeout` seconds, and OSError.
    """
    if sys.platform == "win32":
        yield
        return
    handle, deadline = os.open(folder, os.O_RDONLY), time.monotonic() + timeout
    try:
        while _is_locked_by_another(handle):
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def _is_locked_by_another(handle: int) -> bool:
    if sys.platform != "win32":
        with suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def write_new(path: Path, content: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Writes a file that was not there; `mode` is exact.

    With `sync` it is on the disk when this returns: a power cut leaves no empty file. Raises
    OSError, FileExistsError when it is there; then it is as it was.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    # Private until it is whole: `mode` may be wider, and the umask must not narrow it.
    handle = os.open(path, flags, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if mode != 0o600:
            path.chmod(mode)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Replaces a file, or makes it: a reader finds the old or the new one, never a part.

    Raises OSError; then the file is as it was and nothing is left beside it.
    """
    draft = path.with_name(f".{path.name}.{os.urandom(6).hex()}.draft")
    write_new(draft, content, mode=mode, sync=sync)
    try:
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
