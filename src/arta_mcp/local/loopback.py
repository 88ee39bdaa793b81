"""The embedded service on a loopback port: in a thread of our process, or alone in the main one."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from arta_mcp.arta.url_guard import is_loopback
from arta_mcp.bounded_http import (
    KEEP_ALIVE,
    BoundedProtocol,
    max_connections,
)
from arta_mcp.local.address import HOST, FolderAddress, open_socket
from arta_mcp.local.service import Service

log = logging.getLogger(__name__)

TAKE_OVER_INTERVAL = 1.0
"""seconds between two tries to take the folder's address, which may just have become free"""

START_TIMEOUT = STOP_TIMEOUT = 5.0
"""seconds, far more than either takes: beyond them something is wrong, and nobody should hang"""


class UvicornServer(uvicorn.Server):
    """A service on one listening socket, answering callers that name a loopback host."""

    def __init__(
        self,
        service: Service,
        listening: socket.socket,
        on_ready: Callable[[str], None],
        *,
        address: FolderAddress | None = None,
    ) -> None:
        """`address` is the folder's: where its pictures are said to lie, and to be taken over."""
        config = uvicorn.Config(
            self.answer,
            interface="asgi3",
            http=BoundedProtocol,
            timeout_keep_alive=KEEP_ALIVE,
            # As many are accepted in one turn of the loop, and a connection that is closed to make
            # room gives its descriptor back some turns later.
            backlog=max(1, max_connections() // 8),
            loop="asyncio",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,  # the service has a clock of its own
        )
        super().__init__(config)
        self._service, self._on_ready = service, on_ready
        self._shared: FolderAddress | None = address
        self._taking_over: asyncio.Task[None] | None = None
        service.picture_address = address
        self._listening, self._address = listening, listening.getsockname()

    @property
    def base_url(self) -> str:
        """The service's address, without a slash at its end."""
        host, port = self._address[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app: the service, or a refusal for who should not be here."""
        try:
            await (self.refusal_for(scope) or self._service)(scope, receive, send)
        except ClientDisconnect:
            log.debug("a caller left in the middle of its request")
        except asyncio.CancelledError:
            if not self.should_exit:  # stopping breaks off answers on purpose, which is no error
                raise

    def refusal_for(self, scope: Scope) -> JSONResponse | None:
        """What is answered instead of the service's own: 400 and 421 for a Host, 403, 503."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _name_of(host)
        if name is None:
            return JSONResponse({"detail": "malformed Host"}, status_code=400)
        # A web page can make its own name resolve to 127.0.0.1 (DNS rebinding), and then its
        # scripts may read what we answer; the name that they ask for betrays them.
        if not is_loopback(name):
            return JSONResponse({"detail": "not a loopback host"}, status_code=421)
        # Without rebinding a page cannot read, but a form of its own may still be posted here.
        # A browser says so when a page from elsewhere made this request.
        is_foreign = headers.get("origin", f"http://{host}") != f"http://{host}"
        is_foreign = is_foreign or headers.get("sec-fetch-site") == "cross-site"
        if scope["method"] == "POST" and is_foreign:
            return JSONResponse({"detail": "not for web pages"}, status_code=403)
        if len(self.server_state.connections) > max_connections():
            detail = {"detail": "too many connections at once; nothing was done"}
            headers = {"Retry-After": "1", "Connection": "close"}
            return JSONResponse(detail, status_code=503, headers=headers)
        return None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Calls `on_ready` with the base URL once requests are answered."""
        await super().startup(sockets)
        self._listening.listen(socket.SOMAXCONN)  # who is not accepted yet waits, all the same
        if self._shared is not None and self._shared.base_url != self.base_url:
            self._taking_over = asyncio.ensure_future(self._take_over(self._shared))
        self._on_ready(self.base_url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Unlike uvicorn's, this waits for nobody: not for idle clients, not for slow answers."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in self.server_state.tasks:
            task.cancel()
        if self._taking_over is not None:
            self._taking_over.cancel()
        await asyncio.sleep(0)  # one turn of the loop, in which the tasks end
        await super().shutdown(sockets)
        self._listening.close()
        if self._shared is not None:
            self._shared.release()

    async def _take_over(self, shared: FolderAddress) -> None:
        """Answers at the folder's address too, from when the process that does so has ended."""
        while True:
            with suppress(OSError):  # of the folder, or no descriptor is left: later, perhaps
                if (taken := shared.take()) is not None:
                    break
            await asyncio.sleep(TAKE_OVER_INTERVAL)
        factory = partial(BoundedProtocol, self.config, self.server_state, {})
        server = await asyncio.get_running_loop().create_server(
            factory, sock=taken, backlog=self.config.backlog
        )
        self.servers.append(server)


class LoopbackServer:
    """A service in a daemon thread with its own event loop: a slow picture delays no caller.

    `port` None takes the port of the last time when it is free, so that old addresses open again,
    or as soon as it becomes free.
    Entering raises ValueError for a host that is not loopback, OSError for a port that is taken.
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
        self._host, self._port = host, port
        self._server: UvicornServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        # Bound in the caller's thread: the address is known, and refuses nobody, from here on.
        listening, address = _listen(self._host, self._port, self._service.folder)
        up = threading.Event()
        self._server = self._server_type(
            self._service, listening, lambda _: up.set(), address=address
        )
        # A daemon: a host that kills its server must not wait for a picture.
        run = partial(self._server.run, [listening])
        self._thread = threading.Thread(target=run, name="arta-local", daemon=True)
        self._thread.start()
        if not up.wait(START_TIMEOUT):
            raise RuntimeError("the embedded service does not start")
        return self

    def __exit__(self, *exc: object) -> None:
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
    listening, address = _listen(host, port, service.folder)
    try:
        with suppress(KeyboardInterrupt):
            server_type(service, listening, on_ready, address=address).run([listening])
    finally:
        service.close()


def _listen(
    host: str, port: int | None, folder: Path
) -> tuple[socket.socket, FolderAddress | None]:
    """A listening socket, so that the address works before the thread does.

    With it the address that the folder's pictures have, unless host or port were chosen.
    """
    if not is_loopback(host):
        raise ValueError(f"the embedded service listens on loopback only, not on {host!r}")
    host = HOST if host == "localhost" else host
    if port is not None or host != HOST:
        return open_socket(host, port or 0, listening=True), None
    address = FolderAddress(folder)
    return address.take() or open_socket(host, 0, listening=True), address


def _name_of(host: str) -> str | None:
    """The name in a `Host`, empty for an empty one; None for what no `Host` can be."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises where it is no number
    except ValueError:  # also a bracket without its other half
        return None
    return (parts.hostname or "") if parts.netloc == host and "@" not in host else None
