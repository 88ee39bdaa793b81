"""Repair of half surrogate pairs, without which the SDK never replies to such a line.

`JSON.stringify` of a string that was cut within an emoji writes half of a surrogate pair as an
escape (RFC 8259, section 8.2, leaves open what a reader makes of it). pydantic's parser refuses it,
and `mcp.server.stdio`, 2.3, then drops the request without a reply. The halves become U+FFFD. To
be removed when the SDK replies to a line that it cannot parse.
"""

from __future__ import annotations

import json
import os
import threading
from typing import Protocol


class Wire(Protocol):
    """Both ends of a connection, as blocking text file methods."""

    def readline(self) -> str:
        """One line with its end; nothing when the other side has closed."""
        ...

    def write(self, text: str, /) -> object:
        """One message with its line end."""
        ...

    def flush(self) -> object:
        """Sends what was kept back."""
        ...


class SurrogateRepair:
    """A wire whose lines are repaired on their way in."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.write = wire.write
        self.flush = wire.flush

    def readline(self) -> str:
        """The wire's next line, repaired."""
        return repair_surrogates(self._wire.readline())


def repair_surrogates(line: str) -> str:
    """The line, with every half of a surrogate pair replaced; all else byte for byte."""
    # Nearly every line ends here, unparsed; the others are parsed twice.
    if "\\ud" not in line.lower():
        return line
    try:
        text = json.dumps(json.loads(line), ensure_ascii=False)
    except (ValueError, RecursionError):
        return line
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return line if whole == text else f"{whole}\n"


def repair_stdin() -> None:
    """Puts a pipe before stdin whose other end is fed with repaired lines; ends with stdin."""
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
                    out.write(repair_surrogates(line))
                    out.flush()
            except OSError:
                return  # the server has ended

    # A daemon, as it stands in a read until the host says more, even when the server has ended.
    threading.Thread(target=feed, name="surrogate repair", daemon=True).start()
