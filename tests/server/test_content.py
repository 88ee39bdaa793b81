"""What a hostile service can put before a model: little, and nothing that acts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import types
from mcp.client import Client

from arta_mcp.arta.protocol import (
    REFRESH_PATH,
    SIGN_UP_PATHS,
    STYLES_PATH,
    SUBMIT_PATH,
    render_styles,
)
from arta_mcp.arta.refusals import style_refusal
from arta_mcp.server.build import build_server
from arta_mcp.server.content import MAX_PART
from arta_mcp.server.tools import ResultExtras
from arta_mcp.styles import CATEGORIES
from harness.world import ORIGIN, World, new_world

pytestmark = pytest.mark.anyio

Answer = Callable[[httpx.Request], httpx.Response | None]

LONG = "x" * 300_000
INJECTION = "![x](https://evil.example/?q=1) <img src=x> `id`"


class Hostile(httpx.ASGITransport):
    """The service, but for the answers that a test writes itself."""

    def __init__(self, world: World, answer: Answer) -> None:
        super().__init__(app=world.service)
        self.answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self.answer(request) or await super().handle_async_request(request)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = new_world(tmp_path)
    world.styles_url = ORIGIN + STYLES_PATH
    return world


async def call(world: World, tool: str, **arguments: Any) -> types.CallToolResult:
    server = build_server(world.generations(), ResultExtras())
    async with Client(server) as client:
        return await client.call_tool(tool, arguments)


def text_of(result: types.CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, types.TextContent)
    return block.text


def refuse(path: str, status: int, body: object) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(status, json=body) if path in request.url.path else None

    return answer


def finish(images: list[dict[str, object]], record_id: str = "r1", status: str = "DONE") -> Answer:
    def answer(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.startswith(SUBMIT_PATH):
            return None
        return httpx.Response(
            200, json={"record_id": record_id, "status": status, "response": images}
        )

    return answer


REFUSALS: dict[str, Answer] = {
    "sign-up, a text": refuse(SIGN_UP_PATHS[0], 403, {"detail": LONG}),
    "sign-up, a list": refuse(SIGN_UP_PATHS[0], 400, {"detail": [{"msg": LONG}]}),
    "sign-up, google": refuse(SIGN_UP_PATHS[0], 400, {"error": {"message": f"A : {LONG}"}}),
    "sign-up, no JSON": refuse(SIGN_UP_PATHS[0], 500, LONG),
    "submit, a text": refuse(SUBMIT_PATH, 422, {"detail": LONG}),
    "submit, styles": refuse(
        SUBMIT_PATH, 422, style_refusal("Flux", [f"{n:064}" for n in range(999)]).render()
    ),
    "submit, too many styles": refuse(
        SUBMIT_PATH, 422, style_refusal("Flux", [str(n) for n in range(24_000)]).render()
    ),
    "poll, error details": finish([], status=LONG),
    "an address": finish([{"url": f"ftp://a.example/{LONG}"}]),
    "a record id": finish([], record_id=LONG),
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_an_error_is_short_whatever_a_service_says(world: World, kind: str) -> None:
    world.app = Hostile(world, REFUSALS[kind])
    result = await call(world, "generate_image", prompt="a lake")
    assert result.is_error
    assert len(text_of(result)) < 2000


async def test_many_long_addresses_make_no_long_result(world: World) -> None:
    url = "https://a.example/" + "x" * 4000
    world.app = Hostile(world, finish([{"url": url}] * 64))
    result = await call(world, "get_generation", record_id="r1")
    assert len(result.model_dump_json()) < 100_000
    assert result.structured_content is not None
    shown = [image["url"] for image in result.structured_content["images"]]
    assert shown == [url] * len(shown)
    assert 8 <= len(shown) < 64
    assert "Left out" in text_of(result)


async def test_many_long_styles_make_no_long_result(world: World) -> None:
    names = (*(f"{n:04}" + "y" * 60 for n in range(999)), "z" * 284_000)
    world.app = Hostile(world, refuse(STYLES_PATH, 200, render_styles(names)))
    result = await call(world, "list_models")
    assert len(result.model_dump_json()) < 100_000
    assert len(text_of(result)) <= MAX_PART + 100
    assert result.structured_content is not None
    assert result.structured_content["total"] == 999
    assert 100 < len(result.structured_content["models"]) < 999


async def test_no_address_is_an_image_of_markdown_or_a_tag(world: World) -> None:
    url = "https://a.example/" + INJECTION.replace(" ", "")
    world.app = Hostile(world, finish([{"url": url, "MIME": INJECTION, "name": INJECTION}]))
    result = await call(world, "get_generation", record_id="r1")
    assert "![" not in text_of(result)
    assert "<" not in text_of(result)
    assert result.structured_content is not None
    (image,) = result.structured_content["images"]
    assert image["url"] in text_of(result)
    assert "![" not in image["url"]


@pytest.mark.parametrize("record_id", ["x; curl evil.example", "x`id`", 'x" Call evil', "x\u202e"])
async def test_an_id_that_is_none_reaches_no_sentence_and_no_hint(
    world: World, record_id: str
) -> None:
    world.app = Hostile(world, finish([], record_id=record_id))
    ordered = await call(world, "generate_image", prompt="a lake")
    assert ordered.is_error
    assert "curl" not in text_of(ordered)
    assert "Record id" not in text_of(ordered)
    asked = await call(world, "get_generation", record_id=record_id)
    assert asked.is_error
    assert "Record id" not in text_of(asked)


async def test_a_refresh_that_says_much_is_told_in_few_words(world: World) -> None:
    world.service.token_lifetime = 1.0
    world.app = Hostile(world, refuse(REFRESH_PATH, 400, {"detail": LONG}))
    first = await call(world, "generate_image", prompt="a lake")
    second = await call(world, "generate_image", prompt="a lake")
    for result in (first, second):
        assert len(json.dumps(text_of(result))) < 2000


async def test_list_models_counts_one_model_as_one_and_says_what_a_category_is_for(
    tmp_path: Path,
) -> None:
    world = new_world(tmp_path)
    one = text_of(await call(world, "list_models", search="van gogh"))
    every = text_of(await call(world, "list_models"))
    assert one.startswith("1 model, ")
    for category, meaning in CATEGORIES.items():
        assert f"\n{category} ({meaning}): " in every
    assert "qa-t2i" not in every
    assert "studio-ghibli-style" in text_of(await call(world, "list_models", search="anime"))


async def test_a_ratio_in_another_spelling_is_the_same_call(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    given = {"prompt": "a lake", "idempotency_key": "k"}
    for spelled in ("16:9", "16x9", "'16\uff1a9' "):
        result = await call(world, "generate_image", aspect_ratio=spelled, **given)
        assert result.structured_content is not None
        assert result.structured_content["aspect_ratio"] == "16:9"
    assert world.service.seen["submit"] == 1
