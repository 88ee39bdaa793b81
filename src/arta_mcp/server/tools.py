"""The tools: what an assistant sees of arta-mcp."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
from mcp.server.apps import Apps
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp.types import CallToolResult, ContentBlock, Icon, ToolAnnotations
from mcp.types.version import is_version_at_least
from pydantic import Field, ValidationError

from arta_mcp import __version__
from arta_mcp.arta.protocol import (
    DEFAULT_NEGATIVE_PROMPT,
    GuidanceScale,
    ImageCount,
    NegativePrompt,
    Prompt,
    Ratio,
    Seed,
    Steps,
)
from arta_mcp.errors import ArtaError
from arta_mcp.generations.service import Generations
from arta_mcp.generations.values import (
    Generation,
    GenerationRequest,
    IdempotencyKey,
    Model,
    Update,
    explain_arguments,
)
from arta_mcp.server.content import (
    GenerationOutput,
    ModelsOutput,
    explain,
    link,
    preview,
    progress_message,
    render,
    render_models,
)
from arta_mcp.server.previews import preview_bounds, shrunk
from arta_mcp.server.resources import (
    GALLERY,
    Announcer,
    add_completions,
    add_prompts,
    add_resources,
    image_uri,
)
from arta_mcp.server.sdk import MendedWire, Wire
from arta_mcp.styles import DEFAULT

log = logging.getLogger(__name__)

WEBSITE = "https://github.com/arta-mcp/arta-mcp"

INSTRUCTIONS = (
    "Draws pictures from text. Call generate_image with a full, visual prompt and show the person"
    " the addresses it returns. If it answers `pending`, call get_generation with the record id"
    " instead of ordering again. When you repeat a call that failed or timed out, send the same"
    " idempotency_key, unless the error says otherwise. list_models shows the styles."
)

ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect"
    " width='32' height='32' rx='7' fill='%23264653'/%3E%3Ccircle cx='22' cy='10' r='4'"
    " fill='%23e9c46a'/%3E%3Cpath d='M3 27 12 12l7 11 3-4 7 8z' fill='%23e76f51'/%3E%3C/svg%3E"
)

DRAWS = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True
)
READS = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=True
)

RecordId = Annotated[
    str, Field(min_length=1, max_length=200, description="record_id of an earlier result")
]
MaxWait = Annotated[
    float,
    Field(
        ge=0,
        le=600,
        description="seconds to wait, within the server's own limit; 0 or null: one look",
    ),
]
Search = Annotated[
    str, Field(max_length=200, description="words to look for: `van gogh`, `logo`, `flux`")
]


class StrictTool(Tool):
    """A tool that refuses unknown arguments and explains wrong ones in our own words."""

    @classmethod
    def of(cls, tool: Tool) -> StrictTool:
        strict = cls(**{name: getattr(tool, name) for name in Tool.model_fields})
        model = strict.fn_metadata.arg_model
        model.model_config["extra"] = "forbid"
        model.model_rebuild(force=True)
        strict.parameters = _plain(model.model_json_schema(by_alias=True))
        return strict

    async def run(
        self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False
    ) -> Any:
        try:
            self.fn_metadata.validate_arguments(arguments)
        except ValidationError as exc:
            wrong = explain_arguments(exc, self.parameters)
            raise ToolError(f"Error executing tool {self.name}: {explain(wrong)}") from exc
        return await super().run(arguments, context, convert_result)


@dataclass(frozen=True, slots=True)
class Extras:
    """What results hold beside text and structured content, off unless a setting says so."""

    resource_links: bool = False
    previews: bool = False

    async def of(
        self, generations: Generations, generation: Generation, protocol: str | None
    ) -> list[ContentBlock]:
        """`protocol` is the client's revision; links break clients before 2025-06-18."""
        blocks: list[ContentBlock] = []
        for index in range(len(generation.images)):
            record_id = generation.record_id or ""
            if self.resource_links and is_version_at_least(protocol or "", "2025-06-18"):
                blocks.append(link(generation, index, image_uri(record_id, index)))
            if self.previews:
                blocks += await _preview(generations, record_id, index, len(generation.images))
        return blocks


async def _preview(
    generations: Generations, record_id: str, index: int, count: int
) -> list[ContentBlock]:
    """A preview is an extra: without it the result still serves."""
    try:
        picture = await generations.picture(record_id, index)
        return [preview(await shrunk(picture.content, preview_bounds(count)))]
    except ArtaError as exc:
        log.warning("no preview of %s, picture %s: %s", record_id, index, exc)
        return []


def build_server(generations: Generations, extras: Extras = Extras()) -> MCPServer[Any]:  # frozen
    """The server over one Generations, which opens with the server and closes with it."""
    bus = InMemorySubscriptionBus()
    announcer = Announcer(bus)

    ui = {"ui": {"resourceUri": GALLERY}}

    async def show(generation: Generation, ctx: Context[Any, Any]) -> CallToolResult:
        return render(generation, await extras.of(generations, generation, ctx.protocol_version))

    async def generate_image(
        ctx: Context[Any, Any],
        prompt: Prompt,
        model: Model = DEFAULT,
        negative_prompt: NegativePrompt = DEFAULT_NEGATIVE_PROMPT,
        n: ImageCount = 1,
        aspect_ratio: Ratio = "1:1",
        guidance_scale: GuidanceScale = 7,
        num_inference_steps: Steps = 30,
        seed: Seed | None = None,
        idempotency_key: IdempotencyKey | None = None,
    ) -> Annotated[CallToolResult, GenerationOutput]:
        with _translated():
            request = GenerationRequest(
                prompt=prompt,
                model=model,
                negative_prompt=negative_prompt,
                n=n,
                aspect_ratio=aspect_ratio,
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
                seed=seed,
                idempotency_key=idempotency_key,
            )
            return await show(await generations.generate(request, _reporter(ctx)), ctx)

    async def get_generation(
        ctx: Context[Any, Any], record_id: RecordId, max_wait: MaxWait | None = None
    ) -> Annotated[CallToolResult, GenerationOutput]:
        with _translated():
            wait = min(max_wait or 0.0, generations.limits.max_wait)
            found = await generations.get(record_id, _reporter(ctx), max_wait=wait)
            return await show(found, ctx)

    async def list_models(search: Search | None = None) -> Annotated[CallToolResult, ModelsOutput]:
        with _translated():
            catalogue = await generations.catalogue()
            return render_models(catalogue, catalogue.search(search), generations.backend)

    @asynccontextmanager
    async def lifespan(_: MCPServer[Any]) -> AsyncGenerator[None]:
        async with generations:
            unsubscribe = generations.subscribe(announcer)
            try:
                yield
            finally:
                unsubscribe()

    tools = (
        Tool.from_function(
            generate_image,
            title="Generate image",
            description=(
                "Draws 1 to 8 pictures of a prompt and returns their addresses; show them to the"
                " person. Takes some seconds to a minute and reports progress. If it answers"
                " `pending`, the pictures are still being drawn: call get_generation."
            ),
            annotations=DRAWS,
            meta=ui,
        ),
        Tool.from_function(
            get_generation,
            title="Get generation",
            description=(
                "The pictures of an earlier generate_image by its record id, or where it stands."
                " Draws nothing new. Works after a time-out or a restart."
            ),
            annotations=READS,
            meta=ui,
        ),
        Tool.from_function(
            list_models,
            title="List models",
            description="The models (styles) that generate_image can draw with, by category.",
            annotations=READS,
        ),
    )
    server: MCPServer[Any] = MCPServer(
        "arta-mcp",
        title="ARTA image generation",
        instructions=INSTRUCTIONS,
        website_url=WEBSITE,
        icons=[Icon(src=ICON, mime_type="image/svg+xml", sizes=["any"])],
        version=__version__,
        tools=[StrictTool.of(tool) for tool in tools],
        lifespan=lifespan,
        extensions=[Apps()],
        subscriptions=bus,
        log_level="WARNING",
    )
    announcer.attach(server)
    add_resources(server, generations)
    add_prompts(server)
    add_completions(server, generations)
    return server


def serve_wire(server: MCPServer[Any], wire: Wire) -> None:
    """Serves one connection until it ends, as `server.run()` does on one that it opens itself."""
    file = anyio.AsyncFile[str](MendedWire(wire))  # pyright: ignore[reportArgumentType]  # these three will do
    core = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # run() takes no streams

    async def serve() -> None:
        async with stdio_server(file, file) as (incoming, outgoing):
            await core.run(incoming, outgoing, core.create_initialization_options())

    anyio.run(serve)


class _translated:
    """Where every ArtaError becomes a ToolError; anything else is a bug and stays one."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ArtaError):
            raise ToolError(explain(error)) from error


def _reporter(ctx: Context[Any, Any]):
    """Progress as MCP wants it: strictly rising, in seconds, without an invented total."""
    last = 0.0

    async def report(update: Update) -> None:
        nonlocal last
        last = max(round(update.waited, 3), last + 0.001)
        await ctx.report_progress(last, None, progress_message(update))

    return report


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without pydantic's titles, which repeat the names and cost every host bytes."""
    return {
        key: _plain(value) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownArgumentType]  # JSON
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
