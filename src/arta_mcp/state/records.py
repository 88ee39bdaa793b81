"""What the state keeps: journal entries, timings, style lists. No I/O happens here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from arta_mcp.arta.protocol import Image

Phase = Literal["intended", "sending", "submitted", "done", "failed", "refused", "unknown"]
"""intended: nothing was sent; sending: the POST is under way; submitted: a record id is known;
done, failed: the job's end; refused: no job was made; unknown: the answer was lost"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One generation in the journal; times are seconds since the epoch.

    `id` is random, `version` counts the writes, `owner` is empty for a state folder's own person.
    `request` is the caller's arguments as JSON; `fingerprint` is the same for equal requests.
    `engine`, `engine_model` and `details` (JSON) say what drew it, where the service told.
    `caller` is a token of the call that waits for it, `answered_at` when a call was first answered
    with it, `cut_after` the shortest time in seconds after which one was cut off. `seen_waiting`
    is the last poll that found it unfinished, `seen_queued` the last that found it queued,
    `seen_drawing` the first that found it being drawn.
    """

    id: str = ""
    version: int = 0
    service: str
    owner: str = ""
    key: str | None
    fingerprint: str
    request: str
    style: str
    engine: str = "arta"
    engine_model: str | None = None
    details: str = "{}"
    phase: Phase
    created_at: float
    caller: str | None = None
    answered_at: float | None = None
    cut_after: float | None = None
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What bounds an entry that is begun: in any hour `hourly` under a name, of it `amount`."""

    name: str
    hourly: int
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The entry of a call: one of its own to send, or the one that stands in its place.

    `used` says of each quota how much its hour has, what was begun now included; nothing for an
    entry that is not ours.
    """

    entry: JournalEntry
    is_ours: bool
    used: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRoom:
    """Nothing was begun: a quota has no room, of several that with the longest wait.

    `used` is how much its hour has, `wait` the seconds until there is room; an hour for more than
    there ever is room for.
    """

    quota: Quota
    used: int
    wait: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallNote:
    """How a call for a generation ended, and who waits for it now; as in JournalEntry."""

    answered_at: float | None = None
    cut_after: float | None = None
    caller: str | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """What the polls of a finished job found, and when; as in JournalEntry."""

    submitted_at: float
    seen_waiting: float | None
    finished_at: float
    seen_queued: float | None
    seen_drawing: float | None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed from the journal: how many generations, and the record ids among them.

    `kept` are as old, and stay: they are not known to have ended.
    """

    count: int
    record_ids: tuple[str, ...]
    kept: int


@dataclass(frozen=True, slots=True)
class StyleList:
    """The wire styles that a service listed, and when, in seconds since the epoch."""

    names: tuple[str, ...]
    listed_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a store stands: whether it answers, in how many seconds, and what it may lose.

    `warnings` are for people, each with what to do. `persistence` is `file`, `aof`, `snapshots` or
    `none`, `eviction` the store's policy for a full memory, `epoch` the same for as long as it has
    lost nothing; each is None where the store does not tell.
    """

    store: str
    answers: bool
    latency: float | None = None
    persistence: str | None = None
    eviction: str | None = None
    epoch: str | None = None
    warnings: tuple[str, ...] = ()


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
