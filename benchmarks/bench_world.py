"""What benchmarks share: the embedded service in its own process, our rooms on it, tables, JSON."""

from __future__ import annotations

import io
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arta_mcp.app import open_generations
from arta_mcp.arta.protocol import REFRESH_PATH, SIGN_UP_PATHS
from arta_mcp.config import Settings
from arta_mcp.engines.base import ImageRequest
from arta_mcp.engines.sketch.drawing import SketchEngine
from arta_mcp.generations.schedule import PollSchedule
from arta_mcp.generations.service import Generations
from arta_mcp.local.loopback import run_forever
from arta_mcp.local.service import Service

RESULTS = Path(__file__).parent / "results"


@contextmanager
def service_process(folder: Path, **options: float) -> Iterator[str]:
    """The base URL of an embedded service in another process, so that its work is not counted."""
    command = [sys.executable, __file__, str(folder), json.dumps(options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(10)


def environ_for(url: str, state: Path, **more: str) -> dict[str, str]:
    """What a process is told of the `arta` backend whose three hosts are one local service."""
    return {
        "ARTA_BACKEND": "arta",
        "ARTA_API_KEY": "benchmark-key",
        "ARTA_BASE_URL": url,
        "ARTA_AUTH_URL": url + SIGN_UP_PATHS[0],
        "ARTA_TOKEN_REFRESH_URL": url + REFRESH_PATH,
        "ARTA_STYLES_URL": "",
        "ARTA_STATE_DIR": str(state),
        **more,
    }


def settings_for(url: str, state: Path, **more: str) -> Settings:
    """Settings of the same."""
    return Settings.from_env(environ_for(url, state, **more))


@asynccontextmanager
async def generations_on(
    url: str, state: Path, *, schedule: type[PollSchedule] = PollSchedule, **more: str
) -> AsyncGenerator[Generations]:
    async with open_generations(settings_for(url, state, **more), schedule=schedule) as generations:
        yield generations


def memory() -> float:
    """Resident megabytes of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def quantile(values: Sequence[float], share: float) -> float:
    return (
        statistics.quantiles(values, n=100)[round(share * 100) - 1]
        if len(values) > 1
        else values[0]
    )


class Report:
    """What one benchmark found: printed as it is added, kept in `results/` at the end.

    Tables and budgets are all that `tools/write_performance.py` makes docs/performance.md from.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tables: list[dict[str, object]] = []
        self._budgets: list[dict[str, object]] = []
        self._load = os.getloadavg()[0]

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        print(f"\n{title}\n")
        print_rows(head, rows)
        self._tables.append({"title": title, "head": head, "rows": rows})

    def budget(self, what: str, found: float, most: float) -> None:
        self._budgets.append({"what": what, "found": round(found, 3), "most": most})

    def end(self, *, quick: bool, **data: object) -> int:
        """Prints each budget as kept or missed; the exit code. A quick run is not kept."""
        missed = [one for one in self._budgets if is_missed(one)]
        print()
        for one in self._budgets:
            word = "MISSED" if one in missed else "kept  "
            print(f"{word}  {one['what']}: {one['found']:g} (budget {one['most']:g})")
        folder = os.environ.get("BENCH_RESULTS") or ("" if quick else str(RESULTS))
        if folder:
            about = {
                "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
                "commit": _commit(),
                "python": platform.python_version(),
                "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
                "load": [round(self._load, 1), round(os.getloadavg()[0], 1)],
                "quick": quick,
            }
            found = about | {"budgets": self._budgets, "tables": self._tables} | data
            Path(folder).mkdir(exist_ok=True)
            path = Path(folder) / f"{self._name}.json"
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return int(bool(missed))


def is_missed(budget: dict[str, Any]) -> bool:
    """Whether more was found than the budget has."""
    return budget["found"] > budget["most"]


def print_rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)))


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """`median (least to most)`"""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _tiny_picture(request: ImageRequest) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (request.seed % 256, request.index, 0)).save(buffer, "PNG")
    return buffer.getvalue()


class _Varied(Service):
    """Jobs take log-normal times round `queue`, as wide as `sigma` says."""

    def __init__(self, folder: Path, *, queue: float, sigma: float = 0.0, **options: float) -> None:
        self._median, self._sigma, self._random = queue, sigma, random.Random(7)
        super().__init__(folder, engine=SketchEngine(_tiny_picture), keep=100_000, **options)  # pyright: ignore[reportArgumentType]  # numbers

    @property
    def queue(self) -> float:
        return self._random.lognormvariate(math.log(self._median), self._sigma)

    @queue.setter
    def queue(self, _: float) -> None: ...


def _main() -> None:
    service = _Varied(Path(sys.argv[1]), **json.loads(sys.argv[2]))
    run_forever(service, on_ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    _main()
