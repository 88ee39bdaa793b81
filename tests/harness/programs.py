"""The installed program and the trouble it can be in: a full disk, a journal that is held."""

from __future__ import annotations

import json
import random
import resource
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from arta_mcp.config import Settings
from arta_mcp.state.records import JournalEntry
from arta_mcp.state.sqlite import SqliteState
from harness.installed import TIMEOUT, Machine, remote_settings
from harness.service import ScriptedServer, ScriptedService
from harness.world import tiny_picture

HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "a host", "version": "1"},
}


@contextmanager
def running(machine: Machine, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """The program on pipes; it is killed at the end, whatever it does then."""
    with subprocess.Popen(
        [str(machine.program), *arguments],
        env=machine.environ,
        cwd=machine.elsewhere,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_signals,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def hear_signals() -> None:
    """As a host starts us: whatever runs the tests may ignore what a shell or `nohup` ignores."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def call_tool(server: subprocess.Popen[str], number: int, tool: str, **arguments: object) -> None:
    """Calls a tool of a server, after the handshake if it is the first call."""
    call = {"name": tool, "arguments": arguments, "_meta": {"progressToken": number}}
    messages = [
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call},
    ]
    assert server.stdin is not None
    server.stdin.writelines(f"{json.dumps(one)}\n" for one in messages[0 if number == 1 else 2 :])
    server.stdin.flush()


def read_result(server: subprocess.Popen[str], number: int) -> dict[str, Any]:
    """The result of a call; empty when the server has ended without one."""
    assert server.stdout is not None
    for line in server.stdout:
        message = json.loads(line)
        if message.get("id") == number:
            return message["result"]
    return {}


def wait_for(server: subprocess.Popen[str], number: int, record_id: str) -> dict[str, Any]:
    """The finished generation, however short a call waits; `number` is the first call's."""
    until = time.monotonic() + 2 * TIMEOUT
    while time.monotonic() < until:
        call_tool(server, number, "get_generation", record_id=record_id)
        content = read_result(server, number)["structuredContent"]
        if content["status"] == "done":
            return content
        time.sleep(0.05)
        number += 1
    raise TimeoutError(record_id)


def fill_disk(process: int) -> None:
    """From now on no file takes a byte of this process, as on a full disk."""
    resource.prlimit(process, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def free_disk(process: int) -> None:
    """Undoes `fill_disk`."""
    endless = resource.RLIM_INFINITY
    resource.prlimit(process, resource.RLIMIT_FSIZE, (endless, endless))


@contextmanager
def held_journal(state: Path) -> Generator[None]:
    """Another program writes to the journal of a state folder for as long as this is open."""
    with closing(sqlite3.connect(state / "generations.sqlite3", timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


# Rounds


STRIKES = ("SIGTERM", "SIGHUP", "a full disk", "a held journal")


@dataclass
class Struck:
    """What trouble at random moments left behind."""

    rounds: int = 0
    by_phase: Counter[str] = field(default_factory=Counter[str])
    """what the journal said once the program had ended"""
    jobs: int = 0
    lost: list[str] = field(default_factory=list[str])
    """jobs whose record id neither the journal has nor the program told"""
    doubled: list[str] = field(default_factory=list[str])
    astray: list[str] = field(default_factory=list[str])
    """rounds after which the same call came neither to its first job nor to a word about it"""


def total(parts: Iterable[Struck]) -> Struck:
    """What several have found together."""
    found = Struck()
    for part in parts:
        found.rounds += part.rounds
        found.jobs += part.jobs
        found.by_phase += part.by_phase
        found.lost += part.lost
        found.doubled += part.doubled
        found.astray += part.astray
    return found


def strike_at_random(folder: Path, what: str, rounds: int, dice: random.Random) -> Struck:
    """Commands and servers in turn, each with one call, struck anywhere between start and end.

    Then the same call once more, with the trouble over: it must come to the job that is there.
    """
    found = Struck()
    service = ScriptedService(
        folder / "service", engine=tiny_picture, queue=0.3, draw=0, latency=0.05, keep=10**6
    )
    with ScriptedServer(service) as site:
        machine = Machine.new(folder / "machine").set(**remote_settings(site))
        machine.run("generate", "the first", "--no-save")  # its account and journal are there
        for number in range(rounds):
            name = f"{what} {number}"
            told = (_strike_server if number % 2 else _strike_command)(
                machine, service, what, name, dice
            )
            _judge(found, machine, service, name, told)
    return found


def _strike_command(
    machine: Machine, service: ScriptedService, what: str, name: str, dice: random.Random
) -> str:
    with running(machine, *_command(name)) as command:
        _strike(command, machine, service, what, dice)
        return "".join(command.communicate(timeout=TIMEOUT))


def _strike_server(
    machine: Machine, service: ScriptedService, what: str, name: str, dice: random.Random
) -> str:
    with running(machine) as server:
        call_tool(server, 1, "generate_image", prompt=name, idempotency_key=name)
        _strike(server, machine, service, what, dice)
        result = read_result(server, 1)  # before stdin closes, which would end it too
        server.communicate(timeout=TIMEOUT)
        return json.dumps(result)


def _command(name: str) -> list[str]:
    return ["generate", name, "--idempotency-key", name, "--json", "--no-save"]


def _strike(
    program: subprocess.Popen[str],
    machine: Machine,
    service: ScriptedService,
    what: str,
    dice: random.Random,
) -> None:
    endpoint = dice.choice(("start", "submit", "submit", "status"))
    seen, until = service.seen[endpoint], time.monotonic() + TIMEOUT
    while endpoint != "start" and service.seen[endpoint] == seen and program.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.0005)
    time.sleep(dice.uniform(0, 1.0 if endpoint == "start" else 0.08))
    match what:
        case "a full disk":
            with suppress(ProcessLookupError):
                fill_disk(program.pid)
        case "a held journal":
            with held_journal(machine.state):
                time.sleep(dice.uniform(0.5, 5.0))
        case _:
            program.send_signal(signal.Signals[what])


def _judge(found: Struck, machine: Machine, service: ScriptedService, name: str, told: str) -> None:
    jobs, entry = _jobs_named(service, name), anyio.run(_find, machine, name)
    found.rounds += 1
    found.jobs += len(jobs)
    found.by_phase[entry.phase if entry else "not begun"] += 1
    kept = entry.record_id if entry else None
    if any(job != kept and job not in told for job in jobs):
        found.lost.append(f"{name}: {entry}, told {told}")
    again = machine.run(*_command(name))
    if entry and entry.phase == "unknown":
        # the full disk took its entry; what was told of it serves
        is_well = again.returncode == 1 and "unknown outcome" in again.stderr
        for job in jobs:
            is_well &= machine.run("get", job, "--json", "--no-save").returncode == 0
    else:
        is_well = again.returncode == 0 and set(jobs) <= {json.loads(again.stdout)["record_id"]}
    if not is_well:
        found.astray.append(f"{name}: {entry}, told {told}, then {again}")
    if len(_jobs_named(service, name)) > 1:
        found.doubled.append(f"{name}: {entry}, told {told}, then {again}")


def _jobs_named(service: ScriptedService, name: str) -> list[str]:
    records = [service.store.record(record_id) for record_id in service.jobs]
    return [one.record_id for one in records if one is not None and one.submission.prompt == name]


async def _find(machine: Machine, key: str) -> JournalEntry | None:
    state, service = SqliteState(machine.state), Settings.from_env(machine.environ).service
    try:
        latest = await state.latest(service, "", 5)
    finally:
        await state.close()
    return next((one for one in latest if one.key == key), None)
