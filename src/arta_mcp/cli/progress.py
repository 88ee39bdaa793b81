"""What a terminal shows while one waits: a bar, or a line a change where there is none."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from arta_mcp.cli.console import columns, is_terminal, print_message
from arta_mcp.generations.values import Update

MAX_BAR_COLUMNS = 72

FRAME_INTERVAL = 0.2
"""seconds between two drawings of a bar"""

MAX_SHARE = 0.98
"""how full a bar gets before the end is known: a forecast may be too early"""


@dataclass(frozen=True, slots=True)
class BarState:
    """One drawing of a bar; without a share nothing is known about the end, and no bar is drawn."""

    label: str
    note: str
    share: float | None = None


class Bar:
    """One line of a terminal, drawn again every FRAME_INTERVAL until `close`."""

    def __init__(self, read_state: Callable[[], BarState]) -> None:
        """`read_state` is called in a thread, so it only reads."""
        from tqdm import tqdm

        self._read_state = read_state
        # tqdm serves as a canvas: it knows widths, half blocks, and how others print beside it.
        self._bar = tqdm(total=1.0, file=sys.stderr, leave=False, bar_format="{desc}")
        self._closed = threading.Event()
        # A thread and no task of the event loop: the first call imports for most of a second, in
        # which the loop stands still and the bar must not.
        self._thread = threading.Thread(target=self._run, name="arta-bar", daemon=True)
        self._thread.start()

    def close(self, last: BarState | None = None) -> None:
        """Leaves `last` behind, or nothing at all."""
        self._closed.set()
        self._thread.join()
        if last is not None:
            self._draw(last)
            self._bar.leave = True
        self._bar.close()

    def _run(self) -> None:
        self._draw(self._read_state())
        while not self._closed.wait(FRAME_INTERVAL):
            self._draw(self._read_state())

    def _draw(self, state: BarState) -> None:
        # One column less than there is: a full line makes some terminals go to the next one.
        self._bar.ncols = min(MAX_BAR_COLUMNS, columns(default=MAX_BAR_COLUMNS + 1) - 1)
        # Not tqdm's own postfix, which comes with a comma; our notes have no braces.
        self._bar.bar_format = f"{{desc}}{state.note}"
        if state.share is not None:
            self._bar.bar_format = f"{{desc}}|{{bar}}| {state.note}"
            self._bar.n = max(self._bar.n, state.share)
        self._bar.set_description_str(f"{state.label:<8} ", refresh=True)


class ProgressDisplay:
    """An `on_update` for people: a bar on a terminal, a line a change elsewhere."""

    def __init__(self) -> None:
        self.record_id: str | None = None
        """the last that an update named"""
        self._update: Update | None = None
        self._updated_at = time.monotonic()
        self._bar = Bar(self.bar_state) if is_terminal() else None

    async def __call__(self, update: Update) -> None:
        """Takes an update in; without a bar a new step is a new line."""
        step_before = self._update.step if self._update else ""
        self.record_id = update.record_id or self.record_id
        self._update, self._updated_at = update, time.monotonic()
        if self._bar is None and update.step != step_before:
            words = [update.step, f"{update.waited:.0f} s"]
            if update.remaining is not None:
                words.append(format_remaining(update.remaining))
            print_message(", ".join(words))

    def close(self, *, is_done: bool) -> None:
        """Ends the bar; a finished one stays on the screen with the time that it took."""
        if self._bar is not None:
            waited = self._update.waited if self._update else 0.0
            waited += time.monotonic() - self._updated_at
            self._bar.close(BarState("done", f"{waited:.1f} s", 1.0) if is_done else None)
            self._bar = None

    def bar_state(self) -> BarState:
        """One drawing of the bar: what the last update said, and the time since."""
        update, since = self._update, time.monotonic() - self._updated_at
        if update is None:
            return BarState("starting", f"{since:.0f} s")
        waited = update.waited + since
        notes = [f"{waited:.0f} s"]
        if update.ahead:
            notes.append(f"{update.ahead} ahead of it")
        if update.remaining is None:
            notes += ["the first of this model, so no forecast"] if update.record_id else []
            return BarState(update.step, ", ".join(notes))
        left = max(0.0, update.remaining - since)
        notes.append(format_remaining(left))
        share = min(MAX_SHARE, waited / max(0.1, waited + left))
        return BarState(update.step, ", ".join(notes), share)


def format_remaining(seconds: float) -> str:
    """How long it still takes; forecasts are no better than to the second."""
    if seconds >= 90:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds:.0f} s left" if seconds >= 1.5 else "any moment now"
