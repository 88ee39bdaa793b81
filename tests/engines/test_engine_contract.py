"""What every engine promises, held to one suite: the sketch, the servers, and the process of ours.

`painting` is the diffusers engine with the real process and its protocol, and a pipeline that needs
no torch; `diffusers` is all of it, on random weights, where `make test-diffusers` runs this.
"""

from __future__ import annotations

import io
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio
import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from starlette.responses import JSONResponse, Response

from arta_mcp.arta.protocol import RATIOS
from arta_mcp.arta.transport import Transport
from arta_mcp.engines.base import Engine, GeneratedImage, ImageRequest, fit_size
from arta_mcp.engines.diffusers import Defaults, DiffusersEngine
from arta_mcp.engines.http import Server
from arta_mcp.engines.openai_images import OpenAIImages
from arta_mcp.engines.sdapi import SdApi
from arta_mcp.engines.sketch.drawing import SketchEngine
from arta_mcp.engines.sketch.engine import draw as draw_sketch
from arta_mcp.engines.worker import LoadOrder
from arta_mcp.errors import (
    AnswerLost,
    ArtaError,
    EngineBusy,
    EngineCrashed,
    EngineError,
    EngineUnavailable,
    ModelNotFound,
    ModelUnusable,
    OutOfMemory,
    PromptRejected,
    RequestRefused,
)
from harness import painting_worker
from harness.image_server import ImageServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HAS_TORCH = find_spec("diffusers") is not None
SERVERS = ("openai", "sdapi")
ENGINES = ("sketch", *SERVERS, "painting", *(["diffusers"] if HAS_TORCH else []))
COUNTING = tuple(one for one in ENGINES if one not in ("sketch", "openai"))
"""those that say how far a picture is"""

FOX = ImageRequest("a red fox", "", "Flux", "flux", 40, 0, "1:1")


@dataclass
class Stage:
    """An engine, the server that it asks, and how to make it fail."""

    engine: Engine
    server: ImageServer = field(default_factory=ImageServer)

    async def draw(self, request: ImageRequest = FOX) -> GeneratedImage:
        return await self.engine.generate(self.fit(request), lambda step, steps: None)

    def fit(self, request: ImageRequest) -> ImageRequest:
        return replace(request, size=fit_size(self.engine.describe(), request.aspect_ratio))


@asynccontextmanager
async def staged(
    kind: str,
    models: Callable[[], Path],
    server: ImageServer | None = None,
    *,
    model: str = "sd",
) -> AsyncGenerator[Stage]:
    server = server or ImageServer(steps=4 if kind == "sdapi" else 0)
    app = httpx.ASGITransport(server.app, raise_app_exceptions=False)
    async with Transport(user_agent="t", direct=True, app=app) as http:
        to = Server("http://127.0.0.1:9", http, timeout=5)
        engine: Engine
        match kind:
            case "sketch":
                engine = SketchEngine(partial(draw_sketch, scale=0.25))
            case "openai":
                engine = OpenAIImages(to, model="m", dialect="plain")
            case "sdapi":
                engine = SdApi(to, model="m")
            case "painting":
                order = LoadOrder(model="/painting")
                engine = DiffusersEngine(order, timeout=30, command=painting_worker.COMMAND)
            case _:
                few = Defaults(num_inference_steps=2)
                engine = DiffusersEngine(
                    LoadOrder(model=str(models() / model)), defaults=few, timeout=120
                )
        try:
            yield Stage(engine, server)
        finally:
            await engine.aclose()


@pytest.fixture(params=ENGINES)
async def stage(
    request: pytest.FixtureRequest, tiny_models: Callable[[], Path]
) -> AsyncGenerator[Stage]:
    async with staged(request.param, tiny_models) as made:
        yield made


def opened(content: bytes) -> PngImageFile:
    image = Image.open(io.BytesIO(content))
    assert isinstance(image, PngImageFile)
    image.load()
    return image


async def test_a_picture_is_a_png_that_says_what_drew_it(stage: Stage) -> None:
    about = stage.engine.describe()
    image = await stage.draw()
    texts = opened(image.data).text
    assert texts["prompt"] == "a red fox"
    assert ("not made by an AI" in texts["Comment"]) is not about.is_ai
    assert ("seed" in texts) is ("seed" in about.honours)
    assert set(image.not_honoured) <= {
        *("negative_prompt", "guidance_scale", "num_inference_steps", "seed")
    } - (about.honours & {"seed"})
    if about.is_ai:
        assert texts["engine"] == about.engine
        assert image.model == texts["model"]


async def test_the_same_request_is_the_same_picture_where_a_seed_is_honoured(stage: Stage) -> None:
    first = await stage.draw()
    again = await stage.draw()
    await stage.engine.aclose()
    anew = await stage.draw()  # in another process, where there is one
    if "seed" in stage.engine.describe().honours:
        assert first.data == again.data == anew.data
        others = [await stage.draw(replace(FOX, seed=41)), await stage.draw(replace(FOX, index=1))]
        assert first.data not in [other.data for other in others]
        if stage.engine.describe().is_ai:  # one seed a picture, whatever job it is of
            assert opened(others[0].data).tobytes() == opened(others[1].data).tobytes()
    else:
        assert "seed" in first.not_honoured


async def test_steps_rise_to_their_end(
    stage: Stage, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arta_mcp.engines.sdapi.PROGRESS_INTERVAL", 0.02)
    stage.server.delay = 0.3
    told: list[tuple[int, int | None]] = []
    await stage.engine.generate(
        stage.fit(replace(FOX, num_inference_steps=5)),
        lambda step, steps: told.append((step, steps)),
    )
    steps = [step for step, _ in told]
    assert steps == sorted(set(steps))
    assert len({total for _, total in told}) <= 1
    assert all(total is not None and 1 <= step <= total for step, total in told)
    kind = request.node.callspec.params["stage"]
    assert bool(told) is (kind in COUNTING)
    if kind in ("painting", "diffusers"):
        assert told == [(step, 5) for step in range(1, 6)]


async def test_a_cancelled_picture_is_given_up_and_the_next_is_as_ever(stage: Stage) -> None:
    usual = (await stage.draw()).data
    slow = replace(FOX, prompt="a slow red fox", num_inference_steps=40)
    stage.server.delay, began = 3.0, time.monotonic()
    steps: list[int] = []
    with anyio.move_on_after(0.5) as scope:
        await stage.engine.generate(stage.fit(slow), lambda step, _: steps.append(step))
    took, count = time.monotonic() - began, len(steps)
    assert took < 10
    assert scope.cancelled_caught or took < 0.5 or not stage.engine.describe().is_ai
    stage.server.delay = 0.0
    stage.server.interrupted.clear()
    assert (await stage.draw()).data == usual or "seed" not in stage.engine.describe().honours
    assert len(steps) == count  # nothing is told of it any more


async def test_eight_pictures_of_a_job_are_eight(stage: Stage) -> None:
    images = [await stage.draw(replace(FOX, index=index)) for index in range(8)]
    assert all(opened(image.data).size for image in images)
    if "seed" in stage.engine.describe().honours:
        assert len({image.data for image in images}) == 8


@pytest.mark.parametrize("kind", ENGINES)
async def test_each_ratio_has_its_shape_and_about_the_native_area(
    kind: str, tiny_models: Callable[[], Path]
) -> None:
    # In steps of 16 a smaller picture has fewer shapes.
    async with staged(kind, tiny_models, model="sd-512") as stage:
        await stage.draw()  # some know their native area once the model is loaded
        about = stage.engine.describe()
        for ratio in RATIOS:
            image = await stage.draw(replace(FOX, aspect_ratio=ratio, num_inference_steps=1))
            width, height = opened(image.data).size
            across, down = map(int, ratio.split(":"))
            assert abs(width / height / (across / down) - 1) < 0.01, ratio
            if kind == "sketch":
                continue  # at a quarter of its size here
            assert width % about.size_step == height % about.size_step == 0
            assert abs(width * height / about.native_area - 1) < 0.04, ratio
            assert image.note == ""


# Errors, each with its way out; the next picture is as ever


def refusal(body: object, status: int, **headers: str) -> Response:
    return JSONResponse(body, status_code=status, headers=headers)


SERVED: list[tuple[Response, type[ArtaError]]] = [
    (refusal({"error": {"message": "no", "code": "moderation_blocked"}}, 400), PromptRejected),
    (refusal({"detail": "bad size"}, 400), RequestRefused),
    (refusal({"detail": "Not Found"}, 404), EngineUnavailable),
    (refusal({"error": {"message": "model 'm' not found"}}, 404), ModelNotFound),
    (refusal({"error": "CUDA out of memory"}, 500), OutOfMemory),
    (refusal({"error": "segmentation fault"}, 500), EngineCrashed),
    (refusal({"message": "loading"}, 503, **{"retry-after": "3"}), EngineBusy),
    (refusal({}, 200), EngineError),
]


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize(("answer", "error"), SERVED, ids=lambda one: getattr(one, "__name__", ""))
async def test_errors_of_a_server(
    kind: str, answer: Response, error: type[ArtaError], tiny_models: Callable[[], Path]
) -> None:
    async with staged(kind, tiny_models) as stage:
        stage.server.answer = lambda body: answer
        with pytest.raises(ArtaError) as caught:
            await stage.draw()
        assert type(caught.value) is error
        assert caught.value.message
        assert caught.value.hint
        stage.server.answer = lambda body: None
        assert (await stage.draw()).data


@pytest.mark.parametrize("kind", SERVERS)
async def test_an_answer_of_a_server_that_is_lost(
    kind: str, tiny_models: Callable[[], Path]
) -> None:
    async with staged(kind, tiny_models, ImageServer(delay=7)) as stage:
        with pytest.raises(AnswerLost):
            await stage.draw()
        assert len(stage.server.bodies) == 1


@pytest.mark.parametrize(
    ("prompt", "error", "words"),
    [
        ("memory", OutOfMemory, "no room"),
        ("refuse", RequestRefused, "not this size"),
        ("unsafe", PromptRejected, "not this"),
        ("break", EngineError, "it broke"),
        ("die", EngineCrashed, r"ended \(exit code 3\): the card is gone"),
        ("hang", EngineCrashed, "did nothing for [0-9]+ s"),
    ],
)
async def test_errors_of_the_process_in_a_picture(
    prompt: str, error: type[ArtaError], words: str
) -> None:
    # Only loading takes more than a second: Python has to start.
    engine = DiffusersEngine(
        LoadOrder(model="/painting"),
        timeout=1 if prompt == "hang" else 30,
        command=painting_worker.COMMAND,
    )
    try:
        usual = await Stage(engine).draw()
        with pytest.raises(ArtaError, match=words) as caught:
            await Stage(engine).draw(replace(FOX, prompt=f"a {prompt} fox"))
        assert type(caught.value) is error
        assert caught.value.hint
        is_over = error in (OutOfMemory, EngineCrashed)
        assert (engine.pid is None) is is_over
        assert (await Stage(engine).draw()).data == usual.data
    finally:
        await engine.aclose()


@pytest.mark.parametrize(
    ("model", "error"),
    [("/missing", ModelNotFound), ("/pickled", ModelUnusable), ("/large", OutOfMemory)],
)
async def test_errors_of_the_process_while_it_loads(model: str, error: type[ArtaError]) -> None:
    engine = DiffusersEngine(LoadOrder(model=model), command=painting_worker.COMMAND)
    for _ in range(2):
        with pytest.raises(error) as caught:
            await Stage(engine).draw()
        assert caught.value.hint
        assert engine.pid is None
