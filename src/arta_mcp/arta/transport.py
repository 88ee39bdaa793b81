"""One exchange over HTTP: bounded in time and size, and clear about whether anything was sent.

The only module that knows httpx; a move to another client is a change of this file.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urljoin

import anyio

from arta_mcp.arta.protocol import MAX_JSON, is_web_address
from arta_mcp.errors import ConfigError, ProtocolError, Unavailable
from arta_mcp.redaction import Secret, redact, sanitize

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
        self._passwords: tuple[Secret, ...] = ()

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
        ProtocolError when the answer is over 1 MiB or packed, ConfigError when the proxy or SSL
        variables cannot be used.
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
            raise ProtocolError(f"a picture's address is no web address: {sanitize(url, 120)}")
        import httpx

        client = self._open()
        try:
            target = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError) as exc:
            raise ProtocolError(f"a picture's address is malformed: {sanitize(url, 120)}") from exc
        if private:
            return client.build_request("GET", target)
        if _is_inside(target.host):  # also for a proxy: it may stand on this machine
            raise ProtocolError(
                f"the picture's host {sanitize(target.host, 80)} is inside this network"
            )
        if _is_proxied(client, target):  # then only the proxy can check where the name leads
            return client.build_request("GET", target)
        address = await _public_address(target.host, target.port or 443)
        # connects to the very address that was checked: a name may resolve otherwise next time
        return client.build_request(
            "GET",
            target.copy_with(host=address),
            headers={"host": target.netloc.decode("ascii")},
            extensions={"sni_hostname": target.host},
        )

    async def _run(self, request: httpx.Request, *, limit: int, timeout: float) -> Answer:
        import httpx

        client = self._open()
        for password in self._passwords:
            password.reveal()  # what is in use stays among what is redacted
        try:
            with anyio.fail_after(timeout):
                response = await client.send(request, stream=True, follow_redirects=False)
                try:
                    body = await _read(response, limit)
                finally:
                    with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                        await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            raise NotSent(f"no connection to {_where(request)}: {_why(exc)}") from exc
        except httpx.ProxyError as exc:
            raise NotSent(f"no way to {_where(request)}: {_proxy_says(exc)}") from exc
        except httpx.UnsupportedProtocol as exc:
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
            self._passwords = self._proxy_passwords()
            try:
                self._client = httpx.AsyncClient(
                    http2=True,
                    proxy=self._proxy,
                    transport=self._app,
                    trust_env=not self._direct,
                    timeout=httpx.Timeout(self._download_timeout, connect=CONNECT_TIMEOUT),
                    limits=httpx.Limits(max_connections=None, keepalive_expiry=30),
                    headers={
                        "user-agent": self._user_agent,
                        "accept": "*/*",
                        # what is small on the wire and large unpacked has no bound
                        "accept-encoding": "identity",
                    },
                    follow_redirects=False,
                )
            except (ValueError, OSError, ImportError, httpx.InvalidURL) as exc:
                raise _unusable(exc) from exc
        return self._client

    def _proxy_passwords(self) -> tuple[Secret, ...]:
        """What must not be shown of the proxies that httpx is about to read."""
        if self._proxy is not None:
            return tuple(_passwords(self._proxy))
        if self._direct:
            return ()
        from urllib.request import getproxies

        return tuple(secret for proxy in getproxies().values() for secret in _passwords(proxy))


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


def _passwords(proxy: str) -> Iterator[Secret]:
    """The secrets in a proxy's address, however malformed, in the forms in which they are sent."""
    login = proxy.rpartition("@")[0]
    name, _, password = (login.partition("://")[2] or login).partition(":")
    if not password:
        return
    plain = f"{unquote(name)}:{unquote(password)}".encode("utf-8", "replace")
    yield from (Secret(password), Secret(unquote(password)))
    yield Secret(base64.b64encode(plain).decode("ascii"))


def _unusable(exc: Exception) -> ConfigError:
    """Which variables keep httpx from starting; its words quote addresses, so they stay out."""
    if isinstance(exc, OSError):
        return ConfigError(
            "the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read",
            hint="correct SSL_CERT_FILE and SSL_CERT_DIR, or remove them",
        )
    return ConfigError(
        "a proxy variable holds what cannot be used",
        hint="look at HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, or ARTA_PROXY: a proxy is an"
        " http, https or socks5 address, and NO_PROXY lists names or bare addresses",
    )


def _is_proxied(client: httpx.AsyncClient, url: httpx.URL) -> bool:
    """By httpx's own reading of NO_PROXY: where another one differs, nobody checks the name."""
    chosen = client._transport_for_url(url)  # pyright: ignore[reportPrivateUsage]  # told nowhere else
    return chosen is not client._transport  # pyright: ignore[reportPrivateUsage]  # told nowhere else


def _proxy_says(exc: Exception) -> str:
    """The status alone: a proxy's words can hold the password that it was sent."""
    status = re.match(r"\d{3}\b", str(exc))
    return f"the proxy answers with {status[0]}" if status else "the proxy refuses"


async def _read(response: httpx.Response, limit: int) -> bytes:
    packed = response.headers.get("content-encoding", "").strip().lower()
    if packed not in ("", "identity"):  # httpx unpacks without a bound, layer by layer
        raise ProtocolError(f"an answer is packed as {sanitize(repr(packed), 80)}, unasked")
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
        raise Unavailable(f"the picture's host {sanitize(host, 80)} has no address") from exc
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not _is_public(address):
            raise ProtocolError(f"the picture's host {sanitize(host, 80)} is inside this network")
    return addresses[0]


def _is_inside(host: str) -> bool:
    """Whether a host is, with no name to resolve, an address in somebody's own network."""
    host = host.lower().rstrip(".")
    if host == "localhost":
        return True
    try:
        return not _is_public(host)
    except ValueError:
        pass
    try:
        return not _is_public(socket.inet_ntoa(socket.inet_aton(host)))  # 127.1 and 0x7f.1 are too
    except (OSError, ValueError):
        return False


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
        raise ProtocolError(f"a picture's address leads to {sanitize(location, 120)}") from exc


def _where(request: httpx.Request) -> str:
    return sanitize(request.url.host, 80)


def _why(exc: Exception) -> str:
    return sanitize(str(exc) or type(exc).__name__, 160)
