"""The bundle for Claude Desktop: packed by the official tool, and started as a host does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import build_bundle
from arta_mcp import __version__
from arta_mcp.config import SETTINGS
from harness.clients import ROOT, Need, node
from harness.installed import Machine
from harness.roads import BIN, TOOLS, draw_through, run, uv_environ, write_launcher

LIBRARY = build_bundle.NPM_FOLDER / "node_modules" / "@anthropic-ai" / "mcpb" / "dist" / "index.js"


@pytest.fixture(scope="module")
def bundle(wheel: Path, need: Need, tmp_path_factory: pytest.TempPathFactory) -> Path:
    node(need)
    folder = tmp_path_factory.mktemp("bundle")
    told = run(sys.executable, ROOT / "tools" / "build_bundle.py", wheel, folder)
    assert "Manifest schema validation passes!" in told
    return folder / f"arta-mcp-{__version__}.mcpb"


@pytest.fixture
def unpacked(bundle: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "extensions" / "arta-mcp"
    run(build_bundle.install_mcpb(), "unpack", bundle, folder)
    return folder


def start(unpacked: Path, need: Need, machine: Machine, **chosen: str) -> Machine:
    """The machine with what a host starts for these settings of the person."""
    host = Path(__file__).with_name("mcpb_host.mjs")
    config = json.loads(run(node(need), host, LIBRARY, unpacked, json.dumps(chosen)))
    assert config["command"] == "uv"  # hosts bring their own, or take it from PATH
    program = write_launcher(machine.folder / "host", BIN / "uv", *config["args"])
    settings = uv_environ(machine.home) | {"UV_PYTHON": sys.executable}
    run(program, "--version", environ=settings)  # the first start installs
    return Machine(machine.folder, {**settings, **config["env"]}, program=program)


def test_a_host_draws_with_a_bundle_of_which_nothing_was_filled_in(
    unpacked: Path, need: Need, tmp_path: Path
) -> None:
    machine = start(unpacked, need, Machine.new(tmp_path / "machine"))
    assert machine.settings["ARTA_API_KEY"] == ""  # and not a literal `${user_config.api_key}`
    draw_through(machine)
    # Hosts that start the entry point themselves get the same server.
    command = (BIN / "uv", "run", "--quiet", "--directory", unpacked, "server.py", "--version")
    assert run(*command, environ=machine.settings) == f"arta-mcp {__version__}\n"


def test_a_wrong_setting_of_a_bundle_is_in_the_log_of_the_host(
    unpacked: Path, need: Need, tmp_path: Path
) -> None:
    machine = start(unpacked, need, Machine.new(tmp_path / "machine"), local_engine="openai")
    ended = machine.run()
    assert ended.stderr.splitlines()[0].startswith("error: ARTA_LOCAL_ENGINE is 'openai' and")
    assert ended.stderr.splitlines()[1].startswith("hint: set ARTA_LOCAL_URL")


def test_the_manifest_asks_for_nothing_that_the_code_does_not_know(unpacked: Path) -> None:
    manifest: dict[str, Any] = json.loads((unpacked / "manifest.json").read_text(encoding="utf-8"))
    asked = manifest["user_config"]
    secret = {f"{setting.field}" for setting in SETTINGS if setting.secret}
    assert {name for name, option in asked.items() if option["sensitive"]} == secret & set(asked)
    assert {"api_key", "local_key"} <= set(asked)
    assert all(not option["required"] and "default" in option for option in asked.values())
    assert [tool["name"] for tool in manifest["tools"]] == TOOLS
    assert manifest["version"] == __version__
    assert not [word for word in manifest["server"]["mcp_config"]["args"] if word.endswith(".py")]
