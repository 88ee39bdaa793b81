"""Reading pictures that somebody else made: pixels are counted first, and one is read at a time."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import anyio.to_thread
from anyio.lowlevel import RunVar

from arta_mcp.errors import ProtocolError

if TYPE_CHECKING:
    from PIL.Image import Image  # at run time on first use: for the first picture, not before

T = TypeVar("T")

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF")
"""what is read at all: Pillow knows some 40 more, among them one that starts Ghostscript"""

MAX_PIXELS = 25_000_000
"""of a picture that is read, 5,000 x 5,000; at 4 bytes each, and some codecs hold them thrice"""

_turn = RunVar[anyio.CapacityLimiter]("arta-mcp decodes one picture at a time")


def decode(content: bytes, *, enough: tuple[int, int] | None = None) -> Image:
    """The (first) picture as RGB or RGBA; of a JPEG only about as many pixels as are `enough`.

    Takes time and memory, so for a thread of its own, by `run_in_turn`. Raises ProtocolError for
    what is no picture, or one of over 25 million pixels.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Pillow warns on stderr of what is refused below, with its size.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(content), formats=FORMATS)
        with opened as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise ProtocolError(f"a picture of {width} x {height} pixels is too large to show")
            if enough is not None:
                picture.draft("RGB", enough)
            return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    except ProtocolError:
        raise
    except Exception as exc:  # each codec has its own errors: libavif raises RuntimeError
        raise ProtocolError("what came as a picture cannot be read as one") from exc


async def run_in_turn(work: Callable[[], T]) -> T:
    """What `work`, which decodes a picture, returns or raises: in a thread, one at a time.

    A picture of 32 MiB can be a hundred in memory, and who asks may ask for many.
    """
    try:
        turn = _turn.get()
    except LookupError:
        turn = anyio.CapacityLimiter(1)
        _turn.set(turn)
    return await anyio.to_thread.run_sync(work, limiter=turn)
