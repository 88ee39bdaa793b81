"""Progress reports: what a caller learns while it waits, and how often."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio

from arta_mcp.background import DetachedTask
from arta_mcp.generations.values import Step, Update

T = TypeVar("T")

log = logging.getLogger(__name__)

HEARTBEAT = 2.5
"""seconds between two reports when nothing changes; callers are promised one every 3 s"""

FIRST_REPORT = 1.0
"""seconds until the first report: a call may have waited for its turn before it began to count"""

REPORT_TIMEOUT = 2.0
"""seconds that a report may take: a host that reads nothing must not hold its call"""

OnUpdate = Callable[[Update], Awaitable[None]]


class ProgressReporter:
    """Reports to one caller where its generation stands; knows when the next report is due."""

    def __init__(self, on_update: OnUpdate | None) -> None:
        """Times count from now; `on_update` None: no report is wanted."""
        self._on_update = on_update
        self._started = anyio.current_time()
        self._last = min(0.0, FIRST_REPORT - HEARTBEAT)

    @property
    def waited(self) -> float:
        """Seconds since the call began."""
        return anyio.current_time() - self._started

    @property
    def due_in(self) -> float:
        """Seconds until the next report is due even if nothing changes."""
        return max(0.0, self._last + HEARTBEAT - self.waited)

    async def report(
        self,
        step: Step,
        *,
        record_id: str | None = None,
        usual: float | None = None,
        remaining: float | None = None,
        ahead: int | None = None,
        drawn: tuple[int, int] | None = None,
    ) -> None:
        """Calls the caller back; `usual` and `remaining` are in seconds, as in Update."""
        self._last = self.waited
        if self._on_update is None:
            return
        update = Update(step, self._last, record_id, usual, remaining, ahead, drawn)
        with anyio.move_on_after(REPORT_TIMEOUT) as reporting:
            await self._on_update(update)
        if reporting.cancelled_caught:
            log.info("a report was not taken within %s s", REPORT_TIMEOUT)

    @asynccontextmanager
    async def reporting(self, step: Step) -> AsyncGenerator[None]:
        """Reports whenever one is due while the block runs."""

        failures: list[BaseException] = []

        async def report() -> None:
            try:
                while True:
                    await anyio.sleep(self.due_in)
                    await self.report(step)
            except Exception as exc:
                failures.append(exc)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(report)
            try:
                yield
            except BaseException as exc:  # a group would wrap it into one of its own
                failures.append(exc)
            group.cancel_scope.cancel()
        if failures:
            raise failures[0]

    async def report_until(self, task: DetachedTask[T], step: Step) -> T:
        """What the task returns or raises; until then a report whenever one is due."""
        while not await task.wait(self.due_in):
            await self.report(step)
        return task.result()
