"""Generations: start, wait, resume, list, save; the deep module that both front ends call."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import anyio

from arta_mcp.arta.client import ArtaClient, Picture, RefusedStyle, Transient
from arta_mcp.arta.protocol import Image, Job, is_record_id
from arta_mcp.background import Errands
from arta_mcp.errors import (
    ArtaError,
    JobFailed,
    JobTimedOut,
    Unavailable,
    UnknownRecord,
    UnknownStyle,
)
from arta_mcp.generations.downloads import read_saved, save_pictures
from arta_mcp.generations.live_styles import KnownStyles
from arta_mcp.generations.polling import Seen, Watch
from arta_mcp.generations.results import (
    as_generation,
    failure_of,
    join_notes,
    most_images,
    sample_of,
)
from arta_mcp.generations.schedule import Pace
from arta_mcp.generations.submission import HEARTBEAT, OnUpdate, Order, Ordering, Place, Teller
from arta_mcp.generations.values import (
    GeneratedImage,
    Generation,
    GenerationRequest,
    Update,
)
from arta_mcp.redaction import sanitize
from arta_mcp.state.contract import State
from arta_mcp.state.records import JournalEntry
from arta_mcp.styles import Catalogue, Style

log = logging.getLogger(__name__)

LOOK_PATIENCE = 10.0
"""seconds that a call over its time still waits for a look under way"""

FRESH_PATIENCE = 2.0
"""seconds over its time that a call waits for fresh addresses of a finished generation"""

MOST_SAMPLES = 50


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds in seconds, but for `max_concurrency`, which counts jobs."""

    max_wait: float = 50.0
    job_timeout: float = 600.0
    max_concurrency: int = 8
    min_poll_interval: float = 0.5


@dataclass(frozen=True, slots=True)
class Remote:
    """What a backend is once it is open."""

    client: ArtaClient
    state: State


class Generations:
    """Every generation of one backend. Use it as `async with`; nothing opens before it is needed.

    All methods raise the errors of `arta_mcp.errors` and nothing else that a caller could mend.
    """

    def __init__(
        self,
        connect: Callable[[Errands], AbstractAsyncContextManager[Remote]],
        *,
        backend: Literal["arta", "local"],
        service: str,
        limits: Limits | None = None,
        output_dir: Path | None = None,
        clock: Callable[[], float] = time.time,
        pace: type[Pace] = Pace,
    ) -> None:
        """`service` names whose generations these are; `clock` gives seconds since the epoch."""
        self.backend: Literal["arta", "local"] = backend
        self.limits = limits or Limits()
        self.known = KnownStyles(service, clock=clock)
        self._listeners: list[Callable[[str], Awaitable[None]]] = []
        self._connect, self._service = connect, service
        self._output_dir, self._clock, self._pace = output_dir, clock, pace
        self._errands = Errands()
        self._stack = AsyncExitStack()
        self._remote: Remote | None = None
        self._opening = anyio.Lock()
        self._places = anyio.CapacityLimiter(self.limits.max_concurrency)
        self._watches: dict[str, Watch] = {}
        self._settled: set[int] = set()

    async def __aenter__(self) -> Self:
        await self._errands.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:  # errands first: they still need the connections that the stack closes
            await self._errands.__aexit__(kind, error, trace)
        finally:
            await self._stack.__aexit__(kind, error, trace)

    async def generate(
        self,
        request: GenerationRequest,
        on_update: OnUpdate | None = None,
        *,
        max_wait: float | None = None,
    ) -> Generation:
        """The finished generation, or a pending one after `max_wait` seconds.

        Cancelling stops the waiting; a submit under way still ends and its job stays known.
        """
        started = anyio.current_time()
        until = started + (self.limits.max_wait if max_wait is None else max_wait)
        style = await self._style(request.model)
        tell = Teller(on_update, lambda: anyio.current_time() - started)
        remote = await self._open()
        place = Place(self._places)
        try:
            order = Order(request, style, tell=tell, until=until, place=place)
            entry = await self._ordering(remote).order(order)
            await self._changed(entry)
            watch = await self._watch(remote, entry, place)  # last: a joined watch must be left
        except BaseException as exc:
            place.free()
            if isinstance(exc, RefusedStyle):
                await self.known.learn(exc.valid, remote.state)
                self.known.catalogue.resolve(request.model)
            raise
        return await self._wait(remote, entry, watch, tell, until)

    async def get(
        self, record_id: str, on_update: OnUpdate | None = None, *, max_wait: float = 0.0
    ) -> Generation:
        """Where a generation stands, after at most `max_wait` seconds; 0 looks once.

        Works for every record id of this service, also of other processes and earlier ones.
        """
        started = anyio.current_time()
        tell = Teller(on_update, lambda: anyio.current_time() - started)
        remote = await self._open()
        entry = await remote.state.find(self._service, record_id)
        if entry is None:
            with anyio.move_on_after(max_wait + LOOK_PATIENCE) as looking:
                entry = await self._adopted(remote, record_id)
            if entry is None or looking.cancelled_caught:
                raise Unavailable("the service has not answered", record_id=record_id)
        if entry.phase == "failed":
            raise JobFailed(entry.error or "the job failed", record_id=entry.record_id)
        watch = None if entry.phase == "done" else await self._watch(remote, entry)
        return await self._wait(remote, entry, watch, tell, started + max_wait, look=True)

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

        self._errands.start(run)
        try:
            with receive:
                async for item in receive:
                    yield item
        finally:
            scope.cancel()
        if failures:
            raise failures[0]

    async def history(self, limit: int = 50) -> tuple[Generation, ...]:
        """The newest generations, newest first; the lost ones among them."""
        remote = await self._open()
        found = await remote.state.latest(self._service, limit)
        return tuple(self._as_generation(entry) for entry in found)

    async def catalogue(self) -> Catalogue:
        """What can be drawn with, as fresh as 2 s of waiting make it."""
        if self.backend == "arta" and not self.known.is_fresh:
            remote = await self._open()
            await self.known.refresh(remote.state, remote.client, self._errands)
        return self.known.catalogue

    async def picture(self, record_id: str, index: int) -> Picture:
        """One picture of a finished generation: as saved, else downloaded.

        Raises UnknownRecord for an index that it does not have.
        """
        generation = await self.get(record_id)
        if not 0 <= index < len(generation.images):
            have = len(generation.images)
            raise UnknownRecord(
                f"generation {record_id} has no picture {index}; it has {have}",
                hint="call get_generation with its record id",
            )
        return await self.fetch_picture(generation.images[index])

    async def fetch_picture(self, image: GeneratedImage) -> Picture:
        """A picture of a generation at hand: as saved, else downloaded."""
        if image.path is not None and (saved := await read_saved(Path(image.path))):
            return saved
        remote = await self._open()
        return await remote.client.download(Image(image.url))

    def subscribe(self, listener: Callable[[str], Awaitable[None]]) -> Callable[[], None]:
        """Calls `listener` with the record id of every generation that is new or has ended.

        Gives the function that ends this.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def save_pictures(
        self, generation: Generation, folder: Path, *, on_failure: Callable[[int, str], None]
    ) -> Generation:
        """A finished generation with every picture in `folder`, whatever was saved before.

        `on_failure` is told the index of a picture that was not saved, and why.
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
            lambda index: self.fetch_picture(images[index]),
            missing,
            folder=folder,
            record_id=generation.record_id or "",
            on_failure=on_failure,
        )
        for index in missing:
            images[index] = replace(images[index], path=paths.get(index))
        return replace(generation, images=tuple(images))

    async def _style(self, model: str) -> Style:
        """A name that is not known here may be known to the service by now."""
        try:
            return self.known.catalogue.resolve(model)
        except UnknownStyle:
            return (await self.catalogue()).resolve(model)

    async def _changed(self, entry: JournalEntry) -> None:
        for listener in tuple(self._listeners):
            if entry.record_id is not None:
                await listener(entry.record_id)

    async def _open(self) -> Remote:
        async with self._opening:
            if self._remote is None:
                self._remote = await self._stack.enter_async_context(self._connect(self._errands))
            return self._remote

    # Waiting

    async def _wait(
        self,
        remote: Remote,
        entry: JournalEntry,
        watch: Watch | None,
        tell: Teller,
        until: float,
        *,
        look: bool = False,
    ) -> Generation:
        """Waits with everybody else who waits for this job; `look`: at least one look first."""
        if watch is None:
            return await self._fresh(remote, entry, tell, until)
        seen = watch.looks if look else -1
        try:
            if look:
                watch.poke()
            await tell(watch.phase, watch)
            while not watch.is_over:
                phase = watch.phase
                left = until - anyio.current_time()
                if left <= 0 and (watch.looks > seen or left < -LOOK_PATIENCE):
                    break
                await watch.news(min(tell.quiet_for, max(left, 0.05)))
                if watch.phase != phase or not tell.quiet_for:
                    await tell(watch.phase, watch)
            watch.is_kept = True  # last of all: whoever was cancelled has left for good
        finally:
            watch.leave()
        if watch.error is not None:
            raise watch.error
        generation = self._as_generation(watch.outcome or entry)
        trouble = f"the last look failed: {watch.trouble}" if watch.trouble else None
        if watch.is_given_up and generation.status != "done":
            late = f"the job did not end in {self.limits.job_timeout:g} s"
            raise JobTimedOut(join_notes(late, trouble) or late, record_id=entry.record_id)
        return replace(generation, notice=join_notes(generation.notice, trouble))

    async def _watch(
        self, remote: Remote, entry: JournalEntry, place: Place | None = None
    ) -> Watch | None:
        """The watch of a job, joined; None for a finished one. One watch a job, which holds the
        job's place and gives it back at its end."""
        if entry.phase == "done":
            return None
        record_id = entry.record_id or ""
        pace = await self._learnt_pace(remote, entry.style)
        watch = self._watches.get(record_id)
        if watch is not None and not watch.is_idle:
            watch.join()
            return watch
        first_age = max(0.0, self._clock() - (entry.submitted_at or entry.created_at))
        began = anyio.current_time()
        watch = Watch(
            record_id,
            client=remote.client,
            pace=pace,
            age=lambda: first_age + anyio.current_time() - began,
            timeout=self.limits.job_timeout,
            floor=self.limits.min_poll_interval,
            settle=partial(self._settle, remote, entry),
        )
        watch.join()
        self._watches[record_id] = watch
        self._errands.start(partial(self._run_watch, watch, place))
        return watch

    async def _run_watch(self, watch: Watch, place: Place | None) -> None:
        try:
            await watch.run()
        finally:
            if place is not None:
                place.free()
            if self._watches.get(watch.record_id) is watch:
                del self._watches[watch.record_id]

    def _ordering(self, remote: Remote) -> Ordering:
        return Ordering(
            remote.client,
            remote.state,
            errands=self._errands,
            service=self._service,
            clock=self._clock,
        )

    async def _learnt_pace(self, remote: Remote, style: str) -> Pace:
        found = await remote.state.timings(self._service, style, MOST_SAMPLES)
        samples = [sample for timing in found if (sample := sample_of(timing)) is not None]
        return self._pace(samples, floor=self.limits.min_poll_interval)

    async def _settle(
        self, remote: Remote, entry: JournalEntry, job: Job, seen: Seen
    ) -> JournalEntry:
        """Writes the job's end down, saves its pictures, and raises what a failure means."""
        submitted_at = entry.submitted_at or entry.created_at
        waiting, queued, drawing = (None if at is None else submitted_at + at for at in seen)
        entry = replace(
            entry,
            finished_at=self._clock(),
            seen_waiting=waiting,
            seen_queued=queued,
            seen_drawing=drawing,
            images=job.images[: most_images(entry)],
        )
        failure = failure_of(job)
        if failure is not None:
            await remote.state.finish(replace(entry, phase="failed", error=failure.message))
            await self._changed(entry)
            raise failure
        seed = entry.seed if job.seed is None else job.seed
        done = await remote.state.finish(replace(entry, phase="done", seed=seed))
        return await self._store(remote, done)

    async def _save(self, remote: Remote, entry: JournalEntry, folder: Path) -> JournalEntry:
        """The entry with the paths of its pictures; those saved before are not fetched again."""
        paths = dict(enumerate(entry.paths if len(entry.paths) == len(entry.images) else ()))
        missing = [index for index in range(len(entry.images)) if paths.get(index) is None]

        def log_failure(index: int, why: str) -> None:
            log.warning("picture %s of %s was not saved: %s", index, entry.record_id, why)

        saved = await save_pictures(
            lambda index: remote.client.download(entry.images[index]),
            missing,
            folder=folder,
            record_id=entry.record_id or "",
            on_failure=log_failure,
        )
        known = paths | saved
        return replace(entry, paths=tuple(known.get(index) for index in range(len(entry.images))))

    async def _fresh(
        self, remote: Remote, entry: JournalEntry, tell: Teller, until: float
    ) -> Generation:
        """A finished generation with addresses that still serve: they expire, and a local service
        may have moved to another port. What takes too long is told as it was stored, and goes on
        as an errand."""
        if entry.id not in self._settled:
            patience = FRESH_PATIENCE + max(0.0, until - anyio.current_time())
            with anyio.move_on_after(patience):
                entry = await self._errands.finish(
                    partial(self._renewed, remote, entry),
                    meanwhile=partial(tell, "saving"),
                    every=HEARTBEAT,
                )
        return self._as_generation(entry)

    async def _renewed(self, remote: Remote, entry: JournalEntry) -> JournalEntry:
        try:
            job = await remote.client.look(entry.record_id or "")
        except ArtaError as exc:
            log.info("%s is told as stored: %s", entry.record_id, exc.message)
            return entry
        if not job.is_done:
            return entry
        entry = replace(entry, images=job.images[: len(entry.images) or None])
        await remote.state.update(entry)
        return await self._store(remote, entry)

    async def _store(self, remote: Remote, entry: JournalEntry) -> JournalEntry:
        """Saves the pictures of a finished generation, each once.

        Its addresses are on disk before the downloads, which may be slow or fail.
        """
        if self._output_dir is not None and (not entry.paths or None in entry.paths):
            entry = await self._save(remote, entry, self._output_dir)
            await remote.state.update(entry)
        self._settled.add(entry.id)
        await self._changed(entry)
        return entry

    async def _adopted(self, remote: Remote, record_id: str) -> JournalEntry:
        """An entry for a job that this journal never saw, if the service knows it."""
        if not is_record_id(record_id):
            raise UnknownRecord(f"no generation has the record id {sanitize(repr(record_id), 80)}")
        try:
            job = await remote.client.look(record_id)
        except Transient as exc:
            raise Unavailable(exc.message, record_id=record_id) from exc
        except UnknownRecord as exc:
            message = f"no generation has the record id {sanitize(repr(record_id), 80)}"
            raise UnknownRecord(message) from exc
        now = self._clock()
        return await remote.state.adopt(
            JournalEntry(
                id=0,
                service=self._service,
                key=None,
                fingerprint="",
                request="{}",
                style="",
                phase="submitted",
                created_at=now,
                lease_until=now,
                record_id=record_id,
                seed=job.seed,
                submitted_at=None,
            )
        )

    def _as_generation(self, entry: JournalEntry) -> Generation:
        return as_generation(entry, backend=self.backend, now=self._clock())
