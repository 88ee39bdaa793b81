"""The process that draws: it dies alone, with its parent, and when it is idle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import anyio
import pytest

from arta_mcp.cli.settings import read_settings
from arta_mcp.config import Settings
from arta_mcp.engines import diffusers
from arta_mcp.engines.base import ImageRequest
from arta_mcp.engines.diffusers import DiffusersEngine
from arta_mcp.engines.open import open_diffusers
from arta_mcp.engines.worker import (
    LoadOrder,
    check_folder,
    pick_files,
    pick_variant,
)
from arta_mcp.errors import (
    ConfigError,
    EngineCrashed,
    EngineUnavailable,
    ModelNotFound,
    ModelUnusable,
)
from harness import painting_worker
from harness.service import ScriptedService
from harness.service_calls import poll_job, submit

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KILLS = 20
"""of the engine's process, in a row"""

FOX = ImageRequest("a red fox", "", "Flux", "flux", 40, 0, "1:1")
needs_signals = pytest.mark.skipif(os.name == "nt", reason="kill -9 is of POSIX")
without_torch = pytest.mark.skipif(find_spec("torch") is not None, reason="the extra is installed")


def no_step(step: int, steps: int | None) -> None: ...


def painting(model: str = "/painting", *, idle: float = 600.0) -> DiffusersEngine:
    order = LoadOrder(model=model, download=not model.startswith("/"))
    return DiffusersEngine(order, timeout=30, idle=idle, command=painting_worker.COMMAND)


@pytest.fixture
async def engine() -> AsyncGenerator[DiffusersEngine]:
    made = painting()
    yield made
    await made.aclose()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def wait_until_gone(pid: int) -> None:
    with anyio.fail_after(20):
        while is_alive(pid):
            await anyio.sleep(0.01)


def child_of(engine: DiffusersEngine) -> int:
    assert engine.pid is not None
    return engine.pid


@needs_signals
async def test_a_killed_process_is_one_jobs_error_twenty_times_in_a_row(tmp_path: Path) -> None:
    engine = painting()
    service = ScriptedService(tmp_path, engine=engine, queue=0, draw=0)
    usual = await submit(service, images_num="1", seed="7")
    service.finish_drawing()
    picture = service.store.picture(f"{usual.record_id}-0.png")
    assert picture is not None
    for _ in range(KILLS):
        slow = await submit(service, images_num="1", prompt="a slow fox", steps="50")
        behind = await submit(service, images_num="1", seed="7")
        with anyio.fail_after(30):
            while not service.store.progress(slow.record_id).step:
                await anyio.sleep(0.01)
        os.kill(child_of(engine), signal.SIGKILL)
        service.finish_drawing()
        failed = await poll_job(service, slow.record_id)
        assert (failed.status, failed.error_code) == ("FAILED", "ENGINE_CRASHED")
        assert "the engine's process ended (signal 9)" in (failed.error_details or "")
        assert (await poll_job(service, behind.record_id)).status == "DONE"
        assert service.store.picture(f"{behind.record_id}-0.png") == picture
    service.close()


@needs_signals
async def test_a_process_killed_between_two_pictures_costs_one(engine: DiffusersEngine) -> None:
    await engine.generate(FOX, no_step)
    os.kill(child_of(engine), signal.SIGKILL)
    await wait_until_gone(child_of(engine))
    with pytest.raises(EngineCrashed, match=r"signal 9") as caught:
        await engine.generate(FOX, no_step)
    assert "takes too much memory" in caught.value.hint
    assert (await engine.generate(FOX, no_step)).data


async def test_the_model_stays_for_the_next_picture_and_goes_when_nobody_wants_one(
    tmp_path: Path,
) -> None:
    engine = painting(idle=0.3)
    service = ScriptedService(tmp_path, engine=engine, queue=0, draw=0)
    seen: list[int] = []
    for _ in range(2):
        await submit(service, images_num="2")
        service.finish_drawing()
        await submit(service, images_num="1")
        seen.append(child_of(engine))
        service.finish_drawing()
        assert engine.pid == seen[-1]
        await wait_until_gone(seen[-1])
        assert engine.pid is None
    assert len(set(seen)) == 2


@needs_signals
async def test_the_process_ends_with_its_parent_however_that_ends() -> None:
    program = """
import sys, anyio
from test_worker import FOX, no_step, painting

async def main():
    engine = painting()
    await engine.generate(FOX, no_step)
    print(engine.pid, flush=True)
    from dataclasses import replace
    await engine.generate(replace(FOX, prompt="a hang fox"), no_step)

anyio.run(main)
"""
    folders = f"{Path(__file__).parent}:{Path(__file__).parents[1]}"
    environ = {**os.environ, "PYTHONPATH": folders}
    async with await anyio.open_process([sys.executable, "-c", program], env=environ) as parent:
        assert parent.stdout is not None
        with anyio.fail_after(30):
            child = int(await parent.stdout.receive())
        assert is_alive(child)
        await anyio.sleep(0.2)  # it draws, and will not look up
        parent.kill()
    await wait_until_gone(child)


async def test_what_libraries_print_is_no_message(engine: DiffusersEngine) -> None:
    plain = await engine.generate(replace(FOX, prompt="a print fox"), no_step)
    assert plain.data.startswith(b"\x89PNG")


async def test_a_cancelled_picture_leaves_the_process_warm(engine: DiffusersEngine) -> None:
    await engine.generate(FOX, no_step)
    child = child_of(engine)
    slow = replace(FOX, prompt="a slow fox", num_inference_steps=200)
    with anyio.move_on_after(0.3) as scope:
        await engine.generate(slow, no_step)
    assert scope.cancelled_caught
    assert engine.pid == child
    await engine.generate(FOX, no_step)


async def test_a_picture_that_does_not_end_when_cancelled_is_killed(
    engine: DiffusersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusers, "CANCEL_TIMEOUT", 0.2)
    await engine.generate(FOX, no_step)
    child = child_of(engine)
    with anyio.move_on_after(0.3) as scope:
        await engine.generate(replace(FOX, prompt="a hang fox"), no_step)
    assert scope.cancelled_caught
    assert not is_alive(child)
    assert (await engine.generate(FOX, no_step)).data


async def test_one_that_is_cancelled_while_it_loads_leaves_nothing() -> None:
    engine = painting("/slow")
    with anyio.move_on_after(0.5) as scope:
        await engine.generate(FOX, no_step)
    assert scope.cancelled_caught
    assert engine.pid is None


async def test_the_size_of_a_download_is_told_before_it_begins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = painting("stabilityai/sd-turbo")
    await engine.generate(FOX, no_step)
    await engine.aclose()
    assert caplog.messages == ["fetching stabilityai/sd-turbo from the hub: 5.16 GB"]
    assert caplog.records[0].levelname == "WARNING"


async def test_what_the_settings_say_is_used_where_a_call_says_nothing() -> None:
    settings = Settings.from_env(
        {
            "ARTA_LOCAL_ENGINE": "diffusers",
            "ARTA_LOCAL_MODEL": "/painting",
            "ARTA_LOCAL_STEPS": "2",
            "ARTA_LOCAL_GUIDANCE": "0",
            "ARTA_LOCAL_SIZES": "512x512, 768x512",
            "ARTA_LOCAL_IDLE": "5",
        }
    )
    made = open_diffusers(settings)
    assert (made.describe().sizes, made.describe().idle) == (((512, 512), (768, 512)), 5)
    made._command = painting_worker.COMMAND  # pyright: ignore[reportPrivateUsage]  # all else is the setting's
    own = await made.generate(replace(FOX, aspect_ratio="16:9"), no_step)
    given = await made.generate(replace(FOX, num_inference_steps=3, guidance_scale=4), no_step)
    await made.aclose()
    assert (own.num_inference_steps, own.guidance_scale) == (2, 0)
    assert (given.num_inference_steps, given.guidance_scale) == (3, 4)
    assert int.from_bytes(own.data[16:20], "big") == 768


# What is wrong before anything is drawn


@without_torch
async def test_without_the_extra_the_start_says_how_to_install_it_and_so_does_a_picture() -> None:
    environ = {"ARTA_LOCAL_ENGINE": "diffusers", "ARTA_LOCAL_MODEL": "stabilityai/sd-turbo"}
    with pytest.raises(ConfigError, match="torch, diffusers, transformers cannot") as caught:
        read_settings(environ)
    assert "pip install 'arta-mcp[diffusers]'" in caught.value.hint
    engine = open_diffusers(Settings.from_env(environ))
    with pytest.raises(EngineUnavailable, match="diffusers cannot be imported") as refused:
        await engine.generate(FOX, no_step)
    assert "pip install 'arta-mcp[diffusers]'" in refused.value.hint


def test_the_check_at_the_start_loads_nothing_that_the_first_reply_waits_for() -> None:
    program = """
import sys
from arta_mcp.engines.worker import check_start
try:
    check_start("/nowhere")
except Exception as exc:
    print(type(exc).__name__, *sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    kind, *loaded = run.stdout.split()
    assert kind == "ConfigError"
    dear = {"anyio", "asyncio", "subprocess", "torch", "diffusers", "PIL", "httpx"}
    assert dear & set(loaded) == set()


async def test_a_process_that_does_not_start_is_told_as_such() -> None:
    engine = DiffusersEngine(LoadOrder(model="/m"), command=("/nowhere/python",))
    with pytest.raises(EngineUnavailable, match="does not start"):
        await engine.generate(FOX, no_step)
    engine = DiffusersEngine(LoadOrder(model="/m"), command=(sys.executable, "-c", "print('hi')"))
    with pytest.raises(EngineCrashed, match="no message"):
        await engine.generate(FOX, no_step)
    engine = DiffusersEngine(LoadOrder(model="/m"), command=(sys.executable, "-c", "1 / 0"))
    with pytest.raises(EngineCrashed, match=r"exit code 1\): ZeroDivisionError"):
        await engine.generate(FOX, no_step)


def model(folder: Path, *files: str, index: object = None) -> Path:
    """A folder with these files, all of them empty, and an index that names two parts."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    index = index or {"_class_name": "P", "unet": ["d", "U"], "vae": ["d", "V"]}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def test_a_folder_that_is_no_pipeline_or_may_run_code_is_refused(tmp_path: Path) -> None:
    good = model(tmp_path / "good", "unet/model.safetensors", "unet/model.bin", "vae/m.safetensors")
    check_folder(good, "good")
    pickled = model(tmp_path / "pickled", "unet/model.safetensors", "vae/model.bin")
    with pytest.raises(ModelUnusable, match="weights in vae of pickled are pickle files") as caught:
        check_folder(pickled, "pickled")
    assert "ARTA_LOCAL_MODEL" in caught.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelUnusable, match=r"empty has no model_index\.json"):
        check_folder(tmp_path / "empty", "empty")
    (pickled / "model_index.json").write_text("[", encoding="utf-8")
    with pytest.raises(ModelUnusable, match="cannot be read"):
        check_folder(pickled, "pickled")
    with pytest.raises(ModelUnusable, match="is a single file"):
        check_folder(good / "model_index.json", "model_index.json")
    with pytest.raises(ModelNotFound, match="there is no folder gone"):
        check_folder(tmp_path / "gone", "gone")


HUB = (
    *("model_index.json", "README.md", "sd.safetensors", "sd.ckpt", "pipeline.py"),
    *("unet/config.json", "unet/d.safetensors", "unet/d.fp16.safetensors", "unet/d.bin"),
    *("vae/d.safetensors", "vae/d.msgpack", "vae/code.py", "tokenizer/merges.txt"),
    "other/d.safetensors",
)


def test_of_a_repository_only_what_the_pipeline_loads_is_fetched() -> None:
    parts = ("unet", "vae", "tokenizer")
    assert pick_variant(HUB, is_half=False) is None
    assert pick_files(HUB, parts, None) == [
        "model_index.json",
        "unet/config.json",
        "unet/d.safetensors",
        "vae/d.safetensors",
        "tokenizer/merges.txt",
    ]
    assert pick_variant(HUB, is_half=True) == "fp16"
    assert pick_files(HUB, parts, "fp16")[2:4] == ["unet/d.fp16.safetensors", "vae/d.safetensors"]
    only_half = ("unet/d.fp16.safetensors", "vae/d.fp16.safetensors")
    assert pick_variant(only_half, is_half=False) == "fp16"
