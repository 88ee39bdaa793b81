"""What grows: 2,000 generations in one process, and a journal of 100,000.

`python benchmarks/growth.py [--quick]`. First: one process makes 2,000 generations, one after the
other, on a service in another process; the last 200 are compared with the first 200 after 60 that
warm everything up (its poll schedule learns from 50). CPU, since the machine has other work; wall
time is told beside it. Then: what is read of a journal of 100,000 generations, as a host reads it
over MCP, and of one with 50, in turn.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import anyio
from bench_world import Report, generations_on, memory, service_process, settings_for
from mcp import Client
from mcp.types import ResourceTemplateReference

from arta_mcp.app import open_generations
from arta_mcp.config import Settings
from arta_mcp.generations.schedule import PollSchedule
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.server.build import build_server
from arta_mcp.server.content import render

JOB = 0.01
FEW, MANY = 50, 100_000
WARM = 60
HISTORY = "from arta_mcp.cli import main; import sys; sys.exit(main(['history', '--json']))"


class Eager(PollSchedule):
    """Polls every 20 ms, whatever it has learnt, which it learns all the same."""

    def delay(self, waited: float, phase: str | None = None) -> float:
        super().delay(waited, phase)
        return 0.02


async def make_many(count: int, part: int, url: str, state: Path) -> list[dict[str, float]]:
    """One row for each `part` generations: medians of a generation, and memory at the end."""
    rows: list[dict[str, float]] = []
    async with generations_on(url, state, schedule=Eager, ARTA_MIN_POLL_INTERVAL="0.01") as ours:

        async def make(number: int) -> tuple[float, float]:
            cpu, wall = time.process_time(), time.perf_counter()
            render(await ours.generate(GenerationRequest(prompt=f"a red fox in snow {number}")))
            return time.process_time() - cpu, time.perf_counter() - wall

        for number in range(WARM):
            await make(number)
        for begin in range(0, count, part):
            spent = [await make(WARM + begin + number) for number in range(part)]
            cpu, wall = (statistics.median(one) * 1000 for one in zip(*spent, strict=True))
            rows.append({"cpu_ms": cpu, "wall_ms": wall, "mb": memory()})
    return rows


def fill_journal(state: Path, settings: Settings, count: int) -> None:
    """Finished generations of 1 s each, written past the program: 100,000 calls take long."""
    image = {"url": "http://127.0.0.1:9/x.png", "name": "x", "isBlur": False, "MIME": "image/png"}
    request = GenerationRequest(prompt="a red fox in snow").model_dump_json()
    fill = """
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
        INSERT INTO journal (id, version, service, owner, fingerprint, request, style, engine,
            details, phase, created_at, answered_at, record_id, seed, submitted_at, finished_at,
            images, paths)
        SELECT lower(hex(randomblob(16))), 3, :service, '', lower(hex(randomblob(16))), :request,
            'Flux', 'arta', '{}', 'done', :begin + i, :begin + i, lower(hex(randomblob(16))), i,
            :begin + i, :begin + i + 1, :images, '[]' FROM n
    """
    values = {
        "count": count,
        "service": settings.service,
        "request": request,
        "begin": time.time() - count - 10,
        "images": json.dumps([image]),
    }
    with closing(sqlite3.connect(state / "generations.sqlite3")) as db, db:
        db.execute(fill, values)


async def open_once(url: str, state: Path) -> float:
    """Milliseconds of the first read of a process."""
    async with generations_on(url, state) as ours:
        began = time.perf_counter()
        await ours.history(1)
        return (time.perf_counter() - began) * 1000


async def compare_journals(rounds: int, url: str, few: Path, many: Path) -> dict[str, list[float]]:
    """What -> ratios of single rounds, the large journal to the small one."""
    found: dict[str, list[float]] = {}
    template = ResourceTemplateReference(type="ref/resource", uri="arta://generations/{record_id}")
    async with AsyncExitStack() as stack:
        asked = [
            await stack.enter_async_context(
                Client(build_server(open_generations(settings_for(url, state))))
            )
            for state in (few, many)
        ]
        reads: dict[str, Callable[[Client], Awaitable[object]]] = {
            "arta://generations": lambda client: client.read_resource("arta://generations"),
            "completion of a record id": lambda client: client.complete(
                template, {"name": "record_id", "value": "a"}
            ),
        }
        for number in range(rounds + 3):
            for what, read in reads.items():
                spent: list[float] = []
                for client in asked:
                    began = time.perf_counter()
                    await read(client)
                    spent.append(time.perf_counter() - began)
                if number >= 3:
                    found.setdefault(what, []).append(spent[1] / spent[0])
    return found


def list_history(url: str, state: Path) -> float:
    """Seconds of `arta-mcp history`, with its start."""
    settings = settings_for(url, state)
    environ = {
        "ARTA_BACKEND": "arta",
        "ARTA_API_KEY": "benchmark-key",
        "ARTA_BASE_URL": settings.base_url,
        "ARTA_STATE_DIR": str(state),
        "ARTA_STYLES_URL": "",
    }
    began = time.perf_counter()
    command = [sys.executable, "-c", HISTORY]
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - began
    assert len(done.stdout.splitlines()) == 20
    return seconds


def main() -> int:
    quick = "--quick" in sys.argv
    count, part, rounds = (200, 50, 20) if quick else (2000, 200, 200)
    report = Report("growth")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = folder / "few", folder / "many"
        with service_process(folder / "service", queue=JOB, draw=0.0) as url:
            rows = anyio.run(make_many, count, part, url, folder / "state")
            for state, size in ((few, FEW), (many, MANY)):
                anyio.run(open_once, url, state)
                fill_journal(state, settings_for(url, state), size)
            opens = [
                [anyio.run(open_once, url, state) for state in (few, many)]
                for _ in range(3 if quick else 11)
            ]
            found = anyio.run(compare_journals, rounds, url, few, many)
            found["the first read of a process"] = [large / small for small, large in opens]
            found["arta-mcp history"] = [
                list_history(url, many) / list_history(url, few) for _ in range(3 if quick else 7)
            ]
            megabytes = (many / "generations.sqlite3").stat().st_size / 1e6
    cells = [
        [str((i + 1) * part), f"{r['cpu_ms']:.1f}", f"{r['wall_ms']:.0f}", f"{r['mb']:.1f}"]
        for i, r in enumerate(rows)
    ]
    head = ["generations", "CPU ms a generation", "wall ms", "resident MB"]
    report.table(f"{count} generations in one process, medians of each {part}", head, cells)
    for what, key in (("CPU", "cpu_ms"), ("memory", "mb")):
        ratio = rows[-1][key] / rows[0][key]
        report.budget(f"{what} of the last {part} of {count} generations, to the first", ratio, 1.1)
    middle = {what: statistics.median(ratios) for what, ratios in found.items()}
    report.table(
        f"A journal of {MANY:,} ({megabytes:.0f} MB) to one of {FEW}; medians of single rounds",
        ["what is read", "ratio", "least", "most"],
        [
            [what, f"{middle[what]:.2f}", f"{min(ratios):.2f}", f"{max(ratios):.2f}"]
            for what, ratios in found.items()
        ],
    )
    for what, ratio in middle.items():
        report.budget(f"{what}, at {MANY:,} generations to {FEW}", ratio, 5.0)
    return report.end(quick=quick, generations=rows, journals=found)


if __name__ == "__main__":
    raise SystemExit(main())
