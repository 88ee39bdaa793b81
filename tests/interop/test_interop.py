"""Clients that are not ours: the TypeScript SDK's, and the one of the Python SDK's 1.x line."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from arta_mcp import __version__
from arta_mcp.local.faults.catalogue import Fault
from harness.clients import INTEROP, Need, node, node_folder, python_v1
from harness.installed import TIMEOUT, Machine, decode, remote_settings
from harness.service import ScriptedServer, ScriptedService
from harness.world import tiny_picture

DRAW = {
    "name": "generate_image",
    "arguments": {"prompt": "a red fox in snow", "n": 2, "aspect_ratio": "16:9"},
}
WRONG = {"name": "generate_image", "arguments": {"prompt": "a fox", "model": "fluxx"}}


def typescript(need: Need) -> list[str]:
    return [node(need), str(node_folder(need) / "client.mjs")]


def python(need: Need) -> list[str]:
    return [str(python_v1(need)), str(INTEROP / "client_v1.py")]


def asked(client: list[str], machine: Machine, calls: list[object], **options: object) -> Any:
    """What a client says of these calls to a new server on the machine."""
    task = {
        "command": str(machine.program),
        "env": machine.environ,
        "cwd": str(machine.elsewhere),
        "calls": calls,
        "options": options,
    }
    ended = subprocess.run(
        [*client, json.dumps(task)],
        env=machine.environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("client", [typescript, python])
def test_a_foreign_client_draws_two_pictures_that_open(
    client: Callable[[Need], list[str]], need: Need, tmp_path: Path
) -> None:
    told = asked(client(need), Machine.new(tmp_path), [DRAW, WRONG])
    drawn, wrong = told["results"]
    content = drawn["result"]["structuredContent"]
    sizes = [decode(base64.b64decode(picture["body"])).size for picture in told["pictures"]]
    seconds = [one["progress"] for one in drawn["heard"]]

    assert (told["server"]["name"], told["server"]["version"]) == ("arta-mcp", __version__)
    assert [t["name"] for t in told["tools"]] == ["generate_image", "get_generation", "list_models"]
    assert all(tool["outputSchema"]["type"] == "object" for tool in told["tools"])
    assert content["status"] == "done"
    assert [picture["status"] for picture in told["pictures"]] == [200, 200]
    assert sizes == [(1368, 768), (1368, 768)]
    assert all(image["url"] in drawn["result"]["content"][0]["text"] for image in content["images"])
    assert len(seconds) >= 2
    assert all(earlier < later for earlier, later in pairwise(seconds))
    assert wrong["result"]["isError"]
    assert "did you mean flux" in wrong["result"]["content"][0]["text"]


@pytest.mark.parametrize("client", [typescript, python])
def test_a_foreign_client_validates_every_kind_of_result(
    client: Callable[[Need], list[str]], need: Need, tmp_path: Path
) -> None:
    """An SDK's client fails the call when structured content does not fit the output schema."""
    faults = [Fault.parse("some-blurred@status"), Fault.parse("404@image")]
    service = ScriptedService(tmp_path / "fast", engine=tiny_picture)
    service.faults.add(*faults)
    with ScriptedServer(service) as fast:
        settings = {**remote_settings(fast), "ARTA_OUTPUT_DIR": str(tmp_path / "pictures")}
        machine = Machine.new(tmp_path / "machine").set(**settings)
        calls: list[object] = [
            DRAW,
            {"name": "get_generation", "arguments": {}},
            {"name": "list_models", "arguments": {"search": "flux"}},
        ]
        told = asked(client(need), machine, calls)
    slow = ScriptedService(tmp_path / "slow", engine=tiny_picture, queue=3600)
    with ScriptedServer(slow) as running:
        settings = {**remote_settings(running), "ARTA_MAX_WAIT": "1"}
        machine = Machine.new(tmp_path / "another").set(**settings)
        calls = [DRAW, {"name": "get_generation", "arguments": {"max_wait": 0}}]
        told["results"] += asked(client(need), machine, calls)["results"]
    for one in told["results"]:
        assert not one["result"].get("isError"), one["result"]["content"]
    done, got, models, pending, looked = [
        one["result"]["structuredContent"] for one in told["results"]
    ]
    assert [image["blurred"] for image in done["images"]].count(True) == 1
    assert [image["path"] for image in done["images"]].count(None) == 1
    assert "could not be saved" in done["notice"]
    assert (got["record_id"], got["earlier"]) == (done["record_id"], [])
    assert models["total"] > 1
    assert (pending["status"], looked["status"]) == ("pending", "pending")
    assert "get_generation" in looked["next"]


def test_progress_keeps_a_host_waiting_beyond_its_time_limit(need: Need, tmp_path: Path) -> None:
    """The TypeScript SDK gives a call up after `timeout` unless progress resets its clock."""
    client = typescript(need)
    service = ScriptedService(tmp_path / "slow", engine=tiny_picture, queue=2, draw=3)
    with ScriptedServer(service) as slow:
        machine = Machine.new(tmp_path / "machine").set(**remote_settings(slow))
        told = asked(client, machine, [DRAW], timeout=3500, resetTimeoutOnProgress=True)
    (drawn,) = told["results"]
    assert drawn["result"]["structuredContent"]["status"] == "done"
    seconds = [one["progress"] for one in drawn["heard"]]
    assert seconds[-1] > 3.5
    assert all(later - earlier <= 3 for earlier, later in pairwise(seconds))
