"""How a process ends when it is told to: at the first signal, and what is under way has its time.

Once an event loop runs, SIGINT, SIGTERM and SIGHUP are one thing: what runs in it is cancelled, so
that a submit under way reaches the journal. Before and after that nothing can be lost.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from arta_mcp.cli.interrupts import exit_at_once, raise_interrupts

if TYPE_CHECKING:
    import anyio

T = TypeVar("T")

EXIT_TIMEOUT = 2.0
"""seconds after the clean-up until the process ends whatever its threads still wait for"""

PARENT_POLL_INTERVAL = 2.0
"""seconds between two looks at whether the parent lives"""

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Stopped(KeyboardInterrupt):
    """A signal ended what ran; `code` is what a shell gives a program that it ended."""

    def __init__(self, number: int) -> None:
        self.code = 128 + number
        super().__init__()


def run_until_stopped(call: Callable[[], Awaitable[T]]) -> T:
    """What `call` gives in an event loop. Raises Stopped when a signal ended it.

    The first signal cancels it; its clean-up has its time, unless a second SIGINT comes.
    """
    import anyio

    if sys.platform == "win32":  # where asyncio takes signals from Python alone
        raise_interrupts()
    stopped: list[Stopped] = []

    async def run() -> T:
        results: list[T] = []
        failures: list[BaseException] = []
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()
            is_main = threading.current_thread() is threading.main_thread()
            if sys.platform != "win32" and is_main:
                await group.start(_cancel_at_signal, scope, stopped)
            with scope:
                try:
                    results.append(await call())
                except Exception as exc:  # the group would wrap it into one of its own
                    failures.append(exc)
            group.cancel_scope.cancel()
        if results:
            return results[0]
        if stopped:
            # Threads of libraries, a look-up of a name among them, end when they like.
            watch = threading.Timer(EXIT_TIMEOUT, os._exit, (stopped[0].code,))
            watch.daemon = True
            watch.start()
            raise stopped[0]
        raise failures[0]

    return anyio.run(run)


async def _cancel_at_signal(
    scope: anyio.CancelScope,
    stopped: list[Stopped],
    *,
    task_status: anyio.abc.TaskStatus[None],
) -> None:
    import anyio

    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    with anyio.open_signal_receiver(*heard) as received:
        task_status.started()
        async for number in received:
            if stopped and number == signal.SIGINT:
                exit_at_once(number, None)
            stopped.append(Stopped(number))
            scope.cancel()


async def wait_for_parents_death() -> None:
    """Returns once another process has become our parent, some seconds after the first one's end.

    A host that is killed closes our stdin only when no other child of its holds the pipe.
    """
    import anyio

    # Asked for as late as here: a launcher that started us and left has gone by now. Linux's
    # PR_SET_PDEATHSIG takes the end of the thread that started us for that of the process.
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  # no event says so
        await anyio.sleep(PARENT_POLL_INTERVAL)
