"""What an assistant sees: tools, results, errors and progress, in both protocol eras."""

from __future__ import annotations

import io
import json
import os
import random
import re
import sys
from base64 import b64decode
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import jsonschema
import mcp
import pytest
from mcp import Client, MCPError
from PIL import Image as Pillow

from arta_mcp import __version__
from arta_mcp.arta.protocol import RATIOS
from arta_mcp.engines.base import ImageRequest
from arta_mcp.errors import ArtaError
from arta_mcp.generations.values import Generation, GenerationRequest, Update
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.server.build import INSTRUCTIONS, build_server
from arta_mcp.server.tools import ResultExtras
from harness.errors import WORDS, every_error
from harness.world import LIMITS, World, new_world

pytestmark = pytest.mark.anyio

SNAPSHOT = Path(__file__).parents[1] / "tools.json"
BOTH_ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


def client(world: World, mode: Any = "auto", extras: ResultExtras = ResultExtras()) -> Client:  # noqa: B008  # frozen
    return Client(build_server(world.generations(), extras), mode=mode)


def text_of(result: mcp.types.CallToolResult) -> str:
    block = result.content[0]
    assert isinstance(block, mcp.types.TextContent)
    return block.text


def content_of(result: mcp.types.CallToolResult) -> dict[str, Any]:
    assert result.structured_content is not None, text_of(result)
    return result.structured_content


async def test_what_a_model_reads_is_the_reviewed_snapshot(world: World) -> None:
    async with client(world) as asked:
        tools = await asked.list_tools()
        prompts = await asked.list_prompts()
        resources = await asked.list_resources()
        templates = await asked.list_resource_templates()
    seen = {
        "instructions": dict(INSTRUCTIONS),
        "tools": dump(tools.tools),
        "prompts": dump(prompts.prompts),
        "resources": dump(resources.resources),
        "templates": dump(templates.resource_templates),
    }
    if os.environ.get("WRITE_SNAPSHOTS") == "1":
        text = json.dumps(seen, indent=1, ensure_ascii=False)
        SNAPSHOT.write_text(f"{text}\n", encoding="utf-8")
    hint = f"a changed description is fine when meant: WRITE_SNAPSHOTS=1 pytest {__file__}"
    assert seen == json.loads(SNAPSHOT.read_text(encoding="utf-8")), hint


def dump(models: list[Any]) -> list[dict[str, object]]:
    return [model.model_dump(mode="json", by_alias=True, exclude_none=True) for model in models]


@BOTH_ERAS
async def test_the_list_of_tools_stays_within_its_bytes(world: World, mode: str) -> None:
    async with client(world, mode) as asked:
        tools = (await asked.list_tools()).tools
    listed = json.dumps(dump(list(tools)), ensure_ascii=False, separators=(",", ":"))
    assert [tool.name for tool in tools] == ["generate_image", "get_generation", "list_models"]
    assert len(listed.encode()) <= 8000
    assert max(len(text.encode()) for text in INSTRUCTIONS.values()) <= 800


async def test_annotations_tell_what_costs_and_what_only_reads(world: World) -> None:
    async with client(world) as asked:
        hints = {tool.name: tool.annotations for tool in (await asked.list_tools()).tools}
    told = {
        name: (hint.read_only_hint, hint.destructive_hint, hint.idempotent_hint)
        for name, hint in hints.items()
        if hint is not None
    }
    assert told == {
        "generate_image": (False, False, False),
        "get_generation": (True, False, True),
        "list_models": (True, False, True),
    }


async def test_the_server_says_its_own_version_and_website(world: World) -> None:
    async with client(world, "legacy") as asked:
        info = asked.server_info
    assert info is not None
    assert (info.name, info.version) == ("arta-mcp", __version__)
    assert info.website_url
    assert info.icons


async def test_the_icon_that_travels_in_every_modern_result_is_a_short_uri(world: World) -> None:
    async with client(world) as asked:
        result = await asked.list_prompts()
    info: dict[str, Any] = (result.meta or {})["io.modelcontextprotocol/serverInfo"]
    (icon,) = info["icons"]
    # RFC 3986, 2: what a URI may hold, and no blank
    assert re.fullmatch(
        r"data:(?:[\w\-.~:/?\[\]@!$&'()*+,;=]|%[0-9a-f]{2})+", icon["src"], re.I | re.A
    )
    assert len(icon["src"]) <= 250
    assert unquote(icon["src"]).endswith("</svg>")


@BOTH_ERAS
async def test_a_picture_comes_as_text_and_as_structure_and_each_stands_alone(
    world: World, mode: str
) -> None:
    seen: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        assert total is None
        assert message
        seen.append(progress)

    async with client(world, mode) as asked:
        tool = (await asked.list_tools()).tools[0]
        result = await asked.call_tool(
            "generate_image",
            {"prompt": "a red fox in snow", "n": 2, "aspect_ratio": "16:9", "seed": 7},
            progress_callback=on_progress,
        )
    assert not result.is_error
    structured = result.structured_content
    assert structured is not None
    jsonschema.validate(structured, tool.output_schema or {})
    urls = [image["url"] for image in structured["images"]]
    lines = text_of(result).splitlines()
    assert lines[:2] == [f"1. {urls[0]}", f"2. {urls[1]}"]
    for fact in (structured["record_id"], "flux", "16:9", "seed 7"):
        assert fact in text_of(result)
    assert len(result.content) == 1
    assert seen == sorted(set(seen))
    assert len(seen) >= 2


async def test_the_arguments_are_those_of_a_request_and_a_result_repeats_them(
    world: World,
) -> None:
    async with client(world) as asked:
        tool = (await asked.list_tools()).tools[0]
    properties = tool.input_schema["properties"]
    assert list(properties) == list(GenerationRequest.model_fields)
    assert properties["aspect_ratio"]["enum"] == list(RATIOS)
    assert set(properties) - {"idempotency_key"} <= set((tool.output_schema or {})["properties"])


async def test_a_prompt_is_validated_once_on_its_way_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: Counter[str] = Counter()
    before_generate: list[dict[str, int]] = []
    generations = world.generations()
    generate = generations.generate

    def count(_: object, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in ("validate_python", "validate_json"):
            models[called.__self__.title] += 1

    async def counted(*arguments: Any, **more: Any) -> Generation:
        holds_prompt = {"generate_imageArguments", "GenerationRequest", "Submit"}
        before_generate.append({name: models[name] for name in models if name in holds_prompt})
        return await generate(*arguments, **more)

    monkeypatch.setattr(generations, "generate", counted)
    async with Client(build_server(generations)) as asked:
        sys.setprofile(count)
        try:
            await asked.call_tool("generate_image", {"prompt": "  a fox ", "seed": "7"})
        finally:
            sys.setprofile(None)
    # the SDK's own model only hands the request on
    assert before_generate == [{"generate_imageArguments": 1, "GenerationRequest": 1}]


async def test_a_default_that_is_spelled_out_makes_no_other_request(world: World) -> None:
    call: dict[str, object] = {"prompt": "a fox", "idempotency_key": "k", "seed": 7}
    async with client(world) as asked:
        first = await asked.call_tool("generate_image", call)
        second = await asked.call_tool("generate_image", {**call, "guidance_scale": 7, "n": 1})
    assert not second.is_error
    assert first.structured_content is not None
    assert second.structured_content is not None
    assert second.structured_content["record_id"] == first.structured_content["record_id"]


async def test_progress_rises_even_when_two_updates_fall_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    generations = world.generations()
    generate = generations.generate

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async def reporting(
        request: GenerationRequest, on_update: Callable[[Update], Awaitable[None]], **_: Any
    ) -> Generation:
        for waited in (1.0, 1.0, 1.0004, 0.2, 3.0):
            await on_update(Update("drawing", waited))
        return await generate(request)

    monkeypatch.setattr(generations, "generate", reporting)
    async with Client(build_server(generations)) as asked:
        await asked.call_tool("generate_image", {"prompt": "x"}, progress_callback=on_progress)
    assert [round(progress, 3) for progress in seen] == [1.0, 1.001, 1.002, 1.003, 3.0]


WRONG: list[tuple[dict[str, object], tuple[str, ...]]] = [
    ({"prompt": ""}, ("prompt", "''", "1..4000")),
    ({"prompt": "   "}, ("prompt", "1..4000")),
    ({"prompt": "x" * 4001}, ("prompt", "1..4000")),
    ({}, ("prompt",)),
    ({"prompt": "x", "n": 0}, ("n is 0", "1..8")),
    ({"prompt": "x", "n": 9}, ("n is 9", "1..8")),
    ({"prompt": "x", "n": "many"}, ("n is 'many'", "1..8")),
    ({"prompt": "x", "aspect_ratio": "5:7"}, ("aspect_ratio is '5:7'", "16:9")),
    ({"prompt": "x", "aspect_ratio": "5x4"}, ("aspect_ratio is '5x4'", "did you mean 4:3?")),
    ({"prompt": "x", "num_inference_steps": 51}, ("num_inference_steps is 51", "1..50")),
    ({"prompt": "x", "guidance_scale": 21}, ("guidance_scale is 21", "1..20")),
    ({"prompt": "x", "seed": -1}, ("seed is -1", "0..4294967295")),
    ({"prompt": "x", "idempotency_key": "k" * 129}, ("idempotency_key", "1..128")),
    ({"prompt": "x", "ratio": "1:1"}, ("ratio", "did you mean aspect_ratio?")),
    ({"prompt": "x", "model": "fluxx"}, ("'fluxx'", "flux")),
    ({"prompt": "x", "model": "SDXL 1.0"}, ("gone", "2026-01-27", "flux")),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG)
async def test_a_wrong_argument_is_named_with_its_value_and_what_is_allowed(
    world: World, arguments: dict[str, object], told: tuple[str, ...]
) -> None:
    async with client(world, "legacy") as asked:
        result = await asked.call_tool("generate_image", arguments)
    assert result.is_error
    for words in told:
        assert words in text_of(result)
    assert "pydantic" not in text_of(result)
    assert world.service.seen["submit"] == 0


async def test_an_unknown_record_id_is_a_tool_error(world: World) -> None:
    async with client(world) as asked:
        result = await asked.call_tool("get_generation", {"record_id": "nope"})
    assert result.is_error
    assert "no generation has the record id 'nope'" in text_of(result)


async def test_no_call_waits_longer_than_the_server_itself(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=3600)
    async with Client(build_server(world.generations(replace(LIMITS, max_wait=0.1)))) as asked:
        await asked.call_tool("generate_image", {"prompt": "x"})
        with anyio.fail_after(10):
            result = await asked.call_tool(
                "get_generation", {"record_id": world.service.jobs[0], "max_wait": 600}
            )
    assert result.structured_content is not None
    assert result.structured_content["status"] == "pending"


async def test_without_a_record_id_the_newest_generation_is_told_and_those_before_it(
    world: World,
) -> None:
    async with client(world) as asked:
        world.service.faults.add(Fault.parse("400@submit*6"))
        for _ in range(6):  # more than are told, and no job came of them
            assert (await asked.call_tool("generate_image", {"prompt": "x"})).is_error
        none_yet = await asked.call_tool("get_generation", {})
        drawn = [
            await asked.call_tool("generate_image", {"prompt": f"fox {number}", "n": 2})
            for number in range(7)
        ]
        jobs = [content_of(result)["record_id"] for result in drawn]
        newest = await asked.call_tool("get_generation", {"record_id": ""})
        named = await asked.call_tool("get_generation", {"record_id": jobs[2]})
        schema = (await asked.list_tools()).tools[1].output_schema
    assert none_yet.is_error
    assert "there is no generation yet. Hint: call generate_image" in text_of(none_yet)
    content = content_of(newest)
    jsonschema.validate(content, schema or {})
    assert (content["prompt"], content["n"], content["status"]) == ("fox 6", 2, "done")
    before = [(one["prompt"], one["record_id"], one["status"]) for one in content["earlier"]]
    assert before == [(f"fox {number}", jobs[number], "done") for number in (5, 4, 3, 2)]
    assert all(one["created_at"].endswith("+00:00") for one in content["earlier"])
    assert all(jobs[number] in text_of(newest) for number in (5, 4, 3, 2))
    assert (content_of(named)["prompt"], content_of(named)["earlier"]) == ("fox 2", [])


async def test_a_call_that_was_cut_is_found_without_its_record_id(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=0.5)
    async with client(world) as asked:
        with anyio.move_on_after(0.2):
            await asked.call_tool("generate_image", {"prompt": "a fox"})
        # without max_wait it waits as generate_image does
        found = await asked.call_tool("get_generation", {})
    assert (content_of(found)["prompt"], content_of(found)["status"]) == ("a fox", "done")


async def test_the_newest_generation_is_waited_for_while_it_has_no_record_id(
    tmp_path: Path,
) -> None:
    world = new_world(tmp_path, queue=0.6)
    generations = world.generations(replace(LIMITS, max_concurrency=1))
    async with Client(build_server(generations)) as asked, anyio.create_task_group() as group:
        for prompt in ("the first", "the second"):
            group.start_soon(asked.call_tool, "generate_image", {"prompt": prompt})
            await anyio.sleep(0.1)
        looked = await asked.call_tool("get_generation", {"max_wait": 0})
        found = await asked.call_tool("get_generation", {})
        assert looked.is_error
        assert "no record id yet. Hint: call get_generation again" in text_of(looked)
        assert (content_of(found)["prompt"], content_of(found)["status"]) == ("the second", "done")


async def test_a_newest_generation_without_a_record_id_is_waited_for_as_long_as_the_host_allows(
    tmp_path: Path,
) -> None:
    generations = new_world(tmp_path, draw=30).generations(replace(LIMITS, max_concurrency=1))
    server = build_server(generations)
    # the other era's client in this process sends no notifications
    async with Client(server, mode="legacy") as asked, anyio.create_task_group() as group:
        for prompt in ("has the only slot", "waits for it"):
            group.start_soon(asked.call_tool, "generate_image", {"prompt": prompt})
            await anyio.sleep(0.1)
        with pytest.raises(MCPError, match="timed out"):
            await asked.call_tool("generate_image", {"prompt": "x"}, read_timeout_seconds=1.5)
        with anyio.fail_after(5):  # not 20
            looked = await asked.call_tool("get_generation", {})
        assert "no record id yet" in text_of(looked)
        group.cancel_scope.cancel()


async def test_pending_says_in_both_parts_what_to_do_next(tmp_path: Path) -> None:
    world = new_world(tmp_path, queue=3600)
    async with Client(build_server(world.generations(replace(LIMITS, max_wait=0.1)))) as asked:
        pending = await asked.call_tool("generate_image", {"prompt": "x"})
    step = content_of(pending)["next"]
    assert f'call get_generation with record_id "{world.service.jobs[0]}"' in step
    assert "do not order it again" in step
    assert step in text_of(pending)


async def test_a_result_says_what_drew_it(world: World) -> None:
    async with client(world) as asked:
        result = await asked.call_tool("generate_image", {"prompt": "x"})
    told = [content_of(result)[name] for name in ("backend", "engine", "engine_model", "next")]
    assert told == ["arta", "arta", None, None]


def test_no_sentence_of_ours_points_a_model_at_a_resource() -> None:
    said = json.loads((SNAPSHOT.parent / "messages.json").read_text(encoding="utf-8"))
    assert "arta://" not in json.dumps(said)


async def test_a_failed_job_is_told_with_its_record_id(world: World) -> None:
    world.service.faults.add(Fault.parse("error-code@status=NSFW"))
    async with client(world) as asked:
        result = await asked.call_tool("generate_image", {"prompt": "x"})
    assert result.is_error
    assert "NSFW" in text_of(result)
    assert f"Record id: {world.service.jobs[0]}" in text_of(result)


async def test_every_error_of_ours_is_a_tool_error_in_its_own_words(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    generations = world.generations()
    raised: list[ArtaError] = []

    async def fail(*_: object, **__: object) -> Generation:
        raise raised[-1]

    for name in ("generate", "get", "catalogue"):
        monkeypatch.setattr(generations, name, fail)
    calls: dict[str, dict[str, object]] = {
        "generate_image": {"prompt": "x"},
        "get_generation": {"record_id": "r"},
        "list_models": {},
    }
    async with Client(build_server(generations)) as asked:
        for error in every_error():
            raised.append(error)
            for tool, arguments in calls.items():
                result = await asked.call_tool(tool, arguments)
                assert result.is_error
                assert text_of(result) == f"Error executing tool {tool}: {WORDS}", repr(error)
    assert len(raised) > 14
    assert "Traceback" not in caplog.text


async def test_a_bug_is_not_told_to_the_model(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    server = build_server(generations := world.generations())
    generations.catalogue = None  # pyright: ignore[reportAttributeAccessIssue]  # a bug, for once made by hand
    async with Client(server) as asked:
        result = await asked.call_tool("list_models", {})
    assert result.is_error
    assert text_of(result) == "Error executing tool list_models"
    assert "Traceback" in caplog.text


async def test_a_result_outside_its_schema_is_a_bug_and_not_a_wrong_argument(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    generations = world.generations()
    generate = generations.generate

    async def refused(*arguments: Any) -> Generation:
        return replace(await generate(*arguments), status="refused")

    monkeypatch.setattr(generations, "generate", refused)
    async with Client(build_server(generations)) as asked:
        result = await asked.call_tool("generate_image", {"prompt": "x"})
    assert result.is_error
    assert text_of(result) == "Error executing tool generate_image"
    assert "Traceback" in caplog.text


async def test_list_models_says_where_its_knowledge_comes_from(world: World) -> None:
    async with client(world) as asked:
        result = await asked.call_tool("list_models", {"search": "van gogh"})
    structured = result.structured_content
    assert structured is not None
    assert structured["models"] == [
        {"id": "vincent-van-gogh", "style": "Vincent Van Gogh", "category": "art"}
    ]
    assert (structured["source"], structured["default"]) == ("shipped", "flux")
    assert structured["as_of"] == "2026-05-30"
    assert "vincent-van-gogh" in text_of(result)


@BOTH_ERAS
async def test_links_and_previews_come_only_when_asked_for(world: World, mode: str) -> None:
    extras = ResultExtras(resource_links=True, previews="on")
    async with client(world, mode, extras) as asked:
        result = await asked.call_tool("generate_image", {"prompt": "x"})
        kinds = [block.type for block in result.content]
        assert kinds == ["text", "resource_link", "image"]
        link, image = result.content[1], result.content[2]
        assert isinstance(link, mcp.types.ResourceLink)
        assert isinstance(image, mcp.types.ImageContent)
        assert link.annotations is not None
        assert link.annotations.audience == ["user"]
        assert len(image.data) < 200_000
        read = await asked.read_resource(str(link.uri))
    assert read.contents[0].mime_type == "image/webp"


async def test_eight_previews_stay_under_the_smallest_limit_of_a_host(tmp_path: Path) -> None:
    world = new_world(tmp_path, engine=noise)
    async with client(world, extras=ResultExtras(previews="on")) as asked:
        result = await asked.call_tool("generate_image", {"prompt": "x", "n": 8})
    assert [block.type for block in result.content] == ["text", *["image"] * 8]
    images = [block for block in result.content if isinstance(block, mcp.types.ImageContent)]
    assert sum(len(b64decode(image.data)) for image in images) <= 700_000
    assert len(result.model_dump_json()) < 1024 * 1024


async def test_previews_cost_one_download_each_and_the_generation_is_not_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    generations = world.generations()
    monkeypatch.delattr(type(generations), "get")
    async with Client(build_server(generations, ResultExtras(previews="on"))) as asked:
        result = await asked.call_tool("generate_image", {"prompt": "x", "n": 3})
    assert [block.type for block in result.content] == ["text", *["image"] * 3]
    assert [event.endpoint for event in world.service.log][-3:] == ["image"] * 3
    assert world.service.seen["image"] == 3


@pytest.mark.parametrize("fault", ["404", "image-not-one", "image-bomb", "image-broken"])
async def test_a_preview_that_cannot_be_made_leaves_the_others(
    world: World, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    world.service.faults.add(Fault.parse(f"{fault}@image"))
    async with client(world, extras=ResultExtras(previews="on")) as asked:
        result = await asked.call_tool("generate_image", {"prompt": "x", "n": 3})
    assert not result.is_error
    assert [block.type for block in result.content] == ["text", "image", "image"]
    assert "no preview of" in caplog.text
    assert "Note: 1 of 3 previews could not be made." in text_of(result)


async def test_previews_that_are_not_ready_within_the_call_s_time_are_left_out_and_said(
    world: World,
) -> None:
    world.service.faults.add(Fault.parse("slow-headers@image+1=30"))
    generations = world.generations(replace(LIMITS, max_wait=1))
    async with Client(build_server(generations, ResultExtras(previews="on"))) as asked:
        with anyio.fail_after(8):  # 1 s, on a machine that does other things too
            result = await asked.call_tool("generate_image", {"prompt": "x", "n": 3})
            structured: dict[str, Any] = result.structured_content or {}
            record_id = structured["record_id"]
            again = await asked.call_tool("get_generation", {"record_id": record_id})
    assert (structured["status"], result.is_error) == ("done", False)
    assert [block.type for block in result.content] == ["text", "image", "image"]
    assert structured["notice"] == "1 of 3 previews were not ready in time"
    assert [block.type for block in again.content] == ["text", "image", "image", "image"]
    assert again.structured_content == {**structured, "notice": None, "earlier": []}


def noise(request: ImageRequest) -> bytes:
    """Grey noise: as a preview it takes about 100 kB, whose eightfold no result may hold."""
    pixels = bytes(96 + byte // 4 for byte in random.Random(request.index).randbytes(512 * 512 * 3))
    buffer = io.BytesIO()
    Pillow.frombytes("RGB", (512, 512), pixels).save(buffer, "PNG")
    return buffer.getvalue()


async def test_no_base64_stands_anywhere_by_default(world: World) -> None:
    async with client(world) as asked:
        result = await asked.call_tool("generate_image", {"prompt": "x", "n": 8})
    assert len(result.model_dump_json()) < 6000
