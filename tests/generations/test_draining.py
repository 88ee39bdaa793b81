"""A process that is told to end: every call is answered, nothing is ordered that is not known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from arta_mcp.errors import ArtaError, RateLimited, Unavailable
from arta_mcp.generations.callers import Call
from arta_mcp.generations.service import Generations
from arta_mcp.generations.values import Generation, GenerationRequest
from arta_mcp.local.faults.catalogue import Fault
from harness.world import LIMITS, World, new_world

pytestmark = pytest.mark.anyio

FOX = GenerationRequest(prompt="a red fox")
LONG = 20.0


async def keep(
    generations: Generations, request: GenerationRequest, kept: list[Generation | ArtaError]
) -> None:
    try:
        kept.append(await generations.generate(request))
    except ArtaError as exc:
        kept.append(exc)


async def wait_until_seen(world: World, endpoint: str, count: int = 1) -> None:
    with anyio.fail_after(LONG):
        while world.service.seen[endpoint] < count:
            await anyio.sleep(0.005)


async def test_a_call_that_waits_for_its_job_answers_pending_at_once(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=3600)
    kept: list[Generation | ArtaError] = []
    async with world.generations() as generations, anyio.create_task_group() as group:
        group.start_soon(keep, generations, FOX, kept)
        await wait_until_seen(world, "status")
        with anyio.fail_after(2):
            generations.drain(5)
            while not kept:
                await anyio.sleep(0.005)
    (answered,) = kept
    assert isinstance(answered, Generation)
    assert (answered.status, answered.record_id) == ("pending", *world.service.jobs)


async def test_a_submit_under_way_is_waited_for_and_answers_with_its_record_id(
    tmp_path: Path,
) -> None:
    world = new_world(tmp_path, queue=3600)
    world.service.faults.add(Fault.parse("slow-headers@submit=1"))
    kept: list[Generation | ArtaError] = []
    async with world.generations() as generations, anyio.create_task_group() as group:
        group.start_soon(keep, generations, FOX, kept)
        await wait_until_seen(world, "submit")
        generations.drain(5)
    (answered,) = kept
    assert isinstance(answered, Generation)
    assert (answered.status, answered.record_id) == ("pending", *world.service.jobs)


async def test_a_call_that_waits_for_a_slot_or_comes_later_orders_nothing(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=3600)
    limits = replace(LIMITS, max_concurrency=1)
    kept: list[Generation | ArtaError] = []
    lake = GenerationRequest(prompt="a lake")
    async with world.generations(limits) as generations, anyio.create_task_group() as group:
        group.start_soon(keep, generations, FOX, kept)
        await wait_until_seen(world, "status")
        group.start_soon(keep, generations, lake, kept)
        await anyio.wait_all_tasks_blocked()
        generations.drain(5)
        with pytest.raises(Unavailable, match="this server is ending; nothing was ordered"):
            await generations.generate(lake)
    refused = [one for one in kept if isinstance(one, ArtaError)]
    assert [one.message for one in refused] == ["this server is ending; nothing was ordered"]
    assert world.service.seen["submit"] == 1
    async with world.generations() as generations:  # the journal says so, too
        assert sorted(one.status for one in await generations.history()) == [
            *("pending", "refused", "refused"),
        ]


async def test_a_key_that_comes_again_while_the_process_ends_gets_its_job(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=3600)
    keyed = FOX.model_copy(update={"idempotency_key": "k"})
    async with world.generations() as generations:
        first = await generations.generate(keyed, max_wait=0)
        generations.drain(5)
        again = await generations.generate(keyed)
        looked = await generations.get(first.record_id or "", max_wait=LONG)
    assert again.record_id == looked.record_id == first.record_id
    assert again.status == looked.status == "pending"


async def test_what_listens_for_the_end_hears_of_it_once(tmp_path: Path) -> None:
    heard: list[str] = []
    async with new_world(tmp_path).generations() as generations:
        generations.on_drain(lambda: heard.append("it ends"))
        assert not generations.is_draining
        generations.drain(1)
        assert generations.is_draining
    assert heard == ["it ends"]


# Slots of an owner


async def test_an_owner_with_all_of_its_slots_is_told_when_and_no_other_waits(
    tmp_path: Path,
) -> None:
    world = new_world(tmp_path, queue=3600)
    limits = replace(LIMITS, max_concurrency=4, owner_concurrency=2)
    async with world.generations(limits) as generations:

        async def order(owner: str, prompt: str) -> Generation:
            request = GenerationRequest(prompt=prompt)
            return await generations.generate(request, max_wait=0, call=Call(owner=owner))

        for number in range(2):
            assert (await order("token:alice", f"{number}")).status == "pending"
        with anyio.fail_after(5), pytest.raises(RateLimited) as told:
            await order("token:alice", "one more")
        assert told.value.message == (
            "2 generations of yours are under way, as many as you may have"
        )
        assert told.value.retry_after == 30
        assert (await order("token:bob", "another")).status == "pending"
    assert len(world.service.jobs) == 3


async def test_an_owners_slots_are_free_again_when_its_jobs_end(tmp_path: Path) -> None:
    limits = replace(LIMITS, owner_concurrency=1)
    async with new_world(tmp_path).generations(limits) as generations:
        for number in range(4):
            request = GenerationRequest(prompt=f"{number}")
            done = await generations.generate(request, call=Call(owner="token:alice"))
            assert done.status == "done"
