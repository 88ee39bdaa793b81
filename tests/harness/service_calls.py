"""How the tests of the embedded service talk to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from arta_mcp.arta.protocol import (
    REFRESH_PATH,
    SIGN_UP_PATHS,
    SUBMIT_PATH,
    Job,
    Tokens,
    status_path,
)
from arta_mcp.arta.refusals import Refusal
from arta_mcp.engines.base import ImageRequest
from harness.service import ScriptedService

FORM = {"prompt": "a red fox in snow", "style": "Flux", "images_num": "2"}


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def paint(request: ImageRequest) -> bytes:
    """An engine that is quick and says what it was asked for."""
    return b"\x89PNG\r\n\x1a\n" + repr(request).encode()


@asynccontextmanager
async def calling(service: ScriptedService, token: str = "") -> AsyncGenerator[httpx.AsyncClient]:
    headers = {"Authorization": token} if token else {}
    transport = httpx.ASGITransport(service)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1:7", headers=headers
    ) as client:
        yield client


async def sign_up(service: ScriptedService) -> Tokens:
    async with calling(service) as client:
        answer = await client.post(SIGN_UP_PATHS[1], params={"key": "k"}, json={})
    return Tokens.parse(answer.content)


async def refresh(service: ScriptedService, token: str, **more: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token, **more}
    async with calling(service) as client:
        return await client.post(REFRESH_PATH, params={"key": "k"}, data=form)


async def submit(service: ScriptedService, **more: str) -> Job:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.post(SUBMIT_PATH, data={**FORM, **more})
    assert answer.status_code == 200, answer.text
    return Job.parse(answer.content)


async def poll_job(service: ScriptedService, record_id: str, *, embedded: bool = False) -> Job:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.get(status_path(record_id))
    return Job.parse(answer.content, embedded=embedded)


def code(answer: httpx.Response) -> str:
    return Refusal.parse(answer.status_code, answer.headers, answer.content).code
