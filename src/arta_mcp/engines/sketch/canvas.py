"""A canvas with soft edges, the samples of a picture, and the noise of clouds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFilter

from arta_mcp.engines.sketch.colours import INK, Paint, Rgb
from arta_mcp.engines.sketch.outlines import Outline, Part


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
