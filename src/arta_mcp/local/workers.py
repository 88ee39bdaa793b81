"""When the pictures of a job are drawn: off the event loop, and by whichever process is asked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from arta_mcp.local.store import Record, Store
from arta_mcp.redaction import sanitize
from arta_mcp.styles import category_of

if TYPE_CHECKING:
    from arta_mcp.engines.sketch.engine import Order

Engine = Callable[["Order"], bytes]
"""draws the picture of an order as PNG; the same order gives the same picture"""

_log = logging.getLogger(__name__)


class Studio:
    """Draws the pictures of jobs in two threads, each picture once, by an engine that repeats."""

    def __init__(self, store: Store, engine: Engine | None) -> None:
        self._store, self._engine = store, engine
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="arta-draw")
        self._begun: dict[str, list[Future[None]]] = {}
        self._closed = False

    def begin(self, record: Record) -> None:
        """Have the pictures that are missing drawn, unless that was begun already."""
        if self._closed or self._is_begun(record.record_id) or self.has_all(record):
            return
        while len(self._begun) >= 1000 and (done := self._oldest_finished()):
            del self._begun[done]
        self._begun[record.record_id] = [
            self._threads.submit(self._draw, record, index)
            for index in range(record.order.n)
            if not self._store.has_picture(record.record_id, index)
        ]

    def has_all(self, record: Record) -> bool:
        return all(
            self._store.has_picture(record.record_id, index) for index in range(record.order.n)
        )

    def failure(self, record_id: str) -> str | None:
        """Why the engine gave a job up, as far as this process knows."""
        for drawing in self._begun.get(record_id, ()):
            if drawing.done() and not drawing.cancelled() and (exc := drawing.exception()):
                return f"the engine could not draw: {sanitize(repr(exc), 200)}"
        return None

    def finish(self, timeout: float) -> None:
        wait([drawing for job in list(self._begun.values()) for drawing in job], timeout)

    def close(self) -> None:
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _is_begun(self, record_id: str) -> bool:
        """A failure is not tried again: the engine would fail as before."""
        job = self._begun.get(record_id, [])
        return not all(one.done() for one in job) or self.failure(record_id) is not None

    def _oldest_finished(self) -> str | None:
        finished = (name for name, job in self._begun.items() if all(one.done() for one in job))
        return next(finished, None)

    def _draw(self, record: Record, index: int) -> None:
        from arta_mcp.engines.sketch.engine import (  # Pillow loads when the first picture is due
            Order,
            draw,
        )

        order = Order(
            prompt=record.order.prompt,
            negative_prompt=record.order.negative_prompt,
            style=record.order.style,
            category=category_of(record.order.style),
            seed=record.seed,
            index=index,
            aspect_ratio=record.order.aspect_ratio,
        )
        try:
            picture = (self._engine or draw)(order)
        except Exception:
            _log.exception("the engine could not draw picture %s of %s", index, record.record_id)
            raise
        self._store.put_picture(record.record_id, index, picture)
