"""When to poll a job again, learnt from finished jobs of the same style; no I/O happens here.

A finished job is only known to have ended between two polls. Its duration is put where, between
them, it agrees best with its neighbours; durations are compared as logarithms, and newer ones weigh
more. What the next job may take is one bell curve over log seconds, or several where they explain
the samples clearly better: a queue that is empty or full, a straggler. A heavy tail covers what was
never observed: a job slower than every earlier one is polled more and more rarely.

For durations with density f and survival S, polls spaced by sqrt(c * S / f) give the least mean lag
for their number (Keller, "Optimum checking schedules for systems subject to random failure",
Management Science 21, 1974). c is set so that the expected polls are a little fewer than those of a
fixed poll, every 2 s and first at once. Without samples the polls are those of the fixed poll, but
its first one, which never finds anything, is made after 1 s: so never later and never more.

"queued" and "drawing" help once earlier polls showed how long drawing takes and where that is more
regular than the whole: polls in the queue only have to find its end, the rest is timed from there.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

FIXED_POLL_INTERVAL = 2.0
"""Seconds between the polls of the fixed poll, which we do not outnumber."""
MAX_POLL_INTERVAL = 15.0
"""Seconds between polls of a job that is slower than usual never exceed this."""
MAX_PHASE_GAP = 2.5
"""A change from queued to drawing is known well if the polls round it were closer, in seconds."""
MAX_SAMPLES = 50
"""Newest samples that count."""
MIN_DRAWING_SAMPLES = 8
"""Jobs whose drawing time must be known before it is relied on."""

# Found by trying, in benchmarks/schedule.py; none of them is sharp. Deviations are of log seconds.
POLL_SHARE, CAUTION = 0.95, 0.2  # n samples plan POLL_SHARE * n / (n + CAUTION) of the fixed polls
FIRST_STEP = 0.85  # the first poll, in steps
DENSEST = 0.6  # of the floor: about the closest polls that are planned where most jobs end
FADE = 0.96  # weight of a sample against the one after it
UNSEEN_WEIGHT = 0.2  # weight, in jobs, of durations never observed
TAIL_EXPONENT = 2.5  # at which these get rarer
PRIOR_DEVIATION, MIN_DEVIATION = 0.2, 0.02  # what one imagined job speaks for; the least believed
SPLIT_GAIN = 4.0  # log likelihood that two components must gain over one


class DurationSample(NamedTuple):
    """One finished job as its polls saw it; all times in seconds after the submit was accepted.

    It was done in (earliest, latest], and its drawing began in (queued, drawing] if a poll said so.
    """

    earliest: float
    latest: float
    queued: float = 0.0
    drawing: float | None = None


class PollSchedule:
    """When to poll one job, from `samples` of earlier jobs of its style, newest last.

    Remembers what the polls of this job said since `phase` was last None: each job needs its own.
    `floor` is the least number of seconds between two polls.
    """

    def __init__(self, samples: Sequence[DurationSample] = (), *, floor: float = 0.5) -> None:
        self._floor = floor
        kept = [s for s in samples[-MAX_SAMPLES:] if 0 <= s.earliest <= s.latest < math.inf]
        self._whole = DurationModel([s[:2] for s in kept], floor) if kept else None
        self._drawing = self._whole and _drawing_model(kept, floor, self._whole.spread)
        self._last_queued, self._saw_drawing = 0.0, False
        self._drawing_began: float | None = None

    @property
    def usual(self) -> float | None:
        """Seconds that a job of this style usually takes; None without samples."""
        return self._whole and self._whole.usual

    def delay(self, waited: float, phase: str | None = None) -> float:
        """Seconds until the next poll, `waited` seconds after submit; never below the floor.

        `phase` is what the last poll said: "queued", "drawing", or None before the first.
        """
        if phase is None:
            self._last_queued, self._drawing_began, self._saw_drawing = 0.0, None, False
        elif phase == "queued":
            self._last_queued = waited
        elif phase == "drawing" and not self._saw_drawing:
            # Only the first such poll has the change between it and the one before.
            self._saw_drawing = True
            self._drawing_began = _drawing_start(self._last_queued, waited)
        return max(self._floor, self._next_poll(max(0.0, waited), phase) - waited)

    def likely_remaining(self, waited: float) -> float | None:
        """Seconds within which half of the jobs this old are done; None without samples."""
        return self._whole and self._whole.median_remaining(waited)

    def _next_poll(self, waited: float, phase: str | None) -> float:
        """Seconds after submit, before the floor is kept."""
        if not self._whole:
            # The fixed poll, its poll at once made after 1 s; from 5 minutes on ever more rarely.
            if waited < FIXED_POLL_INTERVAL / 2:
                return FIXED_POLL_INTERVAL / 2
            if waited < 150 * FIXED_POLL_INTERVAL:
                # The tiny addition: a clock that says 3.9999999 s means the poll at 4 s, just made.
                return (math.floor(waited / FIXED_POLL_INTERVAL + 1e-9) + 1) * FIXED_POLL_INTERVAL
            return waited + min(MAX_POLL_INTERVAL, waited / 150)
        if not self._drawing:
            return self._whole.next_poll(waited)
        if self._drawing_began is not None:
            return self._drawing_began + self._drawing.next_poll(waited - self._drawing_began)
        if phase == "queued":
            return waited + min(MAX_POLL_INTERVAL, max(FIXED_POLL_INTERVAL, waited / 20))
        return self._whole.next_poll(waited)


def _drawing_start(queued: float, drawing: float | None) -> float | None:
    """When drawing began, if polls said queued and then drawing soon after each other."""
    if drawing is None or not 0 < drawing - queued <= MAX_PHASE_GAP or not queued:
        return None
    return (queued + drawing) / 2


def _drawing_model(
    samples: Sequence[DurationSample], floor: float, whole_spread: float
) -> "DurationModel | None":
    """How long drawing takes once it began, if enough polls said so; None where that is no help."""
    spans = [
        (max(0.0, s.earliest - began), s.latest - began)
        for s in samples
        if (began := _drawing_start(s.queued, s.drawing)) is not None
    ]
    if len(spans) < MIN_DRAWING_SAMPLES:
        return None
    model = DurationModel(spans, floor)
    # A drawing shorter than the polls in the queue would be over before its beginning was seen.
    is_long, is_regular = model.soonest > FIXED_POLL_INTERVAL, model.spread < 0.7 * whole_spread
    return model if is_long and is_regular else None


class Component(NamedTuple):
    """A bell curve over log seconds; `weight` in jobs."""

    weight: float
    mean: float
    deviation: float

    def survival(self, x: float) -> float:
        """The share of this component's jobs that take longer than exp(x) seconds."""
        return math.erfc((x - self.mean) / self.deviation * math.sqrt(0.5)) / 2


class DurationModel:
    """The distribution of the durations in `spans`, newest last, and the polls that suit it.

    A span is (earliest, latest) in seconds. `usual` is the median, `soonest` what 3 % undercut,
    `spread` a standard deviation, all in seconds.
    """

    def __init__(self, spans: Sequence[tuple[float, float]], floor: float) -> None:
        self._floor = floor
        durations = [math.log(duration) for duration in _estimate_durations(spans)]
        weighted = [(x, FADE**age) for age, x in enumerate(reversed(durations))]
        self._tabulate(_fit_components(sorted(weighted)))
        self.usual = self._quantile(0.5)
        self.soonest = self._quantile(0.97)
        self.spread = (self._quantile(0.16) - self._quantile(0.84)) / 2
        self._set_step(POLL_SHARE * len(spans) / (len(spans) + CAUTION))

    def next_poll(self, t: float) -> float:
        """The moment of the poll after the one at `t`."""
        effort = _interpolate(self._times, self._efforts, t)
        effort += self._step * (1.0 if t > 0 else FIRST_STEP)
        if effort >= self._efforts[-1]:  # slower than everything that is believed possible
            return t + min(MAX_POLL_INTERVAL, max(FIXED_POLL_INTERVAL, t / 60))
        planned = _interpolate(self._efforts, self._times, effort)
        return min(planned, t + max(MAX_POLL_INTERVAL, self.usual))

    def median_remaining(self, t: float) -> float:
        """Seconds within which half of the jobs that are not done at `t` will be."""
        half = self._survival_at(t) / 2
        return max(0.0, self._quantile(half) - t) if half > self._survival[-1] else t / 2

    def _quantile(self, survival: float) -> float:
        return _interpolate(self._falling, self._times, -survival)

    def _survival_at(self, t: float) -> float:
        return _interpolate(self._times, self._survival, t)

    def _tabulate(self, components: Sequence[Component]) -> None:
        """Survival, and the effort: the running integral of sqrt(f / S) over time.

        The best polls are equal steps of effort (Keller). Between two rows f is constant, so the
        integral grows by sqrt(drop of S * seconds / mean S).
        """
        weight = sum(c.weight for c in components)
        middle = sum(c.weight * c.mean for c in components) / weight
        unseen = UNSEEN_WEIGHT / (weight + UNSEEN_WEIGHT)
        # Close rows where a component falls; and wide ones, up to exp(2.5) times the middle, for
        # the tail. It is a log-logistic curve: its hazard falls, so polls get rarer by themselves.
        knots = {c.mean + c.deviation * z / 4 for c in components for z in range(-14, 15)}
        knots |= {middle + z / 8 for z in range(-12, 21)}
        self._times, self._survival, self._efforts = [0.0], [1.0], [0.0]
        for x in sorted(knots):
            seen = sum(c.weight * c.survival(x) for c in components) / weight
            tail = 1 / (1 + math.exp(TAIL_EXPONENT * (x - middle)))
            before, after = self._survival[-1], (1 - unseen) * seen + unseen * tail
            seconds = math.exp(x) - self._times[-1]
            if seconds > 0 and after < before:  # else no row: an inverse needs strict order
                step = math.sqrt((before - after) * seconds * 2 / (before + after))
                self._times.append(math.exp(x))
                self._survival.append(after)
                self._efforts.append(self._efforts[-1] + step)
        self._falling = [-s for s in self._survival]  # what `_interpolate` searches must rise

    def _set_step(self, share: float) -> None:
        """Set the effort between polls: as many polls as may be made, none closer than the floor.

        `share` is that of the fixed poll's expected number.
        """
        last = math.ceil(self._quantile(0.002) / FIXED_POLL_INTERVAL)
        fixed = 2 + sum(self._survival_at(FIXED_POLL_INTERVAL * k) for k in range(1, last + 1))
        # Mean of sqrt(f / S) over the jobs: what a step must be for polls one second apart.
        rate = sum(
            (self._survival[i - 1] - self._survival[i])
            * (self._efforts[i] - self._efforts[i - 1])
            / (self._times[i] - self._times[i - 1])
            for i in range(1, len(self._times))
        )
        # Steps that the floor would stretch buy nothing: polls would only be late for their plan.
        least = max(0.01, DENSEST * self._floor * rate)
        self._step = max(least, 0.3)
        for _ in range(4):  # polls less one go about as 1 / step: four rounds are near enough
            ratio = (self._expected_polls() - 1) / (share * fixed - 1)
            self._step = max(least, self._step * ratio)

    def _expected_polls(self) -> float:
        """Each poll counts with the share of jobs that are still alive to be polled."""
        polls, t, survival = 0.0, 0.0, 1.0
        while survival > 0.002:
            polls += survival
            t = max(t + self._floor, self.next_poll(t))
            survival = self._survival_at(t)
        return polls


def _estimate_durations(spans: Sequence[tuple[float, float]]) -> list[float]:
    """Seconds for each span: its middle if it is narrow, nearer the others' median if wide."""
    middles = [(low + high) / 2 for low, high in spans]
    durations = middles
    for _ in range(2):  # again, with a scatter that the wide spans no longer exaggerate
        centre = _median(durations)
        # A standard deviation that stragglers do not move: 1.4826 is the normal curve's factor.
        scatter = 1.4826 * _median(abs(duration - centre) for duration in durations)
        durations: list[float] = []
        for middle, (low, high) in zip(middles, spans, strict=True):
            # A job anywhere in a span of width w has the variance w**2 / 12: the mean of two
            # measurements, each weighed with the other's variance.
            pull = (high - low) ** 2 / ((high - low) ** 2 + 12 * scatter**2 + 1e-9)
            durations.append(middle + (min(max(centre, low), high) - middle) * pull)
    return [min(max(0.05, duration), 3600.0) for duration in durations]


def _fit_components(points: Sequence[tuple[float, float]]) -> list[Component]:
    """One component for all points, or those of the two parts that explain them clearly better.

    `points` are (value, weight), values rising: any two parts are neighbours, cut somewhere.
    """
    sums = [(0.0, 0.0, 0.0)]
    for x, w in points:
        weight, first, second = sums[-1]
        sums.append((weight + w, first + w * x, second + w * x * x))
    whole = sums[-1]
    best, cut = _log_likelihood(*whole, of=whole[0]) + SPLIT_GAIN, 0
    for i in range(1, len(points)):
        left = sums[i]
        right = (whole[0] - left[0], whole[1] - left[1], whole[2] - left[2])
        two = _log_likelihood(*left, of=whole[0]) + _log_likelihood(*right, of=whole[0])
        if two > best:
            best, cut = two, i
    if cut:
        return _fit_components(points[:cut]) + _fit_components(points[cut:])
    weight, first, _ = whole
    # Wider by what is not known of the mean itself: a forecast from one job is twice as unsure.
    deviation = math.sqrt(_variance(*whole) * (1 + 1 / weight))
    return [Component(weight, first / weight, deviation)]


def _log_likelihood(weight: float, first: float, second: float, *, of: float) -> float:
    """Log likelihood, less a constant, of points with these sums of 1, x and x * x.

    Includes that of belonging to this part, which has `weight` of the points' weight `of`.
    """
    variance = _variance(weight, first, second)
    squares = second - first * first / weight
    return weight * math.log(weight / of) - (weight * math.log(variance) + squares / variance) / 2


def _variance(weight: float, first: float, second: float) -> float:
    """The variance of these points and one imagined job; without it, one sample would have none."""
    variance = (second - first * first / weight + PRIOR_DEVIATION**2) / (weight + 1)
    return variance if variance > MIN_DEVIATION**2 else MIN_DEVIATION**2


def _median(values: Iterable[float]) -> float:
    """Like statistics.median, whose module takes longer to import than all of ours."""
    ranked = sorted(values)
    return (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2


def _interpolate(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """y at x on the polyline; the ends go on level."""
    if x <= xs[0]:
        return ys[0]
    if x >= xs[-1]:
        return ys[-1]
    i = bisect_right(xs, x)
    return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1])
