"""The embedded service on a loopback port: in a thread of our process, or alone in the main one."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from arta_mcp.arta.url_guard import is_loopback
from arta_mcp.files import write_atomically
from arta_mcp.local.service import Service

log = logging.getLogger(__name__)

START_TIMEOUT = STOP_TIMEOUT = 5.0
"""seconds, far more than either takes: beyond them something is wrong, and nobody should hang"""


class UvicornServer(uvicorn.Server):
    """A service on one listening socket, answering callers that name a loopback host."""

    def __init__(
        self,
        service: Service,
        listening: socket.socket,
        on_ready: Callable[[str], None] | None = None,
    ) -> None:
        config = uvicorn.Config(
            self.answer,
            interface="asgi3",
            http="h11",  # "auto" would take another parser where one happens to be installed
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
        self._service, self._on_ready = service, on_ready
        self._listening = listening
        self._address = listening.getsockname()

    @property
    def base_url(self) -> str:
        """The service's address, without a slash at its end."""
        host, port = self._address[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app: 421 for a Host that is not loopback, the service for the others."""
        try:
            host = urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname or ""
        except ValueError:  # a bracket without its other half
            host = ""
        try:
            # A web page can make its own name resolve to 127.0.0.1 (DNS rebinding), and then its
            # scripts may read what we answer; the name that they ask for betrays them.
            if is_loopback(host):
                await self._service(scope, receive, send)
            else:
                refusal = JSONResponse({"detail": "not a loopback host"}, status_code=421)
                await refusal(scope, receive, send)
        except ClientDisconnect:
            log.debug("a caller left in the middle of its request")
        except asyncio.CancelledError:
            if not self.should_exit:  # stopping breaks off answers on purpose, which is no error
                raise

    def run_on_socket(self) -> None:
        """Serve until `should_exit`, in an event loop of this thread."""
        self.run(sockets=[self._listening])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tells `up` and `on_ready` once requests are answered."""
        await super().startup(sockets)
        self.up.set()
        if self._on_ready is not None:
            self._on_ready(self.base_url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Unlike uvicorn's, this waits for nobody: not for idle clients, not for slow answers."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in self.server_state.tasks:
            task.cancel()
        await asyncio.sleep(0)  # one turn of the loop, in which the tasks end
        await super().shutdown(sockets)
        self._listening.close()


class LoopbackServer:
    """A service in a daemon thread with its own event loop: a slow picture delays no caller.

    `port` None takes the port of the last time when it is free, so that old addresses open again.
    Raises ValueError for a host that is not loopback, OSError for a port that is taken.
    """

    def __init__(
        self,
        service: Service,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        server_type: type[UvicornServer] = UvicornServer,
    ) -> None:
        self._service, self._server_type = service, server_type
        self._host, self._port = _checked(host), port
        self._server: UvicornServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        # Bound in the caller's thread: the address is known, and refuses nobody, from here on.
        listening = _bind(self._host, self._port, self._service.folder)
        self._server = self._server_type(self._service, listening)
        # A daemon: a host that kills its server must not wait for a picture.
        self._thread = threading.Thread(
            target=self._server.run_on_socket, name="arta-local", daemon=True
        )
        self._thread.start()
        if not self._server.up.wait(START_TIMEOUT):
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
        """The service's address, without a slash at its end; RuntimeError before it runs."""
        if self._server is None:
            raise RuntimeError("the service is not running yet")
        return self._server.base_url

    def close(self) -> None:
        """Stop, whatever is still being said; pictures not yet begun are left for the next time."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(STOP_TIMEOUT)
        self._service.close()


def run_forever(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    on_ready: Callable[[str], None],
    server_type: type[UvicornServer] = UvicornServer,
) -> None:
    """Serve in the main thread until SIGINT or SIGTERM; `on_ready` is called with the base URL."""
    server = server_type(service, _bind(_checked(host), port, service.folder), on_ready)
    try:
        with suppress(KeyboardInterrupt):
            server.run_on_socket()
    finally:
        service.close()


def reserve_port(host: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen: it refuses, and nobody else gets the port."""
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


def _checked(host: str) -> str:
    if not is_loopback(host):
        raise ValueError(f"the embedded service listens on loopback only, not on {host!r}")
    return "127.0.0.1" if host == "localhost" else host


def _bind(host: str, port: int | None, folder: Path) -> socket.socket:
    """A listening socket, so that the address works before the thread does."""
    if port is not None:
        return _listen(host, port)
    # Addresses of pictures stay good from one start to the next as long as the port is free.
    remembered = folder / "port"
    listening = None
    with suppress(OSError, ValueError, OverflowError):
        listening = _listen(host, int(remembered.read_text(encoding="utf-8")))
    listening = listening or _listen(host, 0)
    write_atomically(remembered, str(listening.getsockname()[1]).encode())
    return listening


def _listen(host: str, port: int) -> socket.socket:
    reserved = reserve_port(host, port)
    try:
        reserved.listen(socket.SOMAXCONN)
    except OSError:
        reserved.close()
        raise
    return reserved
