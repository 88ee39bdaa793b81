"""Servers of ours that share a folder and an engine: one order, one drawing, whoever is killed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.image_server import ImageServer
from harness.installed import Machine
from harness.programs import call_tool, read_result, running, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[ImageServer]:
    made = ImageServer()
    with made.running():
        yield made


@pytest.fixture
def drawing(machine: Machine, server: ImageServer) -> Machine:
    return machine.set(
        ARTA_LOCAL_ENGINE="sdapi",
        ARTA_LOCAL_URL=server.url,
        ARTA_OUTPUT_DIR=str(machine.folder / "pictures"),
    )


def order(server: subprocess.Popen[str], **more: object) -> str:
    """The record id of a generation that the server goes on with."""
    arguments = {"prompt": "a red fox", "seed": 7, **more}
    call_tool(server, 1, "generate_image", **arguments)
    content = read_result(server, 1)["structuredContent"]
    assert content["status"] == "pending"
    return content["record_id"]


def test_two_servers_and_one_order_are_one_drawing(drawing: Machine, server: ImageServer) -> None:
    server.delay = 0.3
    machine = drawing.set(ARTA_MAX_WAIT="0")
    with running(machine) as first, running(machine) as second:
        record_id = order(first, n=3)
        there = wait_for(second, 1, record_id)
        here = wait_for(first, 2, record_id)
    assert len(there["images"]) == len(here["images"]) == 3
    assert sorted(int(str(body["seed"])) for body in server.bodies) == [7, 8, 9]


def test_what_a_killed_server_had_ordered_is_drawn_by_the_next(
    drawing: Machine, server: ImageServer
) -> None:
    server.delay = 0.5
    machine = drawing.set(ARTA_MAX_WAIT="0")
    with running(machine) as first:
        record_id = order(first, n=2)
        until = time.monotonic() + 30
        while len(server.bodies) < 2:  # the first is drawn, the second is being drawn
            assert time.monotonic() < until
            time.sleep(0.01)
        first.kill()
        first.wait()
    with running(machine) as second:
        done = wait_for(second, 1, record_id)
    assert [body["seed"] for body in server.bodies] == [7, 8, 8]
    assert all(Path(image["path"]).read_bytes()[:4] == b"\x89PNG" for image in done["images"])
