"""Ordering: from a request to a job that was ordered once, whoever asks and however often."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

import anyio

from arta_mcp.arta.client import ArtaClient
from arta_mcp.arta.protocol import Submit
from arta_mcp.background import Errands
from arta_mcp.errors import (
    ArtaError,
    JobFailed,
    KeyConflict,
    RateLimited,
    SubmitUnknown,
    Unavailable,
)
from arta_mcp.generations.polling import Watch
from arta_mcp.generations.values import GenerationRequest, Step, Update
from arta_mcp.redaction import sanitize
from arta_mcp.state.contract import State
from arta_mcp.state.records import JournalEntry
from arta_mcp.styles import Style

log = logging.getLogger(__name__)

SEEDS = (9999, 99999999)
"""bounds of a random seed"""

SUBMIT_LEASE = 120.0
"""seconds after which a submit that nobody ended counts as lost"""

SUBMIT_PATIENCE = 5.0
"""seconds that even a call without time tries to reach the service"""

HEARTBEAT = 2.5
"""seconds between two updates when nothing changes"""

SUBMIT_GRACE = 10.0
"""seconds over its time that a call waits for a submit under way"""

OnUpdate = Callable[[Update], Awaitable[None]]


class Teller:
    """Tells the caller where things stand; knows when the last word was too long ago."""

    def __init__(self, on_update: OnUpdate | None, waited: Callable[[], float]) -> None:
        self._on_update, self._waited = on_update, waited
        self._last = 0.0

    @property
    def quiet_for(self) -> float:
        """Seconds for which nothing need be said; the last word may have been just now."""
        return max(0.0, self._last + HEARTBEAT - self._waited())

    async def __call__(self, step: Step, watch: Watch | None = None) -> None:
        self._last = waited = self._waited()
        if self._on_update is None:
            return
        if watch is None:
            await self._on_update(Update(step=step, waited=waited))
            return
        await self._on_update(
            Update(
                step=step,
                waited=waited,
                record_id=watch.record_id,
                usual=watch.pace.usual,
                remaining=watch.pace.likely_remaining(watch.age),
            )
        )


class Place:
    """One of the places for jobs in flight; taken once, freed once, by whoever comes first."""

    def __init__(self, places: anyio.CapacityLimiter) -> None:
        self._places = places
        self._is_held = False

    async def take(self, tell: Teller, *, until: float) -> None:
        """Waits for a free place and says so; raises RateLimited when `until` comes first."""
        while not self._is_held:
            try:
                self._places.acquire_on_behalf_of_nowait(self)
                self._is_held = True
            except anyio.WouldBlock:
                await self._wait(tell, until=until)

    async def _wait(self, tell: Teller, *, until: float) -> None:
        if (left := until - anyio.current_time()) <= 0:
            raise RateLimited(
                f"all {self._places.total_tokens:g} places are taken by other generations",
                retry_after=30,
            )
        await tell("waiting")
        with anyio.move_on_after(min(HEARTBEAT, left)):
            await self._places.acquire_on_behalf_of(self)
            self._is_held = True

    def free(self) -> None:
        if self._is_held:
            self._is_held = False
            self._places.release_on_behalf_of(self)


@dataclass(frozen=True, slots=True)
class Order:
    """One call's wish; `until` is when its waiting ends, by `anyio.current_time()`."""

    request: GenerationRequest
    style: Style
    tell: Teller
    until: float
    place: Place


class Ordering:
    """Turns an Order into the journal entry of a job."""

    def __init__(
        self,
        client: ArtaClient,
        state: State,
        *,
        errands: Errands,
        service: str,
        clock: Callable[[], float],
    ) -> None:
        self._client, self._state = client, state
        self._errands, self._service, self._clock = errands, service, clock

    async def order(self, order: Order) -> JournalEntry:
        """The entry whose job was ordered by this call, or by an earlier one with its key.

        Raises KeyConflict, SubmitUnknown and JobFailed for what became of the earlier one.
        """
        fingerprint = order.request.fingerprint(order.style.name)
        while True:
            now = self._clock()
            lease = max(60.0, order.until - anyio.current_time() + 10)
            intent = JournalEntry(
                service=self._service,
                key=order.request.idempotency_key,
                fingerprint=fingerprint,
                request=order.request.model_dump_json(),
                style=order.style.name,
                phase="intended",
                created_at=now,
                lease_until=now + lease,
            )
            entry, is_ours = await self._state.begin(intent)
            if is_ours:
                return await self._place_and_submit(order, entry)
            if entry.fingerprint != fingerprint:
                raise KeyConflict(
                    f"idempotency_key {sanitize(repr(entry.key), 80)} belongs to another request",
                    record_id=entry.record_id,
                )
            if (settled := _earlier(entry, now)) is not None:
                return settled
            if anyio.current_time() >= order.until:
                raise Unavailable("another call with this idempotency_key is still being sent")
            await order.tell("waiting")
            await anyio.sleep(0.1)

    async def _place_and_submit(self, order: Order, entry: JournalEntry) -> JournalEntry:
        """Takes a place and a token, then submits as an errand that no cancellation stops."""
        try:
            await order.place.take(order.tell, until=order.until)
            told = partial(order.tell, "ordering")
            patience = max(SUBMIT_PATIENCE, order.until - anyio.current_time())
            with anyio.move_on_after(patience) as waiting:
                await self._client.ready(meanwhile=told, every=HEARTBEAT)
            if waiting.cancelled_caught:
                raise Unavailable(f"the identity host has not answered in {patience:.0f} s")
            patience = SUBMIT_GRACE + max(0.0, order.until - anyio.current_time())
            with anyio.move_on_after(patience):
                submitting = partial(self._submit, order, entry)
                return await self._errands.finish(submitting, meanwhile=told, every=HEARTBEAT)
            raise SubmitUnknown(
                f"the service has not answered the submit in {patience:.0f} s",
                hint="the order goes on; repeat the call with the same idempotency_key to find"
                " it, not without one",
            )
        except BaseException as exc:
            await self._abandon(entry, exc)
            raise

    async def _abandon(self, entry: JournalEntry, exc: BaseException) -> None:
        """While nothing was sent, the entry and its key become free again."""
        error = exc.message if isinstance(exc, ArtaError) else "cancelled before it was sent"
        refused = replace(entry, phase="refused", error=error)
        with anyio.CancelScope(shield=True):
            await self._state.claim(refused, lease_before=entry.lease_until)

    async def _submit(self, order: Order, entry: JournalEntry) -> JournalEntry:
        seed = random.randint(*SEEDS) if order.request.seed is None else order.request.seed
        lease = self._clock() + SUBMIT_LEASE
        sending = replace(entry, phase="sending", seed=seed, lease_until=lease)
        if not await self._state.claim(sending, lease_before=entry.lease_until):
            raise Unavailable("another process took this idempotency_key over")
        try:
            with anyio.fail_after(SUBMIT_LEASE - 10):
                left = max(order.until - anyio.current_time(), SUBMIT_PATIENCE)
                job = await self._client.submit(
                    _form(order.request, entry.style, seed), deadline=min(left, SUBMIT_LEASE / 4)
                )
        except (ArtaError, TimeoutError) as exc:
            raise await self._refused(sending, exc) from exc
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
            exc.record_id = job.record_id
            raise
        return submitted

    async def _refused(self, sending: JournalEntry, exc: ArtaError | TimeoutError) -> ArtaError:
        """Writes down that no job came of it, or that nobody knows."""
        if isinstance(exc, TimeoutError):
            exc = SubmitUnknown(f"the submit did not end in {SUBMIT_LEASE - 10:.0f} s")
        phase = "unknown" if isinstance(exc, SubmitUnknown) else "refused"
        await self._state.update(replace(sending, phase=phase, error=exc.message))
        return exc


def _earlier(entry: JournalEntry, now: float) -> JournalEntry | None:
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


def _form(request: GenerationRequest, style: str, seed: int) -> Submit:
    return Submit(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        style=style,
        n=request.n,
        guidance_scale=request.guidance_scale,
        num_inference_steps=request.num_inference_steps,
        aspect_ratio=request.aspect_ratio,
        seed=seed,
    )
