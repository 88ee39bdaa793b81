"""Somebody's own engine behind the same tools: from the settings to the result."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from mcp import Client
from PIL import Image
from starlette.responses import JSONResponse

from arta_mcp.app import open_generations
from arta_mcp.config import Settings
from arta_mcp.errors import ArtaError, ConfigError, EngineUnavailable, KeyConflict, PromptRejected
from arta_mcp.generations.service import Generations
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.local.store import picture_path
from arta_mcp.server.build import build_server
from harness.image_server import ImageServer

pytestmark = pytest.mark.anyio

KEY = "sk-sentinel-0123456789"


@pytest.fixture
def server() -> Iterator[ImageServer]:
    made = ImageServer(models=[{"id": "flux-schnell"}, {"id": "other"}])
    with made.running():
        yield made


def settings(folder: Path, server: ImageServer, **more: str) -> Settings:
    return Settings.from_env(
        {
            "ARTA_STATE_DIR": str(folder / "state"),
            "ARTA_OUTPUT_DIR": str(folder / "pictures"),
            "ARTA_LOCAL_ENGINE": "openai",
            "ARTA_LOCAL_URL": server.url,
            "ARTA_LOCAL_KEY": KEY,
            "ARTA_MIN_POLL_INTERVAL": "0.05",
            **more,
        }
    )


def generations(folder: Path, server: ImageServer, **more: str) -> Generations:
    return open_generations(settings(folder, server, **more))


@pytest.mark.parametrize("engine", ["openai", "sdapi"])
async def test_pictures_come_from_the_engine_and_say_so_everywhere(
    tmp_path: Path, server: ImageServer, engine: str
) -> None:
    async with generations(tmp_path, server, ARTA_LOCAL_ENGINE=engine) as opened:
        request = GenerationRequest.of(prompt="a fox", model="watercolor", n=2, aspect_ratio="3:2")
        done = await opened.generate(request)
        (told,) = await opened.history()
        restored = await opened.get(done.record_id or "")
    model = "flux-schnell" if engine == "openai" else "turbo-v1"
    for one in (done, told, restored):
        assert (one.backend, one.engine, one.engine_model) == ("local", engine, model)
        assert f"drawn by {model} through {engine}" in (one.notice or "")
        assert "sketch" not in (one.notice or "")
    paths = [image.path for image in done.images]
    assert len(set(paths)) == 2
    for path in paths:
        assert path is not None
        assert Path(path).parent == tmp_path / "pictures"
        with Image.open(path) as picture:
            assert picture.width % 16 == 0
            assert "AI model" in str(picture.info["Comment"])
    assert len(server.bodies) == 2
    assert str(server.bodies[0]["prompt"]).startswith("a fox, watercolour painting")
    assert all(key in (None, f"Bearer {KEY}") for key in server.keys)


async def test_steps_and_guidance_are_the_engines_own_and_the_result_says_which(
    tmp_path: Path, server: ImageServer
) -> None:
    async with generations(tmp_path, server, ARTA_LOCAL_ENGINE="sdapi") as opened:
        own = await opened.generate(GenerationRequest.of(prompt="a fox"))
        given = await opened.generate(GenerationRequest.of(prompt="a fox", num_inference_steps=4))
    assert "steps" not in server.bodies[0]
    assert (own.request.num_inference_steps, own.request.guidance_scale) == (20, 1.5)
    assert server.bodies[1]["steps"] == given.request.num_inference_steps == 4
    async with generations(tmp_path, server) as opened:
        unknown = await opened.generate(GenerationRequest.of(prompt="a fox", guidance_scale=3))
    assert unknown.request.num_inference_steps is unknown.request.guidance_scale is None
    assert "not passed on, as the engine takes none: guidance_scale, seed" in str(unknown.notice)


async def test_a_host_is_told_what_draws_and_no_defaults_of_ours(
    tmp_path: Path, server: ImageServer
) -> None:
    opened = generations(tmp_path, server, ARTA_LOCAL_MODEL="flux-schnell")
    async with Client(build_server(opened, drawn_by="engine")) as client:
        listed = await client.list_tools()
        properties = listed.tools[0].input_schema["properties"]
        result = await client.call_tool("generate_image", {"prompt": "a fox"})
        models = await client.call_tool("list_models", {"search": "watercolor"})
        instructions = client.instructions
    for name in ("negative_prompt", "guidance_scale", "num_inference_steps"):
        assert "default" not in properties[name]
    assert properties["n"]["default"] == 1
    assert not result.is_error
    assert result.structured_content is not None
    assert result.structured_content["engine_model"] == "flux-schnell"
    assert result.structured_content["negative_prompt"] is None
    told = f"{instructions} {result.content} {models.content} {listed}"
    assert "sketch" not in told
    assert "an engine of the person's own" in str(instructions)
    assert KEY not in told


async def test_list_models_has_what_this_engine_draws_with_and_a_persons_own_styles(
    tmp_path: Path, server: ImageServer
) -> None:
    styles = tmp_path / "styles.json"
    own = [{"name": "Ink Wash", "prompt": "{prompt}, ink wash", "negative_prompt": "colour"}]
    styles.write_text(json.dumps(own), encoding="utf-8")
    opened = generations(tmp_path, server, ARTA_LOCAL_STYLES=str(styles))
    async with Client(build_server(opened, drawn_by="engine")) as client:
        assert server.paths == []  # nobody is asked at the start
        listed = await client.call_tool("list_models", {})
        drawn = await client.call_tool("generate_image", {"prompt": "a fox", "model": "ink-wash"})
        pro = await client.call_tool("generate_image", {"prompt": "a fox", "model": "f2-pro"})
    assert listed.structured_content is not None
    ids = [model["id"] for model in listed.structured_content["models"]]
    assert {"flux", "watercolor", "ink-wash"} <= set(ids)
    assert not {"f2-pro", "gpt4o", "nano-banana-style"} & set(ids)
    assert not [one for one in ids if "test" in one or one.startswith(("qa", "our"))]
    text = str(listed.content)
    assert f"Pictures are drawn by a model at {server.url}" in text
    assert "Its server has flux-schnell, other; the person chooses by ARTA_LOCAL_MODEL." in text
    assert not drawn.is_error
    assert server.bodies[0]["prompt"] == "a fox, ink wash"
    assert "names a model of the remote service; here flux-schnell drew" in str(pro.content)


async def test_where_a_key_is_used_a_host_is_told_of_the_hourly_limit_before_and_when_it_bites(
    tmp_path: Path, server: ImageServer
) -> None:
    opened = generations(tmp_path, server, ARTA_HOURLY_LIMIT="2")
    async with Client(build_server(opened, drawn_by="engine")) as client:
        models = await client.call_tool("list_models", {"search": "watercolor"})
        first = await client.call_tool("generate_image", {"prompt": "a fox", "n": 2})
        second = await client.call_tool("generate_image", {"prompt": "a hare"})
        instructions = client.instructions
    assert "ARTA_HOURLY_LIMIT" in str(instructions)
    assert "At most 2 pictures an hour (ARTA_HOURLY_LIMIT)." in str(models.content)
    assert "2 of the 2 pictures of an hour are used" in str(first.structured_content)
    assert second.is_error
    assert "2 were asked for and this call wants 1; nothing was ordered" in str(second.content)
    assert "ask again in 60 minutes" in str(second.content)
    assert len(server.bodies) == 2
    free = settings(tmp_path / "free", server, ARTA_HOURLY_LIMIT="1", ARTA_LOCAL_KEY="")
    async with Client(build_server(open_generations(free), drawn_by="engine")) as client:
        for prompt in ("a fox", "a hare"):
            assert not (await client.call_tool("generate_image", {"prompt": prompt})).is_error


async def test_a_mixed_history_tells_each_truly(tmp_path: Path, server: ImageServer) -> None:
    async with generations(tmp_path, server) as opened:
        await opened.generate(GenerationRequest.of(prompt="a fox"))
    async with generations(tmp_path, server, ARTA_LOCAL_ENGINE="sketch") as opened:
        await opened.generate(GenerationRequest.of(prompt="a fox"))
        sketch, real = await opened.history()
    assert (sketch.engine, real.engine) == ("sketch", "openai")
    assert "not by an AI model" in str(sketch.notice)
    assert "sketch" not in str(real.notice)
    assert (sketch.request.guidance_scale, real.request.guidance_scale) == (7, None)


async def test_an_idempotency_key_stands_for_engine_and_model_too(
    tmp_path: Path, server: ImageServer
) -> None:
    request = GenerationRequest.of(prompt="a fox", idempotency_key="k", seed=1)
    async with generations(tmp_path, server) as opened:
        first = await opened.generate(request)
        assert (await opened.generate(request)).record_id == first.record_id
    async with generations(tmp_path, server, ARTA_LOCAL_MODEL="other") as opened:
        with pytest.raises(KeyConflict):
            await opened.generate(request)
    assert len(server.bodies) == 1


async def test_what_an_engine_refuses_is_an_error_with_its_words_and_a_record_id(
    tmp_path: Path, server: ImageServer
) -> None:
    error = {"message": "not that", "code": "moderation_blocked"}
    server.answer = lambda _: JSONResponse({"error": error}, status_code=400)
    async with generations(tmp_path, server) as opened:
        with pytest.raises(PromptRejected, match="not that") as caught:
            await opened.generate(GenerationRequest.of(prompt="a fox"))
        assert caught.value.record_id
        assert caught.value.hint == "write the prompt in other words"
    gone = settings(tmp_path, ImageServer(), ARTA_LOCAL_MODEL="m", ARTA_LOCAL_DIALECT="plain")
    async with open_generations(gone) as opened:
        with pytest.raises(EngineUnavailable, match="no connection") as caught:
            await opened.generate(GenerationRequest.of(prompt="a fox"))
    assert "ARTA_LOCAL_URL" in caught.value.hint
    assert len(server.bodies) == 1


async def test_an_order_outlives_a_cancelled_call_and_is_drawn_once(
    tmp_path: Path, server: ImageServer
) -> None:
    server.delay = 0.6
    async with generations(tmp_path, server) as opened:
        pending = await opened.generate(GenerationRequest.of(prompt="a fox"), max_wait=0)
        with anyio.move_on_after(0.2):
            await opened.get(pending.record_id or "", max_wait=5)
        done = await opened.get(pending.record_id or "", max_wait=20)
    assert (pending.status, done.status) == ("pending", "done")
    assert len(server.bodies) == 1


# Settings


LOCAL = "ARTA_LOCAL_ENGINE"


@pytest.mark.parametrize(
    ("environ", "words", "hint"),
    [
        ({LOCAL: "comfy"}, "ARTA_LOCAL_ENGINE is 'comfy'", "sketch, openai, sdapi, diffusers"),
        ({LOCAL: "diffusers"}, "but ARTA_LOCAL_MODEL is not set", "a model_index.json"),
        (
            {LOCAL: "diffusers", "ARTA_LOCAL_MODEL": "./models/sd"},
            "ARTA_LOCAL_MODEL is './models/sd', neither an absolute path nor a name at the hub",
            "stabilityai/sd-turbo",
        ),
        (
            {LOCAL: "diffusers", "ARTA_LOCAL_MODEL": "https://example.com/model"},
            "neither an absolute path nor a name at the hub",
            "ARTA_LOCAL_MODEL",
        ),
        ({LOCAL: "openai"}, "neither ARTA_LOCAL_URL nor a key is set", "OPENAI_API_KEY"),
        ({LOCAL: "sdapi"}, "ARTA_LOCAL_URL is not set", "http://127.0.0.1:7860"),
        (
            {LOCAL: "sdapi", "ARTA_LOCAL_URL": "http://10.0.0.5:7860"},
            "plain http is for this machine only",
            "ARTA_LOCAL_HTTP=on",
        ),
        (
            {LOCAL: "sdapi", "ARTA_LOCAL_URL": "http://gpu.example.com", "ARTA_LOCAL_HTTP": "on"},
            "plain http is for this machine only",
            "use https://",
        ),
        ({LOCAL: "openai", "ARTA_LOCAL_KEY": "abc"}, "ARTA_LOCAL_KEY is shorter", "no key"),
        ({LOCAL: "openai", "ARTA_LOCAL_URL": "http://u:p@h"}, "user name", "leave them out"),
        ({LOCAL: "openai", "ARTA_LOCAL_URL": "nowhere"}, "'nowhere'", "http://127.0.0.1:7860"),
        (
            {LOCAL: "openai", "ARTA_LOCAL_URL": "127.0.0.1:8000"},
            "ARTA_LOCAL_URL is '127.0.0.1:8000', no address",
            "begin with http:// for this machine",
        ),
    ],
)
def test_settings_that_do_not_go_together_name_themselves_and_the_way_out(
    environ: Mapping[str, str], words: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env(environ)
    assert words in caught.value.message
    assert hint in caught.value.hint
    assert ":p@" not in caught.value.message


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://10.0.0.5", "http://gpu", "http://gpu.local"]
)
def test_plain_http_goes_to_a_machine_nearby_where_a_setting_allows_it(url: str) -> None:
    found = Settings.from_env({LOCAL: "sdapi", "ARTA_LOCAL_URL": url, "ARTA_LOCAL_HTTP": "on"})
    assert found.local_url == url


def test_a_model_of_diffusers_is_a_folder_or_a_name_at_the_hub() -> None:
    for model in ("/models/sd", "stabilityai/sd-turbo", "sd-turbo"):
        found = Settings.from_env({LOCAL: "diffusers", "ARTA_LOCAL_MODEL": model})
        assert (found.local_model, found.backend, found.drawn_by) == (model, "local", "engine")
    home = Settings.from_env({LOCAL: "diffusers", "ARTA_LOCAL_MODEL": "~/sd"})
    assert home.local_model == str(Path("~/sd").expanduser())


def test_a_key_of_openai_goes_to_openai_alone() -> None:
    openai = Settings.from_env({LOCAL: "openai", "OPENAI_API_KEY": KEY})
    assert openai.local_key is not None
    assert (openai.local_url, openai.local_key.reveal()) == ("https://api.openai.com", KEY)
    own = {LOCAL: "openai", "OPENAI_API_KEY": KEY, "ARTA_LOCAL_URL": "http://127.0.0.1:1"}
    assert Settings.from_env(own).local_key is None


def test_an_engine_of_ones_own_goes_before_a_key_and_what_is_not_used_is_told() -> None:
    both = {LOCAL: "openai", "ARTA_LOCAL_URL": "http://127.0.0.1:1", "ARTA_API_KEY": KEY}
    auto, arta = Settings.from_env(both), Settings.from_env({**both, "ARTA_BACKEND": "arta"})
    assert (auto.backend, auto.unused) == (
        "local",
        "ARTA_API_KEY is not used: ARTA_LOCAL_ENGINE=openai draws",
    )
    assert (arta.backend, arta.unused) == (
        "arta",
        "ARTA_LOCAL_ENGINE=openai is not used: ARTA_BACKEND is arta",
    )
    assert Settings.from_env({"ARTA_API_KEY": KEY}).unused is None
    half = Settings.from_env({"ARTA_LOCAL_URL": "http://127.0.0.1:1", "ARTA_LOCAL_MODEL": "m"})
    assert half.unused == (
        "not used: ARTA_LOCAL_URL, ARTA_LOCAL_MODEL, as ARTA_LOCAL_ENGINE is 'sketch'"
    )


async def test_what_an_engine_drew_is_saved_among_the_persons_pictures_and_nothing_removes_it(
    tmp_path: Path, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    without_folder = {"ARTA_OUTPUT_DIR": "", "ARTA_SKETCH_LIMIT": "1kB"}
    async with generations(tmp_path, server, **without_folder) as opened:
        done = await opened.generate(GenerationRequest.of(prompt="a fox"))
    (path,) = [Path(image.path or "") for image in done.images]
    assert path.parent == tmp_path / "home" / "Pictures" / "arta-mcp"
    with closing(sqlite3.connect(tmp_path / "state" / "generations.sqlite3")) as journal:
        journal.execute("UPDATE journal SET created_at = created_at - 86400")
        journal.commit()
    sketching = {**without_folder, "ARTA_LOCAL_ENGINE": "sketch"}
    async with generations(tmp_path, server, **sketching) as opened:
        for number in range(3):  # each beyond the limit of what is kept of sketches
            await opened.generate(GenerationRequest.of(prompt=str(number)))
        pruned, pictures = await opened.prune(0)
    assert (pruned.count, pictures) == (1, 0)
    kept = picture_path(tmp_path / "state" / "local", done.record_id or "", 0)
    assert kept is not None
    assert kept.read_bytes() == path.read_bytes()
    async with generations(tmp_path, server, ARTA_OUTPUT_DIR=str(tmp_path / "mine")) as opened:
        mine = await opened.generate(GenerationRequest.of(prompt="a fox"))
    assert Path(mine.images[0].path or "").parent == tmp_path / "mine"


def test_nothing_raises_but_arta_errors(tmp_path: Path) -> None:
    styles = tmp_path / "styles.json"
    styles.write_text("[{]", encoding="utf-8")
    with pytest.raises(ArtaError, match="line 1"):
        open_generations_with_styles(styles)


def open_generations_with_styles(path: Path) -> None:
    from arta_mcp.cli.settings import read_settings

    read_settings({"ARTA_LOCAL_STYLES": str(path)})


async def test_to_forget_removes_the_pictures_of_an_engine_too_but_none_saved_elsewhere(
    tmp_path: Path, server: ImageServer
) -> None:
    kept = tmp_path / "state" / "local" / "images"
    async with generations(tmp_path, server) as opened:
        await opened.generate(GenerationRequest.of(prompt="a fox"))
        assert len(list(kept.iterdir())) == 1
        forgotten, pictures = await opened.forget()
        assert (forgotten.count, forgotten.kept, pictures) == (1, 0, 1)
        assert await opened.history() == ()
    assert list(kept.iterdir()) == []
    assert len(list((tmp_path / "pictures").iterdir())) == 1
