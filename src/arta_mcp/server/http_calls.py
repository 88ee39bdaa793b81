"""Calls over HTTP: each request is a connection of its own, and its caller is in its scope."""

from __future__ import annotations

from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import MCPServer

from arta_mcp.generations.callers import Call, Connection
from arta_mcp.server.calls import Caller, serving
from arta_mcp.server.sdk import lowlevel_server

CALLER = "arta_mcp.caller"
"""where an HTTP request's scope holds its Caller"""

MAX_CALLERS = 1000
"""callers whose calls are remembered together; the oldest are forgotten"""


class Callers:
    """A Connection for each caller that is known, however many hosts it uses."""

    def __init__(self) -> None:
        self._by_owner: dict[str, Connection] = {}

    def connection_of(self, caller: Caller) -> Connection | None:
        """None for a caller that cannot be told from others: no call of its is ever taken up."""
        if caller.owner is None or not caller.is_known:
            return None
        found = self._by_owner.pop(caller.owner, None)
        found = found or Connection(owner=caller.owner, is_one_host=False)
        self._by_owner[caller.owner] = found  # the last of all
        # One with a call under way stays: an equal call must find it.
        idle = [owner for owner, one in self._by_owner.items() if not one.calls]
        if len(self._by_owner) > MAX_CALLERS and idle and idle[0] != caller.owner:
            del self._by_owner[idle[0]]
        return found


def add_http_calls(server: MCPServer[Any]) -> None:
    """Makes a Call of every `tools/call`, of the caller whose request it is.

    A client that waits no more closes the stream, and gives no reason. A `notifications/cancelled`
    is a request of its own here, with an id that is anybody's: it ends nothing.
    """
    callers = Callers()

    async def follow(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        request: Any = ctx.request  # starlette's, with the scope that `HttpServer` has filled in
        caller: Caller = request.scope[CALLER]
        if ctx.method != "tools/call":
            with serving(caller):
                return await call_next(ctx)
        call = Call(callers.connection_of(caller), owner=caller.owner)
        try:
            with serving(caller, call):
                result = await call_next(ctx)
        except Exception:
            call.explain(is_cut=False)
            raise
        except (
            BaseException
        ):  # cancelled: a time limit of its host's or a person, nobody says which
            call.leave(is_cut=True)
            raise
        call.explain(is_cut=False)
        return result

    lowlevel_server(server).middleware.append(follow)
