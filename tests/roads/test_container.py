"""The container: built from the Dockerfile, run by no one special on a read-only root."""

from __future__ import annotations

import socket
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import write_documents
from arta_mcp import __version__
from harness.clients import ROOT, Need
from harness.container import Image, built_image
from harness.installed import Machine
from harness.roads import draw_through, run


@pytest.fixture(scope="module")
def image(checkout: Path, need: Need) -> Iterator[Image]:
    with built_image(checkout, need) as image:
        yield image


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine.new(tmp_path)


def test_a_host_draws_in_a_container(image: Image, machine: Machine) -> None:
    program = image.launcher(machine.folder / "container", machine.state)
    draw_through(Machine(machine.folder, program=program))


def test_a_container_writes_nowhere_but_into_its_state(image: Image, machine: Machine) -> None:
    launcher = image.launcher(machine.folder / "shell", machine.state, "sh", "-c")
    assert run(launcher, "id -u") == "10001\n"
    tried = "for f in / /opt/arta-mcp /data /usr; do touch $f/x 2>/dev/null && echo $f; done; true"
    assert run(launcher, tried) == ""
    assert run(launcher, f"touch {machine.state}/x && echo written") == "written\n"


def test_a_wrong_setting_of_a_container_is_in_its_log(image: Image, machine: Machine) -> None:
    program = image.launcher(machine.folder / "container", machine.state, ARTA_BACKEND="arta")
    ended = Machine(machine.folder, program=program).run()
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "error: ARTA_BACKEND is 'arta' but ARTA_API_KEY is not set\nhint:"
    )


def test_the_image_says_what_it_is(image: Image) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["io.modelcontextprotocol.server.name"] == write_documents.NAME
    assert labels["org.opencontainers.image.source"] == project["urls"]["Source"]
    assert image.config["User"] == "10001:10001"
    assert image.config["Entrypoint"] == ["arta-mcp"]
    assert not (image.root / "opt" / "arta-mcp" / "bin" / "pip").exists()


def test_the_health_check_asks_a_server_on_http_and_leaves_one_on_stdio_alone(
    image: Image, machine: Machine
) -> None:
    command = image.config["Healthcheck"]["Test"]
    assert command[0] == "CMD"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The shell is the first process of the container, as the server would be.
    shell = image.launcher(
        machine.folder / "shell",
        machine.state,
        "sh",
        "-c",
        ARTA_HTTP_HOST="0.0.0.0",
        ARTA_HTTP_PORT=str(port),
        ARTA_HTTP_TOKENS="alice=a-token-of-24-characters-00",
        ARTA_HTTP_PUBLIC_URL="https://mcp.example.com",
    )
    check = " ".join(command[1:])
    assert run(shell, f"{check}; echo $?", "stdio") == "0\n"
    nobody = subprocess.run(
        [shell, f"{check}; echo $?", "--http"], capture_output=True, text=True, timeout=60
    )
    assert nobody.stdout == "1\n"
    assert f"http://127.0.0.1:{port}/healthz" in nobody.stderr
    until_up = f"for i in $(seq 100); do {check} && echo healthy && break; sleep 0.1; done"
    served = run(shell, f"arta-mcp serve --http & {until_up}; kill $!; wait $!", "--http")
    assert "healthy\n" in served
