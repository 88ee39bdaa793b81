"""Draining: a process that is told to end lets its calls answer early, and orders nothing more."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import anyio

from arta_mcp.errors import Unavailable


class Drain:
    """Whether the process is ending, and the waits that end with that."""

    def __init__(self) -> None:
        self.has_begun = False
        self._waits: set[anyio.CancelScope] = set()
        self._listeners: list[Callable[[], None]] = []

    def begin(self) -> None:
        """Ends every wait and calls the listeners; the calls themselves go on to their answers."""
        self.has_begun = True
        for wait in tuple(self._waits):
            wait.cancel()
        for listener in self._listeners:
            listener()

    def on_begin(self, listener: Callable[[], None]) -> None:
        """Calls `listener` when it begins."""
        self._listeners.append(listener)

    @contextmanager
    def waiting(self) -> Generator[None]:
        """A wait that may be left early: what follows the block must bear that."""
        with anyio.CancelScope() as scope:
            self._waits.add(scope)
            if self.has_begun:  # a call that comes late waits for nothing
                scope.cancel()
            try:
                yield
            finally:
                self._waits.discard(scope)

    @contextmanager
    def preparing(self) -> Generator[None]:
        """What comes before a submit: raises Unavailable when the process ends first."""
        # Asked, too: what waits for nothing meets no point at which it is cancelled.
        if not self.has_begun:
            with self.waiting():
                yield
                return
        raise Unavailable(
            "this server is ending; nothing was ordered",
            hint="call again: another process answers, or this one once it is back",
        )
