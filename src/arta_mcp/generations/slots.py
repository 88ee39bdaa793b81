"""Concurrency slots: how many jobs of this process may be in flight.

Who owns a slot: the call that acquired it, until its job is known; from then on the poller of that
job, which releases it when the job ends or is polled no more. A failure in between releases it.
Acquire and release are idempotent, so that each of them may do so.
"""

from __future__ import annotations

import anyio

from arta_mcp.errors import RateLimited
from arta_mcp.generations.progress import HEARTBEAT, ProgressReporter

RETRY_AFTER = 30.0
"""seconds after which a refused call may come again; a job takes about as long"""


class ConcurrencySlot:
    """One of the slots of a limiter, for one job; `own` bounds those of its owner beside it."""

    def __init__(
        self, limiter: anyio.CapacityLimiter, own: anyio.CapacityLimiter | None = None
    ) -> None:
        self._limiter, self._own = limiter, own
        self._is_held = self._holds_own = False

    async def acquire(self, reporter: ProgressReporter, *, until: float) -> None:
        """Waits for a free slot, and reports that it does.

        `until` is by `anyio.current_time()`; raises RateLimited when it comes first, or at once
        for an owner that has all of its own.
        """
        # Not waited for: one caller's queue would keep the descriptors that others need.
        if self._own is not None and not self._holds_own:
            try:
                self._own.acquire_on_behalf_of_nowait(self)
                self._holds_own = True
            except anyio.WouldBlock:
                count = f"{self._own.total_tokens:g}"
                message = f"{count} generations of yours are under way, as many as you may have"
                raise RateLimited(message, retry_after=RETRY_AFTER) from None
        while not self._is_held:
            try:
                self._limiter.acquire_on_behalf_of_nowait(self)
                self._is_held = True
            except anyio.WouldBlock:
                if (left := until - anyio.current_time()) <= 0:
                    all_places = f"all {self._limiter.total_tokens:g} places"
                    message = f"{all_places} are taken by other generations"
                    raise RateLimited(message, retry_after=RETRY_AFTER) from None
                await reporter.report("waiting")
                with anyio.move_on_after(min(HEARTBEAT, left)):
                    await self._limiter.acquire_on_behalf_of(self)
                    self._is_held = True

    def release(self) -> None:
        """Gives the slot back, if it is held."""
        if self._own is not None and self._holds_own:
            self._holds_own = False
            self._own.release_on_behalf_of(self)
        if self._is_held:
            self._is_held = False
            self._limiter.release_on_behalf_of(self)
