"""Runs the official conformance suite against `serve --http` and against its fixtures.

`python tools/run_conformance.py` installs the suite on first use, runs its stable line and its
alpha on both revisions, and ends with 1 for a failure that tests/conformance/baseline.toml does not
list, or for a scenario in it that passes. `--report FOLDER` keeps what each scenario found.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from arta_mcp.config import without_settings
from harness.clients import conformance

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "tests" / "conformance" / "fixture_server.py"
BASELINE = ROOT / "tests" / "conformance" / "baseline.toml"

START_TIMEOUT, RUN_TIMEOUT = 60.0, 300.0
"""seconds, on a machine that does other things too"""

RUNS = {
    "0.1 all": ("conformance-stable", "--suite", "all"),
    "0.2 2025-11-25": ("conformance-next", "--requirements", "2025-11-25"),
    "0.2 2026-07-28": ("conformance-next", "--requirements", "2026-07-28"),
}
"""a run's name in the baseline -> the line of the suite, and what it is told to run"""

SERVERS: dict[str, Callable[[Path, int], list[str]]] = {
    "arta-mcp": lambda _, port: [
        str(Path(sys.executable).with_name("arta-mcp")),
        *("serve", "--http", "--port", str(port)),
    ],
    "fixtures": lambda folder, port: [sys.executable, str(FIXTURES), str(folder), str(port)],
}
"""a server's name in the baseline -> its command, by its state folder and port"""

Baseline = dict[str, dict[str, dict[str, str]]]
"""server -> run -> scenario -> why it fails"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Runs the conformance suite.")
    parser.add_argument("--report", type=Path, help="a folder that keeps what was found")
    parser.add_argument("--server", choices=SERVERS, action="append", help="only this one")
    options = parser.parse_args(arguments)
    node, suite = conformance(need)
    baseline: Baseline = tomllib.loads(BASELINE.read_text(encoding="utf-8"))
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        report: Path = options.report or Path(scratch) / "report"
        for name in options.server or SERVERS:
            with running(name, Path(scratch) / name) as url:
                for run, (line, *what) in RUNS.items():
                    known = baseline.get(name, {}).get(run, {})
                    expected = Path(scratch) / "expected.yml"
                    listed = "".join(f"  - {scenario}\n" for scenario in known)
                    expected.write_text(f"server:\n{listed}" if known else "server: []\n")
                    package = suite / "node_modules" / line / "dist" / "index.js"
                    where = report / f"{name} {run}".replace(" ", "-")
                    command = [str(node), str(package), "server", "--url", url, *what]
                    command += ["--expected-failures", str(expected), "-o", str(where)]
                    began = time.monotonic()
                    ended = subprocess.run(
                        command, capture_output=True, text=True, timeout=RUN_TIMEOUT, check=False
                    )
                    took = time.monotonic() - began
                    totals = re.findall(r"^Total: (.+)$", ended.stdout, re.MULTILINE)
                    status = "ok" if ended.returncode == 0 else "FAILED"
                    print(f"{status:<7} {name}, {run}: {''.join(totals)}; {took:.0f} s")
                    if ended.returncode:
                        failed.append(run)
                        print(ended.stdout[-6000:] + ended.stderr[-2000:])
    return int(bool(failed))


@contextmanager
def running(name: str, folder: Path) -> Generator[str]:
    """A server with a state of its own; gives its address."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    environ = without_settings(os.environ) | {"ARTA_STATE_DIR": str(folder)}
    process = subprocess.Popen(SERVERS[name](folder, port), env=environ)
    try:
        until = time.monotonic() + START_TIMEOUT
        while not is_open(port):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the server {name} does not start")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(START_TIMEOUT)


def is_open(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def need(there: bool, reason: str) -> None:
    if not there:
        raise SystemExit(reason)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
