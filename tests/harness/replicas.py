"""Replicas of the server behind nginx, on one store, with calls under way while things die.

One round: 400 callers, each with a token of its own, half of them with idempotency keys, half
without and with prompts of their own; three replicas. In an order and at moments that a seed
decides, one replica is killed and started anew in its place, one gets SIGTERM, and the store is
killed and comes back with its append-only file. A caller whose call broke does what the server
tells a model to do: with a key it repeats the call, without one it asks for its newest generation,
and orders again only when it is told that there is none.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx

from harness.http_server import RunningServer, http_server
from harness.installed import TIMEOUT, Machine, remote_settings
from harness.nginx import NAME, Proxy, find_nginx, nginx
from harness.service import ScriptedServer, ScriptedService
from harness.stores import Kind, RedisServer, find_server, running_server
from harness.tool_calls import REVISIONS, Revision, Unanswered, call_tool, new_client, words_of
from harness.world import tiny_picture

CALLERS = 400

JOB, LATENCY = 3.0, 0.1
"""seconds that a job takes, and each answer of the service"""

ARRIVALS = 6.0
"""seconds in which the callers come"""

PATIENCE = 10.0
"""seconds after the last fault, and the job's own, in which each caller must know its outcome"""

MAX_EXIT = 11.2
"""seconds from SIGTERM to the end; one that hangs is ended after 11.5"""

GIVEN_UP = 90.0
"""seconds after which a caller that is stuck is left"""

AT_ONCE = 40
"""record ids that are asked for at the same time"""

FAULTS = ("kill", "term", "store")

PHASES = """
local told = {}
for _, name in ipairs(redis.call('KEYS', '{arta}:entry:*')) do
    told[#told + 1] = name
    told[#told + 1] = redis.call('HGET', name, 'phase')
end
return told
"""


@dataclass(frozen=True)
class Caller:
    """One person's host; `key` is its idempotency key, if it sends one."""

    number: int
    key: str | None
    revision: Revision
    arrives: float

    @property
    def token(self) -> str:
        return f"the-token-of-caller-{self.number}"

    @property
    def prompt(self) -> str:
        return f"a fox, number {self.number}"


@dataclass
class Found:
    """What a round came to."""

    kind: Kind
    seed: int
    callers: int
    faults: tuple[str, ...]
    outcomes: dict[int, str] = field(default_factory=dict[int, str])
    """caller -> `done` or `unknown`; a caller that is missing was left stuck"""
    records: dict[int, str] = field(default_factory=dict[int, str])
    """caller -> the record id that it was told"""
    broken: int = 0
    """calls without an answer"""
    longest: float = 0.0
    """seconds from the last fault, or from a caller's own first call after it, to its outcome"""
    under_way: set[str] = field(default_factory=set[str])
    """entries whose submit was under way, at whichever replica, when one was killed"""
    unknown: set[str] = field(default_factory=set[str])
    """entries whose outcome the store calls unknown in the end"""
    jobs: int = 0
    doubled: int = 0
    lost: int = 0
    """jobs whose record id no caller was told, and that are not owned up to as unknown"""
    sign_ups: int = 0
    taken_up: int = 0
    """record ids that a surviving replica showed as done, counted once a replica"""
    survivors: int = 0
    exit_code: int | None = None
    """of the replica that got SIGTERM"""
    exit_seconds: float = 0.0
    """from the signal until it had ended"""

    @property
    def done(self) -> int:
        return sum(outcome == "done" for outcome in self.outcomes.values())

    @property
    def own_up(self) -> int:
        """Callers that were told that their outcome is unknown."""
        return len(self.outcomes) - self.done

    @property
    def broken_promises(self) -> list[str]:
        """What came of each promise that was not kept."""
        most = self.survivors * len(self.records)
        stuck, under_way = self.callers - len(self.outcomes), len(self.under_way)
        promises = (
            (not stuck, f"{stuck} callers were stuck"),
            (self.own_up <= under_way, f"{self.own_up} unknown of {under_way} under way"),
            (self.unknown <= self.under_way, "a submit that nothing cut off is unknown"),
            (not self.doubled, f"{self.doubled} jobs doubled"),
            (not self.lost, f"{self.lost} jobs lost"),
            (self.sign_ups == 1, f"{self.sign_ups} sign-ups"),
            (self.longest <= PATIENCE + JOB, f"{self.longest:.1f} s after the last fault"),
            (self.taken_up == most, f"{self.taken_up} of {most} taken up"),
            (self.exit_code == 0, f"exit code {self.exit_code} after SIGTERM"),
            (self.exit_seconds < MAX_EXIT, f"{self.exit_seconds:.1f} s until it had ended"),
        )
        return [words for is_kept, words in promises if not is_kept]


def play_round(
    folder: Path,
    kind: Kind,
    seed: int,
    need: Callable[[bool, str], None],
    *,
    callers: int = CALLERS,
) -> Found:
    """One round on a store of this kind; `need` is told of each program that is there, or not."""
    need(find_server(kind) is not None, f"there is no {kind} server here")
    folder.mkdir(parents=True)
    made = ScriptedService(
        folder / "service", engine=tiny_picture, queue=JOB, draw=0, latency=LATENCY, keep=10**6
    )
    (folder / "store").mkdir()
    with ExitStack() as stack:
        store = stack.enter_context(running_server(kind, folder / "store"))
        service = stack.enter_context(ScriptedServer(made))
        names = [f"caller{number}=the-token-of-caller-{number}" for number in range(callers)]
        machine = Machine.new(folder / "machine").set(
            **remote_settings(service),
            ARTA_STATE_URL=store.url,
            ARTA_HTTP_TOKENS=",".join(names),
            ARTA_HTTP_PUBLIC_URL=f"https://{NAME}",
            # All of them must find room in what two faults leave.
            ARTA_MAX_CONCURRENCY="400",
        )
        replicas = [stack.enter_context(http_server(machine)) for _ in range(3)]
        ports = [replica.port for replica in replicas]
        program = find_nginx(need)
        proxy = stack.enter_context(nginx(program, folder / "nginx", ports))
        dice = random.Random(seed)
        found = Found(kind, seed, callers, tuple(dice.sample(FAULTS, len(FAULTS))))
        played = Round(found, dice, stack, machine, store, made, proxy, replicas)
        anyio.run(played.play)
    return found


@dataclass
class Round:
    """A round as it is played; `replicas` are the survivors once it is over."""

    found: Found
    dice: random.Random
    stack: ExitStack
    machine: Machine
    store: RedisServer
    service: ScriptedService
    proxy: Proxy
    replicas: list[RunningServer]
    last_fault: float | None = None

    async def play(self) -> None:
        """From the first call until every record id was asked for once more."""
        callers = [
            Caller(
                number,
                key=f"key-{number}" if number % 2 else None,
                revision=self.dice.choice(REVISIONS),
                arrives=self.dice.uniform(0, ARRIVALS),
            )
            for number in range(self.found.callers)
        ]
        async with anyio.create_task_group() as group:
            group.start_soon(self.break_things)
            for caller in callers:
                group.start_soon(self.serve_caller, caller)
        self.judge(await anyio.to_thread.run_sync(self.phases))
        await self.take_up(callers)

    # Faults

    async def break_things(self) -> None:
        """Each fault once, in the round's order; then waits for what has to come of it."""
        killed, ended, spared = self.dice.sample(range(3), 3)
        pauses = {fault: self.dice.uniform(0.5, 2.5) for fault in self.found.faults}
        away = self.dice.uniform(1, 3)
        async with anyio.create_task_group() as group:
            for fault in self.found.faults:
                await anyio.sleep(pauses[fault])
                match fault:
                    case "kill":
                        await self.kill_replica(self.replicas[killed])
                        group.start_soon(anyio.to_thread.run_sync, self.start_anew, killed)
                    case "term":
                        group.start_soon(self.end_replica, self.replicas[ended])
                    case _:
                        self.store.kill()
                        await anyio.sleep(away)
                        await anyio.to_thread.run_sync(self.store.start)
            self.last_fault = anyio.current_time()
        self.replicas = [self.replicas[killed], self.replicas[spared]]

    async def end_replica(self, replica: RunningServer) -> None:
        """Tells it to end, and keeps how and when it did."""
        began = anyio.current_time()
        replica.process.send_signal(signal.SIGTERM)
        self.found.exit_code = await anyio.to_thread.run_sync(replica.process.wait, TIMEOUT)
        self.found.exit_seconds = anyio.current_time() - began

    async def kill_replica(self, replica: RunningServer) -> None:
        """Ends it as a crash would, and keeps which submits were under way then."""
        # Frozen first, so that what is under way can be read of the store and does not move on.
        replica.process.send_signal(signal.SIGSTOP)
        await anyio.sleep(0.1)
        phases = await anyio.to_thread.run_sync(self.phases)
        self.found.under_way = {name for name, phase in phases.items() if phase == "sending"}
        replica.process.kill()

    def start_anew(self, index: int) -> None:
        """Another process in the place of a dead one, as a supervisor starts it."""
        port = str(self.replicas[index].port)
        self.replicas[index] = self.stack.enter_context(http_server(self.machine, "--port", port))

    # Callers

    async def serve_caller(self, caller: Caller) -> None:
        """What one host does, with a client of its own: one pool for all would take a core."""
        await anyio.sleep(caller.arrives)
        async with new_client(verify=self.proxy.tls, headers={"Host": NAME}) as client:
            await self.follow(client, caller)

    async def follow(self, client: httpx.AsyncClient, caller: Caller) -> None:
        """Calls, and calls again, until it is known what became of the caller's picture."""
        order: tuple[str, dict[str, object]] = "generate_image", {"prompt": caller.prompt}
        if caller.key:
            order[1]["idempotency_key"] = caller.key
        began, ask = anyio.current_time(), order
        with anyio.move_on_after(GIVEN_UP):
            while True:
                name, given = ask
                try:
                    result = await call_tool(
                        client,
                        self.proxy.url,
                        name,
                        given,
                        token=caller.token,
                        revision=caller.revision,
                    )
                except Unanswered:
                    self.found.broken += 1
                    result = None
                if outcome := self.note(caller, result):
                    break
                ask = self.choose(caller, order, result)
                await anyio.sleep(self.dice.uniform(0.1, 0.5))
            self.found.outcomes[caller.number] = outcome
            if self.last_fault is not None:
                late = anyio.current_time() - max(self.last_fault, began)
                self.found.longest = max(self.found.longest, late)

    def note(self, caller: Caller, result: dict[str, Any] | None) -> str | None:
        """Keeps the record id that a caller is told; its outcome, once that is known."""
        if result is None:
            return None
        if result.get("isError"):
            words = words_of(result)
            is_lost = "unknown outcome" in words or "submit was lost" in words
            return "unknown" if is_lost else None
        content = result["structuredContent"]
        self.found.records.setdefault(caller.number, content["record_id"])
        return "done" if content["status"] == "done" else None

    def choose(
        self,
        caller: Caller,
        order: tuple[str, dict[str, object]],
        result: dict[str, Any] | None,
    ) -> tuple[str, dict[str, object]]:
        """The next call of a caller whose outcome is not known yet."""
        if record_id := self.found.records.get(caller.number):
            return "get_generation", {"record_id": record_id}
        words = words_of(result) if result else ""
        if caller.key or "there is no generation yet" in words or "nothing was ordered" in words:
            return order
        return "get_generation", {}

    # What is left

    def phases(self) -> dict[str, str]:
        """Entry -> phase, as they are stored."""
        told: list[str] = self.store.command("EVAL", PHASES, 0)
        return dict(zip(told[::2], told[1::2], strict=True))

    def judge(self, phases: Mapping[str, str]) -> None:
        """Counts what the service made and what the store says of it."""
        found = self.found
        found.unknown = {name for name, phase in phases.items() if phase in ("sending", "unknown")}
        jobs = [self.service.store.record(record_id) for record_id in self.service.jobs]
        prompts = Counter(job.submission.prompt for job in jobs if job is not None)
        found.jobs = prompts.total()
        found.doubled = sum(count - 1 for count in prompts.values())
        told = {f"a fox, number {number}" for number in found.records}
        owned_up = {
            f"a fox, number {number}"
            for number, outcome in found.outcomes.items()
            if outcome == "unknown"
        }
        found.lost = len(set(prompts) - told - owned_up)
        found.sign_ups = len(self.service.accounts)

    async def take_up(self, callers: list[Caller]) -> None:
        """Asks each surviving replica for each record id that a caller was told."""
        limiter = anyio.CapacityLimiter(AT_ONCE)
        self.found.survivors = len(self.replicas)

        async def ask(client: httpx.AsyncClient, url: str, caller: Caller) -> None:
            given: dict[str, object] = {"record_id": self.found.records[caller.number]}
            async with limiter:
                try:
                    result = await call_tool(
                        client, url, "get_generation", given, token=caller.token
                    )
                except Unanswered:
                    return
            content: dict[str, Any] = result.get("structuredContent") or {}
            shown = (content.get("record_id"), content.get("status"))
            self.found.taken_up += shown == (given["record_id"], "done")

        async with new_client() as client, anyio.create_task_group() as group:
            for replica in self.replicas:
                for caller in callers:
                    if caller.number in self.found.records:
                        group.start_soon(ask, client, replica.url, caller)
