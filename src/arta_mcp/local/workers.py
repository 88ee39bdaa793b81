"""When the pictures of jobs are drawn: each once, by one process of all that share the folder."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import anyio
from anyio.abc import TaskGroup
from filelock import Timeout

from arta_mcp.engines.base import Engine, GeneratedImage, ImageRequest, fit_size
from arta_mcp.engines.recipes import Recipes
from arta_mcp.errors import (
    CANCELLED,
    PROMPT_REJECTED,
    AnswerLost,
    ArtaError,
    EngineBusy,
    EngineError,
    JobCancelled,
    PromptRejected,
)
from arta_mcp.local.store import Progress, Record, Store, Waiting
from arta_mcp.redaction import sanitize
from arta_mcp.styles import category_of

QUEUE_INTERVAL = 0.2
"""seconds between two looks for what other processes have put into the queue"""

WAITED_FOR = 60.0
"""seconds since a call asked for a job in which it is drawn before those that no call waits for"""

ABANDONED_AFTER = 600.0
"""seconds since a call asked for a job after which it is given up"""

QUIET, MAX_CROWDING = 0.1, 5.0
"""seconds without a new job until drawing goes on while a crowd comes, and after which it does so
in any case"""

PROGRESS_INTERVAL = 0.4
"""seconds between two notes of the steps that are done"""

MAX_BUSY = 300.0
"""seconds in which an engine may say that it has no room, before its job fails"""

BUSY_PAUSE, MAX_BUSY_PAUSE = 2.0, 60.0
"""seconds until a busy engine is asked again, where it does not say, and at most"""

PNG = b"\x89PNG\r\n\x1a\n"

CANCELLED_BY_PERSON = "a person has cancelled it"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Job:
    """A job that this process draws, and what it has written down of it."""

    record: Record
    progress: Progress
    under_way: set[int] = field(default_factory=set[int])
    noted_at: float = 0.0


class DrawingWorkers:
    """The folder's jobs of one engine, drawn in a thread with an event loop of its own.

    The queue is the folder's: whichever process holds its lock draws for all of them, in the order
    of the submits, and the operating system frees the lock of one that dies. The thread ends, and
    closes the engine, when nothing was to be drawn for the seconds that it says.

        in the queue -> begun (written down before the engine is asked) -> picture on disk
                                `--failure, cancelled, abandoned: the end, no further one is begun
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        *,
        recipes: Recipes | None = None,
    ) -> None:
        self._store, self._engine, self._recipes = store, engine, recipes
        self.info = engine.describe()
        self._lock = store.drawing_lock(self.info.engine)
        self._jobs: dict[str, _Job] = {}
        self._orders: dict[str, tuple[float, dict[str, int]]] = {}
        """by engine: until when it is good, and how many jobs come before each that waits"""
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_wanted = self._closed = False
        self._crowd_began = self._last_came = -QUIET
        """when the first and the last came of the jobs that came soon after each other"""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None

    def start_job(self, record: Record) -> None:
        """Have the pictures that are missing drawn, unless the job has come to its end."""
        if self._closed or record.engine != self.info.engine or self._store.is_over(record):
            return
        if record.record_id not in self._orders.get(record.engine, (0.0, {}))[1]:
            self._orders.pop(record.engine, None)  # it is in the queue from now on
        if self._store.ask_for(record):
            now = time.monotonic()
            if now - self._last_came > QUIET:
                self._crowd_began = now
            self._last_came = now
        self._start()

    def resume(self) -> None:
        """Have drawn what processes that died have left in the queue."""
        waiting = self._store.queue(self.info.engine)
        for one in waiting:
            # As if asked for now: its ten minutes count while somebody is there to ask.
            if record := self._store.record(one.record_id):
                self._store.ask_for(record)
        if waiting:
            self._start()

    @property
    def is_busy(self) -> bool:
        """Whether a job is waiting or being drawn, in whichever process."""
        return bool(self._store.queue(self.info.engine))

    def jobs_ahead(self, record: Record) -> int | None:
        """How many jobs come before one that waits; None for one that does not."""
        if self._store.progress(record.record_id).begun:
            return None
        now = time.monotonic()
        until, order = self._orders.get(record.engine, (0.0, {}))
        if now >= until:  # not at each poll: of a thousand jobs each would read the whole queue
            queue = self._queue(record.engine)
            order = {waiting.record_id: place for place, waiting in enumerate(queue)}
            self._orders[record.engine] = (now + QUEUE_INTERVAL, order)
        return order.get(record.record_id)

    def close(self) -> None:
        """Start no further picture; what can be given up is, and a sketch ends in its thread."""
        self._closed = True
        self._wake()

    def _start(self) -> None:
        with self._starting:
            self._is_wanted = True
            if self._thread is None:
                # A daemon: a host that kills its server must not wait for a picture.
                self._thread = threading.Thread(target=self._run, name="arta-draw", daemon=True)
                self._thread.start()
        self._wake()

    def _wake(self) -> None:
        loop, changed = self._loop, self._changed
        with suppress(RuntimeError):  # the loop has just ended: `_run` sees that it is wanted
            if loop is not None and changed is not None:
                loop.call_soon_threadsafe(changed.set)

    def _run(self) -> None:
        while True:
            with self._starting:
                if self._closed or not self._is_wanted:
                    self._thread = None
                    return
                self._is_wanted = False
            try:
                asyncio.run(self._draw_queue())
            except Exception:
                _log.exception("the thread that draws has failed")

    async def _draw_queue(self) -> None:
        """Draws what is in the queue, until that has been empty for a while."""
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()
        idle_since = time.monotonic()
        try:
            async with anyio.create_task_group() as group:
                while not self._closed:
                    self._changed.clear()  # before the look, so that no change is missed
                    queue = self._queue(self.info.engine)
                    if queue or self._under_way:
                        idle_since = time.monotonic()
                    elif time.monotonic() - idle_since > self.info.idle:
                        break
                    # While a crowd comes nothing is drawn: the first of 200 pictures took the one
                    # core from the calls yet to be read, a `ping` behind them waited for seconds.
                    quiet_at = min(self._last_came + QUIET, self._crowd_began + MAX_CROWDING)
                    pause = quiet_at - time.monotonic() if len(queue) > 1 else 0
                    if queue and pause <= 0 and self._take_lock():
                        self._begin_pictures(group, queue)
                    with anyio.move_on_after(pause if pause > 0 else QUEUE_INTERVAL):
                        await self._changed.wait()
                group.cancel_scope.cancel()
        finally:
            self._loop = None
            self._jobs.clear()
            try:
                with anyio.CancelScope(shield=True):
                    await self._engine.aclose()
            finally:
                self._lock.release()

    def _queue(self, engine: str) -> list[Waiting]:
        """Jobs that a call waits for go first, each kind in the order of the submits."""
        late = time.time() - WAITED_FOR
        return sorted(self._store.queue(engine), key=lambda one: (one.asked_at < late, one.turn))

    @property
    def _under_way(self) -> int:
        return sum(len(job.under_way) for job in self._jobs.values())

    def _take_lock(self) -> bool:
        """Whether this process is the one that draws for the folder."""
        if not self._lock.is_locked:
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                return False
            except (OSError, NotImplementedError):
                pass  # a file system without locks: then each draws what it was asked for
        return True

    def _begin_pictures(self, group: TaskGroup, queue: list[Waiting]) -> None:
        for waiting in queue:
            if (job := self._open_job(waiting)) is None:
                continue
            for index in self._store.missing_pictures(job.record):
                if self._under_way >= self.info.parallel:
                    return
                if index not in job.under_way:
                    job.under_way.add(index)
                    group.start_soon(self._draw, job, index)

    def _open_job(self, waiting: Waiting) -> _Job | None:
        """The job with what is known of it; None for one of which nothing is to be begun."""
        record_id = waiting.record_id
        if (job := self._jobs.get(record_id)) is None:
            record = self._store.record(record_id)
            if record is None or self._store.is_over(record):
                self._store.leave_queue(self.info.engine, record_id)
                return None
            progress = self._store.progress(record_id)
            job = self._jobs[record_id] = _Job(record, progress)
            lost = [
                index for index in self._store.missing_pictures(record) if index in progress.begun
            ]
            if lost and not self.info.is_repeatable:
                message = (
                    f"the process that asked for picture {lost[0] + 1} ended before its answer"
                )
                self._fail(job, AnswerLost(message))
        if waiting.is_cancelled:
            # With a picture under way once that has ended: it is given, if it comes.
            if not job.under_way and not job.progress.failure:
                self._fail(job, JobCancelled(CANCELLED_BY_PERSON))
            return None
        if not job.under_way and time.time() - waiting.asked_at > ABANDONED_AFTER:
            minutes = ABANDONED_AFTER / 60
            self._fail(job, JobCancelled(f"no call has asked for it for {minutes:.0f} minutes"))
        return None if job.progress.failure else job

    async def _draw(self, job: _Job, index: int) -> None:
        """One picture, from the note that it is begun to its file, or to the end of the job."""
        record_id = job.record.record_id
        try:
            # On disk before the engine is asked: what may have cost something is not asked twice.
            self._note(job, begun=tuple(sorted({*job.progress.begun, index})))
            image = await self._ask_engine(job, index)
            if not image.data.startswith(PNG):
                raise EngineError("what the engine gave is not a PNG")
            self._store.put_picture(record_id, index, image.data)
            self._note_picture(job, image)
        except ArtaError as exc:
            self._fail(job, exc)
        except Exception as exc:
            _log.exception("the engine could not draw picture %s of %s", index, record_id)
            why = f"the engine could not draw: {sanitize(repr(exc), 200)}"
            self._fail(job, EngineError(why))
        finally:
            job.under_way.discard(index)
            if not job.under_way and self._store.is_over(job.record):
                self._jobs.pop(record_id, None)
                self._store.leave_queue(self.info.engine, record_id)
            if self._changed is not None:
                self._changed.set()

    async def _ask_engine(self, job: _Job, index: int) -> GeneratedImage:
        """The picture; an engine that has no room, and did nothing, is asked again later."""
        submission = job.record.submission
        request = ImageRequest(
            prompt=submission.prompt,
            negative_prompt=submission.negative_prompt or "",
            style=submission.style,
            category=category_of(submission.style),
            seed=job.record.seed,
            index=index,
            aspect_ratio=submission.aspect_ratio,
            size=fit_size(self.info, submission.aspect_ratio),
            num_inference_steps=submission.num_inference_steps,
            guidance_scale=submission.guidance_scale,
        )
        if self._recipes is not None:
            request = self._recipes.apply(request)
        give_up_at = time.monotonic() + MAX_BUSY
        while True:
            try:
                return await self._engine.generate(request, partial(self._note_step, job))
            except EngineBusy as exc:
                pause = min(exc.retry_after or BUSY_PAUSE, MAX_BUSY_PAUSE)
                if time.monotonic() + pause > give_up_at:
                    raise
                await anyio.sleep(pause)

    def _note_step(self, job: _Job, step: int, steps: int | None) -> None:
        is_due = time.monotonic() - job.noted_at >= PROGRESS_INTERVAL
        if steps and (is_due or step == steps):
            count = job.record.submission.n
            drawn = count - len(self._store.missing_pictures(job.record))
            job.noted_at = time.monotonic()
            self._note(job, step=drawn * steps + min(step, steps), steps=count * steps)

    def _note_picture(self, job: _Job, image: GeneratedImage) -> None:
        known, submission = job.progress, job.record.submission
        told = self._recipes.explain(submission.style, image.model) if self._recipes else ""
        # A seed is always sent; of the rest only what the caller gave can be missed.
        ignored = [n for n in image.not_honoured if n == "seed" or getattr(submission, n)]
        self._note(
            job,
            model=image.model or known.model,
            not_honoured=tuple(dict.fromkeys((*known.not_honoured, *ignored))),
            notes=tuple(dict.fromkeys(filter(None, (*known.notes, told, image.note)))),
            num_inference_steps=image.num_inference_steps or known.num_inference_steps,
            guidance_scale=image.guidance_scale or known.guidance_scale,
        )

    def _fail(self, job: _Job, exc: ArtaError) -> None:
        """The end of the job; pictures under way are still drawn."""
        code = exc.code if isinstance(exc, EngineError) else EngineError.code
        if isinstance(exc, PromptRejected):
            code = PROMPT_REJECTED
        elif isinstance(exc, JobCancelled):
            code = CANCELLED
        self._note(job, failure=exc.message, failure_code=code, failure_hint=exc.hint)
        if not job.under_way:
            self._jobs.pop(job.record.record_id, None)
            self._store.leave_queue(self.info.engine, job.record.record_id)

    def _note(self, job: _Job, **changes: object) -> None:
        """Writes down how far the job is, where anything has changed."""
        progress = replace(job.progress, **changes)  # pyright: ignore[reportArgumentType]  # its fields
        if progress != job.progress:
            job.progress = progress
            self._store.put_progress(job.record.record_id, progress)


def cancel_job(store: Store, record: Record) -> bool:
    """Has no further picture of a job begun, whichever process draws; whether one is under way.

    That one is drawn to its end: it may have been paid for.
    """
    store.cancel(record)
    with store.keeping_others_from(record.engine) as nobody_draws:
        progress, missing = store.progress(record.record_id), store.missing_pictures(record)
        if not nobody_draws:  # whoever does sees it at the next look into the queue
            return not {*missing}.isdisjoint(progress.begun)
        if not store.is_over(record):
            why = JobCancelled(CANCELLED_BY_PERSON)
            changes = {"failure": why.message, "failure_code": CANCELLED, "failure_hint": why.hint}
            store.put_progress(record.record_id, replace(progress, **changes))
        store.leave_queue(record.engine, record.record_id)
        return False
