"""What a host can read, the gallery among it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from importlib.resources import files
from typing import Any

from mcp.server.apps import APP_MIME_TYPE
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from arta_mcp.errors import ArtaError, UnknownRecord
from arta_mcp.generations.callers import Call
from arta_mcp.generations.pictures import run_in_turn
from arta_mcp.generations.service import Generations
from arta_mcp.generations.values import Generation
from arta_mcp.server.calls import current_owner
from arta_mcp.server.content import explain
from arta_mcp.server.previews import READABLE, shrink

MODELS = "arta://models"
GENERATIONS = "arta://generations"
GENERATION = "arta://generations/{record_id}"
IMAGE = "arta://generations/{record_id}/images/{index}"
GALLERY = "ui://arta/gallery"
JSON = "application/json"

MAX_LISTED = 50
"""generations that are listed or completed, the newest first"""


def readable(
    server: MCPServer[Any], uri: str, title: str, description: str, mime_type: str = JSON
) -> Callable[[Callable[..., Awaitable[str | bytes]]], None]:
    """Puts a function on the server as a resource; the one place where its ArtaErrors end.

    UnknownRecord is -32602, every other one -32603 with its sentence. What is no ArtaError is a
    bug and stays one: the SDK logs it and keeps its text from the host.
    """

    def decorate(read: Callable[..., Awaitable[str | bytes]]) -> None:
        @server.resource(uri, title=title, description=description, mime_type=mime_type)
        @wraps(read)
        async def answer(**arguments: str) -> str | bytes:
            try:
                return await read(**arguments)
            except UnknownRecord as exc:
                raise ResourceNotFoundError(explain(exc)) from exc
            except ArtaError as exc:
                raise ResourceError(explain(exc)) from exc

    return decorate


def add_resources(
    server: MCPServer[Any], generations: Generations, show: Callable[[Generation], Generation]
) -> None:
    """Puts the models, the latest generations, each generation and each picture on the server.

    `show` gives a generation as a caller may see it.
    """

    @readable(server, MODELS, "Models", "The models (styles) that generate_image can draw with.")
    async def models() -> str:
        catalogue = await generations.catalogue()
        listed = [
            {"id": s.id, "style": s.name, "category": s.category} for s in catalogue.search(None)
        ]
        content = {"as_of": catalogue.as_of, "source": catalogue.source, "models": listed}
        return json.dumps(content, ensure_ascii=False)

    newest = f"The latest {MAX_LISTED} generations, newest first."

    @readable(server, GENERATIONS, "Latest generations", newest)
    async def latest() -> str:
        found = await generations.history(MAX_LISTED, owner=current_owner())
        return json.dumps([show(generation).to_dict() for generation in found], ensure_ascii=False)

    @readable(server, GENERATION, "Generation", "One generation and where it stands.")
    async def generation(record_id: str) -> str:
        found = await generations.get(record_id, call=Call(owner=current_owner()))
        return json.dumps(show(found).to_dict(), ensure_ascii=False)

    bounds = "One picture of a generation, at most 1536 px and 700 kB; index counts from 0."

    @readable(server, IMAGE, "Picture", bounds, "image/webp")
    async def image(record_id: str, index: str) -> bytes:
        # a template's parts come as text, and `int` also takes ` 1`, `+1`, `1_0` and other scripts
        if not index.isascii() or not index.isdigit():
            raise ResourceNotFoundError(f"the index of a picture is a number, not {index!r}")
        picture = await generations.picture(record_id, int(index[:6]), owner=current_owner())
        return await run_in_turn(partial(shrink, picture.content, *READABLE))


def add_gallery(server: MCPServer[Any]) -> None:
    """Puts the MCP App on the server that shows the pictures of a result."""

    @server.resource(
        GALLERY,
        title="Gallery",
        description="Shows the pictures of a result.",
        mime_type=APP_MIME_TYPE,
        meta={"ui": {"prefersBorder": True, "permissions": {"clipboardWrite": {}}}},
    )
    def gallery() -> str:
        return files("arta_mcp.server").joinpath("gallery.html").read_text(encoding="utf-8")
