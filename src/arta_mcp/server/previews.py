"""Smaller copies of a picture, for hosts that count every byte; Pillow works off the loop."""

from __future__ import annotations

import io
import logging

import anyio.to_thread

from arta_mcp.errors import ArtaError, ProtocolError
from arta_mcp.generations.downloads import MAX_DOWNLOADS
from arta_mcp.generations.service import Generations
from arta_mcp.generations.values import Generation

log = logging.getLogger(__name__)


PREVIEW = 512, 150 * 1000
"""pixels of the longer side and bytes of a preview inside a result"""

MAX_PREVIEWS_SIZE = 700 * 1000
"""bytes of all previews of a result: Claude Desktop cuts a result at 1 MiB, in base64"""

READABLE = 1536, 700 * 1000
"""the same of a picture that is read as a resource: in base64 it stays under 1 MiB"""


async def make_previews(generations: Generations, generation: Generation) -> dict[int, bytes]:
    """The previews of a result as WebP, by index; one that cannot be made is logged, left out."""
    previews: dict[int, bytes] = {}
    side, size = PREVIEW
    size = min(size, MAX_PREVIEWS_SIZE // max(1, len(generation.images)))
    # a picture in memory can be 32 MiB, and several times that once Pillow has opened it
    limiter = anyio.CapacityLimiter(MAX_DOWNLOADS)

    async def make(index: int) -> None:
        async with limiter:
            try:
                picture = await generations.read_picture(generation, index)
                previews[index] = await anyio.to_thread.run_sync(
                    shrink, picture.content, side, size
                )
            except ArtaError as exc:
                log.warning("no preview of %s, picture %s: %s", generation.record_id, index, exc)

    async with anyio.create_task_group() as group:
        for index in range(len(generation.images)):
            group.start_soon(make, index)
    return previews


def shrink(content: bytes, side: int, size: int) -> bytes:
    """The picture as WebP within `side` pixels and `size` bytes; takes its time, so for a thread.

    Raises ProtocolError for what is no picture.
    """
    from PIL import Image  # for the first picture, not for the first answer

    try:
        with Image.open(io.BytesIO(content)) as picture:
            small = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
        raise ProtocolError("what came as a picture cannot be read as one") from exc
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
