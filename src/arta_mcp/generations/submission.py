"""Submission: from a request to a job that was submitted once, whoever asks and however often."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import anyio

from arta_mcp.arta.client import ArtaClient
from arta_mcp.arta.protocol import Submit
from arta_mcp.background import BackgroundTasks
from arta_mcp.errors import ArtaError, JobFailed, KeyConflict, SubmitUnknown, Unavailable
from arta_mcp.generations.progress import ProgressReporter
from arta_mcp.generations.slots import ConcurrencySlot
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.redaction import sanitize
from arta_mcp.state.contract import State
from arta_mcp.state.records import JournalEntry
from arta_mcp.styles import Style

log = logging.getLogger(__name__)

SEEDS = (9999, 99999999)
"""bounds of a random seed"""

SUBMIT_LEASE = 120.0
"""seconds after which a submit whose end was not written counts as lost: four exchanges' time"""

MIN_LEASE = 60.0
"""seconds that an intent is held at least, before its submit begins"""

MIN_TIME = 5.0
"""seconds that even a call without time tries to reach the service"""

SUBMIT_TIMEOUT = 10.0
"""seconds over its time that a call waits for a submit under way: a record id is worth them"""

KEY_POLL_INTERVAL = 0.1
"""seconds between two looks at an entry that another call is submitting"""


@dataclass(frozen=True, slots=True)
class SubmitContext:
    """One call's submission; `until` is when its waiting ends, by `anyio.current_time()`."""

    request: GenerationRequest
    style: Style
    reporter: ProgressReporter
    until: float
    slot: ConcurrencySlot

    @property
    def left(self) -> float:
        """Seconds of waiting that are left, none when it is over."""
        return max(0.0, self.until - anyio.current_time())


class Submitter:
    """Turns a request into the journal entry of a submitted job."""

    def __init__(
        self,
        client: ArtaClient,
        state: State,
        *,
        background: BackgroundTasks,
        service: str,
        clock: Callable[[], float],
    ) -> None:
        """`service` names whose journal entries these are; `clock` gives seconds since epoch."""
        self._client, self._state = client, state
        self._background, self._service, self._clock = background, service, clock

    async def submit(self, context: SubmitContext) -> JournalEntry:
        """The entry whose job this call made, or an earlier one with its idempotency key.

        Raises KeyConflict, SubmitUnknown and JobFailed for what became of the earlier one.
        """
        request = context.request
        fingerprint = request.fingerprint(context.style.name)
        while True:
            now = self._clock()
            intent = JournalEntry(
                service=self._service,
                key=request.idempotency_key,
                fingerprint=fingerprint,
                request=request.model_dump_json(),
                style=context.style.name,
                phase="intended",
                created_at=now,
                lease_until=now + max(MIN_LEASE, context.left + SUBMIT_TIMEOUT),
            )
            # The intent is on disk before anything is sent: a crash from here on is seen later.
            entry, is_ours = await self._state.begin(intent)
            if is_ours:
                return await self._submit_ours(context, entry)
            if entry.fingerprint != fingerprint:
                raise KeyConflict(
                    f"idempotency_key {sanitize(repr(entry.key), 80)} belongs to another request",
                    record_id=entry.record_id,
                )
            if (earlier := _read_earlier(entry, now)) is not None:
                return earlier
            if not context.left:
                raise Unavailable("another call with this idempotency_key is still being sent")
            await context.reporter.report("waiting")
            await anyio.sleep(KEY_POLL_INTERVAL)

    async def _submit_ours(self, context: SubmitContext, entry: JournalEntry) -> JournalEntry:
        """Takes a slot and a token, then submits in a task that no cancellation stops."""
        reporter = context.reporter
        try:
            await context.slot.acquire(reporter, until=context.until)
            timeout = max(MIN_TIME, context.left)
            with anyio.move_on_after(timeout) as waiting:
                preparing = self._background.detach(self._client.prepare_token)
                await reporter.report_until(preparing, "ordering")
            if waiting.cancelled_caught:
                raise Unavailable(f"the identity host has not answered in {timeout:.0f} s")
            timeout = SUBMIT_TIMEOUT + context.left
            with anyio.move_on_after(timeout):
                submitting = self._background.detach(partial(self._send, context, entry))
                return await reporter.report_until(submitting, "ordering")
            raise SubmitUnknown(
                f"the service has not answered the submit in {timeout:.0f} s",
                hint="the order goes on; repeat the call with the same idempotency_key to find"
                " it, not without one",
            )
        except BaseException as exc:
            # While nothing was sent, entry and key become free again; once it is `sending`, claim
            # changes nothing, and the detached task writes the end.
            error = exc.message if isinstance(exc, ArtaError) else "cancelled before it was sent"
            refused = replace(entry, phase="refused", error=error)
            with anyio.CancelScope(shield=True), suppress(ArtaError):  # the first error counts
                await self._state.claim(refused, lease_before=entry.lease_until)
            raise

    async def _send(self, context: SubmitContext, entry: JournalEntry) -> JournalEntry:
        request = context.request
        seed = random.randint(*SEEDS) if request.seed is None else request.seed
        lease_until = self._clock() + SUBMIT_LEASE
        sending = replace(entry, phase="sending", seed=seed, lease_until=lease_until)
        if not await self._state.claim(sending, lease_before=entry.lease_until):
            raise Unavailable("another process took this idempotency_key over")
        submit = Submit.from_arguments(request.model_dump(), style=entry.style, seed=seed)
        # A pause before a repeat may not outlast the lease, or the entry would count as lost.
        deadline = min(max(context.left, MIN_TIME), SUBMIT_LEASE / 4)
        try:
            with anyio.fail_after(SUBMIT_LEASE - 10):
                job = await self._client.submit(submit, deadline=deadline)
        except (ArtaError, TimeoutError) as exc:
            raise await self._write_failure(sending, exc) from exc
        submitted = replace(
            sending,
            phase="submitted",
            record_id=job.record_id,
            seed=seed if job.seed is None else job.seed,
            submitted_at=self._clock(),
        )
        log.info("submitted %s", job.record_id)
        try:
            await self._state.update(submitted)
        except ArtaError as exc:
            exc.record_id = job.record_id  # the caller learns it, if the journal cannot
            raise
        return submitted

    async def _write_failure(
        self, sending: JournalEntry, exc: ArtaError | TimeoutError
    ) -> ArtaError:
        """Writes down that no job came of it, or that it cannot be known."""
        if isinstance(exc, TimeoutError):
            exc = SubmitUnknown(f"the submit did not end in {SUBMIT_LEASE - 10:.0f} s")
        phase = "unknown" if isinstance(exc, SubmitUnknown) else "refused"
        # Without it the entry becomes `unknown` by itself; an error of the journal in place of this
        # one would say that another try costs nothing.
        with suppress(ArtaError):
            await self._state.update(replace(sending, phase=phase, error=exc.message))
        return exc


def _read_earlier(entry: JournalEntry, now: float) -> JournalEntry | None:
    """What an earlier call with the same key came to; None while it is being sent."""
    match entry.effective_phase(now):
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
