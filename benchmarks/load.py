"""Many generations at once in one process: what going through us adds.

`python benchmarks/load.py [--quick]`. The service runs in another process; jobs take log-normal
times round 6 s (sigma 0.35), every answer 20 ms. Late is from the moment a job is done, by the
service's own clock, to the answer. `bare` are the same HTTP calls on one httpx client and nothing
else, with the same looks (every 0.5 s): what the machine, httpx and the poll cost anybody. Added
is our late at a quantile less theirs, one after the other in one run. The worst ping is the
longest pause of the event loop meanwhile.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import httpx
from bench_world import generations_on, memory, quantile, service_process, table, verdict, write

from arta_mcp.app import open_generations
from arta_mcp.config import Settings
from arta_mcp.generations.schedule import PollSchedule
from arta_mcp.generations.service import Generations
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.server.content import render

JOB = 6.0
LATENCY = 0.02
LOOK_EVERY = 0.5
FORM = {"prompt": "a red fox in snow", "style": "Flux", "images_num": "1", "aspect_ratio": "1:1"}


class Fixed(PollSchedule):
    """The same looks for both."""

    def delay(self, waited: float, phase: str | None = None) -> float:
        return LOOK_EVERY


async def ours(generations: Generations) -> str:
    done = await generations.generate(GenerationRequest(prompt="a red fox in snow"))
    render(done)
    return done.record_id or ""


async def bare(client: httpx.AsyncClient, url: str, token: str) -> str:
    headers = {"authorization": token}
    job = (await client.post(f"{url}/api/v1/text2image", data=FORM, headers=headers)).json()
    status = f"{url}/api/v1/text2image/{job['record_id']}/status"
    while job["status"] != "DONE":
        await anyio.sleep(LOOK_EVERY)
        job = (await client.get(status, headers=headers)).json()
    return job["record_id"]


async def ping(pauses: list[float]) -> None:
    """How late the event loop comes to a thing that is due every 10 ms."""
    while True:
        due = time.perf_counter() + 0.01
        await anyio.sleep(0.01)
        pauses.append(time.perf_counter() - due)


async def crowd(count: int, call: Callable[[], Awaitable[str]], folder: Path) -> dict[str, float]:
    late: list[float] = []
    pauses: list[float] = []

    async def one() -> None:
        record_id = await call()
        answered = time.time()
        record = json.loads((folder / "records" / f"{record_id}.json").read_bytes())
        late.append(answered - record["created_at"] - record["queue"] - record["draw"])

    before = memory()
    async with anyio.create_task_group() as pinger:
        pinger.start_soon(ping, pauses)
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(one)
        pinger.cancel_scope.cancel()
    quantiles = {name: quantile(late, share) for name, share in QUANTILES.items()}
    return quantiles | {
        "done": len(late),
        "worst_ping": max(pauses),
        "megabytes": memory() - before,
    }


QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


async def both(count: int, url: str, folder: Path, state: Path) -> dict[str, dict[str, float]]:
    limits = httpx.Limits(max_connections=None)
    more = {"ARTA_MAX_CONCURRENCY": "2000"}
    async with (
        httpx.AsyncClient(timeout=60, limits=limits) as client,
        generations_on(url, state, schedule=Fixed, **more) as generations,
    ):
        token = (await client.post(f"{url}/v1/accounts:signUp?key=k", json={})).json()["idToken"]
        await ours(generations)
        return {
            "bare": await crowd(count, lambda: bare(client, url, token), folder),
            "ours": await crowd(count, lambda: ours(generations), folder),
        }


async def sketches(count: int, state: Path) -> dict[str, float]:
    """So many real sketches at once by the embedded service inside this process."""
    environ = {"ARTA_STATE_DIR": str(state), "ARTA_MAX_CONCURRENCY": "2000"}
    pauses: list[float] = []
    began = time.perf_counter()
    async with (
        open_generations(Settings.from_env(environ)) as generations,
        anyio.create_task_group() as pinger,
    ):
        await generations.history()  # opens everything
        pinger.start_soon(ping, pauses)
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(ours, generations)
        pinger.cancel_scope.cancel()
    return {
        "seconds": time.perf_counter() - began,
        "worst_ping": max(pauses),
        "p99_ping": quantile(pauses, 0.99),
    }


def main() -> int:
    counts = (1, 10, 50) if "--quick" in sys.argv else (1, 10, 50, 200, 1000)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "service"
            options = {"queue": JOB, "sigma": 0.35, "draw": 0.0, "latency": LATENCY}
            with service_process(folder, **options) as url:
                results[str(count)] = anyio.run(both, count, url, folder, Path(name) / "state")
    rows: list[list[str]] = []
    for count, pair in results.items():
        for who, found in pair.items():
            late = [f"{found[name] * 1000:.0f}" for name in (*QUANTILES, "worst_ping")]
            rows.append([count, who, f"{found['done']}", *late, f"{found['megabytes']:.0f}"])
    head = ["at once", "who", "done", "late p50 ms", "p95", "p99", "worst ping ms", "MB on top"]
    table("Late: from done at the service to the answer", head, rows)
    drawing = 8 if "--quick" in sys.argv else 50
    with tempfile.TemporaryDirectory() as name:
        drawn = anyio.run(sketches, drawing, Path(name) / "state")
    print(
        f"\n{drawing} sketches at once by the embedded service in our own process:"
        f" {drawn['seconds']:.1f} s in all, ping p99 {drawn['p99_ping'] * 1000:.0f} ms,"
        f" worst {drawn['worst_ping'] * 1000:.0f} ms"
    )
    write("load", {"results": results, "sketches": drawn})
    budgets: dict[str, tuple[float, float]] = {}
    for count, pair in results.items():
        if count in ("50", "200"):
            added = pair["ours"]["p95"] - pair["bare"]["p95"]
            budgets[f"added seconds at p95, {count} at once"] = (added, 0.25)
            budgets[f"MB on top, {count} at once"] = (pair["ours"]["megabytes"], 100.0)
    return verdict(budgets)


if __name__ == "__main__":
    raise SystemExit(main())
