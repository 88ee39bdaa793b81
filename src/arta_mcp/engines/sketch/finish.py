"""A scene as a picture, and what is done to finished pictures: dark corners, grain, paper."""

from __future__ import annotations

import random

from PIL import Image, ImageChops, ImageFilter

from arta_mcp.engines.sketch.canvas import Canvas, fractal, grey, scaled, toned
from arta_mcp.engines.sketch.colours import INK
from arta_mcp.engines.sketch.scenery import landscape
from arta_mcp.engines.sketch.words import Scene


def render(
    scene: Scene, size: tuple[int, int], *, flat: bool = False, subject: float = 1
) -> Image.Image:
    """The landscape with its subject; `flat` leaves out glow and texture."""
    canvas = Canvas(size, scene.mood.low, flat=flat)
    landscape(canvas, scene, subject=subject)
    return canvas.image


def vignette(image: Image.Image, strength: float) -> Image.Image:
    """Darker corners; the picture itself is changed."""
    shade = toned(Image.radial_gradient("L"), lambda v: (v - 110) * strength)
    image.paste(INK, (0, 0), scaled(shade, image.size))
    return image


def grained(image: Image.Image, rng: random.Random, depth: int) -> Image.Image:
    """Film grain of so many steps of brightness either way."""
    width, height = image.size
    noise = Image.frombytes("L", image.size, rng.randbytes(width * height))
    return speckled(image, toned(noise, lambda v: 128 + (v - 128) * depth / 128))


def speckled(image: Image.Image, noise: Image.Image) -> Image.Image:
    """Brighter where the noise is above 128, darker where below."""
    return ImageChops.add(image, grey(noise), 1, -128)


def textured(image: Image.Image, scene: Scene, depth: int) -> Image.Image:
    """Rough paper: a fine tooth over soft blotches, so many steps of brightness deep."""
    blotches = fractal(image.size, scene.rng("blotches"), (4, 3))
    shaded = speckled(image, toned(blotches, lambda v: 128 + (v - 128) * depth / 96))
    return grained(shaded, scene.rng("tooth"), depth)


def soft(image: Image.Image, shrink: int, radius: float) -> Image.Image:
    """Out of focus; reckoned on a small copy, which is faster and looks the same."""
    # The blur itself hides what the reduction loses.
    small = image.reduce(shrink).filter(ImageFilter.GaussianBlur(radius / shrink))
    return scaled(small, image.size)
