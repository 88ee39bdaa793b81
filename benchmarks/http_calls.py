"""Calls that one process holds over HTTP: what they add, and what each costs.

`python benchmarks/http_calls.py [--quick]`; not `http.py`, which every import of Python's own
package of that name would find. The service runs in another process, and so does the client; jobs
take log-normal times round 12 s (sigma 0.1), and 40 calls come in a second, so that nearly all are
held at once. Calls are made by hand, by 20 callers with tokens, without idempotency keys, and the
hourly limit counts them, as it does by default. *Over* is a call's time less that of its job, by
the service's own clock: everything before the order and after the picture. *Added* is the p95 of
that less the p95 of twenty calls at once. SQLite and Redis take turns in being first; medians of
the pairs. CPU is that of our process alone; memory is the most that it had, less what it had after
its first twenty calls.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
from bench_world import Report, environ_for, quantile, service_process

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.http_server import RunningServer, http_server
from harness.installed import Machine
from harness.stores import Kind, RedisServer, find_server, running_server
from harness.tool_calls import Unanswered, call_tool, new_client

JOB, SIGMA, LATENCY = 12.0, 0.1, 0.02
RATE = 40.0
"""calls that come in a second"""

FEW, LEARNT = 20, 50
"""calls that nothing is held beside, and those from which the time of jobs is learnt"""

CALLERS = 20
STORES: tuple[Kind, ...] = ("sqlite", "redis")

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

OURS = ("info", "hello", "client|setinfo")
"""commands of the measuring itself"""


def token(number: int) -> str:
    return f"the-token-of-caller-{number % CALLERS}"


class Measured:
    """One server on one store, and what it and the store have used."""

    def __init__(self, server: RunningServer, store: RedisServer | None, records: Path) -> None:
        self._process, self._store, self._records = server.process.pid, store, records
        self._url, self._number, self._rested = server.url, 0, 0.0

    def cpu(self) -> float:
        """Seconds of the server's process so far."""
        stat = Path(f"/proc/{self._process}/stat").read_text(encoding="ascii")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / TICKS

    def memory(self) -> float:
        """Resident megabytes of the server's process."""
        statm = Path(f"/proc/{self._process}/statm").read_text(encoding="ascii")
        return int(statm.split()[1]) * PAGE / 1e6

    def store_use(self) -> tuple[float, float, float]:
        """Commands, bytes and CPU seconds of the Redis server so far."""
        if self._store is None:
            return 0.0, 0.0, 0.0
        commands = self._store.command("INFO", "commandstats")
        calls = sum(
            about["calls"]
            for name, about in commands.items()
            if name.removeprefix("cmdstat_") not in OURS
        )
        stats, used = self._store.command("INFO", "stats"), self._store.command("INFO", "cpu")
        sent = stats["total_net_input_bytes"] + stats["total_net_output_bytes"]
        return calls, sent, used["used_cpu_user"] + used["used_cpu_sys"]

    async def hold(self, count: int) -> dict[str, float]:
        """So many calls, and what they came to."""
        over: list[float] = []
        most = [self.memory()]

        async def one(client: httpx.AsyncClient, number: int) -> None:
            given: dict[str, object] = {"prompt": f"a red fox in snow, number {number}"}
            called = time.time()
            try:
                result = await call_tool(
                    client, self._url, "generate_image", given, token=token(number)
                )
            except Unanswered as exc:
                print(f"call {number}: {exc}")
                return
            took = time.time() - called
            content = result.get("structuredContent") or {}
            if content.get("status") != "done":
                print(f"call {number}: {content.get('status') or result['content']}")
                return
            record = self._records / f"{content['record_id']}.json"
            job = json.loads(await anyio.to_thread.run_sync(record.read_bytes))
            over.append(took - job["queue"] - job["draw"])

        async def watch() -> None:
            while True:
                most.append(self.memory())
                await anyio.sleep(0.2)

        used, before = self.store_use(), self.cpu()
        async with AsyncExitStack() as stack, anyio.create_task_group() as watching:
            # One for each caller: a pool of hundreds of connections takes a core for itself.
            clients = [await stack.enter_async_context(new_client()) for _ in range(CALLERS)]
            watching.start_soon(watch)
            async with anyio.create_task_group() as group:
                for _ in range(count):
                    group.start_soon(one, clients[self._number % CALLERS], self._number)
                    self._number += 1
                    await anyio.sleep(1 / RATE)
            watching.cancel_scope.cancel()
        commands, sent, store_cpu = (
            (now - then) / count for now, then in zip(self.store_use(), used, strict=True)
        )
        return {
            "done": len(over),
            "p50": quantile(over, 0.5) if over else 0.0,
            "p95": quantile(over, 0.95) if over else 0.0,
            "cpu": (self.cpu() - before) / count * 1000,
            "megabytes": max(most) - self._rested,
            "commands": commands,
            "kilobytes": sent / 1000,
            "store_cpu": store_cpu * 1000,
        }

    async def run(self, counts: tuple[int, ...]) -> dict[str, dict[str, float]]:
        """What each number of held calls came to, and `few`."""
        await self.hold(FEW)
        self._rested = self.memory()
        await self.hold(LEARNT)
        few = await self.hold(FEW)
        found = {"few": few}
        for count in counts:
            found[str(count)] = await self.hold(count)
            found[str(count)]["added"] = found[str(count)]["p95"] - few["p95"]
        return found


def measure(kind: Kind, counts: tuple[int, ...]) -> dict[str, dict[str, float]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = {"queue": JOB, "sigma": SIGMA, "draw": 0.0, "latency": LATENCY}
        url = stack.enter_context(service_process(folder / "service", **options))
        settings = environ_for(
            url,
            folder / "state",
            ARTA_HTTP_TOKENS=",".join(f"c{number}={token(number)}" for number in range(CALLERS)),
            ARTA_HTTP_CALLER_CONCURRENCY="400",
            ARTA_MAX_CONCURRENCY="400",
        )
        store = None
        if kind != "sqlite":
            (folder / "store").mkdir()
            store = stack.enter_context(running_server(kind, folder / "store"))
            settings["ARTA_STATE_URL"] = store.url
        server = stack.enter_context(http_server(Machine.new(folder / "machine").set(**settings)))
        return anyio.run(Measured(server, store, folder / "service" / "records").run, counts)


def main() -> int:
    quick = "--quick" in sys.argv
    counts, pairs = ((40,), 1) if quick else ((100, 200, 400), 2)
    if find_server("redis") is None:
        print("error: redis-server is not installed\nhint: `apt-get install redis-server`")
        return 2
    report = Report("http_calls")
    runs: dict[str, list[dict[str, dict[str, float]]]] = {kind: [] for kind in STORES}
    for number in range(pairs):
        for kind in STORES if number % 2 else STORES[::-1]:
            runs[kind].append(measure(kind, counts))

    def middle(kind: str, held: int | str, name: str) -> float:
        return statistics.median(run[str(held)][name] for run in runs[kind])

    rows: list[list[str]] = []
    for kind in STORES:
        for held in ("few", *counts):
            forms = {"done": ".0f", "p50": ".2f", "p95": ".2f", "cpu": ".1f", "megabytes": ".0f"}
            forms |= {"commands": ".1f", "kilobytes": ".1f", "store_cpu": ".2f"}
            cells = [f"{middle(kind, held, name):{form}}" for name, form in forms.items()]
            rows.append([kind, str(FEW if held == "few" else held), *cells])
    head = ["state", "held", "done", "over, s: p50", "p95", "CPU ms a generation", "MB on top"]
    head += ["Redis commands a generation", "kB", "its CPU ms"]
    report.table(f"Calls held at once by one process; medians of {pairs}", head, rows)
    if len(counts) > 1:
        least, most = counts[0], counts[-1]
        slopes: list[list[str]] = []
        for kind in STORES:
            cells: list[str] = []
            for name in ("cpu", "commands", "kilobytes", "store_cpu"):
                total = most * middle(kind, most, name) - least * middle(kind, least, name)
                cells.append(f"{total / (most - least):.1f}")
            more = middle(kind, most, "megabytes") - middle(kind, least, "megabytes")
            slopes.append([kind, *cells, f"{1000 * more / (most - least):.0f}"])
        head = ["state", "CPU ms", "Redis commands", "Redis kB", "Redis CPU ms", "kB of memory"]
        report.table(f"What one more call costs, from {least} to {most} held", head, slopes)
    judged = counts[min(1, len(counts) - 1)]
    for kind in STORES:
        what = f"{judged} held on {kind}"
        done = min(run[str(judged)]["done"] for run in runs[kind])
        report.budget(f"{what}: not done", judged - done, 0.0)
        report.budget(f"{what}: seconds added at p95", middle(kind, judged, "added"), 0.5)
        report.budget(f"{what}: MB on top", middle(kind, judged, "megabytes"), 30.0)
    ratio = middle("redis", judged, "cpu") / middle("sqlite", judged, "cpu")
    report.budget(f"{judged} held: CPU on Redis, to that on SQLite", ratio, 1.6)
    # those of scripts, of the hourly limit and of the signs of life among them
    report.budget(f"{judged} held: Redis commands", middle("redis", judged, "commands"), 25.0)
    report.budget(f"{judged} held: Redis kB", middle("redis", judged, "kilobytes"), 5.0)
    return report.end(quick=quick, results=runs)


if __name__ == "__main__":
    raise SystemExit(main())
