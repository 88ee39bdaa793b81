from __future__ import annotations

import base64
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream
from hypothesis import given, settings
from hypothesis import strategies as st

from arta_mcp.arta import transport as module
from arta_mcp.arta.protocol import MAX_JSON, STYLES_PATH, is_web_address
from arta_mcp.arta.transport import MAX_REDIRECTS, Answer, Transport
from arta_mcp.errors import ArtaError, ConfigError, NotSent, ProtocolError, Unavailable
from arta_mcp.redaction import Secret, redact
from harness.service import ScriptedServer, ScriptedService
from harness.service_calls import paint

pytestmark = pytest.mark.anyio

PUBLIC = "http://93.184.216.34"
"""an address that is in nobody's own network, and is not asked: the app stands in for it"""

INSIDE = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0177.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[::]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fc00::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:10.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::a00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
]
"""addresses inside this network, in every spelling; the names lead there by DNS"""

Handler = Callable[[httpx.Request], httpx.Response]


@dataclass
class Network:
    """Stands in for every host: answers by `handler` and keeps what was asked."""

    handler: Handler = lambda request: httpx.Response(200, content=b"picture")
    asked: list[httpx.Request] = field(default_factory=list[httpx.Request])

    def transport(self) -> Transport:
        app = httpx.MockTransport(self._answer)
        return Transport(user_agent="arta-mcp/test", direct=True, app=app)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.handler(request)

    async def download(self, url: str, *, private: bool = False, limit: int = 1000) -> Answer:
        async with self.transport() as transport:
            return await transport.download(url, limit=limit, private=private)

    async def exchange(self, url: str = f"{PUBLIC}/x") -> Answer:
        async with self.transport() as transport:
            return await transport.exchange("GET", url)


def leading(**where: str) -> Handler:
    """Redirects by path: `leading(a="/b")` sends /a to /b; other paths hold a picture."""

    def handler(request: httpx.Request) -> httpx.Response:
        location = where.get(request.url.path.strip("/"))
        if location is None:
            return httpx.Response(200, content=b"picture")
        return httpx.Response(302, headers={"location": location})

    return handler


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    service = ScriptedService(tmp_path_factory.mktemp("service"), engine=paint, queue=0, draw=0)
    with ScriptedServer(service) as running:
        yield running


@pytest.fixture
def strike(running: ScriptedServer) -> Callable[[str], str]:
    """Arms one fault at the style list and gives that list's address."""
    from arta_mcp.local.faults.catalogue import Fault

    running.service.faults.clear()

    def arm(fault: str) -> str:
        running.service.faults.add(Fault.parse(fault))
        return running.base_url + STYLES_PATH

    return arm


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


# One exchange


async def test_an_answer_is_its_status_its_headers_in_lower_case_and_its_body() -> None:
    network = Network(lambda request: httpx.Response(418, headers={"X-Tea": "Pot"}, content=b"hi"))
    answer = await network.exchange()
    assert (answer.status, answer.headers["x-tea"], answer.body) == (418, "Pot", b"hi")
    assert "hi" not in repr(answer)


async def test_a_request_says_who_we_are_and_nothing_that_nobody_asked_for() -> None:
    network = Network()
    async with network.transport() as transport:
        await transport.exchange("POST", f"{PUBLIC}/a", json={"b": 1})
        await transport.exchange("POST", f"{PUBLIC}/a", form={"b": "ä 1"})
        await transport.exchange("POST", f"{PUBLIC}/a", form=b"c=2")
    sent = [(r.headers["content-type"], r.content) for r in network.asked]
    assert sent == [
        ("application/json", b'{"b":1}'),
        ("application/x-www-form-urlencoded", b"b=%C3%A4+1"),
        ("application/x-www-form-urlencoded", b"c=2"),
    ]
    expected = {"accept", "accept-encoding", "connection", "content-length", "content-type"}
    for request in network.asked:
        assert request.headers["user-agent"] == "arta-mcp/test"
        assert set(request.headers) == expected | {"host", "user-agent"}


async def test_an_exchange_follows_no_redirect() -> None:
    network = Network(leading(a="/b"))
    answer = await network.exchange(f"{PUBLIC}/a")
    assert (answer.status, answer.headers["location"], len(network.asked)) == (302, "/b", 1)


async def test_a_body_is_read_up_to_its_limit_and_no_further() -> None:
    whole = Network(lambda request: httpx.Response(200, content=b"x" * MAX_JSON))
    assert len((await whole.exchange()).body) == MAX_JSON
    beyond = Network(lambda request: httpx.Response(200, content=b"x" * (MAX_JSON + 1)))
    with pytest.raises(ProtocolError, match="an answer is over 1024 KiB"):
        await beyond.exchange()


@pytest.mark.parametrize("layers", ["gzip", "GZIP", "gzip, gzip", "identity, gzip", "br", "x"])
async def test_what_can_be_small_on_the_wire_and_large_unpacked_is_refused(layers: str) -> None:
    import gzip

    packed = b"\0" * 50_000_000
    for _ in layers.split(","):
        packed = gzip.compress(packed)
    headers = {"content-encoding": layers}

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(packed))

    network = Network(handler)
    with pytest.raises(ProtocolError, match="an answer is packed as"):
        await network.exchange()
    assert [request.headers["accept-encoding"] for request in network.asked] == ["identity"]


async def test_an_answer_that_says_it_is_not_packed_is_read() -> None:
    headers = {"content-encoding": "Identity"}
    network = Network(lambda request: httpx.Response(200, headers=headers, content=b"hi"))
    assert (await network.exchange()).body == b"hi"


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.PoolTimeout("full"),
        httpx.ProxyError("403"),
        httpx.UnsupportedProtocol("no scheme"),
    ],
    ids=lambda exc: type(exc).__name__,
)
async def test_a_failure_before_anything_was_sent_says_so(failure: Exception) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise failure

    with pytest.raises(NotSent):
        await Network(handler).exchange()


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ReadTimeout("slow"),
        httpx.WriteTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.WriteError("reset"),
        httpx.RemoteProtocolError("disconnected"),
        httpx.LocalProtocolError("illegal"),
        httpx.DecodingError("not gzip"),
        httpx.StreamClosed(),
        ConnectionResetError("reset"),
        TimeoutError(),
    ],
    ids=lambda exc: type(exc).__name__,
)
async def test_a_failure_after_that_leaves_open_what_the_other_side_did(failure: Exception) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise failure

    with pytest.raises(Unavailable) as caught:
        await Network(handler).exchange()
    assert not isinstance(caught.value, NotSent)


def test_every_error_of_httpx_is_translated() -> None:
    """Those that no request of ours can meet are listed here with the reason."""
    never_met = {
        "TooManyRedirects",  # no redirect is followed
        "HTTPStatusError",  # raise_for_status is not called
        "CookieConflict",  # cookies are not read
        "InvalidURL",  # met when the request is built
        "StreamConsumed",  # a body is read once
        "RequestNotRead",  # requests hold their bytes
        "ResponseNotRead",  # .content is not read
    }
    kinds = {
        name: kind
        for name, kind in vars(httpx).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    translated = (httpx.HTTPError, httpx.StreamError)
    left = {name for name, kind in kinds.items() if not issubclass(kind, translated)}
    assert left <= never_met
    assert never_met <= set(kinds)


@pytest.mark.parametrize("url", ["http://h\0/", "http://\u2044/", "http://a/" + "x" * 70_000])
async def test_an_address_that_cannot_be_asked_was_not_sent(url: str) -> None:
    network = Network()
    with pytest.raises(NotSent) as caught:
        await network.exchange(url)
    assert str(caught.value).isprintable()
    assert network.asked == []


# On a port


async def test_a_closed_port_was_not_sent_to() -> None:
    async with Transport(user_agent="test", direct=True) as transport:
        with pytest.raises(NotSent, match=r"no connection to 127\.0\.0\.1"):
            await transport.exchange("GET", f"http://127.0.0.1:{closed_port()}/")


@pytest.mark.parametrize("fault", ["reset-before", "reset-after", "answer-lost"])
async def test_a_connection_that_breaks_leaves_the_outcome_open(
    strike: Callable[[str], str], fault: str
) -> None:
    async with Transport(user_agent="test", direct=True) as transport:
        with pytest.raises(Unavailable, match="no whole answer") as caught:
            await transport.exchange("GET", strike(f"{fault}@styles"))
        assert not isinstance(caught.value, NotSent)
        assert (await transport.exchange("GET", strike("400@status"))).status == 200


@pytest.mark.parametrize("fault", ["slow-headers", "slow-body"])
async def test_an_answer_that_takes_too_long_is_given_up(
    strike: Callable[[str], str], fault: str
) -> None:
    with anyio.fail_after(5):
        async with Transport(user_agent="test", direct=True, exchange_timeout=0.1) as transport:
            with pytest.raises(Unavailable, match=r"no answer from 127\.0\.0\.1 in 0\.1 s"):
                await transport.exchange("GET", strike(f"{fault}@styles=30"))


async def test_an_endless_body_is_given_up_at_the_limit(strike: Callable[[str], str]) -> None:
    with anyio.fail_after(10):
        async with Transport(user_agent="test", direct=True) as transport:
            with pytest.raises(ProtocolError, match="an answer is over 1024 KiB"):
                await transport.exchange("GET", strike("endless-body@styles"))


async def test_a_cancelled_exchange_ends_at_once_and_the_next_one_works(
    running: ScriptedServer, strike: Callable[[str], str]
) -> None:
    url = strike("slow-headers@styles=30")
    with anyio.fail_after(5):
        async with Transport(user_agent="test", direct=True) as transport:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(transport.exchange, "GET", url)
                while running.service.faults.pending:
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert (await transport.exchange("GET", url)).status == 200


async def test_the_log_of_httpx_shows_no_key(
    strike: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    key = Secret("sentinel-key-in-an-address")
    with caplog.at_level(logging.DEBUG):
        async with Transport(user_agent="test", direct=True) as transport:
            url = strike("400@status")
            headers = {"authorization": key.reveal()}
            await transport.exchange("GET", f"{url}?key={key.reveal()}", headers=headers)
    # pytest hears uvicorn's access log although it is switched off and has no handler
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("uvicorn")]
    assert [line for line in ours if line.startswith("HTTP Request: GET")] != []
    assert [line for line in ours if key.reveal() in line] == []


# Proxies and certificates

PASSWORD = "sentinel-p%40ss-w"
PLAIN_PASSWORD = "sentinel-p@ss-w"


@pytest.fixture
def set_proxy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the standard variables given, and no other of them."""
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for name in (*proxies, "ssl_cert_file", "ssl_cert_dir", "sslkeylogfile"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def set_them(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_them


@pytest.fixture
def name_inside(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name that leads to this machine, as a hostile or a company's DNS has it."""
    resolve = socket.getaddrinfo

    def lead_inside(host: str | bytes, *rest: Any, **more: Any) -> Any:
        is_ours = host in ("inside.example", b"inside.example")
        return resolve("127.0.0.1" if is_ours else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lead_inside)
    return "inside.example"


@pytest.mark.parametrize("no_proxy", ["inside.example", ".example", "*", "http://inside.example"])
async def test_a_name_that_no_proxy_resolves_is_checked_here(
    set_proxy: Callable[..., None], name_inside: str, no_proxy: str
) -> None:
    set_proxy(HTTP_PROXY=f"http://127.0.0.1:{closed_port()}", NO_PROXY=no_proxy)
    async with Transport(user_agent="test") as transport:
        with pytest.raises(ProtocolError, match="is inside this network"):
            await transport.download(f"http://{name_inside}/x.png", limit=1000, private=False)


async def test_a_name_that_a_proxy_resolves_is_the_proxy_s_to_check(
    set_proxy: Callable[..., None], name_inside: str
) -> None:
    set_proxy(HTTP_PROXY=f"http://127.0.0.1:{closed_port()}", NO_PROXY="other.example")
    async with Transport(user_agent="test") as transport:
        with pytest.raises(NotSent):
            await transport.download(f"http://{name_inside}/x.png", limit=1000, private=False)


@pytest.mark.parametrize("host", INSIDE)
async def test_no_proxy_is_asked_for_an_address_inside_a_network(host: str) -> None:
    proxy = f"http://127.0.0.1:{closed_port()}"
    async with Transport(user_agent="test", proxy=proxy) as transport:
        with pytest.raises(
            ProtocolError, match=r"is inside this network|is malformed|is no web address"
        ):
            await transport.download(f"http://{host}/x.png", limit=1000, private=False)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"ALL_PROXY": f"socks://me:{PASSWORD}@127.0.0.1:9"}, "ALL_PROXY"),
        ({"ALL_PROXY": f"socks4://me:{PASSWORD}@127.0.0.1:9"}, "ALL_PROXY"),
        ({"HTTP_PROXY": f"ftp://me:{PASSWORD}@127.0.0.1:9"}, "HTTP_PROXY"),
        ({"HTTPS_PROXY": f"http://me:{PASSWORD}@127.0.0.1:port"}, "HTTPS_PROXY"),
        ({"NO_PROXY": "::1,[::1]"}, "NO_PROXY"),
        ({"SSL_CERT_FILE": "/nonexistent.pem"}, "SSL_CERT_FILE"),
        ({"SSL_CERT_FILE": __file__}, "SSL_CERT_FILE"),
        ({"SSLKEYLOGFILE": "/nonexistent/keys.log"}, "SSLKEYLOGFILE"),
    ],
    ids=str,
)
async def test_variables_that_httpx_cannot_use_are_a_config_error_that_names_them(
    set_proxy: Callable[..., None], variables: dict[str, str], named: str
) -> None:
    set_proxy(**variables)
    async with Transport(user_agent="test") as transport:
        with pytest.raises(ConfigError) as caught:
            await transport.exchange("GET", "https://93.184.216.34/x")
    said = f"{caught.value.message} {caught.value.hint}"
    assert named in said
    assert [value for value in variables.values() if value in said] == []
    assert "sentinel" not in said


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"])
async def test_variables_about_certificates_are_nothing_to_a_service_on_this_machine(
    set_proxy: Callable[..., None], strike: Callable[[str], str], name: str
) -> None:
    set_proxy(**{name: "/nonexistent/file"})
    async with Transport(user_agent="test") as transport:
        url = strike("400@status")
        assert (await transport.exchange("GET", url)).status == 200
        assert (await transport.download(url, limit=MAX_JSON, private=True)).status == 200


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "127.0.0.1:{}", "socks5://127.0.0.1:{}"])
async def test_a_proxy_that_is_down_is_told_as_one(
    set_proxy: Callable[..., None], scheme: str, form: str
) -> None:
    set_proxy(ALL_PROXY=form.format(closed_port()))
    async with Transport(user_agent="test") as transport:
        with pytest.raises(
            NotSent, match=r"no connection to a\.example through the proxy"
        ) as caught:
            await transport.exchange("GET", f"{scheme}://a.example/")
    assert "ARTA_PROXY" in caught.value.hint


async def test_who_goes_around_the_proxy_is_told_of_none(set_proxy: Callable[..., None]) -> None:
    set_proxy(ALL_PROXY=f"http://127.0.0.1:{closed_port()}", NO_PROXY="127.0.0.1")
    async with Transport(user_agent="test") as transport:
        with pytest.raises(NotSent, match=r"no connection to 127\.0\.0\.1: ") as caught:
            await transport.exchange("GET", f"http://127.0.0.1:{closed_port()}/")
    assert "proxy" not in f"{caught.value} {caught.value.hint}"


class Denying:
    """A proxy that repeats in its status line what it was sent."""

    def __init__(self) -> None:
        self.got: list[str] = []

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            head = (await stream.receive()).decode("latin-1")
            _, _, sent = head.lower().partition("proxy-authorization: ")
            code = head[len(head) - len(sent) :].split("\r\n")[0].split()[-1]
            words = f"{code} {base64.b64decode(code).decode()} {PASSWORD}"
            self.got.append(words)
            await stream.send(f"HTTP/1.1 407 {words}\r\ncontent-length: 0\r\n\r\n".encode())


async def refusal(transport: Transport) -> str:
    with anyio.fail_after(10):
        async with transport:
            with pytest.raises(NotSent) as caught:
                await transport.exchange("GET", "https://nobody.invalid/")
    return caught.value.message


@pytest.mark.parametrize("is_standard", [True, False])
async def test_a_proxy_that_repeats_the_password_shows_it_to_nobody(
    set_proxy: Callable[..., None], caplog: pytest.LogCaptureFixture, is_standard: bool
) -> None:
    denying = Denying()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    proxy = f"http://me:{PASSWORD}@127.0.0.1:{port}"
    if is_standard:
        set_proxy(HTTPS_PROXY=proxy)
    with caplog.at_level(logging.DEBUG):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, denying.serve)
            said = await refusal(Transport(user_agent="test", proxy=None if is_standard else proxy))
            assert said == "no way to nobody.invalid: the proxy answers with 407"
            tasks.cancel_scope.cancel()
    (words,) = denying.got
    assert PLAIN_PASSWORD in words
    logged = caplog.text
    assert "407" in logged
    assert [part for part in (*words.split(), PLAIN_PASSWORD) if part in logged] == []
    assert [part for part in words.split() if part in redact(words)] == []


# Pictures


async def test_a_picture_is_followed_over_three_redirects_and_no_more() -> None:
    network = Network(leading(a="b", b="/c", c="//93.184.216.34/d", d=f"{PUBLIC}/e"))
    assert (await network.download(f"{PUBLIC}/b")).body == b"picture"
    assert len(network.asked) == MAX_REDIRECTS + 1
    with pytest.raises(ProtocolError, match="leads in circles"):
        await network.download(f"{PUBLIC}/a")


@pytest.mark.parametrize("location", ["", "/a"])
async def test_a_picture_that_leads_to_itself_is_given_up(location: str) -> None:
    network = Network(leading(a=location))
    with pytest.raises(ProtocolError, match="leads in circles"):
        await network.download(f"{PUBLIC}/a")
    assert len(network.asked) == MAX_REDIRECTS + 1


async def test_a_picture_is_asked_for_under_its_own_name_and_without_a_token() -> None:
    network = Network()
    await network.download(f"{PUBLIC}:8080/a.png?sig=1%2B2")
    (request,) = network.asked
    assert (request.url.host, request.headers["host"]) == ("93.184.216.34", "93.184.216.34:8080")
    assert request.url.raw_path == b"/a.png?sig=1%2B2"
    assert "authorization" not in request.headers


@pytest.mark.parametrize("host", INSIDE)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_picture_is_fetched_from_inside_this_network(host: str, scheme: str) -> None:
    network = Network()
    with pytest.raises((ProtocolError, Unavailable)) as caught:
        await network.download(f"{scheme}://{host}/x.png")
    assert network.asked == []
    reasons = ("is inside this network", "has no address", "is malformed", "is no web address")
    assert [reason for reason in reasons if reason in str(caught.value)] != []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "[::ffff:127.0.0.1]"])
async def test_this_machine_is_refused_as_such_and_not_for_want_of_an_address(host: str) -> None:
    with pytest.raises(ProtocolError, match="is inside this network"):
        await Network().download(f"http://{host}/x.png")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "localhost"])
async def test_no_redirect_leads_inside_this_network(host: str) -> None:
    network = Network(leading(a=f"http://{host}/x.png"))
    with pytest.raises(ProtocolError, match="is inside this network"):
        await network.download(f"{PUBLIC}/a")
    assert len(network.asked) == 1


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://a.example/",
        "http://[::1",
        "data:,x",
        "http://n:p@a.example/",
    ],
)
async def test_no_redirect_leads_off_the_web(location: str) -> None:
    network = Network(leading(a=location))
    with pytest.raises((ProtocolError, Unavailable)):
        await network.download(f"{PUBLIC}/a")
    assert [str(request.url) for request in network.asked][:1] == [f"{PUBLIC}/a"]
    assert {request.url.host for request in network.asked} == {"93.184.216.34"}


@pytest.mark.parametrize("host", ["127.0.0.1:1", "[::1]:1", "localhost:1"])
async def test_a_local_service_may_lie_on_this_machine(host: str) -> None:
    network = Network()
    assert (await network.download(f"http://{host}/x", private=True)).body == b"picture"
    assert len(network.asked) == 1


@pytest.mark.parametrize("host", ["nobody.invalid", "a..b", "-", "x" * 70, "."])
async def test_a_host_without_an_address_is_unavailable(host: str) -> None:
    with pytest.raises(Unavailable, match="has no address"):
        async with Transport(user_agent="test", direct=True) as transport:
            await transport.download(f"http://{host}/x.png", limit=1000, private=False)


async def test_a_name_and_password_in_an_address_are_sent_to_nobody() -> None:
    network = Network()
    with pytest.raises(ProtocolError, match="is no web address"):
        await network.download(f"{PUBLIC.replace('//', '//name:password@')}/a", private=True)
    assert network.asked == []


@given(
    st.text(st.characters(), max_size=40).map("http://127.0.0.1{}".format) | st.text(max_size=40)
)
@settings(max_examples=60, deadline=None)
async def test_any_address_is_asked_or_an_error(url: str) -> None:
    network = Network()
    try:
        await network.download(url, private=True)
    except ArtaError as exc:
        said = str(exc)
    else:
        said = ""
        assert is_web_address(url)
    assert said.isprintable()


async def test_a_picture_over_its_limit_is_refused() -> None:
    network = Network()
    assert (await network.download(f"{PUBLIC}/a", limit=7)).body == b"picture"
    with pytest.raises(ProtocolError, match="an answer is over 0 KiB"):
        await network.download(f"{PUBLIC}/a", limit=6)


async def test_leaving_a_transport_that_asked_nobody_is_no_trouble(tmp_path: Path) -> None:
    async with Transport(user_agent="test"):
        pass


async def test_pools_that_a_crowd_was_for_are_closed_once_they_are_idle_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everyone_is_there = anyio.Event()
    waiting = 0

    async def answer(_: httpx.Request) -> httpx.Response:
        nonlocal waiting
        waiting += 1
        if waiting == 3 * module.POOL_SIZE:
            everyone_is_there.set()
        await everyone_is_there.wait()
        return httpx.Response(200, content=b"{}")

    async with Transport(user_agent="tests", app=httpx.MockTransport(answer)) as transport:
        async with anyio.create_task_group() as group:
            for _ in range(3 * module.POOL_SIZE):
                group.start_soon(transport.exchange, "GET", PUBLIC)
        [pools] = transport._pools.values()  # pyright: ignore[reportPrivateUsage]  # shown nowhere
        crowd = [pool.client for pool in pools]
        await transport.exchange("GET", PUBLIC)
        assert [client.is_closed for client in crowd] == [False] * 3
        monkeypatch.setattr(module, "KEEP_ALIVE", 0.0)
        await anyio.sleep(0.01)
        await transport.exchange("GET", PUBLIC)
        assert [client.is_closed for client in crowd] == [False, True, True]
