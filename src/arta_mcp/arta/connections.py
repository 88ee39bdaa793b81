"""What lies under the HTTP client: connections to checked addresses, read in bounded steps.

The only module that knows httpcore, h11 and h2; import it late, they are for the first request.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
from collections.abc import Iterable
from typing import Any

import h2.errors
import h2.events
import httpcore

from arta_mcp.arta.url_guard import resolve_public

MAX_READ, MAX_WHOLE_READ = 16 * 1024, 64 * 1024
"""bytes that are parsed in one go, and of a body that comes in pieces as large as they are asked"""

MAX_OVERHEAD, OVERHEAD_PER_BYTE = 256 * 1024, 64
"""bytes that give nobody anything (interim answers, empty frames, one endless header) in a row, and
as many more for each byte that somebody got"""


class CheckingBackend(httpcore.AsyncNetworkBackend):
    """Opens connections that are read in bounded steps, `public_only` to public addresses alone.

    The check is here, under the pool, so that the pool knows a host by its name: two hosts on one
    address share no connection, and each shows a certificate of its own.
    """

    def __init__(self, *, public_only: bool) -> None:
        self._backend: httpcore.AsyncNetworkBackend = httpcore.AnyIOBackend()  # pyright: ignore[reportAttributeAccessIssue]  # it sees the stand-in for want of anyio
        self._public_only = public_only

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises Unavailable or ProtocolError, besides httpcore's, for a host inside a network."""
        if self._public_only:
            # To the very address that was checked: the next time the name may resolve otherwise.
            host = await resolve_public(host, port)
        opened = await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return BoundedStream(opened)

    async def sleep(self, seconds: float) -> None:
        """For the retries of httpcore, which are off."""
        await self._backend.sleep(seconds)


class BoundedStream(httpcore.AsyncNetworkStream):
    """A connection whose other side can neither hold the event loop nor send without an end.

    httpcore reads 64 KiB, parses them without a pause, and skips interim answers without a bound:
    4,000 of them fit into one such read.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream, self._overhead, self._max_read = stream, 0, MAX_READ
        # Kept: httpcore asks it of each idle connection for each request, and anyio makes a table
        # of all attributes of a socket to give one.
        self._socket: socket.socket | None = stream.get_extra_info("socket")
        self.is_spoilt = False
        """whether more came than the answer, which would be taken for the next one"""

    def note_answer(self) -> None:
        """The head of an answer has come."""
        self._overhead, self._max_read = 0, MAX_READ

    def note_body(self, size: int) -> None:
        """Somebody got so many bytes of an answer; in HTTP/2 others read on meanwhile."""
        self._overhead = max(0, self._overhead - size * OVERHEAD_PER_BYTE)
        self._max_read = MAX_READ if size < MAX_READ // 2 else MAX_WHOLE_READ

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes, few at a time: between two reads every other task has its turn."""
        piece = await self._stream.read(min(max_bytes, self._max_read), timeout)
        self._overhead += len(piece)
        if self._overhead > MAX_OVERHEAD:
            raise httpcore.RemoteProtocolError(f"{MAX_OVERHEAD // 1024} KiB that say nothing")
        return piece

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Sends all of it."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """The same connection behind TLS, as bounded."""
        return BoundedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """httpcore keeps no idle connection that `is_readable`: nothing may come unasked."""
        if info != "is_readable":
            return self._stream.get_extra_info(info)
        return self.is_spoilt or _is_readable(self._socket)


def _is_readable(opened: socket.socket | None) -> bool:
    """Whether bytes have come, or the end; so is what is closed."""
    if opened is None or opened.fileno() < 0:
        return True
    if sys.platform == "win32":  # has no poll, and its select takes any number
        return bool(select.select([opened], [], [], 0)[0])
    poll = select.poll()
    poll.register(opened, select.POLLIN)
    return bool(poll.poll(0))


def has_surplus(pool: object, stream: BoundedStream) -> bool:
    """Whether h11 holds bytes behind the answer that was just read from this connection.

    A request that follows on it would get them as its answer, before it was even sent.
    """
    for connection in getattr(pool, "connections", ()):
        # A pool's connection wraps the one that speaks, a proxy's wraps that; no one is public.
        while (inner := getattr(connection, "_connection", None)) is not None:
            connection = inner
        if getattr(connection, "_network_stream", None) is stream:
            spoken = getattr(connection, "_h11_state", None)  # HTTP/2 numbers its answers
            return spoken is not None and bool(spoken.trailing_data[0])
    return False


def says_untouched(exc: BaseException | None) -> bool:
    """Whether HTTP/2 guarantees that nothing was done about the request (RFC 9113, 8.7)."""
    match exc.args if exc is not None else ():
        case (h2.events.StreamReset(error_code=h2.errors.ErrorCodes.REFUSED_STREAM),):
            return True
        case (h2.events.ConnectionTerminated(last_stream_id=0),):
            return True
        case _:
            return False
