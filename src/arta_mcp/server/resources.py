"""Resources, prompts and completions: what a host can offer beside the tools."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any
from weakref import WeakSet

from mcp.server.apps import APP_MIME_TYPE
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.server.subscriptions import SubscriptionBus
from mcp.shared.subscriptions import ResourcesListChanged, ResourceUpdated
from mcp.types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    EmptyResult,
    PromptReference,
    ResourceTemplateReference,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)
from pydantic import Field

from arta_mcp.arta.protocol import RATIOS
from arta_mcp.errors import ArtaError, UnknownRecord
from arta_mcp.matching import normalize
from arta_mcp.server.content import explain
from arta_mcp.server.previews import READABLE, shrunk

if TYPE_CHECKING:
    from arta_mcp.generations.service import Generations

MODELS = "arta://models"
GENERATIONS = "arta://generations"
GENERATION = "arta://generations/{record_id}"
IMAGE = "arta://generations/{record_id}/images/{index}"
GALLERY = "ui://arta/gallery"

LATEST = 50
MOST_COMPLETIONS = 100
"""as the specification bounds them"""


def image_uri(record_id: str, index: int) -> str:
    """The resource of one picture; `index` counts from 0."""
    return f"{GENERATIONS}/{record_id}/images/{index}"


class Announcer:
    """Tells subscribers of both protocol eras which generations are new or have ended."""

    def __init__(self, bus: SubscriptionBus) -> None:
        """`bus` reaches `subscriptions/listen`; earlier clients subscribe to single resources."""
        self._bus = bus
        self._connections: dict[str, WeakSet[Connection]] = {}

    def attach(self, server: MCPServer[Any]) -> None:
        """Serves `resources/subscribe`, which clients before 2026-07-28 use."""
        core = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # the SDK points there for methods that 2026-07-28 removed
        core.add_request_handler("resources/subscribe", SubscribeRequestParams, self._subscribe)
        core.add_request_handler(
            "resources/unsubscribe", UnsubscribeRequestParams, self._unsubscribe
        )

    async def __call__(self, record_id: str) -> None:
        """A generation is new or has ended."""
        await self._bus.publish(ResourcesListChanged())
        for uri in (GENERATIONS, f"{GENERATIONS}/{record_id}"):
            await self._bus.publish(ResourceUpdated(uri=uri))
            for connection in tuple(self._connections.get(uri, ())):
                await connection.send_resource_updated(uri)

    async def _subscribe(
        self, ctx: ServerRequestContext[Any], params: SubscribeRequestParams
    ) -> EmptyResult:
        self._connections.setdefault(str(params.uri), WeakSet()).add(_connection(ctx))
        return EmptyResult()

    async def _unsubscribe(
        self, ctx: ServerRequestContext[Any], params: UnsubscribeRequestParams
    ) -> EmptyResult:
        self._connections.get(str(params.uri), WeakSet()).discard(_connection(ctx))
        return EmptyResult()


def _connection(ctx: ServerRequestContext[Any]) -> Connection:
    return ctx.session._connection  # pyright: ignore[reportPrivateUsage]  # a session lives for one request only


def add_resources(server: MCPServer[Any], generations: Generations) -> None:
    """Puts everything that can be read on the server."""

    @server.resource(
        MODELS,
        title="Models",
        description="The models (styles) that generate_image can draw with.",
        mime_type="application/json",
    )
    async def models() -> str:
        catalogue = await generations.catalogue()
        listed = [
            {"id": style.id, "style": style.name, "category": style.category}
            for style in catalogue.styles
        ]
        told = {"as_of": catalogue.as_of, "source": catalogue.source, "models": listed}
        return json.dumps(told, ensure_ascii=False)

    @server.resource(
        GENERATIONS,
        title="Latest generations",
        description=f"The latest {LATEST} generations, newest first.",
        mime_type="application/json",
    )
    async def latest() -> str:
        found = await generations.history(LATEST)
        return json.dumps([generation.to_dict() for generation in found], ensure_ascii=False)

    @server.resource(
        GENERATION,
        title="Generation",
        description="One generation and where it stands.",
        mime_type="application/json",
    )
    async def generation(record_id: str) -> str:
        with translated():
            found = await generations.get(record_id)
            return json.dumps(found.to_dict(), ensure_ascii=False)

    @server.resource(
        IMAGE,
        title="Picture",
        description="One picture of a generation, at most 1536 px and 700 kB; index counts from 0.",
        mime_type="image/webp",
    )
    async def image(record_id: str, index: str) -> bytes:
        if not index.isascii() or not index.isdigit():
            raise ResourceNotFoundError(f"the index of a picture is a number, not {index!r}")
        with translated():
            picture = await generations.picture(record_id, int(index[:6]))
            return await shrunk(picture.content, READABLE)

    @server.resource(
        GALLERY,
        title="Gallery",
        description="Shows the pictures of a result.",
        mime_type=APP_MIME_TYPE,
        meta={"ui": {"prefersBorder": True, "permissions": {"clipboardWrite": {}}}},
    )
    def gallery() -> str:
        return files("arta_mcp.server").joinpath("gallery.html").read_text(encoding="utf-8")


def add_prompts(server: MCPServer[Any]) -> None:
    """Puts the prompts on the server, for people to pick in their host."""

    @server.prompt(title="Draw an idea")
    def draw(
        idea: Annotated[str, Field(description="what you have in mind, in a few words")],
        model: Annotated[str, Field(description="model id; empty: let the assistant choose")] = "",
        aspect_ratio: Annotated[str, Field(description="like 16:9; empty: what fits")] = "",
    ) -> str:
        """Turn an idea into a good prompt, style and ratio, and draw it."""
        chosen = f"Use the model {model}." if model else "Choose a fitting model with list_models."
        shape = f"Use the ratio {aspect_ratio}." if aspect_ratio else "Choose a fitting ratio."
        return (
            f"Draw this idea: {idea}\n\n"
            "First write one full, visual prompt of two or three sentences: subject, what it does,"
            f" setting, light, mood, manner. {chosen} {shape} Then call generate_image once, show"
            " me the picture's address and the prompt you wrote."
        )

    @server.prompt(title="Vary a picture")
    def vary(
        record_id: Annotated[str, Field(description="record id of a finished generation")],
        change: Annotated[str, Field(description="what should be different")],
    ) -> str:
        """Draw a finished generation again with one thing changed."""
        return (
            f"Call get_generation with record_id {record_id} and read its prompt, model, ratio and"
            f" seed. Rewrite the prompt so that this is different: {change}. Keep everything else,"
            " the seed too, and call generate_image once. Show me both addresses and what you"
            " changed in the prompt."
        )


def add_completions(server: MCPServer[Any], generations: Generations) -> None:
    """Puts completions of models, ratios and record ids on the server."""

    @server.completion()
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        match argument.name:
            case "model":
                catalogue = generations.known_catalogue
                found = [style.id for style in catalogue.styles]
            case "aspect_ratio":
                found = list(RATIOS)
            case "record_id":
                latest = await generations.history(LATEST)
                found = [entry.record_id for entry in latest if entry.record_id]
            case "index":
                found = [str(index) for index in range(8)]
            case _:
                return None
        return _completion(found, argument.value)


def _completion(values: list[str], begun: str) -> Completion:
    """What begins like the text so far first, then what has such a word, then what holds it."""
    key = normalize(begun)
    keys = {value: normalize(value) for value in values}
    begin = [value for value in values if keys[value].startswith(key)]
    word = [value for value in values if f"-{key}" in keys[value]]
    hold = [value for value in values if key in keys[value]]
    found = list(dict.fromkeys(begin + word + hold))
    shown = found[:MOST_COMPLETIONS]
    return Completion(values=shown, total=len(found), has_more=len(found) > len(shown))


class translated:
    """Where every ArtaError of a resource becomes what MCP calls it."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UnknownRecord):
            raise ResourceNotFoundError(explain(error)) from error
        if isinstance(error, ArtaError):
            raise ResourceError(explain(error)) from error
