"""Notifications: who subscribed to which resource, and what is sent when one changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import anyio.lowlevel
from mcp import MCPError, types
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.subscriptions import ListenHandler
from mcp.shared.subscriptions import ResourcesListChanged, ResourceUpdated, ServerEvent
from mcp.types import INVALID_PARAMS

from arta_mcp.generations.events import GenerationEvent
from arta_mcp.generations.service import Generations
from arta_mcp.server.calls import current_owner
from arta_mcp.server.resources import GENERATION, GENERATIONS
from arta_mcp.server.sdk import connection_of, lowlevel_server

MAX_SUBSCRIPTIONS = 200
"""resources that one connection or stream hears of: four times the generations that are listed"""

MAX_URI = 300
"""characters; that of a generation, whose record id has 200 at most, is shorter"""


class OwnersBus:
    """A SubscriptionBus whose listeners hear of the generations of one owner each."""

    def __init__(self, default_owner: str) -> None:
        """`default_owner` is that of a request that names none."""
        self._default_owner = default_owner
        self._listeners: dict[object, tuple[str, Callable[[ServerEvent], None]]] = {}

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Calls `listener` for the events of the owner whose request it serves."""
        # It is called while the request is handled: later nobody knows any more whose stream it is.
        token = object()
        self._listeners[token] = current_owner() or self._default_owner, listener
        return lambda: self._listeners.pop(token, None) and None

    async def publish(self, event: ServerEvent, *, owner: str | None = None) -> None:
        """Delivers an event to the listeners of one owner; None: to all."""
        for of, listener in tuple(self._listeners.values()):
            if owner in (None, of):
                listener(event)
        await anyio.lowlevel.checkpoint()  # a burst leaves the streams time to drain


def add_notifications(
    server: MCPServer[Any], generations: Generations, bus: OwnersBus, *, over_http: bool
) -> Callable[[GenerationEvent], Awaitable[None]]:
    """Lets clients of both protocol eras subscribe; gives the function that notifies them.

    That takes the event of a generation that is new or has ended. From 2026-07-28 on a client
    listens on a stream that the bus feeds. Before it subscribes to single resources, as VS Code
    does for those in an editor (`watch` in its `mcpResourceFilesystem.ts`), which else grow stale:
    over HTTP it cannot, for a connection of that era ends there with each request.
    """
    # by connection, weakly: a client that left without a word leaves nothing behind
    subscribed: WeakKeyDictionary[Connection, set[str]] = WeakKeyDictionary()

    async def subscribe(
        ctx: ServerRequestContext[Any], params: types.SubscribeRequestParams
    ) -> types.EmptyResult:
        uris = subscribed.setdefault(connection_of(ctx), set())
        # VS Code subscribes to whatever it reads; what never changes is not kept
        if can_change(str(params.uri)):
            check_count(len(uris | {str(params.uri)}))
            uris.add(str(params.uri))
        return types.EmptyResult()

    async def unsubscribe(
        ctx: ServerRequestContext[Any], params: types.UnsubscribeRequestParams
    ) -> types.EmptyResult:
        subscribed.get(connection_of(ctx), set[str]()).discard(str(params.uri))
        return types.EmptyResult()

    async def listen(
        ctx: ServerRequestContext[Any], params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        check_count(len(params.notifications.resource_subscriptions or ()))
        return await streams(ctx, params)

    # the streams themselves are bounded by the SDK, the resources of each are not (mcp 2.3)
    streams = ListenHandler(bus)
    core = lowlevel_server(server)
    core.add_request_handler("subscriptions/listen", types.SubscriptionsListenRequestParams, listen)
    if not over_http:
        core.add_request_handler("resources/subscribe", types.SubscribeRequestParams, subscribe)
        core.add_request_handler(
            "resources/unsubscribe", types.UnsubscribeRequestParams, unsubscribe
        )
    generations.on_drain(streams.close)

    async def publish(event: GenerationEvent) -> None:
        await bus.publish(ResourcesListChanged(), owner=event.owner)
        for uri in (GENERATIONS, GENERATION.format(record_id=event.record_id)):
            await bus.publish(ResourceUpdated(uri=uri), owner=event.owner)
            for connection, uris in tuple(subscribed.items()):
                if uri in uris:
                    await connection.send_resource_updated(uri)

    return publish


def can_change(uri: str) -> bool:
    """Whether a notification about this resource can ever be sent: pictures do not change."""
    is_generation = uri.startswith(f"{GENERATIONS}/") and "/images/" not in uri
    return uri == GENERATIONS or (is_generation and len(uri) <= MAX_URI)


def check_count(count: int) -> None:
    """Raises MCPError for more subscriptions than a client may have."""
    if count > MAX_SUBSCRIPTIONS:
        raise MCPError(
            INVALID_PARAMS,
            f"there are {count} subscriptions; allowed are {MAX_SUBSCRIPTIONS}."
            f" Hint: subscribe to {GENERATIONS}, which changes with every one of them",
        )
