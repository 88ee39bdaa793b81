"""Small pictures as a terminal takes them: kitty's or iTerm2's protocol, else half blocks.

No library is kept that fits: term-image holds Pillow below 11 and brings requests, textual-image
brings rich, which the MCP SDK imports at every start once it is there, climage knows no protocol.
No I/O happens here.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from arta_mcp.errors import ProtocolError
from arta_mcp.generations.pictures import decode

if TYPE_CHECKING:
    from PIL.Image import Image  # at run time on first use: most commands show no picture

ImageProtocol = Literal["kitty", "iterm2", "truecolor", "256color"]
"""two protocols for real pictures, and two kinds of coloured half blocks"""

MAX_COLUMNS, MAX_LINES = 40, 15
"""of one picture"""

MAX_PER_ROW = 4

PIXELS_PER_BLOCK = 10
"""pixels of a real picture, in each direction, to one of a half block"""

MAX_CHUNK = 4096
"""characters of one piece, by kitty's protocol"""


def detect_protocol(environ: Mapping[str, str]) -> ImageProtocol | None:
    """The best that the terminal of this environment takes; None when it takes no picture."""
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    # tmux and screen swallow what they do not know, and inherit the variables of the outer terminal
    inside = "TMUX" in environ or "STY" in environ
    if not inside and ("KITTY_WINDOW_ID" in environ or term in ("xterm-kitty", "xterm-ghostty")):
        return "kitty"
    if not inside and program in ("iTerm.app", "WezTerm", "mintty"):
        return "iterm2"
    if environ.get("NO_COLOR") or term == "dumb":
        return None
    if environ.get("COLORTERM") in ("truecolor", "24bit") or "WT_SESSION" in environ:
        return "truecolor"
    return "256color" if "256color" in term else None


def render(pictures: Sequence[bytes], protocol: ImageProtocol, *, columns: int) -> str:
    """The pictures beside each other in at most so many columns; empty when one cannot be read."""
    is_real = protocol in ("kitty", "iterm2")
    try:
        sheet = make_sheet(pictures, columns, PIXELS_PER_BLOCK if is_real else 1)
    except ProtocolError:  # the file is on disk and its path is printed; a preview may be missing
        return ""
    if not is_real:
        return encode_blocks(sheet, is_truecolor=protocol == "truecolor")
    file = io.BytesIO()
    sheet.save(file, "PNG")
    png, width = file.getvalue(), sheet.width // PIXELS_PER_BLOCK
    text = base64.b64encode(png).decode()
    if protocol == "iterm2":
        # https://iterm2.com/documentation-images.html
        options = f"inline=1;size={len(png)};width={width};preserveAspectRatio=1"
        return f"\x1b]1337;File={options}:{text}\x07"
    # https://sw.kovidgoyal.net/kitty/graphics-protocol/: q=2 wants no answer on our stdin.
    chunks = [text[i : i + MAX_CHUNK] for i in range(0, len(text), MAX_CHUNK)]
    last = len(chunks) - 1
    return "".join(
        f"\x1b_G{f'a=T,f=100,q=2,c={width},' if not i else ''}m={int(i < last)};{chunk}\x1b\\"
        for i, chunk in enumerate(chunks)
    )


def make_sheet(pictures: Sequence[bytes], columns: int, scale: int) -> Image:
    """One transparent sheet of all; a pixel at scale 1 is half a character.

    Raises ProtocolError.
    """
    from PIL import Image

    per_row = min(len(pictures), MAX_PER_ROW)
    width = max(1, min(MAX_COLUMNS, (columns + 1) // per_row - 1))
    small = [shrink(picture, width * scale, 2 * MAX_LINES * scale) for picture in pictures]
    rows = [small[i : i + per_row] for i in range(0, len(small), per_row)]
    widths = [sum(picture.width + scale for picture in row) - scale for row in rows]
    heights = [max(picture.height for picture in row) + 2 * scale for row in rows]
    sheet = Image.new("RGBA", (max(widths), sum(heights) - 2 * scale))
    y = 0
    for row, height in zip(rows, heights, strict=True):
        x = 0
        for picture in row:
            sheet.paste(picture, (x, y))
            x += picture.width + scale
        y += height
    return sheet


def shrink(picture: bytes, width: int, height: int) -> Image:
    """The picture within these pixels, of an even height: a block holds two.

    Raises ProtocolError.
    """
    from PIL.Image import Resampling

    whole = decode(picture, enough=(width * 2, height * 2))
    share = min(width / whole.width, height / whole.height)
    size = (max(1, round(whole.width * share)), max(2, round(whole.height * share / 2) * 2))
    return whole.convert("RGBA").resize(size, Resampling.LANCZOS)  # pyright: ignore[reportUnknownMemberType]  # its size has no type


def encode_blocks(sheet: Image, *, is_truecolor: bool) -> str:
    """Two pixels a character: the upper half in front, the lower half behind."""
    content, width = sheet.tobytes(), sheet.width
    pixels = [content[i : i + 4] for i in range(0, len(content), 4)]  # red, green, blue, alpha
    lines: list[str] = []
    for start in range(0, len(pixels), 2 * width):
        line, before = "", ""
        middle, end = start + width, start + 2 * width
        for upper, lower in zip(pixels[start:middle], pixels[middle:end], strict=True):
            # Blocks have no transparency: half is where a pixel begins to count.
            seen = [pixel for pixel in (upper, lower) if pixel[3] > 127]
            codes = [encode_colour(pixel, is_truecolor=is_truecolor) for pixel in seen]
            colours = "".join(f";{n};{code}" for n, code in zip(("38", "48"), codes, strict=False))
            block = " " if not seen else "▀" if seen[0] is upper else "▄"
            # Colours are said when they change: a sheet of one colour is a tenth as long.
            line += block if colours == before else f"\x1b[0{colours}m{block}"
            before = colours
        lines.append(f"{line}\x1b[0m")
    return "\n".join(lines)


def encode_colour(pixel: bytes, *, is_truecolor: bool) -> str:
    """The pixel's colour as parameters of SGR: itself, or the nearest of 256."""
    red, green, blue, _ = pixel
    if is_truecolor:
        return f"2;{red};{green};{blue}"
    # Their cube, whose steps are 0, 95, 135, 175, 215, 255.
    r, g, b = (0 if v < 48 else 1 if v < 115 else (v - 35) // 40 for v in (red, green, blue))
    return f"5;{16 + 36 * r + 6 * g + b}"
