"""The bar: it fits its terminal, and it moves whatever else the process does."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable

import pytest

from arta_mcp.cli.progress import Bar, BarState
from harness.installed import TIMEOUT
from harness.shell import Screen


def drawn(screen: Screen, patch: pytest.MonkeyPatch, use: Callable[[], None]) -> list[str]:
    """The lines that are drawn while `use` has this screen as its stderr."""
    reader = threading.Thread(target=screen.read_all)
    reader.start()
    with patch.context() as patched, os.fdopen(screen.device, "w", encoding="utf-8") as display:
        patched.setattr(sys, "stderr", display)
        use()
    reader.join()
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", screen.text)
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]


@pytest.mark.parametrize("columns", [20, 45, 200])
def test_the_bar_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    def use() -> None:
        bar = Bar(lambda: BarState("drawing", "12 s, about 48 s left", 0.2))
        bar.close(BarState("done", "60.0 s", 1.0))

    with Screen(columns) as screen:
        lines = drawn(screen, monkeypatch, use)
    assert lines[0].startswith("drawing")
    assert re.match(r"done +\|", lines[-1])
    assert max(map(len, lines)) < columns


def test_the_bar_moves_while_its_caller_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = threading.Semaphore(0)

    def read_state() -> BarState:
        frames.release()
        return BarState("starting", "0 s")

    def use() -> None:
        bar = Bar(read_state)
        moves = [frames.acquire(timeout=TIMEOUT) for _ in range(3)]  # blocks, as an import does
        bar.close()
        assert all(moves)

    with Screen() as screen:
        assert drawn(screen, monkeypatch, use)[-1].startswith("starting")
