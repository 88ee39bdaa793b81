"""The treatments of the other categories, from the cinema picture to the abstract one."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from arta_mcp.engines.sketch.canvas import Canvas, Samples, scaled, toned
from arta_mcp.engines.sketch.colours import INK, WHITE, Rgb, mix, rgb
from arta_mcp.engines.sketch.finish import grained, render, soft, textured, vignette
from arta_mcp.engines.sketch.outlines import Point, oval
from arta_mcp.engines.sketch.scenery import landscape
from arta_mcp.engines.sketch.words import Mood, Scene

_PAPER = rgb("f4ecdc")
_SKIN = rgb("ecd2bb")
_PENCIL = Mood(*(rgb(code * 3) for code in ("a8", "f8", "ff", "c0", "48", "e8")))
"""the greys a tattoo is shaded with, whatever colours the scene has"""
_COLOURED = ("red", "color", "colour", "neo", "school", "water", "trash", "flame", "anime")
"""words of the tattoo styles that are more than black"""


def cinematic(scene: Scene, size: tuple[int, int], *, grain: int = 4) -> Image.Image:
    """A warm picture with bloom, dark corners and a little grain."""
    image = render(scene, size)
    bloom = ImageChops.screen(image, soft(image, 8, min(size) / 14))
    image = Image.blend(image, bloom, 0.2)
    image = ImageEnhance.Color(ImageEnhance.Contrast(image).enhance(1.08)).enhance(1.12)
    return grained(vignette(image, 0.32), scene.rng("grain"), grain)


def photograph(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """As through a lens: edges out of focus, darker corners, a split tone, more grain."""
    image = cinematic(scene, size, grain=0)
    reach = scaled(toned(Image.radial_gradient("L"), lambda v: (v - 70) * 2), size)
    image.paste(soft(image, 2, min(size) / 220), (0, 0), reach)
    tone = ImageOps.colorize(image.convert("L"), (10, 26, 48), (255, 244, 222), (132, 124, 118))
    image = ImageEnhance.Contrast(Image.blend(image, tone, 0.28)).enhance(1.1)
    return grained(vignette(image, 0.3), scene.rng("film"), 8)


def illustration(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """Flat colours without texture."""
    return ImageEnhance.Color(render(scene, size, flat=True)).enhance(1.3)


def postcard(scene: Scene, size: tuple[int, int], prompt: str) -> Image.Image:
    """A glossy card: white frame, title, a sheen across."""
    (width, height), unit = size, min(size)
    frame, foot = round(unit * 0.035), round(unit * 0.14)
    inner = (width - 2 * frame, height - frame - foot)
    picture = ImageEnhance.Color(render(scene, inner)).enhance(1.4)
    picture = ImageEnhance.Contrast(picture).enhance(1.1)
    # A band of light across, as on a glossy card that is held askew.
    across, down = inner[0] // 4, inner[1] // 4
    sheen = Image.new("L", (across, down))
    band = [(across * 0.1, 0), (across * 0.42, 0), (across * 0.12, down), (-across * 0.2, down)]
    ImageDraw.Draw(sheen).polygon(band, fill=44)
    picture.paste(WHITE, (0, 0), scaled(sheen.filter(ImageFilter.GaussianBlur(3)), inner))
    sheet = Image.new("RGB", size, rgb("fdfbf6"))
    corners = Image.new("L", (inner[0] * 2, inner[1] * 2))
    box = (0, 0, inner[0] * 2 - 1, inner[1] * 2 - 1)
    ImageDraw.Draw(corners).rounded_rectangle(box, unit * 0.04, fill=255)
    sheet.paste(picture, (frame, frame), corners.reduce(2))
    title = " ".join(_plain(prompt).upper()[:34]) or "\u2022 \u2022 \u2022"
    ink = mix(scene.mood.near, INK, 0.3)
    _lettered(sheet, (width / 2, height - foot * 0.62), title, unit * 0.042, ink, inner[0])
    return sheet


def _lettered(
    image: Image.Image, middle: Point, words: str, points: float, ink: Rgb, room: float
) -> float:
    """Write words round a point, smaller where they do not fit; the width they take."""
    pen = ImageDraw.Draw(image)
    # Measured once at the full size: text grows in step with its font.
    points *= min(1.0, room / pen.textlength(words, font=ImageFont.load_default(size=points)))
    font = ImageFont.load_default(size=points)
    pen.text(middle, words, font=font, fill=ink, anchor="mm", stroke_width=points * 0.02)
    return pen.textlength(words, font=font)


def _plain(prompt: str) -> str:
    """What the built-in font can show of it."""
    # 400 characters are more than any treatment writes, and splitting 4,000 takes its time.
    shown = (c if c.isascii() and c.isalnum() else " " for c in prompt[:400])
    return " ".join("".join(shown).split())


def emblem(scene: Scene, size: tuple[int, int], prompt: str) -> Image.Image:
    """A badge with the scene in flat colours, and initials under it."""
    mood, rng, (width, height), unit = scene.mood, scene.rng("badge"), size, min(size)
    dark = mix(mood.near, INK, 0.35)
    pale = mix(mood.light, WHITE, 0.6)
    ground, line = (dark, mood.light) if rng.random() < 0.5 else (pale, dark)
    sheet = Canvas(size, ground, flat=True)
    side, x, y = round(unit * 0.6), width / 2, height / 2 - unit * 0.075
    sides = rng.choice((72, 72, 6, 8))
    start = math.pi / 8 if sides == 8 else 0.0

    def badge(scale: float) -> list[Point]:
        turns = (start + 2 * math.pi * i / sides for i in range(sides))
        return [_polar(x, y, side / 2 * scale, turn) for turn in turns]

    # Two rings: each is a badge that a smaller one covers but for its rim.
    for scale, colour in ((1.16, line), (1.12, ground), (1.07, line), (1.035, ground)):
        sheet.fill([badge(scale)], colour)
    scenery = ImageEnhance.Color(render(scene, (side, side), flat=True, subject=1.3)).enhance(1.3)
    mask = Canvas(size, INK, flat=True)
    mask.fill([badge(1)], WHITE)
    backdrop = Image.new("RGB", size)
    backdrop.paste(ImageOps.posterize(scenery, 5), (round(x - side / 2), round(y - side / 2)))
    sheet.image.paste(backdrop, (0, 0), toned(mask.image.convert("L"), lambda v: v - 24 + v / 10))
    foot = y + side * 0.58 + unit * 0.085
    small = {"a", "an", "the", "of", "in", "on", "with", "and", "for", "at", "by", "logo"}
    words = [word for word in _plain(prompt).split() if word.lower() not in small]
    initials = " ".join(word[0].upper() for word in words[:3]) or "\u2022"
    taken = _lettered(sheet.image, (x, foot), initials, unit * 0.085, line, side)
    near, far, thick = taken / 2 + unit * 0.04, max(taken / 2 + unit * 0.1, side * 0.5), unit / 400
    for end in (-1, 1):
        rule = [(near, -thick), (far, -thick), (far, thick), (near, thick)]
        sheet.fill([[(x + end * across, foot + down) for across, down in rule]], line)
    return sheet.image


def tattoo(style: str, scene: Scene, size: tuple[int, int]) -> Image.Image:
    """Linework inside a circle with rays and beads, shaded with points of the needle."""
    rng, unit, (x, y) = scene.rng("needle"), min(size), (size[0] / 2, size[1] / 2)
    # Some styles say that they are worn; of the rest two in five are.
    on_skin = "limb" in style or "realistic" in style or rng.random() < 0.4
    sheet = Canvas(size, _SKIN if on_skin else _PAPER)
    side = round(unit * 0.74)
    coloured = any(word in style for word in _COLOURED)
    _ornaments(sheet, scene, (x, y), side / 2, _accent(scene) if coloured else INK)
    shaded = scene if coloured else replace(scene, mood=_PENCIL)
    tones = render(shaded, (side, side), flat=True, subject=1.3)
    work = _linework(scene, tones, sheet.paper, 34_000 if "dot" in style else 20_000)
    if coloured:
        pale = Image.new("RGB", (side, side), WHITE)
        work = ImageChops.multiply(work, Image.blend(tones, pale, 0.35))
    disc = Image.new("L", (side * 2, side * 2))
    ImageDraw.Draw(disc).ellipse((0, 0, side * 2 - 1, side * 2 - 1), fill=255)
    sheet.image.paste(work, (round(x - side / 2), round(y - side / 2)), disc.reduce(2))
    for scale, thick in ((1.0, 0.008), (1.035, 0.003)):
        radius = side / 2 * scale + unit * 0.004
        outer, inner = oval(x, y, radius, steps=120), oval(x, y, radius - unit * thick, steps=120)
        # One outline out and back in: the seam between them has no width.
        sheet.fill([[*outer, outer[0], inner[0], *reversed(inner)]], INK)
    return textured(vignette(sheet.image, 0.16), scene, 5)


def _linework(scene: Scene, tones: Image.Image, paper: Rgb, points: int) -> Image.Image:
    side = tones.width
    lines = Canvas((side, side), paper, ink=True)
    landscape(lines, scene, subject=1.3)
    samples, rng = Samples(ImageOps.autocontrast(tones.convert("L")), 1), scene.rng("points")
    mask = Image.new("L", (side * 2, side * 2))
    pen = ImageDraw.Draw(mask)
    # Every point is thrown; it stays where the drawing is dark enough.
    for _ in range(points):
        x, y = rng.random() * side, rng.random() * side
        if rng.random() < max(0.0, 0.92 - samples.tone(x, y) / 255) ** 1.25:
            size = 1.2 + rng.random() * 1.1
            pen.ellipse((2 * x - size, 2 * y - size, 2 * x + size, 2 * y + size), fill=255)
    lines.image.paste(INK, (0, 0), mask.reduce(2))
    return lines.image


def _ornaments(sheet: Canvas, scene: Scene, middle: Point, radius: float, accent: Rgb) -> None:
    rng, unit, (x, y) = scene.rng("ornaments"), sheet.unit, middle
    count = rng.choice((24, 32, 36, 48))
    tips = rng.choice(((1.2, 1.12, 1.28, 1.12), (1.16, 1.22)))
    rays, beads = list[list[Point]](), list[list[Point]]()
    for i in range(count):
        turn, near, far = 2 * math.pi * i / count, radius * 1.07, radius * tips[i % len(tips)]
        foot = (_polar(x, y, near, turn - 0.012), _polar(x, y, near, turn + 0.012))
        rays.append([foot[0], _polar(x, y, far, turn), foot[1]])
        bead = _polar(x, y, far + unit * 0.014, turn)
        beads.append(oval(*bead, unit * (0.0055 if i % 2 else 0.0038), steps=12))
    sheet.fill(rays, INK)
    sheet.fill(beads, accent)


def _accent(scene: Scene) -> Rgb:
    """The colour a picture in black adds to it."""
    return scene.coat or rgb("a82430")


def _polar(x: float, y: float, radius: float, turn: float) -> Point:
    return x + radius * math.sin(turn), y - radius * math.cos(turn)


def abstract(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """Tiles of discs, quarters, rings and bars in the colours of the scene."""
    mood, rng, (width, height) = scene.mood, scene.rng("forms"), size
    colours = [mood.top, mood.far, mood.near, mood.ground, mood.low]
    colours += [_accent(scene), rgb("e9a63a")]
    image = Image.new("RGB", size)
    cell = round(min(size) / rng.choice((3, 4, 5)))
    for x in range(0, width, cell):
        for y in range(0, height, cell):
            image.paste(_tile(cell, colours, mix(mood.light, _PAPER, 0.6), rng), (x, y))
    return grained(image, rng, 10)


def _tile(cell: int, colours: list[Rgb], paper: Rgb, rng: random.Random) -> Image.Image:
    ground, one, other = rng.sample([*colours, paper, paper], 3)
    tile = Canvas((cell, cell), ground)
    middle, corner = cell / 2, (rng.choice((0, cell)), rng.choice((0, cell)))
    match rng.choice(("disc", "quarters", "rings", "bars", "half")):
        case "disc":
            tile.fill([oval(middle, middle, cell * 0.4, steps=90)], (one, other))
        case "quarters":
            for share, colour in ((1.0, one), (0.7, other), (0.4, ground)):
                tile.fill([oval(*corner, cell * share, steps=90)], colour)
        case "rings":
            for share, colour in ((0.46, one), (0.34, ground), (0.22, other), (0.1, ground)):
                tile.fill([oval(middle, middle, cell * share, steps=90)], colour)
        case "bars":
            edges = [(cell * k / 7, cell * (k + 0.5) / 7) for k in range(7)]
            tile.fill([[(a, 0), (b, 0), (b, cell), (a, cell)] for a, b in edges], one)
        case _:
            tile.fill([[corner, (cell - corner[0], corner[1]), (corner[0], cell - corner[1])]], one)
            tile.fill([oval(middle, middle, cell * 0.2, steps=60)], other)
    return tile.image
