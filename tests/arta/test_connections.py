"""Hosts that speak HTTP badly, on real connections: with and without TLS, HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import thread_time

import anyio
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import httpx
import pytest
import trustme
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

from arta_mcp.arta import connections
from arta_mcp.arta.connections import MAX_OVERHEAD
from arta_mcp.arta.protocol import MAX_IMAGE, Addresses, Submit
from arta_mcp.arta.transport import Transport
from arta_mcp.background import open_background
from arta_mcp.errors import NotSent, ProtocolError, Unavailable
from harness.world import Client

pytestmark = pytest.mark.anyio

MAX_STALL = 0.5
"""seconds of work in one turn of the loop, the hosts' among it; other programs do not count"""

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"

GONE = (
    *(anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError),
    h2.exceptions.ProtocolError,
)
"""how a host learns that its client has left"""

Serve = Callable[[ByteStream], Awaitable[None]]
Answer = Callable[[h2.connection.H2Connection, int], None]
"""what a host does on a stream whose request has come"""


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that our client trusts, with no proxy in the way."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_dir"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


@asynccontextmanager
async def listening(
    serve: Serve, authority: trustme.CA | None = None, *, names: tuple[str, ...] = ("localhost",)
) -> AsyncGenerator[int]:
    """The port of a host that serves each connection so; with an authority over TLS."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    served = listener
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["h2", "http/1.1"] if serve.__name__ == "speak" else [])
        authority.issue_cert(*names).configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # pyOpenSSL's, which is not here
        served = TLSListener(listener, context, standard_compatible=False)

    async def serve_one(stream: ByteStream) -> None:
        async with stream:
            with suppress(*GONE):
                await serve(stream)

    async with served, anyio.create_task_group() as tasks:
        tasks.start_soon(served.serve, serve_one)
        yield port
        tasks.cancel_scope.cancel()


def http2(answer: Answer) -> Serve:
    """A host that speaks HTTP/2 and does this once a request has come."""

    async def speak(stream: ByteStream) -> None:
        spoken = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        spoken.initiate_connection()
        while True:
            await stream.send(spoken.data_to_send())
            for event in spoken.receive_data(await stream.receive()):
                if isinstance(event, h2.events.StreamEnded):
                    answer(spoken, event.stream_id)

    return speak


def answer_well(spoken: h2.connection.H2Connection, stream: int) -> None:
    spoken.send_headers(stream, [(":status", "200")])
    spoken.send_data(stream, b"ok", end_stream=True)


def refuse(spoken: h2.connection.H2Connection, stream: int) -> None:
    spoken.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)


def go_away(spoken: h2.connection.H2Connection, stream: int) -> None:
    spoken.close_connection(last_stream_id=0)


def cancel(spoken: h2.connection.H2Connection, stream: int) -> None:
    spoken.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)


def go_away_after(spoken: h2.connection.H2Connection, stream: int) -> None:
    spoken.close_connection(last_stream_id=stream)


def refuse_behind_the_head(spoken: h2.connection.H2Connection, stream: int) -> None:
    spoken.send_headers(stream, [(":status", "200")])
    refuse(spoken, stream)


# What HTTP/2 says about a request that it did not look at


@pytest.mark.parametrize("answer", [refuse, go_away])
async def test_a_request_that_http2_says_was_not_looked_at_was_not_sent(
    authority: trustme.CA, answer: Answer
) -> None:
    with anyio.fail_after(10):
        async with listening(http2(answer), authority) as port, Transport(user_agent="t") as ours:
            with pytest.raises(NotSent, match="localhost turned the request away unread"):
                await ours.exchange("POST", f"https://localhost:{port}/", form={"a": "b"})


@pytest.mark.parametrize("answer", [cancel, go_away_after, refuse_behind_the_head])
async def test_a_request_that_may_have_been_looked_at_stays_open(
    authority: trustme.CA, answer: Answer
) -> None:
    with anyio.fail_after(10):
        async with listening(http2(answer), authority) as port, Transport(user_agent="t") as ours:
            with pytest.raises(Unavailable) as caught:
                await ours.exchange("POST", f"https://localhost:{port}/", form={"a": "b"})
            assert not isinstance(caught.value, NotSent)


@pytest.mark.parametrize("refusal", [refuse, go_away])
async def test_a_submit_that_http2_says_was_not_looked_at_is_sent_again(
    authority: trustme.CA, tmp_path: Path, refusal: Answer
) -> None:
    submits = list[int]()

    def answer(spoken: h2.connection.H2Connection, stream: int) -> None:
        submits.append(stream)
        if len(submits) == 2:  # the sign-up was the first
            refusal(spoken, stream)
            return
        spoken.send_headers(stream, [(":status", "200")])
        body = {"idToken": "a.b.c", "refreshToken": "d", "record_id": "r1", "status": "IN_QUEUE"}
        spoken.send_data(stream, json.dumps(body).encode(), end_stream=True)

    slept = list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    tls = ssl.create_default_context()
    authority.configure_trust(tls)  # pyright: ignore[reportUnknownMemberType]  # pyOpenSSL's, which is not here
    with anyio.fail_after(10):
        async with listening(http2(answer), authority) as port, open_background() as background:
            client = Client(
                state_dir=tmp_path / "state",
                addresses=Addresses.at_origin(f"https://localhost:{port}"),
                app=httpx.AsyncHTTPTransport(verify=tls, http2=True),
                sleep=sleep,
            )
            async with client.open_backend(background) as backend:
                order = Submit(prompt="a red fox in snow", style="Flux", n=1, seed=7)
                job = await backend.client.submit(order, deadline=5)
    assert (job.record_id, len(submits), slept) == ("r1", 3, [0.5])


async def test_http2_is_spoken_and_a_connection_is_kept(authority: trustme.CA) -> None:
    opened = list[int]()
    speak_well = http2(answer_well)

    async def speak(stream: ByteStream) -> None:
        opened.append(1)
        await speak_well(stream)

    async with listening(speak, authority) as port, Transport(user_agent="t") as ours:
        for _ in range(3):
            assert (await ours.exchange("GET", f"https://localhost:{port}/")).body == b"ok"
    assert len(opened) == 1


# More than was asked for


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("surplus", [OK + b"!!", OK[:10], b"\r\n"])
async def test_a_kept_connection_that_carries_a_surplus_answer_is_not_used_again(
    authority: trustme.CA, is_tls: bool, surplus: bytes
) -> None:
    asked = list[list[bytes]]()

    async def serve(stream: ByteStream) -> None:
        here = list[bytes]()
        asked.append(here)
        while True:
            here.append((await stream.receive()).split()[1])
            await stream.send(OK + here[-1][:2] + surplus)

    with anyio.fail_after(10):
        async with (
            listening(serve, authority if is_tls else None) as port,
            Transport(user_agent="t") as ours,
        ):
            origin = f"{'https' if is_tls else 'http'}://localhost:{port}"
            for path in ("/1", "/2"):
                answer = await ours.exchange("GET", origin + path)
                assert answer.body == path.encode()
    assert asked == [[b"/1"], [b"/2"]]


async def test_a_connection_with_nothing_left_on_it_is_used_again() -> None:
    asked = list[list[bytes]]()

    async def serve(stream: ByteStream) -> None:
        here = list[bytes]()
        asked.append(here)
        while True:
            here.append((await stream.receive()).split()[1])
            await stream.send(OK + here[-1][:2])

    async with listening(serve) as port, Transport(user_agent="t") as ours:
        for path in ("/1", "/2"):
            await ours.exchange("GET", f"http://localhost:{port}{path}")
    assert asked == [[b"/1", b"/2"]]


# Without an end


def endless(begin: bytes, piece: bytes) -> Serve:
    async def serve(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(begin)
        while True:
            await stream.send(piece * 1000)

    return serve


def endless2(begin: Answer, piece: Answer) -> Serve:
    async def speak(stream: ByteStream) -> None:
        spoken = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        spoken.initiate_connection()
        await stream.send(spoken.data_to_send())
        stream_id = 0
        while not stream_id:
            for event in spoken.receive_data(await stream.receive()):
                if isinstance(event, h2.events.StreamEnded):
                    stream_id = event.stream_id
            await stream.send(spoken.data_to_send())
        begin(spoken, stream_id)
        piece(spoken, stream_id)
        first = spoken.data_to_send()
        piece(spoken, stream_id)
        again = spoken.data_to_send()
        await stream.send(first)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drain, stream)  # or the client's own frames would hold it up
            while True:  # the same bytes over and over, whatever the client's windows say
                await stream.send(again * 1000)

    return speak


async def drain(stream: ByteStream) -> None:
    with suppress(*GONE):
        async for _ in stream:
            pass


def head(spoken: h2.connection.H2Connection, stream: int) -> None:
    spoken.send_headers(stream, [(":status", "200")])


def interim(spoken: h2.connection.H2Connection, stream: int) -> None:
    spoken.send_headers(stream, [(":status", "103")])


def nothing(spoken: h2.connection.H2Connection, stream: int) -> None:
    pass


def empty(spoken: h2.connection.H2Connection, stream: int) -> None:
    spoken.send_data(stream, b"")


def crumb(spoken: h2.connection.H2Connection, stream: int) -> None:
    spoken.send_data(stream, b"a")


def ping(spoken: h2.connection.H2Connection, stream: int) -> None:
    spoken.ping(b"12345678")


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

ENDLESS = {
    "interim answers": endless(b"", b"HTTP/1.1 103 \r\n\r\n"),
    "crumbs": endless(CHUNKED, b"1\r\nx\r\n"),
    "one header": endless(b"HTTP/1.1 200 OK\r\na: ", b"aaaa"),
    "headers": endless(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
    "trailers": endless(CHUNKED + b"0\r\n", b"a: b\r\n"),
    "chunk lines": endless(CHUNKED + b"1;", b"aaaa"),
    "blank lines": endless(b"", b"\r\n"),
    "http/2 interim answers": endless2(nothing, interim),
    "http/2 empty frames": endless2(head, empty),
    "http/2 crumbs": endless2(head, crumb),
    "http/2 pings": endless2(nothing, ping),
}


@pytest.mark.parametrize("serve", ENDLESS.values(), ids=ENDLESS)
async def test_four_answers_without_an_end_are_given_up_and_hold_nobody_up(
    authority: trustme.CA, serve: Serve
) -> None:
    failures = list[Exception]()
    stalls = list[float]()

    async def watch() -> None:
        began = thread_time()
        try:
            while True:
                await anyio.sleep(0.005)
                stalls.append(thread_time() - began)
                began = thread_time()
        finally:  # the last one too: it may be the only one
            stalls.append(thread_time() - began)

    async def download(url: str) -> None:
        with pytest.raises((Unavailable, ProtocolError)) as caught:
            await ours.download(url, limit=MAX_IMAGE, private=True)
        failures.append(caught.value)

    is_tls = serve.__name__ == "speak"
    async with (
        listening(serve, authority if is_tls else None) as port,
        Transport(user_agent="t", download_timeout=20) as ours,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(watch)
        with anyio.fail_after(15):
            async with anyio.create_task_group() as downloads:
                for index in range(4):
                    url = f"{'https' if is_tls else 'http'}://localhost:{port}/{index}"
                    downloads.start_soon(download, url)
        tasks.cancel_scope.cancel()
    assert len(failures) == 4
    assert max(stalls) < MAX_STALL


async def test_a_picture_that_stalls_is_given_up_long_before_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("arta_mcp.arta.transport.STALL_TIMEOUT", 0.1)

    async def serve(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(OK + b"o")
        await anyio.sleep_forever()

    with anyio.fail_after(10):
        async with listening(serve) as port, Transport(user_agent="t", download_timeout=60) as ours:
            with pytest.raises(Unavailable, match="no whole answer"):
                await ours.download(f"http://localhost:{port}/", limit=9, private=True)


async def test_an_answer_in_many_small_pieces_is_read() -> None:
    total = 300

    async def serve(stream: ByteStream) -> None:
        await stream.receive()
        for _ in range(20):
            await stream.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        piece = b"x" * MAX_OVERHEAD
        whole = b"".join(b"%x\r\n%s\r\n" % (len(piece) // 128, piece[::128]) for _ in range(total))
        await stream.send(CHUNKED + whole + b"0\r\n\r\n")

    async with listening(serve) as port, Transport(user_agent="t") as ours:
        answer = await ours.download(f"http://localhost:{port}/", limit=MAX_IMAGE, private=True)
    assert len(answer.body) == total * MAX_OVERHEAD // 128


# Two hosts on one address


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every name is public and leads to this machine, as far as the check can see."""
    names = list[tuple[str, int]]()

    async def resolve(host: str, port: int) -> str:
        names.append((host, port))
        return "127.0.0.1"

    monkeypatch.setattr(connections, "resolve_public", resolve)
    return names


async def test_two_hosts_on_one_address_share_no_connection_no_cookie_and_no_certificate(
    authority: trustme.CA, checked: list[tuple[str, int]]
) -> None:
    heads = list[bytes]()

    async def serve(stream: ByteStream) -> None:
        while True:
            heads.append(await stream.receive())
            cookie = b"set-cookie: who=we; path=/\r\n\r\nok"
            await stream.send(OK.removesuffix(b"\r\n") + cookie)

    with anyio.fail_after(10):
        async with (
            listening(serve, authority, names=("a.example", "c.example")) as port,
            Transport(user_agent="t") as ours,
        ):
            for host in ("a.example", "c.example", "a.example"):
                url = f"https://{host}:{port}/x"
                assert (await ours.download(url, limit=9, private=False)).body == b"ok"
            with pytest.raises(NotSent, match=r"no connection to b\.example: .*certificate"):
                await ours.download(f"https://b.example:{port}/x", limit=9, private=False)
    assert checked == [(f"{letter}.example", port) for letter in "acb"]
    hosts = [line for head in heads for line in head.lower().split(b"\r\n") if b"host:" in line]
    assert hosts == [b"host: %s.example:%d" % (letter, port) for letter in (b"a", b"c", b"a")]
    assert [head for head in heads if b"cookie" in head.lower()] == []


async def test_a_picture_s_host_that_resolves_inside_is_asked_nothing(
    authority: trustme.CA,
) -> None:
    heads = list[bytes]()

    async def serve(stream: ByteStream) -> None:
        heads.append(await stream.receive())

    # the name of this machine passes for a name: `is_inside` is not asked, only the connection is
    backend = connections.CheckingBackend(public_only=True)
    async with listening(serve) as port:
        with pytest.raises(ProtocolError, match="is inside this network"):
            await backend.connect_tcp("localhost", port)
    assert heads == []
