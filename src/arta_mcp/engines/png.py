"""Pictures of other programs as PNG with texts of ours: what drew them, of which words."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping

from arta_mcp.engines.base import EngineInfo, ImageRequest
from arta_mcp.errors import EngineError

FORMATS = ("PNG", "JPEG", "WEBP")
"""what is read at all: Pillow knows some 40 more, among them one that starts Ghostscript"""

MAX_PIXELS = 40_000_000
"""of a picture"""

SOFTWARE = "arta-mcp"


def write_png(content: bytes, texts: Mapping[str, str]) -> tuple[bytes, tuple[int, int]]:
    """The picture as a PNG with these texts, and its size; takes time, so for a thread.

    The size is added to `parameters`, which is among the texts.

    What an engine has written into the file itself (a workflow, a path) does not pass. Raises
    EngineError for what is no picture, or too large a one.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(content), formats=FORMATS)
        with opened as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise EngineError(f"the engine's picture has {width} x {height} pixels, too many")
            # Not what was asked for: a server may have drawn another size.
            told = texts["parameters"]
            told += f"{'' if told.endswith(chr(10)) else ', '}Size: {width}x{height}"
            for name, value in {**texts, "parameters": told}.items():
                text = value.replace("\0", "\u2400").encode("utf-8", "replace").decode()
                info.add_itxt(name, text)
            mode = "RGBA" if picture.has_transparency_data else "RGB"
            out = io.BytesIO()
            picture.convert(mode).save(out, "PNG", compress_level=4, pnginfo=info)
    except EngineError:
        raise
    except Exception as exc:  # each codec has its own errors
        raise EngineError("what the engine gave cannot be read as a picture") from exc
    return out.getvalue(), (width, height)


def describe_picture(
    request: ImageRequest,
    info: EngineInfo,
    *,
    model: str | None,
    steps: int | None,
    guidance: float | None,
    honours_seed: bool,
) -> dict[str, str]:
    """The texts of a picture; `parameters` is the line that viewers of such pictures read."""
    facts = {
        "Steps": steps,
        "CFG scale": guidance,
        "Seed": request.picture_seed if honours_seed else None,
        "Model": model,
    }
    line = ", ".join(f"{name}: {value}" for name, value in facts.items() if value is not None)
    avoided = f"\nNegative prompt: {request.negative_prompt}" if request.negative_prompt else ""
    texts = {
        "Title": request.prompt,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "style": request.style,
        "index": str(request.index),
        "engine": info.engine,
        "model": model or "",
        "Software": f"{SOFTWARE}, engine {info.engine}",
        "Comment": "Made by an AI model.",
        "parameters": f"{request.prompt}{avoided}\n{line}",
    }
    if honours_seed:
        texts["seed"] = str(request.picture_seed)
    return {name: value for name, value in texts.items() if value}
