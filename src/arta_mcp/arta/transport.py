"""One exchange over HTTP: bounded in time and size, and clear about whether anything was sent.

The only module that knows httpx; a move to another client is a change of this file.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urljoin

import anyio

from arta_mcp.arta.protocol import MAX_JSON, is_web_address
from arta_mcp.arta.url_guard import is_inside
from arta_mcp.errors import ConfigError, NotSent, ProtocolError, Unavailable
from arta_mcp.redaction import Secret, redact, sanitize

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import ssl  # at run time on first use, like httpx: for the first call, not the first answer

    import httpx

    from arta_mcp.arta.connections import BoundedStream

CONNECT_TIMEOUT = 10.0
"""seconds until a connection stands; a submit that never left can still be sent again in time"""

EXCHANGE_TIMEOUT = 30.0
"""seconds for one whole exchange, as Google's own web SDK gives a call"""

DOWNLOAD_TIMEOUT = 60.0
"""seconds for each step to one picture"""

STALL_TIMEOUT = 30.0
"""seconds without a byte of a picture, after which another try is the better hope"""

POOL_SIZE = 32
"""exchanges at once in one pool of httpcore, which compares each of its connections with every
other for each request: with hundreds in one pool that took most of the processor's time"""

KEEP_ALIVE = 30.0
"""seconds that an idle connection is kept, and that a pool is: httpcore closes none that has
expired before its pool is used again"""

MAX_REDIRECTS = 3
"""of one picture; a CDN needs one or two"""

FREE_PIECES, MIN_PIECE = 4096, 256
"""pieces that a body may come in whatever their size, and bytes of each one more, on average"""

PROXY_HINT = (
    "see whether the proxy is up: ARTA_PROXY names it, or HTTPS_PROXY, HTTP_PROXY and ALL_PROXY"
)

_HTTPCORE = ("connection", "http11", "http2", "proxy", "socks")
_LEAKING_LOGGERS = (__name__, *map("httpcore.{}".format, _HTTPCORE))
"""the loggers that see what is sent"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(slots=True)
class _Pool:
    """A client of httpx with connections of its own, and how many exchanges it has under way."""

    client: httpx.AsyncClient
    under_way: int = 0
    idle_since: float = 0.0
    """by `anyio.current_time()`"""


class Transport:
    """The HTTP clients of a process: made on first use, kept alive, HTTP/2 where it is spoken."""

    def __init__(
        self,
        *,
        user_agent: str,
        proxy: str | None = None,
        direct: bool = False,
        exchange_timeout: float = EXCHANGE_TIMEOUT,
        download_timeout: float = DOWNLOAD_TIMEOUT,
        app: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`direct` ignores the standard proxy variables; `app` stands in for the network."""
        self._user_agent, self._proxy, self._direct, self._app = user_agent, proxy, direct, app
        self._exchange_timeout, self._download_timeout = exchange_timeout, download_timeout
        self._pools: dict[tuple[bool, bool], list[_Pool]] = {}
        self._tls: ssl.SSLContext | None = None
        self._passwords: tuple[Secret, ...] = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes every connection; a later call opens new ones."""
        # Shielded: a cancelled call leaves no socket. Bounded: a host may never end its TLS.
        with anyio.CancelScope(shield=True), anyio.move_on_after(1):
            for pools in self._pools.values():
                while pools:
                    await pools.pop().client.aclose()

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Mapping[str, object] | None = None,
        form: Mapping[str, str] | bytes | None = None,
        limit: int = MAX_JSON,
        timeout: float | None = None,
    ) -> Answer:
        """Sends once and follows no redirect; reads `limit` bytes, within `timeout` seconds.

        Raises NotSent when nothing can have been done about it, Unavailable when there was no
        whole answer, ProtocolError when the answer is over the limit, packed or in crumbs,
        ConfigError when the proxy or SSL variables cannot be used.
        """
        sent = dict(headers or {})
        content: bytes | None = None
        if isinstance(form, bytes):
            content, form = form, None
            sent["content-type"] = "application/x-www-form-urlencoded"
        import httpx

        timeout = self._exchange_timeout if timeout is None else timeout
        async with self._using_client(url) as client:
            try:
                request = client.build_request(
                    method, url, headers=sent, json=json, data=form, content=content
                )
            except (httpx.InvalidURL, UnicodeError) as exc:
                raise NotSent(
                    f"this cannot be sent: {_reason(exc)}", hint="check the settings"
                ) from exc
            return await self._send(client, request, limit=limit, timeout=timeout)

    async def download(self, url: str, *, limit: int, private: bool) -> Answer:
        """A picture, over at most three redirects, with no `Authorization` ever.

        `private` allows loopback, private and link-local addresses. Raises Unavailable or
        ProtocolError.
        """
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._download_once(url, limit=limit, private=private)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            location = answer.headers.get("location", "")
            try:
                url = urljoin(url, location)
            except ValueError as exc:
                where = sanitize(location, 120)
                raise ProtocolError(f"a picture's address leads to {where}") from exc
        raise ProtocolError("a picture's address leads in circles")

    async def _download_once(self, url: str, *, limit: int, private: bool) -> Answer:
        if not is_web_address(url):
            raise ProtocolError(f"a picture's address is no web address: {sanitize(url, 120)}")
        import httpx

        try:
            target = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError) as exc:
            raise ProtocolError(f"a picture's address is malformed: {sanitize(url, 120)}") from exc
        # Asked here for a proxy's sake: it resolves names itself, may stand on this machine, and
        # could reach what we must not. Names that we resolve are checked by the CheckingBackend.
        if not private and is_inside(target.host):
            raise ProtocolError(
                f"the picture's host {sanitize(target.host, 80)} is inside this network"
            )
        stall = httpx.Timeout(STALL_TIMEOUT, connect=CONNECT_TIMEOUT)
        async with self._using_client(url, public_only=not private) as client:
            request = client.build_request("GET", target, timeout=stall)
            return await self._send(client, request, limit=limit, timeout=self._download_timeout)

    async def _send(
        self, client: httpx.AsyncClient, request: httpx.Request, *, limit: int, timeout: float
    ) -> Answer:
        import httpx

        from arta_mcp.arta.connections import BoundedStream, has_surplus, says_untouched

        response: httpx.Response | None = None
        chosen = client._transport_for_url(request.url)  # pyright: ignore[reportPrivateUsage]  # public nowhere
        for password in self._passwords:
            password.reveal()  # what is in use stays among what is redacted
        try:
            with anyio.fail_after(timeout):
                # Not by the client: its layers for cookies, redirects and other logins, of which
                # nothing is wanted here, cost a quarter of the exchange.
                response = await chosen.handle_async_request(request)
                log.info(
                    "HTTP Request: %s %s %d", request.method, request.url, response.status_code
                )
                stream = response.extensions.get("network_stream")
                ours = stream if isinstance(stream, BoundedStream) else None  # None: an `app`
                try:
                    body = await _read_body(response, limit, ours)
                    if ours is not None:
                        ours.is_spoilt = has_surplus(getattr(chosen, "_pool", None), ours)
                finally:
                    with anyio.move_on_after(1, shield=True):
                        await response.aclose()
        except (httpx.HTTPError, httpx.StreamError, OSError) as exc:
            host = sanitize(request.url.host, 80)
            is_proxied = chosen is not _transports(client)[0]
            # HTTP/2 says that nothing was done; behind a head of an answer it is untrue
            if response is None and says_untouched(exc.__cause__):
                raise NotSent(f"{host} turned the request away unread") from exc
            raise _explain(exc, host, is_proxied=is_proxied, timeout=timeout) from exc
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, body)

    @asynccontextmanager
    async def _using_client(
        self, url: str, *, public_only: bool = False
    ) -> AsyncGenerator[httpx.AsyncClient]:
        """A client for such addresses; a connection is never shared by two kinds of them."""
        kind = (url.partition(":")[0].lower() == "https", public_only)
        pools = self._pools.setdefault(kind, [])
        pool = next((one for one in pools if one.under_way < POOL_SIZE), None)
        if pool is None:
            pool = _Pool(self._make_client(is_tls=kind[0], public_only=public_only))
            pools.append(pool)
        pool.under_way += 1
        try:
            await _close_idle(pools)
            yield pool.client
        finally:
            pool.under_way -= 1
            pool.idle_since = anyio.current_time()

    def _make_client(self, *, is_tls: bool, public_only: bool) -> httpx.AsyncClient:
        from http.cookiejar import CookieJar, DefaultCookiePolicy
        from ssl import PROTOCOL_TLS_CLIENT, SSLContext
        from urllib.request import getproxies

        import httpx

        for name in _LEAKING_LOGGERS:  # a filter works on its very logger, not on those below
            logging.getLogger(name).addFilter(_redacting_filter)
        # at DEBUG hpack writes each header twice, once in a code that no redaction reads
        logging.getLogger("hpack").setLevel(logging.INFO)
        proxies = () if self._direct else getproxies().values()
        proxies = proxies if self._proxy is None else (self._proxy,)
        self._passwords = tuple(secret for one in proxies for secret in _secrets_of_proxy(one))
        # Certificates are for who asks an https address, and a variable about them that is wrong
        # is nobody else's trouble. The empty context trusts none, should one be needed after all.
        tls = self._get_tls() if is_tls else SSLContext(PROTOCOL_TLS_CLIENT)
        try:
            client = httpx.AsyncClient(
                http2=True,
                verify=tls,
                proxy=self._proxy,
                transport=self._app,
                trust_env=not self._direct,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # keeps none
                timeout=httpx.Timeout(self._download_timeout, connect=CONNECT_TIMEOUT),
                # No bound of httpx's own: the concurrency slots are the bound, and a call that
                # waits in a pool would seem to be a host that does not answer.
                limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEP_ALIVE),
                headers={
                    "user-agent": self._user_agent,
                    "accept": "*/*",
                    # what is small on the wire and large unpacked has no bound
                    "accept-encoding": "identity",
                },
                follow_redirects=False,
            )
        # The words of these quote addresses, so they stay out.
        except (ValueError, ImportError, httpx.InvalidURL) as exc:
            raise ConfigError(
                "a proxy variable holds what cannot be used",
                hint="look at HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, or ARTA_PROXY: a"
                " proxy is an http, https or socks5 address, and NO_PROXY lists names or bare"
                " addresses",
            ) from exc
        _set_backends(client, public_only=public_only)
        return client

    def _get_tls(self) -> ssl.SSLContext:
        """The certificates that are trusted, read once. Raises ConfigError."""
        import httpx

        try:
            self._tls = self._tls or httpx.create_ssl_context(trust_env=not self._direct)
        # The words of this quote addresses, so they stay out.
        except OSError as exc:
            if exc.filename is not None:  # OpenSSL names the file that it was to write, no other
                raise ConfigError(
                    "the file that SSLKEYLOGFILE names cannot be written",
                    hint="correct SSLKEYLOGFILE, or remove it",
                ) from exc
            raise ConfigError(
                "the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read",
                hint="correct SSL_CERT_FILE and SSL_CERT_DIR, or remove them",
            ) from exc
        return self._tls


class _RedactingFilter(logging.Filter):
    """Takes secrets out of what is logged of an exchange: an address holds the key."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        return True


_redacting_filter = _RedactingFilter()


def _secrets_of_proxy(proxy: str) -> Iterator[Secret]:
    """The secrets in a proxy's address, however malformed, in the forms in which they are sent."""
    login = proxy.rpartition("@")[0]
    name, _, password = (login.partition("://")[2] or login).partition(":")
    if not password:
        return
    plain = f"{unquote(name)}:{unquote(password)}".encode("utf-8", "replace")
    yield from (Secret(password), Secret(unquote(password)))
    yield Secret(base64.b64encode(plain).decode("ascii"))


async def _close_idle(pools: list[_Pool]) -> None:
    """Closes the pools that were for more exchanges than there are."""
    before = anyio.current_time() - KEEP_ALIVE
    idle = [pool for pool in pools if not pool.under_way and pool.idle_since < before]
    if not idle:
        return
    for pool in idle:
        pools.remove(pool)
    with anyio.CancelScope(shield=True), anyio.move_on_after(1):
        for pool in idle:
            await pool.client.aclose()


def _transports(client: httpx.AsyncClient) -> tuple[httpx.AsyncBaseTransport | None, ...]:
    """The one that connects directly, then those that go through a proxy."""
    return (client._transport, *client._mounts.values())  # pyright: ignore[reportPrivateUsage]  # public nowhere


def _set_backends(client: httpx.AsyncClient, *, public_only: bool) -> None:
    """Puts our connections under the client's pools: httpx passes no backend on to httpcore."""
    import httpx

    from arta_mcp.arta.connections import CheckingBackend

    for index, transport in enumerate(_transports(client)):
        if isinstance(transport, httpx.AsyncHTTPTransport):
            # A proxy may stand anywhere, and resolves the names that it is asked for itself.
            backend = CheckingBackend(public_only=public_only and index == 0)
            transport._pool._network_backend = backend  # pyright: ignore[reportPrivateUsage]  # public nowhere


async def _read_body(response: httpx.Response, limit: int, stream: BoundedStream | None) -> bytes:
    packed = response.headers.get("content-encoding", "").strip().lower()
    if packed not in ("", "identity"):  # httpx unpacks without a bound, layer by layer
        raise ProtocolError(f"an answer is packed as {sanitize(repr(packed), 80)}, unasked")
    if stream is not None:
        stream.note_answer()
    assert isinstance(response.stream, AsyncIterable)  # noqa: S101  # for pyright: it may be a sync client's
    body, pieces = bytearray(), 0
    async for piece in response.stream:
        if not piece:  # an empty frame, which the stream below counts
            continue
        if stream is not None:
            stream.note_body(len(piece))
        body += piece
        pieces += 1
        if len(body) > limit:
            raise ProtocolError(f"an answer is over {limit // 1024} KiB")
        if pieces > FREE_PIECES + len(body) // MIN_PIECE:
            raise ProtocolError("an answer comes in crumbs")
    return bytes(body)


def _explain(exc: Exception, host: str, *, is_proxied: bool, timeout: float) -> Unavailable:
    """The error for an exchange that came to no whole answer.

    NotSent only where httpx never had a connection: a submit is sent again after it, so whatever
    may have had its effect must not become it.
    """
    import httpx

    where, hint = (f"{host} through the proxy", PROXY_HINT) if is_proxied else (host, "")
    match exc:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.PoolTimeout():
            return NotSent(f"no connection to {where}: {_reason(exc)}", hint=hint)
        case httpx.ProxyError():
            # The status alone: a proxy's words can hold the password that it was sent.
            status = re.match(r"\d{3}\b", str(exc))
            why = f"the proxy answers with {status[0]}" if status else "the proxy refuses"
            return NotSent(f"no way to {host}: {why}", hint=hint)
        case httpx.UnsupportedProtocol():
            return NotSent(f"no way to {host}: {_reason(exc)}")
        case TimeoutError():
            return Unavailable(f"no answer from {where} in {timeout:g} s", hint=hint)
        case _:
            return Unavailable(f"no whole answer from {where}: {_reason(exc)}", hint=hint)


def _reason(exc: Exception) -> str:
    return sanitize(str(exc) or type(exc).__name__, 160)
