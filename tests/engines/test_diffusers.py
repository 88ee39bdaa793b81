"""The diffusers engine on pipelines with random weights, loaded by the code that ships.

`make test-diffusers` runs this in an environment with torch; what is drawn is noise.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from arta_mcp.engines.base import GeneratedImage, ImageRequest
from arta_mcp.engines.diffusers import Defaults, DiffusersEngine
from arta_mcp.engines.worker import LoadOrder
from arta_mcp.errors import (
    ArtaError,
    EngineCrashed,
    EngineUnavailable,
    ModelNotFound,
    ModelUnusable,
    OutOfMemory,
    RequestRefused,
)
from harness.hub import Hub
from harness.installed import Machine
from harness.programs import call_tool, read_result, running, wait_for

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("diffusers") is None, reason="make test-diffusers has torch"),
]

KILLS = int(os.environ.get("KILLS", "3"))
"""of the engine's process, in a row, ten seconds each; tests/engines/test_worker.py has twenty of a
process without torch"""

FOX = ImageRequest("a red fox", "", "Flux", "flux", 40, 0, "1:1", num_inference_steps=3)
HUGE = ((8_000_000, 8_000_000),)
SMALL = ((64, 64), (96, 64))


def no_step(step: int, steps: int | None) -> None: ...


@pytest.fixture(scope="session")
def models(tiny_models: Callable[[], Path]) -> Path:
    return tiny_models()


def engine_of(model: Path | str, **defaults: object) -> DiffusersEngine:
    order = LoadOrder(model=str(model))
    return DiffusersEngine(order, defaults=Defaults(**defaults), timeout=120)  # pyright: ignore[reportArgumentType]  # its fields


@pytest.fixture
async def sd(models: Path) -> AsyncGenerator[DiffusersEngine]:
    engine = engine_of(models / "sd")
    yield engine
    await engine.aclose()


@pytest.fixture
async def flux(models: Path) -> AsyncGenerator[DiffusersEngine]:
    engine = engine_of(models / "flux", sizes=SMALL)
    yield engine
    await engine.aclose()


async def draw(engine: DiffusersEngine, request: ImageRequest = FOX) -> GeneratedImage:
    return await engine.generate(request, no_step)


def opened(content: bytes) -> PngImageFile:
    image = Image.open(io.BytesIO(content))
    assert isinstance(image, PngImageFile)
    image.load()
    return image


# Arguments


async def test_each_argument_changes_a_picture_and_none_changes_it_by_itself(
    sd: DiffusersEngine,
) -> None:
    first = await draw(sd)
    others = [
        replace(FOX, prompt="a blue whale"),
        replace(FOX, negative_prompt="fog"),
        replace(FOX, seed=41),
        replace(FOX, num_inference_steps=4),
        replace(FOX, guidance_scale=2),
        replace(FOX, aspect_ratio="3:2"),
    ]
    drawn = [opened((await draw(sd, other)).data).tobytes() for other in others]
    assert len({opened(first.data).tobytes(), *drawn}) == 7
    assert (first.num_inference_steps, first.guidance_scale) == (3, 7.5)  # the pipeline's own
    assert first.not_honoured == ()
    await sd.aclose()
    assert (await draw(sd)).data == first.data  # by another process, after all of these


async def test_the_picture_says_which_versions_drew_it(sd: DiffusersEngine) -> None:
    image = opened((await draw(sd)).data)
    assert image.size == (64, 64)
    assert "engine diffusers, diffusers 0." in image.text["Software"]
    assert "torch" in image.text["Software"]
    assert "Steps: 3, CFG scale: 7.5, Seed: 40, Model: sd, Size: 64x64" in image.text["parameters"]
    assert str(Path.home()) not in str(image.text)


async def test_words_to_avoid_are_named_as_not_honoured_where_nothing_steers_by_them(
    sd: DiffusersEngine, flux: DiffusersEngine
) -> None:
    plain, avoiding = await draw(flux), await draw(flux, replace(FOX, negative_prompt="fog"))
    assert opened(plain.data).tobytes() == opened(avoiding.data).tobytes()
    assert (plain.not_honoured, avoiding.not_honoured) == ((), ("negative_prompt",))
    assert plain.guidance_scale == 3.5
    own = await draw(flux, replace(FOX, num_inference_steps=None))
    assert own.num_inference_steps == 28
    unguided = await draw(sd, replace(FOX, negative_prompt="fog", guidance_scale=1))
    assert unguided.not_honoured == ("negative_prompt",)


async def test_flux_draws_in_sizes_of_its_own_and_counts_its_steps(flux: DiffusersEngine) -> None:
    told: list[tuple[int, int | None]] = []
    image = await flux.generate(
        replace(FOX, aspect_ratio="3:2"), lambda step, steps: told.append((step, steps))
    )
    assert opened(image.data).size == (96, 64)
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert flux.describe().native_area == 1024 * 1024


async def test_a_prompt_that_no_part_reads_to_its_end_is_told_as_cut(
    sd: DiffusersEngine, flux: DiffusersEngine
) -> None:
    long = replace(FOX, prompt="a red fox in snow " * 20)
    assert (
        await draw(sd, long)
    ).note == "the model reads 77 tokens, the rest of the prompt was cut"
    assert (await draw(flux, long)).note == ""  # its second reader takes 512


async def test_a_cancelled_picture_ends_at_a_step_and_changes_no_later_one(
    sd: DiffusersEngine,
) -> None:
    usual = await draw(sd)
    child = sd.pid
    steps: list[int] = []
    with anyio.CancelScope() as scope:

        def stop(step: int, total: int | None) -> None:
            steps.append(step)
            if step == 2:
                scope.cancel()

        await sd.generate(replace(FOX, num_inference_steps=50), stop)
    assert scope.cancelled_caught
    assert len(steps) < 10
    assert (await draw(sd)).data == usual.data
    assert sd.pid == child


# Models that cannot be used; each fails alone


async def refused(model: Path | str, kind: type[ArtaError]) -> ArtaError:
    engine = engine_of(model)
    with pytest.raises(ArtaError) as caught:
        await draw(engine)
    assert type(caught.value) is kind, caught.value.message
    assert engine.pid is None
    assert "ARTA_LOCAL_" in caught.value.hint
    return caught.value


async def test_models_that_cannot_be_used_are_refused_by_name(models: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(models / "sd", tmp_path / name))

    weights = "unet/diffusion_pytorch_model.safetensors"
    cut = copy("cut")
    (cut / weights).write_bytes((cut / weights).read_bytes()[:1000])
    assert "cut cannot be loaded: " in (await refused(cut, ModelUnusable)).message

    none = copy("none")
    (none / weights).unlink()
    error = await refused(none, ModelUnusable)
    assert str(tmp_path) not in error.message

    pickled = copy("pickled")
    (pickled / weights).rename(pickled / "unet/diffusion_pytorch_model.bin")
    assert "pickle" in (await refused(pickled, ModelUnusable)).message

    strange = copy("strange")
    index = json.loads((strange / "model_index.json").read_bytes())
    (strange / "model_index.json").write_text(
        json.dumps(index | {"_class_name": "NoSuchPipeline"}), encoding="utf-8"
    )
    assert "strange cannot be loaded" in (await refused(strange, ModelUnusable)).message


@pytest.mark.parametrize("where", ["pipeline", "part"])
async def test_code_that_lies_beside_a_model_is_not_run(
    models: Path, tmp_path: Path, where: str
) -> None:
    folder = Path(shutil.copytree(models / "sd", tmp_path / "armed"))
    ran = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
    index = json.loads((folder / "model_index.json").read_bytes())
    if where == "pipeline":
        (folder / "mine.py").write_text(f"{code}\nclass Mine: ...\n", encoding="utf-8")
        index["_class_name"] = ["mine", "Mine"]
    else:
        (folder / "unet/mine.py").write_text(f"{code}\nclass Mine: ...\n", encoding="utf-8")
        index["unet"] = ["mine", "Mine"]
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    await refused(folder, ModelUnusable)
    assert not ran.exists()


async def test_a_picture_that_does_not_fit_into_memory_is_one_jobs_error(models: Path) -> None:
    engine = engine_of(models / "sd", sizes=HUGE)
    with pytest.raises(OutOfMemory, match="8000000 x 8000000 does not fit into the memory of cpu"):
        await draw(engine)
    assert engine.pid is None
    small = engine_of(models / "sd")
    assert (await draw(small)).data
    await small.aclose()


async def test_a_size_that_the_pipeline_refuses_is_told_in_its_words(models: Path) -> None:
    engine = engine_of(models / "sd", sizes=((60, 60),))
    with pytest.raises(RequestRefused, match="divisible by 8"):
        await draw(engine)
    await engine.aclose()


async def test_a_device_that_is_not_there_is_told_as_such(models: Path) -> None:
    order = LoadOrder(model=str(models / "sd"), device="mps")
    with pytest.raises(EngineUnavailable, match="does not find") as caught:
        await draw(DiffusersEngine(order))
    assert "ARTA_LOCAL_DEVICE" in caught.value.hint


async def test_half_the_memory_draws_another_picture_of_the_same_size(models: Path) -> None:
    order = LoadOrder(model=str(models / "sd"), dtype="bfloat16")
    engine = DiffusersEngine(order)
    first, again = await draw(engine), await draw(engine)
    assert first.data == again.data
    assert opened(first.data).size == (64, 64)
    await engine.aclose()


# The hub


async def test_a_model_of_the_hub_is_fetched_only_when_that_is_allowed_and_told_before(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with Hub(models / "sd", "tiny/sd").running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        error = await refused("tiny/sd", ModelNotFound)
        assert "ARTA_LOCAL_DOWNLOAD=on" in error.hint
        assert hub.paths == []
        allowed = DiffusersEngine(LoadOrder(model="tiny/sd", download=True))
        from_hub = await draw(allowed)
        await allowed.aclose()
        (told,) = caplog.messages
        assert told.startswith("fetching tiny/sd from the hub: 0.00")
        fetched = {path for path in hub.paths if "/resolve/" in path}
        assert not [path for path in fetched if path.endswith((".bin", ".py", ".md"))]
        missing = DiffusersEngine(LoadOrder(model="tiny/none", download=True))
        with pytest.raises(ModelNotFound, match="the hub shows no model tiny/none"):
            await draw(missing)
        hub.paths.clear()
        kept = engine_of("tiny/sd")
        assert (await draw(kept)).data == from_hub.data
        await kept.aclose()
        assert hub.paths == []  # what is here is loaded without a question
    gone = DiffusersEngine(LoadOrder(model="tiny/sd", download=True))
    assert (await draw(gone)).data == from_hub.data  # nor is the hub needed
    await gone.aclose()
    with pytest.raises(EngineUnavailable, match="tiny/new could not be fetched"):
        await draw(DiffusersEngine(LoadOrder(model="tiny/new", download=True)))


# Real processes


async def test_a_killed_process_costs_its_picture_and_no_other(sd: DiffusersEngine) -> None:
    usual = await draw(sd)
    for _ in range(KILLS):

        def kill(step: int, steps: int | None) -> None:
            assert sd.pid is not None
            os.kill(sd.pid, signal.SIGKILL)

        with pytest.raises(EngineCrashed, match=r"signal 9"):
            await sd.generate(replace(FOX, num_inference_steps=50), kill)
        assert (await draw(sd)).data == usual.data


@pytest.fixture
def drawing(machine: Machine, models: Path) -> Machine:
    return machine.set(
        ARTA_LOCAL_ENGINE="diffusers",
        ARTA_LOCAL_MODEL=str(models / "sd"),
        ARTA_OUTPUT_DIR=str(machine.folder / "pictures"),
        ARTA_MAX_WAIT="0",
    )


def children(parent: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        found += [int(pid) for pid in (task / "children").read_text(encoding="ascii").split()]
    return found


def order(server: subprocess.Popen[str], number: int, **more: object) -> str:
    arguments = {"prompt": "a red fox", "seed": 7, "num_inference_steps": 50, **more}
    call_tool(server, number, "generate_image", **arguments)
    return read_result(server, number)["structuredContent"]["record_id"]


def pictures(server: subprocess.Popen[str], number: int, record_id: str) -> list[bytes]:
    done = wait_for(server, number, record_id)
    assert (done["engine"], done["engine_model"]) == ("diffusers", "sd")
    return [Path(image["path"]).read_bytes() for image in done["images"]]


def wait_for_steps(machine: Machine, record_id: str) -> None:
    path, until = machine.state / f"local/progress/{record_id}.json", time.monotonic() + 120
    while not (path.exists() and json.loads(path.read_bytes()).get("step")):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_killed_server_takes_its_engine_along_and_the_next_start_draws_the_same(
    drawing: Machine,
) -> None:
    with running(drawing) as first:
        record_id = order(first, 1, n=2)
        wait_for_steps(drawing, record_id)
        (child,) = children(first.pid)
        first.kill()
        first.wait()
    until = time.monotonic() + 20
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    with running(drawing) as second:
        resumed = pictures(second, 1, record_id)
        again = pictures(second, 2001, order(second, 2000, n=2, idempotency_key="another"))
    assert resumed == again
    assert len(set(resumed)) == 2


def test_two_servers_on_one_folder_load_one_model_and_draw_an_order_once(
    drawing: Machine,
) -> None:
    with running(drawing) as first, running(drawing) as second:
        record_id = order(first, 1)
        call_tool(second, 1, "get_generation", record_id=record_id, max_wait=0)
        read_result(second, 1)
        wait_for_steps(drawing, record_id)
        assert len(children(first.pid) + children(second.pid)) == 1
        assert pictures(second, 2, record_id) == pictures(first, 2, record_id)
        other = order(second, 2000, prompt="a blue whale", num_inference_steps=2)
        pictures(second, 2001, other)
        assert len(children(first.pid) + children(second.pid)) == 1
