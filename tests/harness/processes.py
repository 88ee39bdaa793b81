"""Real processes that share one state folder: started all at once, or killed at any moment.

They are forked from a server that has imported everything, so that they meet at one instant and
fifty of them cost little. Only processes that were started here are killed, each by its own handle.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.queues
import multiprocessing.synchronize
import random
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import anyio
import anyio.lowlevel

from arta_mcp.arta.account import Account
from arta_mcp.arta.protocol import Addresses
from arta_mcp.arta.tokens import TokenSource
from arta_mcp.errors import ArtaError
from arta_mcp.generations.service import Generations, Limits
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.state.records import JournalEntry
from arta_mcp.state.sqlite import SqliteState
from harness.service import ScriptedService
from harness.world import Client, EagerSchedule

LONG = 60.0
"""seconds that anything here may take on a busy machine"""

ACCOUNT = "shared"

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["arta_mcp.local.service", "arta_mcp.generations.service", "arta_mcp.state.sqlite", "httpx"]
)


@dataclass(frozen=True)
class Site:
    """A service's address and the state folder that every process here uses."""

    url: str
    folder: Path

    def client(self) -> Client:
        return Client(
            state_dir=self.folder,
            addresses=Addresses.at_origin(self.url),
            account=ACCOUNT,
            key="processes-api-key",
        )

    def tokens(self) -> AbstractAsyncContextManager[TokenSource]:
        return self.client().open_tokens()

    def generations(self) -> Generations:
        """One process of ours."""
        return Generations(
            self.client().open_backend,
            backend="arta",
            service="shared",
            limits=Limits(max_wait=LONG, job_timeout=10 * LONG, min_poll_interval=0.01),
            schedule=EagerSchedule,
        )

    def account(self) -> Account | None:
        async def read() -> Account | None:
            state = SqliteState(self.folder)
            try:
                return await state.account(ACCOUNT)
            finally:
                await state.close()

        return anyio.run(read)

    def keep(self, account: Account) -> None:
        async def write() -> None:
            state = SqliteState(self.folder)
            await state.keep_account(ACCOUNT, account, fence=0)
            await state.close()

        anyio.run(write)

    def age_account(self) -> None:
        """Makes the stored id token one that ran out an hour ago."""
        account = self.account()
        assert account is not None
        now = time.time()
        self.keep(replace(account, issued_at=now - 7200, expires_at=now - 3600))

    def entries(self) -> tuple[JournalEntry, ...]:
        async def read() -> tuple[JournalEntry, ...]:
            state = SqliteState(self.folder)
            try:
                return await state.latest("shared", "", 100_000)
            finally:
                await state.close()

        return anyio.run(read)


def together(count: int, work: Callable[[Site], str], site: Site) -> list[str]:
    """What `work` gives in `count` processes that begin at the same moment."""
    barrier, results = CONTEXT.Barrier(count), _queue()
    started = [
        CONTEXT.Process(target=_at_once, args=(barrier, results, work, site), daemon=True)
        for _ in range(count)
    ]
    for process in started:
        process.start()
    try:
        return [results.get(timeout=LONG) for _ in started]
    finally:
        for process in started:
            process.join(LONG)


def _queue() -> multiprocessing.queues.Queue[str]:
    return CONTEXT.Queue()


def token(site: Site) -> str:
    """The id token that a process gets."""

    async def ask() -> str:
        async with site.tokens() as tokens:
            return (await tokens.get_token()).reveal()

    return anyio.run(ask)


def record_of_one_key(site: Site) -> str:
    """The record id that a process gets for a key that all of them use."""

    async def order() -> str:
        async with site.generations() as generations:
            request = GenerationRequest(prompt="one", idempotency_key="one", seed=1)
            return (await generations.generate(request)).record_id or ""

    return anyio.run(order)


@contextmanager
def running(work: Callable[..., None], *arguments: object) -> Generator[ForkServerProcess]:
    """A process that is killed at the end, whatever it does then."""
    process = CONTEXT.Process(target=work, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join(LONG)


def hold_lock(site: Site, is_held: multiprocessing.synchronize.Event) -> None:
    """Takes the account's lock and never gives it back."""

    async def hold() -> None:
        state = SqliteState(site.folder)
        async with state.lock(f"account-{ACCOUNT}"):
            is_held.set()
            await anyio.sleep_forever()

    anyio.run(hold)


def order_one(site: Site, name: str) -> None:
    """A generation from the first import to the picture's address."""

    async def order() -> None:
        async with site.generations() as generations:
            await generations.generate(GenerationRequest(prompt=name, idempotency_key=name))

    anyio.run(order)


def renew_on_and_on(site: Site) -> None:
    """Refreshes and writes the token as fast as it can."""

    async def renew() -> None:
        async with site.tokens() as tokens:
            current = await tokens.get_token()
            while True:
                current = await tokens.renew_token(current)

    anyio.run(renew)


@dataclass
class Killed:
    """What kills at random moments left behind."""

    rounds: int = 0
    by_phase: dict[str, int] = field(default_factory=dict[str, int])
    """what the journal said right after the kill"""
    jobs: int = 0
    lost: int = 0
    doubled: int = 0
    accounts_lost: int = 0
    torn: int = 0
    """times that somebody who read the token file while it was written found no whole account"""
    in_the_window: int = 0
    """jobs that the service made and the journal calls `unknown`: killed before its id was kept"""


def kill_generations(
    site: Site, service: ScriptedService, rounds: int, dice: random.Random
) -> Killed:
    """Kills a process in the middle of a generation, looks at what is left, and goes on with it."""
    found = Killed()
    before = site.account()
    for number in range(rounds):
        name = f"round {number}"
        with running(order_one, site, name) as process:
            _wait_for_a_moment(service, process, dice)
        found.rounds += 1
        _judge(found, site, service, name)
        after = site.account()
        if before is not None and (after is None or after.user_id != before.user_id):
            found.accounts_lost += 1
        before = after
    return found


def _wait_for_a_moment(
    service: ScriptedService, process: ForkServerProcess, dice: random.Random
) -> None:
    """Until a request of a kind drawn by lot is seen, and a little longer."""
    endpoint = dice.choice(("start", "submit", "submit", "status"))
    seen, until = service.seen[endpoint], time.monotonic() + LONG
    while endpoint != "start" and service.seen[endpoint] == seen and process.is_alive():
        assert time.monotonic() < until
        time.sleep(0.0005)
    time.sleep(dice.uniform(0, 0.2 if endpoint == "start" else 0.03))


def _judge(found: Killed, site: Site, service: ScriptedService, name: str) -> None:
    jobs = _jobs_named(service, name)
    entry = next((one for one in site.entries() if one.key == name), None)
    standing = entry.phase if entry else "not begun"
    found.by_phase[standing] = found.by_phase.get(standing, 0) + 1
    found.jobs += len(jobs)
    looked_at = {event.record_id for event in service.log if event.endpoint == "status"}
    if jobs and standing == "unknown" and not looked_at & set(jobs):  # kept before the first look
        found.in_the_window += 1
    elif jobs and (entry is None or entry.record_id not in jobs):
        found.lost += 1
    again = anyio.run(partial(_go_on, site, name))
    expected = "SubmitUnknown" if standing == "unknown" else "done"
    assert again == expected, f"{name} was {standing} and came to {again}"
    found.doubled += len(_jobs_named(service, name)) > 1


def _jobs_named(service: ScriptedService, name: str) -> list[str]:
    records = [service.store.record(record_id) for record_id in service.jobs]
    return [one.record_id for one in records if one is not None and one.submission.prompt == name]


async def _go_on(site: Site, name: str) -> str:
    """What the same call comes to in the next process, once it is known to be dead."""
    async with site.generations() as generations:
        try:
            request = GenerationRequest(prompt=name, idempotency_key=name)
            return (await generations.generate(request)).status
        except ArtaError as exc:
            return type(exc).__name__


def kill_renewals(site: Site, service: ScriptedService, rounds: int, dice: random.Random) -> Killed:
    """Kills a process that writes the token file all the time; the account must survive."""
    token(site)
    found, first = Killed(), site.account()
    assert first is not None
    for _ in range(rounds):
        with running(renew_on_and_on, site) as process:
            seen, until = service.seen["refresh"], time.monotonic() + LONG
            while service.seen["refresh"] < seen + 2 and process.is_alive():
                assert time.monotonic() < until
                found.torn += not _is_whole(site)
            until = time.monotonic() + dice.uniform(0, 0.03)
            while time.monotonic() < until:
                found.torn += not _is_whole(site)
        found.rounds += 1
        found.accounts_lost += not _serves(service, site.account(), first.user_id)
    return found


def _is_whole(site: Site) -> bool:
    content = (site.folder / f"account-{ACCOUNT}.json").read_bytes()
    return content.startswith(b"{") and content.rstrip().endswith(b"}")


def kill_sign_ups(
    folder: Path, url: str, service: ScriptedService, rounds: int, dice: random.Random
) -> int:
    """Kills a process in the middle of its sign-up; how many accounts are left that nobody has."""
    orphans = 0
    for number in range(rounds):
        site, before = Site(url, folder / str(number)), len(service.accounts)
        with running(order_one, site, "x") as process:
            seen, until = service.seen["sign_up"], time.monotonic() + LONG
            while service.seen["sign_up"] == seen and process.is_alive():
                assert time.monotonic() < until
                time.sleep(0.0005)
            time.sleep(dice.uniform(0, 0.03))
        first = site.account()
        assert token(site)
        assert first is None or site.account() == first
        orphans += len(service.accounts) - before - 1
    return orphans


def _serves(service: ScriptedService, account: Account | None, user_id: str) -> bool:
    """Whether a stored account is whole: both tokens are the service's, and the first user's."""
    if account is None:
        return False
    tokens = (account.id_token, account.refresh_token)
    claims = [service.store.read(one.reveal()) for one in tokens]
    return [one.user_id if one else "" for one in claims] == [user_id, user_id]


def _at_once(
    barrier: multiprocessing.synchronize.Barrier,
    results: multiprocessing.queues.Queue[str],
    work: Callable[[Site], str],
    site: Site,
) -> None:
    barrier.wait(LONG)
    try:
        results.put(work(site))
    except ArtaError as exc:
        results.put(f"{type(exc).__name__}: {exc.message}")


@dataclass
class Cancelled:
    """What cancelling at random moments came to; `seconds` until each caller was free."""

    seconds: list[float] = field(default_factory=list[float])
    unknown_to_us: int = 0
    tasks_left: int = 0


async def cancel_at_random(
    site: Site, service: ScriptedService, rounds: int, dice: random.Random
) -> Cancelled:
    """Cancels calls of one process anywhere between their first request and their end."""
    found = Cancelled()
    async with site.generations() as generations:
        await generations.generate(GenerationRequest(prompt="first"))
        tasks = len(anyio.get_running_tasks())
        for number in range(rounds):
            endpoint = dice.choice(("submit", "status"))
            before, until = service.seen[endpoint], time.monotonic() + LONG
            began = 0.0
            async with anyio.create_task_group() as group:
                request = GenerationRequest(prompt=f"cancelled {number}")
                group.start_soon(generations.generate, request)
                while service.seen[endpoint] == before and time.monotonic() < until:
                    await anyio.lowlevel.checkpoint()
                await anyio.sleep(dice.uniform(0, 0.03))
                group.cancel_scope.cancel()
                began = time.perf_counter()
            found.seconds.append(time.perf_counter() - began)
            with anyio.move_on_after(LONG) as patience:
                while len(anyio.get_running_tasks()) > tasks:  # a submit under way reaches its end
                    await anyio.sleep(0.002)
            found.tasks_left += patience.cancelled_caught
        known = {one.record_id for one in await generations.history(10 * rounds + 10)}
    found.unknown_to_us = len(set(service.jobs) - known)
    return found


HOLD_JOURNAL = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE journal SET error = 'never committed'")
print("held", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def writing_to_journal(folder: Path) -> AsyncGenerator[None]:
    """Another process holds the journal's write lock until the block ends.

    What waited for the lock would give up after 30 s, and the block may take 20.
    """
    command = [sys.executable, "-c", HOLD_JOURNAL, str(folder / "generations.sqlite3")]
    async with await anyio.open_process(command) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert (await holder.stdout.receive()).startswith(b"held")
        with anyio.fail_after(20):
            yield
        assert holder.returncode is None  # it still held it
        await holder.stdin.aclose()
