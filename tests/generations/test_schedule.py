"""When a job is looked at, on a virtual clock: its own looks are all that is learnt from it."""

import json
import math
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arta_mcp.generations.schedule import LONGEST, Pace, Sample

ROOT = Path(__file__).parents[2]
Draw = Callable[[random.Random], float]


class Seen(NamedTuple):
    looks: list[float]
    lag: float
    sample: Sample


def follow(done: float, pace: Pace, *, started: float = 0.0) -> Seen:
    waited, looks, phase = 0.0, list[float](), None
    queued, drawing = 0.0, None
    while True:
        waited += pace.delay(waited, phase)
        looks.append(waited)
        if waited >= done:
            earliest = looks[-2] if len(looks) > 1 else 0.0
            return Seen(looks, waited - done, Sample(earliest, waited, queued, drawing))
        if waited < started:
            queued = waited
        elif drawing is None:
            drawing = waited
        phase = "queued" if waited < started else "drawing"


def fixed(done: float) -> tuple[int, float]:
    """Looks and lag of a poll every 2 s that looks first at once."""
    beats = math.ceil(done / 2)
    return beats + 1, beats * 2 - done


def lognormal(median: float, sigma: float) -> Draw:
    return lambda rng: median * math.exp(rng.gauss(0, sigma))


def two_humps(rng: random.Random) -> float:
    return lognormal(8, 0.15)(rng) if rng.random() < 0.6 else lognormal(25, 0.2)(rng)


def with_stragglers(rng: random.Random) -> float:
    return lognormal(15, 0.2)(rng) * (5 if rng.random() < 0.02 else 1)


class Played(NamedTuple):
    lag: float
    fixed_lag: float
    looks: float
    fixed_looks: float
    p95: float


def play(draw: Draw, *, histories: int = 6, length: int = 50) -> Played:
    """Jobs with 20 of their style behind them, each history from its first job on."""
    seen: list[tuple[float, float, int, int]] = []
    for seed in range(histories):
        rng, samples = random.Random(seed), list[Sample]()
        for _ in range(length):
            pace, done = Pace(samples), draw(rng)
            now = follow(done, pace)
            if len(samples) >= 20:
                for other in (done, *(draw(rng) for _ in range(4))):
                    met, (looks, lag) = follow(other, pace), fixed(other)
                    seen.append((met.lag, lag, len(met.looks), looks))
            samples.append(now.sample)
    lags, fixed_lags, looks, fixed_looks = zip(*seen, strict=True)
    return Played(
        statistics.median(lags),
        statistics.median(fixed_lags),
        statistics.fmean(looks),
        statistics.fmean(fixed_looks),
        sorted(lags)[int(0.95 * len(lags))],
    )


def learnt(*durations: float) -> Pace:
    return Pace([Sample(d - 0.25, d + 0.25) for d in durations])


def test_the_first_job_ever_is_looked_at_like_the_fixed_poll_less_its_useless_look() -> None:
    looks = follow(9.5, Pace()).looks
    assert looks == [1.0, 2.0, 4.0, 6.0, 8.0, 10.0]


@given(st.floats(0.001, 120))
def test_the_first_job_ever_is_seen_no_later_and_with_no_more_looks_than_the_fixed_poll(
    done: float,
) -> None:
    looks, lag = fixed(done)
    seen = follow(done, Pace())
    assert seen.lag <= lag + 1e-9
    assert len(seen.looks) <= looks


@pytest.mark.parametrize(
    ("draw", "of_fixed"),
    [
        pytest.param(lognormal(6, 0.2), 0.38, id="6 s, tight"),
        pytest.param(lognormal(15, 0.2), 0.4, id="15 s, tight"),
        pytest.param(lognormal(25, 0.2), 0.4, id="25 s, tight"),
        pytest.param(lognormal(15, 0.35), 0.58, id="15 s, wide"),
        pytest.param(lognormal(15, 0.5), 0.75, id="15 s, very wide"),
        pytest.param(two_humps, 0.6, id="a queue that is empty or full"),
        pytest.param(with_stragglers, 0.45, id="2 % take five times as long"),
    ],
)
def test_after_20_jobs_a_picture_waits_a_fraction_of_the_fixed_polls_lag_for_no_more_looks(
    draw: Draw, of_fixed: float
) -> None:
    played = play(draw)
    assert played.lag <= of_fixed * played.fixed_lag
    assert played.looks <= played.fixed_looks


@pytest.mark.parametrize("median", [6, 15, 25])
def test_in_a_tight_world_19_of_20_pictures_wait_less_than_the_fixed_polls_longest(
    median: float,
) -> None:
    assert play(lognormal(median, 0.2), histories=3).p95 < 2.0


@pytest.mark.parametrize("done", [1.2, 3.0, 7.3, 15.0, 40.0])
def test_a_constant_duration_is_soon_met_with_few_looks_and_within_the_floor(done: float) -> None:
    samples: list[Sample] = []
    seen = [follow(done, Pace(samples))]
    for _ in range(40):
        samples.append(seen[-1].sample)
        seen.append(follow(done, Pace(samples)))
    looks, _ = fixed(done)
    assert max(one.lag for one in seen[20:]) <= 0.5
    assert statistics.fmean(len(one.looks) for one in seen[20:]) <= 0.8 * looks


def test_a_median_that_moves_is_followed_within_ten_jobs() -> None:
    rng, samples = random.Random(7), list[Sample]()
    for median in [10.0] * 30 + [18.0] * 10:
        samples.append(follow(lognormal(median, 0.1)(rng), Pace(samples)).sample)
    usual = Pace(samples).usual
    assert usual is not None
    assert 16 < usual < 20


def test_one_straggler_hardly_moves_the_forecast() -> None:
    steady = [14.0, 15.0, 16.0] * 7
    with_one = learnt(*steady[:-1], 75.0)
    assert with_one.usual == pytest.approx(15.0, rel=0.05)  # pyright: ignore[reportUnknownMemberType] -- pytest's own annotation
    assert len(follow(15.0, with_one).looks) <= len(follow(15.0, learnt(*steady)).looks) + 2


def test_a_job_slower_than_all_before_is_looked_at_more_and_more_rarely_but_never_starved() -> None:
    looks = follow(600.0, learnt(*[14.0, 15.0, 16.0] * 7)).looks
    gaps = [b - a for a, b in pairwise(looks) if a > 30]
    assert max(gaps) <= LONGEST
    assert gaps[-1] > 4 * gaps[0]
    assert len(looks) < 0.75 * fixed(600.0)[0]


def test_looks_are_densest_where_jobs_usually_end() -> None:
    looks = follow(40.0, learnt(*[12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0] * 3)).looks
    early = sum(look < 10 for look in looks)
    thick = sum(12 <= look < 18 for look in looks)
    assert early <= 2
    assert thick >= 6


def test_between_two_humps_nothing_is_spent() -> None:
    looks = follow(30.0, learnt(*[5.0, 5.2, 4.8, 30.0, 31.0, 29.0] * 5)).looks
    assert sum(8 < look < 25 for look in looks) <= 3


def test_seeing_the_queue_end_beats_knowing_the_whole_duration_only() -> None:
    def lag_and_looks(*, tells: bool) -> tuple[float, float]:
        rng, samples, seen = random.Random(3), list[Sample](), list[Seen]()
        for _ in range(300):
            started = lognormal(8, 0.6)(rng)
            done = started + lognormal(8, 0.1)(rng)
            seen.append(follow(done, Pace(samples[-50:]), started=started if tells else 0.0))
            samples.append(seen[-1].sample)
        after = seen[30:]
        lag = statistics.median(one.lag for one in after)
        return lag, statistics.fmean(len(one.looks) for one in after)

    (lag, looks), (blind_lag, blind_looks) = lag_and_looks(tells=True), lag_and_looks(tells=False)
    assert lag < 0.95 * blind_lag
    assert looks < 0.85 * blind_looks


def test_a_look_that_tells_nothing_new_changes_nothing() -> None:
    told, untold = learnt(*[15.0, 16.0] * 10), learnt(*[15.0, 16.0] * 10)
    assert untold.delay(9.0) == told.delay(9.0, "drawing") == told.delay(9.0, "some new status")


def test_what_people_are_told_is_near_the_middle_of_what_happened() -> None:
    pace = learnt(*[12.0, 14.0, 15.0, 16.0, 18.0] * 5)
    assert pace.usual is not None
    assert 14 < pace.usual < 16
    left = [pace.likely_remaining(waited) for waited in (0.0, 5.0, 10.0)]
    assert left == sorted(left, key=lambda rest: -(rest or 0))
    assert 3 < (left[2] or 0) < 7


def test_without_samples_nothing_is_said_about_the_usual_time() -> None:
    assert Pace().usual is None
    assert Pace().likely_remaining(3.0) is None


def test_samples_that_make_no_sense_are_left_out() -> None:
    nonsense = [Sample(5.0, 3.0), Sample(-1.0, 2.0), Sample(0.0, math.inf), Sample(0.0, math.nan)]
    assert Pace(nonsense).usual is None


def test_only_the_newest_samples_count() -> None:
    old, new = [Sample(99.0, 100.0)] * 100, [Sample(9.0, 10.0)] * 50
    assert Pace(old + new).delay(0.0) == Pace(new).delay(0.0)


spans = st.tuples(st.floats(0, 900), st.floats(0, 30)).map(lambda s: Sample(s[0], s[0] + s[1]))
phases = st.sampled_from([None, "queued", "drawing", "something else"])


@settings(deadline=None)
@given(
    st.lists(spans, max_size=60),
    st.floats(0.01, 30),
    st.lists(st.tuples(st.floats(0, 900), phases)),
)
def test_a_delay_is_finite_and_never_below_the_floor_nor_beyond_reason(
    samples: list[Sample], floor: float, looks: list[tuple[float, str | None]]
) -> None:
    pace = Pace(samples, floor=floor)
    for waited, phase in looks:
        delay = pace.delay(waited, phase)
        rest = pace.likely_remaining(waited)
        assert floor <= delay <= max(floor, LONGEST, pace.usual or 0.0) + 1e-6
        assert rest is None or 0.0 <= rest < math.inf


@settings(deadline=None, max_examples=50)
@given(st.lists(spans, max_size=30), st.floats(0, 600), st.floats(0, 600))
def test_whoever_looks_later_is_not_told_to_look_again_before_whoever_looked_earlier(
    samples: list[Sample], one: float, other: float
) -> None:
    pace, (early, late) = Pace(samples), sorted((one, other))
    if early > 0:
        assert early + pace.delay(early) <= late + pace.delay(late) + 1e-6


@settings(deadline=None)
@given(st.floats(1, 200), st.floats(1.3, 2), st.integers(3, 30))
def test_the_slower_a_style_the_later_its_first_look(
    usual: float, factor: float, jobs: int
) -> None:
    quick, slow = Pace([Sample(usual, usual)] * jobs), Pace([Sample(*[usual * factor] * 2)] * jobs)
    assert (quick.usual or 0) < (slow.usual or 0)
    assert quick.delay(0.0) <= slow.delay(0.0) + 1e-6


def test_the_same_samples_give_the_same_looks() -> None:
    durations = [lognormal(15, 0.3)(random.Random(i)) for i in range(30)]
    assert follow(50.0, learnt(*durations)).looks == follow(50.0, learnt(*durations)).looks


def test_importing_it_loads_nothing_else_of_ours_and_no_statistics() -> None:
    code = (
        "import sys, json; before = set(sys.modules); import arta_mcp.generations.schedule; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    loaded = json.loads(done.stdout)
    ours = [name for name in loaded if "arta_mcp" in name]
    assert ours == ["arta_mcp", "arta_mcp.generations", "arta_mcp.generations.schedule"]
    assert "statistics" not in loaded


@pytest.mark.slow
def test_the_benchmark_finds_the_budgets_held_in_the_worlds_of_its_quick_run() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "pacing.py", "--quick"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
