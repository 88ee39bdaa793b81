"""What stands before the landscape: the subject, flowers, snow and rain."""

from __future__ import annotations

from arta_mcp.engines.sketch.canvas import Canvas
from arta_mcp.engines.sketch.colours import WHITE, mix, rgb
from arta_mcp.engines.sketch.figures import BEASTS, beast, bird, boat, flower, house, person
from arta_mcp.engines.sketch.outlines import Part, Point, oval, smooth
from arta_mcp.engines.sketch.words import Scene


def set_subject(canvas: Canvas, scene: Scene, light: Point, scale: float) -> None:
    """The one thing in front, beside the middle and facing the light."""
    mood, unit, (width, height), rng = scene.mood, canvas.unit, canvas.size, scene.rng("subject")
    name, wide = scene.subject or "", width > height * 1.1
    lit_left = light[0] < width / 2
    x = width * (0.6 if lit_left else 0.4)
    if wide:
        x = width * (rng.uniform(0.56, 0.66) if lit_left else rng.uniform(0.34, 0.44))
    y, size = height * 0.93, unit * rng.uniform(0.56, 0.64) * scale
    if height > width * 1.2:
        y, size = height * 0.9, size * 1.25
    match name:
        case "portrait":
            y, size = height + unit * 0.02, unit * 0.92 * scale
            x = width / 2 + (x - width / 2) * 0.5
        case "boat":
            y, size = height * 0.76, unit * 0.36 * scale
        case "house":
            y, size = height * 0.84, unit * 0.34 * scale
        case "bird":
            y = height * 0.88
        case _:
            pass
    # A shadow away from the light; a portrait has no ground and a bird its branch.
    if name not in ("portrait", "bird") and not canvas.ink:
        away = unit * (0.1 if lit_left else -0.1)
        shadow = oval(x + away * (size / unit), y, size * 0.42, size * 0.05)
        dark = mix(mood.ground, mood.near, 0.75)
        canvas.fill([shadow], dark, blur=size * 0.03, opacity=0.55)
    # Flowers are a whole meadow, which the landscape has planted already.
    if name != "flower":
        canvas.place(_figure(name, scene), x, y, size, flip=lit_left)
    # Snow heaped before the paws, so that the animal sits in it and not on it.
    if name in BEASTS and scene.has("snow") and not canvas.ink:
        heap = [(-1.3, -0.12), (-0.75, -0.06), (-0.4, 0.01), (-0.16, 0.035), (0.1, 0.018)]
        heap += [(0.36, 0.04), (0.8, -0.05), (1.4, -0.12)]
        outline = [(x + size * px, y - size * py) for px, py in smooth(heap)]
        paint = (mix(mood.ground, WHITE, 0.4), mix(mood.ground, mood.top, 0.28))
        canvas.fill([outline], paint, blur=size * 0.008)


def _figure(name: str, scene: Scene) -> list[Part]:
    rng = scene.rng("figure")
    some = rgb(rng.choice(("b8433a", "2f6f8f", "d9a03a", "6b4a8a", "3f7a5a")))
    match name:
        case "bird":
            return bird(scene.coat or rgb(rng.choice(("c2503a", "3f7fb5", "d9982f", "5a6a8a"))))
        case "portrait":
            hair = rgb(rng.choice(("2b1d1a", "6b3a22", "a85a2a", "d9b06a", "3a2a4a")))
            skin = rgb(rng.choice(("f2c9a8", "d9a07a", "a8714e", "6f4630")))
            return person(hair, scene.coat or some, skin)
        case "boat":
            return boat(scene.coat or some, rgb("f7f0e0"))
        case "house":
            return house(scene.coat or mix(rgb("8a5a3c"), some, 0.3), rgb("ffd98a"))
        case _:
            return beast(BEASTS[name], scene.coat)


def plant_meadow(canvas: Canvas, scene: Scene, horizon: float) -> None:
    """Flowers from the horizon to our feet, larger and brighter as they come near."""
    mood, unit, (width, height), rng = scene.mood, canvas.unit, canvas.size, scene.rng("meadow")
    hues = ("e8505b", "f7b32b", "d864a9", "f4f0e6", "8a6fe8")
    petals = [scene.coat or rgb(rng.choice(hues)) for _ in range(3)]
    for i in range(26 if scene.has("flower") else 0):
        depth = i / 26
        y = horizon + unit * 0.13 + (height - horizon - unit * 0.1) * depth
        size = unit * (0.07 + 0.3 * depth**1.5) * rng.uniform(0.8, 1.2)
        stem = mix(mix(mood.ground, rgb("2f6a3a"), 0.6), mood.low, 0.4 * (1 - depth))
        blossom = flower(mix(petals[i % 3], mood.low, 0.35 * (1 - depth)), stem, rng)
        canvas.place(blossom, rng.uniform(0, width), y, size)


def let_weather(canvas: Canvas, scene: Scene) -> None:
    """Fog, rain and snow before everything else."""
    mood, unit, (width, height), rng = scene.mood, canvas.unit, canvas.size, scene.rng("weather")
    # In linework every flake and drop would be an outline.
    if canvas.ink:
        return
    if scene.has("fog"):
        canvas.veil(mood.low, height * 0.25, height * 0.7, 0.75)
        canvas.veil(mood.low, height, height * 0.7, 0.75)
    if scene.has("rain"):
        drops: list[list[Point]] = []
        for _ in range(260):
            x, y = rng.uniform(0, width * 1.1), rng.uniform(-0.1, 1) * height
            long = unit * rng.uniform(0.03, 0.09)
            foot = x - long * 0.22
            drops.append([(x, y), (foot, y + long), (foot + unit * 0.002, y + long)])
        canvas.fill(drops, mix(mood.light, WHITE, 0.5), opacity=0.42)
    if scene.has("snow"):
        for size, count, blur in ((0.0022, 170, 0.0), (0.004, 70, 0.001), (0.009, 16, 0.004)):
            flakes: list[list[Point]] = []
            for _ in range(count):
                x, y = rng.uniform(0, width), rng.uniform(0, height)
                flakes.append(oval(x, y, unit * size * rng.uniform(0.6, 1.3), steps=12))
            canvas.fill(flakes, WHITE, opacity=0.85, blur=unit * blur)
