"""Calls: which call of which connection a handler serves, and why a host has cancelled it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.types.version import is_version_at_least

from arta_mcp.generations.callers import Call, Connection, names_time_out
from arta_mcp.server.sdk import lowlevel_server
from arta_mcp.server.wire import Arrival

MAX_REMEMBERED = 100
"""cancelled calls of a connection whose reason may still come"""

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


@contextmanager
def serving(caller: Caller, call: Call | None = None) -> Generator[None]:
    """What handles a request in this block sees who sent it, and which call it is."""
    tokens = _caller.set(caller), _call.set(call)
    try:
        yield
    finally:
        _caller.reset(tokens[0])
        _call.reset(tokens[1])


def add_calls(server: MCPServer[Connection]) -> None:
    """Makes a Call of every `tools/call`, and tells it why it was cancelled.

    The lifespan gives a Connection for each run of the server. The SDK applies a cancellation by
    itself and passes the notification on afterwards: its reason is nowhere else.
    """
    calls: dict[tuple[int, str], Call] = {}

    async def follow(
        ctx: ServerRequestContext[Connection, Any], call_next: CallNext
    ) -> HandlerResult:
        connection, params = ctx.lifespan_context, ctx.params or {}
        caller = Caller(connection.owner)
        if ctx.method == "notifications/cancelled":
            call = calls.pop((id(connection), str(params.get("requestId"))), None)
            if call is not None:
                call.leave(is_cut=names_time_out(str(params.get("reason"))[:500]))
        if ctx.method != "tools/call":
            with serving(caller):
                return await call_next(ctx)
        connection.reads_late_answers = not _drops_late_answers(ctx)
        came = ctx.request.at if isinstance(ctx.request, Arrival) else None
        call, key = Call(connection, came=came), (id(connection), str(ctx.request_id))
        calls[key] = call
        try:
            with serving(caller, call):
                result = await call_next(ctx)
        except Exception:
            call.explain(is_cut=False)
            raise
        else:
            call.explain(is_cut=False)
            return result
        finally:
            if call.is_explained.is_set():
                calls.pop(key, None)
            while len(calls) > MAX_REMEMBERED and (oldest := next(iter(calls))) != key:
                calls.pop(oldest)

    lowlevel_server(server).middleware.append(follow)


def _drops_late_answers(ctx: ServerRequestContext[Any]) -> bool:
    client = ctx.session.client_params
    if client is None or is_version_at_least(ctx.protocol_version, "2026-07-28"):
        return False
    return (client.client_info.name, client.client_info.version) == PYTHON_SDK
