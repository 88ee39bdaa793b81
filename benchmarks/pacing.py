"""How long a finished picture waits until it is looked at, and how many looks that costs.

Jobs of several worlds run on a virtual clock, in a closed loop: what a job's own looks saw of it is all
that the pacing learns for the next job. Three schedules meet the same jobs:

- ours: `arta_mcp.pacing.Pace`, which has only the samples of its own earlier looks;
- fixed: a look at once and then every 2 s;
- limit: an oracle that knows the law the duration is drawn from and spaces its looks by sqrt(c * S / f),
  with c set, law by law, so that it has as many looks as ours had. It knows no floor.

A schedule is judged by more than the one job that teaches it: each job is also run with `ghosts`, other
durations of the same law, which leave no sample. Everything is seeded; two runs print the same numbers.
"""

import argparse
import json
import math
import random
import statistics
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from arta_mcp.pacing import Pace, Sample

BEAT = 2.0
WARM = 20
LIMIT = 1.2
RESULTS = Path(__file__).parent / "results" / "pacing.json"


class Job(NamedTuple):
    """What the service does with one job, seconds after submit."""

    started: float
    done: float


class Law:
    """A distribution of jobs: draws one, and knows the survival function of its duration."""

    def __init__(self, draw: Callable[[random.Random], Job], alive: Callable[[float], float]) -> None:
        self.draw = draw
        self.alive = alive


def lognormal(median: float, sigma: float, *, queue: float = 0.0) -> Law:
    def draw(rng: random.Random) -> Job:
        done = median * math.exp(rng.gauss(0, sigma))
        return Job(done * queue, done)

    return Law(draw, lambda t: survival(t, median, sigma))


def survival(t: float, median: float, sigma: float) -> float:
    return 1.0 if t <= 0 else math.erfc(math.log(t / median) / sigma / math.sqrt(2)) / 2


def mixture(*parts: tuple[float, Law]) -> Law:
    laws, weights = [law for _, law in parts], [weight for weight, _ in parts]
    return Law(
        lambda rng: rng.choices(laws, weights)[0].draw(rng),
        lambda t: sum(weight * law.alive(t) for weight, law in parts),
    )


def in_turn(queue: tuple[float, float], drawing: tuple[float, float]) -> Law:
    """A log-normal queue, then a log-normal drawing, which the looks tell apart."""
    steps = [statistics.NormalDist().inv_cdf((i + 0.5) / 200) for i in range(200)]
    queues = [queue[0] * math.exp(queue[1] * z) for z in steps]

    def draw(rng: random.Random) -> Job:
        started = queue[0] * math.exp(rng.gauss(0, queue[1]))
        return Job(started, started + drawing[0] * math.exp(rng.gauss(0, drawing[1])))

    return Law(draw, lambda t: statistics.fmean(survival(t - q, *drawing) for q in queues))


@dataclass(frozen=True)
class World:
    """`law(i)` is the style and the law of the i-th job of a history."""

    name: str
    law: Callable[[int], tuple[Hashable, Law]]
    tight: bool = False
    styles: int = 1
    constant: bool = False


def steady(name: str, law: Law, *, tight: bool = False, constant: bool = False) -> World:
    return World(name, lambda _: (0, law), tight=tight, constant=constant)


def drifting() -> World:
    laws = [
        lognormal(15 * math.exp(0.4 * math.sin(2 * math.pi * i / 100)), 0.2) for i in range(1000)
    ]
    return World("median drifts 10..22 s", lambda i: (0, laws[i]))


def stepping() -> World:
    before, after = lognormal(10, 0.2), lognormal(18, 0.2)
    return World("median steps 10 -> 18 s", lambda i: (0, before if i < 40 else after))


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
    yield steady("queue 2 s 0.5, then 12 s 0.15", in_turn((2, 0.5), (12, 0.15)), tight=True)
    for done in (1.2, 7.3, 15.0):
        law = Law(lambda _, done=done: Job(0.1, done), lambda t, done=done: float(t < done))
        yield steady(f"constant {done} s", law, tight=True, constant=True)


class Seen(NamedTuple):
    looks: int
    lag: float
    sample: Sample


def follow(job: Job, pace: Pace) -> Seen:
    """Run one job under the pacing on the virtual clock."""
    waited, earliest, looks, phase = 0.0, 0.0, 0, None
    while True:
        waited += pace.delay(waited, phase)
        looks += 1
        if waited >= job.done:
            return Seen(looks, waited - job.done, Sample(earliest, waited))
        earliest, phase = waited, "drawing" if waited >= job.started else "queued"


def fixed(job: Job) -> tuple[int, float]:
    beats = math.ceil(job.done / BEAT)
    return beats + 1, beats * BEAT - job.done


class Tally:
    """What the jobs of one law met."""

    def __init__(self, law: Law) -> None:
        self.law = law
        self.done: list[float] = []
        self.looks: list[int] = []
        self.lags: list[float] = []
        self.fixed_looks: list[int] = []
        self.fixed_lags: list[float] = []

    def add(self, job: Job, seen: Seen) -> None:
        looks, lag = fixed(job)
        self.done.append(job.done)
        self.looks.append(seen.looks)
        self.lags.append(seen.lag)
        self.fixed_looks.append(looks)
        self.fixed_lags.append(lag)


def oracle(tally: Tally) -> list[float]:
    """Lags of the schedule that knows the law, with as many looks as ours had on these jobs."""
    levels, times = intensity(tally.law, max(tally.done))
    at = [level(levels, times, done) for done in tally.done]
    wanted = statistics.fmean(tally.looks)
    best: list[float] = []
    for offset in (0.3, 0.5, 0.7, 0.9):
        low, high = levels[-1] / 1000, levels[-1] * 10
        for _ in range(30):
            unit = math.sqrt(low * high)
            looks = statistics.fmean(max(0, math.ceil(a / unit - offset)) + 1 for a in at)
            low, high = (unit, high) if looks > wanted else (low, unit)
        schedule = [
            moment(levels, times, (k + offset) * unit)
            for k in range(int(levels[-1] / unit - offset) + 1)
        ]
        schedule.append(times[-1])
        lags = [schedule[bisect_left(schedule, done)] - done for done in tally.done]
        if not best or statistics.fmean(lags) < statistics.fmean(best):
            best = lags
    return best


def intensity(law: Law, longest: float) -> tuple[list[float], list[float]]:
    """Running integral of sqrt(f / S) over a fine grid that ends after the longest job."""
    n = 1500
    step = longest * 1.001 / n
    times, levels, alive = [0.0], [0.0], 1.0
    for i in range(1, n + 1):
        now = law.alive(i * step)
        between = max((alive + now) / 2, 1e-12)
        levels.append(levels[-1] + math.sqrt(max(0.0, alive - now) * step / between))
        times.append(i * step)
        alive = now
    return levels, times


def level(levels: list[float], times: list[float], t: float) -> float:
    i = min(int(t / times[1]), len(times) - 2)
    return levels[i] + (levels[i + 1] - levels[i]) * (t - times[i]) / times[1]


def moment(levels: list[float], times: list[float], goal: float) -> float:
    i = min(bisect_left(levels, goal), len(levels) - 1)
    width = levels[i] - levels[i - 1]
    return times[i] - (times[1] * (levels[i] - goal) / width if width and i else 0.0)


def run(world: World, *, histories: int, length: int, ghosts: int, seed: int) -> list[Tally]:
    """Play `histories` times from the first job on; measure what has WARM jobs of its style behind it."""
    tallies: dict[int, Tally] = {}
    for history in range(histories):
        rng = random.Random(f"{world.name}/{seed}/{history}")
        samples: dict[Hashable, list[Sample]] = defaultdict(list)
        for i in range(length * world.styles):
            style, law = world.law(i)
            pace = Pace(samples[style][-50:])
            job = law.draw(rng)
            seen = follow(job, pace)
            if len(samples[style]) >= WARM:
                tally = tallies.setdefault(id(law), Tally(law))
                tally.add(job, seen)
                for _ in range(ghosts):
                    job = law.draw(rng)
                    tally.add(job, follow(job, pace))
            samples[style].append(seen.sample)
    return list(tallies.values())


def first(world: World, *, jobs: int, seed: int) -> list[Tally]:
    rng = random.Random(f"{world.name}/{seed}/first")
    tally = Tally(world.law(0)[1])
    for i in range(jobs):
        job = world.law(i % world.styles)[1].draw(rng)
        tally.add(job, follow(job, Pace()))
    return [tally]


@dataclass(frozen=True)
class Row:
    world: str
    jobs: int
    lag: float
    fixed_lag: float
    limit_lag: float
    looks: float
    fixed_looks: float
    p95: float
    mean_lag: float
    fixed_mean_lag: float
    limit_mean_lag: float
