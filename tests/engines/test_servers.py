"""The engines that are a server of the person's own: `openai` in its dialects, and `sdapi`."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from starlette.responses import JSONResponse, Response

from arta_mcp.arta.protocol import RATIOS
from arta_mcp.arta.transport import Answer, Transport
from arta_mcp.engines import sdapi
from arta_mcp.engines.base import Engine, ImageRequest, fit_size
from arta_mcp.engines.http import Server, read_error
from arta_mcp.engines.openai_images import DIALECTS, OpenAIImages, write_body
from arta_mcp.engines.sdapi import SdApi
from arta_mcp.errors import (
    AnswerLost,
    ArtaError,
    EngineBusy,
    EngineCrashed,
    EngineError,
    EngineUnavailable,
    ModelNotFound,
    OutOfMemory,
    PromptRejected,
    RequestRefused,
)
from arta_mcp.redaction import Secret
from harness.image_server import ImageServer, picture

pytestmark = pytest.mark.anyio

KEY = "sk-sentinel-0123456789"
FOX = ImageRequest("a red fox", "fog", "Flux", "flux", 40, 2, "16:9", (1360, 768), 9, 3.5)
BARE = replace(FOX, negative_prompt="", num_inference_steps=None, guidance_scale=None)


def no_step(step: int, steps: int | None) -> None: ...


@asynccontextmanager
async def connected(server: ImageServer, timeout: float = 5.0) -> AsyncGenerator[Server]:
    app = httpx.ASGITransport(server.app, raise_app_exceptions=False)
    async with Transport(user_agent="t", direct=True, app=app) as http:
        yield Server("http://127.0.0.1:9", http, Secret(KEY), timeout)


async def draw(
    server: ImageServer, request: ImageRequest = FOX, *, dialect: str = "plain", model: str = "m"
) -> PngImageFile:
    async with connected(server) as to:
        image = await OpenAIImages(to, model=model, dialect=dialect).generate(request, no_step)
    return opened(image.data)


def opened(content: bytes) -> PngImageFile:
    image = Image.open(io.BytesIO(content))
    assert isinstance(image, PngImageFile)
    image.load()
    return image


# What is sent


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        ("openai", {"prompt": "a red fox\nAvoid: fog"}),
        ("plain", {"response_format": "b64_json"}),
        (
            "vllm-omni",
            {
                "response_format": "b64_json",
                "negative_prompt": "fog",
                "num_inference_steps": 9,
                "guidance_scale": 3.5,
                "seed": 42,
            },
        ),
        (
            "localai",
            {"response_format": "b64_json", "negative_prompt": "fog", "step": 9, "seed": 42},
        ),
        ("lemonade", {"response_format": "b64_json", "steps": 9, "cfg_scale": 3.5, "seed": 42}),
        (
            "sd-server",
            {
                "prompt": 'a red fox <sd_cpp_extra_args>{"negative_prompt": "fog",'
                ' "sample_params": {"sample_steps": 9, "guidance": {"txt_cfg": 3.5}},'
                ' "seed": 42}</sd_cpp_extra_args>'
            },
        ),
    ],
)
def test_each_dialect_gets_its_own_fields_and_no_other(
    dialect: str, fields: dict[str, object]
) -> None:
    common = {"prompt": "a red fox", "n": 1, "size": "1360x768", "model": "m"}
    assert write_body(FOX, DIALECTS[dialect], "m") == common | fields


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_the_caller_did_not_say_is_not_sent(dialect: str) -> None:
    sent = str(write_body(BARE, DIALECTS[dialect], None))
    for word in ("steps", "guidance", "cfg", "negative", "Avoid", "model"):
        assert word not in sent


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "words",
    [
        '<sd_cpp_extra_args>{"seed":1}</sd_cpp_extra_args> a fox',
        "<SD_cpp_Extra_args>{}</SD_cpp_Extra_args>",
        "<sd_cpp_<sd_cpp_extra_args>extra_args>{}</sd_cpp_extra_args>",
    ],
)
def test_no_prompt_opens_a_block_of_settings(dialect: str, words: str) -> None:
    body = write_body(replace(BARE, prompt=words, negative_prompt=words), DIALECTS[dialect], "m")
    count = str(body).lower().count("<sd_cpp_extra_args>")
    assert count == (1 if DIALECTS[dialect].has_block else 0)


@pytest.mark.parametrize(
    ("models", "dialect"),
    [
        ([{"id": "sd-cpp-local", "owned_by": "local"}], "sd-server"),
        ([{"id": "Qwen/Qwen-Image", "owned_by": "vllm"}], "vllm-omni"),
        ([{"id": "flux"}], "plain"),
        (None, "plain"),
    ],
)
async def test_the_list_of_models_tells_dialect_and_model_and_its_absence_is_no_fault(
    models: list[dict[str, object]] | None, dialect: str
) -> None:
    server = ImageServer(models=models)
    async with connected(server) as to:
        engine = OpenAIImages(to)
        await engine.generate(FOX, no_step)
        await engine.generate(FOX, no_step)
    expected = write_body(FOX, DIALECTS[dialect], str(models[0]["id"]) if models else None)
    assert server.bodies == [expected] * 2
    assert server.paths.count("/v1/models") == 1


async def test_an_address_works_with_and_without_its_version() -> None:
    for url in ("http://127.0.0.1:9", "http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1/"):
        server = ImageServer()
        async with connected(server) as to:
            engine = OpenAIImages(replace(to, url=url), model="m", dialect="plain")
            await engine.generate(FOX, no_step)
        assert server.paths == ["/v1/images/generations"]


def test_openai_itself_is_known_by_its_address_and_has_a_model() -> None:
    http = Transport(user_agent="t")
    about = OpenAIImages(Server("https://api.openai.com", http, Secret(KEY))).describe()
    assert (about.model, about.is_repeatable, about.honours) == ("gpt-image-2", False, frozenset())
    assert KEY not in repr(about)


# What comes back


@pytest.mark.parametrize("gives", ["b64_json", "url"])
async def test_the_picture_is_a_png_that_says_what_drew_it(gives: str) -> None:
    server = ImageServer(gives=gives)
    found = await draw(server, dialect="vllm-omni")
    assert found.size == (1360, 768)
    assert found.text["engine"] == "openai"
    assert found.text["parameters"] == (
        "a red fox\nNegative prompt: fog\n"
        "Steps: 9, CFG scale: 3.5, Seed: 42, Model: m, Size: 1360x768"
    )
    assert "sketch" not in str(found.text)
    assert set(server.keys) == {f"Bearer {KEY}"}


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
async def test_other_kinds_of_pictures_become_pngs(kind: str) -> None:
    content = base64.b64encode(picture("64x48", kind=kind)).decode()
    answer = JSONResponse({"data": [{"b64_json": f"data:image/x;base64,{content}", "url": None}]})
    assert (await draw(ImageServer(answer=lambda _: answer))).size == (64, 48)


async def test_what_was_not_passed_on_and_what_came_otherwise_is_told() -> None:
    entry = {
        "b64_json": base64.b64encode(picture("64x64")).decode(),
        "revised_prompt": "a photo of a fox",
    }
    server = ImageServer(answer=lambda _: JSONResponse({"data": [entry]}))
    async with connected(server) as to:
        image = await OpenAIImages(to, model="m", dialect="plain").generate(FOX, no_step)
    every = ("negative_prompt", "guidance_scale", "num_inference_steps", "seed")
    assert image.not_honoured == every
    assert "64 x 64 pixels in place of 1360 x 768" in image.note
    assert "a photo of a fox" in image.note


async def test_a_size_that_is_refused_is_replaced_once_by_the_nearest_that_the_server_has() -> None:
    listed = "Input should be '1024x1024', '1792x1024' or '1024x1792'"

    def answer(body: dict[str, object]) -> Response | None:
        if body["size"] in ("1024x1024", "1792x1024", "1024x1792"):
            return None
        detail = [{"loc": ["body", "size"], "msg": listed}]
        return JSONResponse({"detail": detail}, status_code=422)

    server = ImageServer(answer=answer)
    async with connected(server) as to:
        engine = OpenAIImages(to, model="m", dialect="plain")
        first = await engine.generate(FOX, no_step)
        await engine.generate(replace(FOX, size=(768, 1360)), no_step)
    assert opened(first.data).size == (1792, 1024)
    assert first.note == "the server drew 1792 x 1024 pixels in place of 1360 x 768"
    assert [body["size"] for body in server.bodies] == ["1360x768", "1792x1024", "1024x1792"]


OPENAI_ERROR = {"message": "no", "type": "t", "param": None, "code": None}


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "words"),
    [
        (400, {"error": {**OPENAI_ERROR, "code": "moderation_blocked"}}, {}, PromptRejected, "no"),
        (
            400,
            {"error": {**OPENAI_ERROR, "code": "content_policy_violation"}},
            {},
            PromptRejected,
            "no",
        ),
        (401, {"detail": "Missing key"}, {}, RequestRefused, "Missing key"),
        (403, {"detail": "Wrong key"}, {}, RequestRefused, "Wrong key"),
        (404, {"detail": "Not Found"}, {}, EngineUnavailable, "has no /v1/images/generations"),
        (404, {"error": {"message": "model 'm' not found"}}, {}, ModelNotFound, "model 'm'"),
        (400, {"error": "bad prompt"}, {}, RequestRefused, "bad prompt"),
        (
            422,
            {"detail": [{"loc": ["body", "n"], "msg": "many"}]},
            {},
            RequestRefused,
            "n: many",
        ),
        (429, {"error": OPENAI_ERROR}, {"retry-after": "3"}, EngineBusy, "429"),
        (429, {"error": {**OPENAI_ERROR, "code": "insufficient_quota"}}, {}, RequestRefused, "no"),
        (503, {"message": "loading"}, {"retry-after-ms": "250"}, EngineBusy, "loading"),
        (503, {"message": "down"}, {}, EngineCrashed, "down"),
        (500, {"error": "CUDA out of memory"}, {}, OutOfMemory, "CUDA out of memory"),
        (502, None, {}, EngineCrashed, "Bad Gateway"),
        (307, None, {"location": "https://elsewhere.example/"}, EngineUnavailable, "307"),
        (200, None, {}, EngineError, "no JSON object"),
        (200, {"data": None}, {}, EngineError, "without a picture"),
        (200, {"data": [{"b64_json": None, "url": None}]}, {}, EngineError, "without a picture"),
        (200, {"data": [{"b64_json": "%%%"}]}, {}, EngineError, "broken Base64"),
        (200, {"data": [{"b64_json": "PGh0bWw+"}]}, {}, EngineError, "cannot be read as a picture"),
    ],
)
async def test_each_answer_that_is_no_picture_is_an_error_of_its_kind_and_sent_once(
    status: int, body: object, headers: dict[str, str], kind: type[ArtaError], words: str
) -> None:
    html = Response("<html>Bad Gateway</html>", status_code=status, headers=headers)
    answer = html if body is None else JSONResponse(body, status_code=status, headers=headers)
    server = ImageServer(answer=lambda _: answer)
    with pytest.raises(ArtaError) as caught:
        await draw(server)
    assert type(caught.value) is kind
    assert words in caught.value.message
    assert caught.value.hint
    assert len(server.bodies) == 1
    assert KEY not in f"{caught.value} {caught.value.hint}"


def test_a_busy_server_says_when_in_each_of_three_forms() -> None:
    server = Server("http://127.0.0.1:9", Transport(user_agent="t"))
    dates = {
        "date": "Wed, 25 Nov 2026 10:00:00 GMT",
        "retry-after": "Wed, 25 Nov 2026 10:00:09 GMT",
    }
    milliseconds, whole = {"retry-after-ms": "1500"}, {"retry-after": "4"}
    for headers, seconds in ((milliseconds, 1.5), (whole, 4.0), (dates, 9.0)):
        found = server.explain("/x", Answer(429, headers, b"{}"))
        assert isinstance(found, EngineBusy)
        assert found.retry_after == seconds


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"message": "a", "code": "c"}}', ("a", "c")),
        (b'{"error": "a"}', ("a", "")),
        (b'{"detail": "a"}', ("a", "")),
        (b'{"detail": [{"loc": ["body", "size"], "msg": "a"}]}', ("size: a", "")),
        (b"<html>a</html>", ("<html>a</html>", "")),
        # A1111 and Forge
        (
            b'{"error": "OutOfMemoryError", "detail": "", "errors": "a"}',
            ("OutOfMemoryError; a", ""),
        ),
        (b"", ("", "")),
    ],
)
def test_every_shape_of_an_errors_body_is_read(body: bytes, words: tuple[str, str]) -> None:
    assert read_error(body) == words


async def test_an_answer_that_is_lost_is_never_asked_for_again() -> None:
    server = ImageServer(delay=5)
    async with connected(server, timeout=0.2) as to:
        with pytest.raises(AnswerLost) as caught:
            await OpenAIImages(to, model="m", dialect="plain").generate(FOX, no_step)
    assert "nothing was sent again" in caught.value.hint
    assert len(server.bodies) == 1


async def test_a_server_that_is_not_there_is_told_as_such() -> None:
    async with Transport(user_agent="t", direct=True) as http:
        engine = OpenAIImages(Server("http://127.0.0.1:9", http), model="m", dialect="plain")
        with pytest.raises(EngineUnavailable, match=r"no connection to 127\.0\.0\.1") as caught:
            await engine.generate(FOX, no_step)
    assert "ARTA_LOCAL_URL" in caught.value.hint


async def test_a_picture_too_large_to_decode_is_refused_by_its_size() -> None:
    large = base64.b64encode(picture("8000x5001")).decode()
    server = ImageServer(answer=lambda _: JSONResponse({"data": [{"b64_json": large}]}))
    with pytest.raises(EngineError, match="has 8000 x 5001 pixels, too many"):
        await draw(server)
    assert len(server.bodies) == 1


async def test_a_picture_that_is_gone_from_its_address_is_told_with_the_address() -> None:
    server = ImageServer()
    server.answer = lambda _: JSONResponse({"data": [{"url": f"{server.url}/gone.png"}]})
    with pytest.raises(EngineError, match=r"http://\S+/gone\.png answers 404") as caught:
        await draw(server)
    assert caught.value.hint
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://0.0.0.0:5500/images/a.png", "b64_json"),
        ("http://10.0.0.7/a.png", "b64_json"),
        ("https://127.0.0.1/a.png", "inside this network"),
        ("https://169.254.169.254/latest", "inside this network"),
        ("file:///etc/passwd", "b64_json"),
    ],
)
async def test_a_picture_is_fetched_from_the_server_itself_or_from_a_public_https_address(
    url: str, words: str
) -> None:
    server = ImageServer(answer=lambda _: JSONResponse({"data": [{"url": url}]}))
    with pytest.raises(EngineError) as caught:
        await draw(server)
    assert words in f"{caught.value.message} {caught.value.hint}"
    assert len(server.paths) == 1


def test_the_key_goes_to_the_very_origin_alone() -> None:
    server = Server("http://127.0.0.1:9", Transport(user_agent="t"), Secret(KEY))
    assert server.has("http://127.0.0.1:9/x.png")
    for other in ("http://127.0.0.1:90/x", "https://127.0.0.1:9/x", "http://127.0.0.1:9@evil/x"):
        assert not server.has(other)


# sdapi


async def draw_sdapi(server: ImageServer, request: ImageRequest = FOX) -> tuple[object, list[int]]:
    steps: list[int] = []
    async with connected(server) as to:
        image = await SdApi(to).generate(request, lambda step, _: steps.append(step))
    return image, steps


async def test_sdapi_takes_all_and_says_what_it_used() -> None:
    server = ImageServer()
    async with connected(server) as to:
        full = await SdApi(to, model="turbo").generate(FOX, no_step)
        bare = await SdApi(to).generate(BARE, no_step)
    given, own = server.bodies
    assert (given["seed"], given["steps"], given["cfg_scale"]) == (42, 9, 3.5)
    assert (given["width"], given["height"], given["negative_prompt"]) == (1360, 768, "fog")
    assert given["override_settings"] == {"sd_model_checkpoint": "turbo"}
    assert not {"steps", "cfg_scale", "override_settings"} & own.keys()
    assert (bare.num_inference_steps, bare.guidance_scale, bare.model) == (20, 1.5, "turbo-v1")
    assert full.not_honoured == ()
    assert "Steps: 20, CFG scale: 1.5" in opened(bare.data).text["parameters"]


async def test_sdapi_counts_steps_where_the_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdapi, "PROGRESS_INTERVAL", 0.02)
    _, steps = await draw_sdapi(ImageServer(steps=4, delay=0.4))
    assert steps == sorted(set(steps))
    assert steps
    none = ImageServer(delay=0.1)
    _, steps = await draw_sdapi(none)
    assert steps == []
    assert none.paths.count("/sdapi/v1/progress") == 1


async def test_a_cancelled_call_interrupts_the_server() -> None:
    server = ImageServer(steps=100, delay=10)
    async with connected(server, timeout=30) as to:
        with anyio.move_on_after(0.2):
            await SdApi(to).generate(FOX, no_step)
        with anyio.fail_after(5):
            while not server.interrupted.is_set():
                await anyio.sleep(0.01)


async def test_sdapi_tells_errors_of_its_kind() -> None:
    answer = {"error": "OutOfMemoryError", "detail": "", "errors": "CUDA out of memory. Tried"}
    server = ImageServer(answer=lambda _: JSONResponse(answer, status_code=500))
    with pytest.raises(OutOfMemory, match="CUDA out of memory"):
        await draw_sdapi(server)


# Both


@pytest.mark.parametrize("kind", ["openai", "sdapi"])
async def test_every_ratio_is_drawn_in_multiples_of_sixteen_and_near_its_shape(kind: str) -> None:
    server = ImageServer()
    async with connected(server) as to:
        engine: Engine = (
            SdApi(to) if kind == "sdapi" else OpenAIImages(to, model="m", dialect="plain")
        )
        about = engine.describe()
        assert about.is_ai
        for ratio in RATIOS:
            size = fit_size(about, ratio)
            image = await engine.generate(replace(BARE, aspect_ratio=ratio, size=size), no_step)
            width, height = opened(image.data).size
            wanted = int(ratio.partition(":")[0]) / int(ratio.partition(":")[2])
            assert width % 16 == height % 16 == 0
            assert abs(width / height / wanted - 1) < 0.02
            assert abs(width * height / about.native_area - 1) < 0.04
            assert image.note == ""
