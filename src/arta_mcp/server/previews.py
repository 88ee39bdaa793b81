"""Smaller copies of a picture, for hosts that count every byte; Pillow works off the loop."""

from __future__ import annotations

import io

import anyio.to_thread

from arta_mcp.errors import ProtocolError

PREVIEW = (512, 150 * 1000)
"""longest side in pixels and most bytes of a preview inside a result"""

ALL_PREVIEWS = 700 * 1000
"""most bytes of all previews of a result: Claude Desktop cuts a result at 1 MiB, in base64"""

READABLE = (1536, 700 * 1000)
"""the same of a picture that is read as a resource: in base64 it stays under 1 MiB"""


def preview_bounds(count: int) -> tuple[int, int]:
    """The bounds of each of `count` previews of one result."""
    side, limit = PREVIEW
    return side, min(limit, ALL_PREVIEWS // max(1, count))


async def shrunk(content: bytes, bounds: tuple[int, int]) -> bytes:
    """The picture as WebP within (longest side in pixels, most bytes); raises ProtocolError."""
    side, limit = bounds
    return await anyio.to_thread.run_sync(_shrink, content, side, limit)


def _shrink(content: bytes, side: int, limit: int) -> bytes:
    from PIL import Image  # for the first picture, not for the first answer

    try:
        with Image.open(io.BytesIO(content)) as picture:
            small = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
        raise ProtocolError("what came as a picture cannot be read as one") from exc
    while True:
        small.thumbnail((side, side))
        for quality in (86, 70, 50, 30):
            buffer = io.BytesIO()
            small.save(buffer, "WEBP", quality=quality, method=2)
            if buffer.tell() <= limit:
                return buffer.getvalue()
        side = side * 2 // 3
