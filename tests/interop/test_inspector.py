"""The Inspector's command line lists and calls everything that we offer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.aquiles import KEY, PROGRAM, running_aquiles
from harness.clients import Need, node, node_folder
from harness.image_server import ImageServer
from harness.installed import TIMEOUT, Machine

LISTS = {
    "tools/list": ("tools", ["generate_image", "get_generation", "list_models"]),
    "resources/list": ("resources", ["models", "latest", "gallery"]),
    "resources/templates/list": ("resourceTemplates", ["generation", "image"]),
    "prompts/list": ("prompts", ["draw", "vary"]),
}


class Inspector:
    """One machine of ours, asked by the Inspector: a new process for every question."""

    def __init__(self, need: Need, machine: Machine) -> None:
        self._machine = machine
        program = node_folder(need) / "node_modules" / ".bin" / "mcp-inspector"
        # It hands on nothing of its own environment but what every program needs.
        given = [word for one in machine.settings.items() for word in ("-e", "=".join(one))]
        self._command = [node(need), str(program), "--cli", *given, str(machine.program)]

    def ask(self, method: str, *arguments: str, code: int = 0) -> Any:
        command = [*self._command, "--method", method, *arguments, "--format", "json"]
        done = subprocess.run(
            command,
            env=self._machine.environ,
            cwd=self._machine.elsewhere,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)["result"] if done.stdout.strip() else {}


@pytest.fixture
def inspector(need: Need, tmp_path: Path) -> Inspector:
    return Inspector(need, Machine.new(tmp_path))


@pytest.mark.parametrize("method", LISTS)
def test_it_lists_everything(inspector: Inspector, method: str) -> None:
    kind, names = LISTS[method]
    assert [entry["name"] for entry in inspector.ask(method)[kind]] == names


def test_it_calls_every_tool_and_reads_what_came_of_it(inspector: Inspector) -> None:
    def call(tool: str, **arguments: object) -> Any:
        given = json.dumps(arguments)
        words = ("--tool-name", tool, "--tool-args-json", given)
        return inspector.ask("tools/call", *words)["structuredContent"]

    drawn = call("generate_image", prompt="a red fox", n=2)
    again = call("get_generation", record_id=drawn["record_id"], max_wait=30)
    models = call("list_models", search="van gogh")
    uri = f"arta://generations/{drawn['record_id']}/images/1"
    picture = inspector.ask("resources/read", "--uri", uri)["contents"][0]
    prompt = inspector.ask(
        "prompts/get", "--prompt-name", "draw", "--prompt-args", "idea=a lighthouse"
    )
    assert (drawn["status"], len(drawn["images"])) == ("done", 2)
    assert (again["record_id"], again["seed"]) == (drawn["record_id"], drawn["seed"])
    assert [model["id"] for model in models["models"]] == ["vincent-van-gogh"]
    assert picture["mimeType"] == "image/webp"
    assert "a lighthouse" in prompt["messages"][0]["content"]["text"]


@pytest.mark.parametrize(("engine", "model"), [("openai", "flux-schnell"), ("sdapi", "turbo-v1")])
def test_it_draws_with_an_engine_of_the_persons_own(
    need: Need, tmp_path: Path, engine: str, model: str
) -> None:
    server = ImageServer(models=[{"id": "flux-schnell"}])
    with server.running() as url:
        machine = Machine.new(tmp_path).set(ARTA_LOCAL_ENGINE=engine, ARTA_LOCAL_URL=url)
        given = json.dumps({"prompt": "a red fox", "n": 2, "aspect_ratio": "3:2"})
        words = ("--tool-name", "generate_image", "--tool-args-json", given)
        drawn = Inspector(need, machine).ask("tools/call", *words)["structuredContent"]
    assert (drawn["status"], drawn["engine"], drawn["engine_model"]) == ("done", engine, model)
    assert len(drawn["images"]) == len(server.bodies) == 2
    assert all(Path(image["path"]).is_file() for image in drawn["images"])
    assert "sketch" not in json.dumps(drawn)


def test_it_draws_with_a_picture_server_that_nobody_here_wrote(need: Need, tmp_path: Path) -> None:
    need(PROGRAM.exists(), "make test-engines makes the environment that this needs")
    with running_aquiles(tmp_path / "aquiles") as aquiles:
        machine = Machine.new(tmp_path).set(
            ARTA_LOCAL_ENGINE="openai", ARTA_LOCAL_URL=aquiles.url, ARTA_LOCAL_KEY=KEY
        )
        words = ("--tool-name", "generate_image", "--tool-args-json", '{"prompt": "a red fox"}')
        drawn = Inspector(need, machine).ask("tools/call", *words)["structuredContent"]
    assert (drawn["status"], drawn["engine"]) == ("done", "openai")
    assert all(Path(image["path"]).is_file() for image in drawn["images"])


def test_a_wrong_argument_is_an_error_of_the_tool(inspector: Inspector) -> None:
    words = ("--tool-name", "generate_image", "--tool-args-json", '{"prompt": "x", "n": 9}')
    inspector.ask("tools/call", *words, code=5)
