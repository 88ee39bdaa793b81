"""Many calls at once on the embedded service, as one process of ours makes them."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest

from arta_mcp.app import open_generations
from arta_mcp.config import Settings
from arta_mcp.engines.base import ImageRequest
from arta_mcp.engines.sketch import engine
from arta_mcp.errors import PicturesRemoved
from arta_mcp.generations.values import GenerationRequest, Update
from harness.world import tiny_picture

pytestmark = pytest.mark.anyio

CALLS = 60


async def test_a_crowd_is_drawn_one_after_the_other_and_nobody_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(request: ImageRequest) -> bytes:
        time.sleep(0.1)
        return tiny_picture(request)

    monkeypatch.setattr(engine, "draw", draw)
    statuses = Counter[str]()
    places: list[int] = []

    async def hear(update: Update) -> None:
        if update.ahead is not None:
            places.append(update.ahead)

    settings = Settings.from_env({"ARTA_STATE_DIR": str(tmp_path), "ARTA_MAX_WAIT": "8"})
    async with open_generations(settings) as generations, anyio.create_task_group() as group:

        async def call(number: int) -> None:
            request = GenerationRequest(prompt=f"a fox {number}")
            statuses[(await generations.generate(request, hear)).status] += 1

        for number in range(CALLS):
            group.start_soon(call, number)
    assert statuses.keys() <= {"done", "pending"}
    # With the least times, eight at once would have taken 12 s.
    assert statuses["done"] > CALLS / 2
    assert max(places) > 5
    lines = (tmp_path / "local" / "service.log").read_text(encoding="utf-8").splitlines()
    polls = sum(json.loads(line)["endpoint"] == "status" for line in lines)
    assert polls < 10 * CALLS


async def test_pictures_that_are_gone_are_told_as_gone_and_not_as_late(tmp_path: Path) -> None:
    settings = Settings.from_env({"ARTA_STATE_DIR": str(tmp_path)})
    async with open_generations(settings) as generations:
        done = await generations.generate(GenerationRequest(prompt="a fox"))
        record_id = done.record_id or ""
        assert done.images[0].path is not None
        await anyio.Path(done.images[0].path).unlink()
        local = tmp_path / "local"
        (local / "records" / f"{record_id}.json").unlink()
        (local / "removed").write_text(f"{record_id}\n", encoding="utf-8")
        told = await generations.get(record_id)
        assert told.images == ()
        assert told.notice is not None
        assert "this sketch was removed to make room, or with `history --prune`" in told.notice
        assert "draw them again" in told.notice
        with pytest.raises(PicturesRemoved, match="removed to make room"):
            await generations.picture(record_id, 0)
    (local / "removed").unlink()
    async with open_generations(settings) as generations:
        assert "the pictures are gone" in str((await generations.get(record_id)).notice)
        with pytest.raises(PicturesRemoved, match="the pictures are gone"):
            await generations.picture(record_id, 0)


def test_slots_are_as_set_and_many_only_where_the_service_has_its_own_queue() -> None:
    remote = {"ARTA_API_KEY": "a-key-of-our-own"}
    assert Settings.from_env({}).slots == 1000
    assert Settings.from_env(remote).slots == 8
    for environ in ({}, remote):
        assert Settings.from_env({**environ, "ARTA_MAX_CONCURRENCY": "3"}).slots == 3
