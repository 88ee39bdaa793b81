"""A canvas with soft edges, and the geometry and colours that are put on it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from PIL import Image, ImageColor, ImageDraw, ImageFilter

Point = tuple[float, float]
Outline = Sequence[Point]
Rgb = tuple[int, int, int]
Paint = Rgb | tuple[Rgb, Rgb]
"""one colour, or a gradient from the top of the shape to its bottom"""
Part = tuple[Outline, Paint]

WHITE: Rgb = (255, 255, 255)
INK: Rgb = (24, 22, 28)


def rgb(code: str) -> Rgb:
    """The colour behind six hexadecimal digits."""
    red, green, blue, *_ = ImageColor.getrgb(f"#{code}")
    return red, green, blue


def mix(one: Rgb, other: Rgb, share: float) -> Rgb:
    """A colour between two, `share` (0..1) of the way to the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def toned(image: Image.Image, function: Callable[[int], float]) -> Image.Image:
    """A new brightness for each of 256."""
    table = [max(0, min(255, round(function(v)))) for v in range(256)]
    return image.point(table)  # pyright: ignore[reportUnknownMemberType]  # its hints name numpy


def scaled(
    image: Image.Image,
    size: tuple[int, int],
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """The whole image at another size."""
    return image.resize(size, resampling)  # pyright: ignore[reportUnknownMemberType]  # names numpy


def grey(tones: Image.Image) -> Image.Image:
    """Brightness (mode L) as a picture."""
    return Image.merge("RGB", (tones, tones, tones))


class Samples:
    """Pixels of a small copy, asked for by points of the large picture; outside is the border."""

    def __init__(self, image: Image.Image, scale: int):
        self._pixels, self._bands = image.tobytes(), len(image.getbands())
        (self._across, self._down), self._scale = image.size, scale

    def tone(self, x: float, y: float) -> int:
        """The first band at a point, which for mode L is the brightness."""
        return self._pixels[self._offset(x, y)]

    def colour(self, x: float, y: float) -> Rgb:
        """The colour at a point of an RGB image."""
        offset = self._offset(x, y)
        return self._pixels[offset], self._pixels[offset + 1], self._pixels[offset + 2]

    def _offset(self, x: float, y: float) -> int:
        # Asked ten thousand times a picture, where min and max would take half of the time.
        column, row = int(x) // self._scale, int(y) // self._scale
        column = 0 if column < 0 else column if column < self._across else self._across - 1
        row = 0 if row < 0 else row if row < self._down else self._down - 1
        return (row * self._across + column) * self._bands


def shift(colour: Rgb, by: int) -> Rgb:
    """Brighter or darker by so many steps."""
    red, green, blue = (max(0, min(255, value + by)) for value in colour)
    return red, green, blue


def smooth(points: Outline, steps: int = 8) -> list[Point]:
    """The closed Catmull-Rom curve through the points."""
    curve: list[Point] = []
    count = len(points)
    for i in range(count):
        a, b, c, d = (points[(i + k) % count] for k in (-1, 0, 1, 2))
        for step in range(steps):
            t = step / steps
            curve.append((_bend(a[0], b[0], c[0], d[0], t), _bend(a[1], b[1], c[1], d[1], t)))
    return curve


def through(edge: list[Point]) -> list[Point]:
    """The open curve through the points."""
    ends = [edge[0]] * 2 + edge + [edge[-1]] * 2
    curve: list[Point] = []
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        for step in range(10):
            t = step / 10
            curve.append((_bend(a[0], b[0], c[0], d[0], t), _bend(a[1], b[1], c[1], d[1], t)))
    return [*curve, edge[-1]]


def _bend(a: float, b: float, c: float, d: float, t: float) -> float:
    return 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * (b - c) + d - a) * t**3
    )


def oval(x: float, y: float, rx: float, ry: float | None = None, steps: int = 40) -> list[Point]:
    """An ellipse as an outline."""
    turns = (2 * math.pi * i / steps for i in range(steps))
    return [(x + rx * math.cos(t), y + (rx if ry is None else ry) * math.sin(t)) for t in turns]


def both(points: Outline) -> tuple[list[Point], list[Point]]:
    """An outline and its mirror image."""
    return list(points), [(-x, y) for x, y in points]


def symmetric(points: Outline) -> list[Point]:
    """The outline whose right half is given from top to bottom."""
    return [*points, *((-x, y) for x, y in reversed(points) if x)]


def fractal(size: tuple[int, int], rng: random.Random, grid: tuple[int, int]) -> Image.Image:
    """Cloudy noise (mode L); `grid` says how many lumps lie across and down."""
    # A quarter of the size is enough for clouds, in a sixteenth of the time.
    small = (max(1, size[0] // 4), max(1, size[1] // 4))
    sheet = Image.new("L", small, 128)
    for octave, share in enumerate((1.0, 0.45, 0.3, 0.2)):
        lumps = (grid[0] << octave, grid[1] << octave)
        noise = Image.frombytes("L", lumps, rng.randbytes(lumps[0] * lumps[1]))
        sheet = Image.blend(sheet, scaled(noise, small), share)
    return scaled(sheet, size)


@cache
def _spot() -> Image.Image:
    reach = 178  # Pillow's gradient has this value where it meets the middle of a side
    return toned(Image.radial_gradient("L"), lambda v: 255 * max(0, 1 - v / reach) ** 2)


class Canvas:
    """A picture that takes outlines in pixels; with `ink` it keeps only their contours."""

    def __init__(
        self, size: tuple[int, int], ground: Rgb, *, ink: bool = False, flat: bool = False
    ):
        self.image = Image.new("RGB", size, ground)
        self.size = size
        self.unit = min(size)
        self.paper = ground
        self.ink = ink
        self.flat = flat or ink

    def fill(
        self, outlines: Sequence[Outline], paint: Paint, *, blur: float = 0, opacity: float = 1
    ) -> None:
        """Paint all outlines as one shape."""
        margin = blur * 3 + self.unit / 100
        box = self._box(outlines, margin)
        if box is None:
            return
        # Linework: the contour first, then paper over what lies behind the shape.
        if self.ink:
            self.image.paste(INK, box, self._stencil(outlines, box, line=self.unit / 170))
            paint = self.paper
        mask = self._stencil(outlines, box)
        if blur:
            mask = mask.filter(ImageFilter.GaussianBlur(blur))
        if opacity < 1:
            mask = toned(mask, lambda v: v * opacity)
        self.paste(paint, mask, box)

    def place(
        self, parts: Iterable[Part], x: float, y: float, size: float, *, flip: bool = False
    ) -> None:
        """Draw a figure in its own units with its foot at x, y."""
        across = -size if flip else size
        for outline, paint in parts:
            self.fill([[(x + across * px, y - size * py) for px, py in outline]], paint)

    def paste(self, paint: Paint, mask: Image.Image, box: tuple[int, int, int, int]) -> None:
        """Lay a colour or a gradient through a mask."""
        match paint:
            case (tuple() as top, tuple() as bottom):
                pair = Image.frombytes("RGB", (1, 2), bytes((*top, *bottom)))
                # Between the middles of both pixels, since outside nothing would change.
                ramp = pair.resize(mask.size, Image.Resampling.BILINEAR, (0, 0.5, 1, 1.5))  # pyright: ignore[reportUnknownMemberType]  # names numpy
                self.image.paste(ramp, box, mask)
            case _:
                self.image.paste(paint, box, mask)

    def glow(self, x: float, y: float, radius: float, colour: Rgb, opacity: float = 1) -> None:
        """Light that fades to nothing at the radius."""
        if self.ink or radius < 1:
            return
        side = round(radius * 2)
        left, top = round(x - radius), round(y - radius)
        mask = toned(scaled(_spot(), (side, side)), lambda v: v * opacity)
        self.image.paste(colour, (left, top, left + side, top + side), mask)

    def veil(self, colour: Rgb, top: float, bottom: float, opacity: float) -> None:
        """Mist that thickens from one height to another, or thins when top lies below bottom."""
        if self.ink:
            return
        ramp = toned(Image.linear_gradient("L"), lambda v: v * opacity)
        ramp = ramp if bottom > top else ramp.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        low, high = sorted((round(top), round(bottom)))
        mask = scaled(ramp, (self.size[0], max(1, high - low)))
        self.image.paste(colour, (0, low, self.size[0], low + mask.size[1]), mask)

    def _box(self, outlines: Sequence[Outline], margin: float) -> tuple[int, int, int, int] | None:
        xs = [x for outline in outlines for x, _ in outline]
        ys = [y for outline in outlines for _, y in outline]
        if not xs:
            return None
        left, top = max(0, int(min(xs) - margin)), max(0, int(min(ys) - margin))
        right = min(self.size[0], int(max(xs) + margin) + 1)
        bottom = min(self.size[1], int(max(ys) + margin) + 1)
        return (left, top, right, bottom) if left < right and top < bottom else None

    @staticmethod
    def _stencil(
        outlines: Sequence[Outline], box: tuple[int, int, int, int], line: float = 0
    ) -> Image.Image:
        left, top, right, bottom = box
        # Drawn larger and averaged: Pillow itself has no soft edges.
        scale = 4 if (right - left) * (bottom - top) < 200_000 else 2
        mask = Image.new("L", ((right - left) * scale, (bottom - top) * scale))
        pen = ImageDraw.Draw(mask)
        for outline in outlines:
            path = [((x - left) * scale, (y - top) * scale) for x, y in outline]
            if line:
                # Curves have no corners to round, and rounding them is slow.
                joint = "curve" if len(path) < 16 else None
                pen.line([*path, *path[:2]], fill=255, width=round(line * scale), joint=joint)
            else:
                pen.polygon(path, fill=255)
        return mask.reduce(scale)
