"""The standard streams of this process: never missing, and a stderr that blocks nobody."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

MAX_UNREAD = 256 * 1024
"""characters that wait for a reader of stderr; further ones are dropped"""

FLUSH_TIMEOUT = 0.5
"""seconds that the last words have at the end of the process"""


def replace_missing_streams() -> None:
    """Gives stdin, stdout and stderr that are closed something that is empty and takes all.

    Without it `print` to a missing stderr goes to stdout, which is the protocol, and the next file
    that is opened takes its descriptor.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # From the lowest on, so that each lands on the number that it is for.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # for the life of the process


class UnblockedStream(io.TextIOBase):
    """A stream that a thread passes on to another: who writes never waits for its reader."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting = deque[str]()
        self._size = self._is_dropping = False
        self._changed = threading.Condition()
        # A daemon: it may be in a write that never ends.
        self._thread = threading.Thread(target=self._pass_on, name="stderr", daemon=True)
        self._thread.start()

    def write(self, text: str, /) -> int:
        """Takes the text, or drops it; never waits."""
        with self._changed:
            # Until the reader reads again: a line comes in several pieces.
            if self._is_dropping or self._size + len(text) > MAX_UNREAD:
                self._is_dropping = True
            else:
                self._waiting.append(text)
                self._size += len(text)
                self._changed.notify_all()
        return len(text)

    def flush_for(self, seconds: float) -> None:
        """Waits until all is passed on, but not longer."""
        with self._changed:
            self._changed.wait_for(lambda: not self._size, seconds)

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor of the stream behind it."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Whether the stream behind it is a terminal."""
        return self._stream.isatty()

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]  # as TextIOWrapper has it
        """That of the stream behind it."""
        return self._stream.encoding

    def _pass_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                text = "".join(self._waiting)
                self._waiting.clear()
                if self._is_dropping:
                    text += "\n... what nobody read in time was dropped\n"
                    self._is_dropping = False
            # A reader that has gone is no trouble of whoever logs.
            with suppress(OSError, ValueError):
                self._write(text)
            with self._changed:
                self._size = sum(map(len, self._waiting))
                self._changed.notify_all()

    def _write(self, text: str) -> None:
        try:
            descriptor = self._stream.fileno()
        except OSError:
            self._stream.write(text)
            self._stream.flush()
            return
        # Past the stream's own buffer, whose lock Python waits for at its end.
        rest = memoryview(text.encode(self._stream.encoding, "backslashreplace"))
        while rest:
            rest = rest[os.write(descriptor, rest) :]


@contextmanager
def unblock_stderr() -> Generator[None]:
    """While this lasts nothing that is written to `sys.stderr` waits for a reader."""
    before = sys.stderr
    sys.stderr = unblocked = UnblockedStream(before)
    try:
        yield
    finally:
        unblocked.flush_for(FLUSH_TIMEOUT)
        sys.stderr = before
