"""Background tasks that survive the cancellation of their caller, and work that is tried again.

A sign-up, a refresh and a submit must not stop half-way: that would leave an account or a job that
no one knows of. Their caller stops waiting at once; the task ends by itself.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from arta_mcp.errors import ArtaError

T = TypeVar("T")

SHUTDOWN_TIMEOUT = 2.0
"""seconds that detached tasks still have when the block is left: an answer under way arrives"""

PAUSES = (0.5, 1.0, 2.0)
"""seconds before each further try; what is down for longer is down"""

MAX_PAUSE = 10.0
"""seconds of a `Retry-After` that are waited for; a longer one is the caller's to hear"""

log = logging.getLogger(__name__)


class DetachedTask(Generic[T]):
    """A task that no cancellation of its caller reaches."""

    def __init__(self, shutdown_timeout: float | None = None) -> None:
        self.done = anyio.Event()
        self.shutdown_timeout = shutdown_timeout
        """seconds that it has when its block is left; None as long as any other"""
        # Shielded: not even the cancellation of the whole block reaches it before its time is up.
        self._scope = anyio.CancelScope(shield=True)
        self._results: list[T] = []
        self._failure: Exception | None = None

    async def wait(self, timeout: float | None = None) -> bool:
        """Whether it has ended, after at most `timeout` seconds."""
        with anyio.move_on_after(timeout):
            await self.done.wait()
        return self.done.is_set()

    def result(self) -> T:
        """What it returned; raises what it raised."""
        if self._failure is not None:
            raise self._failure
        if not self._results:
            raise RuntimeError("the task was given up: its `open_background` block has ended")
        return self._results[0]

    def give_up(self) -> None:
        """Cancels it, also under those that wait for it."""
        self._scope.cancel()

    async def run(self, call: Callable[[], Coroutine[object, object, T]]) -> None:
        """The task itself: keeps what `call` returns or raises for its callers."""
        try:
            with self._scope:
                self._results.append(await call())
        except Exception as exc:
            self._failure = exc
            if not isinstance(exc, ArtaError):  # a bug, of which a caller that left learns nothing
                log.exception("a background task failed")
        finally:
            self.done.set()


class BackgroundTasks:
    """Tasks that outlive their callers, but not the `open_background` block they run in."""

    spawned: TaskGroup

    def __init__(self, detached: TaskGroup) -> None:
        self._detached = detached
        self._running: set[DetachedTask[object]] = set()
        self._ending: tuple[float, float] | None = None
        """when the end began, and the seconds that the tasks have from then on"""

    def spawn(self, call: Callable[[], Coroutine[object, object, None]]) -> None:
        """Runs `call` beside the callers; it must handle its own errors, and is stopped first."""
        self.spawned.start_soon(call)

    def detach(
        self,
        call: Callable[[], Coroutine[object, object, T]],
        *,
        shutdown_timeout: float | None = None,
    ) -> DetachedTask[T]:
        """Starts `call` so that it ends by itself, whatever becomes of its caller.

        `shutdown_timeout` is for what is worth more seconds at the end of the block than others.
        """
        task = DetachedTask[T](shutdown_timeout)
        if not self._time_left(
            task
        ):  # given up at once: the block would wait for it without a bound
            task.done.set()
            return task

        async def run() -> None:
            try:
                await task.run(call)
            finally:
                self._running.discard(task)  # pyright: ignore[reportArgumentType]  # of any result

        self._running.add(task)  # pyright: ignore[reportArgumentType]  # of any result
        self._detached.start_soon(run)
        return task

    async def run_detached(self, call: Callable[[], Coroutine[object, object, T]]) -> T:
        """What `call` returns or raises; cancelling the caller does not cancel `call`."""
        task = self.detach(call)
        await task.wait()
        return task.result()

    def start_ending(self, timeout: float) -> None:
        """From now on detached tasks have `timeout` seconds, or those of their own."""
        self._ending = self._ending or (anyio.current_time(), timeout)

    async def finish(self, timeout: float) -> None:
        """Waits for detached tasks, new ones included; gives up those that take longer."""
        self.start_ending(timeout)
        with anyio.CancelScope(shield=True):
            while self._running:
                first = min(self._running, key=self._time_left)
                if not await first.wait(self._time_left(first)):
                    first.give_up()
                    await first.done.wait()

    def _time_left(self, task: DetachedTask[Any]) -> float:
        if self._ending is None:
            return math.inf
        began, timeout = self._ending
        seconds = timeout if task.shutdown_timeout is None else task.shutdown_timeout
        return max(0.0, began + seconds - anyio.current_time())


@asynccontextmanager
async def open_background(
    *, shutdown_timeout: float = SHUTDOWN_TIMEOUT
) -> AsyncGenerator[BackgroundTasks]:
    """Background tasks for one block.

    At its end what was spawned is stopped at once, and what was detached has `shutdown_timeout`
    seconds to end by itself.
    """
    failure: BaseException | None = None
    # Two groups: what is spawned may start detached tasks, so it has to stop before them.
    async with anyio.create_task_group() as detached:
        background = BackgroundTasks(detached)
        try:
            async with anyio.create_task_group() as background.spawned:
                try:
                    yield background
                except BaseException as exc:  # a group would wrap it into one of its own
                    failure = exc
                background.spawned.cancel_scope.cancel()
        finally:
            await background.finish(shutdown_timeout)
    if failure is not None:
        raise failure


def pause_after_failure(exc: ArtaError, tries: int) -> float | None:
    """Seconds until what is safe to repeat is tried again; None when it was tried enough.

    A `Retry-After` is kept, unless it is beyond what is waited for.
    """
    retry_after: float | None = getattr(exc, "retry_after", None)
    if tries > len(PAUSES) or (retry_after or 0.0) > MAX_PAUSE:
        return None
    return max(PAUSES[tries - 1], retry_after or 0.0)


async def retry(
    call: Callable[[], Awaitable[T]],
    pause_after: Callable[[ArtaError, int], float | None],
    *,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> T:
    """Calls until it succeeds or must not be repeated.

    `pause_after` gives, for an error and how often it was tried, the seconds until the next try;
    None raises the error.
    """
    tries = 0
    while True:
        tries += 1
        try:
            return await call()
        except ArtaError as exc:
            pause = pause_after(exc, tries)
            if pause is None:
                raise
        await sleep(pause)
