"""What the state keeps: journal entries, timings, style lists. No I/O happens here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from arta_mcp.arta.protocol import Image

Phase = Literal["intended", "sending", "submitted", "done", "failed", "refused", "unknown"]
"""intended: nothing was sent; sending: the POST is under way; submitted: a record id is known;
done, failed: the job's end; refused: no job was made; unknown: the answer was lost"""

MAX_LEASE = 2 * 3600.0
"""seconds; a call waits for a concurrency slot for one hour at most"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One generation in the journal; times are seconds since the epoch.

    `id` is 0 before the state has given one. `request` is the caller's arguments as JSON;
    `lease_until` is when an `intended` or `sending` entry no longer has a process behind it;
    `seen_waiting` is the last poll that found it unfinished, `seen_queued` the last that found it
    queued, `seen_drawing` the first that found it being drawn.
    """

    id: int = 0
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

    def effective_phase(self, now: float) -> Phase:
        """The phase as it is to be read now: `sending` with an expired lease is `unknown`."""
        if self.phase == "sending" and self._has_lapsed(now):
            return "unknown"
        return self.phase

    def is_free(self, now: float) -> bool:
        """Whether no job was or will be made for it, so that its key can be used again."""
        return self.phase == "refused" or (self.phase == "intended" and self._has_lapsed(now))

    def _has_lapsed(self, now: float) -> bool:
        # A lease from a clock that ran far ahead has lapsed too: no process takes such a long one.
        return not 0 < self.lease_until - now <= MAX_LEASE


@dataclass(frozen=True, slots=True)
class Timing:
    """What the polls of a finished job found, and when; as in JournalEntry."""

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


@dataclass(frozen=True, slots=True)
class StateCheck:
    """One thing about the state that was checked: how it stands, and what to do about it."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class StateDescription:
    """Where the state lies and how it stands; `account_location` is None when none is stored."""

    location: str
    account_location: str | None
    checks: tuple[StateCheck, ...]
