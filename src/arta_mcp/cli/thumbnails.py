"""Small pictures as a terminal takes them: kitty's or iTerm2's protocol, else half blocks.

No library is kept that fits: term-image holds Pillow below 11 and brings requests, textual-image
brings rich, which the MCP SDK imports at every start once it is there, climage knows no protocol.
No I/O happens here.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image  # at run time on first use: most commands show no picture

Way = Literal["kitty", "iterm", "colours", "256"]
"""two protocols for real pictures, and two kinds of coloured blocks"""

WIDEST, HIGHEST = 40, 15
"""columns and lines of one picture at most"""

MOST_IN_A_ROW = 4

FINE = 10
"""pixels of a real picture to one of a half block"""

_CHUNK = 4096
"""characters of one piece, by kitty's protocol"""

_Pixel = tuple[int, int, int, int]


def way_of(environ: Mapping[str, str]) -> Way | None:
    """What this terminal can show; None for none. Whether it is one the caller knows."""
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    inside = "TMUX" in environ or "STY" in environ  # these swallow what they do not know
    if not inside and ("KITTY_WINDOW_ID" in environ or term in ("xterm-kitty", "xterm-ghostty")):
        return "kitty"
    if not inside and program in ("iTerm.app", "WezTerm", "mintty"):
        return "iterm"
    if environ.get("NO_COLOR") or term == "dumb":
        return None
    if environ.get("COLORTERM") in ("truecolor", "24bit") or "WT_SESSION" in environ:
        return "colours"
    return "256" if "256color" in term else None


def render(pictures: Sequence[bytes], way: Way, *, columns: int) -> str:
    """The pictures beside each other in at most so many columns; empty when one cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow warns of pictures that are made to explode
            sheet = _sheet(pictures, columns, FINE if way in ("kitty", "iterm") else 1)
    except Exception:  # the file is on disk and its path was told: a preview may be missing
        return ""
    match way:
        case "kitty":
            return _kitty(_png(sheet), sheet.width // FINE)
        case "iterm":
            return _iterm(_png(sheet), sheet.width // FINE)
        case _:
            return _blocks(sheet, way)


def _sheet(pictures: Sequence[bytes], columns: int, scale: int) -> Image:
    """All pictures on one transparent sheet; a pixel at scale 1 is half a character high."""
    from PIL import Image

    in_a_row = min(len(pictures), MOST_IN_A_ROW)
    width = max(1, min(WIDEST, (columns + 1) // in_a_row - 1))
    small = [_shrunk(picture, width * scale, 2 * HIGHEST * scale) for picture in pictures]
    rows = [small[i : i + in_a_row] for i in range(0, len(small), in_a_row)]
    widths = [sum(picture.width + scale for picture in row) - scale for row in rows]
    heights = [max(picture.height for picture in row) + 2 * scale for row in rows]
    sheet = Image.new("RGBA", (max(widths), sum(heights) - 2 * scale), (0, 0, 0, 0))
    y = 0
    for row, height in zip(rows, heights, strict=True):
        x = 0
        for picture in row:
            sheet.paste(picture, (x, y))
            x += picture.width + scale
        y += height
    return sheet


def _shrunk(picture: bytes, width: int, height: int) -> Image:
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as opened:
        opened.draft("RGB", (width * 2, height * 2))  # lets JPEG decode small at once
        share = min(width / opened.width, height / opened.height)
        size = (max(1, round(opened.width * share)), max(2, round(opened.height * share / 2) * 2))
        return opened.convert("RGBA").resize(size, Image.Resampling.LANCZOS)  # pyright: ignore[reportUnknownMemberType]  # its size has no type


def _png(sheet: Image) -> bytes:
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _kitty(png: bytes, columns: int) -> str:
    """https://sw.kovidgoyal.net/kitty/graphics-protocol/: q=2 wants no answer on our stdin."""
    text = base64.b64encode(png).decode()
    chunks = [text[i : i + _CHUNK] for i in range(0, len(text), _CHUNK)]
    last = len(chunks) - 1
    return "".join(
        f"\x1b_G{f'a=T,f=100,q=2,c={columns},' if not i else ''}m={int(i < last)};{chunk}\x1b\\"
        for i, chunk in enumerate(chunks)
    )


def _iterm(png: bytes, columns: int) -> str:
    """https://iterm2.com/documentation-images.html"""
    options = f"inline=1;size={len(png)};width={columns};preserveAspectRatio=1"
    return f"\x1b]1337;File={options}:{base64.b64encode(png).decode()}\x07"


def _blocks(sheet: Image, way: Way) -> str:
    """Two pixels a character: the upper half in front, the lower half behind."""
    content, width = sheet.tobytes(), sheet.width
    pixels = [(r, g, b, a) for r, g, b, a in zip(*(content[i::4] for i in range(4)), strict=True)]
    rows = [pixels[i : i + width] for i in range(0, len(pixels), width)]
    return "\n".join(
        _block_line(zip(rows[y], rows[y + 1], strict=True), way) for y in range(0, len(rows) - 1, 2)
    )


def _block_line(cells: zip[tuple[_Pixel, _Pixel]], way: Way) -> str:
    line, before = "", ""
    for upper, lower in cells:
        colours, block = _cell(upper, lower, way)
        line += block if colours == before else f"\x1b[0{colours}m{block}"
        before = colours
    return f"{line}\x1b[0m"


def _cell(upper: _Pixel, lower: _Pixel, way: Way) -> tuple[str, str]:
    match upper[3] > 127, lower[3] > 127:
        case True, True:
            return f";38;{_colour(upper, way)};48;{_colour(lower, way)}", "▀"
        case True, False:
            return f";38;{_colour(upper, way)}", "▀"
        case False, True:
            return f";38;{_colour(lower, way)}", "▄"
        case _:
            return "", " "


def _colour(pixel: _Pixel, way: Way) -> str:
    red, green, blue, _ = pixel
    if way == "colours":
        return f"2;{red};{green};{blue}"
    return f"5;{16 + 36 * _sixth(red) + 6 * _sixth(green) + _sixth(blue)}"


def _sixth(value: int) -> int:
    """The step of the 256 colour cube, whose steps are 0, 95, 135, 175, 215, 255."""
    return 0 if value < 48 else 1 if value < 115 else (value - 35) // 40
