"""JobPoller: the one loop that polls a job, however many calls wait for it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

import anyio

from arta_mcp.arta.client import ArtaClient
from arta_mcp.arta.protocol import Job, LocalDetails
from arta_mcp.errors import ArtaError, PollFailed, UnknownRecord
from arta_mcp.generations.schedule import PollSchedule
from arta_mcp.generations.slots import ConcurrencySlot
from arta_mcp.state.records import JournalEntry

log = logging.getLogger(__name__)


MAX_LAG = 30.0
"""seconds after the submit in which a service that knows no such job has not heard of it yet"""

MAX_EMPTY, EMPTY_PAUSE = 3, 1.0
"""polls that find a job DONE without pictures until it counts as failed, and seconds between"""

QUEUE_PACE, MAX_QUEUE_PAUSE = 0.1, 5.0
"""seconds between two polls for each job that comes first, and at most: before it has its turn
there is nothing to see but its place"""


class PhaseTimes(NamedTuple):
    """When polls found what, in seconds after the submit: last waiting or queued, first drawing."""

    waiting: float | None = None
    queued: float | None = None
    drawing: float | None = None


class JobPoller:
    """Polls until the job ends, no call waits any more, or `timeout` is over.

    `finish` is called once with the finished job and turns it into what the callers get: it
    stores, saves, and raises the ArtaError that a failed job means.
    """

    def __init__(
        self,
        record_id: str,
        *,
        client: ArtaClient,
        schedule: PollSchedule,
        age: Callable[[], float],
        timeout: float,
        floor: float,
        finish: Callable[[Job, PhaseTimes], Awaitable[JournalEntry]],
    ) -> None:
        """`age` gives seconds since the submit was accepted; `timeout` is in such seconds.

        `floor` is the least time between two polls, in seconds, however often it is woken.
        """
        self.record_id, self.schedule, self.age = record_id, schedule, age
        self.phase: Literal["queued", "drawing", "saving"] = "queued"
        self.ahead: int | None = None
        self.drawn: tuple[int, int] | None = None
        """the steps that an engine has done, and how many there are"""
        self._progressed_at = 0.0
        self.polls = 0
        self.last_failure: str | None = None
        self.error: Exception | None = None
        self.outcome: JournalEntry | None = None
        self.is_over = False
        self.has_timed_out = False
        self._client, self._timeout, self._floor, self._finish = client, timeout, floor, finish
        self._waiters = 0
        self._is_detached = False
        self._is_awaited = False
        self._times = PhaseTimes()
        self._last_poll = -floor
        self._slots: list[ConcurrencySlot] = []
        self._scope = anyio.CancelScope()
        self._changed = anyio.Event()
        self._woken = anyio.Event()

    @property
    def is_ending(self) -> bool:
        """Whether the loop has ended or is about to: it cannot be joined any more."""
        return self.is_over or self._scope.cancel_called

    async def run(self) -> None:
        """The loop itself; ends on its own and raises nothing but cancellation."""
        try:
            with self._scope:
                await self._poll_until_over()
        except ArtaError as exc:
            exc.record_id = exc.record_id or self.record_id
            self.error = exc
        except Exception as exc:
            log.exception("polling a job failed")
            self.error = exc
        finally:
            self.is_over = True
            for slot in self._slots:
                slot.release()
            self._notify()

    def join(self, slot: ConcurrencySlot | None = None) -> None:
        """One more call waits; a slot that it brings is the poller's from now on."""
        self._waiters += 1
        if slot is not None:
            self._slots.append(slot)

    def leave(self) -> None:
        """One call fewer waits; polling stops when none is left, unless it was detached."""
        self._waiters -= 1
        if not self._waiters and not self._is_detached:
            self._scope.cancel()

    def detach(self) -> None:
        """Goes on polling when no call waits any more: a caller got `pending`."""
        self._is_detached = True

    def wake(self) -> None:
        """Polls as soon as the floor allows, and says so also when nothing was learnt."""
        self._woken.set()
        self._is_awaited = True

    async def wait_for_change(self, timeout: float) -> None:
        """Returns when something was learnt, or after `timeout` seconds."""
        changed = self._changed
        with anyio.move_on_after(timeout):
            await changed.wait()

    async def _poll_until_over(self) -> None:
        retry_after, empty = 0.0, 0
        while True:
            before, phase = self.phase, self.phase if self.polls else None
            turn = min(MAX_QUEUE_PAUSE, QUEUE_PACE * (self.ahead or 0))
            await self._sleep(max(retry_after, turn, self.schedule.delay(self.age(), phase)))
            retry_after = 0.0
            # A job taken up after its time-out is polled once: it may have ended since.
            if self.age() - self._progressed_at > self._timeout and self.polls:
                self.has_timed_out = True
                return
            self._last_poll = now = self.age()
            try:
                job = await self._poll_once()
                empty += job.is_empty
                if job.is_empty and empty < MAX_EMPTY:
                    raise PollFailed("DONE without pictures", retry_after=EMPTY_PAUSE)
            except PollFailed as exc:
                log.info("poll of %s: %s", self.record_id, exc.message)
                self.last_failure, retry_after = exc.message, exc.retry_after or 0.0
            else:
                self.last_failure = None
                self._note_progress(job.local, now)
                if not job.is_waiting:
                    self.phase = "saving"
                    self.outcome = await self._finish(job, self._times)
                    return
                times = self._times._replace(waiting=now)
                if job.is_queued:
                    self.phase, self._times = "queued", times._replace(queued=now)
                else:
                    first = now if times.drawing is None else times.drawing
                    self.phase, self._times = "drawing", times._replace(drawing=first)
            self.polls += 1
            if self.phase != before or self._is_awaited:
                self._notify()

    def _note_progress(self, details: LocalDetails | None, now: float) -> None:
        """Whatever goes forward is not lost: the time-out counts from the last step."""
        before = (self.ahead, self.drawn)
        self.ahead = details.ahead if details else None
        if details and details.step is not None and details.steps:
            self.drawn = (details.step, details.steps)
        if details and before != (self.ahead, self.drawn):
            self._progressed_at = now

    async def _poll_once(self) -> Job:
        try:
            return await self._client.poll(self.record_id)
        except UnknownRecord as exc:
            if self.age() > MAX_LAG:
                raise
            raise PollFailed(exc.message) from exc

    def _notify(self) -> None:
        self._is_awaited = False
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _sleep(self, delay: float) -> None:
        left = self._timeout - (self.age() - self._progressed_at)
        with anyio.move_on_after(min(delay, max(left, self._floor))):
            await self._woken.wait()
        self._woken = anyio.Event()
        # A wake-up may shorten the pause, never below the floor: we stay polite when many ask.
        if (rest := self._last_poll + self._floor - self.age()) > 0:
            await anyio.sleep(rest)
