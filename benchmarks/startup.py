"""How long a host waits for its first answers, and what the server weighs meanwhile.

Three servers are started in turn, round after round, by the same host: ours with quick replies,
ours without them, and a bare `MCPServer` with one tool, which is the measure. A host spawns the
process and writes `initialize` at once; it sends `tools/list` when that is answered and calls
`list_models` then. Times count from before the spawn. `cpu` is what the process has worked until it
answered the call; other programs on the machine disturb it least. A ratio is of one round, in which
nothing else differs; the median of these ratios is judged. Without bytecode means what a first
start from a fresh or read-only installation means: every module is compiled anew, those of Python
too. Reads /proc, so it is for Linux.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bench_world import write

HERE = Path(__file__).parent
OURS = str(Path(sys.executable).parent / "arta-mcp")
BARE = "bare MCPServer"
CASES: dict[str, tuple[list[str], dict[str, str]]] = {
    BARE: ([sys.executable, str(HERE / "bare_server.py")], {}),
    "quick replies": ([OURS], {"ARTA_QUICK_REPLIES": "on"}),
    "no quick replies": ([OURS], {"ARTA_QUICK_REPLIES": "off"}),
}
METRICS = ("initialize", "tools/list", "first call", "cpu", "memory")
BUDGETS = {
    ("quick replies", "tools/list"): 0.12,
    ("quick replies", "first call"): 1.0,
    ("quick replies", "memory"): 1.1,
    ("no quick replies", "tools/list"): 1.05,
    ("no quick replies", "memory"): 1.1,
}
"""against the bare server, with bytecode"""


@dataclass
class Row:
    """One metric of one case; ratios are those of single rounds."""

    bytecode: bool
    case: str
    metric: str
    rounds: int
    median: float
    least: float
    most: float
    ratio: float
    least_ratio: float
    most_ratio: float
    budget: float | None

    @property
    def missed(self) -> bool:
        return self.budget is not None and self.ratio > self.budget


class Host:
    """Talks to one server over its lifetime and takes the time."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
        )

    def measure(self) -> tuple[float, ...]:
        """One value for each of `METRICS`."""
        client = {"name": "host", "version": "1"}
        opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        with self._process:
            first = self._ask("initialize", opening)
            self._say({"method": "notifications/initialized"})
            listed = self._ask("tools/list", {})
            called = self._ask("tools/call", {"name": "list_models", "arguments": {}})
            return first, listed, called, worked(self._process.pid), resident(self._process.pid)

    def _ask(self, method: str, params: Mapping[str, object]) -> float:
        self._say({"id": method, "method": method, "params": params})
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        took = time.perf_counter() - self._began
        if answer.get("id") != method or "result" not in answer or answer["result"].get("isError"):
            raise SystemExit(f"{self._process.args}: {method}: {answer}")
        return took * 1000

    def _say(self, message: dict[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self._process.stdin.flush()


def worked(pid: int) -> float:
    """Milliseconds that all threads of a process have run so far."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e6


def resident(pid: int) -> float:
    """Memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def run(rounds: int, warm: int, *, bytecode: bool) -> list[Row]:
    seen: dict[str, list[tuple[float, ...]]] = {case: [] for case in CASES}
    names = list(CASES)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(warm + rounds):
            for case in names[number % 3 :] + names[: number % 3]:
                command, settings = CASES[case]
                sample = Host(command, environment(folder, settings, bytecode=bytecode)).measure()
                if number >= warm:
                    seen[case].append(sample)
    return [
        row(case, metric, [s[i] for s in samples], [s[i] for s in seen[BARE]], bytecode=bytecode)
        for case, samples in seen.items()
        for i, metric in enumerate(METRICS)
    ]


def environment(folder: str, settings: dict[str, str], *, bytecode: bool) -> dict[str, str]:
    foreign = ("ARTA_", "PYTHONDONTWRITE", "PYTHONPYCACHE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    clean |= {"ARTA_BACKEND": "local", "ARTA_STATE_DIR": f"{folder}/state", **settings}
    if bytecode:  # written in the rounds that do not count
        return clean | {"PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
    return clean | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": f"{folder}/nothing"}


def row(
    case: str, metric: str, values: list[float], measure: list[float], *, bytecode: bool
) -> Row:
    ratios = [value / bare for value, bare in zip(values, measure, strict=True)]
    return Row(
        bytecode,
        case,
        metric,
        len(values),
        *(round(f(values), 1) for f in (statistics.median, min, max)),
        *(round(f(ratios), 3) for f in (statistics.median, min, max)),
        budget=BUDGETS.get((case, metric)) if bytecode else None,
    )


HEAD = f"{'bytecode':9}{'server':18}{'metric':12}{'median':>8}{'min':>8}{'max':>8}   " + (
    f"{'ratio':>6}{'min':>7}{'max':>7}{'budget':>8}"
)


def line(row: Row) -> str:
    budget = "" if row.budget is None else f"{row.budget:.2f}"
    return (
        f"{'with' if row.bytecode else 'without':9}{row.case:18}{row.metric:12}"
        f"{row.median:8.1f}{row.least:8.1f}{row.most:8.1f}   "
        f"{row.ratio:6.3f}{row.least_ratio:7.3f}{row.most_ratio:7.3f}{budget:>8}"
        f"{'  MISSED' if row.missed else ''}"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three rounds, bytecode only, no JSON")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args(argv)
    print(f"ms and MiB; ratios to the {BARE} of the same round\n{HEAD}")
    rows = run(3 if options.quick else options.rounds, 2, bytecode=True)
    print("\n".join(map(line, rows)), flush=True)
    if not options.quick:
        fresh = run(7, 1, bytecode=False)
        print("\n".join(map(line, fresh)))
        rows += fresh
        save(rows)
    return int(any(row.missed for row in rows))


def save(rows: list[Row]) -> None:
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    write("startup", {"machine": machine, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    sys.exit(main())
