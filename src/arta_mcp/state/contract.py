"""What must outlive a process: the account's tokens and the journal of generations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from arta_mcp.arta.protocol import Image, Tokens
from arta_mcp.redaction import Secret

Phase = Literal["intended", "sending", "submitted", "done", "failed", "refused", "unknown"]
"""intended: nothing was sent; sending: the POST is under way; submitted: a record id is known;
done, failed: the job's end; refused: no job was made; unknown: the answer was lost"""


LONGEST_LEASE = 2 * 3600.0
"""seconds; a call waits for a place for one hour at most"""


@dataclass(frozen=True, slots=True)
class Account:
    """One anonymous account; times are seconds since the epoch."""

    id_token: Secret
    refresh_token: Secret
    issued_at: float
    expires_at: float
    user_id: str

    @classmethod
    def from_tokens(cls, tokens: Tokens, *, now: float, before: Account | None = None) -> Account:
        """A refresh may leave out what has not changed since `before`."""
        kept = before.refresh_token if before else tokens.refresh_token
        return cls(
            id_token=tokens.id_token,
            refresh_token=tokens.refresh_token if tokens.refresh_token.reveal() else kept,
            issued_at=now,
            expires_at=now + tokens.expires_in,
            user_id=tokens.user_id or (before.user_id if before else ""),
        )

    def is_fresh(self, now: float) -> bool:
        """Whether the id token still serves: renewed 5 minutes, or a fifth of its life, ahead.

        A clock that went back behind the issue makes a token stale: its age is not known then.
        """
        ahead = min(300.0, (self.expires_at - self.issued_at) / 5)
        return self.issued_at - 60 <= now < self.expires_at - ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One generation in the journal; times are seconds since the epoch.

    `request` is the caller's arguments as JSON; `lease_until` is when an `intended` or `sending`
    entry no longer has anybody behind it; `seen_waiting` is the last look that found it unfinished,
    `seen_queued` the last that told "queued", `seen_drawing` the first that told "drawing".
    """

    id: int
    service: str
    key: str | None
    fingerprint: str
    request: str
    style: str
    phase: Phase
    created_at: float
    lease_until: float
    record_id: str | None = None
    seed: int | None = None
    submitted_at: float | None = None
    seen_waiting: float | None = None
    seen_queued: float | None = None
    seen_drawing: float | None = None
    finished_at: float | None = None
    images: tuple[Image, ...] = ()
    paths: tuple[str | None, ...] = ()
    error: str | None = None

    def standing(self, now: float) -> Phase:
        """The phase as it is to be read now: whoever died while sending left an unknown outcome."""
        if self.phase == "sending" and self._is_lapsed(now):
            return "unknown"
        return self.phase

    def is_free(self, now: float) -> bool:
        """Whether no job was or will be made for it, so that its key can be used again."""
        return self.phase == "refused" or (self.phase == "intended" and self._is_lapsed(now))

    def _is_lapsed(self, now: float) -> bool:
        """A lease from a clock that ran far ahead has lapsed too: nobody takes such a long one."""
        return not 0 < self.lease_until - now <= LONGEST_LEASE


@dataclass(frozen=True, slots=True)
class Timing:
    """What the looks at a finished job told, and when; as in Entry."""

    submitted_at: float
    seen_waiting: float | None
    finished_at: float
    seen_queued: float | None
    seen_drawing: float | None


@dataclass(frozen=True, slots=True)
class StyleList:
    """The wire styles that a service listed, and when, in seconds since the epoch."""

    names: tuple[str, ...]
    listed_at: float


class State(Protocol):
    """Tokens, locks and the journal, shared by every process on one installation."""

    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        """Held by one task of one process at a time; freed when its holder dies.

        Raises Unavailable when somebody holds it for over 90 s.
        """
        ...

    async def account(self, name: str) -> Account | None:
        """The stored account; None when there is none or the file is damaged."""
        ...

    async def keep_account(self, name: str, account: Account | None) -> None:
        """Replaces the stored account at once and whole; None removes it."""
        ...

    async def styles(self, service: str) -> StyleList | None:
        """The style list last learnt from a service."""
        ...

    async def keep_styles(self, service: str, listed: StyleList) -> None: ...

    async def begin(
        self,
        *,
        service: str,
        key: str | None,
        fingerprint: str,
        request: str,
        style: str,
        now: float,
        lease: float,
    ) -> tuple[Entry, bool]:
        """The entry for this intent, and whether it is ours to send.

        A key that stands already gives its first entry, unless no job came of it.
        """
        ...

    async def claim(self, entry: Entry, *, lease_before: float) -> bool:
        """Writes an `intended` entry, unless another process took it over since."""
        ...

    async def update(self, entry: Entry) -> None:
        """Writes the entry as it is now."""
        ...

    async def adopt(self, entry: Entry) -> Entry:
        """Adds a generation that was made elsewhere; the one that stands already wins."""
        ...

    async def find(self, service: str, record_id: str) -> Entry | None: ...

    async def get(self, entry_id: int) -> Entry | None: ...

    async def latest(self, service: str | None, limit: int) -> tuple[Entry, ...]:
        """The newest generations, newest first."""
        ...

    async def finish(self, entry: Entry) -> Entry:
        """Writes the end of a job; the end that another process wrote first stands."""
        ...

    async def timings(self, service: str, style: str, limit: int) -> tuple[Timing, ...]:
        """The newest finished jobs of a style, oldest first, for the pacing."""
        ...

    async def close(self) -> None: ...


def open_state(directory: Path, *, warn: Callable[[str], None] | None = None) -> State:
    """State in a folder of this machine; nothing is touched before the first call."""
    from arta_mcp.state.sqlite import LocalState  # sqlite3 and filelock are for the first call

    return LocalState(directory, warn=warn)
