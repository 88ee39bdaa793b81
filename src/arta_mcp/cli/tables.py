"""Tables, times and counts as a terminal shows them; a pipe gets plain tabs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from arta_mcp.cli.console import columns, print_data

MIN_LAST = 20
"""columns that the last cell of a line needs; where fewer are left it has a line of its own"""


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """On a terminal aligned columns under a header, the last cut to its width; else tabs, uncut."""
    # Uncut and without a header, for `cut -f` and `while read`.
    if not sys.stdout.isatty():
        for row in rows:
            print_data("\t".join(row))
        return
    # tqdm knows how many columns a character takes, and is installed for the bar anyway.
    from tqdm.utils import disp_len, disp_trim

    lines = [header, *rows]
    widths = [max(map(disp_len, cells)) for cells in zip(*lines, strict=True)]
    widths[-1] = 0  # nothing stands behind the last cell, so it needs no blanks
    # Only the last one is cut: half of a record id is none.
    left = columns() - sum(width + 2 for width in widths[:-1])
    between = ""
    if left < min(MIN_LAST, max(disp_len(line[-1]) for line in lines)):
        between, left = "\n  ", max(1, columns() - 2)
    for line in lines:
        cells = zip(line, widths, strict=True)
        *first, last = (cell + " " * (width - disp_len(cell)) for cell, width in cells)
        begun = "".join(f"{cell}  " for cell in first)
        last = last if disp_len(last) <= left else f"{disp_trim(last, left - 1)}…"
        print_data(f"{begun.rstrip()}{between}{last}" if between else begun + last)


def format_time(when: float) -> str:
    """A moment, in seconds since the epoch, in this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))


def count_of(number: int, word: str) -> str:
    """`1 model`, `2 models`"""
    return f"{number} {word}{'' if number == 1 else 's'}"
