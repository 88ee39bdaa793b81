from __future__ import annotations

from functools import partial

import anyio
import anyio.lowlevel
import pytest

from arta_mcp.background import BackgroundTasks, open_background, retry
from arta_mcp.errors import ArtaError, RateLimited, Unavailable

pytestmark = pytest.mark.anyio


async def test_a_detached_task_gives_its_caller_what_it_returns_or_raises() -> None:
    async def fail() -> int:
        raise ValueError("no")

    async def work() -> int:
        await anyio.lowlevel.checkpoint()
        return 7

    async with open_background() as background:
        assert await background.run_detached(work) == 7
        with pytest.raises(ValueError, match="no"):
            await background.run_detached(fail)
        assert await background.run_detached(work) == 7


async def test_a_cancelled_caller_leaves_at_once_and_the_task_ends_by_itself() -> None:
    begun, may_end = anyio.Event(), anyio.Event()
    ended: list[str] = []

    async def work() -> None:
        begun.set()
        await may_end.wait()
        await anyio.lowlevel.checkpoint()
        ended.append("work")

    with anyio.fail_after(2):
        async with open_background() as background:
            async with anyio.create_task_group() as callers:
                callers.start_soon(background.run_detached, work)
                await begun.wait()
                callers.cancel_scope.cancel()
            assert ended == []
            may_end.set()
    assert ended == ["work"]


async def test_a_wait_for_a_task_may_be_short_and_is_told_whether_it_ended() -> None:
    may_end = anyio.Event()

    async def work() -> int:
        await may_end.wait()
        return 7

    async with open_background() as background:
        task = background.detach(work)
        assert not await task.wait(0.01)
        may_end.set()
        with anyio.fail_after(2):
            assert await task.wait()
        assert task.result() == 7


async def test_leaving_the_block_waits_for_detached_tasks_and_stops_spawned_ones() -> None:
    ended: list[str] = []

    async def beside() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("spawned")

    async def work() -> None:
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        ended.append("detached")

    with anyio.fail_after(2):
        async with open_background() as background:
            background.spawn(beside)
            await anyio.lowlevel.checkpoint()
            background.detach(work)
    assert sorted(ended) == ["detached", "spawned"]


async def test_a_detached_task_that_does_not_end_is_given_up() -> None:
    with anyio.fail_after(2):
        async with open_background(shutdown_timeout=0.01) as background:
            background.detach(anyio.sleep_forever)


async def test_a_task_that_is_worth_more_time_at_the_end_has_it_and_the_others_have_not() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        await anyio.sleep(0.1)
        ended.append(name)

    with anyio.fail_after(2):
        async with open_background(shutdown_timeout=0.01) as background:
            background.detach(partial(work, "any"))
            background.detach(partial(work, "submit"), shutdown_timeout=2)
    assert ended == ["submit"]


async def test_nothing_begins_once_the_time_of_detached_tasks_is_up() -> None:
    """What a task that is given up still asks for must not hold the block open."""
    begun: list[str] = []

    async def late() -> None:
        begun.append("late")

    with anyio.fail_after(2):
        async with open_background(shutdown_timeout=0.01) as background:

            async def ask_late() -> None:
                try:
                    await anyio.sleep_forever()
                finally:
                    background.detach(late)

            background.detach(ask_late)
    assert begun == []


async def test_a_bug_in_a_task_whose_caller_has_left_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise ValueError("a bug")

    async def refuse() -> None:
        raise Unavailable("no bug")

    async with open_background() as background:
        background.detach(fail)
        background.detach(refuse)
    (record,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "a bug"


async def test_a_caller_that_still_waits_for_a_given_up_task_is_told_so() -> None:
    caught: list[str] = []

    async def ask(background: BackgroundTasks) -> None:
        with pytest.raises(RuntimeError, match="given up"):
            await background.run_detached(anyio.sleep_forever)
        caught.append("given up")

    with anyio.fail_after(2):
        async with (
            anyio.create_task_group() as callers,
            open_background(shutdown_timeout=0.01) as background,
        ):
            callers.start_soon(ask, background)
            await anyio.wait_all_tasks_blocked()
    assert caught == ["given up"]


async def test_detached_tasks_survive_a_block_left_by_an_error_which_stays_itself() -> None:
    ended: list[str] = []

    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        ended.append("work")

    async def use() -> None:
        async with open_background() as background:
            background.detach(work)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await use()
    assert ended == ["work"]


async def test_detached_tasks_survive_a_block_that_is_cancelled() -> None:
    ended: list[str] = []

    async def work() -> None:
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        ended.append("work")

    with anyio.fail_after(2), anyio.CancelScope() as scope:
        async with open_background() as background:
            background.detach(work)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert ended == ["work"]


async def test_many_tasks_at_once_each_give_their_own_answer() -> None:
    answers: dict[int, int] = {}

    async def ask(background: BackgroundTasks, number: int) -> None:
        async def work() -> int:
            await anyio.lowlevel.checkpoint()
            return number * number

        answers[number] = await background.run_detached(work)

    async with open_background() as background, anyio.create_task_group() as callers:
        for number in range(50):
            callers.start_soon(ask, background, number)
    assert answers == {number: number * number for number in range(50)}


async def test_what_may_be_repeated_is_repeated_after_the_pause_it_asks_for() -> None:
    failures: list[ArtaError] = [RateLimited("slow", retry_after=7), Unavailable("down")]
    slept: list[float] = []

    async def call() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await anyio.lowlevel.checkpoint()

    def pause_after(exc: ArtaError, tries: int) -> float | None:
        return 7 if isinstance(exc, RateLimited) else 10.0 * tries

    assert await retry(call, pause_after, sleep=sleep) == "done"
    assert slept == [7, 20]


async def test_what_must_not_be_repeated_is_raised_at_once() -> None:
    tried: list[int] = []

    async def call() -> str:
        tried.append(1)
        raise Unavailable("down")

    with pytest.raises(Unavailable, match="down"):
        await retry(call, lambda exc, tries: None if tries == 2 else 0)
    assert len(tried) == 2
