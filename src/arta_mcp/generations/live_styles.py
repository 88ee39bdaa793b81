"""KnownStyles: the freshest catalogue to be had without making anybody wait."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import anyio

from arta_mcp.arta.client import ArtaClient
from arta_mcp.background import Errands
from arta_mcp.errors import ArtaError
from arta_mcp.state.contract import State
from arta_mcp.state.records import StyleList
from arta_mcp.styles import SHIPPED, Catalogue

log = logging.getLogger(__name__)

KEPT_FOR = 24 * 3600.0
"""seconds that a live list counts as fresh"""

ASK_AGAIN_AFTER = 600.0
"""seconds after a failed question"""

PATIENCE = 2.0
"""seconds that a call waits for the live list at most"""


class KnownStyles:
    """The catalogue of one service: live when the service told it, else as shipped."""

    def __init__(self, service: str, *, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the epoch."""
        self.catalogue: Catalogue = SHIPPED
        self._service, self._clock = service, clock
        self._fresh_until = 0.0
        self._asked_at = float("-inf")

    @property
    def is_fresh(self) -> bool:
        """Whether nothing is to be gained by asking now."""
        now = self._clock()
        return now < self._fresh_until or now < self._asked_at + ASK_AGAIN_AFTER

    async def refresh(self, state: State, client: ArtaClient, errands: Errands) -> None:
        """Reads the stored list, and asks for the live one when that is old.

        Waits 2 s at most; a slower answer is kept for the next call. Never raises an ArtaError.
        """
        if self.is_fresh:
            return
        self._asked_at = self._clock()
        with anyio.move_on_after(PATIENCE):
            await errands.finish(lambda: self._renew(state, client))

    async def learn(self, names: tuple[str, ...], state: State) -> None:
        """The service itself has just listed its styles."""
        listed = StyleList(names, self._clock())
        self._adopt(listed)
        await state.keep_styles(self._service, listed)

    async def _renew(self, state: State, client: ArtaClient) -> None:
        try:
            stored = await state.styles(self._service)
            if stored is not None:
                self._adopt(stored)
            if self._clock() >= self._fresh_until and client.lists_styles:
                await self.learn(await client.styles(), state)
        except ArtaError as exc:
            log.info("the live style list is not to be had: %s", exc.message)

    def _adopt(self, listed: StyleList) -> None:
        day = time.strftime("%Y-%m-%d", time.gmtime(listed.listed_at))
        self.catalogue = Catalogue.from_names(listed.names, day)
        self._fresh_until = listed.listed_at + KEPT_FOR
