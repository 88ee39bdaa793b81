"""When to look at a job again, learnt from finished jobs of the same style; no I/O happens here.

A finished job is only known to have ended between two looks. Its time is put where, between them,
it agrees best with its neighbours; times are compared as logarithms. Where times drift the forecast
follows them: of several trackers the one that would have foretold best, and the steady one unless
another is clearly better. What remains is one bell curve, or several where they tell it clearly
better: a queue that is empty or full, a straggler. A thin wide curve under all of it stands for
what was never seen: a job slower than every earlier one is looked at more and more rarely.

For durations with density f and survival S, looks spaced by sqrt(c * S / f) give the least mean lag
for their number (Keller, "Optimum checking schedules for systems subject to random failure",
Management Science 21, 1974). c is set so that the expected looks are a little fewer than those of a
poll every 2 s that looks first at once. Without samples the looks are those of that poll, with its
first one, which never finds anything, made after 1 s: so never later and never more.

"queued" and "drawing" help once earlier looks told how long drawing takes and where that is more
regular than the whole: looks in the queue only have to find its end, the rest is timed from there.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

BEAT = 2.0
"""Seconds between the looks of the poll that we never outnumber."""
SHARE, CAUTION = 0.95, 0.2
"""With n samples, SHARE * n / (n + CAUTION) of that poll's looks are planned; forecasts err."""
LONGEST = 15.0
"""Seconds between looks at a job that is slower than usual never exceed this."""
PINNED = 2.5
"""A change from queued to drawing is known well if the looks round it were closer, in seconds."""
MEMORY, ENOUGH, FIRST_FEW = 50, 8, 3
"""Samples that count; that a tracker or a drawing time needs; that a tracker is not judged by."""

# Found by trying, in benchmarks/pacing.py; none of them is sharp. Deviations are of log seconds.
FIRST_STEP = 0.85  # the first look, in steps
DENSEST = 0.6  # of the floor: about the closest looks that are planned in the thick of the jobs
UNSEEN = 0.2  # weight, in jobs, of durations never seen
TAIL = 2.5  # exponent at which these get rarer
PRIOR, NARROWEST = 0.2, 0.02  # deviation that one imagined job speaks for; the least believed
SPLITTING, CLEARLY = 4.0, 0.05  # log likelihood to gain by two humps; per job by a tracker
TRACKERS = ((0.12, 0.0), (0.3, 0.0), (0.2, 0.03))  # gains on level and trend, steadiest first


class Sample(NamedTuple):
    """One finished job as its looks saw it; all times in seconds after the submit was accepted.

    It was done in (earliest, latest], and began to be drawn in (queued, drawing] if a look told so.
    """

    earliest: float
    latest: float
    queued: float = 0.0
    drawing: float | None = None


class Pace:
    """The rhythm of looks for one job, from `samples` of earlier jobs of its style, newest last.

    It remembers what the looks at this job told since phase was last None: each job needs its own.
    """

    def __init__(self, samples: Sequence[Sample] = (), *, floor: float = 0.5) -> None:
        self._floor = floor
        kept = [s for s in samples[-MEMORY:] if 0 <= s.earliest <= s.latest < math.inf]
        self._whole = _Law([(s.earliest, s.latest) for s in kept], floor) if kept else None
        self._drawing = self._whole and _drawing_law(kept, floor, self._whole.spread)
        self._queued = 0.0
        self._began: float | None = None
        self._drawn = False

    @property
    def usual(self) -> float | None:
        """Seconds that a job of this style usually takes; None without samples."""
        return self._whole and self._whole.usual

    def delay(self, waited: float, phase: str | None = None) -> float:
        """Seconds until the next look, `waited` seconds after submit; never below the floor.

        `phase` is what the last look told: "queued", "drawing", or None before the first.
        """
        self._note(waited, phase)
        return max(self._floor, self._next(max(0.0, waited), phase) - waited)

    def likely_remaining(self, waited: float) -> float | None:
        """Seconds within which half of the jobs this old are done; None without samples."""
        return self._whole and self._whole.half_of_rest(waited)

    def _note(self, waited: float, phase: str | None) -> None:
        if phase is None:
            self._queued, self._began, self._drawn = 0.0, None, False
        elif phase == "queued":
            self._queued = waited
        elif phase == "drawing" and not self._drawn:
            self._drawn = True
            self._began = _began(self._queued, waited)

    def _next(self, waited: float, phase: str | None) -> float:
        if not self._whole:
            return _unlearnt(waited)
        if not self._drawing:
            return self._whole.next(waited)
        if self._began is not None:
            return self._began + self._drawing.next(waited - self._began)
        if phase == "queued":
            return waited + min(LONGEST, max(BEAT, waited / 20))
        return self._whole.next(waited)


def _unlearnt(waited: float) -> float:
    """The fixed poll, its look at once made after 1 s; from 5 minutes on ever more rarely."""
    if waited < BEAT / 2:
        return BEAT / 2
    if waited < 150 * BEAT:
        return (math.floor(waited / BEAT + 1e-9) + 1) * BEAT
    return waited + min(LONGEST, waited / 150)


def _began(queued: float, drawing: float | None) -> float | None:
    """When drawing began, if looks told queued and then drawing soon after each other."""
    if drawing is None or not 0 < drawing - queued <= PINNED or not queued:
        return None
    return (queued + drawing) / 2


def _drawing_law(samples: Sequence[Sample], floor: float, whole: float) -> "_Law | None":
    """How long drawing takes once it began, if enough looks told; None where that is no help."""
    spans = [
        (max(0.0, s.earliest - began), s.latest - began)
        for s in samples
        if (began := _began(s.queued, s.drawing)) is not None
    ]
    if len(spans) < ENOUGH:
        return None
    law = _Law(spans, floor)
    return law if law.soonest > BEAT and law.spread < 0.7 * whole else None


class _Hump(NamedTuple):
    """A bell curve over log seconds; `weight` in jobs."""

    weight: float
    mean: float
    deviation: float

    def alive(self, x: float) -> float:
        return math.erfc((x - self.mean) / self.deviation * math.sqrt(0.5)) / 2


class _Law:
    """The distribution of durations seen in `spans`, newest last, and the looks that suit it."""

    def __init__(self, spans: Sequence[tuple[float, float]], floor: float) -> None:
        self._floor = floor
        self._known = len(spans)
        humps = _forecast([math.log(value) for value in _settle(spans)])
        self._tabulate(humps)
        self.usual = self._quantile(0.5)
        self.soonest = self._quantile(0.97)
        self.spread = (self._quantile(0.16) - self._quantile(0.84)) / 2
        self._afford()

    def next(self, t: float) -> float:
        """The moment of the look after the one at `t`."""
        step = self.unit * (1.0 if t > 0 else FIRST_STEP)
        goal = _interpolate(self._times, self._levels, t) + step
        late = t + min(LONGEST, max(BEAT, t / 60))
        if goal >= self._levels[-1]:
            return late
        return min(_interpolate(self._levels, self._times, goal), t + max(LONGEST, self.usual))

    def half_of_rest(self, t: float) -> float:
        half = self._alive_at(t) / 2
        return max(0.0, self._quantile(half) - t) if half > self._alive[-1] else t / 2

    def _quantile(self, alive: float) -> float:
        return _interpolate([-a for a in self._alive], self._times, -alive)

    def _alive_at(self, t: float) -> float:
        return _interpolate(self._times, self._alive, t)

    def _tabulate(self, humps: Sequence[_Hump]) -> None:
        """Survival, and the running integral of sqrt(f / S): its equal steps are the best looks."""
        weight = sum(hump.weight for hump in humps)
        middle = sum(hump.weight * hump.mean for hump in humps) / weight
        unseen = UNSEEN / (weight + UNSEEN)
        knots = {hump.mean + hump.deviation * z / 4 for hump in humps for z in range(-14, 15)}
        knots |= {middle + z / 8 for z in range(-12, 21)}
        self._times, self._alive, self._levels = [0.0], [1.0], [0.0]
        for x in sorted(knots):
            seen = sum(hump.weight * hump.alive(x) for hump in humps) / weight
            self._add(
                math.exp(x), (1 - unseen) * seen + unseen / (1 + math.exp(TAIL * (x - middle)))
            )

    def _add(self, t: float, alive: float) -> None:
        before, step = self._alive[-1], t - self._times[-1]
        if step > 0 and alive < before:
            self._times.append(t)
            self._alive.append(alive)
            self._levels.append(
                self._levels[-1] + math.sqrt((before - alive) * step * 2 / (before + alive))
            )

    def _afford(self) -> None:
        """Set the step between looks: as many as may be spent, none that the floor would refuse."""
        share = SHARE * self._known / (self._known + CAUTION)
        budget = share * (2 + sum(self._alive_at(BEAT * k) for k in self._beats()))
        least = max(0.01, DENSEST * self._floor * self._density())
        self.unit = max(least, 0.3)
        for _ in range(4):  # looks less one go about as 1 / unit: as near as it matters
            self.unit = max(least, self.unit * (self._expected_looks() - 1) / (budget - 1))

    def _beats(self) -> range:
        return range(1, math.ceil(self._quantile(0.002) / BEAT) + 1)

    def _density(self) -> float:
        """Mean of sqrt(f / S) over the jobs: what a step must be for looks one second apart."""
        steps = range(1, len(self._times))
        return sum(
            (self._alive[i - 1] - self._alive[i])
            * (self._levels[i] - self._levels[i - 1])
            / (self._times[i] - self._times[i - 1])
            for i in steps
        )

    def _expected_looks(self) -> float:
        looks, t, alive = 0.0, 0.0, 1.0
        while alive > 0.002:
            looks += alive
            t = max(t + self._floor, self.next(t))
            alive = self._alive_at(t)
        return looks


def _settle(spans: Sequence[tuple[float, float]]) -> list[float]:
    """A value for each span: its middle if it is narrow, nearer the others' median if wide."""
    values = [(low + high) / 2 for low, high in spans]
    for _ in range(2):
        centre, scatter = _median(values), _scatter(values)
        values = [_place(low, high, centre, scatter) for low, high in spans]
    return [min(max(0.05, value), 3600.0) for value in values]


def _place(low: float, high: float, centre: float, scatter: float) -> float:
    middle, width = (low + high) / 2, high - low
    pull = width**2 / (width**2 + 12 * scatter**2 + 1e-9)
    return middle + (min(max(centre, low), high) - middle) * pull


def _forecast(logs: Sequence[float]) -> list[_Hump]:
    """What the next job's log duration is likely to be."""
    steady = sum(logs) / len(logs)
    best = _Track([x - steady for x in logs], steady, fade=0.98)
    if len(logs) >= ENOUGH:
        reach = 2.5 * max(0.03, _scatter(logs))
        for gain, trend in TRACKERS:
            track = _follow(logs, gain, trend, reach)
            if track.merit > best.merit + CLEARLY:
                best = track
    return best.humps()


class _Track(NamedTuple):
    """A forecast `at` a log duration, and by how much such forecasts missed the jobs so far."""

    misses: Sequence[float]
    at: float
    fade: float

    @property
    def merit(self) -> float:
        """Log likelihood of a recent job, less a constant."""
        points = _weighted(self.misses[FIRST_FEW:], 0.95)
        return _split(points)[0] / sum(weight for _, weight in points)

    def humps(self) -> list[_Hump]:
        _, humps = _split(_weighted(self.misses, self.fade))
        return [_Hump(w, self.at + mean, s * math.sqrt(1 + 1 / w)) for w, mean, s in humps]


def _follow(logs: Sequence[float], gain: float, trend: float, reach: float) -> _Track:
    """Exponential smoothing with a trend; a straggler pulls no more than a miss of `reach`."""
    at, slope, misses = logs[0], 0.0, list[float]()
    for k, x in enumerate(logs):
        at += slope
        misses.append(x - at)
        pull = min(max(x - at, -reach), reach)
        at += max(gain, 1 / (k + 1)) * pull
        slope += trend * pull if k >= FIRST_FEW else 0.0
    return _Track(misses[FIRST_FEW:], at + slope, fade=0.95)


def _weighted(values: Sequence[float], fade: float) -> list[tuple[float, float]]:
    """Values in rising order with their weights; the newest, last of `values`, weighs 1."""
    return sorted((value, fade**age) for age, value in enumerate(reversed(values)))


def _split(points: Sequence[tuple[float, float]]) -> tuple[float, list[_Hump]]:
    """Log likelihood (less a constant) and humps: one, or those of two parts if they tell more."""
    sums = [(0.0, 0.0, 0.0)]
    for x, w in points:
        n, first, second = sums[-1]
        sums.append((n + w, first + w * x, second + w * x * x))
    whole = sums[-1]
    one = _fit(*whole)
    best, cut = one + SPLITTING, 0
    for i in range(1, len(points)):
        part = sums[i]
        rest = (whole[0] - part[0], whole[1] - part[1], whole[2] - part[2])
        two = _fit(*part) + _fit(*rest) + _parting(part[0], rest[0])
        if two > best:
            best, cut = two, i
    if not cut:
        return one, [_Hump(whole[0], whole[1] / whole[0], math.sqrt(_variance(*whole)))]
    (left, low), (right, high) = _split(points[:cut]), _split(points[cut:])
    return left + right + _parting(sums[cut][0], whole[0] - sums[cut][0]), low + high


def _parting(left: float, right: float) -> float:
    """Log likelihood of telling which part a job belongs to."""
    return left * math.log(left / (left + right)) + right * math.log(right / (left + right))


def _fit(weight: float, first: float, second: float) -> float:
    """Log likelihood (less a constant) of points with these sums of 1, x and x * x."""
    variance = _variance(weight, first, second)
    squares = second - first * first / weight
    return -(weight * math.log(variance) + squares / variance) / 2


def _variance(weight: float, first: float, second: float) -> float:
    variance = (second - first * first / weight + PRIOR**2) / (weight + 1)
    return variance if variance > NARROWEST**2 else NARROWEST**2


def _median(values: Iterable[float]) -> float:
    """Like statistics.median, whose module takes longer to import than all of ours."""
    ranked = sorted(values)
    return (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2


def _scatter(values: Sequence[float]) -> float:
    """A standard deviation that stragglers do not move."""
    centre = _median(values)
    return 1.4826 * _median(abs(value - centre) for value in values)


def _interpolate(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """y at x on the polyline; the ends go on level."""
    if x <= xs[0]:
        return ys[0]
    if x >= xs[-1]:
        return ys[-1]
    i = bisect_right(xs, x)
    return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1])
