"""The embedded service with faults: a service that follows a script, and a server that obeys it.

Only who asks for faults imports this; the plain service on the plain server knows of none.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from arta_mcp.arta.refusals import Refusal
from arta_mcp.local.faults.catalogue import FAULTS, Fault, FaultScript
from arta_mcp.local.faults.effects import Connection, FaultContext
from arta_mcp.local.loopback import UvicornServer, reserve_port
from arta_mcp.local.service import Service, ServiceOptions, job_fields

CONNECTION = "arta.connection"
"""the ASGI extension that gives a `Connection`"""

MAX_REFUSED_TOKENS = 1000
"""id tokens that a fault made stale; beyond them the oldest are good again"""


class FaultyService(Service):
    """A service whose answers go wrong as `faults` says."""

    def __init__(
        self, folder: Path, *, faults: Iterable[Fault] = (), **options: Unpack[ServiceOptions]
    ) -> None:
        super().__init__(folder, **options)
        self.faults = FaultScript(faults)
        self._refused_tokens: deque[str] = deque(maxlen=MAX_REFUSED_TOKENS)

    def refuse_token(self, id_token: str) -> None:
        """Treat this id token as stale from now on (in this process only)."""
        self._refused_tokens.append(id_token)

    async def respond(self, endpoint: str, request: Request) -> Response:
        """The service's own answer, or what a fault makes of it."""

        async def respond_without_fault() -> Response:
            if response is not None:
                return response
            is_ours = endpoint in ("submit", "status")  # elsewhere an id token is nobody's business
            if is_ours and request.headers.get("authorization") in self._refused_tokens:
                refusal = Refusal(401, "Token expired")
                return JSONResponse(refusal.render(), status_code=refusal.status)
            return await super(FaultyService, self).respond(endpoint, request)

        response = None
        fault = self.faults.take(endpoint)
        if fault is None:
            response = await respond_without_fault()
            # Faults of finished jobs wait for one, and the answer says whether this one is.
            is_done = endpoint == "status" and job_fields(response).get("status") == "DONE"
            fault = self.faults.take(endpoint, done=True) if is_done else None
            if fault is None:
                return response
        request.state.fault = str(fault)  # for the log
        kind = FAULTS[fault.name]
        context = FaultContext(
            endpoint=endpoint,
            value=fault.value or kind.value,
            request=request,
            body=await request.body(),
            now=self.clock(),
            connection=request.scope.get("extensions", {}).get(CONNECTION),
            refuse_token=self.refuse_token,
        )
        return await kind.apply(context, respond_without_fault)


class FaultyServer(UvicornServer):
    """A server that can break a connection, and can shut its listening socket for a while."""

    def __init__(
        self,
        service: Service,
        listening: socket.socket,
        on_ready: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(service, listening, on_ready)
        self.config.http = partial(_BreakableProtocol, self)  # pyright: ignore[reportAttributeAccessIssue]  # it calls what it takes for a class
        self._reopening: asyncio.Task[None] | None = None

    def shut_for(self, seconds: float) -> None:
        """Accept no connection for so long; answers under way are still given."""
        # A second fault while the listener is shut changes nothing: it opens when it was to open.
        if self._reopening is None or self._reopening.done():
            self.shut_listener()
            self._reopening = asyncio.ensure_future(self._reopen_after(seconds))

    def shut_listener(self) -> None:
        """Refuse connections until `open_listener`; the port stays ours."""
        for server in self.servers:
            server.close()
        self.servers.clear()
        # Closing gave the port away; a socket that is bound but does not listen takes it back.
        self._listening = reserve_port(self._address[0], self._address[1])
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def open_listener(self) -> None:
        """Accept connections again."""
        factory = partial(_BreakableProtocol, self, self.config, self.server_state, {})
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(factory, sock=self._listening))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As ever, but not while the listener opens."""
        if self._reopening is not None:
            self._reopening.cancel()
        await super().shutdown(sockets)

    async def _reopen_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.open_listener()


class _BreakableProtocol(H11Protocol):
    """Gives the app its connection, since no ASGI message breaks one."""

    def __init__(self, faulty_server: FaultyServer, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self._faulty_server = faulty_server

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        app, connection = self.app, Connection(transport, self._faulty_server.shut_for)

        async def app_with_connection(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "extensions": {CONNECTION: connection}}, receive, send)

        # uvicorn asks for `self.app` anew at each request of the connection.
        self.app = app_with_connection
