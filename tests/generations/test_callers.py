"""Calls that a host cuts off: one request is one job, and the picture reaches the model."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from arta_mcp.errors import ArtaError
from arta_mcp.generations.callers import Call, Connection, names_time_out
from arta_mcp.generations.service import TAKEN_UP, Generations
from arta_mcp.generations.values import Generation, GenerationRequest
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.state.sqlite import SqliteState
from harness.world import LIMITS, World, new_world

pytestmark = pytest.mark.anyio

FOX = GenerationRequest(prompt="a red fox in snow", seed=7)
JOB = 30.0
"""seconds; the jobs here end when the test says so"""


class Clock:
    """A host's time: tests put it forward, and nothing waits for it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Host:
    """One connection of a host, whose calls run beside the test."""

    def __init__(self, generations: Generations) -> None:
        self.generations, self.clock = generations, Clock()
        self.connection = Connection(clock=self.clock)

    async def cut(self, request: GenerationRequest, after: float, *, reason: str) -> None:
        """A call that the host cancels; empty reason: for another cause than time."""
        call = Call(self.connection)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(self._submitted, call, scope, after, reason)
                await self.generations.generate(request, call=call)
        assert scope.cancelled_caught

    async def _submitted(
        self, call: Call, scope: anyio.CancelScope, after: float, reason: str
    ) -> None:
        with anyio.fail_after(10):
            await call.is_settled.wait()
        self.clock.now += after
        scope.cancel()
        call.explain(is_cut=names_time_out(reason))

    async def ask(self, request: GenerationRequest = FOX) -> Generation:
        """A call that waits for its answer."""
        return await self.generations.generate(request, call=Call(self.connection))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path, draw=JOB)


@asynccontextmanager
async def hosted(world: World, **limits: float) -> AsyncGenerator[Host]:
    async with world.generations(replace(LIMITS, **limits)) as generations:
        yield Host(generations)


def end_jobs(world: World) -> None:
    """Those that are there end at once, and so do all that come."""
    world.service.draw = 0.0
    world.service.clock = lambda: time.time() + 2 * JOB


async def submitted(world: World) -> None:
    """Until a job is there and its record id is on disk."""
    with anyio.fail_after(10):
        while not world.service.jobs:
            await anyio.sleep(0.01)
        await anyio.sleep(0.1)


TIME_OUT = "MCP error -32001: Request timed out"


async def test_what_was_cut_twice_is_one_job_and_the_third_call_has_its_picture(
    world: World,
) -> None:
    async with hosted(world) as host:
        for _ in range(2):
            await host.cut(FOX, 5.0, reason=TIME_OUT)
        end_jobs(world)
        found = await host.ask()
        assert (found.status, len(world.service.jobs)) == ("done", 1)
        assert TAKEN_UP in str(found.notice)
        another = await host.ask()  # it was answered: the next one is a new picture
    assert another.record_id != found.record_id
    assert len(world.service.jobs) == 2


async def test_who_repeats_at_once_need_not_wait_until_the_cancellation_is_through(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that is cancelled while a thread reads for it stays until that has ended."""
    read, is_read = SqliteState.timings, anyio.Event()

    async def read_slowly(state: SqliteState, *args: Any) -> Any:
        is_read.set()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.3)
        return await read(state, *args)

    end_jobs(world)
    async with hosted(world) as host, anyio.create_task_group() as group:
        call = Call(host.connection)
        cut = anyio.CancelScope()

        async def first() -> None:
            with cut:
                await host.generations.generate(FOX, call=call)

        monkeypatch.setattr(SqliteState, "timings", read_slowly)
        group.start_soon(first)
        await is_read.wait()
        monkeypatch.setattr(SqliteState, "timings", read)
        cut.cancel()
        call.leave(is_cut=True)
        assert TAKEN_UP in str((await host.ask()).notice)
    assert len(world.service.jobs) == 1


async def test_the_next_process_takes_up_what_the_last_one_was_cut_with(world: World) -> None:
    async with hosted(world) as first:
        await first.cut(FOX, 30.0, reason="")
    end_jobs(world)
    async with hosted(world) as second:
        found = await second.ask()
    assert (found.status, len(world.service.jobs)) == ("done", 1)


async def test_a_connection_that_ends_with_a_call_open_has_cut_it(world: World) -> None:
    async with hosted(world) as first:
        call = Call(first.connection)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def leave() -> None:
                    await call.is_settled.wait()
                    first.clock.now += 30
                    scope.cancel()
                    first.connection.close()

                group.start_soon(leave)
                await first.generations.generate(FOX, call=call)
    assert first.connection.shortest_cut == 30
    async with hosted(world, max_wait=50) as second:
        entry = await second.generations.get(world.service.jobs[0], max_wait=0)
        taken = Call(second.connection)
        with anyio.move_on_after(1):
            await second.generations.generate(FOX, call=taken)
        assert taken.job is not None
        assert taken.job.cut_after == 30
        assert taken.allowed_wait(50, taken.job.cut_after) == 24
    assert entry.status == "pending"


@pytest.mark.parametrize(
    ("reason", "is_cut"),
    [
        (TIME_OUT, True),
        ("timed out after 5.0s", True),
        ("Timeout", True),
        ("time-out", True),
        ("deadline exceeded", True),
        ("caller cancelled", False),
        ("AbortError: the user pressed stop", False),
        ("", False),
    ],
)
async def test_only_a_time_limit_teaches_how_long_a_host_waits(
    world: World, reason: str, is_cut: bool
) -> None:
    async with hosted(world) as host:
        await host.cut(FOX, 5.0, reason=reason)
        await anyio.lowlevel.checkpoint()
        assert Call(host.connection).allowed_wait(50) == (4.0 if is_cut else 50.0)
        # either way it answered no call
        end_jobs(world)
        await host.ask()
    assert len(world.service.jobs) == 1


async def test_a_wait_is_never_under_a_second_and_a_number_stays_a_number(world: World) -> None:
    connection = Connection()
    connection.note_cut(0.2)
    assert Call(connection).allowed_wait(50) == 1
    assert Call(connection).allowed_wait(0.5) == 0.5
    assert Call().allowed_wait(50) == 50
    end_jobs(world)
    async with hosted(world, adapts_wait=False) as host:
        host.connection.note_cut(0.2)
        assert (await host.ask()).status == "done"


@pytest.mark.parametrize(("seconds", "jobs"), [(2.9, 2), (3.0, 1)])
async def test_an_equal_call_joins_the_first_after_three_seconds(
    world: World, seconds: float, jobs: int
) -> None:
    found: list[Generation] = []
    async with hosted(world) as host:

        async def ask() -> None:
            found.append(await host.ask())

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await submitted(world)
            host.clock.now += seconds
            group.start_soon(ask)
            await anyio.sleep(0.1)
            end_jobs(world)
    assert len(world.service.jobs) == jobs
    assert len({one.record_id for one in found}) == jobs


async def test_a_call_without_a_key_does_not_join_one_with_a_key(world: World) -> None:
    async with hosted(world) as host, anyio.create_task_group() as group:
        group.start_soon(host.ask, FOX.model_copy(update={"idempotency_key": "k"}))
        await submitted(world)
        host.clock.now += 9
        group.start_soon(host.ask)
        await anyio.sleep(0.1)
        end_jobs(world)
    assert len(world.service.jobs) == 2


async def test_two_that_run_are_each_joined_once(world: World) -> None:
    async with hosted(world) as host, anyio.create_task_group() as group:
        for seconds in (0, 1, 4, 1):  # at 0, 1, 5 and 6 s
            host.clock.now += seconds
            group.start_soon(host.ask)
            await anyio.sleep(0.1)
        tokens = [call.token for call in host.connection.calls]
        assert tokens == [tokens[0], tokens[1]] * 2
        end_jobs(world)
    assert len(world.service.jobs) == 2


async def test_who_joins_a_call_that_is_then_cut_keeps_its_job(world: World) -> None:
    found: list[Generation] = []
    async with hosted(world) as host:

        async def ask() -> None:
            found.append(await host.ask())

        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as first:
                async with anyio.create_task_group() as inner:
                    inner.start_soon(host.ask)
                    await submitted(world)
                    host.clock.now += 5
                    group.start_soon(ask)
                    await anyio.sleep(0.1)
                    first.cancel()
            await anyio.lowlevel.checkpoint()
            host.clock.now += 1
            group.start_soon(ask)  # a second after the one that waits: its own
            await anyio.sleep(0.2)
            end_jobs(world)
    assert len(world.service.jobs) == 2
    assert len({one.record_id for one in found}) == 2


@pytest.mark.parametrize(
    ("reads_late_answers", "took", "later", "jobs"),
    [
        (False, 4.6, 29.0, 1),
        (False, 4.6, 31.0, 2),
        (False, 4.4, 1.0, 2),
        (True, 9.0, 1.0, 2),
    ],
)
async def test_a_late_answer_to_a_host_that_says_nothing_may_be_unread(
    world: World, reads_late_answers: bool, took: float, later: float, jobs: int
) -> None:
    found: list[Generation] = []
    async with hosted(world) as host:
        host.connection.reads_late_answers = reads_late_answers

        async def ask() -> None:
            found.append(await host.ask())

        async def pass_time() -> None:
            await submitted(world)
            host.clock.now += took
            end_jobs(world)

        async with anyio.create_task_group() as group:
            group.start_soon(pass_time)
            group.start_soon(ask)
        host.clock.now += later
        await ask()
        await ask()
    first, second, third = found
    assert len({first.record_id, second.record_id}) == jobs
    assert third.record_id not in (first.record_id, second.record_id)


async def test_calls_with_keys_of_programs_and_for_other_pictures_stand_apart(
    world: World,
) -> None:
    async with hosted(world) as host:
        await host.cut(FOX, 5.0, reason=TIME_OUT)
        end_jobs(world)
        for request in (
            FOX.model_copy(update={"idempotency_key": "k"}),
            FOX.model_copy(update={"seed": 8}),
            FOX.model_copy(update={"n": 2}),
        ):
            assert TAKEN_UP not in str((await host.ask(request)).notice)
        assert TAKEN_UP not in str((await host.generations.generate(FOX)).notice)
        assert TAKEN_UP in str((await host.ask()).notice)
    assert len(world.service.jobs) == 5


@pytest.mark.parametrize("is_kept", [True, False])
async def test_what_has_lost_its_pictures_is_ordered_anew(world: World, is_kept: bool) -> None:
    """The embedded service removes the oldest sketches when it needs room."""
    end_jobs(world)
    first: list[str] = []

    def find_file(record_id: str, index: int) -> str | None:
        return "/kept.png" if is_kept or record_id not in first else None

    async with world.generations(find_file=find_file) as generations:
        host = Host(generations)
        await host.cut(FOX, 5.0, reason=TIME_OUT)
        first += world.service.jobs
        await generations.get(first[0], max_wait=10)
        found = await host.ask()
        again = await host.ask()
    assert [len(one.images) for one in (found, again)] == [1, 1]
    assert len(world.service.jobs) == (2 if is_kept else 3)
    assert (TAKEN_UP in str(found.notice)) is is_kept


async def test_what_failed_is_ordered_anew(world: World) -> None:
    async with hosted(world) as host:
        await host.cut(FOX, 5.0, reason=TIME_OUT)
        (record_id,) = world.service.jobs
        world.service.faults.add(Fault.parse("error-code@status"))
        with pytest.raises(ArtaError):
            await host.generations.get(record_id, max_wait=5)
        end_jobs(world)
        found = await host.ask()
    assert found.record_id != record_id


async def test_what_is_cancelled_as_the_store_answers_orders_nothing_and_takes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exchange with a store is read to its end, without a point at which it is cancelled."""
    begin_whole = SqliteState.begin
    async with hosted(world) as host:

        async def ask_and_leave() -> None:
            call = Call(host.connection)
            with anyio.CancelScope() as scope, monkeypatch.context() as patch:

                async def begin(state: SqliteState, *given: Any, **more: Any) -> Any:
                    begun = await begin_whole(state, *given, **more)
                    call.explain(is_cut=True)
                    scope.cancel()
                    return begun

                patch.setattr(SqliteState, "begin", begin)
                await host.generations.generate(FOX, call=call)
            assert scope.cancelled_caught

        await host.cut(GenerationRequest(prompt="a token is there"), 5.0, reason=TIME_OUT)
        await ask_and_leave()
        assert len(world.service.jobs) == 1
        await host.cut(FOX, 5.0, reason=TIME_OUT)
        *_, record_id = world.service.jobs
        end_jobs(world)
        await host.generations.get(record_id)
        await ask_and_leave()
        assert TAKEN_UP in str((await host.ask()).notice)
    assert len(world.service.jobs) == 2
