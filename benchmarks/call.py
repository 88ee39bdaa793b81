"""What a generation costs us: CPU and wall time against the bare HTTP calls that it needs.

`python benchmarks/call.py [--quick]`. Five pairs, of which the median is judged. Both do the same
work on one service in another process: one submit, looks every 30 ms until the job is done (about
three). Ours also keeps the journal, the poll schedule, and renders what MCP shows. `straight` is
how other clients do it: a new connection for every call.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import httpx
from bench_world import Report, generations_on, service_process, spread

from arta_mcp.generations.schedule import PollSchedule
from arta_mcp.generations.service import Generations
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.server.content import render

LOOK_EVERY = 0.03
JOB = 0.08
"""seconds of a job, between the second look and the third, also of who has more to do meanwhile"""
FORM = {
    "prompt": "a red fox in snow",
    "negative_prompt": "blurry",
    "style": "Flux",
    "images_num": "1",
    "cfg_scale": "7",
    "steps": "30",
    "aspect_ratio": "1:1",
    "seed": "7",
}


class Fixed(PollSchedule):
    """The same looks for everybody, counted."""

    looks = 0

    def delay(self, waited: float, phase: str | None = None) -> float:
        Fixed.looks += 1
        return LOOK_EVERY


async def bare(client: httpx.AsyncClient, url: str, token: str) -> int:
    """The calls alone, on a connection that is kept."""
    headers = {"authorization": token}
    answer = await client.post(f"{url}/api/v1/text2image", data=FORM, headers=headers)
    job, looks = answer.json(), 0
    while job["status"] != "DONE":
        await anyio.sleep(LOOK_EVERY)
        status = f"{url}/api/v1/text2image/{job['record_id']}/status"
        job, looks = (await client.get(status, headers=headers)).json(), looks + 1
    return looks


async def straight(url: str, token: str) -> int:
    """The same with a new client, and so a new connection, for every call."""
    headers = {"authorization": token}
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{url}/api/v1/text2image", data=FORM, headers=headers)
    job, looks = answer.json(), 0
    while job["status"] != "DONE":
        await anyio.sleep(LOOK_EVERY)
        status = f"{url}/api/v1/text2image/{job['record_id']}/status"
        async with httpx.AsyncClient() as client:
            job, looks = (await client.get(status, headers=headers)).json(), looks + 1
    return looks


async def ours(generations: Generations) -> int:
    before = Fixed.looks

    async def on_update(_: object) -> None: ...

    done = await generations.generate(GenerationRequest(prompt="a red fox in snow"), on_update)
    render(done)
    return Fixed.looks - before


async def measure(rounds: int, url: str, folder: Path) -> dict[str, list[tuple[float, ...]]]:
    """For each: CPU and wall time in seconds and the looks of every round."""
    found: dict[str, list[tuple[float, ...]]] = {"bare": [], "ours": [], "straight": []}
    limits = {"ARTA_MIN_POLL_INTERVAL": "0.01"}
    async with (
        httpx.AsyncClient() as client,
        generations_on(url, folder, schedule=Fixed, **limits) as generations,
    ):
        sign_up = await client.post(f"{url}/v1/accounts:signUp?key=k", json={})
        token = sign_up.json()["idToken"]
        calls: dict[str, Callable[[], Awaitable[int]]] = {
            "bare": lambda: bare(client, url, token),
            "ours": lambda: ours(generations),
            "straight": lambda: straight(url, token),
        }
        for number in range(rounds + 3):
            for name, call in calls.items():
                cpu, wall = time.process_time(), time.perf_counter()
                looks = await call()
                spent = (time.process_time() - cpu, time.perf_counter() - wall, looks)
                if number >= 3:  # the first three warm everybody up
                    found[name].append(spent)
    return found


def main() -> int:
    quick = "--quick" in sys.argv
    pairs, rounds = (3, 15) if quick else (5, 60)
    ratios: dict[str, dict[str, list[float]]] = {}
    size: dict[str, list[float]] = {}
    looks: dict[str, list[float]] = {}
    for _ in range(pairs):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with service_process(folder / "service", queue=JOB, draw=0.0) as url:
                found = anyio.run(measure, rounds, url, folder / "state")
        for index, what in enumerate(("CPU", "wall")):
            middle = {
                who: statistics.median(spent[index] for spent in every)
                for who, every in found.items()
            }
            for who, median in middle.items():
                ratios.setdefault(who, {}).setdefault(what, []).append(median / middle["bare"])
            size.setdefault(what, []).append(middle["bare"] * 1000)
        for who, every in found.items():
            looks.setdefault(who, []).append(statistics.mean(spent[2] for spent in every))
    report = Report("call")
    report.table(
        f"{pairs} pairs of {rounds} generations each, interleaved; to the bare calls (1.00 is"
        f" {statistics.median(size['CPU']):.1f} ms of CPU, {statistics.median(size['wall']):.0f}"
        " ms of wall time)",
        ["who", "CPU", "wall", "looks"],
        [
            [who, spread(found["CPU"]), spread(found["wall"]), spread(looks[who])]
            for who, found in ratios.items()
        ],
    )
    ours = statistics.median(ratios["ours"]["CPU"])
    report.budget("our CPU a generation, to the bare calls", ours, 1.9)
    return report.end(quick=quick, ratios=ratios)


if __name__ == "__main__":
    raise SystemExit(main())
