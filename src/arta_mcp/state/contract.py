"""State: what must outlive a process, as every store of it has to keep it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from arta_mcp.arta.account import Account
from arta_mcp.state.records import (
    Begun,
    CallNote,
    Health,
    JournalEntry,
    NoRoom,
    Pruned,
    Quota,
    StateDescription,
    StyleList,
    Timing,
)

UNANSWERED_TTL = 600.0
"""seconds after its order in which an equal call takes up a generation that answered no call"""

CUT_SHARE = 0.8
"""of the shortest time after which a call was cut: what a later one takes until it answers"""

IsWaiting = Callable[[str], bool]
"""whether the call of this process with a token still waits"""


class State(Protocol):
    """Tokens, locks and the journal, shared by every process on one installation.

    The store knows the time and which processes live: an `intended` entry of a dead one is given as
    `refused`, a `sending` one as `unknown`. Every method may raise Unavailable when it cannot be
    used; what it was to write may then be tried once more as it is, and is written once.
    """

    def now(self) -> float:
        """The store's own time in seconds since the epoch: every time in an entry is by it."""
        ...

    def lock(self, name: str) -> AbstractAsyncContextManager[int]:
        """Held by one task of one process at a time; freed when its holder dies.

        Gives its fence, which never falls. A store that cannot tell a holder that is slow from one
        that died gives its lock to the next one after a while: that has a higher fence. Raises
        Unavailable when another holds it for over 90 s.
        """
        ...

    async def account(self, name: str) -> Account | None:
        """The stored account; None when there is none or it is damaged."""
        ...

    async def keep_account(self, name: str, account: Account | None, *, fence: int) -> bool:
        """Replaces the stored account at once and whole; None removes it.

        False when a holder with a higher fence has written: what that wrote stands.
        """
        ...

    async def styles(self, service: str) -> StyleList | None:
        """The style list last learnt from a service."""
        ...

    async def keep_styles(self, service: str, listed: StyleList) -> None:
        """Replaces the stored style list of a service."""
        ...

    async def begin(
        self, entry: JournalEntry, *, is_waiting: IsWaiting, quotas: Sequence[Quota] = ()
    ) -> Begun | NoRoom:
        """The entry for a new intent, begun now, or the one that stands in its place.

        A key that stands already gives its first entry, unless no job came of it. Without a key,
        an entry with a caller gives the newest equal one (owner, service, fingerprint) of the last
        ten minutes that answered no call and whose caller has gone, and makes it that caller's; a
        caller whose process was killed was cut, after no longer than it is now since its call came;
        `is_waiting` says of a caller of this process whether it is still there. What raises, or is
        cancelled, has begun nothing that lasts.

        Only where it begins one, the entry is counted under each of the quotas or none, once, for
        an hour; without room under all of them nothing is begun.
        """
        ...

    async def write(self, entry: JournalEntry) -> JournalEntry | None:
        """Writes the entry as it is now; None when another wrote it since it was read.

        Gives what it is from now on. An entry that a replaced store does not know is added. One
        that is `refused` counts under no quota any more.
        """
        ...

    async def note_call(self, entry_id: str, note: CallNote) -> None:
        """Keeps how a call ended and who waits now; the first answer and least cut stand."""
        ...

    async def adopt(self, entry: JournalEntry) -> JournalEntry:
        """Adds a generation that was made elsewhere; the one that stands already wins."""
        ...

    async def find(self, service: str, owner: str, record_id: str) -> JournalEntry | None:
        """The generation with this record id, if it is the owner's."""
        ...

    async def latest(self, service: str, owner: str, limit: int) -> tuple[JournalEntry, ...]:
        """The owner's newest generations, newest first."""
        ...

    async def finish(self, entry: JournalEntry) -> JournalEntry:
        """Writes the end of a job; the end that another process wrote first stands."""
        ...

    async def timings(self, service: str, style: str, limit: int) -> tuple[Timing, ...]:
        """The newest finished jobs of a style, oldest first, for the poll schedule."""
        ...

    async def prune(self, service: str, owner: str, before: float) -> Pruned:
        """Removes the owner's generations that were begun before and have ended.

        Those without a known end stay: their jobs may still run, and their keys keep a second one
        from being ordered. The keys of those that are removed are free again.
        """
        ...

    async def owners(self) -> tuple[tuple[str, str], ...]:
        """Every service and owner that have generations, sorted."""
        ...

    async def counted(self, name: str) -> int:
        """How much was begun under the name of a quota in the last hour."""
        ...

    async def health(self) -> Health:
        """How the store itself stands, asked now; raises nothing of it."""
        ...

    async def describe(self, account_name: str) -> StateDescription:
        """How the state stands, for people; opens and changes nothing."""
        ...

    async def close(self) -> None:
        """Frees what was opened; a later call opens it again."""
        ...
