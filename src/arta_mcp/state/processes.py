"""Which processes live: a file each, locked for as long as its process does."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class ProcessRegistry:
    """The processes on one state folder, by random ids.

    The operating system frees a lock when its holder dies, however it dies, and it never frees one
    early: no clock and no lease is involved. Call `register` and `sweep` under the journal's lock,
    so that no file is swept away between its making and its locking.
    """

    def __init__(self, folder: Path) -> None:
        self.id = secrets.token_hex(8)
        self._folder = folder
        self._handle: int | None = None

    def register(self) -> None:
        """Says that this process lives; raises OSError."""
        self.leave()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        # Windows has no fcntl; there a file that is open cannot be removed, which is as good.
        self._handle = os.open(self._path(self.id), os.O_RDWR | os.O_CREAT, 0o600)
        if sys.platform != "win32":
            fcntl.flock(self._handle, fcntl.LOCK_EX)

    def leave(self) -> None:
        """Says that this process is gone, as its death would."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
            self._path(self.id).unlink(missing_ok=True)

    def is_alive(self, process: str) -> bool:
        """Whether a process that registered is still there."""
        if process == self.id and self._handle is not None:
            return True
        path = self._path(process)
        try:
            if sys.platform == "win32":
                path.unlink()
                return False
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        except PermissionError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask do not clash
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def sweep(self) -> None:
        """Removes the files of the dead; an absent file says the same."""
        for path in self._folder.glob("*.lock"):
            if path.stem != self.id and not self.is_alive(path.stem):
                path.unlink(missing_ok=True)

    def _path(self, process: str) -> Path:
        return self._folder / f"{process}.lock"
