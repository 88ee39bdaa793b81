"""What every store of the state has to do, tried with each of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import fields, replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from arta_mcp.arta.account import Account
from arta_mcp.arta.protocol import Image
from arta_mcp.errors import ProtocolError, Unavailable
from arta_mcp.redaction import Secret
from arta_mcp.state.contract import CUT_SHARE, UNANSWERED_TTL, State
from arta_mcp.state.records import (
    Begun,
    CallNote,
    JournalEntry,
    NoRoom,
    Phase,
    Pruned,
    Quota,
    StyleList,
    Timing,
)
from harness.stores import Store

pytestmark = pytest.mark.anyio

NOW = 1_000_000.0
OURS = ("a.example", "")
ACCOUNT = Account(Secret("id-token-1"), Secret("refresh-token-1"), NOW, NOW + 3600, "user-1")


@pytest.fixture
async def state(store: Store) -> AsyncGenerator[State]:
    async with store.process() as state:
        yield state


def intent(**more: object) -> JournalEntry:
    """What a host's call is about to send."""
    fields: dict[str, object] = {
        "service": "a.example",
        "key": None,
        "fingerprint": "f1",
        "request": '{"prompt": "a fox, \\u00e4"}',
        "style": "Flux",
        "phase": "intended",
        "created_at": 1.0,  # by a caller's clock, which decides nothing
        "caller": "1",
    }
    return JournalEntry(**(fields | more))  # pyright: ignore[reportArgumentType]  # as in the record


async def begin(state: State, waiting: str = "", **more: object) -> tuple[JournalEntry, bool]:
    """`waiting` holds the tokens of this process's calls that are still there."""
    begun = await state.begin(intent(**more), is_waiting=lambda token: token in waiting)
    assert isinstance(begun, Begun)
    return begun.entry, begun.is_ours


async def order(state: State, key: str | None = None, **more: object) -> tuple[JournalEntry, bool]:
    """What a program's own call is about to send."""
    return await begin(state, "", key=key, caller=None, answered_at=1.0, **more)


async def reached(state: State, phase: Phase, **more: object) -> JournalEntry:
    """A generation whose caller has gone without an answer."""
    entry, is_ours = await begin(state, "", **more)
    assert is_ours
    return await written(state, replace(entry, phase=phase, record_id=f"r-{entry.id}"))


async def submitted(state: State, record_id: str, key: str | None = None) -> JournalEntry:
    entry, _ = await order(state, key)
    entry = replace(entry, phase="submitted", record_id=record_id, submitted_at=NOW + 1)
    return await written(state, entry)


async def written(state: State, entry: JournalEntry) -> JournalEntry:
    found = await state.write(entry)
    assert found is not None
    return found


async def entry_with(state: State, entry_id: str) -> JournalEntry | None:
    found = [entry for entry in await state.latest(*OURS, 999) if entry.id == entry_id]
    return found[0] if found else None


async def at_once(count: int, work: Callable[[int], Coroutine[object, object, None]]) -> None:
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(work, number)


# Accounts and style lists


async def test_an_account_comes_back_as_it_was_kept(store: Store, state: State) -> None:
    assert await state.account("test") is None
    async with state.lock("test") as fence:
        assert await state.keep_account("test", ACCOUNT, fence=fence)
        assert await state.account("test") == ACCOUNT
        async with store.process() as other:
            assert await other.account("test") == ACCOUNT
        assert await state.account("another") is None
        for _ in range(2):
            assert await state.keep_account("test", None, fence=fence)
            assert await state.account("test") is None


async def test_a_style_list_comes_back_as_it_was_kept(store: Store, state: State) -> None:
    listed = StyleList(("Flux", "F Dev", "\u00e4"), NOW)
    assert await state.styles("a.example:1") is None
    await state.keep_styles("a.example:1", listed)
    async with store.process() as other:
        assert await other.styles("a.example:1") == listed
    assert await state.styles("b.example") is None


# Locks


async def test_a_lock_is_held_by_one_task_of_one_process_at_a_time(store: Store) -> None:
    async with store.process() as one, store.process() as two:
        inside, most, fences = 0, 0, list[int]()

        async def work(number: int) -> None:
            nonlocal inside, most
            async with (one, two)[number % 2].lock("test") as fence:
                fences.append(fence)
                inside += 1
                most = max(most, inside)
                await anyio.lowlevel.checkpoint()
                inside -= 1

        await at_once(20, work)
    assert (inside, most) == (0, 1)
    assert fences == sorted(fences)


async def test_a_lock_is_free_again_after_an_error_and_after_a_cancellation(state: State) -> None:
    async def fail() -> None:
        async with state.lock("test"):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail()
    with anyio.CancelScope() as scope:
        async with state.lock("test"):
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    with anyio.fail_after(2):
        async with state.lock("test"):
            pass


async def test_a_time_out_of_what_holds_a_lock_is_its_own(state: State) -> None:
    with pytest.raises(TimeoutError, match="mine"):
        async with state.lock("test"):
            raise TimeoutError("mine")


async def test_locks_of_different_names_do_not_wait_for_each_other(state: State) -> None:
    with anyio.fail_after(2):
        async with state.lock("one"), state.lock("two"):
            pass


async def test_whoever_waits_for_a_lock_can_be_cancelled(store: Store) -> None:
    async with store.process() as one, store.process() as two, one.lock("test"):
        await two.account("test")  # opened by then
        with anyio.fail_after(5):
            with anyio.move_on_after(0.1) as scope:
                async with two.lock("test"):
                    pass
        assert scope.cancelled_caught


async def test_a_lock_that_is_held_for_too_long_is_said_with_what_to_do(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sqlite", "redis"):
        monkeypatch.setattr(f"arta_mcp.state.{module}.LOCK_TIMEOUT", 0.05)
    async with store.process() as one, store.process() as two, one.lock("test"):
        with pytest.raises(Unavailable, match="another process has held") as caught:
            await two.lock("test").__aenter__()
    assert "end the arta-mcp process" in caught.value.hint


# The journal


async def test_an_entry_comes_back_as_it_was_written(store: Store, state: State) -> None:
    entry, _ = await order(state, "key-1", owner="token:\u00e4:b")
    whole = replace(
        entry,
        phase="done",
        record_id="r1",
        seed=2**63 - 1,
        images=(
            Image("https://a.example/\u00e4.png", "0.png", True, "image/webp"),
            Image("http://b/"),
        ),
        paths=("/tmp/\u00e4", None),
        error="words",
        **{
            field.name: NOW + number
            for number, field in enumerate(fields(JournalEntry))
            if field.name in ("submitted_at", "finished_at") or field.name.startswith("seen_")
        },
    )
    whole = await written(state, whole)
    async with store.process() as other:
        assert await other.find("a.example", "token:\u00e4:b", "r1") == whole
        assert await other.latest("a.example", "token:\u00e4:b", 5) == (whole,)


async def test_what_is_not_there_is_none(state: State) -> None:
    await submitted(state, "r1")
    assert await entry_with(state, "99") is None
    assert await state.find("a.example", "", "r2") is None
    assert await state.find("b.example", "", "r1") is None
    for record_id in ("", "\ud800", "a\0b", "' OR 1=1 --", "x" * 10_000):
        assert await state.find("a.example", "", record_id) is None


async def test_the_latest_come_first_and_no_more_than_asked_for(store: Store, state: State) -> None:
    made: list[str] = []
    for _ in range(4):
        store.ahead += 1
        made.append((await order(state))[0].id)
    assert [entry.id for entry in await state.latest(*OURS, 3)] == made[:0:-1]
    assert len(await state.latest(*OURS, 9)) == 4
    assert await state.latest("b.example", "", 3) == ()
    assert await state.latest(*OURS, 0) == ()


async def test_an_owner_sees_what_is_its_own(state: State) -> None:
    owners = ("", "a", "a:b", "a%3Ab")
    for owner in owners:
        entry, is_ours = await order(state, "k", owner=owner)
        assert is_ours
        await written(state, replace(entry, phase="submitted", record_id=f"r-{len(owner)}"))
    for owner in owners:
        (found,) = await state.latest("a.example", owner, 9)
        assert found.owner == owner
        assert await state.find("a.example", owner, f"r-{len(owner)}") == found
        for other in set(owners) - {owner}:
            assert await state.find("a.example", other, f"r-{len(owner)}") is None


async def test_times_are_by_the_clock_of_the_store(store: Store, state: State) -> None:
    before = state.now()
    store.ahead += 3600
    entry, _ = await order(state, created_at=12.0)
    assert before + 3600 <= entry.created_at + 0.1  # a clock is read to the millisecond or so
    assert abs(state.now() - entry.created_at) < 10
    assert entry.answered_at == entry.created_at


async def test_calls_without_a_key_are_generations_of_their_own(state: State) -> None:
    found = [await order(state) for _ in range(3)]
    assert [is_ours for _, is_ours in found] == [True] * 3
    assert len({entry.id for entry, _ in found}) == 3


@pytest.mark.parametrize("phase", ["sending", "submitted", "done", "failed", "unknown"])
async def test_a_key_gives_its_first_generation_however_late(
    store: Store, state: State, phase: Phase
) -> None:
    first, is_ours = await order(state, "key-1")
    assert is_ours
    await written(state, replace(first, phase=phase))
    for late in (0.0, 1e8):
        store.ahead += late
        again, is_ours = await order(state, "key-1", fingerprint="f2")
        assert (again.id, again.fingerprint, is_ours) == (first.id, "f1", False)


async def test_a_key_of_which_no_job_came_can_be_used_again(store: Store, state: State) -> None:
    first, _ = await order(state, "key-1")
    await written(state, replace(first, phase="refused", error="no"))
    store.ahead += 9
    again, is_ours = await order(state, "key-1", fingerprint="f2")
    assert is_ours
    assert (again.id, again.phase, again.fingerprint) == (first.id, "intended", "f2")
    assert again.error is None
    assert again.created_at >= first.created_at + 9
    assert await state.latest(*OURS, 9) == (again,)
    # whoever still holds the first is late
    assert await state.write(replace(first, phase="sending")) is None


async def test_a_key_that_is_about_to_be_sent_by_another_is_not_ours(store: Store) -> None:
    async with store.process() as one, store.process() as two:
        await order(one, "key-1")
        store.ahead += 10**6
        assert not (await order(two, "key-1"))[1]
        await one.close()  # as its death would free it, whatever the clocks say
        assert (await order(two, "key-1"))[1]


async def test_a_key_counts_for_its_own_service_and_owner_only(state: State) -> None:
    scopes = [{"service": "a"}, {"service": "b"}, {"service": "b", "owner": "o"}]
    assert [(await order(state, "key-1", **scope))[1] for scope in scopes] == [True] * 3


async def test_of_two_that_write_an_entry_the_second_learns_that_it_was_late(state: State) -> None:
    entry, _ = await order(state, "key-1")
    sending = await written(state, replace(entry, phase="sending"))
    assert await state.write(replace(entry, phase="refused")) is None
    assert await entry_with(state, entry.id) == sending


async def test_who_died_while_sending_left_an_unknown_outcome_and_a_free_intent(
    store: Store,
) -> None:
    async with store.process() as one, store.process() as two:
        intended, _ = await order(one)
        store.ahead += 1
        sending = await written(one, replace((await order(one))[0], phase="sending"))
        assert [entry.phase for entry in await two.latest(*OURS, 9)] == ["sending", "intended"]
        await one.close()
        found = {entry.id: entry for entry in await two.latest(*OURS, 9)}
    assert found[sending.id].phase == "unknown"
    assert found[intended.id].phase == "refused"
    assert found[intended.id].error


async def test_who_has_ended_is_known_to_be_gone_at_once(store: Store) -> None:
    async with store.process() as two:
        async with store.process() as one:
            sending = await written(one, replace((await order(one, "k"))[0], phase="sending"))
            intended, _ = await order(one, "l")
        assert not (await order(two, "k"))[1]
        assert (await order(two, "l"))[1]
        found = {entry.id: entry.phase for entry in await two.latest(*OURS, 9)}
    assert found == {sending.id: "unknown", intended.id: "intended"}


async def test_a_generation_made_elsewhere_is_adopted_once(state: State) -> None:
    first = await submitted(state, "r1")
    stranger = replace(first, id="", record_id="r2", style="F Dev")
    adopted = await state.adopt(stranger)
    assert adopted == replace(stranger, id=adopted.id)
    assert await state.adopt(replace(stranger, style="Graffiti")) == adopted
    assert await state.adopt(replace(first, id="", style="Graffiti")) == first
    assert await state.find(*OURS, "r2") == adopted


async def test_the_end_that_was_written_first_stands(state: State) -> None:
    entry = await submitted(state, "r1")
    done = replace(entry, phase="done", finished_at=NOW + 9, images=(Image("https://a.example/"),))
    failed = replace(entry, phase="failed", error="late news")
    done = await state.finish(done)
    assert done.phase == "done"
    assert await state.finish(failed) == done
    assert await entry_with(state, entry.id) == done


async def test_what_a_store_has_forgotten_is_added_when_it_is_written(
    store: Store, state: State
) -> None:
    sent = await submitted(state, "r1", "k")
    ended = await submitted(state, "r2")
    store.lose_memory()
    sent = await written(state, replace(sent, seed=7))
    ended = await state.finish(replace(ended, phase="done", finished_at=NOW + 9))
    assert await state.find(*OURS, "r1") == sent
    assert await state.find(*OURS, "r2") == ended
    await state.note_call(sent.id, CallNote(answered_at=NOW))


async def test_a_record_id_given_out_twice_is_the_services_fault(state: State) -> None:
    await submitted(state, "r1")
    with pytest.raises(ProtocolError, match="record id of another job"):
        await submitted(state, "r1")
    assert len(await state.latest(*OURS, 9)) == 2


async def test_a_journal_goes_on_after_it_was_closed(state: State) -> None:
    await order(state)
    await state.close()
    await state.close()
    assert len(await state.latest(*OURS, 9)) == 1
    assert (await order(state))[1]


async def test_timings_are_of_the_newest_finished_jobs_the_oldest_first(state: State) -> None:
    for number in range(5):
        entry = await submitted(state, f"r{number}")
        at = NOW + 100 * number
        times = {"submitted_at": at, "seen_waiting": at + 7.25, "seen_queued": None}
        entry = replace(entry, **times, seen_drawing=at + 3.5, finished_at=at + 9.5, phase="done")
        await state.finish(entry)
    failed = await submitted(state, "r9")
    await state.finish(replace(failed, phase="failed", finished_at=NOW + 900))
    found = await state.timings("a.example", "Flux", 2)
    expected = [Timing(at, at + 7.25, at + 9.5, None, at + 3.5) for at in (NOW + 300, NOW + 400)]
    assert list(found) == expected
    assert await state.timings("a.example", "F Dev", 2) == ()


async def test_what_has_ended_is_pruned_with_its_key_and_its_record(
    store: Store, state: State
) -> None:
    phases: list[Phase] = ["done", "failed", "refused", "submitted", "unknown"]
    for phase in phases:
        entry, _ = await order(state, phase)
        await written(state, replace(entry, phase=phase, record_id=f"r-{phase}"))
    store.ahead += 100
    young, _ = await order(state, "young")
    await written(state, replace(young, phase="done", record_id="r-young"))
    await order(state, "done", owner="another")
    pruned = await state.prune(*OURS, young.created_at)
    assert pruned == Pruned(3, ("r-done", "r-failed", "r-refused"), 2)
    assert len(await state.latest(*OURS, 9)) == 3
    assert await state.find(*OURS, "r-done") is None
    assert await state.find(*OURS, "r-submitted") is not None
    assert (await order(state, "done"))[1]
    assert not (await order(state, "unknown"))[1]
    assert await state.prune(*OURS, young.created_at) == Pruned(0, (), 2)
    assert len(await state.latest("a.example", "another", 9)) == 1


async def test_every_owner_of_every_service_is_known_until_all_of_its_own_is_removed(
    store: Store, state: State
) -> None:
    assert await state.owners() == ()
    ours = ("token:al", "token:alice%3A", "oidc:https://id.example/a|b c*[\u00e4]", "")
    whose = sorted([*((f"{name}.example:1", owner) for name in "ab" for owner in ours)])
    for service, owner in whose * 2:
        entry, _ = await order(state, service=service, owner=owner)
        await written(state, replace(entry, phase="done", record_id=f"r-{entry.id}"))
    assert list(await state.owners()) == whose
    first, *others = whose
    assert (await state.prune(*first, state.now() + 9)).count == 2
    async with store.process() as other:
        assert list(await other.owners()) == others


# Who is taken up


@pytest.mark.parametrize("phase", ["sending", "submitted", "done"])
async def test_an_equal_call_takes_up_what_answered_no_call_and_one_call_only(
    store: Store, state: State, phase: Phase
) -> None:
    first = await reached(state, phase)
    store.ahead += UNANSWERED_TTL - 60
    taken, is_ours = await begin(state, "", caller="2")
    assert (taken.id, taken.phase, taken.caller, is_ours) == (first.id, phase, "2", False)
    assert (await begin(state, "2", caller="2"))[0].id == first.id  # the same call looks again
    assert (await begin(state, "2", caller="3"))[1]


async def test_of_several_the_newest_is_taken_up(store: Store, state: State) -> None:
    made: list[JournalEntry] = []
    for number in range(3):
        store.ahead += 1
        entry, is_ours = await begin(state, "0123", caller=str(number))
        assert is_ours
        await written(state, replace(entry, phase="submitted", record_id=f"r{number}"))
        made.append(entry)
    assert (await begin(state, "2", caller="4"))[0].id == made[1].id


@pytest.mark.parametrize(
    ("phase", "more"),
    [
        ("intended", {}),
        ("failed", {}),
        ("refused", {}),
        ("unknown", {}),
        ("done", {"fingerprint": "f2"}),
        ("done", {"owner": "alice"}),
        ("done", {"service": "b.example"}),
        ("done", {"key": "k"}),
        ("done", {"caller": None, "answered_at": NOW}),
    ],
)
async def test_all_others_are_ordered_anew(
    state: State, phase: Phase, more: dict[str, object]
) -> None:
    await reached(state, phase)
    assert (await begin(state, "", **({"caller": "2"} | more)))[1]


async def test_what_is_older_than_ten_minutes_is_ordered_anew(store: Store, state: State) -> None:
    await reached(state, "done")
    store.ahead += UNANSWERED_TTL
    assert (await begin(state, "", caller="2"))[1]


async def test_what_has_answered_a_call_or_has_one_that_waits_is_not_taken_up(
    state: State,
) -> None:
    first = await reached(state, "done")
    assert (await begin(state, "1", caller="2"))[1]  # its caller is there
    await state.note_call(first.id, CallNote(answered_at=NOW + 3))
    await state.note_call(first.id, CallNote(answered_at=NOW + 9, cut_after=30.0))
    await state.note_call(first.id, CallNote(cut_after=5.0))
    await state.note_call(first.id, CallNote(cut_after=10.0))
    await state.note_call("no such entry", CallNote(cut_after=10.0))
    found = await state.find(*OURS, f"r-{first.id}")
    assert found is not None
    assert (found.answered_at, found.cut_after, found.caller) == (NOW + 3, 5.0, None)


async def test_a_caller_in_another_process_counts_until_that_dies(store: Store) -> None:
    async with store.process() as one, store.process() as two:
        first = await reached(one, "submitted")
        assert (await begin(two))[1]  # a job of its own while the other waits
        await one.close()
        taken, is_ours = await begin(two, "1", caller="2")
    assert (taken.id, is_ours) == (first.id, False)


async def test_a_caller_whose_process_was_killed_was_cut_in_the_time_that_it_had(
    store: Store,
) -> None:
    async with store.process() as one, store.process() as two, store.process() as three:
        first = await reached(one, "submitted")
        await one.close()
        store.ahead += 500
        taken, _ = await begin(two, "1", caller="2")
        assert taken.cut_after is not None
        assert 500 <= taken.cut_after <= 500 + 10
        await two.close()  # that one was to answer after four fifths of it
        await begin(three, "2", caller="2")
        found = await three.find(*OURS, f"r-{first.id}")
        assert found is not None
        assert found.cut_after == pytest.approx(CUT_SHARE * taken.cut_after)  # pyright: ignore[reportUnknownMemberType]  # its stub is partial


# Many at once


async def test_of_many_tasks_with_one_key_one_sends_and_all_have_its_entry(store: Store) -> None:
    found: list[tuple[JournalEntry, bool]] = []
    async with store.process() as one, store.process() as two, store.process() as three:

        async def work(number: int) -> None:
            found.append(await order((one, two, three)[number % 3], "key-1"))

        await at_once(30, work)
        assert len(await one.latest(*OURS, 99)) == 1
    assert sum(is_ours for _, is_ours in found) == 1
    assert len({entry.id for entry, _ in found}) == 1


async def test_of_many_that_adopt_one_record_all_have_the_same_entry(store: Store) -> None:
    async with store.process() as one, store.process() as two:
        stranger = replace((await order(one))[0], id="", record_id="r1")
        found: set[str] = set()

        async def work(number: int) -> None:
            found.add((await (one, two)[number % 2].adopt(stranger)).id)

        await at_once(20, work)
    assert len(found) == 1


# What an hour has room for


async def count(
    state: State, amount: int = 1, *, hourly: int = 5, name: str = "alice", **more: object
) -> Begun | NoRoom:
    """Begins a program's own call that counts as so much under a name."""
    entry = intent(**({"caller": None, "answered_at": 1.0} | more))
    quota = Quota(name=name, hourly=hourly, amount=amount)
    return await state.begin(entry, is_waiting=lambda token: False, quotas=[quota])


async def counted(state: State, amount: int = 1, **more: Any) -> JournalEntry:
    """What was begun, where there is room."""
    begun = await count(state, amount, **more)
    assert isinstance(begun, Begun)
    assert begun.is_ours
    return begun.entry


async def test_of_calls_at_once_as_many_are_begun_as_there_is_room_for_and_the_others_leave_nothing(
    store: Store,
) -> None:
    async with store.process() as one, store.process() as two:
        found: list[Begun | NoRoom] = []

        async def work(number: int) -> None:
            key = f"k{number}" if number % 3 else None
            found.append(await count((one, two)[number % 2], hourly=10, key=key))

        await at_once(40, work)
        assert sorted(one.used for one in found if isinstance(one, Begun)) == [
            (used,) for used in range(1, 11)
        ]
        full = [one for one in found if isinstance(one, NoRoom)]
        assert {one.used for one in full} == {10}
        assert all(3600 - 60 < one.wait <= 3600 for one in full)
        assert len(await two.latest(*OURS, 99)) == 10
        assert await one.counted("alice") == 10
        begun = await count(two, 8, name="bob")
        assert begun == NoRoom(quota=Quota(name="bob", hourly=5, amount=8), used=0, wait=3600)


async def test_there_is_room_again_as_entries_become_an_hour_old(store: Store) -> None:
    async with store.process() as state:
        assert (await count(state, 3)).used == (3,)
        store.ahead = 1800
        assert (await count(state, 2)).used == (5,)
        for amount, wait in ((1, 1800), (3, 1800), (4, 3600), (5, 3600), (6, 3600)):
            full = await count(state, amount)
            assert isinstance(full, NoRoom)
            assert (full.used, full.wait) == (5, pytest.approx(wait, abs=60))
        assert await state.counted("alice") == 5
        store.ahead = 3660
        assert await state.counted("alice") == 2
        assert (await count(state, 3)).used == (5,)


async def test_what_is_refused_counts_no_more_and_an_unknown_outcome_does(
    store: Store, state: State
) -> None:
    first, second = await counted(state, 3), await counted(state, 2)
    sending = await written(state, replace(first, phase="sending"))
    refused = replace(sending, phase="refused", error="the service refused")
    for _ in range(2):  # the second comes late, and changes nothing
        await state.write(refused)
        assert await state.counted("alice") == 2
    sending = await written(state, replace(second, phase="sending"))
    await written(state, replace(sending, phase="unknown"))
    submitted = await written(state, replace(await counted(state, 3), phase="submitted"))
    await state.finish(replace(submitted, phase="failed", error="the job failed"))
    assert await state.counted("alice") == 5
    async with store.process() as other:
        assert await other.counted("alice") == 5
        assert await other.counted("bob") == 0


async def test_what_stands_already_is_not_counted_also_where_there_is_no_room(state: State) -> None:
    first = await counted(state, 5, key="k")
    assert await count(state, 5, key="k") == Begun(entry=first, is_ours=False)
    equal = await count(state, 1, name="bob", hourly=1, caller="1", answered_at=None)
    assert isinstance(equal, Begun)
    await written(state, replace(equal.entry, phase="sending"))
    again = await count(state, 1, name="bob", hourly=1, caller="2", answered_at=None)
    assert isinstance(again, Begun)
    assert (again.entry.id, again.is_ours) == (equal.entry.id, False)
    assert (await state.counted("alice"), await state.counted("bob")) == (5, 1)


async def test_a_key_that_is_begun_once_more_counts_once_and_as_what_it_is_now(
    store: Store, state: State
) -> None:
    async with store.process() as dies:
        await counted(dies, 4, key="k")
    again = await count(state, 5, key="k")
    assert isinstance(again, Begun)
    assert (again.is_ours, again.used) == (True, (5,))
    await written(state, replace(again.entry, phase="refused"))
    assert await state.counted("alice") == 0
    assert await count(state, 6, key="k") == NoRoom(
        quota=Quota(name="alice", hourly=5, amount=6), used=0, wait=3600
    )
    assert (await entry_with(state, again.entry.id) or again.entry).phase == "refused"
    assert (await count(state, 5, key="k")).used == (5,)


async def test_of_several_limits_all_count_or_none(state: State) -> None:
    wide, narrow = (
        Quota(name="wide", hourly=9, amount=3),
        Quota(name="narrow", hourly=2, amount=1),
    )

    async def ask(*quotas: Quota) -> Begun | NoRoom:
        entry = intent(caller=None, answered_at=1.0)
        return await state.begin(entry, is_waiting=bool, quotas=quotas)

    first, second = await ask(wide, narrow), await ask(wide, narrow)
    assert (first.used, second.used) == ((3, 1), (6, 2))
    full = await ask(wide, narrow)
    assert isinstance(full, NoRoom)
    assert (full.quota, full.used) == (narrow, 2)
    assert (await state.counted("wide"), await state.counted("narrow")) == (6, 2)
    # of two without room, the one that has none for longer
    full = await ask(narrow, replace(wide, amount=10))
    assert isinstance(full, NoRoom)
    assert (full.quota.name, full.used, full.wait) == ("wide", 6, 3600)
    assert isinstance(second, Begun)
    await written(state, replace(second.entry, phase="refused"))
    assert (await state.counted("wide"), await state.counted("narrow")) == (3, 1)
    assert len(await state.latest(*OURS, 9)) == 2


# Health, and a memory that is lost


async def test_a_store_that_answers_says_so(store: Store, state: State) -> None:
    await order(state)
    health = await state.health()
    assert (health.answers, health.store, health.warnings) == (True, store.kind, ())
    assert health.latency is not None
    persistence = "file" if store.kind == "sqlite" else "aof"
    assert health.persistence == persistence
    described = await state.describe("test")
    assert described.account_location is None
    assert {check.status for check in described.checks} == {"ok"}


async def test_a_memory_that_is_lost_is_told_once_and_nothing_is_ordered_by_that_call(
    store: Store, state: State
) -> None:
    await order(state, "k")
    store.lose_memory()
    with pytest.raises(Unavailable, match="nothing was ordered") as caught:
        await order(state, "k")
    assert "idempotency keys of before are not known" in caught.value.hint
    assert (await order(state, "k"))[1]
    (warning,) = store.warnings
    assert "while this ran" in warning
