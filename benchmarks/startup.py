"""How long a host waits for its first answers, and what the server weighs meanwhile.

Three servers are started in turn, round after round, by the same host: ours with quick replies,
ours without them, and a bare `MCPServer` with one tool, which is the measure. A host spawns the
process and writes `initialize` at once; it sends `tools/list` when that is answered and calls
`list_models` then. Times count from before the spawn. `cpu` is what the process has worked until it
answered the call; other programs on the machine disturb it least. A ratio is of one round, in which
nothing else differs; the median of these ratios is judged. A first start is one from a fresh
or read-only installation, as `uvx` makes it: what is installed is compiled anew, and Python's own
modules are not. Reads /proc, so it is for Linux.

What is measured is what people install: a wheel with the newest dependencies, no constraints, in
`.cache/bench`. `make bench` makes that environment; this file downloads nothing. By hand:

    python -m venv --clear .cache/bench && .cache/bench/bin/pip install .

Five other image servers are started beside them if they are installed; a tool that they do not
have stands for their first call, as they would need keys for more. The recipe, as it was tried:

    npm install --prefix .cache/rivals/node @modelcontextprotocol/server-everart@0.6.2 \\
        replicate-mcp@0.9.0 mcp-image@0.14.0
    python -m venv .cache/rivals/python
    .cache/rivals/python/bin/pip install comfy-mcp==0.10.0 hoobnn-minimax-mcp==0.3.0

A rival whose program is not there, or does not answer, is left out; `make bench` installs none.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench_world import Report

HERE = Path(__file__).parent
CACHE = HERE.parent / ".cache"
FRESH = CACHE / "bench" / "bin"
BARE = "bare MCPServer"
NODE, PYTHON = CACHE / "rivals/node/node_modules", CACHE / "rivals/python/bin"
RIVALS = {
    "server-everart": (NODE / ".bin/mcp-server-everart", "EVERART_API_KEY"),
    "replicate-mcp": (NODE / "replicate-mcp/index.js", "REPLICATE_API_TOKEN"),
    "mcp-image": (NODE / ".bin/mcp-image", "GEMINI_API_KEY"),
    "comfy-mcp": (PYTHON / "comfy-mcp", "COMFY_API_KEY"),
    "hoobnn-minimax-mcp": (PYTHON / "hoobnn-minimax-mcp", "MINIMAX_API_KEY"),
}
"""name -> its program, and the variable of the key that it wants to see; it gets a word"""
METRICS = ("initialize", "tools/list", "first call", "cpu", "memory")
BUDGETS = {
    ("quick replies", "tools/list"): 0.12,
    ("quick replies", "first call"): 1.0,
    ("quick replies", "memory"): 1.1,
    ("no quick replies", "tools/list"): 1.05,
    ("no quick replies", "memory"): 1.1,
}
"""against the bare server"""
FIRST_BUDGETS = {("quick replies", "tools/list"): 0.12}
"""the same at a first start"""


@dataclass
class Row:
    """One metric of one case; ratios are those of single rounds."""

    start: str
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


class Host:
    """Talks to one server over its lifetime and takes the time."""

    def __init__(
        self, command: list[str], environ: dict[str, str], *, is_rival: bool = False
    ) -> None:
        self._is_rival = is_rival
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if is_rival else None,
            env=environ,
        )

    def measure(self) -> tuple[float, ...]:
        """One value for each of `METRICS`."""
        client = {"name": "host", "version": "1"}
        opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        with self._process:
            first = self._ask("initialize", opening)
            self._say({"method": "notifications/initialized"})
            listed = self._ask("tools/list", {})
            # One that no rival has: replicate-mcp has a `list_models`, which asks its service.
            tool = "no_such_tool" if self._is_rival else "list_models"
            called = self._ask("tools/call", {"name": tool, "arguments": {}})
            return first, listed, called, worked(self._process.pid), resident(self._process.pid)

    def _ask(self, method: str, params: Mapping[str, object]) -> float:
        self._say({"id": method, "method": method, "params": params})
        assert self._process.stdout is not None
        answer: dict[str, Any] = {}
        while answer.get("id") != method:  # between them some talk
            answer = json.loads(self._process.stdout.readline())
        took = time.perf_counter() - self._began
        if self._is_rival:  # has no such tool
            return took * 1000
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


def cases(bin_folder: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Name -> command and settings: the bare server, ours twice, and every rival that is there."""
    ours = [str(bin_folder / "arta-mcp")]
    found: dict[str, tuple[list[str], dict[str, str]]] = {
        BARE: ([str(bin_folder / "python"), str(HERE / "bare_server.py")], {}),
        "quick replies": (ours, {"ARTA_QUICK_REPLIES": "on"}),
        "no quick replies": (ours, {"ARTA_QUICK_REPLIES": "off"}),
    }
    for name, (program, key) in RIVALS.items():
        if program.exists() and answers([str(program)], {key: "none"}):
            found[name] = ([str(program)], {key: "none"})
    return found


def answers(rival: list[str], settings: dict[str, str]) -> bool:
    """Whether it starts here: one may want a newer Node, another an older SDK."""
    with tempfile.TemporaryDirectory() as folder:
        environ = environment(folder, settings)
        try:
            Host(rival, environ, is_rival=True).measure()
        except (OSError, ValueError):  # it is no program, or it ended
            return False
    return True


def run(
    rounds: int,
    warm: int,
    servers: dict[str, tuple[list[str], dict[str, str]]],
    *,
    python: Path | None = None,
) -> list[Row]:
    """The rows of some rounds; with `python`, the one that runs ours, each start is a first one."""
    seen: dict[str, list[tuple[float, ...]]] = {case: [] for case in servers}
    names = list(servers)
    with tempfile.TemporaryDirectory() as folder:
        if python:
            compile_pythons_own(python, environment(folder, {}))
        for number in range(warm + rounds):
            first = number % len(names)
            for case in names[first:] + names[:first]:
                command, settings = servers[case]
                environ = environment(folder, settings)
                if python:
                    environ["PYTHONDONTWRITEBYTECODE"] = "1"
                sample = Host(command, environ, is_rival=case in RIVALS).measure()
                if number >= warm:
                    seen[case].append(sample)
    return [
        row(case, metric, [s[i] for s in samples], [s[i] for s in seen[BARE]], first=bool(python))
        for case, samples in seen.items()
        for i, metric in enumerate(METRICS)
    ]


def compile_pythons_own(python: Path, environ: dict[str, str]) -> None:
    """Writes the bytecode of Python's own modules, and of nothing that is installed."""
    code = "import compileall, re, sysconfig as s; compileall.compile_dir(s.get_path('stdlib'),"
    code += " quiet=2, workers=0, rx=re.compile('site-packages|/test/|/idlelib/|/lib2to3/'))"
    subprocess.run([python, "-c", code], env=environ, check=False)  # of odd tests one is no Python


def environment(folder: str, settings: dict[str, str]) -> dict[str, str]:
    """What a server is started with; bytecode goes to `folder`, where nobody else has written."""
    foreign = ("ARTA_", "PYTHONDONTWRITE", "PYTHONPYCACHE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    clean |= {"ARTA_BACKEND": "local", "ARTA_STATE_DIR": f"{folder}/state", **settings}
    return clean | {"PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}


def row(case: str, metric: str, values: list[float], measure: list[float], *, first: bool) -> Row:
    ratios = [value / bare for value, bare in zip(values, measure, strict=True)]
    return Row(
        "first" if first else "later",
        case,
        metric,
        len(values),
        *(round(f(values), 1) for f in (statistics.median, min, max)),
        *(round(f(ratios), 3) for f in (statistics.median, min, max)),
        budget=(FIRST_BUDGETS if first else BUDGETS).get((case, metric)),
    )


def cells(row: Row) -> list[str]:
    """A row for people: the ratio first, then how large the thing is."""
    unit = "MiB" if row.metric == "memory" else "ms"
    ratio = f"{row.ratio:.3f} ({row.least_ratio:.3f} to {row.most_ratio:.3f})"
    return [
        row.start,
        row.case,
        row.metric,
        ratio,
        f"{row.median:.0f} {unit}",
        "" if row.budget is None else f"{row.budget:g}",
    ]


def describe(python: Path) -> str:
    """The versions that decide, as they are installed there."""
    names = "('arta-mcp', 'mcp', 'pydantic')"
    code = f"from importlib.metadata import version as v; print(*(n + ' ' + v(n) for n in {names}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three rounds, no first ones, no JSON")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args(argv)
    bin_folder, where = FRESH, "a fresh environment, the newest of all"
    if not (FRESH / "arta-mcp").exists():
        bin_folder, where = Path(sys.executable).parent, "this environment, with constraints"
        print(f"{FRESH.parent} is not there; see the head of this file")
    servers = cases(bin_folder)
    rows = run(3 if options.quick else options.rounds, 2, servers)
    if not options.quick:
        rows += run(7, 0, servers, python=bin_folder / "python")
    report = Report("startup")
    versions = describe(bin_folder / "python")
    report.table(
        f"{where}: {versions}; ratios to the {BARE} of the same round",
        ["start", "server", "metric", "ratio", "median", "budget"],
        [cells(row) for row in rows],
    )
    for row in rows:
        if row.budget is not None:
            report.budget(f"{row.start} start, {row.case}: {row.metric}", row.ratio, row.budget)
    left_out = [name for name in RIVALS if name not in servers]
    if left_out:
        print(f"\nnot installed, so left out: {', '.join(left_out)}")
    return report.end(quick=options.quick, environment=where, rows=[asdict(row) for row in rows])


if __name__ == "__main__":
    sys.exit(main())
