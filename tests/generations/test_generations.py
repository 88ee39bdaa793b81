"""Generations: start, wait, resume, list, save."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from PIL import Image as Pillow

from arta_mcp.errors import (
    AuthError,
    JobFailed,
    JobTimedOut,
    KeyConflict,
    PromptRejected,
    RateLimited,
    SubmitUnknown,
    Unavailable,
    UnknownRecord,
    UnknownStyle,
)
from arta_mcp.generations.callers import Call
from arta_mcp.generations.events import GenerationEvent
from arta_mcp.generations.schedule import PollSchedule
from arta_mcp.generations.values import Generation, GenerationRequest, Update
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.state.records import JournalEntry, Phase, StyleList, Timing
from arta_mcp.state.sqlite import SqliteState
from arta_mcp.styles import SHIPPED
from harness.world import LIMITS, World, new_world

pytestmark = pytest.mark.anyio

FOX = GenerationRequest(prompt="a red fox in snow", n=2, seed=7)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


async def test_a_generation_gives_what_was_asked_for_and_the_addresses(world: World) -> None:
    async with world.generations() as generations:
        done = await generations.generate(FOX, world.on_update)
    assert done.status == "done"
    assert (done.model, done.style, done.seed, done.request.n) == ("flux", "Flux", 7, 2)
    assert len(done.images) == 2
    assert all(image.url.startswith("http") and not image.blurred for image in done.images)
    assert world.service.jobs == (done.record_id,)
    assert world.updates[0].record_id == done.record_id


async def test_a_seed_is_drawn_at_random_and_reported(world: World) -> None:
    async with world.generations() as generations:
        first = await generations.generate(GenerationRequest(prompt="x"))
        second = await generations.generate(GenerationRequest(prompt="x"))
    assert first.seed is not None
    assert 9999 <= first.seed <= 99999999
    assert first.seed != second.seed


async def test_waited_seconds_rise_from_update_to_update(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=0.1, draw=0.5)
    async with world.generations() as generations:
        await generations.generate(FOX, world.on_update)
    waited = [update.waited for update in world.updates]
    assert waited == sorted(waited)
    assert [update.step for update in world.updates][:2] == ["queued", "drawing"]


async def test_a_slow_sign_up_and_submit_are_not_silent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arta_mcp.generations.progress.HEARTBEAT", 0.02)
    world.service.latency = 0.5  # a busy machine may stand still for a fifth of that
    async with world.generations() as generations:
        await generations.generate(FOX, world.on_update)
    steps = [update.step for update in world.updates if update.step != "waiting"]
    assert steps[:2] == ["ordering", "ordering"]


async def test_token_and_submit_are_not_silent_for_longer_together_than_either_may_be(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arta_mcp.generations.progress.HEARTBEAT", 0.3)
    world.service.latency = 0.2
    async with world.generations() as generations:
        await generations.generate(FOX, world.on_update)
    # on a busy machine the journal alone takes longer than this heartbeat, and that is told before
    assert next(u for u in world.updates if u.step != "waiting").step == "ordering"


async def test_an_unknown_model_sends_nothing(world: World) -> None:
    async with world.generations() as generations:
        with pytest.raises(UnknownStyle) as caught:
            await generations.generate(GenerationRequest(prompt="x", model="fluxx"))
    assert caught.value.suggestions[0] == "flux"
    assert not world.service.seen


async def test_a_call_out_of_time_answers_pending_and_is_followed(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=0.3)
    async with world.generations() as generations:
        pending = await generations.generate(FOX, max_wait=0)
        assert (pending.status, pending.images) == ("pending", ())
        with anyio.fail_after(5):
            while not (await generations.history())[0].images:
                await anyio.sleep(0.02)
        looks = world.service.seen["status"]
        done = await generations.get(pending.record_id or "")
        assert (done.status, len(done.images)) == ("done", 2)
        assert world.service.seen["status"] == looks


async def test_another_process_takes_a_generation_up(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=0.2)
    async with world.generations() as before:
        pending = await before.generate(FOX, max_wait=0)
    async with world.generations() as after:
        done = await after.get(pending.record_id or "", max_wait=10)
    assert done.status == "done"
    assert (done.request.prompt, done.seed) == (FOX.prompt, 7)
    assert world.service.seen["submit"] == 1
    assert world.service.seen["sign_up"] == 1


async def test_get_with_no_time_looks_once(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=60)
    async with world.generations() as generations:
        pending = await generations.generate(FOX, max_wait=0)
    world.service.seen.clear()
    async with world.generations() as generations:
        again = await generations.get(pending.record_id or "")
    assert again.status == "pending"
    assert world.service.seen["status"] == 1


async def test_a_job_of_another_journal_is_adopted(world: World, tmp_path: Path) -> None:
    async with world.generations() as generations:
        done = await generations.generate(FOX)
    journal = tmp_path / "state" / "generations.sqlite3"
    for file in journal.parent.glob(f"{journal.name}*"):
        file.unlink()
    async with world.generations() as generations:
        again = await generations.get(done.record_id or "")
        assert (again.status, len(again.images), again.seed) == ("done", 2, 7)


@pytest.mark.parametrize("record_id", ["0" * 32, "nope", "../../etc/passwd", "", "a" * 200])
async def test_an_unknown_record_id_is_told(world: World, record_id: str) -> None:
    async with world.generations() as generations:
        with pytest.raises(UnknownRecord):
            await generations.get(record_id)


async def test_a_service_that_does_not_know_its_newest_job_yet_is_asked_again(world: World) -> None:
    world.service.faults.add(Fault.parse("404@status*3"))
    async with world.generations() as generations:
        assert (await generations.generate(FOX)).status == "done"
    assert world.service.seen["status"] == 4


async def test_a_job_that_its_service_does_not_know_later_on_is_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arta_mcp.generations.polling.MAX_LAG", 0.1)
    world.service.faults.add(Fault.parse("404@status*always"))
    async with world.generations() as generations:
        with anyio.fail_after(10), pytest.raises(UnknownRecord) as caught:
            await generations.generate(FOX)
    assert [caught.value.record_id] == [*world.service.jobs]


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arta_mcp.generations.polling.EMPTY_PAUSE", 0.01)


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("fault", ["done-null", "done-empty"])
async def test_a_job_that_is_done_without_pictures_is_looked_at_again(
    world: World, fault: str
) -> None:
    world.service.faults.add(Fault.parse(f"{fault}@status*2"))
    async with world.generations() as generations:
        done = await generations.generate(FOX)
    assert (done.status, len(done.images), polls_from_done(world)) == ("done", 2, 3)


def polls_from_done(world: World) -> int:
    """How often the service was asked from when it said DONE for the first time."""
    polls = [event.fault for event in world.service.log if event.endpoint == "status"]
    return len(polls) - next(index for index, fault in enumerate(polls) if fault)


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("fault", ["done-null", "done-empty"])
async def test_a_job_that_stays_done_without_pictures_has_failed_and_the_journal_says_so(
    world: World, fault: str
) -> None:
    world.service.faults.add(Fault.parse(f"{fault}@status*always"))
    async with world.generations() as generations:
        with pytest.raises(JobFailed, match="says DONE but gives no pictures"):
            await generations.generate(FOX)
        (entry,) = await generations.history()
    assert (entry.status, polls_from_done(world)) == ("failed", 3)
    assert entry.error == "the service says DONE but gives no pictures"


@pytest.mark.parametrize("fault", ["502", "reset-before", "html-body"])
async def test_a_look_at_a_job_of_another_machine_is_tried_again(
    world: World, tmp_path: Path, fault: str
) -> None:
    async with world.generations() as generations:
        done = await generations.generate(FOX)
    world.service.faults.add(Fault.parse(f"{fault}@status*2"))
    elsewhere = replace(world, folder=tmp_path / "elsewhere")
    async with elsewhere.generations() as generations:
        found = await generations.get(done.record_id or "", max_wait=5)
    assert (found.status, len(found.images)) == ("done", 2)


async def test_the_same_key_gives_the_same_job(world: World) -> None:
    request = FOX.model_copy(update={"idempotency_key": "k1"})
    async with world.generations() as generations:
        first = await generations.generate(request)
        second = await generations.generate(request)
    async with world.generations() as after_restart:
        third = await after_restart.generate(request)
    assert first.record_id == second.record_id == third.record_id
    assert world.service.seen["submit"] == 1


async def test_a_key_used_by_many_at_once_makes_one_job(world: World) -> None:
    request = GenerationRequest(prompt="x", idempotency_key="k1")
    found: list[str | None] = []
    async with world.generations() as one, world.generations() as other:

        async def call(index: int) -> None:
            found.append((await (one, other)[index % 2].generate(request)).record_id)

        async with anyio.create_task_group() as group:
            for index in range(10):
                group.start_soon(call, index)
    assert len(found) == 10
    assert len(set(found)) == 1
    assert world.service.seen["submit"] == 1


async def test_a_key_with_other_arguments_is_refused_with_the_first_record_id(world: World) -> None:
    async with world.generations() as generations:
        first = await generations.generate(GenerationRequest(prompt="x", idempotency_key="k1"))
        with pytest.raises(KeyConflict) as caught:
            await generations.generate(GenerationRequest(prompt="y", idempotency_key="k1"))
    assert caught.value.record_id == first.record_id
    assert world.service.seen["submit"] == 1


async def test_a_refused_submit_frees_its_key(world: World) -> None:
    world.service.faults.add(Fault.parse("422@submit"))
    request = GenerationRequest(prompt="x", idempotency_key="k1")
    async with world.generations() as generations:
        with pytest.raises(PromptRejected):
            await generations.generate(request)
        assert (await generations.history())[0].status == "refused"
        assert (await generations.generate(request)).status == "done"


async def test_a_call_that_is_cancelled_while_its_intent_is_written_frees_its_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, begin = GenerationRequest(prompt="x", idempotency_key="k"), SqliteState.begin
    async with world.generations() as generations:
        with anyio.CancelScope() as scope:

            async def cancel(state: SqliteState, *args: Any, **more: Any) -> Any:
                begun = await begin(state, *args, **more)
                scope.cancel()
                return begun

            monkeypatch.setattr(SqliteState, "begin", cancel)
            await generations.generate(request)
        assert scope.cancelled_caught
        monkeypatch.setattr(SqliteState, "begin", begin)
        assert (await generations.generate(request, max_wait=5)).status == "done"
    assert world.service.seen["submit"] == 1


async def test_a_lost_answer_is_never_sent_again_not_even_with_its_key(world: World) -> None:
    world.service.faults.add(Fault.parse("502@submit"))
    request = GenerationRequest(prompt="x", idempotency_key="k1")
    async with world.generations() as generations:
        for _ in range(2):
            with pytest.raises(SubmitUnknown):
                await generations.generate(request)
        assert [found.status for found in await generations.history()] == ["unknown"]
    assert world.service.seen["submit"] == 1


async def test_what_a_submit_came_to_is_told_also_when_it_cannot_be_written_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that says `try again` in place of a lost answer would pay for a second picture."""

    async with world.generations() as generations:
        with fail_writes(monkeypatch, after_phase="sending"):
            world.service.faults.add(Fault.parse("502@submit"))
            with pytest.raises(SubmitUnknown) as caught:
                await generations.generate(FOX)
            assert "could not be written either (the disk is full)" in caught.value.hint
            world.service.faults.add(Fault.parse("422@submit"))
            with pytest.raises(PromptRejected):
                await generations.generate(FOX)


async def test_a_call_that_fails_before_the_submit_says_so_also_when_it_cannot_free_its_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.service.faults.add(Fault.parse("OPERATION_NOT_ALLOWED@sign_up"))
    async with world.generations() as generations:
        with (
            fail_writes(monkeypatch, after_phase="intended"),
            pytest.raises(AuthError, match="OPERATION_NOT_ALLOWED"),
        ):
            await generations.generate(FOX)
    assert not world.service.seen["submit"]


async def test_a_journal_that_cannot_be_written_after_the_submit_costs_no_picture(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.generations() as generations:
        with fail_writes(monkeypatch, after_phase="sending"):
            found = await generations.generate(FOX)
        assert (found.status, found.record_id) == ("done", world.service.jobs[0])
        assert "the journal could not be written (the disk is full)" in str(found.notice)
        with anyio.fail_after(10):  # it is tried again, and written in the end
            while "could not be written" in str((await generations.history())[0].notice):
                await anyio.sleep(0.05)
    async with world.generations() as generations:
        assert [one.status for one in await generations.history()] == ["done"]


async def test_poll_times_that_cannot_be_read_cost_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(SqliteState, "timings", fail)
    async with world.generations() as generations:
        assert (await generations.generate(FOX)).status == "done"


@contextmanager
def fail_writes(monkeypatch: pytest.MonkeyPatch, *, after_phase: Phase) -> Generator[None]:
    """No later phase can be written while this is open."""
    write, finish = SqliteState.write, SqliteState.finish
    early = ("intended", "sending")[: ("intended", "sending").index(after_phase) + 1]
    is_full = True

    async def write_early(state: SqliteState, entry: JournalEntry) -> JournalEntry | None:
        if is_full and entry.phase not in early:
            raise Unavailable("the disk is full")
        return await write(state, entry)

    async def finish_later(state: SqliteState, entry: JournalEntry) -> JournalEntry:
        if is_full:
            raise Unavailable("the disk is full")
        return await finish(state, entry)

    monkeypatch.setattr(SqliteState, "write", write_early)
    monkeypatch.setattr(SqliteState, "finish", finish_later)
    yield
    is_full = False


async def test_a_refused_style_teaches_the_catalogue(world: World) -> None:
    stale = (*(style.name for style in SHIPPED.styles), "Watercolour Two")
    state = SqliteState(world.folder / "state")
    await state.keep_styles("test", StyleList(stale, time.time()))
    async with world.generations() as generations:
        await generations.catalogue()
        with pytest.raises(UnknownStyle) as caught:
            await generations.generate(GenerationRequest(prompt="x", model="Watercolour Two"))
        assert caught.value.suggestions[0] == "watercolor"
        taught = {style.name for style in generations.known_catalogue.styles}
        assert taught == {style.name for style in SHIPPED.styles}


async def test_a_failed_job_says_why_and_stays_failed(world: World) -> None:
    world.service.faults.add(Fault.parse("error-code@status"))
    async with world.generations() as generations:
        with pytest.raises(JobFailed) as caught:
            await generations.generate(FOX)
        assert caught.value.record_id == world.service.jobs[0]
        with pytest.raises(JobFailed):
            await generations.get(world.service.jobs[0])


async def test_all_pictures_blurred_is_a_refusal_and_some_are_reported(world: World) -> None:
    world.service.faults.add(Fault.parse("all-blurred@status"))
    async with world.generations() as generations:
        with pytest.raises(PromptRejected) as caught:
            await generations.generate(FOX)
        assert caught.value.record_id
        world.service.faults.add(Fault.parse("some-blurred@status"))
        done = await generations.generate(FOX)
    assert [image.blurred for image in done.images].count(True) == 1
    assert "1 of 2 pictures were blurred" in (done.notice or "")


async def test_a_job_that_never_ends_is_given_up_with_its_record_id(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=3600)
    async with world.generations(replace(LIMITS, job_timeout=0.2)) as generations:
        with pytest.raises(JobTimedOut) as caught:
            await generations.generate(FOX)
    assert caught.value.record_id == world.service.jobs[0]


async def test_cancelling_stops_the_looks_and_keeps_the_job(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=3600)
    async with world.generations() as generations:
        with anyio.move_on_after(10) as scope:

            async def leave(update: Update) -> None:
                scope.cancel()

            await generations.generate(FOX, leave)
        assert scope.cancelled_caught
        await anyio.wait_all_tasks_blocked()
        looks = world.service.seen["status"]
        await anyio.sleep(0.1)  # ten times the floor between two looks
        assert world.service.seen["status"] == looks
        assert [found.record_id for found in await generations.history()] == [*world.service.jobs]


async def test_cancelling_a_submit_under_way_loses_no_record_id(world: World) -> None:
    world.service.latency = 0.1
    async with world.generations() as generations:
        with anyio.move_on_after(10) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(generations.generate, FOX)
                with anyio.fail_after(5):
                    while not world.service.seen["submit"]:
                        await anyio.sleep(0.005)
                scope.cancel()
    async with world.generations() as generations:
        assert [found.record_id for found in await generations.history()] == [*world.service.jobs]


async def test_places_are_limited_and_freed(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=0.1)
    async with world.generations(replace(LIMITS, max_concurrency=1)) as generations:
        async with anyio.create_task_group() as group:
            for seed in range(3):
                request = GenerationRequest(prompt="x", seed=seed)
                group.start_soon(generations.generate, request, world.on_update)
        assert world.service.seen["submit"] == 3
        assert "waiting" in [update.step for update in world.updates]


async def test_no_free_place_in_time_sends_nothing(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=3600)
    async with world.generations(replace(LIMITS, max_concurrency=1)) as generations:
        await generations.generate(FOX, max_wait=0)
        with pytest.raises(RateLimited):
            await generations.generate(GenerationRequest(prompt="y"), max_wait=0.05)
    assert world.service.seen["submit"] == 1


async def test_pictures_are_saved_under_our_names_and_nothing_is_overwritten(
    world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    async with world.generations(output_dir=folder) as generations:
        done = await generations.generate(FOX)
        names = [f"a-red-fox-in-snow-{done.record_id}-{index}.png" for index in range(2)]
        assert [Path(image.path or "").name for image in done.images] == names
        assert sorted(file.name for file in folder.iterdir()) == names
        for image in done.images:
            with Pillow.open(image.path or "") as picture:
                assert picture.size == (8, 8)
    (folder / names[0]).write_bytes(b"mine")
    async with world.generations(output_dir=folder) as generations:
        await generations.get(done.record_id or "")
    assert (folder / names[0]).read_bytes() == b"mine"


async def test_a_picture_that_cannot_be_saved_is_told_and_loses_nothing(
    world: World, tmp_path: Path
) -> None:
    world.service.faults.add(Fault.parse("404@image"))
    async with world.generations(output_dir=tmp_path / "out") as generations:
        done = await generations.generate(FOX)
    assert done.status == "done"
    assert [image.path is None for image in done.images].count(True) == 1
    assert "1 of 2 pictures could not be saved" in (done.notice or "")


async def test_a_stream_gives_updates_and_then_the_generation(world: World) -> None:
    async with world.generations() as generations:
        items = [item async for item in generations.stream(FOX)]
    assert isinstance(items[-1], Generation)
    assert items[-1].status == "done"
    assert all(isinstance(item, Update) for item in items[:-1])
    assert len(items) >= 2


async def test_a_stream_raises_what_generate_raises(world: World) -> None:
    async with world.generations() as generations:
        with pytest.raises(UnknownStyle):
            async for _ in generations.stream(GenerationRequest(prompt="x", model="fluxx")):
                pass


async def test_pacing_learns_from_finished_jobs(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=0.1, draw=0.1)
    async with world.generations(schedule=PollSchedule) as generations:
        for _ in range(2):
            await generations.generate(FOX, world.on_update)
    assert world.updates[0].usual is None
    assert world.updates[-1].usual is not None


# Listeners, and calls that others could hold up


async def test_a_listener_that_reads_at_once_costs_no_slot(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=0.1)
    limits = replace(LIMITS, max_concurrency=1, max_wait=5)
    async with world.generations(limits) as generations:

        async def read(event: GenerationEvent) -> None:
            await generations.get(event.record_id)

        generations.subscribe(read)
        for _ in range(4):
            assert (await generations.generate(FOX)).status == "done"


async def test_a_call_that_finds_its_job_polled_brings_its_slot_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reads between the record id and the first poll must not keep the slot for ever."""
    slow = SqliteState.timings

    async with world.generations(replace(LIMITS, max_concurrency=1, max_wait=5)) as generations:

        async def timings(
            state: SqliteState, service: str, style: str, limit: int
        ) -> tuple[Timing, ...]:
            if world.service.jobs and not read:
                read.append(world.service.jobs[-1])
                await generations.get(read[0])
            return await slow(state, service, style, limit)

        read: list[str] = []
        monkeypatch.setattr(SqliteState, "timings", timings)
        for _ in range(3):
            read.clear()
            assert (await generations.generate(FOX)).status == "done"
            assert read


@pytest.mark.parametrize("fails", [False, True])
async def test_a_listener_that_never_returns_or_fails_delays_no_call(
    world: World, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arta_mcp.generations.events.LISTENER_TIMEOUT", 0.05)
    heard: list[str] = []

    async def listen(event: GenerationEvent) -> None:
        heard.append(event.record_id)
        if fails:
            raise ValueError("a listener's bug")
        await anyio.sleep_forever()

    async with world.generations() as generations:
        generations.subscribe(listen)
        with anyio.fail_after(10):
            done = await generations.generate(FOX)
            while len(heard) < 2:  # new, then ended: the first one did not end the listening
                await anyio.sleep(0.01)
    assert set(heard) == {done.record_id}


async def test_every_listener_is_told_until_it_leaves(world: World) -> None:
    heard: dict[str, list[str]] = {"one": [], "two": []}

    async def one(event: GenerationEvent) -> None:
        heard["one"].append(event.record_id)

    async def two(event: GenerationEvent) -> None:
        heard["two"].append(event.record_id)

    async with world.generations() as generations:
        leave = generations.subscribe(one)
        generations.subscribe(two)
        with anyio.fail_after(10):
            first = await generations.generate(FOX)
            while len(heard["one"]) < 2:
                await anyio.sleep(0.01)
            leave()
            second = await generations.generate(FOX)
            while len(heard["two"]) < 4:
                await anyio.sleep(0.01)
    assert heard["one"] == [first.record_id] * 2
    assert heard["two"] == [first.record_id] * 2 + [second.record_id] * 2


async def test_a_caller_that_takes_no_report_does_not_hold_its_call(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arta_mcp.generations.progress.REPORT_TIMEOUT", 0.05)

    async def take_nothing(_: Update) -> None:
        await anyio.sleep_forever()

    async with world.generations() as generations:
        with anyio.fail_after(10):
            assert (await generations.generate(FOX, take_nothing)).status == "done"


async def test_what_is_remembered_of_finished_generations_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arta_mcp.generations.service.MAX_CONFIRMED", 2)
    async with world.generations() as generations:
        ids = [(await generations.generate(FOX)).record_id or "" for _ in range(4)]
        polls = world.service.seen["status"]
        await generations.get(ids[-1])
        assert world.service.seen["status"] == polls
        await generations.get(ids[0])
        assert world.service.seen["status"] == polls + 1


async def test_a_listener_that_has_left_hears_nothing_of_what_is_queued(world: World) -> None:
    heard: list[str] = []

    async def listen(event: GenerationEvent) -> None:
        heard.append(event.record_id)
        leave()

    async with world.generations() as generations:
        leave = generations.subscribe(listen)
        events = generations._events  # pyright: ignore[reportPrivateUsage]  # a queue of two
        events.publish(GenerationEvent("", "a"))
        events.publish(GenerationEvent("", "b"))
        await anyio.wait_all_tasks_blocked()
    assert heard == ["a"]


# Owners

ALICE, BOB = Call(owner="token:alice"), Call(owner="token:bob")


async def test_what_one_owner_makes_is_unknown_to_every_other(world: World) -> None:
    keyed = FOX.model_copy(update={"idempotency_key": "k"})
    heard: list[GenerationEvent] = []

    async def listen(event: GenerationEvent) -> None:
        heard.append(event)

    async with world.generations() as generations:
        generations.subscribe(listen)
        hers = await generations.generate(keyed, call=ALICE)
        his = await generations.generate(keyed, call=BOB)
        record_id = hers.record_id or ""
        assert record_id != his.record_id  # a key is its owner's, too
        assert (await generations.get(record_id, call=ALICE)).record_id == record_id
        assert (await generations.picture(record_id, 0, owner="token:alice")).content
        for other in ("token:bob", ""):
            with pytest.raises(UnknownRecord) as theirs:
                await generations.get(record_id, call=Call(owner=other))
            with pytest.raises(UnknownRecord) as unknown:
                await generations.get("0" * len(record_id), call=Call(owner=other))
            assert theirs.value.message == unknown.value.message.replace(
                "0" * len(record_id), record_id
            )
            with pytest.raises(UnknownRecord):
                await generations.picture(record_id, 0, owner=other)
        assert await generations.history() == ()
        (listed,) = await generations.history(owner="token:bob")
        assert listed.record_id == his.record_id
        with anyio.fail_after(10):
            while len(heard) < 4:
                await anyio.sleep(0.01)
    assert {(event.owner, event.record_id) for event in heard} == {
        ("token:alice", record_id),
        ("token:bob", his.record_id),
    }


async def test_only_the_person_of_a_state_folder_adopts_what_its_journal_never_saw(
    world: World,
) -> None:
    async with world.generations() as generations:
        record_id = (await generations.generate(FOX)).record_id or ""
    (world.folder / "state" / "generations.sqlite3").unlink()
    async with world.generations() as generations:
        with pytest.raises(UnknownRecord, match="no generation has the record id"):
            await generations.get(record_id, call=ALICE)
        assert (await generations.get(record_id)).status == "done"


async def test_a_call_that_names_no_owner_is_of_the_one_that_the_program_has(world: World) -> None:
    async with world.generations(owner="stdio:ada@host") as generations:
        made = await generations.generate(FOX)
        assert await generations.history() == await generations.history(owner="stdio:ada@host")
        assert (await generations.get(made.record_id or "")).status == "done"
        with pytest.raises(UnknownRecord):
            await generations.get(made.record_id or "", call=Call(owner=""))


# Bounds of waiting for the service


async def test_a_service_that_does_not_answer_for_a_foreign_job_is_not_waited_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.generations() as generations:
        record_id = (await generations.generate(FOX)).record_id or ""
    monkeypatch.setattr("arta_mcp.generations.service.POLL_TIMEOUT", 0.05)
    world.service.faults.add(Fault.parse("slow-headers@status*always=20"))
    other = World(tmp_path / "other", world.service)
    async with other.generations() as generations:
        with anyio.fail_after(10):
            with pytest.raises(Unavailable, match="the service has not answered") as caught:
                await generations.get(record_id)
    assert caught.value.record_id == record_id


async def test_a_call_out_of_time_waits_a_bounded_time_for_the_poll_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world(tmp_path, queue=30)
    async with world.generations() as generations:
        record_id = (await generations.generate(FOX, max_wait=0.05)).record_id or ""
        monkeypatch.setattr("arta_mcp.generations.service.POLL_TIMEOUT", 0.1)
        world.service.faults.add(Fault.parse("slow-headers@status*always=20"))
        with anyio.fail_after(10):
            assert (await generations.get(record_id)).status == "pending"


async def test_however_many_ask_polls_keep_their_distance(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=30)
    async with world.generations(replace(LIMITS, min_poll_interval=0.2)) as generations:
        record_id = (await generations.generate(FOX, max_wait=0.05)).record_id or ""
        polls, began = world.service.seen["status"], anyio.current_time()
        for _ in range(4):
            async with anyio.create_task_group() as callers:
                for _ in range(5):
                    callers.start_soon(generations.get, record_id)
        elapsed = anyio.current_time() - began
    assert 1 <= world.service.seen["status"] - polls <= elapsed / 0.2 + 1
