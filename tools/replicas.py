"""Kills replicas and their store under 400 calls, and counts what came of them.

    python tools/replicas.py                  a round on Redis and one on Valkey, some 30 s each
    python tools/replicas.py --seeds 10       ten rounds, on one and the other in turn
    python tools/replicas.py ... --write-docs also write the table of docs/reliability.md

What a round is: `tests/harness/replicas.py`. Its seed is printed; `--seed N` draws the same moments
again. Exit code 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from arta_mcp.cli.serve_http import raise_descriptors

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.fault_matrix import between
from harness.replicas import CALLERS, Found, play_round
from harness.results import current_commit
from harness.stores import Kind

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "benchmarks" / "results" / "replicas.json"

STORES: tuple[Kind, ...] = ("redis", "valkey")

WORDS = {"kill": "kill -9", "term": "SIGTERM", "store": "the store"}

HEAD = ("store", "seed", "faults, in order", "done", "unknown", "submits under way at the kill")
HEAD += ("calls broken", "doubled", "lost", "sign-ups", "last outcome", "taken up", "kept")


def main() -> int:
    options = _options()
    first = random.randrange(10**6) if options.seed is None else options.seed
    raise_descriptors()  # each caller holds one, and so does the service for each look
    rounds: list[dict[str, Any]] = []
    for number in range(options.seeds):
        kind, seed = STORES[number % len(STORES)], first + number
        with tempfile.TemporaryDirectory() as folder:
            found = play_round(Path(folder) / "round", kind, seed, _require)
        rounds.append(_to_row(found))
        told = zip(HEAD, rounds[-1]["row"], strict=True)
        print(", ".join(f"{name} {cell}" for name, cell in told), flush=True)
    if options.write_docs:
        _write(rounds)
    return int(any(one["broken"] for one in rounds))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The proof of what replicas promise.")
    parser.add_argument("--seeds", type=int, default=2, help="how many rounds (default: 2)")
    parser.add_argument("--seed", type=int, help="the first round's; the next ones follow it")
    parser.add_argument("--write-docs", action="store_true", help="write docs/reliability.md")
    return parser.parse_args()


def _require(there: bool, reason: str) -> None:
    if not there:
        sys.exit(f"error: {reason}\nhint: `apt-get install redis-server nginx-light`")


def _to_row(found: Found) -> dict[str, Any]:
    most = found.survivors * len(found.records)
    row = [
        *(found.kind, found.seed, ", ".join(WORDS[fault] for fault in found.faults)),
        *(f"{found.done} of {found.callers}", found.own_up, len(found.under_way)),
        *(found.broken, found.doubled, found.lost, found.sign_ups),
        *(f"{found.longest:.1f} s", f"{found.taken_up} of {most}"),
        "; ".join(found.broken_promises) or "yes",
    ]
    return {"row": [str(cell) for cell in row], "broken": found.broken_promises}


def _write(rounds: list[dict[str, Any]]) -> None:
    result = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": current_commit(),
        "command": shlex.join(["python", "tools/replicas.py", *sys.argv[1:]]),
        "callers": CALLERS,
        "rounds": rounds,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def render(page: str) -> str:
    """The page with the rounds of the last run that was kept."""
    if not RESULTS.exists():
        return between(page, "replicas", "Not run yet: `make replicas`.\n")
    found = json.loads(RESULTS.read_bytes())
    rows = [list(HEAD), ["---"] * len(HEAD), *(one["row"] for one in found["rounds"])]
    about = f"{found['date']}, commit `{found['commit']}`, `{found['command']}`"
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return between(page, "replicas", f"{about}, {found['callers']} callers a round:\n\n{table}\n")


if __name__ == "__main__":
    sys.exit(main())
