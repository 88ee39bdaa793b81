"""The sketch as an engine of the embedded service: in threads, and without Pillow until then."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace

import anyio.to_thread

from arta_mcp.engines.base import EngineInfo, GeneratedImage, ImageRequest, OnStep
from arta_mcp.engines.sketch.info import describe

MAX_THREADS = 2
"""drawing keeps the interpreter's lock for most of the time, a third thread would only wait"""

SWITCH_INTERVAL = 0.0005
"""seconds until a drawing thread lets another one run; a tenth of Python's default"""


class SketchEngine:
    """Draws in threads; `draw` gives a PNG, the sketch's own where none is given."""

    def __init__(self, draw: Callable[[ImageRequest], bytes] | None = None) -> None:
        self._draw = draw

    def describe(self) -> EngineInfo:
        """See `Engine.describe`."""
        # No more than there are processors: they would take them from the event loops.
        if hasattr(os, "sched_getaffinity"):  # Linux: fewer than there are, where it is bound
            processors = len(os.sched_getaffinity(0))
        else:
            processors = os.cpu_count() or 1
        return replace(describe(), parallel=min(MAX_THREADS, processors))

    async def generate(self, request: ImageRequest, on_step: OnStep) -> GeneratedImage:
        """See `Engine.generate`; a sketch that is begun is drawn to its end."""
        return GeneratedImage(data=await anyio.to_thread.run_sync(self._draw_often, request))

    async def aclose(self) -> None:
        """See `Engine.aclose`; there is nothing to free."""

    def _draw_often(self, request: ImageRequest) -> bytes:
        # Here and not above: Pillow loads when the first picture is due, in this thread.
        from arta_mcp.engines.sketch.engine import draw

        with _switching_often():
            return (self._draw or draw)(request)


_drawing_lock = threading.Lock()
_drawing_count = 0
_usual_interval = 0.0


@contextmanager
def _switching_often() -> Generator[None]:
    """While anything is drawn, threads that wait for the interpreter get it ten times as soon.

    Each call to the system gives the interpreter away, and a drawing thread then keeps it for one
    interval. An HTTP exchange has some ten such calls on each side: with the default of 5 ms it
    took a tenth of a second next to a drawing, and the 600 exchanges with which 200 calls begin
    took a minute.
    """
    global _drawing_count, _usual_interval  # the interval is the process's own
    with _drawing_lock:
        if not _drawing_count:
            _usual_interval = sys.getswitchinterval()
            sys.setswitchinterval(min(SWITCH_INTERVAL, _usual_interval))
        _drawing_count += 1
    try:
        yield
    finally:
        with _drawing_lock:
            _drawing_count -= 1
            if not _drawing_count:
                sys.setswitchinterval(_usual_interval)
