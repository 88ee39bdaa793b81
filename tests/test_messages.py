"""Every sentence that a model or a person gets, in one reviewed file: tests/messages.json.

A changed sentence is a reviewable diff: `WRITE_SNAPSHOTS=1 pytest tests/test_messages.py`.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from arta_mcp.config import SETTINGS, Settings
from arta_mcp.errors import ArtaError, ConfigError
from arta_mcp.generations.values import GenerationRequest, Update
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.server.content import describe, describe_models, explain
from arta_mcp.server.tools import progress_message
from arta_mcp.styles import SHIPPED
from harness.world import LIMITS, World, new_world

SNAPSHOT = Path(__file__).parent / "messages.json"

SETTINGS_GONE_WRONG: list[dict[str, str]] = [
    {"ARTA_BACKEND": "arta"},
    {"ARTA_BACKEND": "remote"},
    {"ARTA_API_KEY": "${user_config.api_key}"},
    {"ARTA_API_KEY": "two words"},
    {"ARTA_BASE_URL": "http://example.org"},
    {"ARTA_BASE_URL": "ftp://example.org"},
    {"ARTA_BASE_URL": "https://me:secret@example.org"},
    {"ARTA_PROXY": "example.org:3128"},
    {"ARTA_MAX_WAIT": "abc"},
    {"ARTA_MAX_CONCURRENCY": "0"},
    {"ARTA_SKETCH_LIMIT": "2"},
    {"ARTA_STATE_URL": "db.example:6379"},
    {"ARTA_STATE_URL": "redis://db.example/name"},
    {"ARTA_HOURLY_LIMIT": "0"},
    {"ARTA_OUTPUT_DIR": "pictures"},
    {"ARTA_USER_AGENT": "naïve"},
    {"ARTA_PREVIEW": "yes"},
    {"ARTA_LOG_LEVEL": "loud"},
    {"ARTA_LOCAL_ENGINE": "comfy"},
    {"ARTA_LOCAL_ENGINE": "openai"},
    {"ARTA_LOCAL_ENGINE": "sdapi"},
    {"ARTA_LOCAL_ENGINE": "sdapi", "ARTA_LOCAL_URL": "http://10.0.0.5:7860"},
    {"ARTA_LOCAL_ENGINE": "diffusers"},
    {"ARTA_LOCAL_ENGINE": "diffusers", "ARTA_LOCAL_MODEL": "./sd-turbo"},
    {"ARTA_LOCAL_SIZES": "1024"},
    {"ARTA_LOCAL_KEY": "abc"},
    {"ARTA_LOCAL_MODEL": "x" * 201},
    {"ARTA_HTTP_PORT": "http"},
    {"ARTA_HTTP_TOKENS": "alice"},
    {"ARTA_HTTP_TOKENS": "alice=a-token-of-16-letters,bob=short"},
    {"ARTA_HTTP_TOKENS": "alice=a-token-of-16-letters,bob=a-token-of-16-letters"},
    {"ARTA_HTTP_ALLOWED_HOSTS": "*"},
    {"ARTA_HTTP_ALLOWED_ORIGINS": "app.example.com"},
]

REQUESTS_GONE_WRONG: list[dict[str, object]] = [
    {"prompt": ""},
    {"prompt": "x", "n": 9},
    {"prompt": "x", "aspect_ratio": "5:7"},
    {"prompt": "x", "aspect_ratio": "5x4"},
    {"prompt": "x", "num_inference_steps": 51},
    {"prompt": "x", "seed": -1},
    {"prompt": "x", "ratio": "1:1"},
    {"prompt": "x", "model": "fluxx"},
    {"prompt": "x", "model": "zzzzzz"},
    {"prompt": "x", "model": "SDXL 1.0"},
    {"prompt": "x", "model": "cyberpunk"},
]

TROUBLE = [
    "400@submit",
    "401@submit*always",
    "403@submit",
    "404@submit",
    "422@submit",
    "429@submit",
    "429-wait@submit=60",
    "500@submit",
    "503@submit",
    "empty-body@submit",
    "html-body@submit",
    "unknown-status@submit",
    "error-code@status=NSFW",
    "error-details@status=the prompt is not allowed",
    "403@status",
    "404@status*always",
    "done-null@status*always",
    "done-empty@status*always",
    "foreign-scheme@status",
    "all-blurred@status",
    "ADMIN_ONLY_OPERATION@sign_up",
    "API_KEY_INVALID@sign_up",
    "API_KEY_ANDROID_APP_BLOCKED@sign_up",
    "TOO_MANY_ATTEMPTS_TRY_LATER@sign_up*always",
    "500@sign_up*always",
    "not-object@sign_up",
]


@pytest.mark.anyio
async def test_every_sentence_is_the_reviewed_one(tmp_path: Path) -> None:
    said = {
        "settings": {str(env): of_settings(env) for env in SETTINGS_GONE_WRONG},
        "requests": {
            str(wish): await of_request(new_world(tmp_path / f"r{number}"), wish)
            for number, wish in enumerate(REQUESTS_GONE_WRONG)
        },
        "trouble": {
            fault: await of_trouble(new_world(tmp_path / f"t{number}"), fault)
            for number, fault in enumerate(TROUBLE)
        },
        "results": await of_results(tmp_path),
        "progress": of_progress(),
        "models": describe_models(SHIPPED, SHIPPED.search("zzzzzz")).splitlines(),
    }
    if os.environ.get("WRITE_SNAPSHOTS") == "1":
        text = json.dumps(said, indent=1, ensure_ascii=False)
        SNAPSHOT.write_text(f"{text}\n", encoding="utf-8")
    assert said == json.loads(SNAPSHOT.read_text(encoding="utf-8")), __doc__


def test_every_setting_that_can_be_wrong_is_among_them() -> None:
    tried = {name for env in SETTINGS_GONE_WRONG for name in env}
    alike = {"ARTA_AUTH_URL", "ARTA_TOKEN_REFRESH_URL", "ARTA_STYLES_URL"}  # as ARTA_BASE_URL
    alike |= {"ARTA_JOB_TIMEOUT", "ARTA_MIN_POLL_INTERVAL"}  # as ARTA_MAX_WAIT
    alike |= {"ARTA_OWNER"}  # as ARTA_LOCAL_MODEL
    alike |= {"ARTA_HTTP_HOST", "ARTA_HTTP_AUDIENCE", "ARTA_HTTP_SCOPE"}
    alike |= {"ARTA_HTTP_PUBLIC_URL", "ARTA_HTTP_ISSUER"}  # as ARTA_BASE_URL
    alike |= {"ARTA_HTTP_CALLER_CONCURRENCY", "ARTA_HTTP_CALLER_RATE"}
    alike |= {"ARTA_STATE_DIR", "ARTA_RESOURCE_LINKS", "ARTA_QUICK_REPLIES"}
    alike |= {"ARTA_LOCAL_DIALECT", "ARTA_LOCAL_STYLES", "ARTA_LOCAL_HTTP"}
    alike |= {f"ARTA_LOCAL_{name}" for name in ("DEVICE", "DTYPE", "OFFLOAD", "DOWNLOAD")}
    alike |= {"ARTA_LOCAL_STEPS", "ARTA_LOCAL_GUIDANCE", "ARTA_LOCAL_IDLE"}
    free = {"ARTA_CLIENT_TYPE"}  # any text will do
    assert {setting.name for setting in SETTINGS} == tried | alike | free


def of_settings(env: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env(env)
    return [f"error: {caught.value.message}", f"hint: {caught.value.hint}"]


async def of_request(world: World, wish: dict[str, object]) -> str:
    async with world.generations() as generations:
        with pytest.raises(ArtaError) as caught:
            await generations.generate(GenerationRequest.of(**wish))
    return masked(explain(caught.value))


async def of_trouble(world: World, fault: str) -> str:
    world.service.faults.add(Fault.parse(fault))
    timeout = 1 if fault.endswith("*always") and "done-" not in fault else 20
    async with world.generations(replace(LIMITS, job_timeout=timeout)) as generations:
        try:
            done = await generations.generate(GenerationRequest(prompt="a fox", n=2, seed=7))
        except ArtaError as exc:
            return f"{type(exc).__name__}: {masked(explain(exc))}"
    return f"recovered: {done.status}"


async def of_results(tmp_path: Path) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    world = new_world(tmp_path / "done")
    request = GenerationRequest(prompt="a fox", n=2, seed=7)
    world.service.faults.add(Fault.parse("some-blurred@status"), Fault.parse("404@image"))
    async with world.generations(output_dir=tmp_path / "out") as generations:
        done = await generations.generate(request)
        said["done, one blurred, one not saved"] = masked(describe(done)).splitlines()
        keyed = GenerationRequest(prompt="a fox", seed=7, idempotency_key="k1")
        first = await generations.generate(keyed)
        with pytest.raises(ArtaError) as caught:
            await generations.generate(keyed.model_copy(update={"prompt": "another"}))
        assert caught.value.record_id == first.record_id
        said["key of another request"] = [masked(explain(caught.value))]
        with pytest.raises(ArtaError) as caught:
            await generations.get("nope")
        said["unknown record"] = [masked(explain(caught.value))]
    world = new_world(tmp_path / "pending", queue=3600)
    async with world.generations(replace(LIMITS, max_concurrency=1)) as generations:
        pending = await generations.generate(request, max_wait=0)
        said["pending"] = masked(describe(pending)).splitlines()
        with pytest.raises(ArtaError) as caught:
            await generations.generate(request, max_wait=0)
        said["no free place"] = [masked(explain(caught.value))]
    async with world.generations(replace(LIMITS, job_timeout=0.1)) as generations:
        with pytest.raises(ArtaError) as caught:
            await generations.generate(request)
        said["too long"] = [masked(explain(caught.value))]
    return said


def of_progress() -> list[str]:
    return [
        progress_message(Update(step="waiting", waited=1)),
        progress_message(Update(step="ordering", waited=2)),
        progress_message(Update(step="queued", waited=4.2, record_id="x")),
        progress_message(Update(step="queued", waited=4.2, record_id="x", ahead=12)),
        progress_message(Update(step="drawing", waited=12, record_id="x", usual=15.4)),
        progress_message(Update(step="saving", waited=16, record_id="x", usual=15.4)),
    ]


def masked(text: str) -> str:
    text = re.sub(r"[0-9a-f]{32}", "RECORD", text)
    text = re.sub(r"(\d\.) /.*/", r"\1 FOLDER/", text)
    text = re.sub(r"\d+\.\d s", "N s", text)
    # How far a job is when it is looked at, the machine's load decides.
    return re.sub(r"status (IN_QUEUE|IN_PROGRESS|DONE),", "status STATUS,", text)
