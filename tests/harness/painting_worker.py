"""The worker's own program with a pipeline that needs no torch: it paints, and does as it is told.

It draws a colour of the seed, step by step. Words of the prompt make it fail: `die`, `memory`,
`refuse`, `unsafe`, `break`; `slow` and `hang` make it slow; `print` writes to stdout, in C too.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import sys
import time
from collections.abc import Callable

from PIL import Image

from arta_mcp.engines.worker import Drawn, DrawOrder, Loaded, LoadOrder, OnStep, main
from arta_mcp.errors import (
    EngineError,
    ModelNotFound,
    ModelUnusable,
    OutOfMemory,
    PromptRejected,
    RequestRefused,
)

STEPS = 4

FAILURES = {
    "memory": OutOfMemory("no room"),
    "refuse": RequestRefused("not this size"),
    "unsafe": PromptRejected("not this"),
    "break": EngineError("it broke"),
    "/missing": ModelNotFound("there is no folder missing"),
    "/pickled": ModelUnusable("these are pickles"),
    "/large": OutOfMemory("it does not fit"),
}
"""a word of the prompt, or the model -> what is raised"""


class Painting:
    """See the module."""

    def __init__(self) -> None:
        self.loaded = Loaded(
            software="painting 1", device="cpu", dtype="none", native_area=512 * 512, size_step=16
        )

    def draw(self, order: DrawOrder, on_step: OnStep) -> Drawn:
        words = order.prompt.split()
        steps = order.num_inference_steps or STEPS
        for word in words:
            if word in FAILURES:
                raise FAILURES[word]
        for step in range(1, steps + 1):
            time.sleep(0.05 if "slow" in words else 100 if "hang" in words else 0)
            if "die" in words:
                os.write(2, b"the card is gone\n")
                os._exit(3)
            if "print" in words:
                sys.stdout.write("a library greets\n")
                sys.stdout.flush()
                os.write(1, b"and so does one in C\n")
            on_step(step, steps)
        colour = hashlib.sha256(repr((order.prompt, order.seed, steps)).encode()).digest()
        out = io.BytesIO()
        Image.new("RGB", (order.width, order.height), (colour[0], colour[1], colour[2])).save(
            out, "PNG"
        )
        return Drawn(
            png=base64.b64encode(out.getvalue()).decode(),
            not_honoured=("negative_prompt",) if order.negative_prompt else (),
            num_inference_steps=steps,
            guidance_scale=order.guidance_scale,
        )


def load(order: LoadOrder, on_download: Callable[[int], None]) -> Painting:
    """The painting; its model may be one of `FAILURES`, `/slow` or, to be fetched, a name."""
    if order.model in FAILURES:
        raise FAILURES[order.model]
    if order.model == "/slow":
        time.sleep(100)
    if not order.model.startswith("/") and order.download:
        on_download(5_160_000_000)
    return Painting()


COMMAND = (sys.executable, "-P", __file__)

if __name__ == "__main__":
    main(load)
