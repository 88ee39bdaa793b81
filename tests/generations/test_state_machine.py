"""Random interleavings of calls, cancellations, restarts, stale tokens, faults and a bad journal.

Whatever the order, the promises hold: one job a call or key, one picture for a call that a host
cuts off and repeats, one account, no job that the journal does not own up to, and nothing that goes
on after everybody left.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from arta_mcp.arta.protocol import Addresses
from arta_mcp.errors import ArtaError, JobTimedOut
from arta_mcp.generations import callers, recorder
from arta_mcp.generations.callers import Connection
from arta_mcp.generations.hourly_limit import PictureLimit
from arta_mcp.generations.service import Generations, Limits
from arta_mcp.generations.values import Generation, GenerationRequest
from arta_mcp.local.faults.catalogue import FAULTS, Fault
from arta_mcp.state.sqlite import SqliteState
from harness.service import ScriptedService
from harness.stores import Kind, Store, find_server, running_server
from harness.world import ORIGIN, Client, EagerSchedule, tiny_picture

T = TypeVar("T")

PATIENCE = 30.0
"""seconds that anything here may take on a busy machine"""

GONE = ("TOKEN_EXPIRED", "USER_NOT_FOUND", "INVALID_REFRESH_TOKEN", "PROJECT_NUMBER_MISMATCH")

TROUBLE = [
    Fault(name, endpoint)
    for name, kind in FAULTS.items()
    for endpoint in kind.endpoints
    if endpoint not in ("image", "styles")
    and not kind.takes_seconds  # a wait of a second each would leave time for few interleavings
    and name not in ("endless-body", "foreign-url")
]


ANY = st.integers(0, 99)
"""which one of several; drawn before it is known how many there are, since that is for the clock"""


HASTY = {"WRITE_TIMEOUT": 0.05, "RETRY_PAUSE": 0.02, "RETRY_FOR": 0.5}
"""seconds of the recorder, so that a bad journal leaves time for other things"""

MAX_CHAIN = 400.0
"""seconds in which a host repeats a call here; after ten minutes it is a new one"""


@dataclass
class Call:
    """One call of generate, in flight until `future` is done.

    `has_own_entry`: no other call's entry has its text. `host` is the call of a host, if it is one.
    """

    text: str
    has_own_entry: bool
    future: Future[Generation]
    host: callers.Call | None = None
    is_judged: bool = False


@dataclass
class Chain:
    """Equal calls of a host: each was cut but the last one."""

    text: str
    began_at: float
    call: Call | None = None


class Interleavings(RuleBasedStateMachine):
    """One installation of ours and one service; every rule is something that really happens."""

    kind: Kind = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        server = None
        if self.kind != "sqlite":
            (self.folder / "server").mkdir()
            server = self.stack.enter_context(running_server(self.kind, self.folder / "server"))
        self.store = Store(self.kind, self.folder / "state", server)
        self.portal = self.stack.enter_context(start_blocking_portal("asyncio"))
        self.service = ScriptedService(
            self.folder / "service", engine=tiny_picture, queue=2.0, draw=0, clock=self.clock
        )
        self.calls: list[Call] = []
        self.chain = Chain("", 0.0)
        self.chains = 0
        self.removals = 0
        self.forgotten = set[str]()
        self.connection = Connection(clock=self.clock)
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        for name, seconds in HASTY.items():
            patch.setattr(recorder, name, seconds)
        self.gone = 0
        self.is_followed = False
        self.generations = self._open()
        self.running = self._running()

    def clock(self) -> float:
        return self.store.clock()

    # What happens

    @initialize(queue=st.sampled_from([0.0, 2.0]))
    def begin(self, queue: float) -> None:
        self.service.queue = queue
        self._end_chain()

    @rule(
        key=st.sampled_from([None, None, "a", "b"]),
        prompt=st.sampled_from(["x", "y"]),
        moment=st.sampled_from([0.0, 0.001, 0.005, 0.02, 0.05]),
    )
    def generate(self, key: str | None, prompt: str, moment: float) -> None:
        # keys are those of one journal
        key = key and f"{key}{self.removals}"
        text = f"{prompt} with key {key}" if key else f"{prompt} number {len(self.calls)}"
        request = GenerationRequest(prompt=text, idempotency_key=key, seed=1)
        self.calls.append(
            Call(text, not key, self.portal.start_task_soon(self.generations.generate, request))
        )
        self.portal.call(anyio.sleep, moment)

    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        for call in _one_of(self._in_flight(), which):
            self._cut(call, is_time_out=False)

    @rule(moments=st.lists(st.sampled_from([0.001, 0.02, 0.1]), min_size=1, max_size=4))
    def ask_as_a_host(self, moments: list[float]) -> None:
        """A call, or once more the one that was cut before; cut and repeated after each moment."""
        for moment in moments:
            if self.chain.call:
                self._cut(self.chain.call, is_time_out=True)
                if not self.chain.call or not self.chain.call.future.cancelled():
                    self._end_chain()  # it was answered, or has failed
            host = callers.Call(self.connection)
            ask = partial(
                self.generations.generate,
                GenerationRequest(prompt=self.chain.text, seed=1),
                call=host,
            )
            future = self.portal.start_task_soon(ask)
            self.chain.call = Call(self.chain.text, False, future, host)
            self.calls.append(self.chain.call)
            self.portal.call(anyio.sleep, moment)

    @rule(is_time_out=st.booleans())
    def cut_the_host_off(self, is_time_out: bool) -> None:
        if self.chain.call:
            self._cut(self.chain.call, is_time_out=is_time_out)

    @rule()
    def close_the_connection(self) -> None:
        if self.chain.call:
            self._cut(self.chain.call, is_time_out=True)
        self.portal.call(self.connection.close)
        self.connection = Connection(clock=self.clock)

    @rule(steps=st.integers(0, 3))
    def let_the_journal_be_full(self, steps: int) -> None:
        self._refuse_writes(True)
        self.portal.call(anyio.sleep, 0.05 * steps)
        if not steps:
            return
        self._refuse_writes(False)

    @rule()
    def let_the_journal_be_written(self) -> None:
        self._refuse_writes(False)

    @rule()
    def lose_the_memory_of_the_store(self) -> None:
        self.store.lose_memory()
        self.forgotten.update(self.service.jobs)  # and their entries with them
        for call in self.calls:
            call.has_own_entry = False
        self.removals += 1
        self.gone += 1
        self._end_chain()

    @precondition(lambda self: self.store.server)
    @rule(seconds=st.sampled_from([0.0, 0.2, 0.6]))
    def kill_the_store(self, seconds: float) -> None:
        """It is back after a while, with what it had acknowledged."""
        assert self.store.server is not None
        self.store.server.kill()
        self.portal.call(anyio.sleep, seconds)
        self.store.server.start()
        self.gone += 1  # an account may have been given meanwhile, and kept by no one

    @rule()
    def let_it_run(self) -> None:
        self.portal.call(anyio.sleep, 0.02)

    @rule(seconds=st.sampled_from([2.0, 30.0, 100.0]))
    def let_time_pass(self, seconds: float) -> None:
        self._jump(seconds)
        self.portal.call(anyio.sleep, 0.02)

    @rule()
    def wait_for_the_oldest(self) -> None:
        self._jump(3600)  # so that even the slowest job has an end
        for call in self._in_flight()[:1]:
            self._judge(call)

    @rule(which=ANY)
    def get(self, which: int) -> None:
        for record_id in _one_of(self.service.jobs, which):
            found = self._ending(self.portal.start_task_soon(self.generations.get, record_id))
            assert isinstance(found, Generation | ArtaError)
            assert found.record_id in (record_id, None)
            self.is_followed |= isinstance(found, Generation) and found.status == "pending"

    @rule(is_polite=st.booleans())
    def restart(self, is_polite: bool) -> None:
        for call in self._in_flight() if is_polite else []:
            self._cut(call, is_time_out=False)
        self._close()
        for call in self.calls:
            self._judge(call, is_cut_off=True)
        self.generations = self._open()
        self.connection = Connection(clock=self.clock)
        self.is_followed = False

    @rule()
    def let_the_id_token_run_out(self) -> None:
        self._jump(4000)

    @rule(is_deleted=st.booleans())
    def end_the_account(self, is_deleted: bool) -> None:
        for user_id in self.service.accounts:
            (self.service.delete if is_deleted else self.service.expire)(user_id)
        self.gone += 1
        self._jump(4000)

    @rule(fault=st.sampled_from(TROUBLE))
    def have_trouble(self, fault: Fault) -> None:
        self.service.faults.add(fault)

    # What holds

    @invariant()
    def no_call_or_key_has_two_jobs(self) -> None:
        texts = [text for text in self._texts_of_jobs() if not text.startswith("host")]
        assert len(texts) == len(set(texts))
        keys = [text.partition(" with key ")[2] for text in texts if " with key " in text]
        assert len(keys) == len(set(keys))

    @invariant()
    def accounts_are_made_only_when_one_is_gone(self) -> None:
        events = list(self.service.log)
        lost = sum(event.endpoint == "sign_up" and bool(event.fault) for event in events)
        refused = sum((event.fault or "").startswith(GONE) for event in events)
        assert self.service.seen["sign_up"] <= 1 + self.gone + lost + refused

    def teardown(self) -> None:
        try:
            self.service.faults.clear()
            self._refuse_writes(False)
            self._nothing_goes_on_when_all_have_left()
            self._close()
            for call in self.calls:
                self._judge(call, is_cut_off=True)
            self.no_call_or_key_has_two_jobs()
            self._every_job_is_owned_up_to()
        finally:
            self.portal.call(self.portal.stop, True)  # what failed may have left calls behind
            self.stack.close()

    def _nothing_goes_on_when_all_have_left(self) -> None:
        """Unless a call answered `pending`: such a job is followed on purpose."""
        self.store.ahead += 3600
        for call in self.calls:
            call.future.cancel()
        for call in self.calls:
            self._judge(call)
        if not self.is_followed:
            self._until(lambda: self._running() == self.running)

    def _every_job_is_owned_up_to(self) -> None:
        listed = self._all_that_ended()
        known = {one.record_id for one in listed}
        unknown = {one.request.prompt for one in listed if one.status == "unknown"}
        for record_id in {*self.service.jobs} - self.forgotten:
            assert record_id in known or self._text_of(record_id) in unknown
        # What was lost or has failed is ordered anew; what stands answers every call of its chain.
        standing = [one for one in listed if one.status in ("submitted", "pending", "done")]
        self._every_order_of_a_host_is_counted(listed)
        counts = Counter(one.request.prompt for one in standing)
        assert not [text for text, count in counts.items() if text.startswith("host") and count > 1]

    def _all_that_ended(self) -> tuple[Generation, ...]:
        """Every generation, once a process that could not say that it ends counts as dead."""
        end = time.monotonic() + PATIENCE
        while True:
            listed = self.portal.call(self._open().history, 1000)
            self._close()
            if all(one.record_id or one.status != "pending" for one in listed):
                return listed
            assert time.monotonic() < end, listed
            time.sleep(0.5)

    def _every_order_of_a_host_is_counted(self, listed: tuple[Generation, ...]) -> None:
        # the hour before all left: a store drops what is older only when it counts
        self.store.ahead -= 3600
        since = max([self.clock(), *(one.created_at for one in listed)]) - 3590
        ordered = [
            one
            for one in listed
            if one.status != "refused" and one.request.prompt.startswith("host")
        ]
        counted = self.portal.call(self._counted)
        assert counted <= sum(call.host is not None for call in self.calls)
        if not self.removals:  # else what was counted was lost with the entries
            assert counted >= sum(one.created_at > since for one in ordered)

    async def _counted(self) -> int:
        async with self.store.process() as state:
            return await state.counted(PictureLimit.name_of("machine", "arta", ""))

    # How

    def _judge(self, call: Call, *, is_cut_off: bool = False) -> None:
        """How a call ended, and that what it raised names the job that exists."""
        if call.is_judged:
            return
        call.is_judged = True
        match self._ending(call.future):
            case None:
                pass
            case Generation() as found:
                assert found.request.prompt == call.text
                assert found.record_id in self.service.jobs
                assert found.status in ("done", "pending")
                self.is_followed |= found.status == "pending"
            case ArtaError() as error:
                assert not isinstance(error, JobTimedOut)  # the time-out here is a year
                if not is_cut_off and call.has_own_entry:
                    listed = self.portal.call(self._history)
                    entry = next((one for one in listed if one.request.prompt == call.text), None)
                    assert error.record_id == (entry.record_id if entry else None), error
            case RuntimeError() as error:
                assert is_cut_off, error

    def _ending(self, future: Future[Generation]) -> Generation | ArtaError | RuntimeError | None:
        """What a call gave or raised; None when it was cancelled."""
        try:
            return future.result(PATIENCE)
        except CancelledError:
            return None
        except (ArtaError, RuntimeError) as exc:
            return exc

    async def _history(self) -> tuple[Generation, ...]:
        return await self.generations.history(1000)

    def _cut(self, call: Call, *, is_time_out: bool) -> None:
        """Cancels a call; a host's that was about to be answered counts as answered."""

        def cut() -> bool:
            is_answered = call.host is not None and call.host.is_explained.is_set()
            if call.future.cancel() and call.host is not None:
                call.host.leave(is_cut=is_time_out)
            return is_answered

        if self.portal.call(cut) and call is self.chain.call:
            self._end_chain()

    def _end_chain(self) -> None:
        self.chains += 1
        self.chain = Chain(f"host {self.chains}", self.clock())

    def _jump(self, seconds: float) -> None:
        """Puts the clock forward; a call that would then be too old is not repeated."""
        if self.clock() + seconds - self.chain.began_at > MAX_CHAIN:
            self._end_chain()
        self.store.ahead += seconds

    def _refuse_writes(self, refused: bool) -> None:
        """Whether the journal that is open refuses all writes, as on a full disk or memory."""
        if self.store.server is not None:
            self.store.server.command("CONFIG", "SET", "maxmemory", int(refused))
            return
        backend = self.generations._opened  # pyright: ignore[reportPrivateUsage]  # its connection alone can be told so
        state = backend and backend.state
        if isinstance(state, SqliteState):
            self.portal.call(_refuse_writes, state, refused)

    def _in_flight(self) -> list[Call]:
        return [call for call in self.calls if not call.future.done()]

    def _texts_of_jobs(self) -> list[str]:
        return [self._text_of(record_id) for record_id in self.service.jobs]

    def _text_of(self, record_id: str) -> str:
        record = self.service.store.record(record_id)
        assert record is not None
        return record.submission.prompt

    def _running(self) -> list[str]:
        """What goes on in the event loop besides this question."""

        def names() -> list[str]:
            mine = anyio.get_current_task()
            found = [str(one.name) for one in anyio.get_running_tasks() if one != mine]
            return sorted(name for name in found if "RedisState" not in name)  # says that it lives

        return self.portal.call(names)

    def _until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, self._running()
            self.portal.call(anyio.sleep, 0.005)

    def _open(self) -> Generations:
        limits = Limits(max_wait=PATIENCE, job_timeout=3e7, min_poll_interval=0.01, hourly=9999)
        generations = Generations(
            self._client().open_backend,
            backend="arta",
            service="machine",
            limits=limits,
            schedule=EagerSchedule,
        )
        self.opened = self.portal.wrap_async_context_manager(generations)
        self.opened.__enter__()
        return generations

    def _close(self) -> None:
        self.opened.__exit__(None, None, None)

    def _client(self) -> Client:
        async def sleep_less(seconds: float) -> None:
            await anyio.sleep(seconds / 100)

        return Client(
            state_dir=self.folder / "state",
            addresses=Addresses.at_origin(ORIGIN),
            app=httpx.ASGITransport(app=self.service),
            account="machine",
            key="machine-api-key",
            clock=self.clock,
            store=self.store,
            sleep=sleep_less,
        )


async def _refuse_writes(state: SqliteState, refused: bool) -> None:
    def refuse() -> None:
        if state._opened is not None:  # pyright: ignore[reportPrivateUsage]  # see above
            state._opened.db.execute(f"PRAGMA query_only = {refused}")  # pyright: ignore[reportPrivateUsage]  # see above

    await state._run(refuse, limiter=state._journal_turns)  # pyright: ignore[reportPrivateUsage]  # in its turn


def _one_of(some: Sequence[T], which: int) -> Sequence[T]:
    """One of several, or none of none."""
    return [some[which % len(some)]] if some else []


def thorough(examples: int) -> settings:
    """So many random stories of forty steps."""
    return settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        phases=[Phase.generate],  # a story with threads in it is not the same twice
        suppress_health_check=[HealthCheck.too_slow],
    )


class OnRedis(Interleavings):
    """The same with a redis-server."""

    kind = "redis"


class OnValkey(Interleavings):
    """The same with a Valkey."""

    kind = "valkey"


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = thorough(15)


class TestInterleavingsOnRedis(OnRedis.TestCase):
    """Skipped, or failed, where there is no server."""

    settings = thorough(10)

    @pytest.fixture(autouse=True)
    def need_server(self, need: Callable[[bool, str], None]) -> None:
        need(find_server("redis") is not None, "there is no redis server here")


class TestInterleavingsOnValkey(OnValkey.TestCase):
    """Likewise."""

    settings = thorough(10)

    @pytest.fixture(autouse=True)
    def need_server(self, need: Callable[[bool, str], None]) -> None:
        need(find_server("valkey") is not None, "there is no valkey server here")
