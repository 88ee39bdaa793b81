"""Curves and the outlines of shapes; no I/O happens here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from arta_mcp.engines.sketch.colours import Paint

Point = tuple[float, float]
Outline = Sequence[Point]
Part = tuple[Outline, Paint]


def smooth(points: Outline, steps: int = 8) -> list[Point]:
    """The closed Catmull-Rom curve through the points."""
    count = len(points)
    return _curve(([points[(i + k) % count] for k in (-1, 0, 1, 2)] for i in range(count)), steps)


def through(edge: list[Point]) -> list[Point]:
    """The open curve through the points."""
    ends = [edge[0]] * 2 + edge + [edge[-1]] * 2
    return [*_curve(zip(ends, ends[1:], ends[2:], ends[3:], strict=False), 10), edge[-1]]


def _curve(fours: Iterable[Iterable[Point]], steps: int) -> list[Point]:
    """The bend between the middle two of each four points."""
    curve: list[Point] = []
    for a, b, c, d in fours:
        for step in range(steps):
            t = step / steps
            curve.append((_bend(a[0], b[0], c[0], d[0], t), _bend(a[1], b[1], c[1], d[1], t)))
    return curve


def _bend(a: float, b: float, c: float, d: float, t: float) -> float:
    square, cube = 2 * a - 5 * b + 4 * c - d, 3 * (b - c) + d - a
    return 0.5 * (2 * b + (c - a) * t + square * t**2 + cube * t**3)


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
