"""Reads a host's configuration file and replaces it whole: backup, mode and links are kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from arta_mcp.errors import ConfigError


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file as it was when it was read; `content` is None when there was none."""

    path: Path
    """as people know it"""
    target: Path
    """the same with links followed: what is replaced"""
    content: bytes | None

    @classmethod
    def read(cls, path: Path) -> HostFile:
        """Raises ConfigError."""
        with _told(path, "cannot be read"):
            target = path.resolve()
            if target.is_symlink():  # what `resolve` gives up on, from Python 3.13 without a word
                raise ConfigError(f"{path} is a link that leads in a circle")
            content = target.read_bytes() if target.exists() else None
        return cls(path, target, content)

    @property
    def text(self) -> str:
        """What it says, line ends as they are; nothing when there is no file."""
        content = self.content or b""
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as exc:
            line = content.count(b"\n", 0, exc.start) + 1
            raise ConfigError(
                f"{self.path} is not UTF-8: line {line} holds byte 0x{content[exc.start]:02x}",
                hint="save it as UTF-8; it was left as it is",
            ) from exc

    def replace(self, text: str, *, now: datetime, is_private: bool) -> Path | None:
        """Writes `text` and gives the path of the backup, None for a new file.

        The new file is private when it holds a secret; one that was there keeps its mode.
        Raises ConfigError; then nothing has changed.
        """
        with _told(self.path, "cannot be written"):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            mode = None if self.content is None else stat.S_IMODE(self.target.stat().st_mode)
            locked = mode is not None and not mode & 0o222  # root could write it all the same
            if locked or (mode is not None and not os.access(self.target, os.W_OK)):
                raise ConfigError(f"{self.path} is read-only", hint="change it where it is made")
            beside = self.target.with_name(f".{self.target.name}.{os.getpid()}.part")
            try:
                _write_new(
                    beside, text.encode(), 0o666 if mode is None and not is_private else 0o600, mode
                )
                self._check_unchanged()
                backup = self._back_up(now, mode)
                beside.replace(self.target)
            finally:
                beside.unlink(missing_ok=True)
        return backup

    def _check_unchanged(self) -> None:
        """A running host may write its file at any time."""
        content = self.target.read_bytes() if self.target.exists() else None
        if content != self.content:
            raise ConfigError(
                f"{self.path} has changed while it was edited",
                hint="quit the program that writes it, then run this again",
            )

    def _back_up(self, now: datetime, mode: int | None) -> Path | None:
        # Beside the link and not beside its target: that may be a folder under version control.
        if self.content is None:
            return None
        for number in count(1):
            again = f"-{number}" if number > 1 else ""
            backup = self.path.with_name(f"{self.path.name}.{now:%Y%m%d-%H%M%S}{again}.bak")
            try:
                _write_new(backup, self.content, 0o600, mode)
            except FileExistsError:
                continue
            return backup
        raise AssertionError("there is always another number")


def _write_new(path: Path, content: bytes, mode_at_first: int, mode: int | None) -> None:
    """A file that did not exist, on disk when this returns; readable to nobody else before."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, mode_at_first), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if mode is not None:
        path.chmod(mode)


@contextmanager
def _told(path: Path, what: str) -> Generator[None]:
    try:
        yield
    except (OSError, RuntimeError) as exc:  # RuntimeError: links that lead in a circle
        reason = (isinstance(exc, OSError) and exc.strerror) or str(exc)
        raise ConfigError(f"{path} {what}: {reason}", hint="it was left as it is") from exc
