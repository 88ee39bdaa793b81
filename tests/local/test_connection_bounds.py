"""What a bad neighbour on this machine can do to the embedded service's connections."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from arta_mcp import bounded_http as connections
from arta_mcp.arta.protocol import SIGN_UP_PATHS, SUBMIT_PATH
from arta_mcp.errors import SubmitUnknown, Unavailable
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.local.loopback import LoopbackServer
from arta_mcp.local.service import Service
from harness.processes import Site
from harness.world import new_world

HEAD = b"POST /api/v1/text2image HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n"

SERVICE_WITH_FEW_DESCRIPTORS = (
    "import resource, sys; from functools import partial; from pathlib import Path; "
    "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); "
    "from arta_mcp.local.loopback import run_forever; "
    "from arta_mcp.local.service import Service; "
    "run_forever(Service(Path(sys.argv[1]), queue=0, draw=0),"
    " on_ready=partial(print, flush=True))"
)


@contextmanager
def service_with_few_descriptors(folder: Path) -> Generator[str]:
    command = [sys.executable, "-c", SERVICE_WITH_FEW_DESCRIPTORS, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def connect(url: str) -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10)
    opened.settimeout(10)
    return opened


@pytest.mark.anyio
@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"\r\nhalf"], ids=["nothing", "head", "body"])
async def test_four_hundred_half_open_requests_do_not_hinder_a_picture(
    tmp_path: Path, sent: bytes
) -> None:
    with service_with_few_descriptors(tmp_path / "service") as url, ExitStack() as half_open:
        for _ in range(400):
            opened = half_open.enter_context(connect(url))
            opened.sendall(sent)
        async with Site(url, tmp_path / "state").generations() as generations:
            done = await generations.generate(GenerationRequest(prompt="a red fox"))
    assert done.status == "done"


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"\r\nhalf"], ids=["nothing", "head", "body"])
def test_a_request_that_does_not_come_in_time_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.2)
    with LoopbackServer(Service(tmp_path)) as running, connect(running.base_url) as opened:
        opened.sendall(sent)
        began = time.monotonic()
        assert opened.recv(1) == b""
        assert time.monotonic() - began < 5


def test_an_idle_connection_is_used_again_however_long_a_request_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT", 0.2)
    with LoopbackServer(Service(tmp_path)) as running, connect(running.base_url) as opened:
        for _ in range(2):
            opened.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}}"):
                answer += opened.recv(4096)
            time.sleep(0.4)


def test_an_answer_that_nobody_takes_is_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SEND_TIMEOUT", 0.2)
    service = Service(tmp_path)
    name = f"{'a' * 32}-0.png"
    (tmp_path / "images" / name).write_bytes(bytes(32 * 1024 * 1024))
    with LoopbackServer(service) as running, connect(running.base_url) as opened:
        opened.sendall(b"GET /images/%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % name.encode())
        time.sleep(2)
        received = 0
        with suppress(ConnectionResetError):
            while part := opened.recv(1 << 20):
                received += len(part)
    assert received < 32 * 1024 * 1024


def test_a_page_of_elsewhere_cannot_post_but_may_show_pictures(tmp_path: Path) -> None:
    service = Service(tmp_path)
    name = f"{'a' * 32}-0.png"
    (tmp_path / "images" / name).write_bytes(b"\x89PNG")
    with LoopbackServer(service) as running, httpx.Client(base_url=running.base_url) as client:

        def post(path: str, **headers: str) -> int:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            return client.post(path, params={"key": "k"}, headers=sent).status_code

        for path in (SIGN_UP_PATHS[0], SUBMIT_PATH):
            assert post(path, Origin="https://evil.example") == 403
            assert post(path, Origin="null") == 403
            assert post(path, Origin="http://127.0.0.1:1") == 403
            assert post(path, Sec_Fetch_Site="cross-site") == 403
        assert list(tmp_path.glob("accounts/*")) == []
        assert post(SIGN_UP_PATHS[0], Origin=running.base_url) == 200
        assert post(SIGN_UP_PATHS[0], Sec_Fetch_Site="same-origin") == 200
        assert post(SIGN_UP_PATHS[0]) == 200
        shown = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        assert client.get(f"/images/{name}", headers=shown).content == b"\x89PNG"


@pytest.mark.parametrize("host", ["[::1", "[", "127.0.0.1:x", "a@127.0.0.1", "127.0.0.1/a"])
def test_a_host_that_is_malformed_is_a_bad_request(tmp_path: Path, host: str) -> None:
    with LoopbackServer(Service(tmp_path)) as running:
        assert httpx.get(running.base_url, headers={"Host": host}).status_code == 400


@pytest.mark.anyio
async def test_a_job_that_cannot_be_written_down_is_told_as_not_ordered(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    async with world.generations() as generations:
        await generations.generate(GenerationRequest(prompt="the first"), max_wait=5)
        records = world.service.folder / "records"
        records.rename(tmp_path / "aside")
        records.touch()  # what is written into it fails, as on a full disk
        with pytest.raises(Unavailable, match="could not do it: Not a directory") as caught:
            await generations.generate(GenerationRequest(prompt="the second"), max_wait=1)
        assert not isinstance(caught.value, SubmitUnknown)


@pytest.mark.anyio
async def test_a_log_that_cannot_be_written_costs_no_answer(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    (world.service.folder / "service.log").mkdir()
    async with world.generations() as generations:
        done = await generations.generate(GenerationRequest(prompt="a fox"))
    assert done.status == "done"


def test_there_is_a_limit_to_connections_that_fits_the_descriptors() -> None:
    assert 1 <= connections.max_connections() <= connections.MAX_CONNECTIONS
