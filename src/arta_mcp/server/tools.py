"""The three tools: what an assistant can call, and how their progress is reported."""

from __future__ import annotations

import base64
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import anyio
from mcp import types
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp.types.version import is_version_at_least
from pydantic import BaseModel, ConfigDict, Field

from arta_mcp.errors import (
    ArtaError,
    InvalidRequest,
    SubmitUnknown,
    Unavailable,
    UnknownRecord,
    UnknownStyle,
)
from arta_mcp.generations.callers import Call
from arta_mcp.generations.results import join_notes
from arta_mcp.generations.service import Generations
from arta_mcp.generations.values import ENGINES_OWN, Generation, GenerationRequest, Update
from arta_mcp.server.calls import current_call, current_caller
from arta_mcp.server.content import (
    GenerationOutput,
    LookUpOutput,
    ModelsOutput,
    describe_engine,
    render,
    render_models,
)
from arta_mcp.server.previews import make_preview, make_previews, shows_pictures
from arta_mcp.server.resources import GALLERY, IMAGE, MAX_LISTED
from arta_mcp.server.sdk import StrictTool

DRAWS = types.ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True
)
READS = types.ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=True
)
SHOWN_IN_GALLERY = {"ui": {"resourceUri": GALLERY}}
"""what makes a host with MCP Apps show a tool's result as pictures"""


MAX_EARLIER = 4
"""generations that are named before the newest one"""

SUBMIT_CHECK_INTERVAL = 0.25
"""seconds between two looks for the record id of a submit under way"""


class LookUp(BaseModel):
    """The arguments of `get_generation`."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    record_id: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=200,
                description="record_id of an earlier result; without it the newest generation",
            ),
        ]
        | None
    ) = None
    max_wait: (
        Annotated[
            float,
            Field(
                ge=0,
                le=600,
                description="seconds to wait at most; without it as long as generate_image waits;"
                " 0: one look",
            ),
        ]
        | None
    ) = None


class Search(BaseModel):
    """The arguments of `list_models`."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    search: (
        Annotated[
            str,
            Field(
                max_length=200,
                description="words to look for: `van gogh`, `photorealistic`, `logo`",
            ),
        ]
        | None
    ) = None


@dataclass(frozen=True, slots=True)
class ResultExtras:
    """Which blocks a result has beside text and structured content; none unless a setting says.

    `show` gives a generation as a caller may see it.
    """

    resource_links: bool = False
    previews: Literal["auto", "on", "off"] = "off"
    """`on`: one of each picture; `auto`: one of the whole result for hosts known to show it"""
    show: Callable[[Generation], Generation] = lambda generation: generation

    async def render(
        self,
        generation: Generation,
        generations: Generations,
        ctx: Context[Any, Any],
        *,
        until: float,
        earlier: Sequence[Generation] | None = None,
    ) -> types.CallToolResult:
        """The result of a call, its extra blocks in the order of the pictures.

        `until` is when the call's waiting ends, by `anyio.current_time()`.
        """
        # hosts on earlier revisions fail the whole call on a block that they do not know
        knows_links = is_version_at_least(ctx.protocol_version or "", "2025-06-18")
        previews: dict[int, bytes] = {}
        missing = None
        if self.previews == "on":
            previews, missing = await make_previews(generations, generation, until=until)
        elif self.previews == "auto" and shows_pictures(ctx):
            preview, missing = await make_preview(generations, generation, until=until)
            previews = {0: preview} if preview else {}
        generation = replace(generation, notice=join_notes(generation.notice, missing))
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
        return render(self.show(generation), blocks, earlier=earlier)


def build_tools(generations: Generations, extras: ResultExtras) -> list[Tool]:
    """The three tools, in the order in which a host lists them."""

    async def generate_image(
        ctx: Context[Any, Any], arguments: GenerationRequest
    ) -> Annotated[types.CallToolResult, GenerationOutput]:
        call = current_call()
        generation = await generations.generate(arguments, progress_reporter(ctx), call=call)
        until = generations.waits_until(call)
        return await extras.render(generation, generations, ctx, until=until)

    async def get_generation(
        ctx: Context[Any, Any], arguments: LookUp
    ) -> Annotated[types.CallToolResult, LookUpOutput]:
        call, wait = current_call() or Call(), arguments.max_wait
        if wait is not None:
            wait = min(wait, generations.limits.max_wait)
        record_id, earlier = arguments.record_id, ()
        if record_id is None and not current_caller().is_known:
            raise InvalidRequest(
                "record_id",
                None,
                "that of an earlier result",
                message="record_id is missing: this server cannot tell its callers apart",
                hint="give the record_id that generate_image answered with",
            )
        if record_id is None:
            until = generations.waits_until(call, wait)
            record_id, earlier = await find_newest(generations, until, owner=call.owner)
        # both waits count from when the call came: they have one end
        found = await generations.get(record_id, progress_reporter(ctx), max_wait=wait, call=call)
        until = generations.waits_until(call)
        return await extras.render(found, generations, ctx, until=until, earlier=earlier)

    async def list_models(
        arguments: Search,
    ) -> Annotated[types.CallToolResult, ModelsOutput]:
        catalogue = await generations.catalogue()
        found, about = catalogue.search(arguments.search), generations.engine_summary
        about = describe_engine(about, await generations.engine_models())
        return render_models(catalogue, found, generations.backend, about)

    def find_wrong_model(arguments: Mapping[str, object]) -> Sequence[ArtaError]:
        try:
            if isinstance(model := arguments.get("model"), str) and model:
                generations.known_catalogue.resolve(model)
        except UnknownStyle as exc:
            return [exc]
        return []

    draw = StrictTool.from_function(
        generate_image,
        title="Generate image",
        description="Draws 1 to 8 pictures of a prompt and returns their files or addresses; show"
        " them to the person. Takes some seconds to a minute and reports progress. If it answers"
        " `pending`, the pictures are still being drawn: call get_generation.",
        annotations=DRAWS,
        meta=SHOWN_IN_GALLERY,
    )
    if generations.engine.has_defaults:
        for name in ENGINES_OWN:
            draw.parameters["properties"][name].pop("default", None)
    return [
        draw.model_copy(update={"also_wrong": find_wrong_model}),
        StrictTool.from_function(
            get_generation,
            title="Get generation",
            description="The pictures of an earlier generate_image by its record id, or where it"
            " stands; without record_id those of the newest, and which came before. Draws nothing"
            " new. Works after a time-out or a restart.",
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


async def find_newest(
    generations: Generations, until: float, *, owner: str | None
) -> tuple[str, tuple[Generation, ...]]:
    """The record id of the owner's newest generation, and those before it, newest first.

    One whose submit is still under way is waited for until `until`. A refused one is none: no
    job came of it. Raises UnknownRecord when there is none, SubmitUnknown for one that was lost.
    """
    while True:
        found = await generations.history(MAX_LISTED, owner=owner)
        found = [one for one in found if one.status != "refused"][: MAX_EARLIER + 1]
        if not found:
            raise UnknownRecord("there is no generation yet", hint="call generate_image")
        newest, *earlier = found
        if newest.record_id is not None:
            return newest.record_id, tuple(earlier)
        if newest.status == "unknown":
            raise SubmitUnknown("the answer to the newest generation's submit was lost")
        if anyio.current_time() >= until or generations.is_draining:
            raise Unavailable(
                "the newest generation has no record id yet",
                hint="call get_generation again in some seconds; do not order it again",
            )
        await anyio.sleep(SUBMIT_CHECK_INTERVAL)


def progress_reporter(ctx: Context[Any, Any]) -> Callable[[Update], Awaitable[None]]:
    """Reports updates as MCP wants them: strictly rising, and without an invented total.

    An engine's steps have a total; until the first of them, and without any, seconds have none.
    """
    last, base = 0.0, None

    async def report(update: Update) -> None:
        nonlocal last, base
        if update.drawn is not None:
            # The seconds before the first step may be more than all steps: they are gone ahead of.
            step, steps = update.drawn
            base = last if base is None else base
            last = max(base + step, last + 0.001)
            await ctx.report_progress(last, base + steps, progress_message(update))
            return
        # two updates can fall on one millisecond; the specification says MUST increase, and the
        # SDK passes on what it is given
        last = max(round(update.waited, 3), last + 0.001)
        await ctx.report_progress(last, None, progress_message(update))

    return report


def progress_message(update: Update) -> str:
    """The state of a generation, for people: `drawing, 12 s (usually about 15 s)`."""
    words = {"waiting": "waiting for a free place", "saving": "saving the pictures"}
    ahead = f", {update.ahead} ahead of it" if update.ahead else ""
    drawn = f", step {update.drawn[0]} of {update.drawn[1]}" if update.drawn else ""
    message = f"{words.get(update.step, update.step)}{drawn}{ahead}, {update.waited:.0f} s"
    # once the usual time has passed it says nothing about this job any more
    if update.step in ("queued", "drawing") and update.waited < (update.usual or 0):
        message += f" (usually about {math.ceil(update.usual or 0)} s)"
    return message
