"""What only a server can do to the state: die, forget, keep its answer, ask for a password."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trustme

from arta_mcp.arta.account import Account
from arta_mcp.arta.protocol import Addresses
from arta_mcp.errors import ConfigError, Unavailable
from arta_mcp.generations.callers import Call, Connection
from arta_mcp.generations.service import Limits
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.redaction import Secret
from arta_mcp.state import redis as module
from arta_mcp.state.contract import State
from arta_mcp.state.records import Begun, JournalEntry, Quota
from arta_mcp.state.redis import RedisState
from arta_mcp.state.redis_client import RedisClient
from harness.service import ScriptedService
from harness.stores import RedisServer, Store, find_free_port, find_server, running_server
from harness.world import ORIGIN, Client, World, tiny_picture

pytestmark = pytest.mark.anyio

NOW = 1_000_000.0
OURS = ("a.example", "")
PASSWORD = "correct horse battery staple"
ACCOUNT = Account(Secret("id-token-1"), Secret("refresh-token-1"), NOW, NOW + 3600, "user-1")


@pytest.fixture(params=["redis", "valkey"])
def server(
    request: pytest.FixtureRequest,
    need: Callable[[bool, str], None],
    redis_servers: Callable[[str], RedisServer],
) -> RedisServer:
    """Each server that there is, with nothing in it."""
    need(find_server(request.param) is not None, f"there is no {request.param} server here")
    return redis_servers(request.param)


@pytest.fixture
def store(server: RedisServer, tmp_path: Path) -> Store:
    return Store("redis", tmp_path, server)


@pytest.fixture
async def state(store: Store) -> AsyncGenerator[State]:
    async with store.process() as state:
        yield state


def draft(**more: object) -> JournalEntry:
    fields: dict[str, object] = {
        "service": "a.example",
        "key": None,
        "fingerprint": "f1",
        "request": "{}",
        "style": "Flux",
        "phase": "intended",
        "created_at": 1.0,
        "caller": "1",
    }
    return JournalEntry(**(fields | more))  # pyright: ignore[reportArgumentType]  # as in the record


async def begin(state: State, waiting: str = "", **more: object) -> tuple[JournalEntry, bool]:
    begun = await state.begin(draft(**more), is_waiting=lambda token: token in waiting)
    assert isinstance(begun, Begun)
    return begun.entry, begun.is_ours


async def written(state: State, entry: JournalEntry) -> JournalEntry:
    found = await state.write(entry)
    assert found is not None
    return found


def world_on(store: Store, folder: Path, **options: Any) -> World:
    service = ScriptedService(folder / "service", engine=tiny_picture, **options)
    return World(folder, service, store=store)


def calls_of(server: RedisServer) -> dict[str, int]:
    """Command -> how often it was called, also by scripts, since the last CONFIG RESETSTAT."""
    found = server.command("INFO", "commandstats")
    counts = {name.removeprefix("cmdstat_"): about["calls"] for name, about in found.items()}
    for ours in ("config|resetstat", "info", "hello", "client|setinfo"):
        counts.pop(ours, None)
    return counts


# What a generation costs


@pytest.mark.parametrize("hourly", [None, 120])
async def test_a_generation_costs_few_commands_and_bytes_and_none_while_it_waits(
    server: RedisServer,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hourly: int | None,
) -> None:
    monkeypatch.setattr(module, "BEAT_INTERVAL", 3600.0)  # counted below
    count, connection = 40, Connection()
    world = world_on(store, tmp_path, queue=0.0, draw=0.0)

    async def draw(number: int) -> None:
        request = GenerationRequest(prompt=f"a red fox in snow, number {number}", seed=number)
        done = await generations.generate(request, call=Call(connection))
        assert done.status == "done"

    limits = Limits(max_wait=60, min_poll_interval=0.01, hourly=hourly)
    async with world.generations(limits) as generations:
        for number in range(60):  # as many timings as a schedule is learnt from
            await draw(1000 + number)
        server.command("CONFIG", "RESETSTAT")
        for number in range(count):
            await draw(number)
        commands = sum(calls_of(server).values()) / count
        stats = server.command("INFO", "stats")
        sent = (stats["total_net_input_bytes"] + stats["total_net_output_bytes"]) / count
        # 22.2 and 2.9 kB, and with a limit 23.2, on 2026-11-26
        assert 10 < commands <= 25
        assert 1000 < sent <= 5000

        world.service.queue, polls = 3600, world.service.seen["status"]
        async with anyio.create_task_group() as group:
            group.start_soon(draw, 2000)
            with anyio.fail_after(20):
                while world.service.seen["status"] < polls + 3:
                    await anyio.sleep(0.01)
            server.command("CONFIG", "RESETSTAT")
            polls = world.service.seen["status"]
            with anyio.fail_after(20):
                while world.service.seen["status"] < polls + 10:
                    await anyio.sleep(0.01)
            assert sum(calls_of(server).values()) == 0
            group.cancel_scope.cancel()


async def test_everything_is_removed_page_by_page_and_no_command_looks_at_all_of_it(
    server: RedisServer, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 10)
    owners = [f"token:{number}" for number in range(7)]
    for number in range(175):
        entry, _ = await begin(state, owner=owners[number % 7], key=str(number), caller=None)
        # the first pages of an owner hold what stays
        phase = "submitted" if number < 91 else "done"
        await written(state, replace(entry, phase=phase, record_id=f"r{number}"))
    server.command("CONFIG", "RESETSTAT")
    found = await state.owners()
    assert found == tuple(("a.example", owner) for owner in owners)
    pruned = [await state.prune(*whose, state.now() + 9) for whose in found]
    assert {(one.count, len(one.record_ids), one.kept) for one in pruned} == {(12, 12, 13)}
    calls = calls_of(server)
    assert calls["scan"] > 20
    assert "keys" not in calls
    # three pages of 25 each: what stays is not looked at again
    assert calls["evalsha"] + calls.get("eval", 0) <= 7 * 3 + 1
    assert calls["hmget"] == 175
    for kind, count in (("entry", 91), ("record", 91), ("key", 91), ("newest", 7)):
        assert len(server.keys(f"{kind}:*")) == count


async def test_a_sign_of_life_costs_a_handful_of_commands(
    server: RedisServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_INTERVAL", 0.05)
    async with store.process() as state:
        await begin(state)
        server.command("CONFIG", "RESETSTAT")
        await anyio.sleep(0.5)
        calls = calls_of(server)
    assert calls["evalsha"] > 1
    assert sum(calls.values()) / calls["evalsha"] <= 7


# A server that is away


async def test_record_ids_that_arrive_while_the_server_is_away_are_kept(
    server: RedisServer, store: Store, tmp_path: Path
) -> None:
    count = 40
    world = world_on(store, tmp_path, queue=0.0, draw=0.0)
    ended: list[str | None] = []
    async with world.generations(Limits(max_wait=60, max_concurrency=count)) as generations:

        async def draw(number: int) -> None:
            request = GenerationRequest(prompt=str(number), idempotency_key=str(number))
            ended.append((await generations.generate(request)).record_id)

        await generations.generate(GenerationRequest(prompt="first"))  # an account is there then
        world.service.latency = 1.0
        with anyio.fail_after(120):
            async with anyio.create_task_group() as group:
                for number in range(count):
                    group.start_soon(draw, number)
                while world.service.seen["submit"] < count + 1:
                    await anyio.sleep(0.01)
                server.kill()
                await anyio.sleep(3)
                server.start()
        async with store.process() as other:
            with anyio.fail_after(40):
                kept: set[str | None] = set()
                while not kept >= set(ended):
                    kept = {one.record_id for one in await other.latest("test", "", 999)}
                    await anyio.sleep(0.05)
    assert len(set(ended)) == count
    assert len(world.service.jobs) == count + 1


async def test_a_server_that_is_away_is_told_soon_and_nothing_is_sent(
    server: RedisServer, store: Store, tmp_path: Path
) -> None:
    world = world_on(store, tmp_path)
    async with world.generations() as generations:
        await generations.generate(GenerationRequest(prompt="first"))
        server.kill()
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"the shared state at .* does not answer") as caught:
            await generations.generate(GenerationRequest(prompt="second", idempotency_key="k"))
        assert time.monotonic() - began < 10  # it is refused at once, on a machine that is not busy
        assert "ARTA_STATE_URL" in caught.value.hint
        health = await generations.health()
        assert (health.answers, len(health.warnings)) == (False, 1)
        server.start()
        done = await generations.generate(GenerationRequest(prompt="second", idempotency_key="k"))
        assert (await generations.health()).answers
    assert done.status == "done"
    assert len(world.service.jobs) == 2


async def test_those_that_live_are_not_taken_for_dead_when_the_server_was_away(
    server: RedisServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store.process() as one, store.process() as two:
        entry, _ = await begin(one, key="k")
        await written(one, replace(entry, phase="sending"))
        await begin(two)
        server.kill()
        monkeypatch.setattr(module, "BEAT_INTERVAL", 3600.0)  # the other looks before one is back
        await anyio.sleep(module.LEASE + 0.5)
        server.start()
        found, is_ours = await begin(two, key="k")
        assert (found.phase, is_ours) == ("sending", False)


async def test_what_a_lost_answer_leaves_is_freed_and_a_repeated_write_is_written_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = RedisClient.command

    async def lose(client: RedisClient, *words: Any) -> Any:
        await command(client, *words)
        raise Unavailable("the answer was lost")

    quota = Quota(name="alice", hourly=5, amount=2)
    async with store.process() as state:
        kept, _ = await begin(state, key="kept")
        sending = await begin(state, key="b")
        with monkeypatch.context() as patch:
            patch.setattr(RedisClient, "command", lose)
            for lost in (
                state.begin(draft(key="a"), is_waiting=bool, quotas=[quota]),
                state.begin(draft(caller="7"), is_waiting=bool, quotas=[quota]),
                state.write(replace(sending[0], phase="sending")),
                state.write(replace(kept, phase="submitted", record_id="r1")),
            ):
                with pytest.raises(Unavailable, match="was lost"):
                    await lost
        assert await state.write(replace(kept, phase="submitted", record_id="r1")) == replace(
            kept, phase="submitted", record_id="r1", version=1
        )
        with anyio.fail_after(20):
            while sum(one.phase == "refused" for one in await state.latest(*OURS, 9)) < 3:
                await anyio.sleep(0.05)
        assert await state.counted("alice") == 0
        for key in ("a", "b"):
            assert (await begin(state, key=key))[1]
        assert not (await begin(state, key="kept"))[1]


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_script_that_runs_again_as_its_answer_was_lost_counts_once(
    state: State, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    command, lost = RedisClient.command, list[str]()

    async def ask_twice(client: RedisClient, *words: Any) -> Any:
        if "alice" in str(words) and not lost:
            lost.append(await command(client, *words))
        return await command(client, *words)

    monkeypatch.setattr(RedisClient, "command", ask_twice)
    quota = Quota(name="alice", hourly=3, amount=2)
    begun = await state.begin(draft(key=key), is_waiting=bool, quotas=[quota])
    assert lost
    assert isinstance(begun, Begun)
    assert (begun.is_ours, begun.used) == (True, (2,))
    assert await state.counted("alice") == 2
    assert await state.write(replace(begun.entry, phase="sending"))


async def test_an_equal_call_finds_what_this_process_is_about_to_send(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each exchange has a connection of its own, and the later one may be the faster."""
    command = RedisClient.command

    async def dawdle(client: RedisClient, *words: Any) -> Any:
        if "sending" in words:
            await anyio.sleep(0.5)
        return await command(client, *words)

    first, _ = await begin(state)
    monkeypatch.setattr(RedisClient, "command", dawdle)
    async with anyio.create_task_group() as group:
        group.start_soon(written, state, replace(first, phase="sending"))
        await anyio.sleep(0.1)
        second = await begin(state, caller="2")
        assert (second[0].id, second[0].phase, second[1]) == (first.id, "sending", False)


async def test_calls_that_are_cancelled_give_no_other_call_a_wrong_answer(state: State) -> None:
    entries: list[JournalEntry] = []
    for number in range(20):
        entry, _ = await begin(state, caller=None, answered_at=1.0)
        entries.append(await written(state, replace(entry, phase="done", record_id=f"r{number}")))
    wrong: list[object] = []

    async def find(number: int, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            found = await state.find(*OURS, f"r{number}")
            if found != entries[number]:
                wrong.append(found)

    with anyio.fail_after(120):
        for round_ in range(50):
            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(find, number, (round_ * 20 + number) % 7 / 2000)
    assert wrong == []
    for number in range(20):
        await find(number, 20)
    assert wrong == []


# A holder that stood still


@pytest.fixture
def standing_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process renews its lock, as if each stood still."""
    monkeypatch.setattr(module, "LOCK_LEASE", 0.3)
    monkeypatch.setattr(module, "BEAT_INTERVAL", 3600.0)


@pytest.mark.usefixtures("standing_still")
async def test_a_holder_that_lost_its_lock_writes_over_no_later_account(store: Store) -> None:
    later = replace(ACCOUNT, user_id="user-2")
    async with store.process() as one, store.process() as two:
        async with one.lock("test") as first, two.lock("test") as second:
            assert second > first
            assert await two.keep_account("test", later, fence=second)
            assert not await one.keep_account("test", ACCOUNT, fence=first)
            assert not await one.keep_account("test", None, fence=first)
        assert await one.account("test") == later
        async with one.lock("test") as third:
            assert third > second
            assert await one.keep_account("test", ACCOUNT, fence=third)


@pytest.mark.usefixtures("standing_still")
async def test_who_is_fenced_off_uses_the_account_that_stands(store: Store, tmp_path: Path) -> None:
    service = ScriptedService(tmp_path / "service", engine=tiny_picture)
    client = Client(
        state_dir=tmp_path,
        store=store,
        addresses=Addresses.at_origin(ORIGIN),
        app=httpx.ASGITransport(app=service),
    )
    found, stands = list[str](), ""

    async def slow() -> None:
        found.append((await one.get_token()).reveal())

    async with client.open_tokens() as one, client.open_tokens() as two:
        service.latency = 2.0
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(slow)
                while not service.seen["sign_up"]:
                    await anyio.sleep(0.01)
                service.latency = 0.0
                stands = (await two.get_token()).reveal()
    assert found == [stands]
    assert service.seen["sign_up"] == 2


async def test_a_lock_is_renewed_for_as_long_as_it_is_held(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_LEASE", 2.0)
    monkeypatch.setattr(module, "BEAT_INTERVAL", 0.2)
    async with store.process() as one, store.process() as two, one.lock("test"):
        with anyio.move_on_after(4) as scope:
            async with two.lock("test"):
                pass
        assert scope.cancelled_caught


# A process that is killed

KILLED = """
import sys, anyio
from dataclasses import replace
from arta_mcp.background import open_background
from arta_mcp.redaction import Secret
from arta_mcp.state.records import JournalEntry
from arta_mcp.state.redis import RedisState

def entry(**more):
    return JournalEntry(service="a.example", fingerprint="f1", request="{}", style="Flux",
        phase="intended", created_at=1.0, **more)

async def main():
    async with open_background() as background:
        state = RedisState(Secret(sys.argv[1]), background=background)
        await state.begin(entry(key="intended"), is_waiting=bool)
        for more in ({"key": "sending"}, {"key": None, "caller": "1"}):
            begun = (await state.begin(entry(**more), is_waiting=bool)).entry
            await state.write(replace(begun, phase="sending"))
        await state.write(replace(begun, phase="submitted", record_id="r1", version=1))
        print("ready", flush=True)
        await anyio.sleep(60)

anyio.run(main)
"""


@asynccontextmanager
async def doomed(server: RedisServer) -> AsyncGenerator[anyio.abc.Process]:
    """A process that has two keys and a host's call under way."""
    async with await anyio.open_process([sys.executable, "-c", KILLED, server.url]) as process:
        assert process.stdout is not None
        with anyio.fail_after(60):
            assert (await process.stdout.receive()).startswith(b"ready")
        yield process
        if process.returncode is None:
            process.kill()


async def test_what_a_killed_process_had_under_way_is_free_or_unknown_within_5_s(
    server: RedisServer, state: State
) -> None:
    async with doomed(server) as process:
        assert not (await begin(state, key="intended"))[1]
        assert (await begin(state, key="sending"))[0].phase == "sending"
        process.kill()
        await process.wait()
        killed_at = time.monotonic()
        with anyio.fail_after(30):
            while not (await begin(state, key="intended"))[1]:
                await anyio.sleep(0.05)
            while (found := await begin(state, key="sending"))[0].phase == "sending":
                await anyio.sleep(0.05)
        assert time.monotonic() - killed_at < 10  # five, and as much again for a busy machine
        assert (found[0].phase, found[1]) == ("unknown", False)


async def test_an_equal_call_right_after_a_kill_takes_the_generation_up_as_cut(
    server: RedisServer, store: Store, state: State
) -> None:
    async with doomed(server) as process:
        with anyio.fail_after(30):
            assert (await begin(state, caller="2"))[1]  # its caller still says that it is there
            process.kill()
            await process.wait()
            taken, is_ours = await begin(state, "2", caller="3")
    assert (taken.record_id, taken.caller, is_ours) == ("r1", "3", False)
    assert taken.cut_after is not None
    assert 0 < taken.cut_after < 30


# A server as it should not be


@asynccontextmanager
async def opened(server: RedisServer, warnings: list[str]) -> AsyncGenerator[State]:
    store = Store("redis", server.folder, server, warnings=warnings)
    async with store.process() as state:
        yield state


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--appendonly", "no"), "it has no append-only file"),
        (("--maxmemory-policy", "allkeys-lru"), "its maxmemory-policy is allkeys-lru"),
        (("--maxmemory-policy", "volatile-ttl"), "its maxmemory-policy is volatile-ttl"),
    ],
)
async def test_a_server_that_may_lose_keys_is_warned_of_at_the_start(
    need: Callable[[bool, str], None], tmp_path: Path, options: tuple[str, ...], what: str
) -> None:
    need(find_server("redis") is not None, "there is no redis server here")
    warnings: list[str] = []
    with running_server("redis", tmp_path, *options) as server:
        async with opened(server, warnings) as state:
            await begin(state)
            await begin(state)
            health = await state.health()
            described = await state.describe("test")
    (warning,) = warnings
    assert what in warning
    assert (health.answers, len(health.warnings)) == (True, 1)
    assert [(check.status, what in check.detail) for check in described.checks] == [
        ("ok", False),
        ("warn", True),
    ]
    assert "in its configuration" in described.checks[1].remedy


async def test_a_password_is_asked_for_and_shown_nowhere(
    need: Callable[[bool, str], None], tmp_path: Path
) -> None:
    need(find_server("redis") is not None, "there is no redis server here")
    with running_server("redis", tmp_path, "--requirepass", PASSWORD) as server:
        right = f"redis://:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{server.port}/0"
        for url in (right.replace("horse", "house"), server.url):
            state = RedisState(Secret(url))
            with pytest.raises(ConfigError, match="refuses") as caught:
                await state.account("test")
            assert "ARTA_STATE_URL" in caught.value.hint
            (check,) = (await state.describe("test")).checks
            shown = f"{caught.value} {caught.value.hint} {check} {await state.health()}"
            assert "battery" not in shown
            await state.close()
        state = RedisState(Secret(right))
        assert await state.account("test") is None
        assert "battery" not in repr(await state.describe("test"))
        await state.close()


async def test_an_encrypted_way_is_taken_to_a_server_with_a_known_certificate_alone(
    need: Callable[[bool, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(find_server("redis") is not None, "there is no redis server here")
    authority = trustme.CA()
    certificate, port = authority.issue_cert("127.0.0.1"), find_free_port()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    files = (f"--tls-{what}-file" for what in ("cert", "key"))
    options = [word for name in files for word in (name, str(tmp_path / "server.pem"))]
    options += ["--tls-port", str(port), "--tls-ca-cert-file", str(tmp_path / "ca.pem")]
    with running_server("redis", tmp_path, *options, "--tls-auth-clients", "no"):
        state = RedisState(Secret(f"rediss://127.0.0.1:{port}/0"))
        with pytest.raises(Unavailable, match="certificate verify failed") as caught:
            await state.account("test")
        assert "SSL_CERT_FILE" in caught.value.hint
        await state.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert (await state.health()).warnings == ()
        await state.close()


async def test_a_full_memory_is_told_and_nothing_is_ordered(
    server: RedisServer, state: State
) -> None:
    kept, _ = await begin(state, key="k")
    server.command("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(Unavailable, match=r"refuses: .*memory"):
            await begin(state, key="l")
    finally:
        server.command("CONFIG", "SET", "maxmemory", 0)
    assert [entry.id for entry in await state.latest(*OURS, 9)] == [kept.id]


async def test_a_damaged_entry_is_named_and_the_others_are_told(
    server: RedisServer, store: Store, state: State
) -> None:
    for number in range(3):
        entry, _ = await begin(state, caller=None, answered_at=1.0)
        await written(state, replace(entry, phase="submitted", record_id=f"r{number}"))
    first, second, _ = server.keys("entry:*")
    server.command("HSET", first, "made", "[")
    server.command("HSET", second, "phase", "odd")
    for _ in range(2):
        assert len(await state.latest(*OURS, 9)) == 1
    assert len(store.warnings) == 2
    damaged = server.command("HGET", first, "record")
    with pytest.raises(Unavailable, match="is damaged"):
        await state.find(*OURS, damaged)


@pytest.mark.parametrize(
    ("url", "is_open"),
    [
        ("redis://db.example:6379/0", True),
        ("rediss://db.example/0", False),
        ("redis://127.0.0.1/0", False),
        ("redis://[::1]:7000", False),
    ],
)
def test_a_way_that_is_not_encrypted_is_known(url: str, is_open: bool) -> None:
    assert RedisClient(Secret(url)).is_open_to_others is is_open


async def test_every_key_lies_in_one_slot(
    server: RedisServer, store: Store, tmp_path: Path
) -> None:
    world = world_on(store, tmp_path)
    async with world.generations() as generations:
        connection = Connection()
        for key in (None, "k"):
            request = GenerationRequest(prompt="x", idempotency_key=key)
            await generations.generate(request, call=Call(connection))
    names: list[str] = server.command("KEYS", "*")
    assert len(names) > 8
    assert {name.split(":")[0] for name in names} == {"{arta}"}
