from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from arta_mcp.arta.protocol import (
    SIGN_UP_PATHS,
    STYLES_PATH,
    SUBMIT_PATH,
    Job,
    Tokens,
    status_path,
)
from arta_mcp.engines.base import ImageRequest
from arta_mcp.engines.sketch.drawing import SketchEngine
from arta_mcp.local.address import open_socket
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.local.loopback import LoopbackServer
from arta_mcp.local.service import Service
from harness.service import ScriptedServer, ScriptedService
from harness.service_calls import FORM, paint


def test_a_job_on_a_real_port_ends_with_pictures_that_open(tmp_path: Path) -> None:
    from PIL import Image

    service = Service(tmp_path, queue=0, draw=0)
    with LoopbackServer(service) as running, httpx.Client(base_url=running.base_url) as client:
        tokens = Tokens.parse(client.post(SIGN_UP_PATHS[0], params={"key": "k"}).content)
        client.headers["Authorization"] = tokens.id_token.reveal()
        job = Job.parse(client.post(SUBMIT_PATH, data={**FORM, "aspect_ratio": "16:9"}).content)
        done = job
        while done.is_waiting:
            done = Job.parse(client.get(status_path(job.record_id)).content)
        pictures = [httpx.get(image.url).content for image in done.images]
    sizes = [Image.open(io.BytesIO(picture)).size for picture in pictures]
    assert [running.base_url] * 2 == [image.url.partition("/images/")[0] for image in done.images]
    assert len(sizes) == 2
    assert all(width > height for width, height in sizes)


def test_without_faults_nothing_of_theirs_is_loaded(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import httpx
from arta_mcp.local.loopback import LoopbackServer
from arta_mcp.local.service import Service
with LoopbackServer(Service(Path(sys.argv[1]))) as running:
    status = httpx.get(running.base_url).status_code
loaded = {name.split(".")[2] for name in sys.modules if name.startswith("arta_mcp.local.")}
print(status, *loaded & {"service", "faults"})
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, check=True, text=True)
    assert run.stdout.split() == ["200", "service"]


def test_the_port_of_the_last_time_is_taken_again(tmp_path: Path) -> None:
    with LoopbackServer(Service(tmp_path)) as first:
        pass
    with LoopbackServer(Service(tmp_path)) as second:
        assert first.base_url == second.base_url
        with LoopbackServer(Service(tmp_path)) as third:
            assert second.base_url != third.base_url
            assert httpx.get(third.base_url).status_code == 200


def finish_job(base_url: str) -> str:
    """The address of the one picture of a new job."""
    with httpx.Client(base_url=base_url) as client:
        tokens = Tokens.parse(client.post(SIGN_UP_PATHS[0], params={"key": "k"}).content)
        client.headers["Authorization"] = tokens.id_token.reveal()
        job = Job.parse(client.post(SUBMIT_PATH, data={**FORM, "images_num": "1"}).content)
        while job.is_waiting:
            job = Job.parse(client.get(status_path(job.record_id)).content)
    return job.images[0].url


def test_an_address_opens_as_long_as_any_process_on_the_folder_lives(tmp_path: Path) -> None:
    def start() -> LoopbackServer:
        service = Service(tmp_path, engine=SketchEngine(paint), queue=0, draw=0)
        return LoopbackServer(service).__enter__()

    first, second = start(), start()
    url = finish_job(second.base_url)
    assert url.startswith(f"{first.base_url}/")
    assert httpx.get(url).status_code == 200
    first.close()
    deadline = time.monotonic() + 10
    while (found := open_or_none(url)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == 200
    second.close()
    assert open_or_none(url) is None
    third = start()
    assert open_or_none(url) == 200
    assert f"{third.base_url}/" == url.partition("images")[0]
    third.close()


def open_or_none(url: str) -> int | None:
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return None


def test_a_port_that_a_stranger_took_is_given_up(tmp_path: Path) -> None:
    with LoopbackServer(Service(tmp_path)) as first:
        port = int(first.base_url.rpartition(":")[2])
    service = Service(tmp_path, engine=SketchEngine(paint), queue=0, draw=0)
    with open_socket("127.0.0.1", port, listening=True), LoopbackServer(service) as second:
        assert second.base_url != first.base_url
        assert finish_job(second.base_url).startswith(f"{second.base_url}/")
    with LoopbackServer(Service(tmp_path)) as third:
        assert third.base_url == second.base_url


@pytest.mark.parametrize("remembered", ["", "port", "99999999", "-1", "\udc80"])
def test_a_damaged_port_file_means_any_free_port(tmp_path: Path, remembered: str) -> None:
    (tmp_path / "port").write_text(remembered, encoding="utf-8", errors="surrogateescape")
    with LoopbackServer(Service(tmp_path)) as running:
        assert httpx.get(running.base_url).status_code == 200


def test_a_port_that_is_asked_for_and_taken_is_an_error(tmp_path: Path) -> None:
    with LoopbackServer(Service(tmp_path)) as running:
        port = int(running.base_url.rpartition(":")[2])
        with (
            pytest.raises(OSError, match="in use"),
            LoopbackServer(Service(tmp_path), port=port),
        ):
            pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", "127.1", ""])
def test_it_listens_on_loopback_only(tmp_path: Path, host: str) -> None:
    server = LoopbackServer(Service(tmp_path), host=host)
    with pytest.raises(ValueError, match="loopback only"), server:
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "::1"])
def test_any_loopback_host_will_do(tmp_path: Path, host: str) -> None:
    with LoopbackServer(Service(tmp_path), host=host) as running:
        assert httpx.get(running.base_url).status_code == 200


def test_a_page_that_rebinds_its_name_to_loopback_is_turned_away(tmp_path: Path) -> None:
    with LoopbackServer(Service(tmp_path)) as running:
        for host in ("evil.example", "127.0.0.1.evil.example", ""):
            assert httpx.get(running.base_url, headers={"Host": host}).status_code == 421
        assert httpx.get(running.base_url, headers={"Host": "localhost:1"}).status_code == 200


def test_it_stops_at_once_whatever_is_still_going_on(tmp_path: Path) -> None:
    go = threading.Event()
    lost: list[Exception] = []

    def slow(request: ImageRequest) -> bytes:
        go.wait(30)
        return paint(request)

    def wait_for_styles() -> None:
        try:
            httpx.get(running.base_url + STYLES_PATH, timeout=30)
        except httpx.HTTPError as exc:
            lost.append(exc)

    service = ScriptedService(
        tmp_path, engine=slow, faults=[Fault("slow-headers", "styles", value="60")]
    )
    running = ScriptedServer(service).__enter__()
    with httpx.Client(base_url=running.base_url) as idle:
        tokens = Tokens.parse(idle.post(SIGN_UP_PATHS[0], params={"key": "k"}).content)
        headers = {"Authorization": tokens.id_token.reveal()}
        assert idle.post(SUBMIT_PATH, data=FORM, headers=headers).status_code == 200
        waiting = threading.Thread(target=wait_for_styles)
        waiting.start()
        while waiting.is_alive() and not service.seen["styles"]:
            pass
        begun = time.monotonic()
        running.close()
        assert time.monotonic() - begun < 2
    waiting.join(30)
    go.set()
    assert len(lost) == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.base_url)


def test_a_shut_door_refuses_connections_and_opens_at_the_same_port(tmp_path: Path) -> None:
    with (
        ScriptedServer(ScriptedService(tmp_path)) as running,
        httpx.Client(base_url=running.base_url) as client,
    ):
        assert client.get("/").status_code == 200
        with running.refused(), pytest.raises(httpx.TransportError):
            client.get("/")
        with running.refused(), pytest.raises(httpx.ConnectError):
            httpx.get(running.base_url)
        assert client.get("/").status_code == 200


@pytest.mark.parametrize(("sent", "expected"), [(signal.SIGINT, 0), (signal.SIGTERM, -15)])
def test_alone_it_serves_until_it_is_told_to_stop_and_prints_nothing(
    tmp_path: Path, sent: signal.Signals, expected: int
) -> None:
    script = (
        "import sys; from functools import partial; from pathlib import Path; "
        "from arta_mcp.local.loopback import run_forever; "
        "from arta_mcp.local.service import Service; "
        "run_forever(Service(Path(sys.argv[1])), on_ready=partial(print, flush=True))"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(url).status_code == 200
        process.send_signal(sent)
        rest = process.communicate(timeout=30)
    assert (("", ""), expected) == (rest, process.returncode)
