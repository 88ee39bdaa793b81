"""Change notifications: who subscribed to which resource, and what is sent when one changes."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.subscriptions import SubscriptionBus
from mcp.shared.subscriptions import ResourcesListChanged, ResourceUpdated
from mcp.types import EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams

from arta_mcp.server.resources import GENERATION, GENERATIONS
from arta_mcp.server.sdk import connection_of, lowlevel_server


class ChangeNotifier:
    """Notifies the subscribers of both protocol eras of generations that are new or have ended.

    From 2026-07-28 on a client listens on a stream that the bus feeds. Before it subscribes to
    single resources, as VS Code does for one that is open in an editor (`watch` in its
    `mcpResourceFilesystem.ts`); without this the editor would show what was true when it opened.
    """

    def __init__(self, bus: SubscriptionBus) -> None:
        self._bus = bus
        # by connection, weakly: a client that left without a word leaves nothing behind
        self._uris: WeakKeyDictionary[Connection, set[str]] = WeakKeyDictionary()

    def add_to(self, server: MCPServer[Any]) -> None:
        """Serves `resources/subscribe` and `resources/unsubscribe`, and so advertises them."""

        async def subscribe(
            ctx: ServerRequestContext[Any], params: SubscribeRequestParams
        ) -> EmptyResult:
            self._uris.setdefault(connection_of(ctx), set()).add(str(params.uri))
            return EmptyResult()

        async def unsubscribe(
            ctx: ServerRequestContext[Any], params: UnsubscribeRequestParams
        ) -> EmptyResult:
            self._uris.get(connection_of(ctx), set[str]()).discard(str(params.uri))
            return EmptyResult()

        core = lowlevel_server(server)
        core.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
        core.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)

    async def publish(self, record_id: str) -> None:
        """Says that a generation, and with it the list, has changed."""
        await self._bus.publish(ResourcesListChanged())
        for uri in (GENERATIONS, GENERATION.format(record_id=record_id)):
            await self._bus.publish(ResourceUpdated(uri=uri))
            for connection, uris in tuple(self._uris.items()):
                if uri in uris:
                    await connection.send_resource_updated(uri)
