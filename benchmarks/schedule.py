"""How long a finished picture waits until a poll sees it, and how many polls that costs.

Jobs of several worlds run on a virtual clock, in a closed loop: what a job's own polls saw of it is
all that is learnt for the next job. Three schedules meet the same jobs:

- ours: `arta_mcp.generations.schedule.PollSchedule`, from the samples of its own earlier polls;
- fixed: a poll at once and then every 2 s;
- limit: an oracle that knows the distribution the duration is drawn from and spaces its polls by
  sqrt(c * S / f), with c set for each distribution so that it has as many polls as ours had. It
  knows no floor, and nothing of phases.

A schedule is judged by more than the one job that teaches it: each job is also run with `ghosts`,
other durations of the same distribution, which leave no sample. Everything is seeded: runs repeat
exactly.
"""

import argparse
import math
import random
import statistics
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from bench_world import Report

from arta_mcp.generations.schedule import DurationSample, PollSchedule

FIXED_POLL_INTERVAL = 2.0
MIN_LEARNT = 20
MAX_TO_LIMIT = 1.2
QUICK = (
    "log-normal 6 s, 0.2",
    "log-normal 15 s, 0.35",
    "outliers: 2 % take 5x",
    "two-humped queue 8, 25 s",
    "median drifts 10..22 s",
    "queue 8 s 0.6, then 8 s 0.1",
    "constant 1.2 s",
)


class Job(NamedTuple):
    """What the service does with one job, seconds after submit."""

    started: float
    done: float


class Distribution:
    """A distribution of jobs: draws one, and knows the survival function of its duration."""

    def __init__(
        self, draw: Callable[[random.Random], Job], survival: Callable[[float], float]
    ) -> None:
        self.draw = draw
        self.survival = survival


def lognormal(median: float, sigma: float, *, queue: float = 0.0) -> Distribution:
    def draw(rng: random.Random) -> Job:
        done = median * math.exp(rng.gauss(0, sigma))
        return Job(done * queue, done)

    return Distribution(draw, lambda t: lognormal_survival(t, median, sigma))


def lognormal_survival(t: float, median: float, sigma: float) -> float:
    return 1.0 if t <= 0 else math.erfc(math.log(t / median) / sigma / math.sqrt(2)) / 2


def mixture(*parts: tuple[float, Distribution]) -> Distribution:
    distributions, weights = [part for _, part in parts], [weight for weight, _ in parts]
    return Distribution(
        lambda rng: rng.choices(distributions, weights)[0].draw(rng),
        lambda t: sum(weight * distribution.survival(t) for weight, distribution in parts),
    )


def in_turn(queue: tuple[float, float], drawing: tuple[float, float]) -> Distribution:
    """A log-normal queue, then a log-normal drawing, which the polls tell apart."""
    steps = [statistics.NormalDist().inv_cdf((i + 0.5) / 200) for i in range(200)]
    queues = [queue[0] * math.exp(queue[1] * z) for z in steps]

    def draw(rng: random.Random) -> Job:
        started = queue[0] * math.exp(rng.gauss(0, queue[1]))
        return Job(started, started + drawing[0] * math.exp(rng.gauss(0, drawing[1])))

    return Distribution(
        draw, lambda t: statistics.fmean(lognormal_survival(t - q, *drawing) for q in queues)
    )


def uniform(low: float, high: float) -> Distribution:
    def draw(rng: random.Random) -> Job:
        return Job(0.0, rng.uniform(low, high))

    return Distribution(draw, lambda t: min(1.0, max(0.0, (high - t) / (high - low))))


def exponential_after(least: float, mean: float) -> Distribution:
    def draw(rng: random.Random) -> Job:
        return Job(0.0, least + rng.expovariate(1 / mean))

    return Distribution(draw, lambda t: 1.0 if t < least else math.exp((least - t) / mean))


@dataclass(frozen=True)
class World:
    """`distribution(i)` is the style and the distribution of the i-th job of a history."""

    name: str
    distribution: Callable[[int], tuple[Hashable, Distribution]]
    tight: bool = False
    styles: int = 1
    constant: bool = False
    floor: float = 0.5
    note: str = ""


def steady(name: str, distribution: Distribution, **kind: Any) -> World:
    return World(name, lambda _: (0, distribution), **kind)


def drifting() -> World:
    distributions = [
        lognormal(15 * math.exp(0.4 * math.sin(2 * math.pi * i / 100)), 0.2) for i in range(1000)
    ]
    note = "nothing extrapolates: 1.12x to 1.21x of the limit (seeds 1 to 6)"
    return World("median drifts 10..22 s", lambda i: (0, distributions[i]), note=note)


def stepping() -> World:
    before, after = lognormal(10, 0.2), lognormal(18, 0.2)
    note = "the old median stays likely for some 20 jobs: polls are spent on both"
    return World("median steps 10 -> 18 s", lambda i: (0, before if i < 40 else after), note=note)


def worlds() -> Iterator[World]:
    for median in (6, 15, 25):
        for sigma in (0.2, 0.35, 0.5):
            name = f"log-normal {median} s, {sigma}"
            yield steady(name, lognormal(median, sigma), tight=sigma == 0.2)
    humps = mixture((0.6, lognormal(8, 0.15)), (0.4, lognormal(25, 0.2)))
    yield steady("two-humped queue 8, 25 s", humps)
    yield drifting()
    slow = mixture((0.98, lognormal(15, 0.2)), (0.02, lognormal(75, 0.2)))
    yield steady("outliers: 2 % take 5x", slow, tight=True)
    mixed = [lognormal(m, s) for m, s in ((4, 0.3), (8, 0.2), (12, 0.5), (18, 0.35), (30, 0.25))]
    yield World("five styles mixed", lambda i: (i % 5, mixed[i % 5]), styles=5)
    yield steady("queue 8 s 0.6, then 8 s 0.1", in_turn((8, 0.6), (8, 0.1)))
    short = in_turn((2, 0.5), (12, 0.15))
    note = "an oracle that keeps the floor is itself at 1.14x to 1.18x of the limit (seeds 1 to 3)"
    yield steady("queue 2 s 0.5, then 12 s 0.15", short, tight=True, note=note)
    yield steady("the same, floor 0.25 s", short, tight=True, floor=0.25)
    for done in (1.2, 7.3, 15.0):
        distribution = Distribution(
            lambda _, done=done: Job(0.1, done), lambda t, done=done: float(t < done)
        )
        yield steady(f"constant {done} s", distribution, tight=True, constant=True)
    yield stepping()
    yield from never_tuned_on()


def never_tuned_on() -> Iterator[World]:
    """Shapes that had no part in choosing the constants of schedule.py."""
    note = "not a shape that the forecast was made for"
    yield steady("uniform 8..20 s", uniform(8, 20), note=note)
    yield steady("5 s + exponential 6 s", exponential_after(5, 6), note=note)
    three = [(0.4, lognormal(5, 0.15)), (0.35, lognormal(14, 0.15)), (0.25, lognormal(35, 0.15))]
    yield steady("three humps 5, 14, 35 s", mixture(*three), note=note)
    yield steady("log-normal 40 s, 0.2", lognormal(40, 0.2), tight=True)
    yield steady("log-normal 12 s, 0.8", lognormal(12, 0.8))
    yield steady("queue 20 s 0.4, then 5 s 0.15", in_turn((20, 0.4), (5, 0.15)))


class Followed(NamedTuple):
    polls: int
    lag: float
    sample: DurationSample


def follow(job: Job, schedule: PollSchedule) -> Followed:
    """Run one job under the schedule on the virtual clock."""
    waited, earliest, polls, phase = 0.0, 0.0, 0, None
    queued, drawing = 0.0, None
    while True:
        waited += schedule.delay(waited, phase)
        polls += 1
        if waited >= job.done:
            return Followed(
                polls, waited - job.done, DurationSample(earliest, waited, queued, drawing)
            )
        if waited < job.started:
            queued = waited
        elif drawing is None:
            drawing = waited
        earliest, phase = waited, "drawing" if waited >= job.started else "queued"


def fixed(job: Job) -> tuple[int, float]:
    ticks = math.ceil(job.done / FIXED_POLL_INTERVAL)
    return ticks + 1, ticks * FIXED_POLL_INTERVAL - job.done


class Tally:
    """What the jobs of one distribution met."""

    def __init__(self, distribution: Distribution) -> None:
        self.distribution = distribution
        self.done: list[float] = []
        self.polls: list[int] = []
        self.lags: list[float] = []
        self.fixed_polls: list[int] = []
        self.fixed_lags: list[float] = []

    def add(self, job: Job, seen: Followed) -> None:
        polls, lag = fixed(job)
        self.done.append(job.done)
        self.polls.append(seen.polls)
        self.lags.append(seen.lag)
        self.fixed_polls.append(polls)
        self.fixed_lags.append(lag)


def oracle(tally: Tally) -> list[float]:
    """Lags of the schedule that knows the distribution and has as many polls as ours had here."""
    levels, times = intensity(tally.distribution, max(tally.done))
    at = [level(levels, times, done) for done in tally.done]
    wanted = statistics.fmean(tally.polls)
    best: list[float] = []
    for offset in (0.3, 0.5, 0.7, 0.9):
        low, high, unit = levels[-1] / 1000, levels[-1] * 10, 1.0
        for _ in range(30):
            unit = math.sqrt(low * high)
            polls = statistics.fmean(max(0, math.ceil(a / unit - offset)) + 1 for a in at)
            low, high = (unit, high) if polls > wanted else (low, unit)
        schedule = [
            moment(levels, times, (k + offset) * unit)
            for k in range(int(levels[-1] / unit - offset) + 1)
        ]
        schedule.append(times[-1])
        lags = [schedule[bisect_left(schedule, done)] - done for done in tally.done]
        if not best or statistics.fmean(lags) < statistics.fmean(best):
            best = lags
    return best


def intensity(distribution: Distribution, longest: float) -> tuple[list[float], list[float]]:
    """Running integral of sqrt(f / S) over a fine grid that ends after the longest job."""
    n = 1500
    step = longest * 1.001 / n
    times, levels, survival = [0.0], [0.0], 1.0
    for i in range(1, n + 1):
        now = distribution.survival(i * step)
        between = max((survival + now) / 2, 1e-12)
        levels.append(levels[-1] + math.sqrt(max(0.0, survival - now) * step / between))
        times.append(i * step)
        survival = now
    return levels, times


def level(levels: list[float], times: list[float], t: float) -> float:
    i = min(int(t / times[1]), len(times) - 2)
    return levels[i] + (levels[i + 1] - levels[i]) * (t - times[i]) / times[1]


def moment(levels: list[float], times: list[float], goal: float) -> float:
    i = min(bisect_left(levels, goal), len(levels) - 1)
    width = levels[i] - levels[i - 1]
    return times[i] - (times[1] * (levels[i] - goal) / width if width and i else 0.0)


def run(world: World, *, histories: int, length: int, ghosts: int, seed: int) -> list[Tally]:
    """Play histories from their first job on; measure jobs with MIN_LEARNT of a style behind."""
    tallies: dict[int, Tally] = {}
    for history in range(histories):
        rng = random.Random(f"{world.name}/{seed}/{history}")
        samples: dict[Hashable, list[DurationSample]] = defaultdict(list)
        for i in range(length * world.styles):
            style, distribution = world.distribution(i)
            schedule = PollSchedule(samples[style][-50:], floor=world.floor)
            job = distribution.draw(rng)
            seen = follow(job, schedule)
            if len(samples[style]) >= MIN_LEARNT:
                tally = tallies.setdefault(id(distribution), Tally(distribution))
                tally.add(job, seen)
                for _ in range(ghosts):
                    job = distribution.draw(rng)
                    tally.add(job, follow(job, schedule))
            samples[style].append(seen.sample)
    return list(tallies.values())


def first(world: World, *, jobs: int, seed: int) -> list[Tally]:
    rng = random.Random(f"{world.name}/{seed}/first")
    tally = Tally(world.distribution(0)[1])
    for i in range(jobs):
        job = world.distribution(i % world.styles)[1].draw(rng)
        tally.add(job, follow(job, PollSchedule()))
    return [tally]


@dataclass(frozen=True)
class Row:
    """Medians and means over the jobs of one world; seconds and polls a job."""

    world: str
    jobs: int
    schedules_tried: int
    lag: float
    fixed_lag: float
    limit_lag: float | None
    mean_lag: float
    fixed_mean_lag: float
    limit_mean_lag: float | None
    p95: float
    polls: float
    fixed_polls: float
    missed: tuple[str, ...] = ()
    note: str = ""


def measure(world: World, *, histories: int, length: int, ghosts: int, seed: int) -> Row:
    tallies = run(world, histories=histories, length=length, ghosts=ghosts, seed=seed)
    limit = [] if world.constant else [lag for tally in tallies for lag in oracle(tally)]
    row = summary(world.name, tallies, limit, jobs=histories * length * world.styles)
    return replace(row, missed=tuple(broken(world, row)), note=world.note)


def broken(world: World, row: Row) -> Iterator[str]:
    if row.limit_lag is not None and row.lag > MAX_TO_LIMIT * row.limit_lag:
        yield f"median lag {row.lag / row.limit_lag:.2f}x of the limit, budget {MAX_TO_LIMIT}x"
    if row.polls > row.fixed_polls:
        yield f"{row.polls:.2f} polls, the fixed poll has {row.fixed_polls:.2f}"
    if world.constant and row.lag > row.fixed_lag:
        yield f"median lag {row.lag:.2f} s, the fixed poll has {row.fixed_lag:.2f} s"
    if world.tight and row.p95 >= FIXED_POLL_INTERVAL:
        yield f"p95 of the lag {row.p95:.2f} s, budget {FIXED_POLL_INTERVAL} s"


def measure_first(world: World, *, jobs: int, seed: int) -> Row:
    row = summary(f"first job: {world.name}", first(world, jobs=jobs, seed=seed), [], jobs=jobs)
    missed = [
        f"{what} {ours:.3f}, the fixed poll has {fixed:.3f}"
        for what, ours, fixed in (
            ("median lag", row.lag, row.fixed_lag),
            ("mean lag", row.mean_lag, row.fixed_mean_lag),
            ("polls", row.polls, row.fixed_polls),
        )
        if ours > fixed + 1e-9
    ]
    return replace(row, missed=tuple(missed))


def summary(name: str, tallies: list[Tally], limit: list[float], *, jobs: int) -> Row:
    lags = sorted(lag for tally in tallies for lag in tally.lags)
    fixed_lags = [lag for tally in tallies for lag in tally.fixed_lags]
    return Row(
        name,
        jobs,
        len(lags),
        statistics.median(lags),
        statistics.median(fixed_lags),
        statistics.median(limit) if limit else None,
        statistics.fmean(lags),
        statistics.fmean(fixed_lags),
        statistics.fmean(limit) if limit else None,
        lags[int(0.95 * len(lags))],
        statistics.fmean(n for tally in tallies for n in tally.polls),
        statistics.fmean(n for tally in tallies for n in tally.fixed_polls),
    )


HEAD = (
    f"{'world':42} {'lag':>5} {'fixed':>5} {'limit':>5} {'/fixed':>6} {'/limit':>6} "
    f"{'mean/limit':>10} {'p95':>5} {'polls':>6} {'fixed':>6}"
)


def line(row: Row) -> str:
    limit, ratio, mean = "    -", "     -", "         -"
    if row.limit_lag and row.limit_mean_lag:
        limit = f"{row.limit_lag:5.2f}"
        ratio = f"{row.lag / row.limit_lag:6.2f}"
        mean = f"{row.mean_lag / row.limit_mean_lag:10.2f}"
    mark = "  MISSED" if row.missed else ""
    return (
        f"{row.world:42} {row.lag:5.2f} {row.fixed_lag:5.2f} {limit} "
        f"{row.lag / row.fixed_lag:6.2f} {ratio} {mean} "
        f"{row.p95:5.2f} {row.polls:6.2f} {row.fixed_polls:6.2f}{mark}"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few of the worlds, no JSON")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    chosen = [world for world in worlds() if not options.quick or world.name in QUICK]
    histories, length, ghosts = (8, 60, 6) if options.quick else (12, 60, 10)
    began = time.perf_counter()
    rows: list[Row] = []
    print(f"lag: seconds from done to the poll that sees it, median; {MIN_LEARNT} jobs behind each")
    print(HEAD)
    for world in chosen:
        fewer = math.ceil(histories / world.styles * 2) if world.styles > 1 else histories
        rows.append(
            measure(world, histories=fewer, length=length, ghosts=ghosts, seed=options.seed)
        )
        print(line(rows[-1]), flush=True)
    for world in chosen:
        rows.append(measure_first(world, jobs=100 if options.quick else 400, seed=options.seed))
        print(line(rows[-1]), flush=True)
    print(f"\n{sum(row.jobs for row in rows)} jobs in {time.perf_counter() - began:.1f} s")
    report = Report("schedule")
    report.table(
        f"seed {options.seed}, {MIN_LEARNT} jobs behind each; lag in s, from done to the poll that"
        " sees it",
        [
            "world",
            "median lag",
            "to the fixed poll",
            "to the limit",
            "p95",
            "polls, ours and fixed",
        ],
        [cells(row) for row in rows],
    )
    # A miss in a world with a note is a known limit: told, but not what the budget was set for.
    broken_rows = [row for row in rows if row.missed]
    for row in broken_rows:
        word = f"known limit ({row.note})" if row.note else "MISSED"
        print(f"{word}: {row.world}: {'; '.join(row.missed)}")
    print(f"budgets hold in {len(rows) - len(broken_rows)} of {len(rows)} rows")
    unknown = sum(not row.note for row in broken_rows)
    report.budget(f"worlds of {len(rows)} that break a budget unexplained", unknown, 0.0)
    return report.end(quick=options.quick, seed=options.seed, rows=[asdict(row) for row in rows])


def cells(row: Row) -> list[str]:
    """A row for the document."""
    to_limit = f"{row.lag / row.limit_lag:.2f}" if row.limit_lag else "-"
    world = f"{row.world} (known limit: {row.note})" if row.missed and row.note else row.world
    lag, p95 = f"{row.lag:.2f}", f"{row.p95:.2f}"
    polls = f"{row.polls:.2f}, {row.fixed_polls:.2f}"
    return [world, lag, f"{row.lag / row.fixed_lag:.2f}", to_limit, p95, polls]


if __name__ == "__main__":
    sys.exit(main())
