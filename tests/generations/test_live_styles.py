"""LiveCatalogue: the live list when there is one, and nobody waits for it."""

from __future__ import annotations

import time
from itertools import islice, product
from pathlib import Path

import anyio
import httpx
import pytest

from arta_mcp.arta.client import ArtaClient
from arta_mcp.arta.protocol import STYLES_PATH, render_styles
from arta_mcp.background import open_background
from arta_mcp.errors import UnknownStyle
from arta_mcp.generations.live_styles import WAIT_TIMEOUT, LiveCatalogue
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.state.records import StyleList
from arta_mcp.state.sqlite import SqliteState
from harness.world import ORIGIN, World, new_world

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = new_world(tmp_path)
    world.styles_url = ORIGIN + STYLES_PATH
    return world


class Lister(httpx.ASGITransport):
    """The service, but for the style list, which names what the test wants."""

    names: tuple[str, ...] = ("Flux", "Brand New Style")
    asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == STYLES_PATH:
            self.asked += 1
            return httpx.Response(200, json=render_styles(self.names))
        return await super().handle_async_request(request)


async def test_the_live_list_is_told_with_its_day(world: World) -> None:
    async with world.generations() as generations:
        catalogue = await generations.catalogue()
    assert catalogue.source == "live"
    assert len(catalogue.styles) == 110
    assert world.service.seen["styles"] == 1


async def test_it_is_asked_for_once_a_day_and_kept_for_other_processes(world: World) -> None:
    lister = world.app = Lister(app=world.service)
    for _ in range(3):
        async with world.generations() as generations:
            for _ in range(3):
                await generations.catalogue()
    assert lister.asked == 1


async def test_a_name_that_only_the_service_knows_passes(world: World) -> None:
    world.app = Lister(app=world.service)
    async with world.generations() as generations:
        with pytest.raises(UnknownStyle) as caught:  # ours is a small service: it does not draw it
            await generations.generate(GenerationRequest(prompt="x", model="brand-new-style"))
    assert world.service.seen["submit"] == 1
    assert "'brand-new-style'" in caught.value.message


async def test_without_an_answer_the_shipped_table_serves(world: World) -> None:
    world.service.faults.add(Fault.parse("500@styles*always"))
    async with world.generations() as generations:
        catalogue = await generations.catalogue()
        await generations.catalogue()
    assert (catalogue.source, catalogue.as_of) == ("shipped", "2026-05-30")
    assert 1 <= world.service.seen["styles"] <= 4  # the tries of the first call, none of another


def many_names() -> tuple[str, ...]:
    """24,000 names of 32 letters in 792 kB, which differ in case only."""
    spelled = product(*zip("abcdefgh" * 4, "ABCDEFGH" * 4, strict=True))
    return tuple("".join(letters) for letters in islice(spelled, 24_000))


async def test_a_list_of_24000_names_is_not_taken_and_holds_nobody_up(world: World) -> None:
    world.app = lister = Lister(app=world.service)
    lister.names = many_names()
    longest, last = 0.0, time.perf_counter()
    generations = world.generations()

    async def tick() -> None:
        nonlocal longest, last
        while True:
            await anyio.sleep(0.01)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        async with generations:
            await generations.catalogue()
            with pytest.raises(UnknownStyle):
                await generations.generate(GenerationRequest(prompt="x", model="abcd" * 16))
        group.cancel_scope.cancel()
    assert lister.asked == 1
    assert generations.known_catalogue.source == "shipped"
    assert longest < 0.5


async def test_a_list_of_24000_names_that_an_earlier_version_stored_is_had_anew(
    world: World,
) -> None:
    state = SqliteState(world.folder / "state")
    await state.keep_styles("test", StyleList(many_names(), time.time()))
    await state.close()
    with anyio.fail_after(5):
        async with world.generations() as generations:
            await generations.catalogue()
    assert world.service.seen["styles"] == 1
    assert generations.known_catalogue.source == "live"
    assert len(generations.known_catalogue.styles) == 110


async def test_a_slow_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert WAIT_TIMEOUT <= 2
    monkeypatch.setattr("arta_mcp.generations.live_styles.WAIT_TIMEOUT", 0.2)
    released = anyio.Event()

    class Slow(ArtaClient):
        def __init__(self) -> None: ...

        @property
        def lists_styles(self) -> bool:
            return True

        async def list_styles(self) -> tuple[str, ...]:
            await released.wait()
            return ("Flux",)

    known = LiveCatalogue("test", clock=lambda: 1_800_000_000)
    async with open_background() as background:
        with anyio.fail_after(WAIT_TIMEOUT * 3):
            await known.refresh(SqliteState(tmp_path), Slow(), background)
        assert source_of(known) == "shipped"
        released.set()
        with anyio.fail_after(5):
            while source_of(known) != "live":
                await anyio.sleep(0.01)


def source_of(known: LiveCatalogue) -> str:
    return known.catalogue.source


async def test_what_a_call_waited_counts_from_its_beginning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SlowLister(Lister):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await anyio.sleep(0.1)
            return await super().handle_async_request(request)

    monkeypatch.setattr("arta_mcp.generations.progress.HEARTBEAT", 0.02)
    world.app = SlowLister(app=world.service)
    async with world.generations() as generations:
        request = GenerationRequest(prompt="x", model="Brand New Style")
        with pytest.raises(UnknownStyle):  # listed, but the service draws only what it knows
            await generations.generate(request, world.on_update)
    assert world.updates[0].waited >= 0.1
