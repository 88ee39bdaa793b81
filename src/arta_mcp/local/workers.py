"""When the pictures of a job are drawn: off the event loop, and by whichever process is asked."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from arta_mcp.engines.base import ImageRequest
from arta_mcp.local.store import Record, Store
from arta_mcp.redaction import sanitize
from arta_mcp.styles import category_of

Engine = Callable[[ImageRequest], bytes]
"""draws a picture as PNG; the same request gives the same picture"""

MAX_REMEMBERED = 1000
"""jobs whose outcome a process remembers, so that a failed one is not tried again"""

MAX_THREADS = 2
"""drawing keeps the interpreter's lock for most of the time, a third thread would only wait"""

SWITCH_INTERVAL = 0.0005
"""seconds until a drawing thread lets another one run; a tenth of Python's default"""

QUIET, MAX_CROWDING = 0.1, 5.0
"""seconds without a new job until drawing goes on while a crowd comes, and after which it does so
in any case"""

PNG = b"\x89PNG\r\n\x1a\n"

_log = logging.getLogger(__name__)


class DrawingWorkers:
    """Threads that draw the pictures of jobs, in the order of the jobs, each picture once.

    A job that another process left unfinished is drawn again from its record, which gives the
    same pictures, since an engine repeats itself.
    """

    def __init__(self, store: Store, engine: Engine | None) -> None:
        self._store, self._engine = store, engine
        # No more than there are processors: they would take them from the event loops.
        threads = min(MAX_THREADS, _usable_processors())
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="arta-draw")
        self.drawings: dict[str, list[Future[None]]] = {}
        """by record id, of the pictures that this process began"""
        self._unfinished: dict[str, int] = {}
        """how many pictures of a job are still to come, in the order of the jobs"""
        self._lock = threading.Lock()
        self._closed = False
        self._crowd_began = self._last_came = -QUIET
        """when the first and the last came of the jobs that came soon after each other"""

    def start_job(self, record: Record) -> None:
        """Have the pictures that are missing drawn, unless they are being drawn or have failed."""
        jobs = self.drawings
        is_under_way = record.record_id in self._unfinished
        # In this order: a picture that is finished between both lines is not drawn again.
        missing = self.missing_pictures(record)
        # A failure is not tried again: the engine would fail as before.
        if self._closed or is_under_way or self.failure(record.record_id) or not missing:
            return
        while len(jobs) >= MAX_REMEMBERED:
            oldest = next((name for name in jobs if name not in self._unfinished), None)
            if oldest is None:
                break  # all are under way: none may be forgotten
            del jobs[oldest]
        now = time.monotonic()
        if now - self._last_came > QUIET:
            self._crowd_began = now
        self._last_came = now
        with self._lock:
            self._unfinished[record.record_id] = len(missing)
        drawings = [self._threads.submit(self._draw, record, index) for index in missing]
        jobs[record.record_id] = drawings

    @property
    def is_busy(self) -> bool:
        """Whether a job is waiting or being drawn in this process."""
        return bool(self._unfinished)

    def jobs_ahead(self, record_id: str) -> int | None:
        """How many jobs come before one that waits; None for one that does not, or not here."""
        if any(drawing.running() or drawing.done() for drawing in self.drawings.get(record_id, ())):
            return None
        with self._lock:
            waiting = list(self._unfinished)
        return waiting.index(record_id) if record_id in waiting else None

    def missing_pictures(self, record: Record) -> list[int]:
        """The pictures of the job that are not on disk yet, by their index."""
        has_picture, count = self._store.has_picture, record.submission.n
        return [index for index in range(count) if not has_picture(record.record_id, index)]

    def failure(self, record_id: str) -> str | None:
        """Why the engine gave a job up, as far as this process knows."""
        for drawing in self.drawings.get(record_id, ()):
            if drawing.done() and not drawing.cancelled() and (exc := drawing.exception()):
                return f"the engine could not draw: {sanitize(repr(exc), 200)}"
        return None

    def close(self) -> None:
        """Start no further picture; those being drawn end in their threads."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _draw(self, record: Record, index: int) -> None:
        # Here and not above: Pillow loads when the first picture is due, in this thread.
        from arta_mcp.engines.sketch.engine import draw

        request = ImageRequest(
            prompt=record.submission.prompt,
            negative_prompt=record.submission.negative_prompt,
            style=record.submission.style,
            category=category_of(record.submission.style),
            seed=record.seed,
            index=index,
            aspect_ratio=record.submission.aspect_ratio,
        )
        try:
            self._let_crowd_in()
            with _switching_often():
                picture = (self._engine or draw)(request)
            if not picture.startswith(PNG):
                raise ValueError("what the engine gave is not a PNG")
            self._store.put_picture(record.record_id, index, picture)
        except Exception:
            _log.exception("the engine could not draw picture %s of %s", index, record.record_id)
            raise
        finally:
            with self._lock:
                self._unfinished[record.record_id] -= 1
                if not self._unfinished[record.record_id]:
                    del self._unfinished[record.record_id]

    def _let_crowd_in(self) -> None:
        """Waits while jobs come one after the other, if there are others beside this picture's.

        With 200 calls at once the first pictures took the processor from those that had yet to be
        read: on one core a `ping` behind them was answered after seconds.
        """
        while len(self._unfinished) > 1 and not self._closed:
            due = min(self._last_came + QUIET, self._crowd_began + MAX_CROWDING)
            if (left := due - time.monotonic()) <= 0:
                return
            time.sleep(left)


def _usable_processors() -> int:
    """How many processors this process may use, which can be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
