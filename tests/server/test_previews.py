"""Smaller copies of a picture, and which hosts get one."""

from __future__ import annotations

import base64
import io
import random
import re
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.extension import advertise
from mcp.types import ImageContent, Implementation
from PIL import Image as Pillow
from PIL import ImageColor

from arta_mcp.errors import ProtocolError
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.server.build import build_server
from arta_mcp.server.previews import PICTURE_HOSTS, PREVIEW, READABLE, shrink, tile
from arta_mcp.server.tools import ResultExtras
from harness.world import World, new_world


def noise(width: int, height: int, mode: str = "RGB") -> bytes:
    pixels = random.Random(7).randbytes(width * height * len(mode))
    buffer = io.BytesIO()
    Pillow.frombytes(mode, (width, height), pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("bounds", [PREVIEW, READABLE])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_even_noise_fits_its_bounds(bounds: tuple[int, int], mode: str) -> None:
    small = shrink(noise(1400, 760, mode), *bounds)
    assert len(small) <= bounds[1]
    with Pillow.open(io.BytesIO(small)) as picture:
        assert picture.format == "WEBP"
        assert max(picture.size) <= bounds[0]


def test_a_small_picture_keeps_its_size() -> None:
    with Pillow.open(io.BytesIO(shrink(noise(60, 40), *PREVIEW))) as picture:
        assert picture.size == (60, 40)


@pytest.mark.parametrize("content", [b"", b"<html>", noise(80, 80)[:600], b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_told(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        shrink(content, *PREVIEW)


def test_a_contact_sheet_shows_every_picture_in_order() -> None:
    colours = ["red", "lime", "blue", "yellow", "black"]
    small = [shrink(plain(colour), *PREVIEW) for colour in colours]
    with Pillow.open(io.BytesIO(tile(small, *PREVIEW))) as sheet:
        assert sheet.format == "WEBP"
        assert max(sheet.size) <= PREVIEW[0]
        cell = sheet.width // 3
        middles = [
            sheet.convert("RGB").getpixel((n % 3 * cell + cell // 2, n // 3 * cell + cell // 2))
            for n in range(6)
        ]
    for found, colour in zip(middles, [*colours, "white"], strict=True):
        assert isinstance(found, tuple)
        wanted = ImageColor.getrgb(colour)
        assert all(abs(a - b) < 40 for a, b in zip(found, wanted, strict=True)), colour


def plain(colour: str) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (300, 200), colour).save(buffer, "PNG")
    return buffer.getvalue()


APPS = advertise("io.modelcontextprotocol/ui", {"mimeTypes": ["text/html;profile=mcp-app"]})


async def previews_of(
    world: World, mode: Any, setting: Any, name: str, *extensions: Any, **arguments: object
) -> list[bytes]:
    """The pictures inside the result that a host of this name gets."""
    server = build_server(world.generations(), ResultExtras(previews=setting))
    info = Implementation(name=name, version="1")
    async with Client(server, mode=mode, client_info=info, extensions=extensions) as asked:
        result = await asked.call_tool("generate_image", {"prompt": "x", **arguments})
    return [base64.b64decode(one.data) for one in result.content if isinstance(one, ImageContent)]


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_host_that_shows_pictures_gets_one_of_the_whole_result(
    tmp_path: Path, mode: str
) -> None:
    for host in PICTURE_HOSTS:
        for n in (1, 5):
            found = await previews_of(new_world(tmp_path), mode, "auto", host, n=n)
            assert len(found) == 1
            assert len(found[0]) <= PREVIEW[1]


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("name", ["", "mcp", "mcp-use", "llama-index", "claude-ai", "cherry"])
async def test_other_hosts_get_none(tmp_path: Path, mode: str, name: str) -> None:
    assert await previews_of(new_world(tmp_path), mode, "auto", name) == []


@pytest.mark.anyio
async def test_a_setting_ends_the_choice_by_name(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    assert await previews_of(world, "auto", "off", "Cherry Studio", n=2) == []
    assert len(await previews_of(world, "auto", "on", "mcp", n=2)) == 2


@pytest.mark.anyio
async def test_a_host_with_apps_shows_the_gallery_instead(tmp_path: Path) -> None:
    assert await previews_of(new_world(tmp_path), "auto", "auto", "Cherry Studio", APPS) == []


@pytest.mark.anyio
async def test_a_result_without_any_readable_picture_has_no_preview(tmp_path: Path) -> None:
    world = new_world(tmp_path)
    world.service.faults.add(Fault.parse("404@image*always"))
    assert await previews_of(world, "auto", "auto", "Cherry Studio", n=2) == []


def test_every_host_that_gets_a_picture_is_in_the_table_for_people() -> None:
    page = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
    for name, evidence in PICTURE_HOSTS.items():
        assert f"`{name}`" in page
        assert re.search(r"20\d\d-\d\d-\d\d$", evidence)
    assert "SHOULD NOT" in page
