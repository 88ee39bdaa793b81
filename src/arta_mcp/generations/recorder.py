"""Recorder: writes down what became of a job, also when the journal cannot be written for a while.

A job that exists is worth more than its entry: its call goes on and tells the trouble beside, and
until the entry is on disk this process knows the job by itself.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, get_args

import anyio

from arta_mcp.background import BackgroundTasks, DetachedTask, retry
from arta_mcp.errors import ArtaError, Unavailable
from arta_mcp.state.contract import State
from arta_mcp.state.records import CallNote, JournalEntry, Phase

T = TypeVar("T")

log = logging.getLogger(__name__)

WRITE_TIMEOUT = 2.0
"""seconds that a call waits for a write; a free journal takes milliseconds"""

FIRST_TRY = 0.1
"""seconds of a write that a cancelled caller waits for too"""

RETRY_FOR = 30.0
"""seconds in which a write is tried again, in the background; a store that restarts is back then"""

RETRY_PAUSE = 0.5
"""seconds between two tries"""

SHUTDOWN_TIMEOUT = 9.0
"""seconds that a write has at the end of the process: a submit has eight, then comes its id"""

MAX_UNWRITTEN = 1000
"""entries that are kept until they can be written; the oldest are forgotten first"""

Write = Callable[[JournalEntry], Awaitable[JournalEntry | None]]


@dataclass(frozen=True, slots=True)
class Unwritten:
    """An entry as it should stand in the journal, and why it does not."""

    entry: JournalEntry
    why: str

    @property
    def rank(self) -> tuple[int, int]:
        """What is later in a generation's life is higher."""
        return self.entry.version, get_args(Phase).index(self.entry.phase)


class Recorder:
    """One for all calls of a process."""

    def __init__(self, state: State, background: BackgroundTasks) -> None:
        self._state, self._background = state, background
        self._unwritten: dict[str, Unwritten] = {}

    def trouble(self, entry: JournalEntry) -> str | None:
        """Why something of the entry could not be written yet."""
        kept = self._unwritten.get(entry.id)
        return kept.why if kept and kept.rank >= Unwritten(entry, "").rank else None

    def newest(self, entry: JournalEntry) -> JournalEntry:
        """An entry that was read, or what should stand in its place."""
        kept = self._unwritten.get(entry.id)
        return kept.entry if kept and kept.rank > Unwritten(entry, "").rank else entry

    def find(self, owner: str, record_id: str) -> JournalEntry | None:
        """The owner's entry with this record id, if it could not be written yet."""
        kept = (one.entry for one in self._unwritten.values())
        return next((one for one in kept if (one.owner, one.record_id) == (owner, record_id)), None)

    async def write(self, entry: JournalEntry) -> JournalEntry:
        """The entry as it stands from now on; one that another wrote since is left as it is."""
        return await self._record(entry, self._state.write)

    async def finish(self, entry: JournalEntry) -> JournalEntry:
        """The end of the job, as it stands."""
        return await self._record(entry, self._state.finish)

    async def adopt(self, entry: JournalEntry) -> JournalEntry:
        """The entry of a job that was made elsewhere, as it stands."""
        return await self._record(replace(entry, id=secrets.token_hex(16)), self._state.adopt)

    async def note_call(self, entry: JournalEntry, note: CallNote) -> None:
        """Keeps how a call for the entry ended; see `State.note_call`."""
        work = partial(self._state.note_call, entry.id, note)
        with suppress(Unavailable), anyio.move_on_after(FIRST_TRY, shield=True):
            await work()
            return
        await self._detach(partial(_retry, work, entry, lambda _: None)).wait(WRITE_TIMEOUT)

    async def _record(self, entry: JournalEntry, write: Write) -> JournalEntry:
        # A free journal takes it at once; only what has to wait gets a task of its own.
        with suppress(Unavailable), anyio.move_on_after(FIRST_TRY, shield=True):
            return self._confirm(entry, await write(entry))
        writing = self._detach(partial(self._write, entry, write))
        if await writing.wait(WRITE_TIMEOUT):
            with suppress(RuntimeError):  # given up: the process ends, and has tried
                return writing.result() or entry
            return entry
        if entry.id not in self._unwritten:
            self._keep(entry, "another process keeps the journal busy")
        return entry

    def _detach(self, work: Callable[[], Coroutine[object, object, T]]) -> DetachedTask[T]:
        return self._background.detach(work, shutdown_timeout=SHUTDOWN_TIMEOUT)

    async def _write(self, entry: JournalEntry, write: Write) -> JournalEntry | None:
        try:
            written = await _retry(partial(write, entry), entry, partial(self._keep, entry))
        except Unavailable:
            return None
        return self._confirm(entry, written)

    def _confirm(self, entry: JournalEntry, written: JournalEntry | None) -> JournalEntry:
        """What stands in the journal, which needs no keeping here any more."""
        kept = self._unwritten.get(entry.id)
        if kept and kept.rank <= Unwritten(entry, "").rank:
            del self._unwritten[entry.id]
        return written or entry

    def _keep(self, entry: JournalEntry, why: str) -> None:
        kept = Unwritten(entry, why)
        if entry.id in self._unwritten and self._unwritten[entry.id].rank > kept.rank:
            return
        self._unwritten[entry.id] = kept
        if len(self._unwritten) > MAX_UNWRITTEN:
            del self._unwritten[next(iter(self._unwritten))]


async def _retry(
    work: Callable[[], Awaitable[T]], entry: JournalEntry, on_trouble: Callable[[str], None]
) -> T:
    until = anyio.current_time() + RETRY_FOR

    def pause_after(exc: ArtaError, tries: int) -> float | None:
        if not isinstance(exc, Unavailable):  # the service's fault, not the journal's
            return None
        if tries == 1:
            log.warning("%s of %s: %s", entry.phase, entry.record_id, exc.message)
        on_trouble(exc.message)
        return RETRY_PAUSE if anyio.current_time() < until else None

    return await retry(work, pause_after)
