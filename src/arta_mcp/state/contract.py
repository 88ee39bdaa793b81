"""State: what must outlive a process, as every store of it has to keep it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from arta_mcp.arta.account import Account
from arta_mcp.state.records import JournalEntry, StateDescription, StyleList, Timing


class State(Protocol):
    """Tokens, locks and the journal, shared by every process on one installation.

    Every method may raise Unavailable when the store cannot be used.
    """

    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        """Held by one task of one process at a time; freed when its holder dies.

        Raises Unavailable when another holds it for over 90 s.
        """
        ...

    async def account(self, name: str) -> Account | None:
        """The stored account; None when there is none or it is damaged."""
        ...

    async def keep_account(self, name: str, account: Account | None) -> None:
        """Replaces the stored account at once and whole; None removes it."""
        ...

    async def styles(self, service: str) -> StyleList | None:
        """The style list last learnt from a service."""
        ...

    async def keep_styles(self, service: str, listed: StyleList) -> None:
        """Replaces the stored style list of a service."""
        ...

    async def begin(self, entry: JournalEntry) -> tuple[JournalEntry, bool]:
        """The entry for a new intent, and whether it is the caller's to send.

        A key that stands already gives its first entry, unless no job came of it.
        """
        ...

    async def claim(self, entry: JournalEntry, *, lease_before: float) -> bool:
        """Writes an `intended` entry, unless another process took it over since."""
        ...

    async def update(self, entry: JournalEntry) -> None:
        """Writes the entry as it is now."""
        ...

    async def adopt(self, entry: JournalEntry) -> JournalEntry:
        """Adds a generation that was made elsewhere; the one that stands already wins."""
        ...

    async def find(self, service: str, record_id: str) -> JournalEntry | None:
        """The generation with this record id."""
        ...

    async def latest(self, service: str | None, limit: int) -> tuple[JournalEntry, ...]:
        """The newest generations, newest first; `service` None: of every service."""
        ...

    async def finish(self, entry: JournalEntry) -> JournalEntry:
        """Writes the end of a job; the end that another process wrote first stands."""
        ...

    async def timings(self, service: str, style: str, limit: int) -> tuple[Timing, ...]:
        """The newest finished jobs of a style, oldest first, for the poll schedule."""
        ...

    async def describe(self, account_name: str) -> StateDescription:
        """How the state stands, for people; opens and changes nothing."""
        ...

    async def close(self) -> None:
        """Frees what was opened; a later call opens it again."""
        ...
