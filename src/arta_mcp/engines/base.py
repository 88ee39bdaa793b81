"""What the embedded service and an engine say to each other; no network, no file, no clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

NATIVE_AREA = 1024 * 1024
"""pixels that models of today are trained on; an engine that knows better says so"""

SIZE_STEP = 16
"""pixels; sizes that are no multiples of it are refused by some models"""

OnStep = Callable[[int, int | None], None]
"""called with the steps of one picture that are done, and how many there are, if that is known"""


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One picture to draw.

    For an engine that `is_ai` the words of the style are in `prompt` and `negative_prompt` already.
    None means that the caller did not say: the engine's own.
    """

    prompt: str
    negative_prompt: str
    """empty: nothing was said"""
    style: str
    """as it is said on the wire: `Vincent Van Gogh`"""
    category: str
    """flux, gpt, logo, tattoo, art, photo, nano or other"""
    seed: int
    """of the job"""
    index: int
    """0-based number of the picture in its job"""
    aspect_ratio: str
    """one of the nine of the protocol: `16:9`"""
    size: tuple[int, int] = (1024, 1024)
    """width and height that the engine can draw and that are nearest to the ratio; one that knows
    more of its model once that is loaded fits them anew"""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    @property
    def picture_seed(self) -> int:
        """The seed of this picture of its job, in 32 bits."""
        return (self.seed + self.index) % 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine says about itself, so that nobody else has to know."""

    engine: str
    model: str | None
    """what draws, as the engine calls it; None where only its answer tells"""
    is_ai: bool
    """whether a model draws"""
    notice: str
    """what a person is told beside each result"""
    summary: str
    """a sentence for a model, before it asks: what comes of a call"""
    native_area: int = NATIVE_AREA
    """pixels of a picture"""
    size_step: int = SIZE_STEP
    """pixels of which width and height are multiples"""
    sizes: tuple[tuple[int, int], ...] = ()
    """the only sizes that it draws; empty: any"""
    honours: frozenset[str] = frozenset()
    """of `negative_prompt`, `guidance_scale`, `num_inference_steps`, `seed`"""
    parallel: int = 1
    """pictures that it draws at a time"""
    idle: float = 1.0
    """seconds without a job after which it is closed"""
    is_repeatable: bool = True
    """whether a request whose answer was lost may be sent again: it costs nobody anything"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedImage:
    """One picture, and what it took; what was not honoured is named as arguments are."""

    data: bytes
    """a PNG"""
    model: str | None = None
    """what drew, where the answer says more than `EngineInfo.model`"""
    not_honoured: tuple[str, ...] = ()
    note: str = ""
    """what else a person should know of this picture: another size, other words"""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None


class Engine(Protocol):
    """Draws one picture a call. Cancelling the call ends the work, as far as it can be ended."""

    def describe(self) -> EngineInfo:
        """What is known before anything is drawn; this asks nobody."""
        ...

    async def generate(self, request: ImageRequest, on_step: OnStep) -> GeneratedImage:
        """The picture. Raises EngineError, or PromptRejected for words that are refused."""
        ...

    async def aclose(self) -> None:
        """Frees what was opened; a later call opens it again."""
        ...


@runtime_checkable
class ListsModels(Protocol):
    """An engine that can say which models it has."""

    async def list_models(self) -> tuple[str, ...]:
        """Their names; () without a list.

        Raises EngineUnavailable where no engine answers, RequestRefused where it wants a key.
        """
        ...


def fit_size(info: EngineInfo, aspect_ratio: str) -> tuple[int, int]:
    """Width and height nearest to the ratio that the engine draws, with about its native area."""
    width, _, height = aspect_ratio.partition(":")
    ratio = int(width) / int(height)

    def distance(size: tuple[int, int]) -> float:
        shape = abs(math.log(size[0] / size[1] / ratio))
        area = abs(math.log(size[0] * size[1] / info.native_area))
        return shape * 4 + area  # a wrong shape is seen, a few pixels less are not

    if info.sizes:
        return min(info.sizes, key=distance)
    step = info.size_step
    ideal = math.sqrt(info.native_area * ratio) / step
    near = range(max(1, math.floor(ideal * 0.97)), math.ceil(ideal * 1.03) + 1)
    candidates = [(w * step, max(1, round(w / ratio)) * step) for w in near]
    return min(candidates, key=distance)
