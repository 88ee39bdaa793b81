"""Every place that shows a picture says what drew it: an engine and its model, or a sketch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from mcp.types import TextContent, TextResourceContents
from PIL import Image

from harness.image_server import ImageServer
from harness.installed import Machine, connect, text_of
from harness.shell import Shell

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> Iterator[ImageServer]:
    made = ImageServer(models=[{"id": "flux-schnell"}])
    with made.running():
        yield made


@pytest.fixture
def shell(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    return Shell.on(machine, monkeypatch, capsys)


SAYS = {
    "openai": ("flux-schnell", "drawn by flux-schnell through openai"),
    "sdapi": ("turbo-v1", "drawn by turbo-v1 through sdapi"),
    "sketch": ("arta-mcp sketch", "a sketch by the embedded service, not by an AI model"),
}


def settings(engine: str, server: ImageServer) -> dict[str, str]:
    return {"ARTA_LOCAL_ENGINE": engine, "ARTA_LOCAL_URL": server.url}


def check(engine: str, said: str) -> None:
    """The sketch is called no AI picture, and no AI picture a sketch."""
    if engine == "sketch":
        plain = said.replace("not by an AI model", "").replace("not made by an AI model", "")
        assert " AI " not in plain.replace("not AI pictures", "")
    else:
        assert "sketch" not in said


@pytest.mark.parametrize("engine", SAYS)
def test_at_the_command_line_and_in_the_file(
    shell: Shell, server: ImageServer, engine: str
) -> None:
    model, notice = SAYS[engine]
    for name, value in settings(engine, server).items():
        shell.set(**{name: value})
    drawn = shell("generate", "a red fox", "--negative-prompt", "fog", "--seed", "5")
    assert drawn.code == 0, drawn.err
    assert f"note: {notice}" in drawn.err
    [path] = shell.machine.elsewhere.iterdir()
    table, row = shell("history"), shell("history", "--json").json
    assert f"\t{model}\ta red fox" in table.out
    assert (row["engine"], row["engine_model"]) == (engine, model)
    assert notice in str(row["notice"])
    with Image.open(path) as picture:
        texts = {str(name): str(value) for name, value in picture.info.items()}
    assert "arta-mcp" in texts["Software"]
    if engine == "sketch":
        assert "parameters" not in texts
    else:
        assert (texts["engine"], texts["model"]) == (engine, model)
        first, *more = texts["parameters"].splitlines()
        assert first == "a red fox"
        has_seed = engine == "sdapi"
        assert ("Negative prompt: fog" in more) is has_seed
        assert ("Seed: 5" in more[-1]) is has_seed
        assert f"Model: {model}" in more[-1]
    not_honoured = "not passed on, as the engine takes none: negative_prompt, seed"
    assert drawn.err.count(not_honoured) == (1 if engine == "openai" else 0)
    check(engine, drawn.err + table.out + json.dumps(row["notice"]) + str(texts))


@pytest.mark.parametrize("engine", SAYS)
async def test_in_what_a_host_reads(machine: Machine, server: ImageServer, engine: str) -> None:
    model, notice = SAYS[engine]
    async with connect(machine.set(**settings(engine, server))) as client:
        drawn = await client.call_tool("generate_image", {"prompt": "a red fox"})
        content: dict[str, Any] = drawn.structured_content or {}
        again = await client.call_tool("get_generation", {})
        models = await client.call_tool("list_models", {"search": "watercolor"})
        read = await client.read_resource(f"arta://generations/{content['record_id']}")
        instructions = client.instructions or ""
    [resource] = read.contents
    assert isinstance(resource, TextResourceContents)
    told: list[dict[str, Any]] = [content, again.structured_content or {}]
    for one in (*told, json.loads(resource.text)):
        assert (one["engine"], one["engine_model"]) == (engine, model)
        assert notice in one["notice"]
    for result in (drawn, again):
        assert f"Note: {notice}" in text_of(result)
    [listed] = models.content
    assert isinstance(listed, TextContent)
    said = instructions + text_of(drawn) + text_of(again) + listed.text + str(content["notice"])
    check(engine, said)
