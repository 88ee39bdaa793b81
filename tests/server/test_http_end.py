"""The last moments of the server on HTTP: who connects just then, and who takes no answer."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncGenerator

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from arta_mcp.server.http import CLOSE_TIMEOUT, UvicornServer
from harness.http_server import read_all
from harness.installed import TIMEOUT

pytestmark = pytest.mark.anyio

GET = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def answer(_: Request) -> Response:
    return PlainTextResponse("here")


async def answer_much(_: Request) -> Response:
    """More than a connection holds for a caller that does not read."""

    async def parts() -> AsyncGenerator[bytes]:
        for _ in range(64):
            yield bytes(2**20)

    return StreamingResponse(parts())


class EndingServer(UvicornServer):
    """One that somebody connects to as it ends, so many turns of its loop before."""

    def __init__(self, port: int, turns: int) -> None:
        super().__init__(Starlette(routes=[Route("/", answer), Route("/much", answer_much)]))
        self._port, self._turns = port, turns
        self.late: list[socket.socket] = []
        self.told_at = 0.0

    def connect(self, request: bytes = b"") -> socket.socket:
        opened = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT)
        opened.sendall(request)
        return opened

    async def on_tick(self, counter: int) -> bool:
        if not await super().on_tick(counter):
            return False
        self.told_at = time.monotonic()
        self.late += [self.connect(), self.connect(GET % b"/")]
        for _ in range(self._turns):
            await anyio.lowlevel.checkpoint()
        return True


def listen() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    return listening


@pytest.mark.parametrize("turns", range(6))
async def test_who_connects_as_the_server_ends_is_answered_or_refused_and_not_waited_for(
    turns: int, caplog: pytest.LogCaptureFixture
) -> None:
    with listen() as listening, anyio.fail_after(TIMEOUT):
        server = EndingServer(listening.getsockname()[1], turns)
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listening])
            while not server.started:
                await anyio.sleep(0.01)
            server.should_exit = True
        took = time.monotonic() - server.told_at
    idle, asked = [await anyio.to_thread.run_sync(read_all, one) for one in server.late]
    assert idle == b""
    assert asked.endswith(b"here") or asked == b""
    assert asked or turns < 2  # one that was accepted is answered
    assert took < CLOSE_TIMEOUT
    assert [one.getMessage() for one in caplog.records if one.levelname != "INFO"] == []
    for one in server.late:
        one.close()


async def test_a_caller_that_takes_no_answer_is_left_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with listen() as listening, anyio.fail_after(TIMEOUT):
        server = EndingServer(listening.getsockname()[1], 0)
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listening])
            while not server.started:
                await anyio.sleep(0.01)
            with server.connect(GET % b"/much") as deaf:
                while not server.server_state.tasks:
                    await anyio.sleep(0.01)
                assert (await anyio.to_thread.run_sync(deaf.recv, 100)).startswith(b"HTTP/1.1 200")
                server.should_exit = True
                began = time.monotonic()
                while not server.late or server.server_state.connections:
                    await anyio.sleep(0.01)
                assert CLOSE_TIMEOUT < time.monotonic() - began < CLOSE_TIMEOUT + 2
    assert [one.getMessage() for one in caplog.records if one.levelname != "INFO"] == []
    for one in server.late:
        one.close()
