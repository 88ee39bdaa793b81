"""The embedded service on a loopback port: in a thread of our process, or alone in the main one."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from arta_mcp.local.faults.effects import LINE, Line
from arta_mcp.local.service import Service
from arta_mcp.local.store import write

log = logging.getLogger(__name__)

_TRANSPORT = "arta.transport"

_SOON = 5.0
"""seconds for starting and stopping, far more than either takes"""


class Running:
    """The service in a daemon thread with its own event loop: a slow picture delays no caller.

    `port` None takes the port of the last time when it is free, so that old addresses open again.
    Raises ValueError for a host that is not loopback, OSError for a port that is taken.
    """

    def __init__(
        self, service: Service, *, host: str = "127.0.0.1", port: int | None = None
    ) -> None:
        self.service = service
        self._host, self._port = _loopback(host), port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        listening = _bind(self._host, self._port, self.service.folder)
        self._server = _Server(self.service, listening)
        self._thread = threading.Thread(
            target=self._server.run_on_socket, name="arta-local", daemon=True
        )
        self._thread.start()
        if not self._server.up.wait(_SOON):
            raise RuntimeError("the embedded service does not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        return self._running.base_url

    @contextmanager
    def refused(self) -> Generator[None]:
        """While this lasts no connection is accepted; the port stays ours."""
        server = self._running
        server.from_outside(server.shut_door)
        try:
            yield
        finally:
            server.from_outside(server.open_door)

    def close(self) -> None:
        """Stop, whatever is still being said; pictures not yet begun are left for the next time."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_SOON)
        self.service.close()

    @property
    def _running(self) -> _Server:
        if self._server is None:
            raise RuntimeError("the service is not running yet")
        return self._server


def run_forever(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve in the main thread until SIGINT or SIGTERM; `on_ready` is told the base URL."""
    server = _Server(service, _bind(_loopback(host), port, service.folder), on_ready)
    try:
        with suppress(KeyboardInterrupt):
            server.run_on_socket()
    finally:
        service.close()


class _Server(uvicorn.Server):
    """One listening socket, which can be shut and opened again while the service runs."""

    def __init__(
        self,
        service: Service,
        listening: socket.socket,
        on_ready: Callable[[str], None] | None = None,
    ) -> None:
        config = uvicorn.Config(
            _door_to(service, self),
            interface="asgi3",
            http=_Connection,
            loop="asyncio",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        super().__init__(config)
        self.up = threading.Event()
        self._listening = listening
        self._address = listening.getsockname()
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[None] | None = None

    @property
    def base_url(self) -> str:
        host, port = self._address[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run_on_socket(self) -> None:
        self.run(sockets=[self._listening])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.up.set()
        if self._on_ready is not None:
            self._on_ready(self.base_url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Unlike uvicorn's, this waits for nobody: not for idle clients, not for slow faults."""
        if self._opening is not None:
            self._opening.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in self.server_state.tasks:
            task.cancel()
        await asyncio.sleep(0)
        await super().shutdown(sockets)
        self._listening.close()

    def from_outside(self, action: Callable[[], Coroutine[object, object, None]]) -> None:
        """Run an action on the server's own loop and wait for it."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(action(), self._loop).result(_SOON)

    def shut_for(self, seconds: float) -> None:
        """Accept no connection for so long; answers under way are still given."""
        if self._opening is None or self._opening.done():
            self._shut()
            self._opening = asyncio.ensure_future(self._open_after(seconds))

    async def shut_door(self) -> None:
        if self.servers:
            self._shut()

    async def open_door(self) -> None:
        """Accept connections again."""
        self.servers.append(
            await asyncio.get_running_loop().create_server(self._connection, sock=self._listening)
        )

    def _shut(self) -> None:
        """A socket that is bound but does not listen refuses, and nobody else gets the port."""
        for server in self.servers:
            server.close()
        self.servers.clear()
        self._listening = _reserve(self._address[0], self._address[1])
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def _open_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.open_door()

    def _connection(self) -> _Connection:
        return _Connection(config=self.config, server_state=self.server_state, app_state={})


class _Connection(H11Protocol):
    """Lets the app at its transport, since no ASGI message breaks a connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        app = self.app

        async def app_with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "extensions": {_TRANSPORT: transport}}, receive, send)

        self.app = app_with_transport


def _door_to(service: Service, server: _Server) -> ASGIApp:
    """The service for callers who name a loopback host: no web page gets in by rebinding a name."""

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport = scope["extensions"][_TRANSPORT]
        line = Line(reset=lambda: _reset(transport), hang_up=transport.close, shut=server.shut_for)
        host = Headers(scope=scope).get("host", "")
        inside = {**scope, "extensions": {LINE: line}}
        try:
            if _is_loopback(urlsplit(f"//{host}").hostname or ""):
                await service(inside, receive, send)
            else:
                refusal = JSONResponse({"detail": "not a loopback host"}, status_code=421)
                await refusal(inside, receive, send)
        except ClientDisconnect:
            log.debug("a caller left in the middle of its request")
        except asyncio.CancelledError:
            if not server.should_exit:  # stopping breaks off answers on purpose, which is no error
                raise

    return door


def _reset(transport: asyncio.Transport) -> None:
    """RST instead of FIN: the kernel sends one when a socket that may not linger is closed."""
    if (raw := transport.get_extra_info("socket")) is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _loopback(host: str) -> str:
    if not _is_loopback(host):
        raise ValueError(f"the embedded service listens on loopback only, not on {host!r}")
    return "127.0.0.1" if host == "localhost" else host


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bind(host: str, port: int | None, folder: Path) -> socket.socket:
    """A listening socket, so that the address works before the thread does."""
    if port is not None:
        return _listen(host, port)
    remembered = folder / "port"
    listening = None
    with suppress(OSError, ValueError, OverflowError):
        listening = _listen(host, int(remembered.read_text(encoding="utf-8")))
    listening = listening or _listen(host, 0)
    write(remembered, str(listening.getsockname()[1]).encode())
    return listening


def _listen(host: str, port: int) -> socket.socket:
    reserved = _reserve(host, port)
    try:
        reserved.listen(socket.SOMAXCONN)
    except OSError:
        reserved.close()
        raise
    return reserved


def _reserve(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's delay (40 ms an answer) off only where TCP is named outright
    reserved = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere this would let two programs share a port
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((host, port))
    except (OSError, OverflowError):
        reserved.close()
        raise
    return reserved
