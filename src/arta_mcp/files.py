"""Files that only their owner may read, and files that are written whole or not at all.

Every other room writes through here, so that modes and half-written files are thought about once.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path


class UnsafeFolder(OSError):
    """What stands at a path is no folder of this user's own: a link, a file, another user's."""


def make_private_folder(folder: Path) -> None:
    """Makes a folder that only its owner can enter, and what is missing above it.

    A folder that is open to others is closed to them. Raises UnsafeFolder, whose text goes on
    after the folder's name, and OSError.
    """
    for path in (*reversed(folder.parents), folder):  # mkdir gives its mode to the last one only
        if not path.exists():
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFolder("is a link or no folder")
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise UnsafeFolder("belongs to another user")
    if os.name == "posix" and found.st_mode & 0o077:
        folder.chmod(0o700)


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Replaces a file whole or not at all, in this mode from its first byte. Raises OSError.

    `sync` waits until the content is on the disk: a power cut must not leave an empty file where
    a good one was.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.draft")
    write_new(draft, content, mode=mode, sync=sync)
    try:
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_new(path: Path, content: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Writes a file that does not exist yet; nothing is left of it when that fails.

    Raises FileExistsError and OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
