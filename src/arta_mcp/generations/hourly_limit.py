"""Hourly limits: how much is ordered under a name in any hour, counted by the state.

A model that orders again and again spends a person's money or good name. Every process on a state
counts together, and what came to no order is given back; only what a process was killed with before
it sent anything stays counted until its hour is over.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import anyio

from arta_mcp.errors import ArtaError, RateLimited
from arta_mcp.generations.results import request_of
from arta_mcp.state.contract import State
from arta_mcp.state.records import JournalEntry

log = logging.getLogger(__name__)

NEAR = 0.8
"""of the limit, from which on the result of an order says how much is used"""

GIVE_BACK_TIMEOUT = 1.0
"""seconds that a failed call waits until its order is no longer counted"""


@dataclass(kw_only=True)
class HourlyLimit:
    """`limit` in any hour under a name, for one call; `used` is what it found, its own included."""

    state: State
    name: str
    limit: int
    used: int = 0
    is_counted: bool = False

    async def check(self, entry: JournalEntry) -> None:
        """Counts the order; raises RateLimited, with when to ask again, where there is no room."""
        raise NotImplementedError

    async def give_back(self, entry: JournalEntry) -> None:
        """Counts the order no more: nothing was ordered."""
        if not self.is_counted:
            return
        with anyio.move_on_after(GIVE_BACK_TIMEOUT, shield=True):
            try:
                await self.state.count_order(self.name, entry.id, 0, hourly=self.limit)
            # It costs its caller an hour's room, and must not hide why nothing was ordered.
            except ArtaError as exc:
                log.info("an order that came to nothing stays counted: %s", exc.message)

    @property
    def notice(self) -> str | None:
        """What the result says once the limit is near."""
        return None

    async def _count(self, entry: JournalEntry, amount: int) -> float:
        """Seconds until there is room; 0.0 when the order was counted."""
        # Before the answer: what is cancelled here may be counted all the same.
        self.is_counted = True
        counted = await self.state.count_order(self.name, entry.id, amount, hourly=self.limit)
        self.used, self.is_counted = counted.used, not counted.wait
        return counted.wait


class PictureLimit(HourlyLimit):
    """The pictures that one person's hosts may ask for where a key is used (ARTA_HOURLY_LIMIT)."""

    @staticmethod
    def name_of(service: str, engine: str, owner: str) -> str:
        """What they are counted under; neither a service nor an engine has a blank in its name."""
        return f"{service} {engine} {owner}"

    async def check(self, entry: JournalEntry) -> None:
        wanted = request_of(entry).n
        wait = await self._count(entry, wanted)
        if not wait:
            return
        hint = f"ask again in {math.ceil(wait / 60)} minutes, or for fewer pictures"
        if wanted > self.limit:
            hint = f"ask for at most {self.limit} at once"
        raise RateLimited(
            f"hosts may ask for {self.limit} pictures an hour (ARTA_HOURLY_LIMIT), {self.used} were"
            f" asked for and this call wants {wanted}; nothing was ordered",
            retry_after=max(1.0, wait),
            hint=f"{hint}; the person can raise ARTA_HOURLY_LIMIT",
        )

    async def look(self) -> int:
        """The pictures that were asked for in the last hour."""
        return (await self.state.count_order(self.name, "", 0, hourly=self.limit)).used

    @property
    def notice(self) -> str | None:
        if self.used < self.limit * NEAR:
            return None
        return f"{self.used} of the {self.limit} pictures of an hour are used (ARTA_HOURLY_LIMIT)"


class OrderLimit(HourlyLimit):
    """The generations that one caller over HTTP may order (ARTA_HTTP_CALLER_RATE)."""

    async def check(self, entry: JournalEntry) -> None:
        if wait := await self._count(entry, 1):
            message = f"{self.limit} generations are what you may order in an hour"
            raise RateLimited(message, retry_after=wait)
