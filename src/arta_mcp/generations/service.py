"""Generations: start, wait, resume, list, save; the deep module that both front ends call.

The life of a generation, as its journal entry records it (state.records.Phase):

    generate()
       |  intended --------------------> refused      nothing was sent, or the service refused
       |     | slot acquired, token at hand, submit (detached task)
       |  sending ---------------------> unknown      the answer was lost; never sent again
       |     | record id on disk
       |  submitted <-- get() adopts a record id that this journal never saw
       |     | JobPoller.run()         one poller a job, shared by every call that waits for it
       |     +-------------------------> failed       the service gave the job up
       |     | _finish(): end on disk, then pictures saved
       v   done

A call stops waiting at its deadline (`pending`) or when it is cancelled. The submit under way goes
on in either case; polling goes on after `pending`, and stops when the last waiting call was
cancelled: the job stays known under its record id. A generation that a host's call was not
answered with is taken up by the next equal call: `callers.py` says when.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from weakref import WeakValueDictionary

import anyio
import anyio.lowlevel
import anyio.to_thread

from arta_mcp.arta.client import ArtaClient, Picture
from arta_mcp.arta.protocol import Image, Job, is_record_id
from arta_mcp.background import BackgroundTasks, open_background
from arta_mcp.errors import (
    ArtaError,
    JobFailed,
    JobTimedOut,
    NotCancellable,
    PicturesRemoved,
    PollFailed,
    RefusedStyle,
    Unavailable,
    UnknownRecord,
    UnknownStyle,
)
from arta_mcp.generations.callers import Call, Callers
from arta_mcp.generations.downloads import read_saved, save_pictures
from arta_mcp.generations.draining import Drain
from arta_mcp.generations.events import EventPublisher, GenerationEvent, Listener
from arta_mcp.generations.hourly_limit import HourlyLimit, OrderLimit, PictureLimit
from arta_mcp.generations.learning import LearntSchedules
from arta_mcp.generations.live_styles import LiveCatalogue
from arta_mcp.generations.polling import JobPoller, PhaseTimes
from arta_mcp.generations.progress import OnUpdate, ProgressReporter
from arta_mcp.generations.recorder import Recorder
from arta_mcp.generations.results import (
    CancelJob,
    FindFile,
    RemoveFiles,
    failure_of,
    join_notes,
    request_of,
    to_generation,
)
from arta_mcp.generations.schedule import PollSchedule
from arta_mcp.generations.slots import ConcurrencySlot
from arta_mcp.generations.submission import Submission, Submitted
from arta_mcp.generations.values import (
    Cancellation,
    EngineUsed,
    Generation,
    GenerationRequest,
    Update,
)
from arta_mcp.redaction import sanitize
from arta_mcp.state.contract import UNANSWERED_TTL, State
from arta_mcp.state.records import CallNote, Health, JournalEntry, Pruned, Quota
from arta_mcp.styles import SHIPPED, Catalogue

log = logging.getLogger(__name__)

POLL_TIMEOUT = 10.0
"""seconds over its time that a call waits for a poll under way, whose answer it is there for"""

REFRESH_TIMEOUT = 2.0
"""seconds over its time that a call waits for fresh addresses of a finished generation"""

CANCEL_TIMEOUT = 1.0
"""seconds in which a process that draws sees that a job was cancelled; it looks each 0.2"""

MODELS_TIMEOUT = 2.0
"""seconds that a call waits for what an engine's server says that it has"""

EXPLAIN_TIMEOUT = 0.5
"""seconds in which a host says why it cancelled a call; its reason follows in the same message"""

MAX_CONFIRMED = 1000
"""finished generations whose addresses are known to serve; the oldest are polled again"""


DEFAULT_MAX_WAIT = 50.0
"""seconds; most hosts cut a call off at 60"""

TAKEN_UP = (
    "this is what an equal call before it ordered and got no answer for; nothing new was ordered;"
    " another seed gives another picture"
)
"""the notice of a generation that a call has taken up"""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds in seconds, but for those of concurrency, which count jobs: of all, and of one owner.

    `owner_hourly` counts what one owner orders in an hour.
    With `adapts_wait` a host's call answers sooner than `max_wait` where one was cut off before.
    `hourly` is how many pictures hosts may ask for in an hour.
    """

    max_wait: float = DEFAULT_MAX_WAIT
    adapts_wait: bool = True
    job_timeout: float = 600.0
    max_concurrency: int = 8
    owner_concurrency: int | None = None
    owner_hourly: int | None = None
    min_poll_interval: float = 0.5
    hourly: int | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """What a backend is once it is open."""

    client: ArtaClient
    state: State


class Generations:
    """Every generation of one backend. Use it as `async with`; nothing opens before it is needed.

    All methods raise the errors of `arta_mcp.errors` and nothing else that a caller could mend.
    """

    def __init__(
        self,
        connect: Callable[[BackgroundTasks], AbstractAsyncContextManager[Backend]],
        *,
        backend: Literal["arta", "local"],
        service: str,
        owner: str = "",
        limits: Limits | None = None,
        output_dir: Path | None = None,
        engine: EngineUsed | None = None,
        engine_notice: Callable[[EngineUsed], str | None] = lambda _: None,
        engine_summary: str | None = None,
        list_engine_models: Callable[[], Awaitable[tuple[str, ...]]] | None = None,
        styles: Catalogue | None = None,
        find_file: FindFile | None = None,
        remove_files: RemoveFiles | None = None,
        cancel_job: CancelJob = lambda _: None,
        schedule: type[PollSchedule] = PollSchedule,
    ) -> None:
        """`service` names what draws these generations, `owner` whose they are where a call says
        nothing else: empty for the one person of a state folder.

        `engine` is what draws, as far as it is known; `engine_notice` gives what is said of its
        results, `engine_summary` what to expect before a call, `list_engine_models` what its server
        has; `styles` is what is known without a service; pictures are saved to `output_dir`,
        if any; `find_file` gives the path of one that the backend itself keeps on this machine,
        `remove_files` removes those of pruned generations; `cancel_job` cancels a job of its own.
        """
        self.backend: Literal["arta", "local"] = backend
        self.limits = limits or Limits()
        self.owner = owner
        self._connect, self._service = connect, service
        self._output_dir, self._engine_notice = output_dir, engine_notice
        self.engine = self._engine = engine or EngineUsed()
        self.engine_summary, self._find_file = engine_summary, find_file
        self._remove_files, self._cancel_job = remove_files, cancel_job
        self._removed: dict[str, PicturesRemoved] = {}
        self._schedules = LearntSchedules(service, schedule, floor=self.limits.min_poll_interval)
        self._callers = Callers()
        self._drain = Drain()
        self._styles = LiveCatalogue(service, clock=self._clock, shipped=styles or SHIPPED)
        self._list_engine_models = list_engine_models
        self._events = EventPublisher()
        self._background_block = open_background()
        self._stack = AsyncExitStack()
        self._opened: Backend | None = None
        self._records: Recorder | None = None
        self._opening = anyio.Lock()
        self._slots = anyio.CapacityLimiter(self.limits.max_concurrency)
        self._own_slots = WeakValueDictionary[str, anyio.CapacityLimiter]()
        # A poller lives as long as its task and the calls that wait for it.
        self._pollers = WeakValueDictionary[str, JobPoller]()
        self._confirmed: dict[str, None] = {}

    async def __aenter__(self) -> Self:
        self._background = await self._background_block.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:  # background tasks first: they still need the connections that the stack closes
            await self._background_block.__aexit__(None, None, None)
        finally:
            await self._stack.__aexit__(kind, error, trace)

    async def generate(
        self,
        request: GenerationRequest,
        on_update: OnUpdate | None = None,
        *,
        max_wait: float | None = None,
        call: Call | None = None,
    ) -> Generation:
        """The finished generation, or a pending one after `max_wait` seconds.

        Cancelling stops the waiting; a submit under way still ends and its job stays known. `call`
        is given for a host's call: one without an answer is taken up by the next equal one.
        """
        call, owner = self._own(call)
        reporter = ProgressReporter(on_update)
        if self._engine.has_defaults:
            request = request.without_defaults()
        try:
            style = self._styles.catalogue.resolve(request.model)
        except UnknownStyle:  # the service may know it by now
            style = (await self.catalogue()).resolve(request.model)
        backend = await self._open()
        fingerprint = request.fingerprint(style.name, self._engine)
        if request.idempotency_key is None:  # a key says by itself what a call repeats
            call.fingerprint = fingerprint
        async with self._answering(call, backend):
            slot = ConcurrencySlot(self._slots, self._slots_of(owner))
            try:
                if repeated := await self._repeat(call, reporter):
                    submitted = Submitted(entry=repeated, is_earlier=True)
                else:
                    submission = Submission(
                        request=request,
                        style=style,
                        fingerprint=fingerprint,
                        reporter=reporter,
                        until=self._until(call, None, max_wait),
                        slot=slot,
                        client=backend.client,
                        state=backend.state,
                        recorder=self._recorder(backend),
                        background=self._background,
                        callers=self._callers,
                        drain=self._drain,
                        call=call,
                        service=self._service,
                        owner=owner,
                        engine=self._engine,
                        limits=self._hourly_limits(call, owner, request.n),
                        clock=self._clock,
                    )
                    submitted = await submission.run()
                    is_keyless = bool(call.fingerprint)
                    while submitted.is_earlier and is_keyless and self._is_gone(submitted.entry):
                        # Noted as answered, so that no call takes it up; this one orders anew.
                        answered = CallNote(answered_at=self._clock())
                        await self._recorder(backend).note_call(submitted.entry, answered)
                        submitted = await submission.run()
                    call.settle(submitted.entry)
                    self._publish(submitted.entry)
                entry, is_earlier = submitted.entry, submitted.is_earlier
                poller = await self._join_poller(backend, entry, slot)
            except RefusedStyle as exc:
                slot.release()
                await self._styles.learn(exc.valid, backend.state)
                # The list that came with the refusal names near styles that exist now.
                self._styles.catalogue.resolve(request.model)
                raise
            except BaseException:
                slot.release()
                raise
            if poller is None:
                slot.release()
            until = self._until(call, entry if is_earlier else None, max_wait)
            done = await self._wait(backend, entry, poller, reporter, until)
            taken_up = TAKEN_UP if is_earlier and request.idempotency_key is None else None
            return replace(done, notice=join_notes(taken_up, done.notice, *submitted.notices))

    async def get(
        self,
        record_id: str,
        on_update: OnUpdate | None = None,
        *,
        max_wait: float | None = 0.0,
        call: Call | None = None,
    ) -> Generation:
        """Where a generation stands, after at most `max_wait` seconds; 0 polls once.

        Works for every record id of the call's owner, also of other processes and earlier ones,
        and for one that only the service knows when the owner is that of a state folder. None waits
        as long as `generate` would.
        """
        call, owner = self._own(call)
        reporter = ProgressReporter(on_update)
        backend = await self._open()
        entry = await self._find(backend, owner, record_id)
        if entry is None:
            with anyio.move_on_after(call.allowed_wait(max_wait or 0.0) + POLL_TIMEOUT):
                entry = await self._adopt(backend, record_id, owner)
            if entry is None:
                raise Unavailable("the service has not answered", record_id=record_id)
        if entry.phase == "failed":
            raise JobFailed(entry.error or "the job failed", record_id=entry.record_id)
        call.settle(entry)
        async with self._answering(call, backend):
            poller = await self._join_poller(backend, entry)
            return await self._wait(
                backend,
                entry,
                poller,
                reporter,
                self._until(call, entry, max_wait),
                poll_first=True,
            )

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Update | Generation]:
        """The updates of a generation, then the generation; closing the stream cancels the wait."""
        send, receive = anyio.create_memory_object_stream[Update | Generation](1000)
        scope = anyio.CancelScope()
        failures: list[Exception] = []

        async def run() -> None:
            with scope, send:
                try:
                    await send.send(await self.generate(request, send.send))
                except Exception as exc:
                    failures.append(exc)

        # In a task of its own: a cancel scope must not stay open across a yield (PEP 789).
        self._background.spawn(run)
        try:
            with receive:
                async for item in receive:
                    yield item
        finally:
            scope.cancel()
        if failures:
            raise failures[0]

    async def history(self, limit: int = 50, *, owner: str | None = None) -> tuple[Generation, ...]:
        """The owner's newest generations, newest first; the lost ones among them."""
        backend, owner = await self._open(), self.owner if owner is None else owner
        found = await backend.state.latest(self._service, owner, limit)
        newest = self._recorder(backend).newest
        return tuple(self._to_generation(newest(entry)) for entry in found)

    async def prune(self, days: float, *, owner: str | None = None) -> tuple[Pruned, int]:
        """Removes the owner's generations older than `days` that have ended; see `State.prune`.

        Gives beside them how many pictures the backend itself kept of them and has removed. One
        that the next equal call could still take up is never old enough.
        """
        await self._open()  # whose clock it is
        return await self._remove([self._whose(owner)], self._begun_before(days), "sketches")

    async def prune_everybody(
        self, days: float, *, report: Callable[[int, int], None] = lambda _done, _owners: None
    ) -> tuple[Pruned, int]:
        """As `prune`, of every owner and every service that the state has generations of.

        `report` is given how many owners are done, and how many there are.
        """
        owners = await (await self._open()).state.owners()
        return await self._remove(owners, self._begun_before(days), "sketches", report)

    async def forget(self, *, owner: str | None = None) -> tuple[Pruned, int]:
        """Removes all of the owner's generations that have ended, and the pictures of any engine.

        As `prune`, but whenever they were made: an equal call orders anew. What is not known to
        have ended stays, since its record keeps a second one from being ordered.
        """
        await self._open()
        return await self._remove([self._whose(owner)], self._clock() + UNANSWERED_TTL, "all")

    def _begun_before(self, days: float) -> float:
        return self._clock() - max(days * 86400, UNANSWERED_TTL)

    def _whose(self, owner: str | None) -> tuple[str, str]:
        return self._service, self.owner if owner is None else owner

    async def _remove(
        self,
        owners: Sequence[tuple[str, str]],
        before: float,
        pictures: Literal["sketches", "all"],
        report: Callable[[int, int], None] = lambda _done, _owners: None,
    ) -> tuple[Pruned, int]:
        state = (await self._open()).state
        found: list[Pruned] = []
        removed = 0
        for whose in owners:
            found.append(await state.prune(*whose, before))
            # With each owner: what is interrupted would not find these record ids again.
            if self._remove_files is not None and (record_ids := found[-1].record_ids):
                work = partial(self._remove_files, record_ids, pictures)
                removed += await anyio.to_thread.run_sync(work)
            report(len(found), len(owners))
        pruned = Pruned(
            count=sum(one.count for one in found),
            record_ids=tuple(record_id for one in found for record_id in one.record_ids),
            kept=sum(one.kept for one in found),
        )
        return pruned, removed

    async def health(self) -> Health:
        """How the store of the state stands; raises nothing of it, but what opening it does."""
        return await (await self._open()).state.health()

    async def cancel(self, record_id: str) -> Cancellation:
        """Gives up a job of the embedded service: no further picture of it is begun.

        Whichever process draws it. Raises NotCancellable and UnknownRecord.
        """
        backend = await self._open()
        cancelled = await anyio.to_thread.run_sync(self._cancel_job, record_id)
        if cancelled is None:
            if self.backend == "arta" and await self._find(backend, self.owner, record_id):
                raise NotCancellable(
                    "the remote service takes no cancellation: the job goes on there",
                    record_id=record_id,
                )
            raise UnknownRecord(
                f"no job on this machine has the record id {sanitize(repr(record_id), 80)}",
                hint=f"{UnknownRecord.default_hint}; the remote service takes no cancellation",
            )
        # Its end goes into the journal now, unless another process has yet to come to it.
        if self.backend == "local" and not cancelled.is_drawing:
            with suppress(ArtaError):
                await self.get(record_id, max_wait=CANCEL_TIMEOUT)
        return cancelled

    async def catalogue(self) -> Catalogue:
        """What can be drawn with, as fresh as 2 s of waiting make it."""
        if self.backend == "arta" and not self._styles.is_fresh:
            backend = await self._open()
            await self._styles.refresh(backend.state, backend.client, self._background)
        return self._styles.catalogue

    async def engine_models(self) -> tuple[str, ...]:
        """What the engine's server says that it has, if it says so within 2 s."""
        if self._list_engine_models is not None:
            with suppress(ArtaError), anyio.move_on_after(MODELS_TIMEOUT):
                return await self._list_engine_models()
        return ()

    @property
    def known_catalogue(self) -> Catalogue:
        """What is known to be drawn with, without a request."""
        return self._styles.catalogue

    async def picture(self, record_id: str, index: int, *, owner: str | None = None) -> Picture:
        """One picture of a finished generation of the owner's: as saved, else downloaded.

        Raises UnknownRecord for an index that it does not have.
        """
        generation = await self.get(record_id, call=Call(owner=owner))
        if removed := self._removed_of(record_id, generation):
            raise removed
        if not 0 <= index < len(generation.images):
            have = len(generation.images)
            raise UnknownRecord(
                f"generation {record_id} has no picture {index}; it has {have}",
                hint="call get_generation with its record id",
            )
        return await self.read_picture(generation, index)

    async def read_picture(self, generation: Generation, index: int) -> Picture:
        """One picture of a generation at hand: as saved, else downloaded."""
        image = generation.images[index]
        saved = await read_saved(Path(image.path)) if image.path else None
        return saved or await (await self._open()).client.download(Image(image.url))

    async def save_pictures(
        self, generation: Generation, folder: Path, *, on_failure: Callable[[int, str], None]
    ) -> Generation:
        """A finished generation with every picture in `folder`, whatever was saved before.

        `on_failure` gets the index of a picture that was not saved, and why.
        """
        images = list(generation.images)
        missing = [
            index
            for index, image in enumerate(images)
            if not image.path
            or Path(image.path).parent != folder
            or not await anyio.Path(image.path).exists()
        ]
        paths = await save_pictures(
            partial(self.read_picture, generation),
            missing,
            folder=folder,
            record_id=generation.record_id or "",
            prompt=generation.request.prompt,
            on_failure=on_failure,
        )
        for index in missing:
            images[index] = replace(images[index], path=paths.get(index))
        return replace(generation, images=tuple(images))

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` with an event of every generation that is new or has ended.

        Gives the function that ends it. A listener that is slow or fails delays no call.
        """
        return self._events.subscribe(listener, self._background)

    @property
    def output_dir(self) -> Path | None:
        """Where finished pictures are saved, if anywhere."""
        return self._output_dir

    def on_drain(self, listener: Callable[[], None]) -> None:
        """Calls `listener` when the process is about to end."""
        self._drain.on_begin(listener)

    def drain(self, timeout: float) -> None:
        """Lets every call answer now: one with a job as `pending`, one without is refused.

        Submits under way go on; what runs in the background has `timeout` seconds from now.
        """
        self._drain.begin()
        self._background.start_ending(timeout)

    @property
    def is_draining(self) -> bool:
        """Whether the process is about to end."""
        return self._drain.has_begun

    def _clock(self) -> float:
        """The time that goes into entries: the state's own."""
        return self._opened.state.now() if self._opened else time.time()

    async def _open(self) -> Backend:
        if self._opened is not None:
            return self._opened
        async with self._opening:
            if self._opened is None:
                connecting = self._connect(self._background)
                self._opened = await self._stack.enter_async_context(connecting)
            return self._opened

    def _slots_of(self, owner: str) -> anyio.CapacityLimiter | None:
        count = self.limits.owner_concurrency
        if count is None:
            return None
        return self._own_slots.setdefault(owner, anyio.CapacityLimiter(count))

    def _hourly_limits(self, call: Call, owner: str, count: int) -> tuple[HourlyLimit, ...]:
        """What bounds an order of so many pictures; nothing does a person's own command."""
        pictures, orders = self.limits.hourly, self.limits.owner_hourly
        limits: list[HourlyLimit] = []
        # Over HTTP a caller that nobody knows has no connection.
        if pictures is not None and (call.connection or call.owner is not None):
            name = PictureLimit.name_of(self._service, self._engine.name, owner)
            limits.append(PictureLimit(Quota(name=name, hourly=pictures, amount=count)))
        if orders is not None:
            limits.append(OrderLimit(Quota(name=owner, hourly=orders, amount=1)))
        return tuple(limits)

    def _recorder(self, backend: Backend) -> Recorder:
        if self._records is None:
            self._records = Recorder(backend.state, self._background)
        return self._records

    async def _find(self, backend: Backend, owner: str, record_id: str) -> JournalEntry | None:
        recorder = self._recorder(backend)
        kept = recorder.find(owner, record_id)
        try:
            found = await backend.state.find(self._service, owner, record_id)
        except Unavailable:
            if kept is None:
                raise
            return kept
        return recorder.newest(found) if found else kept

    def _publish(self, entry: JournalEntry) -> None:
        self._events.publish(GenerationEvent(entry.owner, entry.record_id or ""))

    # Callers

    def _own(self, call: Call | None) -> tuple[Call, str]:
        """The call, made where there is none, and whose generations it sees and makes."""
        call = call or Call()
        return call, self.owner if call.owner is None else call.owner

    @asynccontextmanager
    async def _answering(self, call: Call, backend: Backend) -> AsyncGenerator[None]:
        """Keeps how a call ends beside its generation: answered, cut off, or neither."""
        recorder = self._recorder(backend)
        try:
            with self._callers.running(call):
                yield
                # An exchange is read to its end, also when the call was cancelled meanwhile.
                await anyio.lowlevel.checkpoint_if_cancelled()
        except BaseException as exc:
            if isinstance(exc, Exception):
                call.explain(is_cut=False)
            # In the background: a call that is cancelled ends now, and why is said a moment later.
            self._background.detach(partial(self._note_end, call, recorder))
            raise
        call.explain(is_cut=False)
        if call.connection and call.entry:
            call.connection.note_answer(call, call.entry.record_id or "")
            await recorder.note_call(call.entry, CallNote(answered_at=self._clock()))

    async def _note_end(self, call: Call, recorder: Recorder) -> None:
        """Writes down that a call ended without an answer, and after how long it was cut."""
        with anyio.move_on_after(EXPLAIN_TIMEOUT):
            await call.is_explained.wait()
        call.explain(is_cut=False)
        if call.connection and call.entry:
            still = call.token if self._callers.is_waiting(call.token) else None
            cut_after = call.age if call.is_cut else None
            await recorder.note_call(call.entry, CallNote(cut_after=cut_after, caller=still))

    async def _repeat(self, call: Call, reporter: ProgressReporter) -> JournalEntry | None:
        """What the call repeats of its own connection: see `callers.py`. None: nothing."""
        if call.connection is None or not call.fingerprint:
            return None
        record_id = call.connection.take_unread(call.fingerprint)
        if record_id is not None:
            backend = await self._open()
            entry = await self._find(backend, self._own(call)[1], record_id)
            if entry and entry.phase in ("submitted", "done") and not self._is_gone(entry):
                call.settle(entry)
                return entry
        first = call.connection.find_running(call)
        if first is None:
            return None
        cut_after = self._callers.join(call, first)
        call.connection.note_cut(cut_after)
        until = self._until(call, None, None)
        with anyio.move_on_after(until - anyio.current_time()):
            async with reporter.reporting("waiting"):
                await first.is_settled.wait()
        if not first.is_settled.is_set():
            raise Unavailable("the equal call before this one is still being ordered")
        if first.job is None:  # it ended without one; what it may have under way is found there
            return None
        recorder = self._recorder(await self._open())
        await recorder.note_call(first.job, CallNote(cut_after=cut_after, caller=call.token))
        call.settle(replace(first.job, cut_after=cut_after))
        return call.job

    def waits_until(self, call: Call | None, max_wait: float | None = None) -> float:
        """When a host's call should be answered, by `anyio.current_time()`."""
        return self._until(call or Call(), call.job if call else None, max_wait)

    def _until(self, call: Call, entry: JournalEntry | None, max_wait: float | None) -> float:
        """When the call stops waiting, by `anyio.current_time()`."""
        wait = self.limits.max_wait if max_wait is None else max_wait
        if self.limits.adapts_wait and call.connection:
            wait = call.allowed_wait(wait, entry.cut_after if entry else None)
        return anyio.current_time() - call.age + wait

    # Waiting

    async def _wait(
        self,
        backend: Backend,
        entry: JournalEntry,
        poller: JobPoller | None,
        reporter: ProgressReporter,
        until: float,
        *,
        poll_first: bool = False,
    ) -> Generation:
        """Waits on the job's poller, which was joined; None: done, with addresses to refresh."""
        if poller is None:
            return await self._refresh(backend, entry, reporter, until)
        polls_before = poller.polls if poll_first else -1
        try:
            if poll_first:
                poller.wake()
            with self._drain.waiting():
                await self._report(reporter, poller)
                while not poller.is_over:
                    phase = poller.phase
                    left = until - anyio.current_time()
                    if left <= 0 and (poller.polls > polls_before or left < -POLL_TIMEOUT):
                        break
                    await poller.wait_for_change(min(reporter.due_in, max(left, 0.05)))
                    if poller.phase != phase or not reporter.due_in:
                        await self._report(reporter, poller)
            poller.detach()  # last of all: a call that was cancelled has left for good
        finally:
            poller.leave()
        if poller.error is not None:
            raise poller.error
        generation = self._to_generation(poller.outcome or entry)
        failure = f"the last look failed: {poller.last_failure}" if poller.last_failure else None
        if poller.has_timed_out and generation.status != "done":
            late = f"the job did not end in {self.limits.job_timeout:g} s"
            raise JobTimedOut("; ".join(filter(None, (late, failure))), record_id=entry.record_id)
        return replace(generation, notice=join_notes(generation.notice, failure))

    async def _report(self, reporter: ProgressReporter, poller: JobPoller) -> None:
        await reporter.report(
            poller.phase,
            record_id=poller.record_id,
            usual=poller.schedule.usual,
            remaining=poller.schedule.likely_remaining(poller.age()),
            ahead=poller.ahead,
            drawn=poller.drawn if poller.phase == "drawing" else None,
        )

    async def _join_poller(
        self, backend: Backend, entry: JournalEntry, slot: ConcurrencySlot | None = None
    ) -> JobPoller | None:
        """The poller of a job, joined: the caller must `leave` it. None for a finished job.

        One poller a job: a call that finds one brings its slot there, to be released at the end.
        """
        if entry.phase == "done":
            return None
        record_id = entry.record_id or ""
        schedule = await self._schedules.schedule_for(entry.style, backend.state)
        # No await between here and `join`: two calls must not make two pollers of one job.
        poller = self._pollers.get(record_id)
        if poller is None or poller.is_ending:
            first_age = max(0.0, self._clock() - (entry.submitted_at or entry.created_at))
            began = anyio.current_time()
            poller = self._pollers[record_id] = JobPoller(
                record_id,
                client=backend.client,
                schedule=schedule,
                # By the clock that only goes forward: a step of the wall clock ages no job.
                age=lambda: first_age + anyio.current_time() - began,
                timeout=self.limits.job_timeout,
                floor=self.limits.min_poll_interval,
                finish=partial(self._finish, backend, entry),
            )
            self._background.spawn(poller.run)
        poller.join(slot)
        return poller

    # The end of a job

    async def _finish(
        self, backend: Backend, entry: JournalEntry, job: Job, times: PhaseTimes
    ) -> JournalEntry:
        """Writes the job's end down, saves its pictures, and raises what a failure means."""
        submitted_at = entry.submitted_at or entry.created_at
        waiting, queued, drawing = (None if at is None else submitted_at + at for at in times)
        count = request_of(entry).n if entry.style else None  # None: adopted, so not known
        entry = replace(
            entry,
            finished_at=self._clock(),
            seen_waiting=waiting,
            seen_queued=queued,
            seen_drawing=drawing,
            images=job.images[:count],
            details=json.dumps(job.local.render() if job.local else {}),
            # what drew, which the settings of now need not name any more
            engine=(job.local and job.local.engine) or entry.engine,
            engine_model=(job.local and job.local.engine_model) or entry.engine_model,
        )
        failure = failure_of(job)
        if failure is not None:
            recorder = self._recorder(backend)
            await recorder.finish(replace(entry, phase="failed", error=failure.message))
            self._publish(entry)
            raise failure
        seed = entry.seed if job.seed is None else job.seed
        done = await self._recorder(backend).finish(replace(entry, phase="done", seed=seed))
        self._schedules.note_end(entry.style)
        return await self._save(backend, done)

    async def _save(self, backend: Backend, entry: JournalEntry) -> JournalEntry:
        """Saves what is missing of a finished generation's pictures, if a folder is set.

        The addresses are on disk before: downloads may be slow or fail.
        """
        count = len(entry.images)
        paths = dict(enumerate(entry.paths if len(entry.paths) == count else ()))
        missing = [index for index in range(count) if paths.get(index) is None]
        if self._output_dir is not None and missing:

            def log_failure(index: int, why: str) -> None:
                log.warning("picture %s of %s was not saved: %s", index, entry.record_id, why)

            saved = await save_pictures(
                lambda index: backend.client.download(entry.images[index]),
                missing,
                folder=self._output_dir,
                record_id=entry.record_id or "",
                prompt=request_of(entry).prompt,
                on_failure=log_failure,
            )
            known = paths | saved
            entry = replace(entry, paths=tuple(known.get(index) for index in range(count)))
            entry = await self._recorder(backend).write(entry)
        self._confirmed[entry.record_id or ""] = None  # its addresses are a moment old: they serve
        if len(self._confirmed) > MAX_CONFIRMED:
            del self._confirmed[next(iter(self._confirmed))]
        self._publish(entry)
        return entry

    async def _refresh(
        self, backend: Backend, entry: JournalEntry, reporter: ProgressReporter, until: float
    ) -> Generation:
        """A finished generation with addresses that still serve.

        They expire, and a local service may have moved to another port. What takes too long is
        given as it was stored, and goes on in the background.
        """

        async def refresh() -> JournalEntry:
            try:
                job = await backend.client.poll_until_answered(entry.record_id or "")
            except ArtaError as exc:
                if isinstance(exc, UnknownRecord) and self._find_file is not None:
                    self._keep_removal(entry, exc)
                log.info("%s is given as stored: %s", entry.record_id, exc.message)
                return entry
            if not job.is_done:
                return entry
            refreshed = replace(entry, images=job.images[: len(entry.images) or None])
            if refreshed.images != entry.images:
                refreshed = await self._recorder(backend).write(refreshed)
            return await self._save(backend, refreshed)

        found = entry
        # A file that our own service keeps no more is noticed, however lately it was there.
        if entry.record_id not in self._confirmed or self._is_gone(entry):
            with anyio.move_on_after(REFRESH_TIMEOUT + max(0.0, until - anyio.current_time())):
                found = await reporter.report_until(self._background.detach(refresh), "saving")
        return self._to_generation(found)

    async def _adopt(self, backend: Backend, record_id: str, owner: str) -> JournalEntry:
        """An entry for a job that this journal never saw, if the service knows it.

        Only for the one person of a state folder, whose account made it. An account that several
        share knows the jobs of all: there another's record id is unknown, in the same words.
        """
        unknown = f"no generation has the record id {sanitize(repr(record_id), 80)}"
        if owner or not is_record_id(record_id):
            raise UnknownRecord(unknown)
        try:
            job = await backend.client.poll_until_answered(record_id)
        except PollFailed as exc:
            raise Unavailable(exc.message, record_id=record_id) from exc
        except PicturesRemoved:
            raise
        except UnknownRecord as exc:
            raise UnknownRecord(unknown) from exc
        now = self._clock()
        entry = JournalEntry(
            service=self._service,
            owner=owner,
            key=None,
            fingerprint="",
            request="{}",
            style="",
            engine=self._engine.name,
            engine_model=self._engine.model,
            phase="submitted",
            created_at=now,
            answered_at=now,
            record_id=record_id,
            seed=job.seed,
        )
        adopted = await self._recorder(backend).adopt(entry)
        if adopted.owner != owner:
            raise UnknownRecord(unknown)
        return adopted

    def _is_gone(self, entry: JournalEntry) -> bool:
        """Whether a service on this machine lacks a picture of a finished generation."""
        if self._find_file is None or entry.phase != "done":
            return False
        saved = dict(enumerate(entry.paths))
        return any(
            saved.get(index) is None and self._find_file(entry.record_id or "", index) is None
            for index in range(len(entry.images))
        )

    def _keep_removal(self, entry: JournalEntry, exc: UnknownRecord) -> None:
        """Remembers that a service on this machine has a finished generation's pictures no more."""
        gone = PicturesRemoved("the pictures are gone: the embedded service has them no more")
        self._removed[entry.record_id or ""] = exc if isinstance(exc, PicturesRemoved) else gone
        if len(self._removed) > MAX_CONFIRMED:
            del self._removed[next(iter(self._removed))]

    def _removed_of(self, record_id: str, generation: Generation) -> PicturesRemoved | None:
        """What is to be said of a generation whose pictures are gone; none that was saved is."""
        removed = self._removed.get(record_id)
        return None if any(image.path for image in generation.images) else removed

    def _to_generation(self, entry: JournalEntry) -> Generation:
        generation = to_generation(
            entry,
            backend=self.backend,
            engine_notice=self._engine_notice(EngineUsed(entry.engine, entry.engine_model)),
            now=self._clock(),
            find_file=self._find_file,
        )
        if removed := self._removed_of(entry.record_id or "", generation):
            notice = join_notes(removed.message, removed.hint, generation.notice)
            generation = replace(generation, images=(), notice=notice)  # their addresses are dead
        trouble = self._records.trouble(entry) if self._records else None
        if trouble is None:
            return generation
        kept = f"the journal could not be written ({trouble}); keep the record id"
        return replace(generation, notice=join_notes(generation.notice, kept))
