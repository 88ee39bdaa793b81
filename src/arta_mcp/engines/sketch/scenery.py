"""The landscape a scene stands in, from the sky to the weather."""

from __future__ import annotations

import random

from PIL import Image, ImageChops

from arta_mcp.engines.sketch.canvas import Canvas, fractal, scaled, toned
from arta_mcp.engines.sketch.colours import WHITE, mix, rgb
from arta_mcp.engines.sketch.figures import pine, ridge
from arta_mcp.engines.sketch.foreground import let_weather, plant_meadow, set_subject
from arta_mcp.engines.sketch.outlines import Point, oval, smooth, through
from arta_mcp.engines.sketch.words import Scene


def landscape(canvas: Canvas, scene: Scene, *, subject: float = 1.0) -> None:
    """Draw the whole scene from the sky to the weather; `subject` scales what stands in front."""
    horizon, light = frame(canvas.size, scene)
    _sky(canvas, scene, horizon, light)
    _far(canvas, scene, horizon)
    _ground(canvas, scene, horizon, light)
    if subject and scene.subject:
        set_subject(canvas, scene, light, subject)
    let_weather(canvas, scene)


def frame(size: tuple[int, int], scene: Scene) -> tuple[float, Point]:
    """Where the horizon lies, and where the sun or the moon stands."""
    rng = scene.rng("frame")
    horizon = size[1] * rng.uniform(0.56, 0.64)
    across = rng.choice((rng.uniform(0.14, 0.34), rng.uniform(0.66, 0.86)))
    return horizon, (size[0] * across, horizon * rng.uniform(0.3, 0.62))


def _sky(canvas: Canvas, scene: Scene, horizon: float, light: Point) -> None:
    mood, unit, (width, _), night = scene.mood, canvas.unit, canvas.size, scene.dark
    if not canvas.ink:
        depth = round(horizon * 1.08)
        whole = Image.new("L", (width, depth), 255)
        canvas.paste((mood.top, mood.low), whole, (0, 0, width, depth))
    if not canvas.flat:
        canvas.glow(*light, unit * 1.1, mood.light, 0.5 if night else 0.9)
    rng = scene.rng("stars")
    # Each element has its own numbers, so that what is refused moves nothing else.
    if night and not scene.has("rain") and "stars" not in scene.refused:
        for _ in range(150):
            x, y, size = rng.uniform(0, width), horizon * rng.random() ** 1.3, rng.random() ** 4
            star = oval(x, y, unit * (0.0011 + 0.002 * size), steps=8)
            canvas.fill([star], mix(mood.top, WHITE, 0.5 + size / 2))
    if "cloud" not in scene.refused:
        _clouds(canvas, scene, horizon)
    if not {"moon" if night else "sun"} & scene.refused:
        _disc(canvas, scene, light)


def _disc(canvas: Canvas, scene: Scene, light: Point) -> None:
    mood, night = scene.mood, scene.dark
    radius = canvas.unit * (0.06 if night else 0.052)
    canvas.glow(*light, radius * 5, mix(mood.light, WHITE, 0.4), 0.75)
    # Behind rain or fog there is a glow and no disc.
    if not scene.has("rain", "fog"):
        paint = (mix(mood.light, WHITE, 0.85), mix(mood.light, WHITE, 0.3))
        canvas.fill([oval(*light, radius)], paint)
    if night:
        seas = [oval(light[0] + radius * 0.3, light[1] + radius * 0.2, radius * 0.22)]
        seas.append(oval(light[0] - radius * 0.35, light[1] - radius * 0.25, radius * 0.16))
        canvas.fill(seas, mix(mood.light, mood.far, 0.22))


def _clouds(canvas: Canvas, scene: Scene, horizon: float) -> None:
    mood, (width, _), rng = scene.mood, canvas.size, scene.rng("clouds")
    # Noise is no shape: flat pictures and linework get puffs on a bar instead.
    if canvas.flat:
        for _ in range(rng.randint(3, 5)):
            x, y = rng.uniform(0, width), horizon * rng.uniform(0.1, 0.6)
            size = canvas.unit * rng.uniform(0.05, 0.1)
            cloud: list[list[Point]] = []
            for k in (-1.2, -0.5, 0.2, 0.9):
                py, radius = y - size * rng.uniform(0, 0.35), size * rng.uniform(0.4, 0.7)
                cloud.append(oval(x + size * k, py, radius, radius * 0.75))
            bar = [(x - size * 2, y + size * 0.3), (x + size * 1.7, y + size * 0.3)]
            bar += [(x + size * 1.5, y), (x - size * 1.6, y)]
            colour = mix(mood.low, mood.light, 0.14 if scene.dark else 0.65)
            canvas.fill([*cloud, smooth(bar)], colour, opacity=0.9)
        return
    depth = round(horizon)
    cover = 132 if scene.has("cloud", "rain") else 150
    noise = fractal((width, depth), rng, (2 + width // 500, 5))
    noise = toned(noise, lambda v: min(210, (v - cover) * 5))
    colour = mix(mood.light, mood.low, 0.65 if scene.dark else 0.25)
    canvas.paste(colour, noise, (0, 0, width, depth))


def _far(canvas: Canvas, scene: Scene, horizon: float) -> None:
    mood, unit, height = scene.mood, canvas.unit, canvas.size[1]
    peaks = scene.has("mountain")
    # These lie open to the horizon, unless mountains are asked for as well.
    if not (scene.has("desert", "city", "sea") and not peaks):
        for i in range(3):
            rng = scene.rng(f"ridge {i}")
            share = ((0.5, 0.4, 0.2) if peaks else (0.24, 0.17, 0.1))[i]
            tall = unit * share * rng.uniform(0.8, 1.2)
            base = horizon + unit * 0.02 * i
            edge = ridge(canvas.size, base, tall, rng, 0.55 if peaks else 0.3)
            colour = mix(mix(mood.low, mood.far, 0.55 + 0.2 * i), mood.near, 0.12 + 0.2 * i)
            canvas.fill([_below(edge, height)], (colour, mix(colour, mood.low, 0.55)))
            if peaks and i < 2:
                white = mix(colour, mix(mood.light, WHITE, 0.5), 0.5 + 0.25 * i)
                canvas.fill(_snowcaps(edge, tall, rng), white, opacity=0.85)
            canvas.veil(mood.low, base - tall * 0.45, base + unit * 0.02, 0.55)
    if scene.has("city"):
        _skyline(canvas, scene, horizon)
    wooded = scene.has("forest", "snow") and "forest" not in scene.refused
    if wooded and not scene.has("sea", "desert", "city"):
        _trees(canvas, scene, horizon)


def _below(edge: list[Point], height: float) -> list[Point]:
    # Nine pixels beyond each border hide the soft edge of the shape.
    (_, first), (end, last) = edge[0], edge[-1]
    return [(-9, first), *edge, (end + 9, last), (end + 9, height + 9), (-9, height + 9)]


def _snowcaps(edge: list[Point], tall: float, rng: random.Random) -> list[list[Point]]:
    """The lit side of each peak: from its top down one flank and back over a ragged line."""
    caps: list[list[Point]] = []
    for i in range(4, len(edge) - 8):
        x, y = edge[i]
        # Only where nothing near is higher, which is a peak.
        if y > min(edge[k][1] for k in range(i - 4, i + 5)):
            continue
        last = i + 1
        while last < len(edge) - 1 and last <= i + 11 and y <= edge[last][1] <= y + tall * 0.42:
            last += 1
        cap = edge[i : last + 1]
        across, depth = cap[-1][0] - x, cap[-1][1] - y
        for share in (0.9, 0.72, 0.55, 0.4, 0.26, 0.12):
            px = x + across * share + depth * rng.uniform(-0.16, 0.1)
            cap.append((px, y + depth * share * rng.uniform(0.95, 1.5)))
        caps.append(cap)
    return caps


def _skyline(canvas: Canvas, scene: Scene, horizon: float) -> None:
    mood, unit, (width, _) = scene.mood, canvas.unit, canvas.size
    foot = horizon + unit * 0.07
    # From the farthest row to the nearest: each lower and darker than the one behind.
    for row, (tall, share) in enumerate(((0.5, 0.2), (0.36, 0.55), (0.22, 0.9))):
        rng, x = scene.rng(f"towers {row}"), -0.05 * unit
        towers, panes = list[list[Point]](), list[list[Point]]()
        while x < width:
            wide, high = unit * rng.uniform(0.05, 0.11), unit * tall * rng.uniform(0.4, 1.1)
            towers.append([(x, foot), (x, foot - high), (x + wide, foot - high), (x + wide, foot)])
            if rng.random() < 0.35:
                mast, half, top = x + wide * rng.uniform(0.3, 0.7), unit * 0.003, foot - high
                towers.append([(mast - half, top), (mast, foot - high * 1.25), (mast + half, top)])
            # Four windows a floor, all asked for and some lit; the farthest row is too far for any.
            side = unit * 0.0085
            for k in range(int(high / side / 2.4) * 4):
                if row and rng.random() < 0.4:
                    px = x + wide * (0.12 + 0.21 * (k % 4))
                    py = foot - high + side * (1.5 + 2.4 * (k // 4))
                    right, low = px + side, py + side * 1.3
                    panes.append([(px, py), (right, py), (right, low), (px, low)])
            x += wide * rng.uniform(0.85, 1.3)
        colour = mix(mix(mood.far, mood.low, 0.4), mood.near, share)
        canvas.fill(towers, (colour, mix(colour, mood.low, 0.4)))
        if not canvas.ink:
            canvas.fill(panes, rgb("ffdc8a"), opacity=0.35 + 0.25 * row)
        canvas.veil(mood.low, foot - unit * 0.2, foot, 0.4)


def _trees(canvas: Canvas, scene: Scene, horizon: float) -> None:
    mood, unit, width = scene.mood, canvas.unit, canvas.size[0]
    dense = 1.0 if scene.has("forest") else 0.6
    # From the farthest row to the nearest: each taller and darker than the one behind.
    for row, (tall, share) in enumerate(((0.13, 0.35), (0.2, 0.62), (0.3, 0.88))):
        rng, x = scene.rng(f"trees {row}"), -unit * 0.1
        foot = horizon + unit * (0.03 + 0.035 * row)
        woods, frost = list[list[Point]](), list[list[Point]]()
        while x < width + unit * 0.1:
            # The nearest row leaves the middle free for what stands in front.
            gap = row == 2 and abs(x - width / 2) < width * 0.22
            if rng.random() < dense and not gap:
                y = foot + unit * rng.uniform(-0.005, 0.02)
                tree = pine(x, y, unit * tall * rng.uniform(0.6, 1.25), rng)
                woods.append(tree)
                flank = tree[: len(tree) // 2 - 2]
                frost.append([(px + (x - px) * 0.25, py - unit * 0.004) for px, py in flank])
            x += unit * tall * rng.uniform(0.15, 0.45)
        colour = mix(mix(mood.far, mood.low, 0.3), mood.near, share)
        canvas.fill(woods, (colour, mix(colour, mood.low, 0.25)))
        if scene.has("snow") and not canvas.ink:
            canvas.fill(frost, mix(mood.ground, mood.light, 0.3), opacity=0.3 + 0.2 * row)
        canvas.veil(mix(mood.low, mood.ground, 0.4), foot - unit * 0.1, foot + unit * 0.03, 0.5)


def _ground(canvas: Canvas, scene: Scene, horizon: float, light: Point) -> None:
    mood, unit, (width, height) = scene.mood, canvas.unit, canvas.size
    if scene.has("sea"):
        _water(canvas, scene, horizon, light)
        return
    for i in range(3):
        rng = scene.rng(f"hill {i}")
        base = horizon + unit * 0.05 + (height - horizon) * (0.02, 0.26, 0.6)[i]
        tall = rng.uniform(0.13, 0.2) if scene.has("desert") else rng.uniform(0.06, 0.1)
        edge = ridge(canvas.size, base, unit * tall, rng, 0.3)
        bright = mix(mood.ground, mood.light, 0.34 - 0.14 * i)
        shade = mix(mood.ground, mood.near if not scene.has("snow") else mood.top, 0.16 + 0.12 * i)
        canvas.fill([_below(edge, height)], (bright, shade))
        if scene.has("desert") and not canvas.ink:
            # The lee of the highest dune lies in shade, along a bent spine.
            x, y = min(edge, key=lambda point: point[1])
            turns = ((0, 0), (-0.04, 0.07), (0.06, 0.18), (0.02, 0.34), (-0.2, 1))
            spine = through([(x + unit * across, y + unit * down) for across, down in turns])
            slope = [point for point in edge if point[0] > x]
            lee = [*spine, (width + 9, height + unit), *reversed(slope)]
            canvas.fill([lee], (mix(shade, mood.near, 0.5), shade), opacity=0.8)
    if not canvas.flat:
        deep = height - round(horizon + unit * 0.1)
        noise = fractal((width, deep), scene.rng("drift"), (2, 6))
        noise = toned(noise, lambda v: min(110, v - 110))
        noise = ImageChops.multiply(noise, scaled(Image.linear_gradient("L"), noise.size))
        colour = mix(mood.ground, mood.top if scene.has("snow") else mood.near, 0.75)
        canvas.paste(colour, noise, (0, height - deep, width, height))
    if scene.has("field", "flower") and not scene.has("snow"):
        plant_meadow(canvas, scene, horizon)


def _water(canvas: Canvas, scene: Scene, horizon: float, light: Point) -> None:
    mood, unit, (width, height) = scene.mood, canvas.unit, canvas.size
    top = round(horizon)
    if canvas.ink:
        canvas.fill([_below([(0, top), (width, top)], height)], mood.ground)
    else:
        # The picture so far upside down, under a tint of the water.
        mirror = canvas.image.crop((0, max(0, 2 * top - height), width, top))
        mirror = mirror.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        canvas.image.paste(scaled(mirror, (width, height - top)), (0, top))
        tint = (mix(mood.ground, mood.low, 0.5), mix(mood.ground, mood.near, 0.45))
        veil = Image.new("L", (width, height - top), 150)
        canvas.paste(tint, veil, (0, top, width, height))
    rng = scene.rng("waves")
    # Waves everywhere, then a lane of light below the sun or the moon.
    plain = mix(mood.ground, mood.near, 0.5)
    for glitter, count, colour, opacity in ((False, 90, plain, 0.3), (True, 110, mood.light, 0.75)):
        waves: list[list[Point]] = []
        for _ in range(count):
            depth = rng.random() ** 1.6
            y = top + unit * 0.004 + (height - top) * depth
            if glitter:
                x = light[0] + rng.gauss(0, unit * (0.035 + 0.1 * depth))
            else:
                x = rng.uniform(0, width)
            long = unit * (0.015 + 0.1 * depth) * rng.uniform(0.4, 1.3)
            thick = unit * (0.001 + 0.005 * depth)
            waves.append([(x - long, y), (x, y - thick), (x + long, y), (x, y + thick)])
        canvas.fill(waves, colour, opacity=opacity)
