"""Arguments as hosts send them, and schemas as their converters read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from mcp import Client

from arta_mcp.arta.protocol import RATIOS
from arta_mcp.server.arguments import ADDED_BY_HOSTS
from arta_mcp.server.build import build_server
from arta_mcp.untrusted_json import is_object
from harness.world import World, new_world
from server.test_tools import text_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


async def list_tools(world: World) -> dict[str, Any]:
    async with Client(build_server(world.generations())) as asked:
        return {tool.name: tool for tool in (await asked.list_tools()).tools}


async def call(world: World, *calls: Mapping[str, object]) -> list[Any]:
    """The results of `generate_image`, in one process."""
    async with Client(build_server(world.generations())) as asked:
        return [await asked.call_tool("generate_image", dict(arguments)) for arguments in calls]


def keywords(schema: object) -> Iterator[str]:
    """Every key at any depth, the names of arguments among them."""
    if is_object(schema):
        for key, value in schema.items():
            yield key
            yield from keywords(value)


async def test_an_input_schema_has_no_word_that_a_converter_trips_over(world: World) -> None:
    for tool in (await list_tools(world)).values():
        found = set(keywords(tool.input_schema))
        assert not {"anyOf", "oneOf", "$ref", "$defs", "additionalProperties", "title"} & found
        for name, field in tool.input_schema["properties"].items():
            assert list(field)[:2] == ["type", "description"], name
            assert isinstance(field["type"], str)
            is_optional = name not in tool.input_schema.get("required", [])
            assert field.get("nullable", False) is is_optional, name
            assert None not in field.values()


async def test_bounds_and_choices_stand_in_the_description_too(world: World) -> None:
    tools = await list_tools(world)
    for tool in tools.values():
        for field in tool.input_schema["properties"].values():
            for bound in ("minimum", "maximum", "maxLength"):
                assert bound not in field or str(field[bound]) in field["description"]
    ratio = tools["generate_image"].input_schema["properties"]["aspect_ratio"]
    assert ratio["enum"] == list(RATIOS)
    assert all(choice in ratio["description"] for choice in RATIOS)


async def test_what_means_not_given_fits_the_schema_where_it_is_a_text(world: World) -> None:
    for tool in (await list_tools(world)).values():
        for field in tool.input_schema["properties"].values():
            if field.get("nullable") and field["type"] == "string" and "enum" not in field:
                jsonschema.validate("", field)


OPTIONAL = (
    *("model", "negative_prompt", "n", "aspect_ratio", "guidance_scale"),
    *("num_inference_steps", "seed", "idempotency_key"),
)


@pytest.mark.parametrize("nothing", [None, ""])
async def test_an_optional_argument_that_is_null_or_empty_is_not_given(
    world: World, nothing: object
) -> None:
    left_out, filled = await call(
        world, {"prompt": "x"}, {"prompt": "x", **dict.fromkeys(OPTIONAL, nothing)}
    )
    assert not filled.is_error, text_of(filled)
    varying = dict.fromkeys(("record_id", "seed", "images", "elapsed"))
    assert left_out.structured_content | varying == filled.structured_content | varying
    # two pictures: no key was given
    assert world.service.seen["submit"] == 2


@pytest.mark.parametrize("nothing", [None, ""])
async def test_the_other_tools_take_nothing_as_not_given_too(world: World, nothing: object) -> None:
    async with Client(build_server(world.generations())) as asked:
        all_models = await asked.call_tool("list_models", {})
        listed = await asked.call_tool("list_models", {"search": nothing})
        done = await asked.call_tool("generate_image", {"prompt": "x"})
        content: dict[str, Any] = done.structured_content or {}
        look = {"record_id": content["record_id"], "max_wait": nothing}
        got = await asked.call_tool("get_generation", look)
    assert listed.structured_content == all_models.structured_content
    assert not got.is_error


async def test_numbers_may_come_as_text(world: World) -> None:
    (result,) = await call(world, {"prompt": "x", "n": "2", "seed": "7", "guidance_scale": "7.5"})
    content = result.structured_content
    assert (content["n"], content["seed"], content["guidance_scale"]) == (2, 7, 7.5)


@pytest.mark.parametrize("key", ["[1]", '{"a":1}', "null", '"null"', "true", "1", " ", "\\"])
async def test_a_text_that_looks_like_json_is_that_text(world: World, key: str) -> None:
    asked = {"prompt": key if key.strip() else "x", "idempotency_key": key}
    first, second = await call(world, asked, asked)
    assert not first.is_error, text_of(first)
    assert first.structured_content["prompt"] == asked["prompt"]
    assert first.structured_content["record_id"] == second.structured_content["record_id"]
    assert world.service.seen["submit"] == 1


async def test_names_that_hosts_add_are_dropped(world: World) -> None:
    (result,) = await call(world, {"prompt": "x", **{key: {"id": 1} for key in ADDED_BY_HOSTS}})
    assert not result.is_error, text_of(result)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {"prompt": "x", "ratio": "1:1", "stepps": 3, "n": 9, "seed": "much"},
            (
                "no argument is called 'ratio' or 'stepps'",
                "n is 9; allowed is a whole number in 1..8",
                "seed is 'much'; allowed is",
                "did you mean aspect_ratio by ratio, num_inference_steps by stepps?",
            ),
        ),
        ({"Prompt": "x"}, ("called 'Prompt'", "did you mean prompt?")),
        (
            {"input": {"prompt": "x", "n": 2}},
            ("called 'input'", "give prompt, n at the top, not inside input"),
        ),
        (
            {"prompt": "x", "n": 9, "model": "fluxx"},
            ("n is 9", "no model is called 'fluxx'", "did you mean flux"),
        ),
        (
            {"text": "a fox"},
            ("called 'text'", "prompt is missing", "give prompt"),
        ),
    ],
)
async def test_everything_wrong_with_a_call_is_told_at_once(
    world: World, arguments: dict[str, object], told: tuple[str, ...]
) -> None:
    (result,) = await call(world, arguments)
    assert result.is_error
    for words in told:
        assert words in text_of(result)
    assert ("prompt is missing" in text_of(result)) is ("prompt is missing" in told)


async def test_a_flood_of_strange_names_makes_a_short_sentence(world: World) -> None:
    (result,) = await call(world, {f"zz{number}" + "y" * 500: 1 for number in range(300)})
    assert result.is_error
    assert "or 292 more" in text_of(result)
    assert len(text_of(result)) < 1500
