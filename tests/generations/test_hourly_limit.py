"""The hourly limit: what hosts ask for where a key is used, over processes and restarts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from arta_mcp.errors import KeyConflict, PromptRejected, RateLimited, SubmitUnknown
from arta_mcp.generations.callers import Call, Connection
from arta_mcp.generations.hourly_limit import PictureLimit
from arta_mcp.generations.service import Generations
from arta_mcp.generations.values import Generation, GenerationRequest
from arta_mcp.local.faults.catalogue import Fault
from harness.stores import Store
from harness.world import LIMITS, World, new_world, opened_state

pytestmark = pytest.mark.anyio

LIMIT = replace(LIMITS, hourly=5)
NAME = PictureLimit.name_of("test", "arta", "")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


async def ask(generations: Generations, prompt: str, n: int = 1, key: str = "") -> Generation:
    """A host's call; without a key each in a connection of its own, answered before the next."""
    request = GenerationRequest(prompt=prompt, n=n, idempotency_key=key or None)
    return await generations.generate(request, call=Call(Connection()))


async def test_what_is_over_the_limit_is_refused_with_when_to_ask_again_and_nothing_is_ordered(
    world: World,
) -> None:
    async with world.generations(LIMIT) as generations:
        await ask(generations, "one", 3)
    async with world.generations(LIMIT) as generations:  # another process, later
        await ask(generations, "two")
        with pytest.raises(RateLimited) as caught:
            await ask(generations, "three", 2)
        assert caught.value.message == (
            "hosts may ask for 5 pictures an hour (ARTA_HOURLY_LIMIT), 4 were asked for and this"
            " call wants 2; nothing was ordered"
        )
        assert caught.value.hint == (
            "ask again in 60 minutes, or for fewer pictures; the person can raise ARTA_HOURLY_LIMIT"
        )
        assert 3500 < (caught.value.retry_after or 0) <= 3600
        with pytest.raises(RateLimited, match="4 were asked for") as caught:
            await ask(generations, "four", 6)
        assert "ask for at most 5 at once" in caught.value.hint
        done = await ask(generations, "five")  # what was refused does not count
        listed = [one.status for one in await generations.history()]
        assert listed == ["done"] * 3  # and leaves no entry
    assert "5 of the 5 pictures of an hour are used (ARTA_HOURLY_LIMIT)" in str(done.notice)
    assert len(world.service.jobs) == 3


async def test_a_notice_comes_before_the_limit_bites(world: World) -> None:
    async with world.generations(LIMIT) as generations:
        first, second = await ask(generations, "one", 3), await ask(generations, "two")
    assert "ARTA_HOURLY_LIMIT" not in str(first.notice)
    assert "4 of the 5 pictures of an hour are used" in str(second.notice)


async def test_what_repeats_another_call_and_what_a_person_types_do_not_count(world: World) -> None:
    async with world.generations(LIMIT) as generations:
        first = await ask(generations, "one", 5, key="k")
        again = await ask(generations, "one", 5, key="k")
        assert again.record_id == first.record_id
        with pytest.raises(KeyConflict):
            await ask(generations, "another", key="k")
        # The command line has no connection: it is not limited, and uses nothing up.
        typed = await generations.generate(GenerationRequest(prompt="typed", n=8))
    assert typed.status == "done"
    assert "ARTA_HOURLY_LIMIT" not in str(typed.notice)


async def test_callers_over_http_that_nobody_knows_are_counted_together(world: World) -> None:
    async with world.generations(LIMIT) as generations:
        for prompt, n in (("one", 3), ("two", 2)):
            call = Call(owner="http:anonymous")
            await generations.generate(GenerationRequest(prompt=prompt, n=n), call=call)
        with pytest.raises(RateLimited, match="5 were asked for and this call wants 1"):
            await generations.generate(
                GenerationRequest(prompt="three"), call=Call(owner="http:anonymous")
            )


async def test_a_call_that_takes_up_what_another_was_cut_off_from_does_not_count(
    tmp_path: Path,
) -> None:
    world = new_world(tmp_path, draw=0.6)
    connection = Connection()
    async with world.generations(LIMIT) as generations:
        with anyio.move_on_after(0.3):
            await generations.generate(
                GenerationRequest(prompt="a fox", n=5, seed=1), call=Call(connection)
            )
        done = await generations.generate(
            GenerationRequest(prompt="a fox", n=5, seed=1), call=Call(connection)
        )
    assert done.status == "done"
    assert len(world.service.jobs) == 1


async def test_what_was_refused_before_a_job_was_made_does_not_count_and_an_unknown_outcome_does(
    world: World,
) -> None:
    async with world.generations(LIMIT) as generations:
        world.service.faults.add(Fault.parse("echo@submit"))
        with pytest.raises(PromptRejected):
            await ask(generations, "refused", 5)
        world.service.faults.add(Fault.parse("answer-lost@submit"))
        with pytest.raises(SubmitUnknown):
            await ask(generations, "unknown", 3)
        with pytest.raises(RateLimited, match="3 were asked for and this call wants 3"):
            await ask(generations, "over", 3)
        done = await ask(generations, "within", 2)
    assert "5 of the 5 pictures of an hour" in str(done.notice)


async def test_what_is_cancelled_or_finds_no_place_before_it_was_sent_does_not_count(
    store: Store, tmp_path: Path
) -> None:
    world = new_world(tmp_path, draw=30)
    world.store = store
    limit = replace(LIMIT, max_concurrency=1, max_wait=0.5)
    async with world.generations(limit) as generations:
        state = (await generations._open()).state  # pyright: ignore[reportPrivateUsage]  # the count itself
        assert (await ask(generations, "takes the place", 2)).status == "pending"
        with pytest.raises(RateLimited, match="all 1 places are taken"):
            await ask(generations, "finds no place", 3)
        assert await state.counted(NAME) == 2
        async with anyio.create_task_group() as group:
            group.start_soon(ask, generations, "leaves", 3)
            with anyio.fail_after(20):
                while await state.counted(NAME) < 5:
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        assert await state.counted(NAME) == 2
    assert len(world.service.jobs) == 1


async def test_of_calls_at_once_in_two_processes_as_many_pass_as_there_is_room_for(
    world: World,
) -> None:
    ended: list[str] = []

    async def call(generations: Generations, name: str) -> None:
        try:
            ended.append((await ask(generations, name)).status)
        except RateLimited:
            ended.append("limited")

    async with (
        world.generations(LIMIT) as one,
        world.generations(LIMIT) as other,
        anyio.create_task_group() as group,
    ):
        for number in range(8):
            group.start_soon(call, (one, other)[number % 2], str(number))
    assert sorted(ended) == ["done"] * 5 + ["limited"] * 3
    assert len(world.service.jobs) == 5


async def test_after_an_hour_there_is_room_again(world: World) -> None:
    async with world.generations(LIMIT) as generations:
        await ask(generations, "one", 3)
        await ask(generations, "two", 2)
    async with opened_state(world.folder / "state") as state:
        two, one = await state.latest("test", "", 5)
    _age(world, one.id, 3000)
    _age(world, two.id, 1200)
    async with world.generations(LIMIT) as generations:
        with pytest.raises(RateLimited) as caught:
            await ask(generations, "three", 2)
        assert "ask again in 10 minutes" in caught.value.hint
        with pytest.raises(RateLimited) as caught:
            await ask(generations, "four", 4)
        assert "ask again in 40 minutes" in caught.value.hint
    _age(world, one.id, 601)
    async with world.generations(LIMIT) as generations:
        assert (await ask(generations, "five", 3)).status == "done"


def _age(world: World, entry_id: str, seconds: float) -> None:
    """Makes what an entry was counted with older."""
    with closing(sqlite3.connect(world.folder / "state" / "generations.sqlite3")) as journal:
        journal.execute("UPDATE counted SET at = at - ? WHERE entry = ?", (seconds, entry_id))
        journal.commit()
