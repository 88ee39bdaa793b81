"""Notifications: who subscribed to which resource, and what is sent when one changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from mcp import types
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.subscriptions import SubscriptionBus
from mcp.shared.subscriptions import ResourcesListChanged, ResourceUpdated

from arta_mcp.server.resources import GENERATION, GENERATIONS
from arta_mcp.server.sdk import connection_of, lowlevel_server


def add_notifications(
    server: MCPServer[Any], bus: SubscriptionBus
) -> Callable[[str], Awaitable[None]]:
    """Lets clients of both protocol eras subscribe; gives the function that notifies them.

    That takes the record id of a generation that is new or has ended. From 2026-07-28 on a client
    listens on a stream that the bus feeds. Before it subscribes to single resources, as VS Code
    does for those in an editor (`watch` in its `mcpResourceFilesystem.ts`), which else grow stale.
    """
    # by connection, weakly: a client that left without a word leaves nothing behind
    subscribed: WeakKeyDictionary[Connection, set[str]] = WeakKeyDictionary()

    async def subscribe(
        ctx: ServerRequestContext[Any], params: types.SubscribeRequestParams
    ) -> types.EmptyResult:
        subscribed.setdefault(connection_of(ctx), set()).add(str(params.uri))
        return types.EmptyResult()

    async def unsubscribe(
        ctx: ServerRequestContext[Any], params: types.UnsubscribeRequestParams
    ) -> types.EmptyResult:
        subscribed.get(connection_of(ctx), set[str]()).discard(str(params.uri))
        return types.EmptyResult()

    core = lowlevel_server(server)
    core.add_request_handler("resources/subscribe", types.SubscribeRequestParams, subscribe)
    core.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, unsubscribe)

    async def publish(record_id: str) -> None:
        await bus.publish(ResourcesListChanged())
        for uri in (GENERATIONS, GENERATION.format(record_id=record_id)):
            await bus.publish(ResourceUpdated(uri=uri))
            for connection, uris in tuple(subscribed.items()):
                if uri in uris:
                    await connection.send_resource_updated(uri)

    return publish
