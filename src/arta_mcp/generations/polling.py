"""Watch: the one loop that looks at a job, however many wait for it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

import anyio

from arta_mcp.arta.client import ArtaClient, Transient
from arta_mcp.arta.protocol import Job
from arta_mcp.errors import ArtaError
from arta_mcp.generations.schedule import PollSchedule
from arta_mcp.state.contract import Entry

log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """When looks told what, in seconds after the submit: last waiting or queued, first drawing."""

    waiting: float | None = None
    queued: float | None = None
    drawing: float | None = None


class Watch:
    """Looks until the job ends, nobody waits any more, or `timeout` is over.

    `settle` is called once with the finished job and turns it into what the waiters get: it
    stores, saves, and raises the ArtaError that a failed job means.
    """

    def __init__(
        self,
        record_id: str,
        *,
        client: ArtaClient,
        pace: PollSchedule,
        age: Callable[[], float],
        timeout: float,
        floor: float,
        settle: Callable[[Job, Seen], Awaitable[Entry]],
    ) -> None:
        """`age` gives seconds since the submit was accepted; `timeout` is in such seconds."""
        self.record_id = record_id
        self.pace = pace
        self.phase: Literal["queued", "drawing", "saving"] = "queued"
        self.looks = 0
        self.trouble: str | None = None
        self.error: Exception | None = None
        self.outcome: Entry | None = None
        self.is_over = False
        self.is_given_up = False
        self.is_kept = False
        self._client, self._age, self._timeout, self._floor = client, age, timeout, floor
        self._settle = settle
        self._waiters = 0
        self._seen = Seen()
        self._last_look = -floor
        self._scope = anyio.CancelScope()
        self._news = anyio.Event()
        self._poked = anyio.Event()

    @property
    def age(self) -> float:
        """Seconds since the submit was accepted."""
        return self._age()

    async def run(self) -> None:
        """The loop itself; ends on its own and raises nothing but cancellation."""
        try:
            with self._scope:
                await self._look_until_it_ends()
        except ArtaError as exc:
            self.error = exc
        except Exception as exc:
            log.exception("watching a job failed")
            self.error = exc
        finally:
            self.is_over = True
            self._tell()

    def join(self) -> None:
        """One more waits."""
        self._waiters += 1

    def leave(self) -> None:
        """One fewer waits; with nobody left and nobody to come, the looking ends."""
        self._waiters -= 1
        if not self._waiters and not self.is_kept:
            self._scope.cancel()

    @property
    def is_idle(self) -> bool:
        """Whether the loop has ended or is ending."""
        return self.is_over or self._scope.cancel_called

    def poke(self) -> None:
        """Look as soon as the floor allows."""
        self._poked.set()

    async def news(self, timeout: float) -> None:
        """Returns when something was learnt, or after `timeout` seconds."""
        event = self._news
        with anyio.move_on_after(timeout):
            await event.wait()

    async def _look_until_it_ends(self) -> None:
        """The first look is due when the pacing says so, or at once when it was poked."""
        patience = 0.0
        while True:
            await self._pause(max(patience, self.pace.delay(self.age, self._phase_seen())))
            patience = 0.0
            if self.age > self._timeout and self.looks:
                self.is_given_up = True
                return
            self._last_look = self.age
            try:
                job = await self._client.look(self.record_id)
            except Transient as exc:
                log.info("look at %s: %s", self.record_id, exc.message)
                self.trouble, patience = exc.message, exc.retry_after or 0.0
                self._learn()
                continue
            self.trouble = None
            if not job.is_waiting:
                self.phase = "saving"
                self.outcome = await self._settle(job, self._seen)
                return
            self._remember(job)
            self._learn()

    def _remember(self, job: Job) -> None:
        now = self._last_look
        if job.is_queued:
            self.phase, self._seen = "queued", self._seen._replace(waiting=now, queued=now)
        else:
            drawing = now if self._seen.drawing is None else self._seen.drawing
            self.phase, self._seen = "drawing", self._seen._replace(waiting=now, drawing=drawing)

    def _phase_seen(self) -> str | None:
        return self.phase if self.looks else None

    def _learn(self) -> None:
        self.looks += 1
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    async def _pause(self, delay: float) -> None:
        left = self._timeout - self.age
        with anyio.move_on_after(min(delay, max(left, self._floor))):
            await self._poked.wait()
        self._poked = anyio.Event()
        await anyio.sleep(max(0.0, self._last_look + self._floor - self.age))
