"""Draw every aspect ratio and ten styles into one labelled sheet: contact_sheet.py OUTPUT."""

from __future__ import annotations

import io
import sys

from PIL import Image, ImageDraw, ImageFont

from arta_mcp.engines.base import ImageRequest
from arta_mcp.engines.sketch.engine import SIZES, draw

WIDTH, GAP, LINE = 2000, 18, 28
PAPER = (250, 249, 246)
PROMPT = "a red fox in snow"
STYLES = (
    ("Flux", "flux", PROMPT),
    ("Film Grain Style", "photo", "a sailboat on a lake at sunset"),
    ("Vincent Van Gogh", "art", "a cottage under a starry night sky"),
    ("Watercolor", "art", "a rabbit in a flower meadow"),
    ("Low Poly", "art", "a red fox in snow"),
    ("Japanese_2", "art", "a blue bird before the mountains"),
    ("Dotwork", "tattoo", "a wolf in the mountains"),
    ("Emblem Logo", "logo", "Northern Bear coffee, forest"),
    ("GPT4o", "gpt", "a black cat in a city at night"),
    ("Nano Banana Style", "nano", "greetings from the desert"),
)


def main(target: str) -> None:
    ratios = [
        (ratio, "", _picture("Flux", "flux", PROMPT, i, ratio)) for i, ratio in enumerate(SIZES)
    ]
    styles = [
        (style, prompt, _picture(style, category, prompt, 7, "4:3"))
        for style, category, prompt in STYLES
    ]
    rows = [_row(ratios), _row(styles[:5]), _row(styles[5:])]
    sheet = Image.new("RGB", (WIDTH, sum(row.height for row in rows)), PAPER)
    y = 0
    for row in rows:
        sheet.paste(row, (0, y))
        y += row.height
    sheet.save(target, quality=82)


def _picture(style: str, category: str, prompt: str, seed: int, ratio: str) -> Image.Image:
    return Image.open(io.BytesIO(draw(ImageRequest(prompt, "", style, category, seed, 0, ratio))))


def _row(pictures: list[tuple[str, str, Image.Image]]) -> Image.Image:
    """All pictures at one height, so that they fill the width of the sheet."""
    widths = sum(picture.width / picture.height for _, _, picture in pictures)
    height = int((WIDTH - GAP * (len(pictures) + 1)) / widths)
    labelled = any(prompt for _, prompt, _ in pictures)
    row = Image.new("RGB", (WIDTH, GAP + height + (2 if labelled else 1) * LINE), PAPER)
    pen, x = ImageDraw.Draw(row), GAP
    for title, prompt, picture in pictures:
        width = int(picture.width * height / picture.height)
        row.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (x, GAP))
        for line, (text, colour) in enumerate(((title, (30, 30, 38)), (prompt, (110, 110, 120)))):
            place = (x, GAP + height + 7 + line * LINE)
            pen.text(place, text, font=ImageFont.load_default(size=18), fill=colour)
        x += width + GAP
    return row


if __name__ == "__main__":
    main(sys.argv[1])
