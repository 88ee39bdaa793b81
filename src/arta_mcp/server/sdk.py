"""Lines from hosts that cut an emoji in half: without mending, the SDK never answers them.

`JSON.stringify` writes half of a surrogate pair as an escape, which is no text to the SDK's parser;
it then drops the request without a word. The halves become U+FFFD.
"""

from __future__ import annotations

import json
import os
import threading
from typing import Protocol


class Wire(Protocol):
    """Both ends of a connection, as blocking text file methods."""

    def readline(self) -> str: ...
    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


class MendedWire:
    """A wire whose lines are mended on their way in."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.write = wire.write
        self.flush = wire.flush

    def readline(self) -> str:
        return mended(self._wire.readline())


def mended(line: str) -> str:
    """The line, with every half of a surrogate pair replaced; all else byte for byte."""
    if "\\ud" not in line.lower():
        return line
    try:
        text = json.dumps(json.loads(line), ensure_ascii=False)
    except (ValueError, RecursionError):
        return line
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return line if whole == text else f"{whole}\n"


def mend_stdin() -> None:
    """Puts a pipe before stdin whose other end is fed with mended lines; ends with stdin."""
    source = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)

    def feed() -> None:
        with (
            os.fdopen(source, encoding="utf-8", errors="replace") as lines,
            os.fdopen(writing, "w", encoding="utf-8") as out,
        ):
            try:
                for line in lines:
                    out.write(mended(line))
                    out.flush()
            except OSError:
                return  # the server has ended

    threading.Thread(target=feed, name="mended stdin", daemon=True).start()
