"""What a caller on another machine is shown of this one: links that end, and no path."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import mcp
import pytest
from mcp import Client
from starlette.applications import Starlette

from arta_mcp.generations.values import GeneratedImage, Generation, GenerationRequest
from arta_mcp.server.build import build_server
from arta_mcp.server.remote_view import LINK_TTL, PictureLinks, hide_folders, hide_paths
from arta_mcp.server.tools import ResultExtras
from harness.world import new_world

pytestmark = pytest.mark.anyio

URL = "https://mcp.example.com/arta"


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def generation(path: str | None) -> Generation:
    image = GeneratedImage("http://127.0.0.1:7/images/a-0.png", "image/png", False, path)
    return Generation(
        record_id="a" * 32,
        status="done",
        backend="local",
        engine="sketch",
        engine_model=None,
        model="flux",
        style="Flux",
        request=GenerationRequest(prompt="a fox"),
        seed=1,
        images=(image, image),
        elapsed=1.0,
        created_at=0.0,
    )


async def get(links: PictureLinks, url: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=Starlette(routes=[links.route]))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.get(url.removeprefix(URL))


async def test_a_link_opens_until_its_end_and_for_its_picture_alone(tmp_path: Path) -> None:
    clock, picture = Clock(), tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG pixels")
    asked: list[tuple[str, int]] = []

    def find_file(record_id: str, index: int) -> str | None:
        asked.append((record_id, index))
        return str(picture) if picture.exists() else None

    links = PictureLinks(public_url=URL, key=b"k" * 32, find_file=find_file, clock=clock)
    shown = links.show(generation(str(picture)))
    assert [image.path for image in shown.images] == [None, None]
    first, second = (image.url for image in shown.images)
    assert first.startswith(f"{URL}/pictures/{'a' * 32}/0?until=")
    found = await get(links, second)
    assert (found.status_code, found.content) == (200, picture.read_bytes())
    assert found.headers["content-type"] == "image/png"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert asked == [("a" * 32, 1)]

    query = parse_qs(urlsplit(first).query)
    later = f"{float(query['until'][0]) + 1:.0f}"
    other_key = PictureLinks(public_url=URL, key=b"j" * 32, find_file=find_file, clock=clock)
    for forged in (
        first.replace(query["until"][0], later),
        first.replace("/0?", "/1?"),
        first.replace("a" * 32, "b" * 32),
        first.partition("&")[0],
        first.partition("?")[0],
        other_key.show(generation(None)).images[0].url,
    ):
        assert (await get(links, forged)).status_code == 404
    assert asked == [("a" * 32, 1)]  # a file is looked for behind a signature alone

    clock.now += LINK_TTL - 1
    assert (await get(links, first)).status_code == 200
    clock.now += 2
    assert (await get(links, first)).status_code == 410
    clock.now -= 2
    picture.unlink()
    assert (await get(links, first)).status_code == 410


async def test_no_path_is_in_a_result_a_resource_or_an_error(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    world = new_world(tmp_path / "world")
    generations = world.generations(output_dir=saved)
    server = build_server(generations, ResultExtras(show=hide_paths))
    hide_folders(server, [str(saved), str(world.folder)])
    async with Client(server) as client:
        result = await client.call_tool("generate_image", {"prompt": "a fox"})
        listed = await client.read_resource("arta://generations")
        assert list(saved.iterdir())
        said = result.model_dump_json() + listed.model_dump_json()
        assert str(tmp_path) not in said
        assert result.structured_content is not None
        assert [image["path"] for image in result.structured_content["images"]] == [None]
    (world.folder / "state").rename(tmp_path / "elsewhere")
    (world.folder / "state").write_text("no folder")
    broken = build_server(world.generations(), ResultExtras(show=hide_paths))
    hide_folders(broken, [str(world.folder / "state")])
    async with Client(broken) as client:
        failed = await client.call_tool("generate_image", {"prompt": "a fox"})
        assert failed.is_error
        told = failed.model_dump_json()
        with pytest.raises(mcp.MCPError) as caught:
            await client.read_resource("arta://generations")
        told += caught.value.error.message
    assert "the state folder <a folder of the server>" in told
    assert str(tmp_path) not in told
