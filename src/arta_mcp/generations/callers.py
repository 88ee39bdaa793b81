"""Callers: which calls of a host wait for what, and how long that host lets a call take.

Hosts end a call after a time of their own (5 s to minutes) and the model then repeats it. So that
the repetition gets the first job back, a call says when it was cut off and a connection remembers:

    cancelled, with a reason that names a time-out   cut; the generation is free for an equal call
    the connection ends with the call open           cut; the same
    its host kills this process                      cut; the next one on the state finds that
    an equal call after 3 s, the first still runs    cut in silence: it joins the first one's job
    answered after 4.5 s, to a host that sends no    perhaps unread: the next equal call within
      cancellation (`reads_late_answers` false)        30 s gets the same generation
    cancelled otherwise                              free for an equal call; says nothing of time
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count

import anyio

from arta_mcp.state.contract import CUT_SHARE
from arta_mcp.state.records import JournalEntry

MIN_WAIT = 1.0
"""seconds; a call answers no sooner because of a cut"""

JOIN_AFTER = 3.0
"""seconds after which an equal call on one connection repeats the first; before, it is a new one"""

LATE_ANSWER = 4.5
"""seconds; the shortest limit of such hosts is 5"""

LATE_ANSWER_TTL = 30.0
"""seconds in which a model repeats a call whose answer its host has dropped"""

_TIME_OUT = re.compile(r"tim(e|ed|ing)[\s_-]*out|deadline|-32001", re.IGNORECASE)


class Connection:
    """What one connection of a host has shown so far; `owner` is whose generations it sees."""

    def __init__(
        self,
        *,
        owner: str | None = None,
        is_one_host: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """No owner is that of the Generations; `clock` gives seconds, compared with itself only.

        Of several hosts that one caller uses, how long one lets a call take says nothing of others.
        """
        self.owner, self.is_one_host, self.clock = owner, is_one_host, clock
        self.reads_late_answers = True
        self.shortest_cut = math.inf
        self.calls: list[Call] = []
        self._unread: dict[str, tuple[str, float]] = {}

    def find_running(self, call: Call) -> Call | None:
        """The equal call that this one repeats: still running, and none came for it in 3 s."""
        latest = {
            other.token: other
            for other in self.calls
            if other.fingerprint == call.fingerprint and other.ended is None and other is not call
        }
        return next((first for first in latest.values() if first.age >= JOIN_AFTER), None)

    def take_unread(self, fingerprint: str) -> str | None:
        """The record id of a generation whose answer may not have been read; gives it once."""
        record_id, at = self._unread.pop(fingerprint, ("", -math.inf))
        return record_id if self.clock() - at <= LATE_ANSWER_TTL else None

    def note_answer(self, call: Call, record_id: str) -> None:
        """Remembers an answer that came so late that a host without cancellations dropped it."""
        if self.reads_late_answers:
            return
        self._unread = {key: kept for key, kept in self._unread.items() if kept[0] != record_id}
        # One that was repeated meanwhile is answered by its repetition.
        if call.fingerprint and call.age > LATE_ANSWER and not call.is_repeated:
            self._unread[call.fingerprint] = (record_id, self.clock())

    def note_cut(self, seconds: float) -> None:
        """Learns that a call was cut off after so many seconds."""
        if self.is_one_host:
            self.shortest_cut = min(self.shortest_cut, seconds)

    def close(self) -> None:
        """The host has left: what it still waited for was cut."""
        for call in tuple(self.calls):
            call.leave(is_cut=True)


class Call:
    """One call; without a connection it is a program's own, which is never taken up or cut.

    `entry` is what it has in the journal, `job` what it waits for once that was submitted; `token`
    is shared with the calls that it joined. `fingerprint` is empty for one with a key.
    """

    _numbers = count(1)

    def __init__(
        self,
        connection: Connection | None = None,
        *,
        owner: str | None = None,
        came: float | None = None,
    ) -> None:
        """`came` is when it reached this process, by the connection's clock; None: now.

        `owner` is whose generations it sees and makes: None is the connection's, and without one
        that of the Generations.
        """
        self.connection = connection
        self.owner = connection.owner if connection and owner is None else owner
        self._clock = connection.clock if connection else time.monotonic
        self._started = self._clock() if came is None else came
        self.token = str(next(self._numbers))
        self.fingerprint = ""
        self.entry: JournalEntry | None = None
        self.job: JournalEntry | None = None
        self.ended: float | None = None
        self.is_settled, self.is_explained = anyio.Event(), anyio.Event()
        self.is_repeated = self.is_cut = self.has_left = False
        if connection:
            connection.calls.append(self)

    @property
    def age(self) -> float:
        """Seconds since the call came, or that it took."""
        return self._clock() - self._started if self.ended is None else self.ended

    def settle(self, job: JournalEntry | None) -> None:
        """What it waits for from now on; None: it came to no job."""
        self.entry, self.job = job or self.entry, job
        self.is_settled.set()

    def explain(self, *, is_cut: bool) -> None:
        """Why it ended or was cancelled, said before or after that; the first word stands."""
        if self.connection and not self.is_explained.is_set():
            self.is_cut = is_cut
            if is_cut:
                self.connection.note_cut(self.age)
            # From here on no equal call joins it: its host may have gone.
            self.connection.calls.remove(self)
        self.is_explained.set()

    def leave(self, *, is_cut: bool) -> None:
        """Its host waits no more: an equal call need not wait until its cancellation is through."""
        self.has_left = True
        self.explain(is_cut=is_cut)

    def allowed_wait(self, wait: float, cut_after: float | None = None) -> float:
        """At most `wait` seconds, less where a call was cut before: here, or for the same job."""
        shortest = self.connection.shortest_cut if self.connection else math.inf
        return min(wait, max(MIN_WAIT, CUT_SHARE * min(shortest, cut_after or math.inf)))


def names_time_out(reason: str) -> bool:
    """Whether the reason that a host gives for a cancellation is its own time limit."""
    return _TIME_OUT.search(reason) is not None


class Callers:
    """The calls of this process that are running, by token; joined calls share one."""

    def __init__(self) -> None:
        self._calls: dict[str, tuple[Call, ...]] = {}

    @contextmanager
    def running(self, call: Call) -> Generator[None]:
        """Counts the call in."""
        self._add(call)
        try:
            yield
        finally:
            self._remove(call)
            call.ended = call.age
            if not call.is_settled.is_set():
                call.settle(None)

    def join(self, call: Call, first: Call) -> float:
        """Lets a call share what the first one waits for; gives after how long that was cut."""
        self._remove(call)
        call.token, first.is_repeated = first.token, True
        self._add(call)
        return first.age

    def is_waiting(self, token: str) -> bool:
        """Whether a call with this token is there; any thread may ask."""
        return any(not call.has_left for call in self._calls.get(token, ()))

    def _add(self, call: Call) -> None:
        self._calls[call.token] = (*self._calls.get(call.token, ()), call)

    def _remove(self, call: Call) -> None:
        others = tuple(one for one in self._calls.pop(call.token) if one is not call)
        if others:
            self._calls[call.token] = others
