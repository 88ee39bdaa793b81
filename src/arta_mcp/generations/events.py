"""Events: which generations are new or have ended, for listeners that no call waits for."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from arta_mcp.background import BackgroundTasks

log = logging.getLogger(__name__)

MAX_QUEUED = 100
"""events that wait for one listener; more are dropped, so that no call waits"""

LISTENER_TIMEOUT = 5.0
"""seconds that a listener may take for one event before the next one is its turn"""


@dataclass(frozen=True, slots=True)
class GenerationEvent:
    """A generation is new or has ended; `record_id` is empty for one that has none yet."""

    owner: str
    record_id: str


Listener = Callable[[GenerationEvent], Awaitable[None]]


class EventPublisher:
    """Calls every listener in a task of its own, in turn, bounded in time and number."""

    def __init__(self) -> None:
        self._queues: list[MemoryObjectSendStream[GenerationEvent]] = []

    def publish(self, event: GenerationEvent) -> None:
        """Queues the event for each listener; returns at once."""
        for queue in self._queues:
            try:
                queue.send_nowait(event)
            except anyio.WouldBlock:
                log.info("a listener is slow; an event of %s is dropped", event.record_id)

    def subscribe(self, listener: Listener, background: BackgroundTasks) -> Callable[[], None]:
        """Calls `listener` from now on; gives the function that ends it."""
        send, receive = anyio.create_memory_object_stream[GenerationEvent](MAX_QUEUED)

        async def deliver() -> None:
            try:
                with receive:
                    async for event in receive:
                        if send not in self._queues:  # it has left while events were queued
                            break
                        try:
                            with anyio.move_on_after(LISTENER_TIMEOUT):
                                await listener(event)
                        except Exception:  # a listener's bug must not end the calls it hears of
                            log.exception("a listener failed")
            finally:
                unsubscribe()

        def unsubscribe() -> None:
            if send in self._queues:
                self._queues.remove(send)
            send.close()

        self._queues.append(send)
        background.spawn(deliver)
        return unsubscribe
