"""The default engine of the embedded service: a picture without a model, from words and a seed.

It looks for words it knows, sets up a scene, and draws it with the treatment of the style's
category. Every picture says, in its pixels and in its PNG texts, that no AI model made it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from arta_mcp.engines.base import ImageRequest
from arta_mcp.engines.sketch import treatments, words
from arta_mcp.engines.sketch.info import CAPTION, COMMENT, SOFTWARE
from arta_mcp.engines.sketch.painting import paint

SIZES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "1:1": (1024, 1024),
        "2:3": (832, 1248),
        "3:2": (1248, 832),
        "3:4": (888, 1184),
        "4:3": (1184, 888),
        "9:16": (768, 1368),
        "16:9": (1368, 768),
        "9:21": (672, 1568),
        "21:9": (1568, 672),
    }
)
"""width and height in pixels for each aspect ratio, about one megapixel each"""


def draw(request: ImageRequest, *, scale: float = 1.0) -> bytes:
    """The picture as PNG; the same request always gives the same bytes.

    `scale` below 1 gives a smaller picture in less time; the service never asks for one.
    A `KeyError` means an aspect ratio outside `SIZES`; nothing else about a request can fail.
    """
    width, height = SIZES[request.aspect_ratio]
    size = (round(width * scale), round(height * scale))
    prompt, style = _printable(request.prompt), _printable(request.style)
    key = f"{request.category}/{style}/{request.seed}/{request.index}"
    scene = words.read_scene(prompt, _printable(request.negative_prompt), key)
    match request.category:
        case "flux":
            image = treatments.cinematic(scene, size)
        case "photo":
            image = treatments.photograph(scene, size)
        case "art":
            image = paint(style.lower(), scene, size)
        case "tattoo":
            image = treatments.tattoo(style.lower(), scene, size)
        case "logo":
            image = treatments.emblem(scene, size, prompt)
        case "gpt":
            image = treatments.illustration(scene, size)
        case "nano":
            image = treatments.postcard(scene, size, prompt)
        case _:
            image = treatments.abstract(scene, size)
    _write_caption(image)
    out = io.BytesIO()
    # Level 1: higher levels take three times as long and save a tenth.
    image.save(out, "PNG", compress_level=1, pnginfo=_png_texts(request))
    return out.getvalue()


def _printable(text: str) -> str:
    """NUL cannot stand in a PNG text, half a surrogate pair in no encoded text at all."""
    return text.replace("\0", "\u2400").encode("utf-8", "replace").decode("utf-8")


def _write_caption(image: Image.Image) -> None:
    unit = min(image.size)
    font = ImageFont.load_default(size=max(13, unit // 56))
    pen = ImageDraw.Draw(image, "RGBA")
    left, top, right, bottom = pen.textbbox((0, 0), CAPTION, font=font)
    pad, edge = unit // 110, unit // 70
    x, y = edge + pad, image.height - edge - pad - (bottom - top)
    # Light letters on a dark plate of their own read on any picture.
    plate = (edge, y - pad, x + right - left + pad, image.height - edge)
    pen.rounded_rectangle(plate, pad, fill=(12, 12, 18, 150))
    pen.text((x - left, y - top), CAPTION, font=font, fill=(255, 255, 255, 235))


def _png_texts(request: ImageRequest) -> PngInfo:
    info = PngInfo()
    for name, value in {
        "Title": request.prompt,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "style": request.style,
        "seed": str(request.seed),
        "index": str(request.index),
        "Software": SOFTWARE,
        "Comment": COMMENT,
    }.items():
        # iTXt holds any script; tEXt would hold Latin-1 alone.
        info.add_itxt(name, _printable(value))
    return info
