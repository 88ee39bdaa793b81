"""One exchange over HTTP: bounded in time and size, and clear about whether anything was sent.

The only module that knows httpx; a move to another client is a change of this file.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urljoin, urlsplit

import anyio

from arta_mcp.errors import ProtocolError, Unavailable, quote, redact
from arta_mcp.protocol import MAX_JSON, is_web_address

if TYPE_CHECKING:
    import httpx  # at run time on first use: it is for the first call, not for the first answer

CONNECT_TIMEOUT = 10.0
"""seconds until a connection stands"""

EXCHANGE_TIMEOUT = 30.0
"""seconds for one whole exchange, as Google's own web SDK gives a call"""

DOWNLOAD_TIMEOUT = 60.0
"""seconds for each step to one picture"""

MOST_REDIRECTS = 3

_LOUD = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
)
"""the loggers that see what is sent"""

_TRANSLATED = tuple(
    ipaddress.IPv6Network(network)
    for network in ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)
"""IPv6 addresses that a gateway turns into an IPv4 one, of any kind; no picture lies there"""


class NotSent(Unavailable):
    """No connection was made, so the other side saw nothing of the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Transport:
    """One HTTP client a process: made on first use, kept alive, HTTP/2 where the host speaks it."""

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
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                await self._client.aclose()
            self._client = None

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Mapping[str, object] | None = None,
        form: Mapping[str, str] | bytes | None = None,
    ) -> Answer:
        """Sends once and follows no redirect.

        Raises NotSent when no connection was made, Unavailable when there was no whole answer,
        ProtocolError when the answer is over 1 MiB.
        """
        sent = dict(headers or {})
        content: bytes | None = None
        if isinstance(form, bytes):
            content, form = form, None
            sent["content-type"] = "application/x-www-form-urlencoded"
        import httpx

        try:
            request = self._open().build_request(
                method, url, headers=sent, json=json, data=form, content=content
            )
        except (httpx.InvalidURL, UnicodeError) as exc:
            raise NotSent(f"this cannot be sent: {_why(exc)}", hint="check the settings") from exc
        return await self._run(request, limit=MAX_JSON, timeout=self._exchange_timeout)

    async def download(self, url: str, *, limit: int, private: bool) -> Answer:
        """A picture, over at most three redirects, with no `Authorization` ever.

        `private` allows loopback, private and link-local addresses. Raises Unavailable or
        ProtocolError.
        """
        for _ in range(MOST_REDIRECTS + 1):
            request = await self._picture_request(url, private=private)
            answer = await self._run(request, limit=limit, timeout=self._download_timeout)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            url = _joined(url, answer.headers.get("location", ""))
        raise ProtocolError("a picture's address leads in circles")

    async def _picture_request(self, url: str, *, private: bool) -> httpx.Request:
        if not is_web_address(url):
            raise ProtocolError(f"a picture's address is no web address: {quote(url, 120)}")
        import httpx

        client = self._open()
        try:
            target = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError) as exc:
            raise ProtocolError(f"a picture's address is malformed: {quote(url, 120)}") from exc
        if private or self._proxied(url):
            return client.build_request("GET", target)
        address = await _public_address(target.host, target.port or 443)
        # connects to the very address that was checked: a name may resolve otherwise next time
        return client.build_request(
            "GET",
            target.copy_with(host=address),
            headers={"host": target.netloc.decode("ascii")},
            extensions={"sni_hostname": target.host},
        )

    def _proxied(self, url: str) -> bool:
        """Whether a proxy resolves the name; then only it can check where the name leads."""
        return self._proxy is not None or (
            not self._direct and bool(_proxies().get(urlsplit(url).scheme))
        )

    async def _run(self, request: httpx.Request, *, limit: int, timeout: float) -> Answer:
        import httpx

        try:
            with anyio.fail_after(timeout):
                response = await self._open().send(request, stream=True, follow_redirects=False)
                try:
                    body = await _read(response, limit)
                finally:
                    with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                        await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            raise NotSent(f"no connection to {_where(request)}: {_why(exc)}") from exc
        except (httpx.ProxyError, httpx.UnsupportedProtocol) as exc:
            raise NotSent(f"no way to {_where(request)}: {_why(exc)}") from exc
        except TimeoutError as exc:
            raise Unavailable(f"no answer from {_where(request)} in {timeout:g} s") from exc
        # InvalidURL: httpx reads the address of a redirect although it is not to follow it
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as exc:
            raise Unavailable(f"no whole answer from {_where(request)}: {_why(exc)}") from exc
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, body)

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            _hush()
            self._client = httpx.AsyncClient(
                http2=True,
                proxy=self._proxy,
                transport=self._app,
                trust_env=not self._direct,
                timeout=httpx.Timeout(self._download_timeout, connect=CONNECT_TIMEOUT),
                limits=httpx.Limits(max_connections=None, keepalive_expiry=30),
                headers={"user-agent": self._user_agent, "accept": "*/*"},
                follow_redirects=False,
            )
        return self._client


class _Redacting(logging.Filter):
    """Takes secrets out of what a library logs: at INFO httpx tells addresses, with the key."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        return True


_redacting = _Redacting()


def _hush() -> None:
    """A filter works on the very logger it hangs on, not on those below, so each gets it."""
    for name in _LOUD:
        logging.getLogger(name).addFilter(_redacting)
    # at DEBUG hpack writes every header twice, once in a code that no redaction sees through
    logging.getLogger("hpack").setLevel(logging.INFO)


def _proxies() -> Mapping[str, str]:
    """The proxies that the standard variables name, by scheme."""
    from urllib.request import getproxies

    proxies = getproxies()
    return {**{s: proxies["all"] for s in ("http", "https") if "all" in proxies}, **proxies}


async def _read(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            raise ProtocolError(f"an answer is over {limit // 1024} KiB")
    return bytes(body)


async def _public_address(host: str, port: int) -> str:
    """The first address of a host, after checking that none of them is inside this network."""
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise Unavailable(f"the picture's host {quote(host, 80)} has no address") from exc
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not _is_public(address):
            raise ProtocolError(f"the picture's host {quote(host, 80)} is inside this network")
    return addresses[0]


def _is_public(address: str) -> bool:
    """Whether an address is in nobody's own network, itself or by the IPv4 address inside it."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if found.is_multicast or not found.is_global:
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return True
    return not found.is_site_local and not any(found in network for network in _TRANSLATED)


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as exc:
        raise ProtocolError(f"a picture's address leads to {quote(location, 120)}") from exc


def _where(request: httpx.Request) -> str:
    return quote(request.url.host, 80)


def _why(exc: Exception) -> str:
    return quote(str(exc) or type(exc).__name__, 160)
