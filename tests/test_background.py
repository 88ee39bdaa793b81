from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from arta_mcp.background import Errands

pytestmark = pytest.mark.anyio


async def test_an_errand_gives_its_caller_what_it_returns_or_raises() -> None:
    async def fail() -> int:
        raise ValueError("no")

    async def work() -> int:
        await anyio.lowlevel.checkpoint()
        return 7

    async with Errands() as errands:
        assert await errands.finish(work) == 7
        with pytest.raises(ValueError, match="no"):
            await errands.finish(fail)
        assert await errands.finish(work) == 7


async def test_a_cancelled_caller_leaves_at_once_and_the_errand_ends_by_itself() -> None:
    begun, may_end = anyio.Event(), anyio.Event()
    ended: list[str] = []

    async def work() -> None:
        begun.set()
        await may_end.wait()
        ended.append("work")

    with anyio.fail_after(2):
        async with Errands() as errands:
            async with anyio.create_task_group() as callers:
                callers.start_soon(errands.finish, work)
                await begun.wait()
                callers.cancel_scope.cancel()
            assert ended == []
            may_end.set()
    assert ended == ["work"]


async def test_leaving_the_block_waits_for_errands_and_stops_what_was_only_started() -> None:
    ended: list[str] = []

    async def background() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("background")

    async def work() -> None:
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        ended.append("work")

    with anyio.fail_after(2):
        async with Errands() as errands:
            errands.start(background)
            with anyio.CancelScope() as scope:
                scope.cancel()
                await errands.finish(work)
    assert sorted(ended) == ["background", "work"]


async def test_an_errand_that_does_not_end_is_given_up_after_the_grace() -> None:
    with anyio.fail_after(2):
        async with Errands(grace=0.01) as errands:
            with anyio.move_on_after(0.01):
                await errands.finish(anyio.sleep_forever)


async def test_whoever_still_waits_for_a_given_up_errand_is_told_so() -> None:
    told: list[str] = []

    async def ask(errands: Errands) -> None:
        with pytest.raises(RuntimeError, match="given up"):
            await errands.finish(anyio.sleep_forever)
        told.append("given up")

    with anyio.fail_after(2):
        async with anyio.create_task_group() as callers, Errands(grace=0.01) as errands:
            callers.start_soon(ask, errands)
            await anyio.wait_all_tasks_blocked()
    assert told == ["given up"]


async def test_errands_survive_a_block_that_is_left_by_an_error_which_stays_itself() -> None:
    ended: list[str] = []

    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        ended.append("work")

    async def use() -> None:
        async with Errands() as errands:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await errands.finish(work)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await use()
    assert ended == ["work"]


async def test_errands_outside_their_block_are_a_bug_that_leaves_nothing_behind() -> None:
    errands = Errands()
    with pytest.raises(RuntimeError, match="only inside"):
        await errands.finish(anyio.sleep_forever)
    with pytest.raises(RuntimeError, match="only inside"):
        errands.start(anyio.sleep_forever)
    with anyio.fail_after(1):
        async with errands:
            pass


async def test_many_errands_at_once_each_get_their_own_answer() -> None:
    answers: dict[int, int] = {}

    async def ask(errands: Errands, number: int) -> None:
        async def work() -> int:
            await anyio.lowlevel.checkpoint()
            return number * number

        answers[number] = await errands.finish(work)

    async with Errands() as errands, anyio.create_task_group() as callers:
        for number in range(50):
            callers.start_soon(ask, errands, number)
    assert answers == {number: number * number for number in range(50)}
