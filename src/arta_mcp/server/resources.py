"""What a host can read: models, generations and their pictures, the gallery."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from mcp.server.apps import APP_MIME_TYPE
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from arta_mcp.errors import ArtaError, UnknownRecord
from arta_mcp.generations.service import Generations
from arta_mcp.server.content import explain
from arta_mcp.server.previews import READABLE, shrink

MODELS = "arta://models"
GENERATIONS = "arta://generations"
GENERATION = "arta://generations/{record_id}"
IMAGE = "arta://generations/{record_id}/images/{index}"
GALLERY = "ui://arta/gallery"

MAX_LISTED = 50
"""generations that are listed or completed, the newest first"""


def generation_uri(record_id: str) -> str:
    """The resource of one generation."""
    return GENERATION.format(record_id=record_id)


def image_uri(record_id: str, index: int) -> str:
    """The resource of one picture; `index` counts from 0."""
    return IMAGE.format(record_id=record_id, index=index)


@contextmanager
def resource_errors() -> Generator[None]:
    """The one place where an ArtaError becomes what `resources/read` answers with.

    UnknownRecord is -32602, every other one -32603 with its sentence. What is no ArtaError is a
    bug and stays one: the SDK logs it and keeps its text from the host.
    """
    try:
        yield
    except UnknownRecord as exc:
        raise ResourceNotFoundError(explain(exc)) from exc
    except ArtaError as exc:
        raise ResourceError(explain(exc)) from exc


def add_models(server: MCPServer[Any], generations: Generations) -> None:
    """Puts the catalogue of styles on the server."""

    @server.resource(
        MODELS,
        title="Models",
        description="The models (styles) that generate_image can draw with.",
        mime_type="application/json",
    )
    async def models() -> str:
        with resource_errors():
            catalogue = await generations.catalogue()
        listed = [
            {"id": style.id, "style": style.name, "category": style.category}
            for style in catalogue.styles
        ]
        content = {"as_of": catalogue.as_of, "source": catalogue.source, "models": listed}
        return json.dumps(content, ensure_ascii=False)


def add_generations(server: MCPServer[Any], generations: Generations) -> None:
    """Puts the latest generations, each generation and each picture on the server."""

    @server.resource(
        GENERATIONS,
        title="Latest generations",
        description=f"The latest {MAX_LISTED} generations, newest first.",
        mime_type="application/json",
    )
    async def latest() -> str:
        with resource_errors():
            found = await generations.history(MAX_LISTED)
        return json.dumps([generation.to_dict() for generation in found], ensure_ascii=False)

    @server.resource(
        GENERATION,
        title="Generation",
        description="One generation and where it stands.",
        mime_type="application/json",
    )
    async def generation(record_id: str) -> str:
        with resource_errors():
            found = await generations.get(record_id)
        return json.dumps(found.to_dict(), ensure_ascii=False)

    @server.resource(
        IMAGE,
        title="Picture",
        description="One picture of a generation, at most 1536 px and 700 kB; index counts from 0.",
        mime_type="image/webp",
    )
    async def image(record_id: str, index: str) -> bytes:
        # a template's parts come as text, and `int` also takes ` 1`, `+1`, `1_0` and other scripts
        if not index.isascii() or not index.isdigit():
            raise ResourceNotFoundError(f"the index of a picture is a number, not {index!r}")
        with resource_errors():
            picture = await generations.picture(record_id, int(index[:6]))
            return await shrink(picture.content, READABLE)


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
