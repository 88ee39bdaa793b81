"""The server on HTTP: what is let through to the SDK's transport, and how the server ends.

The way of a request to `/mcp`:

    BoundedProtocol          a connection whose request does not come in time is closed
    CORS                     for the origins that are allowed
    check_framing            one length; 400
    Host, Origin             421, 403
    POST alone               405
    Access.admit             401, 403, 503: the caller
    read_body                413, 408; half surrogates repaired
    StreamableHTTPSessionManager, stateless: both protocol eras

mcp 2.3 by itself gives no deadline to a body, holds a silent stream for a GET in its stateless
mode, and logs a traceback for who leaves in the middle of a body.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from mcp.types import INTERNAL_ERROR
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from arta_mcp.bounded_http import KEEP_ALIVE, BoundedProtocol, max_connections
from arta_mcp.server.http_auth import Access, Refusal
from arta_mcp.server.http_calls import CALLER
from arta_mcp.server.sdk import lowlevel_server
from arta_mcp.server.wire import render_whole

log = logging.getLogger(__name__)

MAX_BODY = 256 * 1024
"""bytes of a request; two texts of 4,000 characters take up to 96 kB, all of them escaped"""

BODY_TIMEOUT = 8.0
"""seconds for a body; after 10 the connection is closed, whatever of the request has come"""

DRAIN_TIMEOUT = 8.0
"""seconds that answers and submits under way have when the process is told to end"""

LINGER = 0.3
"""seconds after an answer: a client of the SDK asks for schemas behind its first one, and has no
result when nobody answers that"""

LISTEN_TIMEOUT = 2.0
"""seconds in which a process that is ending still takes connections, for `readyz` to be seen; after
that a proxy is refused and goes to another one, where the idlest would draw every new call"""

LATE_TIMEOUT = 0.2
"""seconds in which a connection that was accepted as the last one brings its request"""

CLOSE_TIMEOUT = 1.0
"""seconds for what is still on the way out after that"""

CHECK_TIMEOUT = 2.0
"""seconds for one look at the store; a probe waits for it"""

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")

_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
"""an escape that is, or is half of, a surrogate pair"""


class Readiness(Protocol):
    """Whether the store answers, and what a person should know of it."""

    @property
    def answers(self) -> bool: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...


class HttpServer:
    """The ASGI app over one MCPServer, for one run.

    `allowed_hosts` are names with or without a port, `allowed_origins` those of web pages,
    `own_origins` those under which the server itself is reached. `check` looks at the store;
    `drain` is called when the process is to end, with the seconds that are left; `routes` are
    served beside `/mcp` to everybody.
    """

    def __init__(
        self,
        server: MCPServer[Any],
        access: Access,
        *,
        allowed_hosts: Sequence[str],
        allowed_origins: Sequence[str] = (),
        own_origins: Sequence[str] = (),
        check: Callable[[], Awaitable[Readiness]],
        drain: Callable[[float], None],
        routes: Sequence[BaseRoute] = (),
    ) -> None:
        self._access, self._check, self._drain = access, check, drain
        self._security = TransportSecurityMiddleware(
            TransportSecuritySettings(
                allowed_hosts=spell_out(allowed_hosts),
                allowed_origins=[*allowed_origins, *own_origins],
            )
        )
        # The checks are made above; the manager's own come after the body was read.
        self._manager = StreamableHTTPSessionManager(
            lowlevel_server(server), stateless=True, max_request_body_size=MAX_BODY
        )
        cors = Middleware(
            CORSMiddleware,
            allow_origins=[*allowed_origins],
            allow_methods=["POST"],
            allow_headers=["*"],  # Mcp-Param-* are named by the tools
            expose_headers=["WWW-Authenticate"],
        )
        self.app = Starlette(
            routes=[
                Route("/healthz", self.say_alive),
                Route("/readyz", self.say_ready),
                *routes,
                Route("/mcp", _Endpoint(self.answer)),
            ],
            middleware=[cors] if allowed_origins else [],
        )
        self._is_draining, self._open_requests, self._is_idle = False, 0, anyio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Opens the server with its lifespan, and closes it."""
        async with self._manager.run():
            yield

    async def say_alive(self, _: Request) -> Response:
        """That the process answers."""
        return JSONResponse({"status": "alive"})

    async def say_ready(self, _: Request) -> Response:
        """Whether a load balancer should send calls here; 503 with what is wrong."""
        found: Readiness | None = None
        with anyio.move_on_after(CHECK_TIMEOUT):
            found = await self._check()
        is_ready = found is not None and found.answers
        status = "draining" if self._is_draining else "ready" if is_ready else "not ready"
        warnings = found.warnings if found else ("the store has not answered in time",)
        content = {"status": status, "warnings": [*warnings]}
        return JSONResponse(content, 200 if status == "ready" else 503)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request to `/mcp`."""
        request = Request(scope)
        with self._counted():
            try:
                check_framing(request)
                is_post = request.method == "POST"
                if refused := await self._security.validate_request(request, is_post=is_post):
                    await refused(scope, receive, send)
                    return
                if not is_post:
                    raise Refusal(405, "Method Not Allowed: send POST", Allow="POST")
                # Before the body: who may not call has nothing of it read.
                scope[CALLER] = await self._access.admit(request.headers)
                body = await read_body(request, receive)
            except Refusal as refusal:
                await refusal.response(scope, receive, send)
                return
            # None: the caller left in the middle, which the SDK would log as an error.
            if body is not None:
                await self._manager.handle_request(scope, _replay(body, receive), send)

    async def drain(self) -> None:
        """Answers what is open, as far as that goes in its time; `readyz` says so from now on."""
        self._is_draining = True
        self._drain(DRAIN_TIMEOUT + CLOSE_TIMEOUT)
        with anyio.move_on_after(DRAIN_TIMEOUT):
            await anyio.sleep(LINGER)
            # Each time anew: one may have come while the last one was answered.
            while self._open_requests:
                self._is_idle = anyio.Event()
                await self._is_idle.wait()
                await anyio.sleep(LINGER)
        if self._open_requests:
            log.warning("%s requests are broken off", self._open_requests)

    @contextmanager
    def _counted(self) -> Generator[None]:
        self._open_requests += 1
        try:
            yield
        finally:
            self._open_requests -= 1
            if not self._open_requests:
                self._is_idle.set()


def spell_out(hosts: Sequence[str]) -> list[str]:
    """Each host as the SDK compares it: a name without a port stands for every port."""
    is_portless = re.compile(r"[^:]+|\[[^]]+\]").fullmatch
    return [*hosts, *(f"{host}:*" for host in hosts if is_portless(host))]


class _Endpoint:
    """An ASGI app for a Route, which takes a function or a method for one of requests."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def check_framing(request: Request) -> None:
    """Refuses a body of two lengths, of which a proxy before us may have believed the other."""
    headers = request.headers
    if "transfer-encoding" in headers and "content-length" in headers:
        raise Refusal(400, "Transfer-Encoding and Content-Length contradict", Connection="close")


async def read_body(request: Request, receive: Receive) -> bytes | None:
    """A request's body as the SDK can read it; None for a caller that left. Raises Refusal."""
    # h11 has checked it already; a number of thousands of digits is none for `int`.
    declared = request.headers.get("content-length", "0")
    too_large = Refusal(413, f"the body is over {MAX_BODY} bytes", Connection="close")
    if not declared.isdigit() or int(declared[:10]) > MAX_BODY:
        raise too_large
    body = bytearray()
    with anyio.move_on_after(BODY_TIMEOUT):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            # Counted as well: in chunks no length is declared.
            if len(body) > MAX_BODY:
                raise too_large
            if not message.get("more_body"):
                return repair(bytes(body))
    raise Refusal(408, f"the body has not come in {BODY_TIMEOUT:g} s", Connection="close")


def repair(body: bytes) -> bytes:
    """The body without half surrogate pairs, which stdio repairs too; else as it came."""
    if not _HALF_PAIR.search(body):
        return body
    try:
        return render_whole(json.loads(body)).encode()
    except (ValueError, RecursionError):  # the transport says what it is
        return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, then what else comes: that the caller left."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return waiting.pop() if waiting else await receive()

    return give


def _closing(send: Send) -> Send:
    """Sends an answer that is the last of its connection."""

    async def send_last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    return send_last


class UvicornServer(uvicorn.Server):
    """Uvicorn with our bounds on its connections; it hears no signals and has no say in the end."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                self.answer,
                interface="asgi3",
                http=BoundedProtocol,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=2,  # after our own CLOSE_TIMEOUT
                backlog=socket.SOMAXCONN,
                loop="asyncio",
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # nothing here asks who is on the other end of a connection
                server_header=False,
            )
        )
        self._app = app
        self._is_leaving = False

    async def leave(self) -> None:
        """Takes no more connections, after a while; each has but one more request answered."""
        self._is_leaving = True
        await anyio.sleep(LISTEN_TIMEOUT)
        await self._stop_listening()

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, or 503 when there are more connections than there is room for."""
        # The protocol has made room where it could; here all of them have a request under way.
        if len(self.server_state.connections) > max_connections():
            why = "too many connections at once; nothing was done"
            refusal = Refusal(503, why, code=INTERNAL_ERROR, Retry_After="1", Connection="close")
            await refusal.response(scope, receive, send)
            return
        # What was open before keeps its connection: a client of the SDK asks for schemas on it.
        await self._app(scope, receive, _closing(send) if self._is_leaving else send)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes everything; who has been accepted is answered, who takes no answer is left."""
        await self._stop_listening()
        # Uvicorn tells the connections that it has to close, then waits for all that there are:
        # for one that comes in between, until its own time is over.
        await anyio.sleep(LATE_TIMEOUT)
        # What serves a caller that is left ends by itself; uvicorn would log it with a traceback.
        closing = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._abort_connections)
        await super().shutdown(sockets)
        closing.cancel()

    async def _stop_listening(self) -> None:
        loop = asyncio.get_running_loop()
        for server in self.servers:
            for one in server.sockets:
                with suppress(NotImplementedError):  # on Windows, whose loop loses none
                    loop.remove_reader(one.fileno())
        # What has been accepted is handed over a turn later; asyncio loses it (CPython 3.11) when
        # its server is closed by then.
        await anyio.lowlevel.checkpoint()
        for server in self.servers:
            server.close()

    def _abort_connections(self) -> None:
        for connection in self.server_state.connections:
            connection.transport.abort()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leaves signals to who runs it: uvicorn breaks calls off and ends with the signal."""
        yield


async def serve(
    server: HttpServer, listening: socket.socket, *, until: Callable[[], Awaitable[object]]
) -> None:
    """Answers at a listening socket until `until` returns, then lets what is open end well."""
    web = UvicornServer(server.app)
    async with anyio.create_task_group() as group:
        group.start_soon(web.serve, [listening])
        await until()
        async with anyio.create_task_group() as leaving:
            leaving.start_soon(web.leave)
            await server.drain()
            leaving.cancel_scope.cancel()
        web.should_exit = True
