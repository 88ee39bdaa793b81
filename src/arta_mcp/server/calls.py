"""Calls: which call of which connection a handler serves, and why a host has cancelled it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.types.version import is_version_at_least
from starlette.requests import Request

from arta_mcp.generations.callers import Call, Connection, names_time_out
from arta_mcp.server.sdk import lowlevel_server
from arta_mcp.server.wire import Arrival

MAX_REMEMBERED = 100
"""cancelled calls of a connection whose reason may still come"""

MAX_CALLERS = 1000
"""callers over HTTP that are remembered as the host that they are; the oldest are forgotten"""

CALLER = "arta_mcp.caller"
"""where an HTTP request's scope holds its Caller"""

PYTHON_SDK = ("mcp", "0.1.0")
"""what a client of the Python SDK calls itself when its program gives no name; releases before 2
drop an answer that comes after their time limit and say nothing"""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: whose generations it sees, and whether that is one person alone."""

    owner: str | None = None
    is_known: bool = True


_call: ContextVar[Call | None] = ContextVar("call", default=None)
_caller: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039  # frozen


def current_call() -> Call | None:
    """The call that this task serves; None outside a `tools/call`."""
    return _call.get()


def current_caller() -> Caller:
    """Who sent the request that this task serves; by default the program's own person."""
    return _caller.get()


def current_owner() -> str | None:
    """Whose generations the request sees that this task serves; None: those of the program."""
    return _caller.get().owner


class Callers:
    """The Connection of each message: that of the process, or over HTTP one for each caller."""

    def __init__(self) -> None:
        self._by_owner: dict[str, Connection] = {}

    def connection_of(self, caller: Caller, of_process: Connection) -> Connection | None:
        """None for a caller that cannot be told from others: no call of its is ever taken up."""
        if caller.owner is None:
            return of_process
        if not caller.is_known:
            return None
        found = self._by_owner.pop(caller.owner, None) or Connection(
            owner=caller.owner, is_one_host=False
        )
        self._by_owner[caller.owner] = found  # the last of all
        idle = [owner for owner, one in self._by_owner.items() if not one.calls]
        if len(self._by_owner) > MAX_CALLERS and idle[0] != caller.owner:
            del self._by_owner[idle[0]]
        return found


def add_calls(server: MCPServer[Connection]) -> None:
    """Makes a Call of every `tools/call`, and tells it why it was cancelled.

    The lifespan gives a Connection for each run of the server. The SDK applies a cancellation by
    itself and passes the notification on afterwards: its reason is nowhere else.
    """
    calls: dict[tuple[int, str], Call] = {}
    callers = Callers()

    async def follow(
        ctx: ServerRequestContext[Connection, Any], call_next: CallNext
    ) -> HandlerResult:
        is_http = isinstance(ctx.request, Request)
        caller = _caller_of(ctx.request)
        _caller.set(caller)  # a message is handled in a context of its own
        connection, params = callers.connection_of(caller, ctx.lifespan_context), ctx.params or {}
        # Over HTTP a request ends with its stream: ids are anybody's there, and cancel nothing.
        if ctx.method == "notifications/cancelled" and not is_http:
            call = calls.pop((id(connection), str(params.get("requestId"))), None)
            if call is not None:
                call.leave(is_cut=names_time_out(str(params.get("reason"))[:500]))
        if ctx.method != "tools/call":
            return await call_next(ctx)
        came = ctx.request.at if isinstance(ctx.request, Arrival) else None
        call, key = Call(connection, owner=caller.owner, came=came), None
        if connection is not None and not is_http:
            connection.reads_late_answers = not _drops_late_answers(ctx)
            key = (id(connection), str(ctx.request_id))
            calls[key] = call
        token = _call.set(call)
        try:
            result = await call_next(ctx)
        except Exception:
            call.explain(is_cut=False)
            raise
        except BaseException:  # cancelled; over HTTP the stream was closed, and no reason follows
            if is_http:
                call.leave(is_cut=True)
            raise
        else:
            call.explain(is_cut=False)
            return result
        finally:
            _call.reset(token)
            if key and call.is_explained.is_set():
                calls.pop(key, None)
            while len(calls) > MAX_REMEMBERED and (oldest := next(iter(calls))) != key:
                calls.pop(oldest)

    lowlevel_server(server).middleware.append(follow)


def _drops_late_answers(ctx: ServerRequestContext[Any]) -> bool:
    client = ctx.session.client_params
    if client is None or is_version_at_least(ctx.protocol_version, "2026-07-28"):
        return False
    return (client.client_info.name, client.client_info.version) == PYTHON_SDK


def _caller_of(request: object) -> Caller:
    found = request.scope.get(CALLER) if isinstance(request, Request) else None
    return found if isinstance(found, Caller) else Caller()
