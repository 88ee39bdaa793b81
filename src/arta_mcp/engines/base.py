"""What the embedded service and an engine say to each other; no I/O happens here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One picture to draw; the same request always gives the same picture."""

    prompt: str
    negative_prompt: str
    style: str
    """as it is said on the wire: `Vincent Van Gogh`"""
    category: str
    """flux, gpt, logo, tattoo, art, photo, nano or other"""
    seed: int
    index: int
    """0-based number of the picture in its job"""
    aspect_ratio: str
    """one of the nine of the protocol: `16:9`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine says about itself, so that nobody else has to know."""

    engine: str
    model: str
    """what draws, as the engine calls it"""
    is_ai: bool
    """whether a model draws"""
    notice: str
    """what a person is told beside each result"""
    summary: str
    """a sentence for a model, before it asks: what comes of a call"""
