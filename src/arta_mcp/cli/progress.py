"""What a terminal shows while one waits and when one reads: a bar, and tables."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from arta_mcp.generations.values import Update
from arta_mcp.redaction import sanitize

WIDEST_BAR = 72
"""columns"""

FRAME = 0.2
"""seconds between two drawings of a bar"""

_ALMOST = 0.98
"""how full a bar gets before the end is known"""

_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}


@dataclass(frozen=True, slots=True)
class Line:
    """One drawing of a bar; without a share nothing is known about the end, and no bar is drawn."""

    before: str
    after: str
    share: float | None = None


class Bar:
    """One line of a terminal that `line` is asked for again and again until `close`."""

    def __init__(self, line: Callable[[], Line]) -> None:
        from tqdm import tqdm

        self._line = line
        self._bar = tqdm(total=1.0, file=sys.stderr, leave=False, bar_format="{desc}")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="arta-bar", daemon=True)
        self._thread.start()

    def close(self, last: Line | None = None) -> None:
        """Leaves `last` behind, or nothing at all."""
        self._over.set()
        self._thread.join()
        if last is not None:
            self._draw(last)
            self._bar.leave = True
        self._bar.close()

    def _run(self) -> None:
        # A thread and no task: it moves on while the loop imports, and no error needs unwrapping.
        while True:
            self._draw(self._line())
            if self._over.wait(FRAME):
                return

    def _draw(self, line: Line) -> None:
        self._bar.ncols = min(WIDEST_BAR, columns(default=WIDEST_BAR + 1) - 1)
        # tqdm's own postfix comes with a comma; `after` is ours and has no braces
        self._bar.bar_format = f"{{desc}}{line.after}"
        if line.share is not None:
            self._bar.bar_format = f"{{desc}}|{{bar}}| {line.after}"
            self._bar.n = max(self._bar.n, min(1.0, line.share))
        self._bar.set_description_str(f"{line.before:<8} ", refresh=True)


class Reporter:
    """Progress of one generation for people: a bar on a terminal, a line a change elsewhere."""

    def __init__(self, talk: Callable[[str], None]) -> None:
        self._talk = talk
        self._update: Update | None = None
        self._told_at = time.monotonic()
        self._step = ""
        self._bar = Bar(self._line) if is_terminal() else None
        self.record_id: str | None = None

    async def __call__(self, update: Update) -> None:
        self.record_id = update.record_id or self.record_id
        self._update, self._told_at = update, time.monotonic()
        if self._bar is None and update.step != self._step:
            left = [] if update.remaining is None else [in_words(update.remaining)]
            self._talk(", ".join([update.step, f"{update.waited:.0f} s", *left]))
        self._step = update.step

    def close(self, *, is_done: bool) -> None:
        if self._bar is not None:
            waited = (self._update.waited if self._update else 0.0) + self._since
            self._bar.close(Line("done", f"{waited:.1f} s", 1.0) if is_done else None)
            self._bar = None

    @property
    def _since(self) -> float:
        return time.monotonic() - self._told_at

    def _line(self) -> Line:
        update, since = self._update, self._since
        if update is None:
            return Line("starting", f"{since:.0f} s")
        waited = update.waited + since
        after = [f"{waited:.0f} s"]
        if update.remaining is None:
            after += ["the first of this model, so no forecast"] if update.record_id else []
            return Line(update.step, ", ".join(after))
        left = max(0.0, update.remaining - since)
        after.append(in_words(left))
        share = min(_ALMOST, waited / max(0.1, waited + left))
        return Line(update.step, ", ".join(after), share)


def in_words(left: float) -> str:
    """How long it still takes; forecasts are no better than to the second."""
    if left >= 90:
        return f"about {left / 60:.0f} min left"
    return f"about {left:.0f} s left" if left >= 1.5 else "any moment now"


def is_terminal() -> bool:
    """Whether somebody watches stderr."""
    return sys.stderr.isatty()


def columns(default: int = 80) -> int:
    """How wide the terminal is that somebody watches."""
    for stream in (sys.stderr, sys.stdout):
        try:
            return os.get_terminal_size(stream.fileno()).columns or default
        except (OSError, ValueError):
            continue
    return default


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """On a terminal aligned columns under a header, cut to its width; elsewhere tabs, uncut."""
    if not sys.stdout.isatty():
        return ["\t".join(row) for row in rows]
    from tqdm.utils import disp_len, disp_trim

    lines = [tuple(header), *rows]
    widths = [max(disp_len(line[i]) for line in lines) for i in range(len(header) - 1)]
    padded = (
        "  ".join(
            [
                cell + " " * (width - disp_len(cell))
                for cell, width in zip(line, widths, strict=False)
            ]
            + [line[-1]]
        )
        for line in lines
    )
    return [_cut(line, columns(), disp_len, disp_trim) for line in padded]


def _cut(
    line: str, width: int, length: Callable[[str], int], trim: Callable[[str, int], str]
) -> str:
    return line if length(line) <= width else f"{trim(line, width - 1)}…"


def mark(status: str, environ: Mapping[str, str]) -> str:
    """`ok`, `warn` or `fail`, in colour where somebody sees it and does not mind."""
    word = f"{status:<4}"
    if not sys.stdout.isatty() or environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return word
    return f"\x1b[{_COLOURS[status]}m{word}\x1b[0m"


def folded(text: str, *, indent: int) -> list[str]:
    """The text in lines that fit behind an indent on a terminal; elsewhere one line."""
    if not sys.stdout.isatty():
        return [text]
    import textwrap

    return textwrap.wrap(text, max(20, columns() - indent), break_on_hyphens=False) or [""]


def counted(number: int, word: str) -> str:
    """`1 model`, `2 models`"""
    return f"{number} {word}{'' if number == 1 else 's'}"


def moment(when: float) -> str:
    """A time of day here; `when` is in seconds since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))


def one_line(text: str) -> str:
    """A prompt that cannot move the cursor or break the line."""
    return sanitize(text, 4000)
