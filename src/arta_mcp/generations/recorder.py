"""Recorder: writes down what became of a job, also when the journal cannot be written for a while.

A job that exists is worth more than its entry: its call goes on and tells the trouble beside.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import anyio

from arta_mcp.background import BackgroundTasks, retry
from arta_mcp.errors import ArtaError, Unavailable
from arta_mcp.state.contract import State
from arta_mcp.state.records import JournalEntry

log = logging.getLogger(__name__)

WRITE_TIMEOUT = 2.0
"""seconds that a call waits for a write; a free journal takes milliseconds"""

RETRY_FOR = 30.0
"""seconds in which a write is tried again, in the background; a store that restarts is back then"""

RETRY_PAUSE = 0.5
"""seconds between two tries"""

Write = Callable[[JournalEntry], Awaitable[JournalEntry | None]]


class Recorder:
    """One for all calls of a process; `trouble` has what could not be written yet, by entry id."""

    def __init__(self, state: State, background: BackgroundTasks) -> None:
        self._state, self._background = state, background
        self.trouble: dict[str, str] = {}

    async def write(self, entry: JournalEntry) -> JournalEntry:
        """The entry as it stands from now on; one that another wrote since is left as it is."""
        return await self._record(entry, self._state.write)

    async def finish(self, entry: JournalEntry) -> JournalEntry:
        """The end of the job, as it stands."""
        return await self._record(entry, self._state.finish)

    async def note_call(
        self,
        entry: JournalEntry,
        *,
        answered_at: float | None = None,
        cut_after: float | None = None,
        caller: str | None = None,
    ) -> None:
        """Keeps how a call for the entry ended; see `State.note_call`."""

        async def note(_: JournalEntry) -> None:
            await self._state.note_call(
                entry.id, answered_at=answered_at, cut_after=cut_after, caller=caller
            )

        await self._record(entry, note)

    async def _record(self, entry: JournalEntry, write: Write) -> JournalEntry:
        writing = self._background.detach(partial(self._write, entry, write))
        if await writing.wait(WRITE_TIMEOUT):
            with suppress(RuntimeError):  # given up: the process ends, and has tried
                return writing.result() or entry
            return entry
        self.trouble.setdefault(entry.id, "another process keeps the journal busy")
        return entry

    async def _write(self, entry: JournalEntry, write: Write) -> JournalEntry | None:
        until = anyio.current_time() + RETRY_FOR

        def pause_after(exc: ArtaError, tries: int) -> float | None:
            if not isinstance(exc, Unavailable):  # the service's fault, not the journal's
                return None
            if tries == 1:
                log.warning("%s of %s: %s", entry.phase, entry.record_id, exc.message)
            self.trouble[entry.id] = exc.message
            return RETRY_PAUSE if anyio.current_time() < until else None

        try:
            written = await retry(lambda: write(entry), pause_after)
        except Unavailable:
            return None
        self.trouble.pop(entry.id, None)
        return written
