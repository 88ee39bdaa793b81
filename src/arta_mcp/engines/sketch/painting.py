"""The treatments of the art styles: oil, swirls, facets, washes, print."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from arta_mcp.engines.sketch.canvas import Samples, fractal, grey, scaled, toned
from arta_mcp.engines.sketch.colours import INK, WHITE, Rgb, mix, rgb, shift
from arta_mcp.engines.sketch.finish import render, soft, textured
from arta_mcp.engines.sketch.outlines import Point
from arta_mcp.engines.sketch.scenery import frame
from arta_mcp.engines.sketch.words import Scene

_STROKES = ((0.02, 2200, -1), (0.011, 4200, -1), (0.0055, 5000, 12))
"""thickness as a share of the shorter side, number, and the contrast from which they are set"""


def paint(style: str, scene: Scene, size: tuple[int, int]) -> Image.Image:
    """A painting; the name of the style (lower case) says how, or else picks one for good."""
    by_word = {
        "poly": _low_poly,
        "water": _watercolor,
        "kawaii": _watercolor,
        "gogh": _swirls,
        "japan": _woodblock,
        "graffiti": _woodblock,
        "medieval": _woodblock,
        "paint": _oil,
        "surreal": _oil,
    }
    named = next((found for word, found in by_word.items() if word in style), None)
    others = (_oil, _watercolor, _woodblock, _swirls)
    # The seed is the style alone, so that a style looks alike in every picture.
    treatment = named or random.Random(f"manner/{style}").choice(others)
    return treatment(scene, size)


def _oil(scene: Scene, size: tuple[int, int]) -> Image.Image:
    flow = fractal((size[0] // 8, size[1] // 8), scene.rng("flow"), (2, 2))
    drift = Samples(flow.filter(ImageFilter.GaussianBlur(10)), 8)
    return _impasto(_painted(scene, size, lambda x, y: (drift.tone(x, y) - 128) / 60, jitter=10))


def _swirls(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """The sky turns about the moon and about some points of its own."""
    horizon, light = frame(size, scene)
    unit, rng = min(size), scene.rng("swirls")
    eyes = [(light, unit * 0.34)]
    for i in range(6):
        eye = (size[0] * (i + rng.random()) / 6, horizon * rng.uniform(0.05, 0.8))
        eyes.append((eye, unit * rng.uniform(0.12, 0.22)))

    def direction(x: float, y: float) -> float:
        for (ex, ey), reach in eyes:
            away = math.hypot(x - ex, y - ey)
            if y < horizon and away < reach:
                return math.atan2(y - ey, x - ex) + math.pi / 2 + 0.25
        return 0.5 * math.sin(x / unit * 7 + y / unit * 3) + 0.35 * math.sin(y / unit * 19)

    image = _painted(scene, size, direction, jitter=24)
    for i, (eye, reach) in enumerate(eyes if scene.dark else eyes[:1]):
        _halo(image, eye, reach * (0.62 if i else 0.8), scene.mood.light, rng)
    return _impasto(image)


def _halo(image: Image.Image, eye: Point, reach: float, light: Rgb, rng: random.Random) -> None:
    """Rings of short strokes, paler inwards: a star as Van Gogh saw it."""
    pen, (x, y), step = ImageDraw.Draw(image), eye, min(image.size) * 0.011
    warm = mix(light, rgb("f7d44c"), 0.6)
    sky, rings = Samples(image.reduce(4), 4), max(2, int(reach / step / 1.1))
    for ring in range(rings, -1, -1):
        radius, share = ring * step * 1.05, ring / rings
        for k in range(max(1, int(radius * 5 / step * (1 - share * 0.7)))):
            turn = rng.uniform(0, 2 * math.pi) if k else 0.0
            arc = [turn + i * step * 1.1 / max(radius, step) for i in range(3)]
            path = [(x + radius * math.cos(t), y + radius * math.sin(t)) for t in arc]
            colour = mix(mix(WHITE, warm, min(1, share * 2.5)), sky.colour(*path[1]), share * 0.8)
            colour = shift(colour, rng.randint(-12, 12))
            pen.line(path, fill=colour, width=round(step * 0.8), joint="curve")
    pen.ellipse((x - step, y - step, x + step, y + step), fill=mix(WHITE, warm, 0.3))


def _painted(
    scene: Scene,
    size: tuple[int, int],
    direction: Callable[[float, float], float],
    *,
    jitter: int,
) -> Image.Image:
    """Strokes along a field of directions: coarse ones first, fine ones where there is detail."""
    under = ImageEnhance.Color(render(scene, size)).enhance(1.4)
    small = under.reduce(4)
    contrast = small.convert("L").filter(ImageFilter.FIND_EDGES).filter(ImageFilter.MaxFilter(3))
    contrast = contrast.filter(ImageFilter.GaussianBlur(1.5))
    edges = Samples(contrast, 4)
    colours = (Samples(small.filter(ImageFilter.GaussianBlur(2)), 4), Samples(under.reduce(2), 2))
    rng, unit = scene.rng("strokes"), min(size)
    image = soft(under, 4, unit / 60)
    pen = ImageDraw.Draw(image)
    for thick, count, least in _STROKES:
        fine = least > 0
        reach, width = unit * thick * (0.8 if fine else 1.9), max(2, round(unit * thick))
        for _ in range(count):
            x, y = rng.random() * size[0], rng.random() * size[1]
            # The numbers are drawn before the test, so that detail does not move what follows.
            if edges.tone(x, y) < least:
                continue
            change = rng.randint(-jitter, jitter) // (1 + 2 * fine)
            colour = shift(colours[fine].colour(x, y), change)
            # One arm from the middle each way; the second bends as the field does ahead.
            turn = direction(x, y)
            ahead = (x + reach * math.cos(turn), y + reach * math.sin(turn))
            turn += direction(*ahead) - turn
            tip = (x + reach * math.cos(turn), y + reach * math.sin(turn))
            back = (2 * x - ahead[0], 2 * y - ahead[1])
            pen.line([back, (x, y), tip], fill=colour, width=width, joint="curve")
    # Where there is an edge the first drawing shines through: eyes stay eyes.
    image.paste(under, (0, 0), toned(scaled(contrast, size), lambda v: min(165, (v - 10) * 5)))
    return image


def _impasto(image: Image.Image) -> Image.Image:
    """Light from the side on the ridges of the paint."""
    relief = image.convert("L").filter(ImageFilter.EMBOSS).filter(ImageFilter.GaussianBlur(0.8))
    relief = toned(relief, lambda v: 128 + (v - 128) * 0.5)
    return ImageChops.overlay(image, grey(relief))


def _low_poly(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """Facets: large ones where little happens, small ones along edges."""
    picture = ImageEnhance.Color(render(scene, size)).enhance(1.25)
    source = picture.reduce(4).filter(ImageFilter.MedianFilter(5))
    edges = ImageChops.lighter(*source.filter(ImageFilter.FIND_EDGES).split()[:2])
    # The filter finds an edge along the upper border where there is none.
    edges.paste(0, (0, 0, edges.width, 2))
    detail = Samples(edges.filter(ImageFilter.MaxFilter(3)), 4)
    colours, rng = Samples(source, 4), scene.rng("facets")
    # Cells of different size leave slits between them; the picture itself shows through.
    image = scaled(picture, (size[0] * 2, size[1] * 2), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    for x, y, side in _cells(size, detail):
        a, b, c, d = (
            _nudged(corner, side, scene.key)
            for corner in ((x, y), (x + side, y), (x, y + side), (x + side, y + side))
        )
        # Cut along the diagonal whose ends are more alike, so that edges stay edges.
        falling = _difference(colours, a, d) < _difference(colours, b, c)
        for facet in ((a, b, d), (a, d, c)) if falling else ((a, b, c), (b, d, c)):
            middle = sum(p[0] for p in facet) / 3, sum(p[1] for p in facet) / 3
            colour = shift(colours.colour(*middle), rng.randint(-8, 8) if side > 20 else 0)
            pen.polygon([(2 * px, 2 * py) for px, py in facet], fill=colour)
    return image.reduce(2)


def _difference(colours: Samples, one: Point, other: Point) -> int:
    (red, green, _), (other_red, other_green, _) = colours.colour(*one), colours.colour(*other)
    return abs(red - other_red) + abs(green - other_green)


def _cells(size: tuple[int, int], detail: Samples) -> Iterator[tuple[int, int, int]]:
    waiting = [(x, y, 64) for x in range(0, size[0], 64) for y in range(0, size[1], 64)]
    while waiting:
        x, y, side = waiting.pop()
        inside = range(side // 8, side, max(4, side // 4))
        if side > 8 and any(detail.tone(x + i, y + j) > 26 for i in inside for j in inside):
            half = side // 2
            waiting += [(x + i, y + j, half) for i in (0, half) for j in (0, half)]
        else:
            yield x, y, side


def _nudged(corner: tuple[int, int], side: int, key: str) -> Point:
    """The same corner moves the same way for every cell of its size that meets there."""
    # `hash` of an int is the int itself in every process; of a text it would not be.
    noise = hash((corner[0] * 7919 + corner[1] * 104729 + int(key[:8], 16)) * 2654435761 % 2**32)
    reach = side * 0.3 if side > 16 else 0
    across, down = noise % 97 / 48 - 1, noise // 97 % 89 / 44 - 1
    return corner[0] + across * reach, corner[1] + down * reach


def _watercolor(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """Wobbly washes with dark rims, on paper that stays white at the border."""
    image = ImageEnhance.Color(render(scene, size, flat=True)).enhance(1.3)
    image = _wobbled(image, scene.rng("wobble"), min(size) / 190)
    half = image.reduce(2).filter(ImageFilter.MedianFilter(3))
    rims = half.convert("L").filter(ImageFilter.GaussianBlur(1)).filter(ImageFilter.FIND_EDGES)
    # Pigment gathers where a wash ends.
    washes = ImageChops.multiply(half, grey(toned(rims, lambda v: max(196, 255 - 2.5 * v))))
    washes = scaled(washes, size)
    pools = toned(fractal(size, scene.rng("pools"), (4, 4)), lambda v: min(150, (v - 90) * 2))
    washes.paste(mix(scene.mood.light, WHITE, 0.75), (0, 0), pools)
    # The brush stops short of the paper's border, at a ragged line.
    small, inset = (size[0] // 4, size[1] // 4), min(size) / 4 * 0.05
    edge = Image.new("L", small)
    ImageDraw.Draw(edge).rectangle((inset, inset, small[0] - inset, small[1] - inset), fill=255)
    edge = edge.filter(ImageFilter.GaussianBlur(min(size) / 150))
    edge = Image.blend(edge, fractal(small, scene.rng("border"), (14, 14)), 0.35)
    painted = toned(scaled(edge, size), lambda v: (v - 118) * 9)
    paper = Image.new("RGB", size, rgb("fcf9f2"))
    return textured(Image.composite(washes, paper, painted), scene, 9)


def _wobbled(image: Image.Image, rng: random.Random, reach: float) -> Image.Image:
    (width, height), side = image.size, 40
    columns, rows = -(-width // side), -(-height // side)

    def knot(x: int, y: int) -> Point:
        return x * side + rng.uniform(-reach, reach), y * side + rng.uniform(-reach, reach)

    knots = [[knot(x, y) for x in range(columns + 1)] for y in range(rows + 1)]
    mesh = [
        (
            (x * side, y * side, min(width, (x + 1) * side), min(height, (y + 1) * side)),
            (*knots[y][x], *knots[y + 1][x], *knots[y + 1][x + 1], *knots[y][x + 1]),
        )
        for y in range(rows)
        for x in range(columns)
    ]
    return image.transform(image.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _woodblock(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """A print in few colours with a dark key block, on cream paper."""
    image = render(scene, size, flat=True)
    lines = image.convert("L").filter(ImageFilter.GaussianBlur(1.2)).filter(ImageFilter.FIND_EDGES)
    # Few tones on paper that shows through them, and the dark key block over all.
    few = ImageOps.posterize(ImageEnhance.Color(image).enhance(0.9), 4)
    few = ImageChops.multiply(Image.blend(few, image, 0.35), Image.new("RGB", size, rgb("fff3da")))
    few.paste(rgb("1d2436"), (0, 0), toned(lines, lambda v: min(235, (v - 7) * 16)))
    inset = min(size) // 28
    sheet = Image.new("RGB", size, rgb("f6eedd"))
    sheet.paste(scaled(few, (size[0] - 2 * inset, size[1] - 2 * inset)), (inset, inset))
    box = (inset, inset, size[0] - inset - 1, size[1] - inset - 1)
    ImageDraw.Draw(sheet).rectangle(box, outline=INK, width=3)
    return textured(sheet, scene, 8)
