"""Reads a host's configuration file and replaces it whole: backup, mode and links are kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from arta_mcp.errors import ConfigError
from arta_mcp.files import write_atomically, write_new


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file as it was when it was read; `content` is None when there was none."""

    path: Path
    """as people know it"""
    target: Path
    """the same with links followed: what is replaced"""
    content: bytes | None

    @classmethod
    def read(cls, path: Path) -> ConfigFile:
        """Raises ConfigError."""
        with _name_file_in_errors(path, "cannot be read"):
            target = path.resolve()
            # What `resolve` gives up on, from Python 3.13 without a word.
            if target.is_symlink():
                raise ConfigError(f"{path} is a link that leads in a circle")
            content = target.read_bytes() if target.exists() else None
        return cls(path, target, content)

    @property
    def text(self) -> str:
        """What it says, line ends as they are; "" when there is none. Raises ConfigError."""
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

        A file that was there keeps its mode; a new one is its owner's alone when `is_private`.
        Raises ConfigError; then nothing has changed.
        """
        with _name_file_in_errors(self.path, "cannot be written"):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            mode = 0o600
            if self.content is not None:
                mode = stat.S_IMODE(self.target.stat().st_mode)
                # Replacing asks the folder, not the file, and root is never refused.
                if not mode & 0o222 or not os.access(self.target, os.W_OK):
                    raise ConfigError(
                        f"{self.path} is read-only", hint="change it where it is made"
                    )
            elif not is_private:
                # The one way to read the umask is to set it; no other thread makes files here.
                umask = os.umask(0o077)
                os.umask(umask)
                mode = 0o666 & ~umask
            backup = self.back_up(now)
            try:
                # A host that runs may write its file at any time, and its words would be lost.
                if (self.target.read_bytes() if self.target.exists() else None) != self.content:
                    raise ConfigError(
                        f"{self.path} has changed while it was edited",
                        hint="quit the program that writes it, then run this again",
                    )
                write_atomically(self.target, text.encode(), mode=mode)
            except BaseException:
                if backup:
                    backup.unlink(missing_ok=True)
                raise
        return backup

    def back_up(self, now: datetime) -> Path | None:
        """Writes what was read beside the path, mode and all; None when there was no file.

        Raises OSError.
        """
        if self.content is None:
            return None
        mode = stat.S_IMODE(self.target.stat().st_mode)
        for number in count(1):
            again = f"-{number}" if number > 1 else ""
            # Beside the link, not its target: that may be a folder under version control.
            backup = self.path.with_name(f"{self.path.name}.{now:%Y%m%d-%H%M%S}{again}.bak")
            with suppress(FileExistsError):
                write_new(backup, self.content, mode=mode)
                return backup
        raise AssertionError("there is always another number")


@contextmanager
def _name_file_in_errors(path: Path, what: str) -> Generator[None]:
    try:
        yield
    except (OSError, RuntimeError) as exc:  # RuntimeError: links that lead in a circle
        reason = (isinstance(exc, OSError) and exc.strerror) or str(exc)
        raise ConfigError(f"{path} {what}: {reason}", hint="it was left as it is") from exc
