"""The hourly limit: how many pictures hosts have asked for where a key is used, and what is left.

A model that orders again and again spends a person's money or good name. What it has asked for is
counted in the journal, over every process and restart; a person's own commands are not limited.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from arta_mcp.errors import RateLimited
from arta_mcp.generations.results import request_of
from arta_mcp.state.contract import State
from arta_mcp.state.records import JournalEntry

HOUR = 3600.0
"""seconds"""

NEAR = 0.8
"""of the limit, from which on each result says how much is used"""

FIRST_LOOK = 256
"""entries that are read of the journal; four times as many while they are all of the last hour"""


@dataclass(frozen=True, slots=True)
class HourlyLimit:
    """`limit` pictures in any hour that one person's hosts may ask for; `clock` gives seconds."""

    limit: int
    state: State
    service: str
    owner: str
    engine: str
    clock: Callable[[], float]

    def lock(self) -> AbstractAsyncContextManager[int]:
        """Held while an intent is written and counted: else calls at once would not see another."""
        return self.state.lock("hourly-limit")

    async def used(self) -> int:
        """The pictures that hosts have asked for in the last hour."""
        return sum(request_of(entry).n for entry in await self._asked())

    async def check(self, intent: JournalEntry) -> None:
        """Raises RateLimited, with when to ask again, where there is no room for this intent."""
        wanted = request_of(intent).n
        others = [entry for entry in await self._asked() if entry.id != intent.id]
        used = sum(request_of(entry).n for entry in others)
        if used + wanted <= self.limit:
            return
        wait, left = 0.0, used
        for entry in reversed(others):  # the oldest leave the hour first
            if left + wanted <= self.limit:
                break
            left -= request_of(entry).n
            wait = entry.created_at + HOUR - self.clock()
        hint = f"ask again in {math.ceil(wait / 60)} minutes, or for fewer pictures"
        if wanted > self.limit:
            wait, hint = HOUR, f"ask for at most {self.limit} at once"
        raise RateLimited(
            f"hosts may ask for {self.limit} pictures an hour (ARTA_HOURLY_LIMIT), {used} were"
            f" asked for and this call wants {wanted}; nothing was ordered",
            retry_after=max(1.0, wait),
            hint=f"{hint}; the person can raise ARTA_HOURLY_LIMIT",
        )

    async def warn(self) -> str | None:
        """What a result says once the limit is near."""
        used = await self.used()
        if used < self.limit * NEAR:
            return None
        return f"{used} of the {self.limit} pictures of an hour are used (ARTA_HOURLY_LIMIT)"

    async def _asked(self) -> list[JournalEntry]:
        """What hosts have asked for in the last hour, newest first."""
        since, count = self.clock() - HOUR, FIRST_LOOK
        while True:
            found = await self.state.latest(self.service, self.owner, count)
            if len(found) < count or found[-1].created_at <= since:
                break
            count *= 4
        return [
            entry
            for entry in found
            if entry.created_at > since
            and entry.phase != "refused"
            and entry.engine == self.engine
            # A program's own call counts as answered when it begins: see `Submission.run`.
            and entry.answered_at != entry.created_at
        ]
