"""The embedded service with faults: a service that follows a script, and a server that obeys it.

Only who asks for faults imports this; the plain service on the plain server knows of none.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from dataclasses import dataclass
from functools import cached_property, partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from arta_mcp.arta.refusals import Refusal
from arta_mcp.bounded_http import BoundedProtocol
from arta_mcp.local.address import open_socket
from arta_mcp.local.faults.catalogue import FAULTS, Fault, FaultContext
from arta_mcp.local.loopback import UvicornServer
from arta_mcp.local.service import RefusalError, Service, answer_fields

CONNECTION = "arta.connection"
"""the ASGI extension that gives the `transport` and `shut_listener` of a `FaultContext`"""

MAX_REFUSED_TOKENS = 1000
"""id tokens that a fault made stale; beyond them the oldest are good again"""


class FaultScript:
    """The faults still to come, in their order: the first that is due is taken."""

    def __init__(self) -> None:
        self._armed: list[_ArmedFault] = []

    def add(self, *faults: Fault) -> None:
        """Have these happen as well, after those that are there."""
        self._armed.extend(map(_ArmedFault, faults))

    def clear(self) -> None:
        """Have no further fault."""
        self._armed.clear()

    @property
    def pending(self) -> tuple[Fault, ...]:
        """The faults that may still happen."""
        return tuple(armed.fault for armed in self._armed if not armed.is_over)

    def take(self, endpoint: str, *, done: bool = False) -> Fault | None:
        """The fault of this request; `done` asks those that wait for a DONE."""
        for armed in self._armed:
            fault = armed.fault
            is_here = fault.endpoint == endpoint and FAULTS[fault.name].at_done is done
            if is_here and not armed.is_over:
                armed.requests += 1
                # Each fault counts for itself: while the first skips, the second may be due.
                if armed.requests > fault.after:
                    return fault
        return None


@dataclass(slots=True)
class _ArmedFault:
    fault: Fault
    requests: int = 0
    """those that it let pass, and those that it befell"""

    @property
    def is_over(self) -> bool:
        times = self.fault.times
        return times is not None and self.requests >= self.fault.after + times


class FaultyService(Service):
    """A service whose answers go wrong as its `faults` say."""

    @cached_property
    def faults(self) -> FaultScript:
        """What is still to go wrong."""
        return FaultScript()

    @cached_property
    def refused_tokens(self) -> deque[str]:
        """The id tokens that are treated as stale (in this process only)."""
        return deque(maxlen=MAX_REFUSED_TOKENS)

    def authenticate(self, request: Request) -> str:
        """The service's own check, after that for tokens which a fault made stale."""
        if request.headers.get("authorization") in self.refused_tokens:
            raise RefusalError(Refusal(401, "Token expired"))
        return super().authenticate(request)

    async def respond(self, endpoint: str, request: Request) -> Response:
        """The service's own answer, or what a fault makes of it."""
        response, fault = Response(), self.faults.take(endpoint)
        body = await request.body()  # first: a form that is read leaves none
        if fault is None or FAULTS[fault.name].handled:
            response = await super().respond(endpoint, request)
        # Faults of finished jobs wait for one, and the answer says whether this one is.
        if fault is None and endpoint == "status":
            is_done = answer_fields(response).get("status") == "DONE"
            fault = self.faults.take(endpoint, done=True) if is_done else None
        if fault is None:
            return response
        request.state.fault = str(fault)  # for the log
        transport, shut_listener = request.scope.get("extensions", {}).get(CONNECTION, (None, None))
        context = FaultContext(
            endpoint=endpoint,
            value=fault.value,
            request=request,
            body=body,
            response=response,
            now=self.clock(),
            refuse_token=self.refused_tokens.append,
            transport=transport,
            shut_listener=shut_listener,
        )
        if FAULTS[fault.name].is_late:
            await asyncio.sleep(context.seconds)
        return FAULTS[fault.name].effect(context)


class FaultyServer(UvicornServer):
    """A server that can break a connection, and can shut its listening socket for a while."""

    _reopening: asyncio.Task[None] | None = None

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, which also gets the connection, since no ASGI message breaks one."""
        # The method of uvicorn's own exchange; it has its transport after the client left as well.
        transport: asyncio.Transport = getattr(receive, "__self__").transport  # noqa: B009  # a Callable has no such attribute for pyright
        connection = (transport, self.shut_for)
        await super().answer({**scope, "extensions": {CONNECTION: connection}}, receive, send)

    def shut_for(self, seconds: float) -> None:
        """Accept no connection for so long; answers under way are still given."""
        # A second fault while the listener is shut changes nothing: it opens when it was to open.
        if self._reopening is None or self._reopening.done():
            self.shut_listener()
            self._reopening = asyncio.ensure_future(self.open_listener(after=seconds))

    def shut_listener(self) -> None:
        """Refuse connections until `open_listener`; the port stays ours."""
        for server in self.servers:
            server.close()
        self.servers.clear()
        # Closing gave the port away; a socket that is bound but does not listen takes it back.
        self._listening = open_socket(*self._address[:2], listening=False)
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def open_listener(self, *, after: float = 0.0) -> None:
        """Accept connections again, `after` so many seconds."""
        await asyncio.sleep(after)
        factory = partial(BoundedProtocol, self.config, self.server_state, {})
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(factory, sock=self._listening))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As ever, but not while the listener opens."""
        if self._reopening is not None:
            self._reopening.cancel()
        await super().shutdown(sockets)
