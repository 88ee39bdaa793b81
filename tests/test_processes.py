"""Across processes: one account however many start, kill -9 at any moment, cancellation.

`tools/soak.py` runs the same with larger numbers and prints its counts.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from arta_mcp.generations.values import GenerationRequest
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.state.records import JournalEntry
from arta_mcp.state.sqlite import SqliteState
from harness import processes, programs
from harness.installed import TIMEOUT, Machine, connect, content_of, remote_settings
from harness.processes import ACCOUNT, CONTEXT, Site
from harness.service import ScriptedServer, ScriptedService
from harness.world import tiny_picture

TOGETHER = 8
ROUNDS = 10

PROMPTLY = 1.0
"""seconds; 0.2 is promised, and this machine may be busy with other things"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ScriptedServer]:
    made = ScriptedService(
        tmp_path / "service", engine=tiny_picture, queue=0.03, draw=0, latency=0.01
    )
    with ScriptedServer(made) as running:
        yield running


@pytest.fixture
def site(service: ScriptedServer, tmp_path: Path) -> Site:
    return Site(service.base_url, tmp_path / "state")


# One account


def test_processes_that_start_at_once_sign_up_once(service: ScriptedServer, site: Site) -> None:
    tokens = processes.together(TOGETHER, processes.token, site)
    assert len(set(tokens)) == 1
    assert dict(service.service.seen) == {"sign_up": 1}


def test_processes_that_find_an_old_token_refresh_once(service: ScriptedServer, site: Site) -> None:
    processes.token(site)
    site.age_account()
    service.service.seen.clear()
    tokens = processes.together(TOGETHER, processes.token, site)
    assert len(set(tokens)) == 1
    assert dict(service.service.seen) == {"refresh": 1}


def test_processes_whose_refresh_is_refused_sign_up_anew_once(
    service: ScriptedServer, site: Site
) -> None:
    processes.token(site)
    site.age_account()
    service.service.expire(service.service.accounts[0])
    service.service.seen.clear()
    tokens = processes.together(TOGETHER, processes.token, site)
    assert len(set(tokens)) == 1
    assert dict(service.service.seen) == {"refresh": 1, "sign_up": 1}


def test_processes_that_use_one_key_make_one_job(service: ScriptedServer, site: Site) -> None:
    records = processes.together(TOGETHER, processes.record_of_one_key, site)
    assert set(records) == set(service.service.jobs)
    assert service.service.seen["submit"] == 1
    assert service.service.seen["sign_up"] == 1


def test_a_program_that_dies_with_the_lock_holds_nobody_up(
    service: ScriptedServer, site: Site
) -> None:
    is_held = CONTEXT.Event()
    with processes.running(processes.hold_lock, site, is_held):
        assert is_held.wait(TIMEOUT)

        async def is_blocked() -> bool:
            with anyio.move_on_after(0.3) as scope:
                async with site.tokens() as tokens:
                    await tokens.get_token()
            return scope.cancelled_caught

        assert anyio.run(is_blocked)
        assert not service.service.seen
    began = time.monotonic()
    assert processes.token(site)
    assert time.monotonic() - began < 10  # not the 90 s of a lock that is held
    assert service.service.seen["sign_up"] == 1


# kill -9


def test_a_kill_in_the_middle_of_a_generation_loses_and_doubles_nothing(
    service: ScriptedServer, site: Site
) -> None:
    found = processes.kill_generations(site, service.service, ROUNDS, random.Random(5))
    assert found.rounds == ROUNDS
    assert set(found.by_phase) & {"submitted", "unknown", "done"}
    assert (found.lost, found.doubled, found.accounts_lost) == (0, 0, 0)
    assert not [*site.folder.glob("*.damaged-*")]


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit of another process is Linux's own")
@pytest.mark.parametrize("what", programs.STRIKES)
def test_a_program_that_is_struck_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, what: str
) -> None:
    found = programs.strike_at_random(tmp_path, what, 2, random.Random(what))
    assert (found.rounds, found.lost, found.doubled, found.astray) == (2, [], [], [])


def test_a_kill_in_the_middle_of_a_token_write_loses_no_account(
    service: ScriptedServer, site: Site
) -> None:
    found = processes.kill_renewals(site, service.service, ROUNDS, random.Random(5))
    assert (found.rounds, found.accounts_lost, found.torn) == (ROUNDS, 0, 0)
    assert service.service.seen["sign_up"] == 1
    assert len(service.service.accounts) == 1


def test_what_a_killed_token_write_left_is_removed_by_the_next_one(site: Site) -> None:
    processes.token(site)
    draft = site.folder / f".account-{ACCOUNT}.json.4242.1"
    draft.write_text('{"id_token": "half', encoding="utf-8")
    site.age_account()
    assert not draft.exists()


# Cancellation in process

MOMENTS = {
    "signing up": ("sign_up", "slow-headers@sign_up=30"),
    "submitting": ("submit", "slow-headers@submit=30"),
    "looking": ("status", "slow-headers@status*always=30"),
    "reading a slow answer": ("status", "slow-body@status*always=30"),
    "downloading": ("image", "slow-headers@image*always=30"),
    "between two looks": ("status", "stuck@status*always"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("moment", MOMENTS)
async def test_cancelling_stops_at_once_and_leaves_no_task(
    service: ScriptedServer, site: Site, moment: str, tmp_path: Path
) -> None:
    endpoint, fault = MOMENTS[moment]
    service.service.faults.add(Fault.parse(fault))
    folder = tmp_path / "pictures" if endpoint == "image" else None
    async with AsyncExitStack() as stack:
        generations = site.generations()
        generations._output_dir = folder  # pyright: ignore[reportPrivateUsage]  # else one more parameter for one case
        await stack.enter_async_context(generations)
        tasks, began = len(anyio.get_running_tasks()), 0.0
        async with anyio.create_task_group() as group:
            group.start_soon(generations.generate, GenerationRequest(prompt="x"))
            await _until(lambda: service.service.seen[endpoint] > 0)
            group.cancel_scope.cancel()
            began = time.monotonic()
        assert time.monotonic() - began < PROMPTLY
        if endpoint in (
            "sign_up",
            "submit",
        ):  # a detached task that goes on, so that nothing is lost
            names = [str(task.name) for task in anyio.get_running_tasks()]
            assert (
                len([name for name in names if "BackgroundTasks.detach" in name])
                == len(names) - tasks
            )
        else:
            await _until(lambda: len(anyio.get_running_tasks()) == tasks)
            looks = service.service.seen["status"]
            await anyio.sleep(0.1)  # ten times the least time between two looks
            assert service.service.seen["status"] == looks
    entries = [(entry.phase, entry.record_id) for entry in await _latest(site)]
    match endpoint:
        case "sign_up":
            assert entries == [("refused", None)]
            assert service.service.jobs == ()
        case "submit":  # given up at the end of its process, with the answer still to come
            assert entries == [("unknown", None)]
            assert len(service.service.jobs) == 1
        case _:
            assert [record_id for _, record_id in entries] == [*service.service.jobs]


# Cancellation from outside


@pytest.fixture
def machine(tmp_path: Path, service: ScriptedServer) -> Machine:
    """A computer whose host asks the service for what never ends."""
    service.service.latency, service.service.queue = 0.0, 3600.0
    return Machine.new(tmp_path / "machine").set(**remote_settings(service))


@pytest.mark.anyio
async def test_a_host_that_cancels_ends_the_looks_and_the_server_goes_on(
    machine: Machine, service: ScriptedServer
) -> None:
    seen = service.service.seen
    async with connect(machine) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "generate_image", {"prompt": "a lake"})
            await _until(lambda: seen["status"] > 0)
            group.cancel_scope.cancel()
        looks = seen["status"]
        await anyio.sleep(1.5)  # the next look would come 1 s after the first one
        assert seen["status"] == looks
        (record_id,) = service.service.jobs
        again = content_of(await client.call_tool("get_generation", {"record_id": record_id}))
        assert again["status"] == "pending"
    assert seen["submit"] == 1


HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "a host that leaves", "version": "1"},
}
CALL = {"name": "generate_image", "arguments": {"prompt": "a lake"}}
MESSAGES = (
    {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO},
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
    {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": CALL},
)


@pytest.mark.parametrize("endpoint", ["submit", "status"])
def test_a_host_that_closes_stdin_ends_the_server_and_the_job_stays_known(
    machine: Machine, service: ScriptedServer, endpoint: str
) -> None:
    seen = service.service.seen
    service.service.faults.add(Fault.parse(f"slow-headers@{endpoint}=0.5"))
    with subprocess.Popen(
        [str(machine.program)],
        env=machine.environ,
        cwd=machine.elsewhere,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        for message in MESSAGES:
            server.stdin.write(json.dumps(message) + "\n")
        server.stdin.flush()
        until = time.monotonic() + TIMEOUT
        while not seen[endpoint] and time.monotonic() < until:
            time.sleep(0.005)
        server.stdin.close()
        began = time.monotonic()
        code = server.wait(TIMEOUT)
        seconds = time.monotonic() - began
        assert server.stderr is not None
        said = server.stderr.read()
    assert (code, said) == (0, "")
    assert seconds < 5  # 2 s for what must reach its end, and the interpreter's own end
    listed = machine.run("history", "--json").stdout
    assert [json.loads(line)["record_id"] for line in listed.splitlines()] == [
        *service.service.jobs
    ]
    assert seen["submit"] == 1


async def _until(happened: Callable[[], bool]) -> None:
    with anyio.fail_after(TIMEOUT):
        while not happened():
            await anyio.sleep(0.002)


async def _latest(site: Site) -> tuple[JournalEntry, ...]:
    state = SqliteState(site.folder)
    try:
        return await state.latest("shared", "", 10)
    finally:
        await state.close()
