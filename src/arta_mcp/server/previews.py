"""Smaller copies of a picture, for hosts that count every byte."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server.apps import client_supports_apps
from mcp.server.mcpserver import Context

from arta_mcp.errors import ArtaError
from arta_mcp.generations.downloads import MAX_DOWNLOADS
from arta_mcp.generations.pictures import decode, run_in_turn
from arta_mcp.generations.results import join_notes
from arta_mcp.generations.service import Generations
from arta_mcp.generations.values import Generation

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

log = logging.getLogger(__name__)

PICTURE_HOSTS = {
    "Cherry Studio": "CherryHQ/cherry-studio issue 13029, 1.7.19, 2026-02-25",
    "lmstudio-mcp-bridge": "LM Studio: lmstudio-bug-tracker issue 1746, 0.4.9, 2026-04-03",
    "chat-ui-mcp": "HuggingChat: huggingface/chat-ui pull request 1988, 2025-11-19",
}
"""name that a host introduces itself with -> the evidence that it shows the person a picture that
stands in a result, and makes no text of it; docs/clients.md has those that do not"""

PREVIEW = 512, 150 * 1000
"""pixels of the longer side and bytes of a preview inside a result"""

MAX_PREVIEWS_SIZE = 700 * 1000
"""bytes of all previews of a result: Claude Desktop cuts a result at 1 MiB, in base64"""

MIN_TIME = 0.5
"""seconds for previews even so: a job that ends at the last moment can show what is saved"""

READABLE = 1536, 700 * 1000
"""the same of a picture that is read as a resource: in base64 it stays under 1 MiB"""


GAP = 6
"""pixels between the pictures of a contact sheet"""


def shows_pictures(ctx: Context[Any, Any]) -> bool:
    """Whether the host of this call is known to show pictures, and not in the gallery already.

    Choosing by name is what the specification says a server SHOULD NOT do: no capability says
    whether a person sees a picture of a result, or a model 46,000 characters of base64.
    """
    client = ctx.session.client_params
    name = client.client_info.name if client else ""
    return name in PICTURE_HOSTS and not client_supports_apps(ctx)


async def make_preview(
    generations: Generations, generation: Generation, *, until: float
) -> tuple[bytes | None, str | None]:
    """One small picture of a whole result as WebP, and a notice; None when none can be had."""
    previews, missing = await make_previews(generations, generation, until=until)
    match [previews[index] for index in sorted(previews)]:
        case []:
            return None, missing
        case [one]:
            return one, missing
        case several:
            return await run_in_turn(partial(tile, several, *PREVIEW)), missing


async def make_previews(
    generations: Generations, generation: Generation, *, until: float
) -> tuple[dict[int, bytes], str | None]:
    """The previews of a result as WebP, by index, and a notice about those that are left out.

    `until` is when the call's waiting ends, by `anyio.current_time()`: what is not ready then is
    left out, like what cannot be made.
    """
    previews: dict[int, bytes] = {}
    failed: list[int] = []
    side, size = PREVIEW
    size = min(size, MAX_PREVIEWS_SIZE // max(1, len(generation.images)))
    limiter = anyio.CapacityLimiter(MAX_DOWNLOADS)

    async def make(index: int) -> None:
        async with limiter:
            try:
                picture = await generations.read_picture(generation, index)
                previews[index] = await run_in_turn(partial(shrink, picture.content, side, size))
            except ArtaError as exc:
                log.warning("no preview of %s, picture %s: %s", generation.record_id, index, exc)
                failed.append(index)

    with anyio.CancelScope(deadline=max(until, anyio.current_time() + MIN_TIME)):
        async with anyio.create_task_group() as group:
            for index in range(len(generation.images)):
                group.start_soon(make, index)
    total = len(generation.images)
    late = total - len(previews) - len(failed)
    return previews, join_notes(
        f"{late} of {total} previews were not ready in time" if late else None,
        f"{len(failed)} of {total} previews could not be made" if failed else None,
    )


def shrink(content: bytes, side: int, size: int) -> bytes:
    """The picture as WebP within `side` pixels and `size` bytes; for `run_in_turn`.

    Raises ProtocolError for what cannot be shown.
    """
    return encode(decode(content, enough=(2 * side, 2 * side)), side, size)


def tile(previews: Sequence[bytes], side: int, size: int) -> bytes:
    """All previews on one contact sheet within `side` pixels and `size` bytes, row by row."""
    from PIL import Image

    columns = math.ceil(math.sqrt(len(previews)))
    cell = side // columns
    sheet = Image.new("RGB", (columns * cell, math.ceil(len(previews) / columns) * cell), "white")
    for number, content in enumerate(previews):
        with Image.open(io.BytesIO(content)) as preview:
            preview.thumbnail((cell - GAP, cell - GAP))
            left = number % columns * cell + (cell - preview.width) // 2
            top = number // columns * cell + (cell - preview.height) // 2
            sheet.paste(preview, (left, top))
    return encode(sheet, side, size)


def encode(picture: Picture, side: int, size: int) -> bytes:
    """The picture as WebP within `side` pixels and `size` bytes; it is made smaller in place."""
    # first a worse quality, which few people see at this size, then fewer pixels; noise, which no
    # format makes small, ends here too
    while True:
        picture.thumbnail((side, side))
        for quality in (86, 70, 50, 30):
            buffer = io.BytesIO()
            picture.save(buffer, "WEBP", quality=quality, method=2)
            if buffer.tell() <= size:
                return buffer.getvalue()
        side = side * 2 // 3
