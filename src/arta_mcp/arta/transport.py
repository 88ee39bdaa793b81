"""One exchange over HTTP: bounded in time and size, and clear about whether anything was sent.

The only module that knows httpx; a move to another client is a change of this file.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urljoin

import anyio

from arta_mcp.arta.protocol import MAX_JSON, is_web_address
from arta_mcp.arta.url_guard import is_inside, resolve_public
from arta_mcp.errors import ConfigError, NotSent, ProtocolError, Unavailable
from arta_mcp.redaction import Secret, redact, sanitize

if TYPE_CHECKING:
    import httpx  # at run time on first use: it is for the first call, not for the first answer

CONNECT_TIMEOUT = 10.0
"""seconds until a connection stands; a submit that never left can still be sent again in time"""

EXCHANGE_TIMEOUT = 30.0
"""seconds for one whole exchange, as Google's own web SDK gives a call"""

DOWNLOAD_TIMEOUT = 60.0
"""seconds for each step to one picture"""

MAX_REDIRECTS = 3
"""of one picture; a CDN needs one or two"""

_HTTPCORE = ("connection", "http11", "http2", "proxy", "socks")
_LEAKING_LOGGERS = ("httpx", *map("httpcore.{}".format, _HTTPCORE))
"""the loggers that see what is sent"""


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
            # Shielded: a cancelled call leaves no socket. Bounded: a host may never end its TLS.
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
            request = self._get_client().build_request(
                method, url, headers=sent, json=json, data=form, content=content
            )
        except (httpx.InvalidURL, UnicodeError) as exc:
            raise NotSent(
                f"this cannot be sent: {_reason(exc)}", hint="check the settings"
            ) from exc
        return await self._send(request, limit=MAX_JSON, timeout=self._exchange_timeout)

    async def download(self, url: str, *, limit: int, private: bool) -> Answer:
        """A picture, over at most three redirects, with no `Authorization` ever.

        `private` allows loopback, private and link-local addresses. Raises Unavailable or
        ProtocolError.
        """
        for _ in range(MAX_REDIRECTS + 1):
            request = await self._build_picture_request(url, private=private)
            answer = await self._send(request, limit=limit, timeout=self._download_timeout)
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            location = answer.headers.get("location", "")
            try:
                url = urljoin(url, location)
            except ValueError as exc:
                where = sanitize(location, 120)
                raise ProtocolError(f"a picture's address leads to {where}") from exc
        raise ProtocolError("a picture's address leads in circles")

    async def _build_picture_request(self, url: str, *, private: bool) -> httpx.Request:
        if not is_web_address(url):
            raise ProtocolError(f"a picture's address is no web address: {sanitize(url, 120)}")
        import httpx

        client = self._get_client()
        try:
            target = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError) as exc:
            raise ProtocolError(f"a picture's address is malformed: {sanitize(url, 120)}") from exc
        if private:
            return client.build_request("GET", target)
        # Asked for a proxy too: it may stand on this machine and reach what we must not.
        if is_inside(target.host):
            raise ProtocolError(
                f"the picture's host {sanitize(target.host, 80)} is inside this network"
            )
        if _is_proxied(client, target):  # then only the proxy can check where the name leads
            return client.build_request("GET", target)
        address = await resolve_public(target.host, target.port or 443)
        # To the very address that was checked, or a name that resolves otherwise the next time
        # would lead inside; TLS and Host still name the host.
        return client.build_request(
            "GET",
            target.copy_with(host=address),
            headers={"host": target.netloc.decode("ascii")},
            extensions={"sni_hostname": target.host},
        )

    async def _send(self, request: httpx.Request, *, limit: int, timeout: float) -> Answer:
        import httpx

        client, host = self._get_client(), sanitize(request.url.host, 80)
        for password in self._passwords:
            password.reveal()  # what is in use stays among what is redacted
        try:
            with anyio.fail_after(timeout):
                response = await client.send(request, stream=True, follow_redirects=False)
                try:
                    body = await _read_body(response, limit)
                finally:
                    with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                        await response.aclose()
        # NotSent only where httpx never had a connection: a submit is sent again after it, so
        # whatever may have reached the other side must not become NotSent.
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            raise NotSent(f"no connection to {host}: {_reason(exc)}") from exc
        except httpx.ProxyError as exc:
            # The status alone: a proxy's words can hold the password that it was sent.
            status = re.match(r"\d{3}\b", str(exc))
            why = f"the proxy answers with {status[0]}" if status else "the proxy refuses"
            raise NotSent(f"no way to {host}: {why}") from exc
        except httpx.UnsupportedProtocol as exc:
            raise NotSent(f"no way to {host}: {_reason(exc)}") from exc
        except TimeoutError as exc:
            raise Unavailable(f"no answer from {host} in {timeout:g} s") from exc
        # InvalidURL: httpx reads the address of a redirect although it is not to follow it
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as exc:
            raise Unavailable(f"no whole answer from {host}: {_reason(exc)}") from exc
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, body)

    def _get_client(self) -> httpx.AsyncClient:
        if self._client is None:
            import httpx

            for name in _LEAKING_LOGGERS:  # a filter works on its very logger, not on those below
                logging.getLogger(name).addFilter(_redacting_filter)
            # at DEBUG hpack writes each header twice, once in a code that no redaction reads
            logging.getLogger("hpack").setLevel(logging.INFO)
            from urllib.request import getproxies

            proxies = () if self._direct else getproxies().values()
            proxies = proxies if self._proxy is None else (self._proxy,)
            self._passwords = tuple(secret for one in proxies for secret in _secrets_of_proxy(one))
            try:
                self._client = httpx.AsyncClient(
                    http2=True,
                    proxy=self._proxy,
                    transport=self._app,
                    trust_env=not self._direct,
                    timeout=httpx.Timeout(self._download_timeout, connect=CONNECT_TIMEOUT),
                    # No bound of httpx's own: the concurrency slots are the bound, and a call that
                    # waits in a pool would seem to be a host that does not answer.
                    limits=httpx.Limits(max_connections=None, keepalive_expiry=30),
                    headers={
                        "user-agent": self._user_agent,
                        "accept": "*/*",
                        # what is small on the wire and large unpacked has no bound
                        "accept-encoding": "identity",
                    },
                    follow_redirects=False,
                )
            # The words of these quote addresses, so they stay out.
            except OSError as exc:
                raise ConfigError(
                    "the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read",
                    hint="correct SSL_CERT_FILE and SSL_CERT_DIR, or remove them",
                ) from exc
            except (ValueError, ImportError, httpx.InvalidURL) as exc:
                raise ConfigError(
                    "a proxy variable holds what cannot be used",
                    hint="look at HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, or ARTA_PROXY: a"
                    " proxy is an http, https or socks5 address, and NO_PROXY lists names or bare"
                    " addresses",
                ) from exc
        return self._client


class _RedactingFilter(logging.Filter):
    """Takes secrets out of what a library logs: at INFO httpx writes addresses, with the key."""

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


def _is_proxied(client: httpx.AsyncClient, url: httpx.URL) -> bool:
    """By httpx's own reading of NO_PROXY: where another one differs, no one checks the name."""
    chosen = client._transport_for_url(url)  # pyright: ignore[reportPrivateUsage]  # public nowhere
    return chosen is not client._transport  # pyright: ignore[reportPrivateUsage]  # public nowhere


async def _read_body(response: httpx.Response, limit: int) -> bytes:
    packed = response.headers.get("content-encoding", "").strip().lower()
    if packed not in ("", "identity"):  # httpx unpacks without a bound, layer by layer
        raise ProtocolError(f"an answer is packed as {sanitize(repr(packed), 80)}, unasked")
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            raise ProtocolError(f"an answer is over {limit // 1024} KiB")
    return bytes(body)


def _reason(exc: Exception) -> str:
    return sanitize(str(exc) or type(exc).__name__, 160)
