"""The outlines of beasts, people, trees and houses.

Figures have their own units: x to both sides of 0, y upwards from the ground at 0, about 1 high.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import pairwise

from arta_mcp.engines.sketch.colours import INK, WHITE, Paint, Rgb, mix, rgb
from arta_mcp.engines.sketch.outlines import Part, Point, both, oval, smooth, symmetric, through


@dataclass(frozen=True)
class Beast:
    """What tells one sitting animal from another."""

    coat: str
    belly: str
    socks: str
    ears: str
    tail: str
    cheek: float
    """half the width of the face"""
    muzzle: float
    """how far the chin hangs below the cheeks"""
    eyes: str


BEASTS = {
    "fox": Beast("d9541e", "fff4e6", "2b1a1a", "sharp", "brush", 0.25, 0.12, "e0a030"),
    "wolf": Beast("6d7788", "e9edf2", "4a5260", "sharp", "brush", 0.25, 0.12, "d8b850"),
    "dog": Beast("b5793f", "f7e6cc", "f7e6cc", "floppy", "thin", 0.19, 0.11, "7a4a28"),
    "cat": Beast("6b6470", "f1ece6", "f1ece6", "sharp", "thin", 0.21, 0.06, "b4cc58"),
    "rabbit": Beast("b09a86", "fbf3ea", "e3d5c6", "long", "puff", 0.18, 0.07, "5a3a30"),
    "bear": Beast("6b4630", "c79a70", "4a2f20", "round", "none", 0.23, 0.09, "6a4020"),
}


def beast(kind: Beast, coat: Rgb | None = None) -> list[Part]:
    """The animal sits and looks at us, its tail on the right."""
    fur = coat or rgb(kind.coat)
    dark = mix(fur, (40, 10, 30), 0.42)
    light = mix(fur, (255, 226, 170), 0.28 if sum(fur) > 240 else 0.1)
    belly, socks = rgb(kind.belly), rgb(kind.socks)
    soft = mix(belly, (110, 120, 160), 0.25)
    haunch = [(0.02, 0.0), (0.2, -0.005), (0.285, 0.09), (0.25, 0.27), (0.12, 0.36), (0, 0.2)]
    torso = [(-0.15, 0), (0.12, 0), (0.22, 0.18), (0.17, 0.42), (0.1, 0.6), (-0.09, 0.6)]
    torso += [(-0.16, 0.4)]
    # From back to front: what comes later hides what is there.
    parts: list[Part] = [*_tail(kind.tail, fur, dark, belly)]
    parts += [(smooth(torso), (light, dark)), (smooth(haunch), (mix(fur, light, 0.3), dark))]
    for x in (-0.1, 0.045):
        leg = [(x - 0.058, 0.36), (x + 0.058, 0.36), (x + 0.05, 0.15), (x + 0.064, 0.005)]
        paw = [(x - 0.052, 0.17), (x + 0.045, 0.17), (x + 0.068, 0.02), (x, -0.014)]
        paw += [(x - 0.066, 0.02)]
        parts += [
            (smooth([*leg, (x - 0.062, 0.005), (x - 0.052, 0.15)]), (fur, dark)),
            (smooth(paw), (mix(socks, fur, 0.35), socks)),
        ]
    ruff = [(-0.13, 0.6), (0.13, 0.6), (0.115, 0.47), (0.085, 0.49), (0.075, 0.38), (0.04, 0.41)]
    ruff += [(0.005, 0.28), (-0.035, 0.4), (-0.075, 0.36), (-0.085, 0.48), (-0.125, 0.46)]
    parts.append((ruff, (soft, belly)))
    return parts + _head(kind, fur, light, dark, belly, soft)


def _tail(kind: str, fur: Rgb, dark: Rgb, belly: Rgb) -> list[Part]:
    match kind:
        case "brush":
            whole = [(0.1, 0.02), (0.3, -0.02), (0.5, 0.06), (0.6, 0.24), (0.575, 0.43)]
            whole += [(0.49, 0.6), (0.43, 0.44), (0.385, 0.29), (0.31, 0.2), (0.16, 0.17)]
            tip = [(0.49, 0.6), (0.575, 0.43), (0.6, 0.33), (0.545, 0.39), (0.515, 0.34)]
            tip += [(0.47, 0.4), (0.42, 0.36), (0.43, 0.44)]
            return [(smooth(whole), (fur, dark)), (smooth(tip, 5), (WHITE, belly))]
        case "thin":
            whole = [(0.15, 0.01), (0.34, 0.0), (0.46, 0.1), (0.45, 0.28), (0.39, 0.4)]
            whole += [(0.355, 0.37), (0.4, 0.25), (0.4, 0.13), (0.32, 0.07), (0.16, 0.09)]
            return [(smooth(whole), (fur, dark))]
        case "puff":
            return [(oval(0.27, 0.09, 0.08), (WHITE, belly))]
        case _:
            return []


def _head(kind: Beast, fur: Rgb, light: Rgb, dark: Rgb, belly: Rgb, soft: Rgb) -> list[Part]:
    wide, chin = kind.cheek, 0.66 - kind.muzzle
    half = [(0, 0.915), (wide * 0.46, 0.882), (wide * 0.84, 0.785), (wide, 0.655)]
    half += [(wide * 0.62, 0.61), (wide * 0.3, chin + 0.012), (0, chin - 0.012)]
    face = smooth(symmetric(half), 6)
    # Floppy ears hang over the face, all others stand behind it.
    parts: list[Part] = list(_ears(kind, fur, dark, soft)) if kind.ears != "floppy" else []
    parts.append((face, (light, mix(fur, dark, 0.25))))
    cheek = [(wide * 0.98, 0.652), (wide * 0.55, 0.705), (0.07, 0.69), (0.028, 0.65)]
    cheek += [(0.0, chin - 0.004), (wide * 0.3, chin + 0.016), (wide * 0.62, 0.613)]
    parts += [(side, (belly, soft)) for side in both(cheek)]
    if kind.ears == "floppy":
        parts += _ears(kind, fur, dark, soft)
    for side in (-1, 1):
        x, y = side * 0.094 * wide / 0.24, 0.745
        eye = [(-0.05, -0.014), (-0.03, 0.024), (0.012, 0.036), (0.05, 0.022), (0.032, -0.02)]
        eye += [(-0.01, -0.028)]
        # Lid, iris, pupil, and the light in it, which is on the same side in both eyes.
        parts += [
            (smooth([(x + side * px, y + py) for px, py in eye], 6), INK),
            (oval(x, y + 0.003, 0.026), (mix(rgb(kind.eyes), INK, 0.3), rgb(kind.eyes))),
            (oval(x, y + 0.003, 0.013 if kind.ears == "sharp" else 0.018, 0.021), INK),
            (oval(x - 0.008, y + 0.014, 0.0075, steps=12), WHITE),
        ]
    nose = [(0, chin - 0.002), (0.03, chin + 0.028), (0.022, chin + 0.045), (0, chin + 0.046)]
    parts.append((smooth(symmetric(nose), 5), INK))
    return parts


def _ears(kind: Beast, fur: Rgb, dark: Rgb, soft: Rgb) -> list[Part]:
    wide = kind.cheek
    match kind.ears:
        case "sharp":
            outer = [(wide * 0.2, 0.85), (wide * 0.5, 0.97), (wide * 0.82, 1.06)]
            outer += [(wide * 0.93, 0.93), (wide * 0.9, 0.74)]
            inner = [(wide * 0.42, 0.87), (wide * 0.77, 1.0), (wide * 0.8, 0.8)]
        case "round":
            outer, inner = oval(wide * 0.7, 0.87, 0.075), oval(wide * 0.7, 0.87, 0.042)
        case "long":
            outer, inner = oval(wide * 0.5, 1.02, 0.062, 0.2), oval(wide * 0.5, 1.02, 0.03, 0.15)
        case _:
            outer = smooth(
                [(wide * 0.5, 0.86), (wide * 1.1, 0.84), (wide * 1.35, 0.6), (wide * 0.92, 0.62)]
            )
            return [(side, (dark, mix(fur, dark, 0.6))) for side in both(outer)]
    shade = mix(dark, INK, 0.45) if kind.ears == "sharp" else soft
    return [
        *((side, (mix(fur, dark, 0.5), fur)) for side in both(outer)),
        *((side, (shade, mix(shade, fur, 0.4))) for side in both(inner)),
    ]


def bird(coat: Rgb) -> list[Part]:
    """A songbird on its branch, looking left."""
    dark = mix(coat, INK, 0.55)
    body = [(-0.3, 0.66), (-0.22, 0.8), (-0.06, 0.82), (0.08, 0.68), (0.26, 0.5), (0.3, 0.3)]
    body += [(0.12, 0.17), (-0.1, 0.18), (-0.27, 0.36)]
    breast = [(-0.29, 0.62), (-0.16, 0.56), (-0.04, 0.36), (0.1, 0.2), (-0.1, 0.185), (-0.27, 0.36)]
    wing = [(-0.02, 0.56), (0.14, 0.58), (0.32, 0.4), (0.56, 0.18), (0.3, 0.24), (0.06, 0.32)]
    branch = [(-0.9, 0.02), (-0.3, 0.13), (0.3, 0.14), (1.1, 0.3), (1.1, 0.24), (0.3, 0.06)]
    branch += [(-0.3, 0.06)]
    # Tail, branch, legs, beak, body, breast, wing, eye.
    return [
        (smooth([(0.18, 0.42), (0.66, 0.08), (0.72, -0.02), (0.6, -0.02), (0.12, 0.24)], 4), dark),
        (smooth(branch), (mix(INK, (120, 80, 60), 0.5), INK)),
        ([(-0.05, 0.22), (-0.03, 0.22), (-0.05, 0.1), (-0.08, 0.1)], INK),
        ([(0.06, 0.22), (0.08, 0.22), (0.07, 0.1), (0.04, 0.1)], INK),
        ([(-0.27, 0.73), (-0.42, 0.67), (-0.28, 0.65)], (rgb("f0b040"), rgb("b06a1c"))),
        (smooth(body), (mix(coat, WHITE, 0.2), mix(coat, INK, 0.25))),
        (smooth(breast), (mix(coat, WHITE, 0.85), mix(coat, WHITE, 0.6))),
        (smooth(wing, 6), (mix(coat, INK, 0.25), dark)),
        (oval(-0.19, 0.71, 0.03), INK),
        (oval(-0.2, 0.72, 0.01), WHITE),
    ]


def person(hair: Rgb, coat: Rgb, skin: Rgb) -> list[Part]:
    """Head and shoulders, eyes closed."""
    shade = mix(skin, (120, 50, 60), 0.35)
    back = [(0, 1.03), (0.13, 1.0), (0.235, 0.88), (0.275, 0.64), (0.3, 0.4), (0.21, 0.24)]
    back += [(0, 0.22)]
    bust = [(-0.62, -0.05), (-0.54, 0.14), (-0.3, 0.25), (-0.1, 0.3), (0.1, 0.3), (0.3, 0.25)]
    bust += [(0.54, 0.14), (0.62, -0.05)]
    neck = [(0, 0.55), (0.085, 0.5), (0.09, 0.32), (0.06, 0.25), (0, 0.2)]
    face = [(0, 0.94), (0.15, 0.88), (0.185, 0.68), (0.15, 0.5), (0.07, 0.41), (0, 0.395)]
    fringe = [(-0.2, 0.58), (-0.225, 0.82), (-0.1, 0.995), (0.1, 0.995), (0.225, 0.82), (0.2, 0.58)]
    fringe += [(0.15, 0.78), (0.02, 0.86), (-0.12, 0.82)]
    # Hair behind, shoulders, neck, face, fringe; then what lies on the face.
    parts: list[Part] = [
        (smooth(symmetric(back)), (mix(hair, WHITE, 0.12), mix(hair, INK, 0.4))),
        (smooth(bust), (mix(coat, WHITE, 0.12), mix(coat, INK, 0.3))),
        (smooth(symmetric(neck)), (shade, skin)),
        (smooth(symmetric(face)), (mix(skin, WHITE, 0.15), mix(skin, shade, 0.4))),
        (smooth(fringe), (mix(hair, WHITE, 0.25), hair)),
    ]
    for side in (-1, 1):
        lid = [(0.045, 0.652), (0.085, 0.635), (0.13, 0.658), (0.085, 0.647)]
        brow = [(0.04, 0.71), (0.085, 0.727), (0.14, 0.712), (0.085, 0.738)]
        for line in (lid, brow):
            parts.append((smooth([(side * x, y) for x, y in line], 5), mix(hair, INK, 0.6)))
        parts.append((oval(side * 0.11, 0.575, 0.034, 0.024), mix(skin, (230, 90, 90), 0.3)))
    parts.append((smooth([(0, 0.53), (0.022, 0.55), (0.012, 0.62), (0.002, 0.56)], 4), shade))
    mouth = [(-0.048, 0.478), (0, 0.487), (0.048, 0.478), (0, 0.456)]
    return [*parts, (smooth(mouth, 5), rgb("b8434a"))]


def house(wall: Rgb, lit: Rgb) -> list[Part]:
    """A cottage with warm windows."""
    shade = mix(wall, INK, 0.45)
    pane: Paint = (lit, mix(lit, rgb("e07a20"), 0.5))
    # Chimney, wall, roof, door, windows.
    return [
        ([(0.2, 0.6), (0.2, 0.92), (0.3, 0.92), (0.3, 0.6)], shade),
        ([(-0.42, 0), (-0.42, 0.5), (0.42, 0.5), (0.42, 0)], (wall, shade)),
        ([(-0.52, 0.46), (-0.28, 0.84), (0.28, 0.84), (0.52, 0.46)], (mix(INK, wall, 0.45), INK)),
        ([(-0.08, 0), (-0.08, 0.3), (0.08, 0.3), (0.08, 0)], mix(INK, wall, 0.2)),
        *(([(x, 0.2), (x, 0.36), (x + 0.15, 0.36), (x + 0.15, 0.2)], pane) for x in (-0.32, 0.17)),
    ]


def boat(hull: Rgb, sail: Rgb) -> list[Part]:
    """A small sailing boat, seen from the side."""
    mainsail = smooth([(0.03, 0.22), (0.03, 0.97), (0.2, 0.62), (0.36, 0.22)], 6)
    jib = [(-0.03, 0.22), (-0.03, 0.86), (-0.28, 0.22)]
    # Mast, sails, hull.
    return [
        ([(-0.01, 0.1), (-0.01, 1.0), (0.012, 1.0), (0.012, 0.1)], mix(hull, INK, 0.6)),
        (mainsail, (sail, mix(sail, hull, 0.25))),
        (jib, (mix(sail, hull, 0.1), mix(sail, hull, 0.35))),
        ([(-0.4, 0.16), (0.46, 0.16), (0.32, 0), (-0.28, 0)], (hull, mix(hull, INK, 0.6))),
    ]


def flower(petal: Rgb, stem: Rgb, rng: random.Random) -> list[Part]:
    """One blossom on a bent stem."""
    lean, count = rng.uniform(-0.12, 0.12), rng.choice((5, 6, 8))
    top: Point = (lean, 0.82)
    bend = lean * 0.3
    stalk = smooth([(-0.012, 0), (bend - 0.012, 0.4), top, (bend + 0.012, 0.4), (0.012, 0)], 6)
    leaf = smooth([(lean * 0.2, 0.28), (0.12, 0.42), (0.24, 0.46), (0.15, 0.34)], 6)
    parts: list[Part] = [(stalk, stem), (leaf, (mix(stem, WHITE, 0.2), stem))]
    for i in range(count):
        turn = 2 * math.pi * i / count + lean * 5
        across, along = (math.cos(turn), math.sin(turn)), (0.0, 0.1, 0.19, 0.19, 0.1)
        widths = (0.0, 0.055, 0.04, -0.04, -0.055)
        # A petal: out along its direction, as wide to each side as `widths` says, and back.
        blade = [
            (top[0] + across[0] * a - across[1] * b, top[1] + across[1] * a + across[0] * b)
            for a, b in zip(along, widths, strict=True)
        ]
        parts.append((smooth(blade, 5), (mix(petal, WHITE, 0.35), mix(petal, INK, 0.12))))
    return [*parts, (oval(*top, 0.05), (rgb("ffd866"), rgb("c9801e")))]


def pine(x: float, y: float, height: float, rng: random.Random) -> list[Point]:
    """A conifer in pixels, its foot at x, y."""
    tiers, right = 7, list[Point]()
    for tier in range(tiers):
        low = 1 - (tier + 1) / tiers * 0.93
        reach = height * 0.23 * (1 - low) ** 0.85 * rng.uniform(0.82, 1.12)
        right += [(reach, low), (reach * 0.5, low + 0.012)]
    right += [(height * 0.025, 0.06), (height * 0.025, -0.03)]
    flank = [(x + across, y - height * up) for across, up in right]
    # Not quite the mirror image: a tree that is one looks cut from paper.
    for across, up in reversed(right):
        flank.append((x - across * rng.uniform(0.9, 1.05), y - height * up))
    return [(x, y - height), *flank]


def ridge(
    size: tuple[int, int], base: float, height: float, rng: random.Random, rough: float
) -> list[Point]:
    """A skyline of hills (rough 0.3) or peaks (rough 0.6) across the picture, as its upper edge."""
    heights = [rng.uniform(0, 1) for _ in range(4 + 3 * (size[0] > size[1] * 1.2))]
    spread = 0.3
    # Midpoint displacement: halve every stretch, move its middle, each time by less.
    for _ in range(5 if rough > 0.4 else 1):
        wider = [heights[0]]
        for left, right in pairwise(heights):
            wider += [(left + right) / 2 + rng.uniform(-spread, spread), right]
        heights, spread = wider, spread * rough
    low, high = min(heights), max(heights)
    step = size[0] / (len(heights) - 1)
    scaled = [(v - low) / (high - low or 1) for v in heights]
    edge = [(i * step, base - height * v) for i, v in enumerate(scaled)]
    return edge if rough > 0.4 else through(edge)
