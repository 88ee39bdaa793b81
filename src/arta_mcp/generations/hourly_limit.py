"""Hourly limits: what bounds an order in any hour, and what is said of it. No I/O happens here.

A model that orders again and again spends a person's money or good name. The state counts an order
when it begins its entry, for every process together, and what came to no order no more; only what a
process was killed with before it sent anything stays counted until its hour is over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from arta_mcp.errors import RateLimited
from arta_mcp.state.records import NoRoom, Quota

NEAR = 0.8
"""of the limit, from which on the result of an order says how much is used"""


class HourlyLimit(Protocol):
    """What one call's order counts as, and the sentences about it."""

    @property
    def quota(self) -> Quota: ...

    def explain(self, full: NoRoom) -> RateLimited:
        """Why nothing was ordered, and when to ask again."""
        ...

    def notice(self, used: int) -> str | None:
        """What the result of an order says once the limit is near."""
        ...


@dataclass(frozen=True, slots=True)
class PictureLimit:
    """The pictures that one person's hosts may ask for where a key is used (ARTA_HOURLY_LIMIT)."""

    quota: Quota

    @staticmethod
    def name_of(service: str, engine: str, owner: str) -> str:
        """What they are counted under; neither a service nor an engine has a blank in its name."""
        return f"{service} {engine} {owner}"

    def explain(self, full: NoRoom) -> RateLimited:
        limit, wanted = self.quota.hourly, self.quota.amount
        hint = f"ask again in {math.ceil(full.wait / 60)} minutes, or for fewer pictures"
        if wanted > limit:
            hint = f"ask for at most {limit} at once"
        return RateLimited(
            f"hosts may ask for {limit} pictures an hour (ARTA_HOURLY_LIMIT), {full.used} were"
            f" asked for and this call wants {wanted}; nothing was ordered",
            retry_after=max(1.0, full.wait),
            hint=f"{hint}; the person can raise ARTA_HOURLY_LIMIT",
        )

    def notice(self, used: int) -> str | None:
        limit = self.quota.hourly
        if used < limit * NEAR:
            return None
        return f"{used} of the {limit} pictures of an hour are used (ARTA_HOURLY_LIMIT)"


@dataclass(frozen=True, slots=True)
class OrderLimit:
    """The generations that one caller over HTTP may order (ARTA_HTTP_CALLER_RATE)."""

    quota: Quota

    def explain(self, full: NoRoom) -> RateLimited:
        message = f"{self.quota.hourly} generations are what you may order in an hour"
        wait = max(1, math.ceil(full.wait))
        return RateLimited(f"{message}; nothing was ordered", retry_after=wait)

    def notice(self, used: int) -> str | None:
        """A caller hears of it once it is reached."""
        return None
