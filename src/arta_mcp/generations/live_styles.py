"""LiveCatalogue: the freshest catalogue to be had without keeping a call waiting."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import anyio

from arta_mcp.arta.client import ArtaClient
from arta_mcp.background import BackgroundTasks
from arta_mcp.errors import ArtaError
from arta_mcp.state.contract import State
from arta_mcp.state.records import StyleList
from arta_mcp.styles import SHIPPED, Catalogue

log = logging.getLogger(__name__)

LIST_TTL = 24 * 3600.0
"""seconds that a live list counts as fresh; the service changes it every few weeks"""

RETRY_AFTER = 600.0
"""seconds after a failed request"""

WAIT_TIMEOUT = 2.0
"""seconds that a call waits for the live list at most; it can do without"""


class LiveCatalogue:
    """The catalogue of one service: live when the service gave it, else as shipped."""

    def __init__(
        self, service: str, *, clock: Callable[[], float], shipped: Catalogue = SHIPPED
    ) -> None:
        """`clock` gives seconds since the epoch."""
        self.catalogue = shipped
        self._service, self._clock = service, clock
        self._fresh_until = 0.0
        self._asked_at = float("-inf")

    @property
    def is_fresh(self) -> bool:
        """Whether nothing is to be gained by a request now."""
        return self._clock() < max(self._fresh_until, self._asked_at + RETRY_AFTER)

    async def refresh(self, state: State, client: ArtaClient, background: BackgroundTasks) -> None:
        """Reads the stored list, and requests the live one when that is old.

        A slow answer is kept for the next call. Never raises an ArtaError.
        """

        async def request() -> None:
            try:
                stored = await state.styles(self._service)
                if stored is not None:
                    self._use(stored)
                if self._clock() >= self._fresh_until and client.lists_styles:
                    await self.learn(await client.list_styles(), state)
            except ArtaError as exc:
                log.info("the live style list is not to be had: %s", exc.message)

        if not self.is_fresh:
            self._asked_at = self._clock()
            with anyio.move_on_after(WAIT_TIMEOUT):
                await background.run_detached(request)

    async def learn(self, names: tuple[str, ...], state: State) -> None:
        """Uses and keeps the styles that the service itself has just listed."""
        listed = StyleList(names, self._clock())
        self._use(listed)
        await state.keep_styles(self._service, listed)

    def _use(self, listed: StyleList) -> None:
        day = time.strftime("%Y-%m-%d", time.gmtime(listed.listed_at))
        self.catalogue = Catalogue.from_names(listed.names, day)
        if self.catalogue.source == "live":  # else an earlier version stored what is no list
            self._fresh_until = listed.listed_at + LIST_TTL
