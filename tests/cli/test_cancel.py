"""`cancel`: a job on this machine is given up, whichever process draws it, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.image_server import ImageServer
from harness.installed import Machine, remote_settings
from harness.programs import call_tool, read_result, running
from harness.service import ScriptedServer
from harness.shell import Shell


@pytest.fixture
def server() -> Iterator[ImageServer]:
    made = ImageServer(models=[{"id": "flux-schnell"}])
    with made.running():
        yield made


@pytest.fixture
def shell(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """Without settings: the embedded service."""
    return Shell.on(machine, monkeypatch, capsys)


def own_engine(machine: Machine, server: ImageServer) -> dict[str, str]:
    return {
        "ARTA_LOCAL_ENGINE": "openai",
        "ARTA_LOCAL_URL": server.url,
        "ARTA_OUTPUT_DIR": str(machine.folder / "pictures"),
        "ARTA_MIN_POLL_INTERVAL": "0.1",
    }


def test_a_job_that_a_server_draws_is_cancelled_from_another_process(
    machine: Machine, shell: Shell, server: ImageServer
) -> None:
    server.delay = 1.5
    drawing = machine.set(**own_engine(machine, server), ARTA_MAX_WAIT="0")
    with running(drawing) as program:
        call_tool(program, 1, "generate_image", prompt="a fox", n=3)
        record_id = str(read_result(program, 1)["structuredContent"]["record_id"])
        until = time.monotonic() + 20
        while not server.bodies:
            assert time.monotonic() < until
            time.sleep(0.02)
        # In a shell that knows nothing of the engine: the folder is the meeting place.
        said = shell("cancel", record_id[:6])
        assert (said.code, said.out) == (0, ""), said.err
        assert "cancelled; 0 of 3 pictures drawn; the one under way is still drawn" in said.err
        assert f"`arta-mcp get {record_id}`" in said.err
        call_tool(program, 2, "get_generation", record_id=record_id, max_wait=0)
        read_result(program, 2)
        while not list((machine.state / "local" / "images").glob("*.png")):
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.5)
        call_tool(program, 3, "get_generation", record_id=record_id, max_wait=0)
        done = read_result(program, 3)["structuredContent"]
    assert (done["status"], len(done["images"]), len(server.bodies)) == ("done", 1, 1)
    assert "2 of 3 not drawn: a person has cancelled it" in done["notice"]
    ended = shell("cancel", record_id, "--json")
    assert ended.code == 1
    assert ended.json["record_id"] == record_id
    assert "the job has ended: a person has cancelled it" in ended.err


def test_a_job_that_waits_for_nobody_ends_at_once_and_history_says_so(
    machine: Machine, shell: Shell, server: ImageServer
) -> None:
    server.delay = 5
    for name, value in own_engine(machine, server).items():
        shell.set(**{name: value})
    pending = shell("generate", "a fox", "-n", "2", "--max-wait", "0", "--json", "--no-save")
    record_id = str(pending.json["record_id"])
    assert pending.code == 3
    asked = len(server.bodies)
    shell("history")  # draws nothing: what it began would be lost at its end
    assert len(server.bodies) == asked
    said = shell("cancel", record_id, "--json")
    assert (said.code, said.json) == (
        0,
        {"record_id": record_id, "drawn": 0, "n": 2, "is_drawing": False},
    )
    assert shell("history", "--json").json["status"] == "failed"
    again = shell("get", record_id)
    assert (again.code, len(server.bodies)) == (1, asked)
    assert "a person has cancelled it" in again.err


def test_what_cannot_be_cancelled_says_why(
    shell: Shell, service: ScriptedServer, tmp_path: Path
) -> None:
    unknown = shell("cancel", "zzzz")
    assert unknown.code == 1
    assert "no job on this machine has the record id 'zzzz'" in unknown.err
    assert (
        "`arta-mcp history` lists the known ones; the remote service takes no cancellation"
        in unknown.err
    )
    drawn = str(shell("generate", "a lake", "--json", "--no-save").json["record_id"])
    ended = shell("cancel", drawn)
    assert ended.code == 1
    assert "error: the job has ended, all of its pictures are drawn" in ended.err
    assert f"`arta-mcp get {drawn}`" in ended.err
    shell.set(**remote_settings(service))
    remote = str(shell("generate", "a lake", "--json", "--no-save").json["record_id"])
    refused = shell("cancel", remote)
    assert refused.code == 1
    assert "error: the remote service takes no cancellation: the job goes on there" in refused.err
    assert shell("get", remote, "--no-save").code == 0
