"""The three tools: what an assistant can call, and how their progress is reported."""

from __future__ import annotations

import base64
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from mcp import types
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp.types.version import is_version_at_least
from pydantic import Field

from arta_mcp.generations.service import Generations
from arta_mcp.generations.values import Generation, GenerationRequest, Update
from arta_mcp.server.content import GenerationOutput, ModelsOutput, render, render_models
from arta_mcp.server.previews import make_previews
from arta_mcp.server.resources import GALLERY, IMAGE
from arta_mcp.server.sdk import StrictTool, with_fields_of

DRAWS = types.ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True
)
READS = types.ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=True
)
SHOWN_IN_GALLERY = {"ui": {"resourceUri": GALLERY}}
"""what makes a host with MCP Apps show a tool's result as pictures"""

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


@dataclass(frozen=True, slots=True)
class ResultExtras:
    """Which blocks a result has beside text and structured content; none unless a setting says."""

    resource_links: bool = False
    previews: bool = False

    async def render(
        self, generation: Generation, generations: Generations, ctx: Context[Any, Any]
    ) -> types.CallToolResult:
        """The result of a call, its extra blocks in the order of the pictures."""
        # hosts on earlier revisions fail the whole call on a block that they do not know
        knows_links = is_version_at_least(ctx.protocol_version or "", "2025-06-18")
        previews = await make_previews(generations, generation) if self.previews else {}
        record_id, total = generation.record_id, len(generation.images)
        blocks: list[types.ContentBlock] = []
        for index in range(total):
            if self.resource_links and knows_links:
                link = types.ResourceLink(
                    type="resource_link",
                    uri=IMAGE.format(record_id=record_id, index=index),
                    name=f"{record_id}-{index}",
                    title=f"{generation.request.prompt[:80]} ({index + 1} of {total})",
                    mime_type="image/webp",
                    # for the person; without it VS Code reads the resource and gives the picture
                    # to the model, as tokens
                    annotations=types.Annotations(audience=["user"]),
                )
                blocks.append(link)
            if index in previews:
                data = base64.b64encode(previews[index]).decode("ascii")
                blocks.append(types.ImageContent(type="image", data=data, mime_type="image/webp"))
        return render(generation, blocks)


def build_tools(generations: Generations, extras: ResultExtras) -> list[Tool]:
    """The three tools, in the order in which a host lists them."""

    async def generate_image(
        ctx: Context[Any, Any], **arguments: Any
    ) -> Annotated[types.CallToolResult, GenerationOutput]:
        # each argument was validated by the SDK with the request's own fields: not once more
        request = GenerationRequest.model_construct(**arguments)
        generation = await generations.generate(request, progress_reporter(ctx))
        return await extras.render(generation, generations, ctx)

    async def get_generation(
        ctx: Context[Any, Any], record_id: RecordId, max_wait: MaxWait | None = None
    ) -> Annotated[types.CallToolResult, GenerationOutput]:
        wait = min(max_wait or 0.0, generations.limits.max_wait)
        generation = await generations.get(record_id, progress_reporter(ctx), max_wait=wait)
        return await extras.render(generation, generations, ctx)

    async def list_models(
        search: Search | None = None,
    ) -> Annotated[types.CallToolResult, ModelsOutput]:
        catalogue = await generations.catalogue()
        found, summary = catalogue.search(search), generations.engine_summary
        return render_models(catalogue, found, generations.backend, summary)

    return [
        StrictTool.from_function(
            with_fields_of(GenerationRequest, generate_image),
            title="Generate image",
            description="Draws 1 to 8 pictures of a prompt and returns their addresses; show them"
            " to the person. Takes some seconds to a minute and reports progress. If it answers"
            " `pending`, the pictures are still being drawn: call get_generation.",
            annotations=DRAWS,
            meta=SHOWN_IN_GALLERY,
        ),
        StrictTool.from_function(
            get_generation,
            title="Get generation",
            description="The pictures of an earlier generate_image by its record id, or where it"
            " stands. Draws nothing new. Works after a time-out or a restart.",
            annotations=READS,
            meta=SHOWN_IN_GALLERY,
        ),
        StrictTool.from_function(
            list_models,
            title="List models",
            description="The models (styles) that generate_image can draw with, by category.",
            annotations=READS,
        ),
    ]


def progress_reporter(ctx: Context[Any, Any]) -> Callable[[Update], Awaitable[None]]:
    """Reports updates as MCP wants them: in strictly rising seconds, without an invented total."""
    last = 0.0

    async def report(update: Update) -> None:
        nonlocal last
        # two updates can fall on one millisecond; the specification says MUST increase, and the
        # SDK passes on what it is given
        last = max(round(update.waited, 3), last + 0.001)
        await ctx.report_progress(last, None, progress_message(update))

    return report


def progress_message(update: Update) -> str:
    """The state of a generation, for people: `drawing, 12 s (usually about 15 s)`."""
    words = {"waiting": "waiting for a free place", "saving": "saving the pictures"}
    ahead = f", {update.ahead} ahead of it" if update.ahead else ""
    message = f"{words.get(update.step, update.step)}{ahead}, {update.waited:.0f} s"
    # once the usual time has passed it says nothing about this job any more
    if update.step in ("queued", "drawing") and update.waited < (update.usual or 0):
        message += f" (usually about {math.ceil(update.usual or 0)} s)"
    return message
