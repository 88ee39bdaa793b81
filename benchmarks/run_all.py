"""Runs every benchmark, prints one table of all budgets, and writes what docs/ repeats of it.

`python benchmarks/run_all.py [--quick]`. A quick run writes nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_world import RESULTS, is_missed, print_rows

HERE = Path(__file__).parent
NAMES = ("startup", "loading", "schedule", "call", "load", "crowd", "growth", "http_calls")


def main() -> int:
    quick = "--quick" in sys.argv
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as name:
        results = Path(name) if quick else RESULTS
        environ = {**os.environ, "BENCH_RESULTS": str(results)}
        for bench in NAMES:
            command = [sys.executable, str(HERE / f"{bench}.py"), *(["--quick"] if quick else [])]
            ended = subprocess.run(command, env=environ, check=False)
            if ended.returncode not in (0, 1):
                rows.append(["FAILED", bench, f"exit code {ended.returncode}", "", ""])
                continue
            for one in json.loads((results / f"{bench}.json").read_bytes())["budgets"]:
                word = "MISSED" if is_missed(one) else "kept"
                rows.append([word, bench, one["what"], f"{one['found']:g}", f"{one['most']:g}"])
    print("\n\nAll budgets\n")
    print_rows(["", "benchmark", "what", "found", "budget"], rows)
    if not quick:
        write = HERE.parent / "tools" / "write_performance.py"
        subprocess.run([sys.executable, str(write)], check=True)
    return int(any(row[0] != "kept" for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
