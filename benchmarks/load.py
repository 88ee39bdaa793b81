"""Many generations at once in one process: what going through us adds.

`python benchmarks/load.py [--quick]`. The service runs in another process; jobs take log-normal
times round 6 s (sigma 0.35), every answer 20 ms. Late is from the moment a job is done, by the
service's own clock, to the answer. `bare` are the same HTTP calls on one httpx client and nothing
else, with the same looks (every 0.5 s): what the machine, httpx and the poll cost anybody. Added
is our late at a quantile less theirs. They run in pairs, each first in every other pair, and the
median of the pairs is judged: at 200 and more one pair says nothing. The worst ping is the longest
pause of the event loop meanwhile.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import httpx
from bench_world import Report, generations_on, memory, quantile, service_process

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


async def crowd_of_ours(count: int, url: str, folder: Path) -> dict[str, float]:
    more = {"ARTA_MAX_CONCURRENCY": "2000"}
    async with generations_on(url, folder / "state", schedule=Fixed, **more) as generations:
        await ours(generations)
        return await crowd(count, lambda: ours(generations), folder)


async def crowd_of_bare(count: int, url: str, folder: Path) -> dict[str, float]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        token = (await client.post(f"{url}/v1/accounts:signUp?key=k", json={})).json()["idToken"]
        await bare(client, url, token)
        return await crowd(count, lambda: bare(client, url, token), folder)


CROWDS = {"bare": crowd_of_bare, "ours": crowd_of_ours}


def main() -> int:
    quick = "--quick" in sys.argv
    pairs = {1: 1, 10: 1, 50: 2} if quick else {1: 3, 10: 3, 50: 5, 200: 5, 1000: 2}
    report = Report("load")
    results: dict[int, list[dict[str, dict[str, float]]]] = {}
    for count, number in pairs.items():
        for index in range(number):
            found: dict[str, dict[str, float]] = {}
            for who in ("ours", "bare") if index % 2 else ("bare", "ours"):
                with tempfile.TemporaryDirectory() as name:
                    folder = Path(name)
                    options = {"queue": JOB, "sigma": 0.35, "draw": 0.0, "latency": LATENCY}
                    with service_process(folder, **options) as url:
                        found[who] = anyio.run(CROWDS[who], count, url, folder)
            results.setdefault(count, []).append(found)
    rows: list[list[str]] = []
    for count, found in results.items():
        for who in ("bare", "ours"):
            middle = {
                name: statistics.median(pair[who][name] for pair in found) for name in found[0][who]
            }
            late = [f"{middle[name] * 1000:.0f}" for name in (*QUANTILES, "worst_ping")]
            rows.append([str(count), who, str(len(found)), *late, f"{middle['megabytes']:.0f}"])
        added = statistics.median(pair["ours"]["p95"] - pair["bare"]["p95"] for pair in found)
        done = min(pair["ours"]["done"] for pair in found)
        report.budget(f"{count} at once: not done", count - done, 0.0)
        if count in (50, 200):
            report.budget(f"{count} at once: seconds added at p95", added, 0.25)
            most = max(pair["ours"]["megabytes"] for pair in found)
            report.budget(f"{count} at once: MB on top", most, 100.0)
    head = ["at once", "who", "pairs", "late p50 ms", "p95", "p99", "worst ping ms", "MB on top"]
    report.table("Late: from done at the service to the answer; medians of the pairs", head, rows)
    return report.end(quick=quick, results=results)


if __name__ == "__main__":
    raise SystemExit(main())
