"""LearntSchedules: the poll schedules of a process, one a style, and when they are learnt anew."""

from __future__ import annotations

import math
from collections import Counter
from copy import copy

import anyio

from arta_mcp.errors import ArtaError
from arta_mcp.generations.results import to_sample
from arta_mcp.generations.schedule import MAX_SAMPLES, PollSchedule
from arta_mcp.state.contract import State

READ_TIMEOUT = 2.0
"""seconds that a call waits for what its poll schedule is learnt from"""

MAX_AGE = 60.0
"""seconds that a schedule is kept without what other processes may have learnt meanwhile"""

NEW_SHARE = 0.1
"""of the jobs that a schedule was learnt from: so many more, and it is learnt anew"""


class LearntSchedules:
    """What the finished jobs of a service teach about the next one of their style.

    Reading and fitting them is a tenth of what a generation costs, and one job more among fifty
    moves no poll that anybody would notice.
    """

    def __init__(self, service: str, kind: type[PollSchedule], *, floor: float) -> None:
        """`floor` is the least time between two polls, in seconds."""
        self._service, self._kind, self._floor = service, kind, floor
        self._kept: dict[str, tuple[PollSchedule, float, float]] = {}
        """by style: the schedule, until when it is good, and after how many more jobs it is not"""
        self._ended = Counter[str]()
        """jobs of a style that ended since its schedule was learnt"""

    def note_end(self, style: str) -> None:
        """A job of the style is done, and its times are in the journal."""
        self._ended[style] += 1

    async def schedule_for(self, style: str, state: State) -> PollSchedule:
        """A schedule for one new job."""
        schedule, until, jobs = self._kept.get(style, (None, -math.inf, 0.0))
        if schedule is not None and anyio.current_time() < until and self._ended[style] <= jobs:
            return copy(schedule)  # each job needs its own; what was learnt is shared
        try:
            with anyio.fail_after(READ_TIMEOUT):
                self._ended[style] = 0
                timings = await state.timings(self._service, style, MAX_SAMPLES)
        except (ArtaError, TimeoutError):
            # As before, or as a style that is new: the job counts, not its schedule.
            return copy(schedule) if schedule else self._kind((), floor=self._floor)
        samples = [sample for timing in timings if (sample := to_sample(timing)) is not None]
        learnt = self._kind(samples, floor=self._floor)
        self._kept[style] = learnt, anyio.current_time() + MAX_AGE, len(samples) * NEW_SHARE
        return copy(learnt)
