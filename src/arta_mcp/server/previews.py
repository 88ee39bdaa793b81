"""Smaller copies of a picture, for hosts that count every byte."""

from __future__ import annotations

import io
import logging
from functools import partial

import anyio

from arta_mcp.errors import ArtaError
from arta_mcp.generations.downloads import MAX_DOWNLOADS
from arta_mcp.generations.pictures import decode, run_in_turn
from arta_mcp.generations.results import join_notes
from arta_mcp.generations.service import Generations
from arta_mcp.generations.values import Generation

log = logging.getLogger(__name__)

PREVIEW = 512, 150 * 1000
"""pixels of the longer side and bytes of a preview inside a result"""

MAX_PREVIEWS_SIZE = 700 * 1000
"""bytes of all previews of a result: Claude Desktop cuts a result at 1 MiB, in base64"""

MIN_TIME = 0.5
"""seconds for previews even so: a job that ends at the last moment can show what is saved"""

READABLE = 1536, 700 * 1000
"""the same of a picture that is read as a resource: in base64 it stays under 1 MiB"""


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
    small = decode(content, enough=(2 * side, 2 * side))
    # first a worse quality, which few people see at this size, then fewer pixels; noise, which no
    # format makes small, ends here too
    while True:
        small.thumbnail((side, side))
        for quality in (86, 70, 50, 30):
            buffer = io.BytesIO()
            small.save(buffer, "WEBP", quality=quality, method=2)
            if buffer.tell() <= size:
                return buffer.getvalue()
        side = side * 2 // 3
