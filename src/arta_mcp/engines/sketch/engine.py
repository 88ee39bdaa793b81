"""The default engine of the embedded service: a picture without a model, from words and a seed.

It looks for words it knows, sets up a scene, and draws it in the manner of the style's category.
Every picture says, in its pixels and in its PNG texts, that no AI model made it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from arta_mcp.engines.sketch import treatments as manners
from arta_mcp.engines.sketch import words
from arta_mcp.engines.sketch.painting import artwork

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

CAPTION = "sketch by arta-mcp, not made by an AI model"


@dataclass(frozen=True)
class Order:
    """One picture to draw."""

    prompt: str
    negative_prompt: str
    style: str
    """as it is said on the wire: `Vincent Van Gogh`"""
    category: str
    """flux, gpt, logo, tattoo, art, photo, nano or other"""
    seed: int
    index: int
    """0-based number of the picture in its job"""
    aspect_ratio: str


def draw(order: Order) -> bytes:
    """The picture as PNG; the same order always gives the same bytes.

    A `KeyError` means an aspect ratio outside `SIZES`; nothing else about an order can fail.
    """
    size = SIZES[order.aspect_ratio]
    style = _printable(order.style)
    key = f"{order.category}/{style}/{order.seed}/{order.index}"
    scene = words.read(_printable(order.prompt), _printable(order.negative_prompt), key)
    image = _manner(order.category, style.lower(), scene, size, _printable(order.prompt))
    _sign(image)
    out = io.BytesIO()
    # Level 1: higher levels take three times as long and save a tenth.
    image.save(out, "PNG", compress_level=1, pnginfo=_texts(order))
    return out.getvalue()


def _printable(text: str) -> str:
    """NUL cannot stand in a PNG text, half a surrogate pair in no encoded text at all."""
    return text.replace("\0", "\u2400").encode("utf-8", "replace").decode("utf-8")


def _texts(order: Order) -> PngInfo:
    info = PngInfo()
    for name, value in {
        "Title": order.prompt,
        "prompt": order.prompt,
        "negative_prompt": order.negative_prompt,
        "style": order.style,
        "seed": str(order.seed),
        "index": str(order.index),
        "Software": "arta-mcp sketch",
        "Comment": "A sketch drawn by rules from the words of the prompt, not made by an AI model.",
    }.items():
        info.add_itxt(name, _printable(value))
    return info


def _manner(
    category: str, style: str, scene: words.Scene, size: tuple[int, int], prompt: str
) -> Image.Image:
    match category:
        case "flux":
            return manners.cinematic(scene, size)
        case "photo":
            return manners.photograph(scene, size)
        case "art":
            return artwork(style, scene, size)
        case "tattoo":
            return manners.tattoo(style, scene, size)
        case "logo":
            return manners.emblem(scene, size, prompt)
        case "gpt":
            return manners.illustration(scene, size)
        case "nano":
            return manners.postcard(scene, size, prompt)
        case _:
            return manners.abstract(scene, size)


def _sign(image: Image.Image) -> None:
    """The caption, light on its own dark plate so that it reads on any picture."""
    unit = min(image.size)
    font = ImageFont.load_default(size=max(13, unit // 56))
    pen = ImageDraw.Draw(image, "RGBA")
    left, top, right, bottom = pen.textbbox((0, 0), CAPTION, font=font)
    pad, edge = unit // 110, unit // 70
    x, y = edge + pad, image.height - edge - pad - (bottom - top)
    plate = (edge, y - pad, x + right - left + pad, image.height - edge)
    pen.rounded_rectangle(plate, pad, fill=(12, 12, 18, 150))
    pen.text((x - left, y - top), CAPTION, font=font, fill=(255, 255, 255, 235))
