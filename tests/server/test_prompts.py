"""Prompts: what a person picks in their host, and what a host is told that asks wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mcp
import pytest
from mcp import Client, MCPError

from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.server.build import build_server
from harness.world import World, new_world

pytestmark = pytest.mark.anyio

BOTH_ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


def client(world: World, mode: Any) -> Client:
    return Client(build_server(world.generations()), mode=mode)


@BOTH_ERAS
@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("drow", {"idea": "x"}, ("no prompt is called 'drow'", "did you mean draw?")),
        ("draw", None, ("idea is missing or empty; it is what you have in mind",)),
        ("draw", {"idea": "  "}, ("idea is missing or empty",)),
        (
            "draw",
            {"ideas": "x", "ratio": "1:1"},
            (
                "no argument is called 'ideas'; there are idea, model, aspect_ratio",
                "no argument is called 'ratio'",
                "idea is missing or empty",
                "did you mean idea?",
                "did you mean aspect_ratio?",
            ),
        ),
        ("vary", {}, ("record_id is missing", "change is missing")),
        ("vary", {"record_id": "nope", "change": "x"}, ("has the record id 'nope'",)),
        ("vary", {"record_id": "../..", "change": "x"}, ("has the record id '../..'",)),
    ],
)
async def test_what_is_wrong_with_a_request_for_a_prompt_is_an_invalid_parameter(
    world: World,
    mode: str,
    name: str,
    arguments: dict[str, str] | None,
    told: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with client(world, mode) as asked:
        with pytest.raises(MCPError) as caught:
            await asked.get_prompt(name, arguments)
    assert caught.value.error.code == mcp.types.INVALID_PARAMS
    for words in told:
        assert words in caught.value.error.message
    assert "Traceback" not in caplog.text


@BOTH_ERAS
async def test_a_generation_that_failed_cannot_be_varied(world: World, mode: str) -> None:
    world.service.faults.add(Fault.parse("error-code@status=NSFW"))
    async with client(world, mode) as asked:
        await asked.call_tool("generate_image", {"prompt": "x"})
        with pytest.raises(MCPError) as caught:
            await asked.get_prompt("vary", {"record_id": world.service.jobs[0], "change": "blue"})
    assert caught.value.error.code == mcp.types.INVALID_PARAMS
    assert "NSFW" in caught.value.error.message


@BOTH_ERAS
async def test_a_service_that_does_not_answer_is_no_fault_of_the_parameters(
    world: World, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.service.faults.add(Fault.parse("500@status*always"))
    async with client(world, mode) as asked:
        with pytest.raises(MCPError) as caught:
            await asked.get_prompt("vary", {"record_id": "a" * 32, "change": "blue"})
    assert caught.value.error.code == mcp.types.INTERNAL_ERROR
    assert "500" in caught.value.error.message
    assert "Traceback" not in caplog.text


@BOTH_ERAS
async def test_a_prompt_holds_what_the_person_wrote(world: World, mode: str) -> None:
    async with client(world, mode) as asked:
        names = [prompt.name for prompt in (await asked.list_prompts()).prompts]
        drawn = await asked.get_prompt("draw", {"idea": "a red fox", "model": ""})
        await asked.call_tool("generate_image", {"prompt": "x"})
        record_id = world.service.jobs[0]
        varied = await asked.get_prompt("vary", {"record_id": record_id, "change": "a blue one"})
    texts = [
        message.content.text
        for result in (drawn, varied)
        for message in result.messages
        if isinstance(message.content, mcp.types.TextContent)
    ]
    assert names == ["draw", "vary"]
    assert "a red fox" in texts[0]
    assert "list_models" in texts[0]
    assert record_id in texts[1]
    assert "a blue one" in texts[1]
