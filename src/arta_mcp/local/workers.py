"""When the pictures of a job are drawn: off the event loop, and by whichever process is asked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from arta_mcp.engines.base import ImageRequest
from arta_mcp.local.store import Record, Store
from arta_mcp.redaction import sanitize
from arta_mcp.styles import category_of

Engine = Callable[[ImageRequest], bytes]
"""draws a picture as PNG; the same request gives the same picture"""

MAX_REMEMBERED = 1000
"""jobs whose outcome a process remembers, so that a failed one is not tried again"""

_log = logging.getLogger(__name__)


class DrawingWorkers:
    """Two threads that draw the pictures of jobs, each picture once.

    A job that another process left unfinished is drawn again from its record, which gives the
    same pictures, since an engine repeats itself.
    """

    def __init__(self, store: Store, engine: Engine | None) -> None:
        self._store, self._engine = store, engine
        # Two: drawing keeps the interpreter's lock for most of the time, a third would only wait.
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="arta-draw")
        self.drawings: dict[str, list[Future[None]]] = {}
        """by record id, of the pictures that this process began"""
        self._closed = False

    def start_job(self, record: Record) -> None:
        """Have the pictures that are missing drawn, unless they are being drawn or have failed."""
        jobs = self.drawings
        is_under_way = not _is_over(jobs.get(record.record_id, []))
        # In this order: a picture that is finished between both lines is not drawn again.
        missing = self.missing_pictures(record)
        # A failure is not tried again: the engine would fail as before.
        if self._closed or is_under_way or self.failure(record.record_id) or not missing:
            return
        while len(jobs) >= MAX_REMEMBERED:
            oldest = next((name for name, job in jobs.items() if _is_over(job)), None)
            if oldest is None:
                break  # all are under way: none may be forgotten
            del jobs[oldest]
        drawings = [self._threads.submit(self._draw, record, index) for index in missing]
        jobs[record.record_id] = drawings

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
            picture = (self._engine or draw)(request)
        except Exception:
            _log.exception("the engine could not draw picture %s of %s", index, record.record_id)
            raise
        self._store.put_picture(record.record_id, index, picture)


def _is_over(job: list[Future[None]]) -> bool:
    return all(drawing.done() for drawing in job)
