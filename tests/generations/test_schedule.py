"""When a job is polled, on a virtual clock: its own polls are all that is learnt from it."""

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

from arta_mcp.generations.schedule import MAX_POLL_INTERVAL, DurationSample, PollSchedule

ROOT = Path(__file__).parents[2]
Draw = Callable[[random.Random], float]


class Followed(NamedTuple):
    polls: list[float]
    lag: float
    sample: DurationSample


def follow(done: float, schedule: PollSchedule, *, started: float = 0.0) -> Followed:
    """Poll one job until it is done."""
    waited, polls, phase = 0.0, list[float](), None
    queued, drawing = 0.0, None
    while True:
        waited += schedule.delay(waited, phase)
        polls.append(waited)
        if waited >= done:
            earliest = polls[-2] if len(polls) > 1 else 0.0
            sample = DurationSample(earliest, waited, queued, drawing)
            return Followed(polls, waited - done, sample)
        if waited < started:
            queued = waited
        elif drawing is None:
            drawing = waited
        phase = "queued" if waited < started else "drawing"


def fixed(done: float) -> tuple[int, float]:
    """Polls and lag of a poll every 2 s whose first is at once."""
    ticks = math.ceil(done / 2)
    return ticks + 1, ticks * 2 - done


def lognormal(median: float, sigma: float) -> Draw:
    return lambda rng: median * math.exp(rng.gauss(0, sigma))


def two_humps(rng: random.Random) -> float:
    return lognormal(8, 0.15)(rng) if rng.random() < 0.6 else lognormal(25, 0.2)(rng)


def with_stragglers(rng: random.Random) -> float:
    return lognormal(15, 0.2)(rng) * (5 if rng.random() < 0.02 else 1)


class Played(NamedTuple):
    lag: float
    fixed_lag: float
    polls: float
    fixed_polls: float
    p95: float


def play(draw: Draw, *, histories: int = 6, length: int = 50) -> Played:
    """Jobs with 20 of their style behind them, each history from its first job on."""
    seen: list[tuple[float, float, int, int]] = []
    for seed in range(histories):
        rng, samples = random.Random(seed), list[DurationSample]()
        for _ in range(length):
            schedule, done = PollSchedule(samples), draw(rng)
            now = follow(done, schedule)
            if len(samples) >= 20:
                for other in (done, *(draw(rng) for _ in range(4))):
                    met, (polls, lag) = follow(other, schedule), fixed(other)
                    seen.append((met.lag, lag, len(met.polls), polls))
            samples.append(now.sample)
    lags, fixed_lags, polls, fixed_polls = zip(*seen, strict=True)
    return Played(
        statistics.median(lags),
        statistics.median(fixed_lags),
        statistics.fmean(polls),
        statistics.fmean(fixed_polls),
        sorted(lags)[int(0.95 * len(lags))],
    )


def learnt(*durations: float) -> PollSchedule:
    return PollSchedule([DurationSample(d - 0.25, d + 0.25) for d in durations])


def test_the_first_job_ever_is_polled_like_the_fixed_poll_less_its_useless_poll() -> None:
    assert follow(9.5, PollSchedule()).polls == [1.0, 2.0, 4.0, 6.0, 8.0, 10.0]


@given(st.floats(0.001, 120))
def test_the_first_job_ever_is_seen_no_later_and_with_no_more_polls_than_the_fixed_poll(
    done: float,
) -> None:
    polls, lag = fixed(done)
    seen = follow(done, PollSchedule())
    assert seen.lag <= lag + 1e-9
    assert len(seen.polls) <= polls


@pytest.mark.parametrize(
    ("draw", "of_fixed", "p95"),
    [
        pytest.param(lognormal(6, 0.2), 0.38, 2.0, id="6 s, tight"),
        pytest.param(lognormal(25, 0.2), 0.4, 2.0, id="25 s, tight"),
        pytest.param(lognormal(15, 0.5), 0.75, math.inf, id="15 s, very wide"),
        pytest.param(two_humps, 0.6, math.inf, id="a queue that is empty or full"),
        pytest.param(with_stragglers, 0.45, 2.0, id="2 % take five times as long"),
    ],
)
def test_after_20_jobs_a_picture_waits_a_fraction_of_the_fixed_polls_lag_for_no_more_polls(
    draw: Draw, of_fixed: float, p95: float
) -> None:
    played = play(draw)
    assert played.lag <= of_fixed * played.fixed_lag
    assert played.polls <= played.fixed_polls
    assert played.p95 < p95


@pytest.mark.parametrize("done", [1.2, 7.3, 40.0])
def test_a_constant_duration_is_soon_met_with_few_polls_and_within_the_floor(done: float) -> None:
    samples: list[DurationSample] = []
    seen = [follow(done, PollSchedule(samples))]
    for _ in range(40):
        samples.append(seen[-1].sample)
        seen.append(follow(done, PollSchedule(samples)))
    polls, _ = fixed(done)
    assert max(one.lag for one in seen[20:]) <= 0.5
    assert statistics.fmean(len(one.polls) for one in seen[20:]) <= 0.8 * polls


def test_a_median_that_moves_is_followed_within_twenty_jobs_and_both_are_polled_meanwhile() -> None:
    rng, samples = random.Random(7), list[DurationSample]()
    for median in [10.0] * 30 + [18.0] * 20:
        samples.append(follow(lognormal(median, 0.1)(rng), PollSchedule(samples)).sample)
    halfway, usual = PollSchedule(samples[:40]), PollSchedule(samples).usual
    assert follow(10.0, halfway).lag < 1
    assert follow(18.0, halfway).lag < 1
    assert usual is not None
    assert 16 < usual < 20


def test_one_straggler_hardly_moves_the_forecast() -> None:
    steady = [14.0, 15.0, 16.0] * 7
    with_one = learnt(*steady[:-1], 75.0)
    assert with_one.usual == pytest.approx(15.0, rel=0.05)  # pyright: ignore[reportUnknownMemberType] -- pytest's own annotation
    assert len(follow(15.0, with_one).polls) <= len(follow(15.0, learnt(*steady)).polls) + 2


def test_a_job_slower_than_all_before_is_polled_more_and_more_rarely_but_never_starved() -> None:
    polls = follow(600.0, learnt(*[14.0, 15.0, 16.0] * 7)).polls
    gaps = [b - a for a, b in pairwise(polls) if a > 30]
    assert max(gaps) <= MAX_POLL_INTERVAL
    assert gaps[-1] > 4 * gaps[0]
    assert len(polls) < 0.75 * fixed(600.0)[0]


def test_polls_are_densest_where_jobs_usually_end() -> None:
    polls = follow(40.0, learnt(*[12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0] * 3)).polls
    assert sum(poll < 10 for poll in polls) <= 2
    assert sum(12 <= poll < 18 for poll in polls) >= 6


def test_between_two_humps_nothing_is_spent() -> None:
    polls = follow(30.0, learnt(*[5.0, 5.2, 4.8, 30.0, 31.0, 29.0] * 5)).polls
    assert sum(8 < poll < 25 for poll in polls) <= 3


def test_seeing_the_queue_end_beats_knowing_the_whole_duration_only() -> None:
    def lag_and_polls(*, tells: bool) -> tuple[float, float]:
        rng, samples, seen = random.Random(3), list[DurationSample](), list[Followed]()
        for _ in range(300):
            started = lognormal(8, 0.6)(rng)
            done = started + lognormal(8, 0.1)(rng)
            schedule = PollSchedule(samples[-50:])
            seen.append(follow(done, schedule, started=started if tells else 0.0))
            samples.append(seen[-1].sample)
        after = seen[30:]
        lag = statistics.median(one.lag for one in after)
        return lag, statistics.fmean(len(one.polls) for one in after)

    (lag, polls), (blind_lag, blind_polls) = lag_and_polls(tells=True), lag_and_polls(tells=False)
    assert lag < 0.95 * blind_lag
    assert polls < 0.85 * blind_polls


def test_a_poll_that_says_nothing_new_changes_nothing() -> None:
    told, untold = learnt(*[15.0, 16.0] * 10), learnt(*[15.0, 16.0] * 10)
    assert untold.delay(9.0) == told.delay(9.0, "drawing") == told.delay(9.0, "some new status")


def test_what_people_are_told_is_near_the_middle_of_what_happened() -> None:
    schedule = learnt(*[12.0, 14.0, 15.0, 16.0, 18.0] * 5)
    assert schedule.usual is not None
    assert 14 < schedule.usual < 16
    left = [schedule.likely_remaining(waited) for waited in (0.0, 5.0, 10.0)]
    assert left == sorted(left, key=lambda rest: -(rest or 0))
    assert 3 < (left[2] or 0) < 7


def test_without_samples_that_make_sense_nothing_is_said_about_the_usual_time() -> None:
    spans = [(5.0, 3.0), (-1.0, 2.0), (0.0, math.inf), (0.0, math.nan)]
    for schedule in (PollSchedule(), PollSchedule([DurationSample(*span) for span in spans])):
        assert schedule.usual is None
        assert schedule.likely_remaining(3.0) is None


def test_only_the_newest_samples_count() -> None:
    old, new = [DurationSample(99.0, 100.0)] * 100, [DurationSample(9.0, 10.0)] * 50
    assert PollSchedule(old + new).delay(0.0) == PollSchedule(new).delay(0.0)


spans = st.tuples(st.floats(0, 900), st.floats(0, 30))
samples_of_any_kind = st.lists(
    spans.map(lambda span: DurationSample(span[0], sum(span))), max_size=60
)
phases = st.sampled_from([None, "queued", "drawing", "something else"])


@settings(deadline=None)
@given(
    samples_of_any_kind,
    st.floats(0.01, 30),
    st.lists(st.tuples(st.floats(0, 900), phases)),
)
def test_a_delay_is_finite_and_never_below_the_floor_nor_beyond_reason(
    samples: list[DurationSample], floor: float, polls: list[tuple[float, str | None]]
) -> None:
    schedule = PollSchedule(samples, floor=floor)
    for waited, phase in polls:
        delay = schedule.delay(waited, phase)
        rest = schedule.likely_remaining(waited)
        assert floor <= delay <= max(floor, MAX_POLL_INTERVAL, schedule.usual or 0.0) + 1e-6
        assert rest is None or 0.0 <= rest < math.inf


@settings(deadline=None, max_examples=50)
@given(samples_of_any_kind, st.floats(0, 600), st.floats(0, 600))
def test_whoever_polls_later_is_not_told_to_poll_again_before_whoever_polled_earlier(
    samples: list[DurationSample], one: float, other: float
) -> None:
    schedule, (early, late) = PollSchedule(samples), sorted((one, other))
    if early > 0:
        assert early + schedule.delay(early) <= late + schedule.delay(late) + 1e-6


@settings(deadline=None)
@given(st.floats(1, 200), st.floats(1.3, 2), st.integers(3, 30))
def test_the_slower_a_style_the_later_its_first_poll(
    usual: float, factor: float, jobs: int
) -> None:
    quick, slow = (PollSchedule([DurationSample(d, d)] * jobs) for d in (usual, usual * factor))
    assert (quick.usual or 0) < (slow.usual or 0)
    assert quick.delay(0.0) <= slow.delay(0.0) + 1e-6


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
        [sys.executable, ROOT / "benchmarks" / "schedule.py", "--quick"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
