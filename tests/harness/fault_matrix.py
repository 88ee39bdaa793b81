"""Every fault at every endpoint, struck once, twice and always, and what came of it.

The cases are made from `FAULTS`, so a new fault is in the matrix the moment it exists. What is
counted is what the service saw, not what we think we sent.
"""

from __future__ import annotations

import re
import ssl
import traceback
from collections.abc import AsyncGenerator, Awaitable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, time

import anyio
import anyio.to_thread
import httpx

from arta_mcp.arta.account import Account
from arta_mcp.arta.protocol import STYLES_PATH, Addresses
from arta_mcp.background import BackgroundTasks, open_background
from arta_mcp.errors import ArtaError
from arta_mcp.generations.service import Backend, Generations, Limits
from arta_mcp.generations.values import Generation, GenerationRequest, Update
from arta_mcp.local.faults.catalogue import ENDPOINTS, FAULTS, Fault
from arta_mcp.local.store import Claims
from arta_mcp.redaction import Secret
from arta_mcp.server.content import explain, render
from arta_mcp.state.sqlite import SqliteState
from harness.service import ScriptedServer, ScriptedService
from harness.world import Client, EagerSchedule, tiny_picture

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"

KEY = "sentinel-api-key-9f3c"
"""shaped like no key, so that only knowing it can hide it"""

TOKEN = re.compile(r"eyJ[\w-]{8,}")
"""the beginning of every token that the embedded service hands out"""

MAX_WAIT, LITTLE = 50.0, 4.0
"""seconds that a call waits: enough, and where the service asks for patience without end"""

JOB_TIMEOUT, HOPELESS = 10.0, 0.6
"""seconds after which a job is given up: where it can still end, and where it cannot"""

SHORT, LONG = 2.0, 45.0
"""seconds for one exchange: where an answer is to come too late, and everywhere else"""

TOO_LATE = "30"
"""seconds of a slow answer that nobody waits for"""

MAX_SECONDS = 55.0
"""that any case may take: the longest are four exchanges that time out, with pauses between"""

VALUES = {
    "slow-headers": "0.05",
    "slow-body": "0.05",
    "refused": "1",
    "foreign-url": "http://127.0.0.1:9/picture.png",
}
AT_LENGTH = {
    "slow-headers": TOO_LATE,
    "slow-body": TOO_LATE,
    "429-wait": "60",
    "429-date": "60",
    "503-wait": "60",
    "503-date": "60",
}
"""the faults that come in two lengths: one to sit out, and one that is beyond patience"""

AT_ONCE = 24
"""cases that run at the same time"""

SSL = ssl.create_default_context()
"""made once, since making it takes longer than a case"""


@dataclass(frozen=True)
class Case:
    """One fault, and whether it lasts longer than anybody waits."""

    fault: Fault
    at_length: bool = False

    @property
    def row(self) -> str:
        """Its row in the table."""
        if self.fault.name not in AT_LENGTH:
            return self.fault.name
        return f"{self.fault.name}, {'too long' if self.at_length else 'short'}"

    @property
    def request(self) -> GenerationRequest:
        """Two pictures, but one where a second would be a race for a door that is being shut."""
        n = 1 if self.fault.name == "refused" else 2
        return GenerationRequest(prompt="a red fox in snow", n=n, seed=7, idempotency_key="the-key")

    @property
    def limits(self) -> Limits:
        waits = self.at_length and not self.fault.name.startswith("slow")
        is_endless = self.fault.times is None
        ends = self.fault.name.startswith("done-")  # in a failure, after some polls
        is_hopeless = self.fault.endpoint == "status" and (is_endless or waits) and not ends
        return Limits(
            max_wait=LITTLE if self.fault.endpoint == "submit" and is_endless else MAX_WAIT,
            job_timeout=HOPELESS if is_hopeless else JOB_TIMEOUT,
            min_poll_interval=0.01,
        )

    def __str__(self) -> str:
        return str(self.fault)


@dataclass
class Outcome:
    """What one case came to; counts are the service's."""

    case: Case
    ended: str = ""
    said: str = ""
    record_id: str | None = None
    entry: str = ""
    entry_record_id: str | None = None
    jobs: tuple[str, ...] = ()
    sign_ups: int = 0
    refreshes: int = 0
    submits: int = 0
    accounts: int = 0
    submit_statuses: list[int] = field(default_factory=list[int])
    leaks: int = 0
    unsaved: int = 0
    unsaved_afterwards: int = 0
    seconds: float = 0.0
    afterwards: str = ""
    again: str = ""
    jobs_afterwards: int = 0
    submits_afterwards: int = 0
    shown: list[str] = field(default_factory=list[str])

    @property
    def is_lost(self) -> bool:
        """A job that our journal neither knows nor owns up to."""
        return bool(self.jobs) and self.entry != "unknown" and self.entry_record_id not in self.jobs

    @property
    def is_doubled(self) -> bool:
        return len(self.jobs) > 1 or self.jobs_afterwards > 1

    @property
    def secrets(self) -> list[str]:
        """Texts that show a secret."""
        return [text for text in self.shown if KEY in text or TOKEN.search(text)]


def cases() -> Iterator[Case]:
    """Every fault at every endpoint where it can occur: once, twice, always."""
    for name, kind in FAULTS.items():
        for endpoint in kind.endpoints:
            for times in (1, 2, None):
                yield Case(Fault(name, endpoint, times, value=VALUES.get(name, "")))
            if name in AT_LENGTH:
                for times in (1, None):
                    yield Case(Fault(name, endpoint, times, value=AT_LENGTH[name]), at_length=True)


async def run_matrix(folder: Path, chosen: list[Case]) -> list[Outcome]:
    """The outcomes of the cases, in their order."""
    outcomes = [Outcome(case) for case in chosen]
    places = anyio.CapacityLimiter(AT_ONCE)

    async def run(index: int) -> None:
        async with places:
            await _run_case(outcomes[index], folder / str(index))

    async with anyio.create_task_group() as group:
        for index in range(len(outcomes)):
            group.start_soon(run, index)
    return outcomes


async def _run_case(outcome: Outcome, folder: Path) -> None:
    service = ScriptedService(folder / "service", engine=tiny_picture, queue=0, draw=0)
    running = ScriptedServer(service)
    await anyio.to_thread.run_sync(running.__enter__)
    try:
        world = _World(folder, service, running.base_url, outcome)
        await world.strike()
        if outcome.case.fault.endpoint != "styles" and (outcome.ended != "done" or outcome.unsaved):
            await world.look_afterwards()
    finally:
        await anyio.to_thread.run_sync(running.close)
    outcome.shown += files(folder / "state")


@dataclass
class _World:
    folder: Path
    service: ScriptedService
    url: str
    outcome: Outcome

    async def strike(self) -> None:
        """The call that the fault strikes."""
        case, outcome = self.outcome.case, self.outcome
        await self._prepare(case.fault.endpoint)
        self.service.faults.add(case.fault)
        began = perf_counter()
        async with self._generations() as generations:
            try:
                with anyio.fail_after(60):
                    outcome.ended = await self._call(generations)
            except ArtaError as exc:
                outcome.ended, outcome.record_id = _class_of(exc), exc.record_id
                outcome.said = exc.message
                outcome.shown += [*_texts_of_error(exc)]
            outcome.seconds = perf_counter() - began
        self._count()
        self.service.faults.clear()

    async def look_afterwards(self) -> None:
        """What the next process finds, once the trouble is over."""
        outcome = self.outcome
        submits = self.service.seen["submit"]
        await self._door_is_open()
        async with self._generations() as generations:
            if outcome.entry_record_id is not None:
                found = await _ending(generations.get(outcome.entry_record_id, max_wait=MAX_WAIT))
                outcome.afterwards, outcome.unsaved_afterwards = found
            again = generations.generate(outcome.case.request, max_wait=MAX_WAIT)
            outcome.again, _ = await _ending(again)
        outcome.submits_afterwards = self.service.seen["submit"] - submits
        outcome.jobs_afterwards = len(self.service.jobs)

    async def _door_is_open(self) -> None:
        port = int(self.url.rpartition(":")[2])
        with anyio.fail_after(MAX_WAIT):
            while True:
                with suppress(OSError):
                    await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                    return
                await anyio.sleep(0.02)

    async def _call(self, generations: Generations) -> str:
        if self.outcome.case.fault.endpoint == "styles":
            await self._styles()
            return "done"
        updates: list[Update] = []

        async def on_update(update: Update) -> None:
            updates.append(update)

        done = await generations.generate(self.outcome.case.request, on_update)
        self.outcome.record_id = done.record_id
        self.outcome.unsaved = _unsaved(done)
        self.outcome.shown += [repr(done), repr(updates), str(done.to_dict()), repr(render(done))]
        return done.status

    async def _styles(self) -> None:
        async with open_background() as background, self._open_backend(background) as backend:
            names = await backend.client.list_styles()
        self.outcome.shown.append(repr(names))

    def _count(self) -> None:
        seen, outcome = self.service.seen, self.outcome
        outcome.jobs = self.service.jobs
        outcome.accounts = len(self.service.accounts)
        outcome.sign_ups, outcome.refreshes = seen["sign_up"], seen["refresh"]
        outcome.submits, outcome.leaks = seen["submit"], seen["leaks"]
        outcome.submit_statuses = [
            event.status for event in self.service.log if event.endpoint == "submit"
        ]

    async def _prepare(self, endpoint: str) -> None:
        """An account in the state that makes the endpoint be asked: none, stale or fresh."""
        if endpoint == "sign_up":
            return
        account = self.service.store.open_account()
        now = time()
        issued = now - 7200 if endpoint == "refresh" else now
        claims = Claims("id", account.user_id, account.serial, issued + 3600)
        kept = Account(
            id_token=Secret(self.service.store.sign(claims)),
            refresh_token=Secret(
                self.service.store.sign(Claims("refresh", account.user_id, account.serial, 0.0))
            ),
            issued_at=issued,
            expires_at=issued + 3600,
            user_id=account.user_id,
        )
        state = SqliteState(self.folder / "state")
        await state.keep_account("matrix", kept, fence=0)
        await state.close()

    @asynccontextmanager
    async def _generations(self) -> AsyncGenerator[Generations]:
        generations = Generations(
            self._open_backend,
            backend="arta",
            service="matrix",
            limits=self.outcome.case.limits,
            output_dir=self.folder / "pictures",
            schedule=EagerSchedule,
        )
        async with generations:
            yield generations
            if self.outcome.case.fault.endpoint != "styles":
                await self._remember(generations)

    async def _remember(self, generations: Generations) -> None:
        """What the journal says right after the first call."""
        if self.outcome.entry:
            return
        found = await generations.history()
        assert len(found) == 1, f"{self.outcome.case}: {len(found)} entries"
        self.outcome.entry, self.outcome.entry_record_id = found[0].status, found[0].record_id
        self.outcome.shown.append(repr(found))

    def _open_backend(self, background: BackgroundTasks) -> AbstractAsyncContextManager[Backend]:
        case = self.outcome.case
        timeout = SHORT if case.at_length and not self.outcome.ended else LONG
        client = Client(
            state_dir=self.folder / "state",
            addresses=Addresses.at_origin(self.url, styles_url=self.url + STYLES_PATH),
            app=httpx.AsyncHTTPTransport(verify=SSL, http2=True),
            account="matrix",
            key=KEY,
            exchange_timeout=timeout,
            download_timeout=timeout,
        )
        return client.open_backend(background)


async def _ending(call: Awaitable[Generation]) -> tuple[str, int]:
    try:
        with anyio.fail_after(60):
            found = await call
    except ArtaError as exc:
        return _class_of(exc), 0
    return found.status, _unsaved(found)


def _unsaved(generation: Generation) -> int:
    return sum(image.path is None for image in generation.images)


def _class_of(exc: ArtaError) -> str:
    """The class in the tree that a caller reads about, not one of our own below it."""
    return next(c.__name__ for c in type(exc).__mro__ if c.__module__ == "arta_mcp.errors")


def _texts_of_error(exc: ArtaError) -> Iterator[str]:
    yield from (exc.message, exc.hint, str(exc), repr(exc), explain(exc), str(vars(exc)))
    yield "".join(traceback.format_exception(exc))


def files(folder: Path) -> Iterator[str]:
    """The bytes of every file of the state folder that is not the token file."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "account-matrix.json":
            yield path.name + path.read_bytes().decode("latin-1")


def table(outcomes: Iterable[Outcome]) -> str:
    """What came of each fault at each endpoint: struck once, and always where that differs."""
    ended: dict[str, dict[str, dict[int | None, str]]] = {}
    for outcome in outcomes:
        fault = outcome.case.fault
        row = ended.setdefault(outcome.case.row, {})
        row.setdefault(fault.endpoint, {})[fault.times] = _cell(outcome)
    lines = [f"| fault | {' | '.join(ENDPOINTS)} |", f"|---|{'---|' * len(ENDPOINTS)}"]
    for name, row in ended.items():
        cells = [_once_and_always(row.get(endpoint)) for endpoint in ENDPOINTS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def totals(outcomes: Iterable[Outcome]) -> str:
    """The counts by endpoint."""
    lines = [
        "| endpoint | faults tried | recovered | reported | lost | doubled | secrets shown |",
        "|---|---|---|---|---|---|---|",
    ]
    counted = list(outcomes)
    for endpoint in (*ENDPOINTS, ""):
        some = [one for one in counted if endpoint in ("", one.case.fault.endpoint)]
        recovered = sum(one.ended == "done" and not one.unsaved for one in some)
        counts = (
            len(some),
            recovered,
            len(some) - recovered,
            sum(one.is_lost for one in some),
            sum(one.is_doubled for one in some),
            sum(bool(one.secrets) for one in some),
        )
        lines.append(f"| {endpoint or 'all'} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines) + "\n"


def with_matrix(page: str, outcomes: list[Outcome]) -> str:
    """docs/reliability.md with what became of every fault."""
    return between(page, "matrix", f"{totals(outcomes)}\n{table(outcomes)}")


def between(page: str, name: str, text: str) -> str:
    """The page with other text between two of its markers."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    head, _, rest = page.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}{text}{end}{tail}"


def _cell(outcome: Outcome) -> str:
    if outcome.ended != "done":
        return f"`{outcome.ended}`"
    return "done, not saved" if outcome.unsaved else "done"


def _once_and_always(cell: Mapping[int | None, str] | None) -> str:
    if cell is None:
        return ""
    once, always = cell[1], cell[None]
    return once if once == always else f"{once}; always: {always}"
