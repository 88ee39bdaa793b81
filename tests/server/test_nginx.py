"""Replicas behind a real nginx with the configuration that docs/team.md gives."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp
import pytest

from arta_mcp.local.faults.catalogue import Fault
from harness.http_server import RunningServer, http_server
from harness.installed import TIMEOUT, Era, Machine, content_of, remote_settings
from harness.nginx import NAME, Proxy, find_nginx, nginx
from harness.service import ScriptedServer, ScriptedService
from harness.world import tiny_picture

pytestmark = pytest.mark.anyio

TOKEN = "alice-token-0123456789"


@pytest.fixture
def service(tmp_path: Path) -> Generator[ScriptedServer]:
    made = ScriptedService(tmp_path / "service", engine=tiny_picture, queue=0.5, draw=4)
    with ScriptedServer(made) as running:
        yield running


@contextmanager
def replicas(
    tmp_path: Path, service: ScriptedServer, need: Callable[[bool, str], None], count: int
) -> Generator[tuple[Proxy, list[RunningServer]]]:
    """So many processes on one state, and nginx before them."""
    program = find_nginx(need)
    machine = Machine.new(tmp_path / "machine").set(
        **remote_settings(service),
        ARTA_HTTP_TOKENS=f"alice={TOKEN}",
        ARTA_HTTP_PUBLIC_URL=f"https://{NAME}",
    )
    with ExitStack() as stack:
        running = [stack.enter_context(http_server(machine)) for _ in range(count)]
        ports = [one.port for one in running]
        yield stack.enter_context(nginx(program, tmp_path / "nginx", ports)), running


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_progress_comes_through_as_it_is_sent(
    tmp_path: Path, service: ScriptedServer, need: Callable[[bool, str], None], era: Era
) -> None:
    came: list[tuple[float, float]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        came.append((anyio.current_time(), progress))

    with replicas(tmp_path, service, need, 1) as (proxy, _):
        async with proxy.client(era, TOKEN) as client:
            result = await client.call_tool(
                "generate_image", {"prompt": "a fox"}, progress_callback=on_progress
            )
    assert content_of(result)["status"] == "done"
    assert len(came) >= 3
    assert came[-1][0] - came[0][0] > 2  # not all at once with the answer


async def test_what_two_readers_could_read_in_two_ways_does_not_come_through(
    tmp_path: Path, service: ScriptedServer, need: Callable[[bool, str], None]
) -> None:
    with replicas(tmp_path, service, need, 1) as (proxy, (replica,)):
        for lines, status in (
            (("Content-Length: 5", "Transfer-Encoding: chunked"), b"400"),
            (("Content-Length: 5", "Content-Length: 6"), b"400"),
            (("Content-Length: 5", f"Host: {NAME}"), b"400"),
            (("Content-Length: 300000",), b"413"),
        ):
            head = "\r\n".join(("POST /mcp HTTP/1.1", f"Host: {NAME}", *lines, "", ""))
            with (
                socket.create_connection(("127.0.0.1", proxy.port), timeout=TIMEOUT) as plain,
                proxy.tls.wrap_socket(plain, server_hostname=NAME) as opened,
            ):
                opened.sendall(head.encode() + b"0\r\n\r\n")
                assert opened.recv(100).startswith(b"HTTP/1.1 " + status)
        async with proxy.http_client(TOKEN) as asked:
            for probe in ("readyz", "healthz"):
                assert (await asked.get(f"{proxy.url}/{probe}")).status_code == 404
        assert "Traceback" not in replica.log


async def test_a_replica_that_is_killed_or_ends_costs_no_second_picture(
    tmp_path: Path, service: ScriptedServer, need: Callable[[bool, str], None]
) -> None:
    answers: list[dict[str, Any]] = []
    broken: list[Exception] = []
    with replicas(tmp_path, service, need, 3) as (proxy, running):

        async def order(number: int) -> None:
            """Without a key: whoever sends it twice orders two."""
            try:
                async with proxy.client("auto", TOKEN) as client:
                    given = {"prompt": f"a fox, number {number}"}
                    answers.append(content_of(await client.call_tool("generate_image", given)))
            except (mcp.MCPError, ExceptionGroup) as exc:
                broken.append(exc)

        service.service.faults.add(Fault.parse("slow-headers@submit=1"))
        async with anyio.create_task_group() as group:
            for number in range(18):
                group.start_soon(order, number)
            with anyio.fail_after(TIMEOUT):
                while service.service.seen["submit"] < 12:
                    await anyio.sleep(0.01)
            running[0].process.kill()
            running[1].process.send_signal(signal.SIGTERM)
        prompts = [record_prompt(service, job) for job in service.service.jobs]
        assert len(prompts) == len(set(prompts))
        assert len(answers) + len(broken) == 18
        assert 0 < len(broken) <= 9  # of the killed one alone
        assert await anyio.to_thread.run_sync(running[1].process.wait, TIMEOUT) == 0
        async with proxy.client("legacy", TOKEN) as client:
            for answered in answers:
                given = {"record_id": answered["record_id"]}
                found = content_of(await client.call_tool("get_generation", given))
                assert found["status"] == "done"


def record_prompt(service: ScriptedServer, record_id: str) -> str:
    record = service.service.store.record(record_id)
    assert record is not None
    return record.submission.prompt
