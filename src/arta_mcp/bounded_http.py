"""What one connection to a server of ours may take: time for a request, and a descriptor."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_TIMEOUT = 10.0
"""seconds from the first byte of a request to its last; for the first one, from the connection"""

KEEP_ALIVE = 75
"""seconds that an idle connection is kept: longer than our client (30) and nginx (60) keep one, or
its next request could cross our goodbye and would count as one whose answer was lost"""

SEND_TIMEOUT = 30.0
"""seconds in which a caller takes the next part of its answer"""

MAX_CONNECTIONS = 1024
"""open at once, fewer where descriptors are few"""


def max_connections() -> int:
    """How many connections may be open: a quarter of this process's descriptors at most."""
    try:
        import resource
    except ImportError:  # Windows, where sockets are no descriptors
        return MAX_CONNECTIONS
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    # A quarter: the client in our own process holds the other end of each, and files need some.
    return max(1, min(MAX_CONNECTIONS, soft // 4))


class BoundedProtocol(H11Protocol):
    """A connection that is closed when its request does not come, or another needs its place.

    Nothing was done yet about a request that is not whole, so closing loses no answer.
    """

    _deadline: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None
    _since = 0.0
    """when it last began to wait for the other side, by the loop's clock"""

    @property
    def is_reading(self) -> bool:
        """Whether it waits for a request, or for the rest of one."""
        cycle: Any = self.cycle  # None at first, whatever its annotation says
        return cycle is None or cycle.response_complete or cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # as uvicorn's own
        """Starts the deadline, and makes room when there are too many."""
        super().connection_made(transport)
        self._start_deadline()
        if len(self.connections) <= max_connections():
            return
        # An aborted one is among them until the next turn of the loop.
        open_ones = [one for one in self.connections if not one.transport.is_closing()]
        if len(open_ones) > max_connections():
            close_one_reading([one for one in open_ones if one is not self])

    def data_received(self, data: bytes) -> None:
        """Reads on; the deadline stands until the request is whole."""
        super().data_received(data)
        if not self.is_reading:
            self._stop_deadline()
        elif self._deadline is None:
            self._start_deadline()

    def on_response_complete(self) -> None:
        """Idle from now on, unless the next request is here already."""
        self._since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The caller does not take its answer: it gets some time for that, too."""
        super().pause_writing()
        self._sending = self.loop.call_later(SEND_TIMEOUT, self.transport.abort)

    def resume_writing(self) -> None:
        """It went on."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the deadlines."""
        self._stop_deadline()
        if self._sending is not None:
            self._sending.cancel()
        super().connection_lost(exc)

    @property
    def rank(self) -> tuple[bool, float]:
        """The lowest goes first: before one that is idle, one that began a request; the oldest."""
        return self._deadline is None, self._since

    def _start_deadline(self) -> None:
        self._since = self.loop.time()
        self._deadline = self.loop.call_later(REQUEST_TIMEOUT, self.transport.abort)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def close_one_reading(connections: list[Any]) -> None:
    """Closes the connection that can best be spared; none when all have a request under way."""
    spare = [one for one in connections if isinstance(one, BoundedProtocol) and one.is_reading]
    if spare:
        min(spare, key=lambda one: one.rank).transport.abort()
