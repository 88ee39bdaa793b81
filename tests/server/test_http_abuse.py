"""What a bad neighbour can do to the server on HTTP: it is refused, forgotten, and never traced."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.requests import Request

from arta_mcp.server import http
from arta_mcp.server.http import MAX_BODY
from arta_mcp.server.http_auth import Refusal
from harness.http_server import RunningServer, http_server, read_all
from harness.installed import TIMEOUT, Machine

TOKEN = "a-token-0123456789"

LIST = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).encode()

CLOSED_AFTER = 10.0 + 5.0
"""seconds until an unfinished request's connection is closed, and what a busy machine adds"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    machine = Machine.new(tmp_path_factory.mktemp("abused") / "machine")
    with http_server(machine.set(ARTA_HTTP_TOKENS=f"alice={TOKEN}")) as running:
        yield running
        assert running.end() == 0
        assert "Traceback" not in running.log
        assert TOKEN not in running.log


@pytest.fixture(autouse=True)
def still_serves(server: RunningServer) -> Iterator[None]:
    """After each of these the server answers, and holds no connection that was left behind."""
    yield
    assert answers(server)
    until = time.monotonic() + TIMEOUT
    while descriptors(server) > MAX_IDLE_DESCRIPTORS:
        assert time.monotonic() < until, (
            f"{descriptors(server)} descriptors, {MAX_IDLE_DESCRIPTORS}"
        )
        time.sleep(0.1)


MAX_IDLE_DESCRIPTORS = 40
"""of a server that nobody asks: its sockets, journal and what Python holds are some 20"""


def descriptors(server: RunningServer) -> int:
    return len([*Path(f"/proc/{server.process.pid}/fd").iterdir()])


def answers(server: RunningServer) -> bool:
    return b"generate_image" in server.say(head(len(LIST)), LIST)


def head(
    length: int | None, *lines: str, host: str = "127.0.0.1", era: str = "2025-11-25"
) -> bytes:
    """The head of a POST that is let in, and closes its connection."""
    fixed = [
        "POST /mcp HTTP/1.1",
        *([f"Host: {host}"] if host else []),
        f"Authorization: Bearer {TOKEN}",
        "Accept: application/json, text/event-stream",
        "Content-Type: application/json",
        f"MCP-Protocol-Version: {era}",
        "Connection: close",
        *([f"Content-Length: {length}"] if length is not None else []),
        *lines,
    ]
    return "\r\n".join([*fixed, "", ""]).encode()


def status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    assert found, answer
    return int(found[1])


# Slow


@pytest.mark.parametrize(
    "sent",
    [b"", head(10)[:60], head(10) + b"half"],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_request_that_does_not_come_is_hung_up_on(server: RunningServer, sent: bytes) -> None:
    with server.connect() as opened:
        opened.sendall(sent)
        began = time.monotonic()
        answer = read_all(opened)
        assert time.monotonic() - began < CLOSED_AFTER
    if sent.endswith(b"half"):
        assert status(answer) == 408
        assert b"the body has not come in 8 s" in answer
    else:
        assert answer == b""


@pytest.mark.parametrize("start", [b"", head(100_000)], ids=["head", "body"])
def test_a_request_that_drips_is_hung_up_on(server: RunningServer, start: bytes) -> None:
    began = time.monotonic()
    with server.connect() as opened:
        opened.sendall(start)
        try:
            while time.monotonic() - began < CLOSED_AFTER:
                opened.sendall(b"x")
                time.sleep(0.1)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - began < CLOSED_AFTER


def test_a_thousand_idle_connections_are_closed_and_hinder_nobody(server: RunningServer) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(server.connect()) for _ in range(1000)]
        began = time.monotonic()
        for _ in range(5):
            assert answers(server)
        for opened in idle:
            assert read_all(opened) == b""
        assert time.monotonic() - began < CLOSED_AFTER + 5


def test_who_leaves_in_the_middle_of_a_body_leaves_nothing(server: RunningServer) -> None:
    for era in ("2025-11-25", "2026-07-28"):
        for _ in range(50):
            with server.connect() as opened:
                opened.sendall(head(1000, era=era) + b'{"jsonrpc"')


def test_who_leaves_in_the_middle_of_an_answer_leaves_nothing(server: RunningServer) -> None:
    call = {"name": "generate_image", "arguments": {"prompt": "a fox"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}).encode()
    for _ in range(10):
        with server.connect() as opened:
            opened.sendall(head(len(body)) + body)
            assert opened.recv(15) == b"HTTP/1.1 200 OK"


# Large


@pytest.mark.parametrize("era", ["2025-11-25", "2026-07-28"])
def test_a_body_that_is_too_large_is_refused_whole_or_in_chunks(
    server: RunningServer, era: str
) -> None:
    large = b"x" * 300_000
    assert status(server.say(head(len(large), era=era), large[:1000])) == 413
    chunk = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
    chunked = head(None, "Transfer-Encoding: chunked", era=era)
    with server.connect() as opened:
        opened.sendall(chunked)
        for _ in range(MAX_BODY // 0x2000 + 1):
            opened.sendall(chunk)
        assert status(read_all(opened)) == 413


def test_what_is_large_without_a_token_is_not_even_read(server: RunningServer) -> None:
    head_alone = head(200_000).replace(TOKEN.encode(), b"none")
    assert status(server.say(head_alone)) == 401


@pytest.mark.parametrize("era", ["2025-11-25", "2026-07-28"])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 40_000 + b'"\\ud83d"',
        b"\xff\xfe",
        b"",
        b"null",
        b"[]",
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":7}',
        b"1" * 5000,
    ],
    ids=[
        *("deep", "deep with half a pair", "no UTF-8", "empty", "null", "batch", "no method"),
        *("params", "number"),
    ],
)
def test_what_is_no_message_is_told_so(server: RunningServer, era: str, body: bytes) -> None:
    answer = server.say(head(len(body), era=era), body)
    assert status(answer) == 400
    assert b'"jsonrpc":"2.0"' in answer


def test_a_head_that_is_too_large_is_refused(server: RunningServer) -> None:
    assert status(server.say(head(0, "X-Long: " + "x" * 200_000))) == 400


# Smuggled


SECOND = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        head(len(LIST), "Transfer-Encoding: chunked") + b"0\r\n\r\n" + SECOND,
        head(4, "Content-Length: 5") + b"abcde",
        head(len(LIST), "Transfer-Encoding: xchunked") + LIST,
        head(None, "Content-Length: +4") + b"abcd",
        head(None, "Content-Length: 4, 4, 5") + b"abcd",
        head(len(LIST), "Host: evil.example") + LIST,
        head(len(LIST), host="") + LIST,
        head(len(LIST), "X y: z") + LIST,
        b"POST /mcp HTTP/1.1\nHost: 127.0.0.1\n\rContent-Length: 3\r\n\r\nabc",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
    ],
    ids=[
        *("both lengths", "two lengths", "odd encoding", "signed", "list of lengths"),
        *("two hosts", "no host", "blank in a name", "odd line end", "TLS"),
    ],
)
def test_a_request_that_two_readers_could_read_in_two_ways_is_refused_once(
    server: RunningServer, sent: bytes
) -> None:
    answer = server.say(sent)
    assert status(answer) in (400, 501)
    assert answer.count(b"HTTP/1.1 ") == 1  # what stands behind it was no second request


def test_a_wrong_host_is_refused_by_its_own_status(server: RunningServer) -> None:
    assert status(server.say(head(len(LIST), host="evil.example"), LIST)) == 421
    assert status(server.say(head(len(LIST), "Origin: null"), LIST)) == 403


# Many


def test_three_hundred_streams_that_would_stay_silent_hold_nothing(server: RunningServer) -> None:
    request = head(None).replace(b"POST", b"GET")
    for _ in range(300):
        assert status(server.say(request)) == 405


def test_one_bad_request_after_another_is_answered_on_one_connection(
    server: RunningServer,
) -> None:
    with httpx.Client(trust_env=False, timeout=TIMEOUT) as client:
        for _ in range(200):
            answer = client.post(f"{server.url}/mcp", content=b"{}", headers={"Host": "localhost"})
            assert answer.status_code in (400, 401)


# In process


@pytest.mark.anyio
async def test_a_body_is_read_for_its_time_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_TIMEOUT", 0.05)
    request = Request({"type": "http", "method": "POST", "headers": []})
    with pytest.raises(Refusal, match="has not come") as refused:
        await http.read_body(request, anyio.sleep_forever)  # pyright: ignore[reportArgumentType]  # it gives nothing
    assert refused.value.status == 408


@pytest.mark.parametrize(
    ("body", "repaired"),
    [
        (b'{"a":"\\ud83d"}', '{"a": "\ufffd"}'),
        (b'{"a":"\\uD83D\\uDE00"}', '{"a": "\U0001f600"}'),
        (b'{"a":"\\\\ud83d"}', '{"a": "\\\\ud83d"}'),
        (b'{"\\ude00":1', None),
        (b'{"a":"caf\\u00e9"}', None),
    ],
)
def test_half_a_surrogate_pair_alone_is_changed(body: bytes, repaired: str | None) -> None:
    assert http.repair(body) == (body if repaired is None else repaired.encode())
