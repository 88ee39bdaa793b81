"""Colours, and what lies between them; no I/O happens here."""

from __future__ import annotations

Rgb = tuple[int, int, int]
Paint = Rgb | tuple[Rgb, Rgb]
"""one colour, or a gradient from the top of the shape to its bottom"""

WHITE: Rgb = (255, 255, 255)
INK: Rgb = (24, 22, 28)


def rgb(code: str) -> Rgb:
    """The colour behind six hexadecimal digits."""
    red, green, blue = bytes.fromhex(code)
    return red, green, blue


def mix(one: Rgb, other: Rgb, share: float) -> Rgb:
    """A colour between two, `share` (0..1) of the way to the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def shift(colour: Rgb, by: int) -> Rgb:
    """Brighter or darker by so many steps."""
    red, green, blue = (max(0, min(255, value + by)) for value in colour)
    return red, green, blue
