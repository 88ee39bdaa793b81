"""Submission: from a request to a job that is submitted once, however often it is asked for."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import anyio
import anyio.lowlevel

from arta_mcp.arta.client import ArtaClient
from arta_mcp.arta.protocol import Submit
from arta_mcp.background import BackgroundTasks
from arta_mcp.errors import (
    ArtaError,
    JobFailed,
    KeyConflict,
    SubmitUnknown,
    Unavailable,
)
from arta_mcp.generations.callers import Call, Callers
from arta_mcp.generations.draining import Drain
from arta_mcp.generations.hourly_limit import HourlyLimit
from arta_mcp.generations.progress import ProgressReporter
from arta_mcp.generations.recorder import Recorder
from arta_mcp.generations.results import request_of
from arta_mcp.generations.slots import ConcurrencySlot
from arta_mcp.generations.values import EngineUsed, GenerationRequest
from arta_mcp.redaction import sanitize
from arta_mcp.state.contract import State
from arta_mcp.state.records import Begun, JournalEntry, NoRoom
from arta_mcp.styles import Style

log = logging.getLogger(__name__)

SEEDS = (9999, 99999999)
"""bounds of a random seed"""

MAX_SUBMIT_TIME = 110.0
"""seconds after which a submit counts as lost: a little less than four exchanges' time"""

MAX_REPEAT_DELAY = 30.0
"""seconds after its start in which a refused submit is sent again"""

MIN_TIME = 5.0
"""seconds that even a call without time tries to reach the service"""

SUBMIT_TIMEOUT = 10.0
"""seconds over its time that a call waits for a submit under way: a record id is worth them"""

SUBMIT_SHUTDOWN_TIMEOUT = 8.0
"""seconds that a submit under way has when the process is told to end; `docker stop` waits 10"""

KEY_POLL_INTERVAL = 0.1
"""seconds between two reads of an entry that another call is submitting"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The entry of a call's job, whether an earlier call ordered it, and what its limits say."""

    entry: JournalEntry
    is_earlier: bool = False
    notices: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One call's request on its way to the journal entry of a submitted job.

    `service` and `owner` name whose entry it is, `clock` gives seconds since the epoch, and `until`
    is when the call's waiting ends, by `anyio.current_time()`.
    """

    request: GenerationRequest
    style: Style
    fingerprint: str
    reporter: ProgressReporter
    until: float
    slot: ConcurrencySlot
    client: ArtaClient
    state: State
    recorder: Recorder
    background: BackgroundTasks
    callers: Callers
    drain: Drain
    call: Call
    service: str
    owner: str
    engine: EngineUsed
    limits: tuple[HourlyLimit, ...]
    clock: Callable[[], float]

    @property
    def left(self) -> float:
        """Seconds of waiting that are left, none when it is over."""
        return max(0.0, self.until - anyio.current_time())

    async def run(self) -> Submitted:
        """The call's job, or the one that an earlier call has ordered.

        Such is the first job of its idempotency key, or an equal one whose caller got no answer.
        Raises KeyConflict, SubmitUnknown and JobFailed for what became of a key's first job, and
        RateLimited where a limit has no room.
        """
        while True:
            now = self.clock()
            intent = JournalEntry(
                service=self.service,
                owner=self.owner,
                key=self.request.idempotency_key,
                fingerprint=self.fingerprint,
                request=self.request.model_dump_json(),
                style=self.style.name,
                engine=self.engine.name,
                engine_model=self.engine.model,
                phase="intended",
                created_at=now,
                caller=self.call.token if self.call.connection else None,
                # a program's own call is never taken up: it counts as answered
                answered_at=None if self.call.connection else now,
            )
            # The intent is on disk before anything is sent: a crash from here on is seen later. The
            # limits count in the same step: what repeats another call is never one too many.
            begun = await self._begin(intent)
            if begun.is_ours:
                self.call.entry = begun.entry
                used = zip(self.limits, begun.used, strict=True)
                notices = tuple(limit.notice(count) for limit, count in used)
                return Submitted(entry=await self._submit_ours(begun.entry), notices=notices)
            entry = self.recorder.newest(begun.entry)
            used = EngineUsed(entry.engine, entry.engine_model)
            # made anew: 0.1.0 wrote other fingerprints. The written one is of the model that was
            # set; what the engine says that it drew with may be another.
            made_anew = request_of(entry).fingerprint(entry.style, used)
            if self.fingerprint not in (entry.fingerprint, made_anew):
                raise KeyConflict(
                    f"idempotency_key {sanitize(repr(entry.key), 80)} belongs to another request",
                    record_id=entry.record_id,
                )
            if (earlier := _read_earlier(entry)) is not None:
                return Submitted(entry=earlier, is_earlier=True)
            if not self.left or self.drain.has_begun:
                which = "with this idempotency_key" if entry.key else "equal to this one"
                raise Unavailable(f"another call {which} is still being sent")
            await self.reporter.report("waiting")
            await anyio.sleep(KEY_POLL_INTERVAL)

    async def _begin(self, intent: JournalEntry) -> Begun:
        """Begins the entry, with progress while another process keeps the journal busy."""
        timeout = max(MIN_TIME, self.left)
        quotas = tuple(limit.quota for limit in self.limits)
        found: list[Begun | NoRoom] = []

        async def begin() -> None:
            found.append(
                await self.state.begin(intent, is_waiting=self.callers.is_waiting, quotas=quotas)
            )

        try:
            # A free journal has it before a report is due, and needs no task that reports.
            with anyio.move_on_after(min(timeout, self.reporter.due_in)):
                await begin()
            if not found:
                with anyio.move_on_after(timeout):
                    async with self.reporter.reporting("waiting"):
                        await begin()
        except BaseException as exc:  # it may be written all the same: a thread is not cancelled
            for begun in found:
                if isinstance(begun, Begun) and begun.is_ours:
                    await self._free(begun.entry, exc)
            raise
        match found:
            case [Begun() as begun]:
                return begun
            case [NoRoom() as full]:
                raise self.limits[quotas.index(full.quota)].explain(full)
            case _:
                raise Unavailable(
                    f"another process has kept the journal busy for {timeout:.0f} s;"
                    " nothing was ordered"
                )

    async def _free(self, entry: JournalEntry, exc: BaseException) -> None:
        """Frees entry, key and what it counted as while nothing was sent.

        Once it is `sending`, another version stands there, and the detached task writes the end.
        """
        error = exc.message if isinstance(exc, ArtaError) else "cancelled before it was sent"
        with anyio.CancelScope(shield=True):
            # The store gives back what it counted as in the same step, also when that comes late.
            await self.recorder.write(replace(entry, phase="refused", error=error))

    async def _submit_ours(self, entry: JournalEntry) -> JournalEntry:
        """Takes a slot and a token, then submits in a task that no cancellation stops."""
        try:
            with self.drain.preparing():
                await self._prepare()
            timeout = SUBMIT_TIMEOUT + self.left
            with anyio.move_on_after(timeout):
                submitting = self.background.detach(
                    partial(self._send, entry), shutdown_timeout=SUBMIT_SHUTDOWN_TIMEOUT
                )
                return await self.reporter.report_until(submitting, "ordering")
            raise SubmitUnknown(
                f"the service has not answered the submit in {timeout:.0f} s",
                hint="the order goes on; repeat the call with the same idempotency_key to find"
                " it, not without one",
            )
        except BaseException as exc:
            await self._free(entry, exc)
            raise

    async def _prepare(self) -> None:
        """Takes a slot, and sees to a token."""
        # A store is asked to its end: what was cancelled meanwhile must not go on to order.
        await anyio.lowlevel.checkpoint_if_cancelled()
        await self.slot.acquire(self.reporter, until=self.until)
        if self.client.has_token:
            return
        timeout = max(MIN_TIME, self.left)
        with anyio.move_on_after(timeout) as waiting:
            preparing = self.background.detach(self.client.prepare_token)
            await self.reporter.report_until(preparing, "ordering")
        if waiting.cancelled_caught:
            raise Unavailable(f"the identity host has not answered in {timeout:.0f} s")

    async def _send(self, entry: JournalEntry) -> JournalEntry:
        """The one POST and what is written before and after it; raises what it came to."""
        seed = random.randint(*SEEDS) if self.request.seed is None else self.request.seed
        sending = await self.state.write(replace(entry, phase="sending", seed=seed))
        if sending is None:
            raise Unavailable("another process took this idempotency_key over")
        submit = Submit.from_arguments(self.request.model_dump(), style=entry.style, seed=seed)
        deadline = min(max(self.left, MIN_TIME), MAX_REPEAT_DELAY)
        job = None
        try:
            with anyio.move_on_after(MAX_SUBMIT_TIME):
                job = await self.client.submit(submit, deadline=deadline)
            if job is None:
                raise SubmitUnknown(f"the submit did not end in {MAX_SUBMIT_TIME:.0f} s")
        except ArtaError as exc:
            phase = "unknown" if isinstance(exc, SubmitUnknown) else "refused"
            await self.recorder.write(replace(sending, phase=phase, error=exc.message))
            # Beside it, not in its place: it says whether another try may cost a second job.
            if trouble := self.recorder.trouble(entry):
                exc.hint = f"{exc.hint}; the journal could not be written either ({trouble})"
            raise
        submitted = replace(
            sending,
            phase="submitted",
            record_id=job.record_id,
            seed=seed if job.seed is None else job.seed,
            submitted_at=self.clock(),
        )
        log.info("submitted %s", job.record_id)
        return await self.recorder.write(submitted)


def _read_earlier(entry: JournalEntry) -> JournalEntry | None:
    """What an earlier, equal call came to; None while it is being sent."""
    match entry.phase:
        case "submitted" | "done":
            return entry
        case "failed":
            raise JobFailed(
                entry.error or "the job failed",
                hint="use a new idempotency_key to try once more",
                record_id=entry.record_id,
            )
        case "unknown":
            raise SubmitUnknown(
                "an earlier call with this idempotency_key has an unknown outcome:"
                f" {entry.error or 'the answer to its submit was lost'}",
                hint="nothing was sent now, and this key will not order again; if a second picture"
                " is acceptable, use a new idempotency_key",
            )
        case _:
            return None
