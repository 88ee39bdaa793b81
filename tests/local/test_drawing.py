"""Who draws which picture, and when: each once, whatever processes and engines do meanwhile."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from PIL import Image

from arta_mcp.arta.protocol import Job
from arta_mcp.engines.base import EngineInfo, GeneratedImage, ImageRequest, OnStep
from arta_mcp.errors import EngineBusy, EngineError, JobCancelled, OutOfMemory, PromptRejected
from arta_mcp.generations.results import failure_of
from arta_mcp.generations.service import Limits
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.local.store import Progress, Record, Store
from arta_mcp.local.workers import ABANDONED_AFTER, cancel_job
from arta_mcp.server.tools import progress_reporter
from harness.service import ScriptedService
from harness.service_calls import poll_job, submit
from harness.world import World

pytestmark = pytest.mark.anyio


@dataclass
class CountingEngine:
    """An AI engine that counts what it is asked for, and does as it is told."""

    act: Callable[[ImageRequest], object] = lambda request: None
    steps: int = 4
    pause: float = 0.001
    is_repeatable: bool = True
    idle: float = 1.0
    asked: list[ImageRequest] = field(default_factory=list[ImageRequest])
    at_once: int = 0
    most_at_once: int = 0
    closed: int = 0
    may_go: bool = True

    def describe(self) -> EngineInfo:
        return EngineInfo(
            engine="counting",
            model="m",
            is_ai=True,
            notice="",
            summary="",
            native_area=64 * 64,
            is_repeatable=self.is_repeatable,
            idle=self.idle,
        )

    async def generate(self, request: ImageRequest, on_step: OnStep) -> GeneratedImage:
        self.asked.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for step in range(self.steps):
                on_step(step + 1, self.steps)
                await anyio.sleep(self.pause)
            while not self.may_go:
                await anyio.sleep(0.005)
            if isinstance(found := self.act(request), Exception):
                raise found
        finally:
            self.at_once -= 1
        out = io.BytesIO()
        Image.new("RGB", request.size, (request.picture_seed % 256, 0, 0)).save(out, "PNG")
        return GeneratedImage(data=out.getvalue(), model="m-2", not_honoured=("seed",))

    async def aclose(self) -> None:
        self.closed += 1


def serve(folder: Path, engine: CountingEngine) -> ScriptedService:
    return ScriptedService(folder, engine=engine, queue=0, draw=0)


async def poll(service: ScriptedService, record_id: str) -> Job:
    return await poll_job(service, record_id, embedded=True)


async def test_what_the_caller_did_not_say_is_the_engines_to_choose(tmp_path: Path) -> None:
    engine = CountingEngine()
    service = serve(tmp_path, engine)
    await submit(service, images_num="1", aspect_ratio="16:9")
    await submit(service, images_num="1", cfg_scale="3", steps="9", negative_prompt="fog")
    service.finish_drawing()
    own, given = engine.asked
    assert (own.guidance_scale, own.num_inference_steps, own.negative_prompt) == (None, None, "")
    assert (given.guidance_scale, given.num_inference_steps) == (3, 9)
    assert given.negative_prompt == "fog"
    assert own.size == (80, 48)  # of 64 x 64 pixels in steps of 16


async def test_the_answer_says_what_drew_how_far_it_is_and_what_was_not_honoured(
    tmp_path: Path,
) -> None:
    engine = CountingEngine(may_go=False)
    service = serve(tmp_path, engine)
    job = await submit(service, images_num="2")
    with anyio.fail_after(30):
        while (half := await poll(service, job.record_id)).local is None or not half.local.step:
            await anyio.sleep(0.01)
        assert half.status == "IN_PROGRESS"
        engine.may_go = True
        while not (done := await poll(service, job.record_id)).is_done:
            await anyio.sleep(0.01)
    assert half.local is not None
    assert (half.local.step, half.local.steps) in {(1, 8), (4, 8)}
    assert done.local is not None
    assert (done.local.engine, done.local.engine_model, done.local.is_ai) == (
        "counting",
        "m-2",
        True,
    )
    assert done.local.not_honoured == ("seed",)
    assert "sketch" not in done.local.not_drawn


async def test_a_job_that_goes_forward_is_not_lost_however_old_and_tells_its_steps(
    tmp_path: Path,
) -> None:
    engine = CountingEngine(steps=30, pause=0.1)
    service = serve(tmp_path / "service", engine)
    world = World(tmp_path, service)
    told: list[tuple[float, float | None, str]] = []

    class Hearing:
        async def report_progress(self, progress: float, total: float | None, message: str) -> None:
            told.append((progress, total, message))

    limits = Limits(max_wait=30, job_timeout=2.0, min_poll_interval=0.05)
    async with world.generations(limits, embedded=True) as generations:
        report = progress_reporter(Hearing())  # pyright: ignore[reportArgumentType]  # what it asks for
        done = await generations.generate(GenerationRequest.of(prompt="a fox"), report)
    assert done.status == "done"
    assert done.elapsed > 2.0
    progress = [one for one, _, _ in told]
    assert progress == sorted(set(progress))
    counted = [(one, total, message) for one, total, message in told if total is not None]
    assert len({total for _, total, _ in counted}) == 1
    assert any("drawing, step " in message for _, _, message in counted)
    assert all(one <= total for one, total, _ in counted if total)


async def test_two_services_on_one_folder_draw_each_picture_once_and_one_at_a_time(
    tmp_path: Path,
) -> None:
    engine = CountingEngine(steps=3)
    first, second = serve(tmp_path, engine), serve(tmp_path, engine)
    jobs = [await submit(one, images_num="2") for one in (first, second) * 3]
    with anyio.fail_after(30):
        for one, job in zip((second, first) * 3, jobs, strict=True):
            while not (await poll(one, job.record_id)).is_done:
                await anyio.sleep(0.01)
    assert len(engine.asked) == 12
    assert engine.most_at_once == 1


async def test_the_engine_is_closed_when_nothing_was_to_be_drawn_for_a_while(
    tmp_path: Path,
) -> None:
    engine = CountingEngine(idle=0.05)
    service = serve(tmp_path, engine)
    for count in (1, 2):
        await submit(service, images_num="1")
        with anyio.fail_after(30):
            while engine.closed < count:
                await anyio.sleep(0.01)
    assert len(engine.asked) == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OutOfMemory("no room for 9 GB"), OutOfMemory),
        (PromptRejected("not this"), PromptRejected),
        (RuntimeError("a bug"), EngineError),
    ],
)
async def test_a_failure_is_in_the_record_and_is_the_same_error_to_every_process(
    tmp_path: Path, error: Exception, kind: type[Exception]
) -> None:
    engine = CountingEngine(act=lambda _: error)
    service = serve(tmp_path, engine)
    job = await submit(service, images_num="1")
    service.finish_drawing()
    other = serve(tmp_path, engine)
    for one in (service, other):
        failure = failure_of(await poll(one, job.record_id))
        assert type(failure) is kind
        assert failure is not None
        assert str(error) in failure.message
        assert failure.hint
    assert len(engine.asked) == 1


async def test_pictures_that_were_drawn_before_a_failure_are_given(tmp_path: Path) -> None:
    engine = CountingEngine(act=lambda r: OutOfMemory("too large") if r.index == 2 else None)
    service = serve(tmp_path, engine)
    job = await submit(service, images_num="4")
    service.finish_drawing()
    done = await poll(service, job.record_id)
    assert done.is_done
    assert len(done.images) == 2
    assert done.local is not None
    assert "2 of 4 not drawn: too large" in done.local.not_drawn
    assert [request.index for request in engine.asked] == [0, 1, 2]


async def test_an_engine_without_room_is_asked_again_and_its_job_goes_on(tmp_path: Path) -> None:
    answers = [EngineBusy("full", retry_after=0.01), EngineBusy("full", retry_after=0.01)]
    engine = CountingEngine(act=lambda _: answers.pop() if answers else None)
    service = serve(tmp_path, engine)
    job = await submit(service, images_num="1")
    service.finish_drawing()
    assert (await poll(service, job.record_id)).is_done
    assert len(engine.asked) == 3


@pytest.mark.parametrize("is_repeatable", [True, False])
async def test_a_picture_whose_process_died_is_asked_for_again_only_where_that_is_free(
    tmp_path: Path, is_repeatable: bool
) -> None:
    engine = CountingEngine(is_repeatable=is_repeatable)
    service = serve(tmp_path, engine)
    service.close()  # as if it had died
    job = await submit(service, images_num="2")
    service.store.put_progress(job.record_id, Progress(begun=(0,)))
    record = service.store.record(job.record_id)
    assert record is not None
    service.store.ask_for(record)
    heir = serve(tmp_path, engine)
    heir.workers.resume()
    heir.finish_drawing()
    found = await poll(heir, job.record_id)
    assert found.is_done is is_repeatable
    assert len(engine.asked) == (2 if is_repeatable else 0)
    if not is_repeatable:
        assert found.error_code == "ANSWER_LOST"


async def test_what_no_call_waits_for_comes_later_and_is_given_up_after_ten_minutes(
    tmp_path: Path,
) -> None:
    engine = CountingEngine(may_go=False)
    service = serve(tmp_path, engine)
    await submit(service, images_num="1", prompt="first")
    with anyio.fail_after(10):
        while not engine.asked:
            await anyio.sleep(0.01)
    left = await submit(service, images_num="1", prompt="left")
    gone = await submit(service, images_num="1", prompt="gone")
    await submit(service, images_num="1", prompt="waited for")
    for job, age in ((left, 120), (gone, ABANDONED_AFTER + 5)):
        (marker,) = (tmp_path / "queue" / "counting").glob(f"*-{job.record_id}")
        os.utime(marker, (time.time() - age, time.time() - age))
    engine.may_go = True
    service.finish_drawing()
    assert [request.prompt for request in engine.asked] == ["first", "waited for", "left"]
    assert (await poll(service, gone.record_id)).error_code == "CANCELLED"


async def test_a_persons_cancellation_lets_the_picture_under_way_end_and_begins_no_next_one(
    tmp_path: Path,
) -> None:
    engine = CountingEngine(may_go=False, is_repeatable=False)
    service = serve(tmp_path, engine)
    job = await submit(service, images_num="3")
    with anyio.fail_after(10):
        while not engine.at_once:
            await anyio.sleep(0.01)
    # As in another process: a store of its own on the folder.
    other = Store(tmp_path, keep=100)
    assert cancel_job(other, record_of(other, job)) is True
    await anyio.sleep(0.5)  # in which the queue is looked at twice: nothing is given up
    assert (await poll(service, job.record_id)).status == "IN_PROGRESS"
    engine.may_go = True
    service.finish_drawing()
    done = await poll(service, job.record_id)
    assert (done.is_done, len(done.images), len(engine.asked)) == (True, 1, 1)
    assert done.local is not None
    assert "2 of 3 not drawn: a person has cancelled it" in done.local.not_drawn


async def test_a_job_that_nobody_draws_ends_at_once_and_is_never_begun(tmp_path: Path) -> None:
    engine = CountingEngine()
    service = serve(tmp_path, engine)
    service.close()  # as if it had died
    job = await submit(service, images_num="2")
    other = Store(tmp_path, keep=100)
    assert cancel_job(other, record_of(other, job)) is False
    heir = serve(tmp_path, engine)
    heir.workers.resume()
    found = await poll(heir, job.record_id)
    assert found.error_code == "CANCELLED"
    assert isinstance(failure_of(found), JobCancelled)
    assert engine.asked == []
    assert not heir.workers.is_busy


async def test_a_cancelled_job_makes_way_for_the_next_one_in_the_queue(tmp_path: Path) -> None:
    engine = CountingEngine(may_go=False)
    service = serve(tmp_path, engine)
    jobs = [await submit(service, images_num="1", prompt=name) for name in ("one", "two", "three")]
    with anyio.fail_after(10):
        while not engine.at_once:
            await anyio.sleep(0.01)
    assert cancel_job(service.store, record_of(service.store, jobs[1])) is False
    engine.may_go = True
    service.finish_drawing()
    assert [request.prompt for request in engine.asked] == ["one", "three"]
    assert [(await poll(service, job.record_id)).status for job in jobs] == [
        "DONE",
        "FAILED",
        "DONE",
    ]


def record_of(store: Store, job: Job) -> Record:
    record = store.record(job.record_id)
    assert record is not None
    return record
