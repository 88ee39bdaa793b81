"""Errands: work that must reach its end although whoever asked for it may leave.

A sign-up, a refresh and a submit are such: given up half-way they would leave an account or a job
that nobody knows of. The caller stops waiting at once; the errand ends by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Self, TypeVar

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")

Told = Callable[[], Coroutine[object, object, None]]
"""what is called again and again while somebody waits"""

log = logging.getLogger(__name__)


class Errands:
    """A task group whose tasks outlive their callers, but not the `async with` block.

    Leaving the block gives errands `grace` seconds and stops everything else at once.
    """

    def __init__(self, *, grace: float = 2.0) -> None:
        self._grace = grace
        self._group: TaskGroup | None = None
        self._beside: TaskGroup | None = None
        self._running = 0
        self._idle = anyio.Event()

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._beside = anyio.create_task_group()
        await self._beside.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._group is not None
        assert self._beside is not None
        beside, self._beside = self._beside, None  # first: it may ask for errands
        beside.cancel_scope.cancel()
        await beside.__aexit__(None, None, None)
        group, self._group = self._group, None
        with anyio.CancelScope(shield=True), anyio.move_on_after(self._grace):
            while self._running:
                self._idle = anyio.Event()
                await self._idle.wait()
        group.cancel_scope.cancel()
        # without `error`, which the group would wrap into one of its own
        await group.__aexit__(None, None, None)

    def start(self, call: Callable[[], Coroutine[object, object, None]]) -> None:
        """Runs `call` beside the callers; it must handle its own errors."""
        if self._beside is None:
            raise RuntimeError("errands run only inside their `async with` block")
        self._beside.start_soon(call)

    async def finish(
        self,
        call: Callable[[], Coroutine[object, object, T]],
        *,
        meanwhile: Told | None = None,
        every: float = 2.5,
    ) -> T:
        """What `call` returns or raises; cancelling the caller does not cancel `call`.

        `meanwhile` is called `every` so many seconds while the caller waits.
        """
        done = anyio.Event()
        results: list[T] = []
        failures: list[Exception] = []

        async def run() -> None:
            try:
                results.append(await call())
            except Exception as exc:
                failures.append(exc)
                log.debug("an errand ended with %s", type(exc).__name__)
            finally:
                self._running -= 1
                self._idle.set()
                done.set()

        self._running += 1
        try:
            self._open().start_soon(run)
        except BaseException:
            self._running -= 1
            raise
        while not done.is_set():
            with anyio.move_on_after(None if meanwhile is None else every):
                await done.wait()
            if meanwhile is not None and not done.is_set():
                await meanwhile()
        if failures:
            raise failures[0]
        if not results:
            raise RuntimeError("the errand was given up: its `async with` block has ended")
        return results[0]

    def _open(self) -> TaskGroup:
        if self._group is None:
            raise RuntimeError("errands run only inside their `async with` block")
        return self._group
