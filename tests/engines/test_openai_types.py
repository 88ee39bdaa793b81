"""What is sent and answered in our tests is what the `openai` package's own types describe.

The package has an environment of its own, made by `make test-engines`: at run time it is not used,
since it sends a request again whose answer was lost.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest

from arta_mcp.arta.protocol import RATIOS
from arta_mcp.arta.transport import Transport
from arta_mcp.engines.base import ImageRequest, fit_size
from arta_mcp.engines.http import Server
from arta_mcp.engines.openai_images import OpenAIImages
from arta_mcp.redaction import Secret
from harness.image_server import ImageServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PYTHON = Path(__file__).parents[2] / ".cache/engines/bin/python"

VALIDATE = """
import json, sys
from openai.types import ImagesResponse
from openai.types.image_generate_params import ImageGenerateParamsNonStreaming
from pydantic import TypeAdapter

given = json.load(sys.stdin)
params = TypeAdapter(ImageGenerateParamsNonStreaming)
for body in given["bodies"]:
    params.validate_python(body, strict=True)
    strange = body.keys() - ImageGenerateParamsNonStreaming.__annotations__.keys() - {
        name for base in ImageGenerateParamsNonStreaming.__orig_bases__
        for name in getattr(base, "__annotations__", ())
    }
    assert not strange, strange
for answer in given["answers"]:
    assert ImagesResponse.model_validate(answer, strict=True).data
print(len(given["bodies"]), len(given["answers"]))
"""


async def test_requests_and_answers_are_of_the_published_types() -> None:
    if not PYTHON.exists():
        if os.environ.get("REQUIRE_ALL"):
            pytest.fail("make test-engines makes the environment that is missing")
        pytest.skip("make test-engines makes the environment that this needs")
    sent: list[ImageServer] = []
    for gives in ("b64_json", "url"):
        server = ImageServer(gives=gives)
        sent.append(server)
        app = httpx.ASGITransport(server.app)
        async with Transport(user_agent="t", direct=True, app=app) as http:
            to = Server("http://127.0.0.1:9", http, Secret("sk-0123456789"))
            for dialect in ("openai", "plain"):
                engine = OpenAIImages(to, model="gpt-image-2", dialect=dialect)
                for ratio in RATIOS:
                    size = fit_size(engine.describe(), ratio)
                    request = ImageRequest("a fox", "fog", "Flux", "flux", 1, 0, ratio, size, 9, 3)
                    await engine.generate(replace(request), lambda step, steps: None)
    bodies = [body for server in sent for body in server.bodies]
    answers = [answer for server in sent for answer in server.answers]
    given = json.dumps({"bodies": bodies, "answers": answers}).encode()
    with anyio.fail_after(120):
        run = await anyio.run_process([str(PYTHON), "-c", VALIDATE], input=given, check=False)
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout.split() == [b"36", b"36"]
