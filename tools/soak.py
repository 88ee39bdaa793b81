"""The long proof of what docs/reliability.md promises; prints counts, and writes them with a flag.

    python tools/soak.py                  everything, in some twelve minutes on two busy cores
    python tools/soak.py --short          the same with a tenth of the numbers
    python tools/soak.py --matrix         the fault matrix alone
    python tools/soak.py ... --write-docs also write docs/reliability.md

The seed is printed; `--seed N` draws the same moments again. Exit code 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
sys.path.insert(0, str(ROOT / "tests"))

if TYPE_CHECKING:
    from harness.fault_matrix import Outcome
    from harness.processes import Killed, Site
    from harness.programs import Struck
    from harness.service import ScriptedService

# What tests share is imported by the functions that use it: every process that the soak starts
# imports this file, and needs none of that.


@dataclass(frozen=True)
class Numbers:
    """How much of everything."""

    together: int
    repeats: int
    rounds: int
    stories: int
    strikes: int


FULL = Numbers(together=50, repeats=3, rounds=200, stories=300, strikes=24)
SHORT = Numbers(together=16, repeats=1, rounds=20, stories=30, strikes=4)

PARTS = 2
"""state folders for each kind of strike"""

AT_ONCE = 6
"""programs that are struck at the same time; most of it is waiting"""


@dataclass(frozen=True)
class Row:
    """One line of the table; `is_kept` when the promise held."""

    what: str
    found: str
    is_kept: bool


def main() -> int:
    options = _options()
    logging.basicConfig(level=logging.CRITICAL)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_told(_run(Path(folder), options, random.Random(seed))))
    print(f"{time.monotonic() - began:.0f} s")
    return 0 if all(row.is_kept for row in rows) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The long proof of docs/reliability.md.")
    parser.add_argument("--short", action="store_true", help="a tenth of the numbers")
    parser.add_argument("--matrix", action="store_true", help="the fault matrix alone")
    parser.add_argument("--write-docs", action="store_true", help="write docs/reliability.md")
    parser.add_argument("--seed", type=int, help="draw the same moments again")
    return parser.parse_args()


def _run(folder: Path, options: argparse.Namespace, dice: random.Random) -> Iterable[Row]:
    rows: list[Row] = []

    def tell(row: Row) -> Row:
        rows.append(row)
        return row

    outcomes = _matrix(folder / "matrix")
    yield tell(_matrix_row(outcomes))
    if options.write_docs:
        from harness import fault_matrix

        _write(lambda page: fault_matrix.with_matrix(page, outcomes))
    if options.matrix:
        return
    numbers = SHORT if options.short else FULL
    for part in (_storms, _one_key, _kills, _strikes, _cancels, _stories):
        for row in part(folder / part.__name__, numbers, dice):
            yield tell(row)
    if options.write_docs:
        _write(lambda page: with_counts(page, rows))


def _told(rows: Iterable[Row]) -> Iterable[Row]:
    for row in rows:
        print(f"{'kept  ' if row.is_kept else 'BROKEN'}  {row.what:<66}  {row.found}", flush=True)
        yield row


def _matrix(folder: Path) -> list[Outcome]:
    import anyio

    from harness import fault_matrix

    return anyio.run(fault_matrix.run_matrix, folder, list(fault_matrix.cases()))


def _matrix_row(outcomes: list[Outcome]) -> Row:
    lost = sum(one.is_lost for one in outcomes)
    doubled = sum(one.is_doubled for one in outcomes)
    shown = sum(bool(one.secrets) for one in outcomes)
    return Row(
        f"{len(outcomes)} faults struck",
        f"{lost} jobs lost, {doubled} doubled, {shown} secrets shown",
        not (lost or doubled or shown),
    )


def _storms(folder: Path, numbers: Numbers, dice: random.Random) -> Iterable[Row]:
    """Processes that start at one moment, in the three states of an account."""
    from harness import processes

    counts = {
        "no account": ("sign_up", "sign-ups"),
        "an old token": ("refresh", "refreshes"),
        "a refused refresh": ("sign_up", "sign-ups"),
    }
    for state, (endpoint, name) in counts.items():
        seen: list[int] = []
        tokens = 0
        for repeat in range(numbers.repeats):
            with _site(folder / f"{state}-{repeat}") as (site, service):
                if state != "no account":
                    processes.token(site)
                    site.age_account()
                if state == "a refused refresh":
                    service.expire(service.accounts[0])
                service.seen.clear()
                got = processes.together(numbers.together, processes.token, site)
                seen.append(service.seen[endpoint])
                tokens += len(set(got))
        yield Row(
            f"{numbers.together} processes at once with {state}, {numbers.repeats} times",
            f"{name} a time: {', '.join(map(str, seen))}",
            set(seen) == {1} and tokens == numbers.repeats,
        )


def _one_key(folder: Path, numbers: Numbers, dice: random.Random) -> Iterable[Row]:
    from harness import processes

    jobs: list[int] = []
    for repeat in range(numbers.repeats):
        with _site(folder / str(repeat)) as (site, service):
            records = processes.together(numbers.together, processes.record_of_one_key, site)
            is_same = set(records) == set(service.jobs)
            jobs.append(service.seen["submit"] if is_same else -1)
    yield Row(
        f"{numbers.together} processes at once with one idempotency key, {numbers.repeats} times",
        f"submits a time: {', '.join(map(str, jobs))}",
        set(jobs) == {1},
    )


def _kills(folder: Path, numbers: Numbers, dice: random.Random) -> Iterable[Row]:
    from harness import processes

    with _site(folder / "generations") as (site, service):
        found = processes.kill_generations(site, service, numbers.rounds, dice)
        rounds = numbers.rounds // 4
        orphans = processes.kill_sign_ups(folder / "sign-ups", site.url, service, rounds, dice)
    yield Row(f"kill -9 in {found.rounds} generations", _told_of(found), _is_kept(found))
    phases = ", ".join(f"{name} {count}" for name, count in sorted(found.by_phase.items()))
    yield Row("    where they stood when killed", phases, len(found.by_phase) > 1)
    yield Row(
        "    jobs made whose record id was not on disk yet, reported `unknown`",
        f"{found.in_the_window} of {found.jobs}",
        True,
    )
    yield Row(
        f"kill -9 in {rounds} sign-ups",
        f"{orphans} accounts made and not kept, none kept and lost",
        orphans <= rounds,
    )
    with _site(folder / "renewals") as (site, service):
        found = processes.kill_renewals(site, service, numbers.rounds, dice)
        accounts = len(service.accounts)
    yield Row(
        f"kill -9 in {found.rounds} writes of the token file",
        f"{found.accounts_lost} accounts lost, {found.torn} torn files read, {accounts} sign-up",
        _is_kept(found) and not found.torn and accounts == 1,
    )


def _strikes(folder: Path, numbers: Numbers, dice: random.Random) -> Iterable[Row]:
    """Signals, a full disk and a held journal, at any moment of the program as it is installed."""
    from harness import programs

    def strike(what: str, part: int, seed: float) -> Struck:
        own = folder / f"{what} {part}"
        return programs.strike_at_random(own, what, numbers.strikes // PARTS, random.Random(seed))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {
            what: [pool.submit(strike, what, part, dice.random()) for part in range(PARTS)]
            for what in programs.STRIKES
        }
        for what, parts in running.items():
            found = programs.total([part.result() for part in parts])
            for story in {*found.lost, *found.doubled, *found.astray}:
                print(story, file=sys.stderr)
            counts = f"{len(found.lost)} jobs lost, {len(found.doubled)} doubled"
            is_kept = not (found.lost or found.doubled or found.astray)
            yield Row(
                f"{what} in {found.rounds} commands and servers",
                f"{counts}, {len(found.astray)} that the same call did not find again",
                is_kept,
            )
            phases = ", ".join(f"{name} {count}" for name, count in sorted(found.by_phase.items()))
            yield Row("    what the journal said then", phases, is_kept)


def _told_of(found: Killed) -> str:
    return f"{found.lost} jobs lost, {found.doubled} doubled, {found.accounts_lost} accounts lost"


def _is_kept(found: Killed) -> bool:
    return not (found.lost or found.doubled or found.accounts_lost)


def _cancels(folder: Path, numbers: Numbers, dice: random.Random) -> Iterable[Row]:
    import anyio

    from harness import processes

    with _site(folder) as (site, service):
        found = anyio.run(processes.cancel_at_random, site, service, numbers.rounds, dice)
    slow = sorted(found.seconds)
    yield Row(
        f"{len(slow)} calls cancelled at random moments",
        f"{found.unknown_to_us} jobs not known, {found.tasks_left} tasks left",
        not (found.unknown_to_us or found.tasks_left),
    )
    median, worst = slow[len(slow) // 2], slow[-1]
    yield Row(
        "    from the cancellation to the caller's release",
        f"median {1000 * median:.1f} ms, longest {1000 * worst:.1f} ms",
        worst < 0.2,
    )


def _stories(folder: Path, numbers: Numbers, dice: random.Random) -> Iterable[Row]:
    from hypothesis.stateful import run_state_machine_as_test

    from generations import test_state_machine

    what = f"{numbers.stories} random stories of forty steps"
    try:
        run_state_machine_as_test(
            test_state_machine.Interleavings, settings=test_state_machine.thorough(numbers.stories)
        )
    except AssertionError as exc:
        yield Row(what, f"a promise was broken: {exc}", False)
    else:
        yield Row(what, "every promise held after every step", True)


class _site:
    """A service on a port and a state folder beside it."""

    def __init__(self, folder: Path) -> None:
        from harness.service import ScriptedServer, ScriptedService
        from harness.world import tiny_picture

        self._folder = folder
        self._service = ScriptedService(
            folder / "service", engine=tiny_picture, queue=0.03, draw=0, latency=0.01, keep=10**6
        )
        self._running = ScriptedServer(self._service)

    def __enter__(self) -> tuple[Site, ScriptedService]:
        from harness.processes import Site

        self._running.__enter__()
        return Site(self._running.base_url, self._folder / "state"), self._service

    def __exit__(self, *_: object) -> None:
        self._running.close()


# The page


def with_counts(page: str, rows: list[Row]) -> str:
    """The page with the counts of this run."""
    from harness import fault_matrix
    from harness.results import current_commit

    command = " ".join(["python tools/soak.py", *sys.argv[1:]])
    lines = [
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, commit `{current_commit()}`, `{command}`:",
        "",
        "| what | found | kept |",
        "|---|---|---|",
        *(
            f"| {row.what.strip()} | {row.found} | {'yes' if row.is_kept else 'no'} |"
            for row in rows
        ),
    ]
    return fault_matrix.between(page, "soak", "\n".join(lines) + "\n")


def _write(change: Callable[[str], str]) -> None:
    PAGE.write_text(change(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
