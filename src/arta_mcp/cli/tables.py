"""Lists, words and moments as a terminal shows them, and as a pipe takes them."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Mapping, Sequence

from arta_mcp.cli.console import columns
from arta_mcp.redaction import sanitize

_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}
"""status -> code of its colour (ECMA-48, SGR)"""


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """On a terminal aligned columns under a header, cut to its width; elsewhere tabs, uncut."""
    # Uncut and without a header, for `cut -f` and `while read`.
    if not sys.stdout.isatty():
        return ["\t".join(row) for row in rows]
    # tqdm knows how many columns a character takes, and is installed for the bar anyway.
    from tqdm.utils import disp_len, disp_trim

    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(map(disp_len, cells)) for cells in zip(*lines, strict=True)]
    widths[-1] = 0  # nothing stands behind the last cell, so it needs no blanks
    shown: list[str] = []
    for line in lines:
        padded = [
            cell + " " * (width - disp_len(cell)) for cell, width in zip(line, widths, strict=True)
        ]
        text, limit = "  ".join(padded), columns()
        shown.append(text if disp_len(text) <= limit else f"{disp_trim(text, limit - 1)}…")
    return shown


def format_status(status: str, environ: Mapping[str, str]) -> str:
    """`ok`, `warn` or `fail` in four columns; coloured on a terminal, unless NO_COLOR is set."""
    word = f"{status:<4}"
    if not sys.stdout.isatty() or environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return word
    return f"\x1b[{_COLOURS[status]}m{word}\x1b[0m"


def wrap(text: str, *, indent: int) -> list[str]:
    """The text in lines that fit behind an indent on a terminal; elsewhere one line."""
    if not sys.stdout.isatty():
        return [text]
    return textwrap.wrap(text, max(20, columns() - indent), break_on_hyphens=False) or [""]


def count_of(number: int, word: str) -> str:
    """`1 model`, `2 models`"""
    return f"{number} {word}{'' if number == 1 else 's'}"


def format_time(when: float) -> str:
    """A moment, in seconds since the epoch, in this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))


def one_line(text: str) -> str:
    """A prompt that cannot move the cursor or break the line."""
    return sanitize(text, 4000)
