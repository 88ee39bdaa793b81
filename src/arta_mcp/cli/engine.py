"""Trying a person's own engine: whether it answers, what it has, what it leaves out, how fast."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from arta_mcp.cli.console import print_message
from arta_mcp.cli.tables import count_of
from arta_mcp.config import Settings
from arta_mcp.engines.base import Engine, ImageRequest, ListsModels, fit_size
from arta_mcp.errors import RequestRefused
from arta_mcp.redaction import sanitize
from arta_mcp.state.records import StateCheck as Finding

if TYPE_CHECKING:
    from arta_mcp.engines.base import EngineInfo, GeneratedImage

SMALL_AREA = 512 * 512
"""pixels of the picture that is tried"""

MAX_SHOWN = 8
"""models that a line names"""

PROMPT = "a sailing boat at night, a test by arta-mcp"

ARGUMENTS = ("negative_prompt", "guidance_scale", "num_inference_steps", "seed")


async def check_engine(settings: Settings, *, draw: bool) -> AsyncGenerator[Finding]:
    """What the engine has and leaves out; with `draw` one small picture. Raises EngineError.

    It asks the address that is set and no other.
    """
    from arta_mcp.app import opened_engine

    async with opened_engine(settings) as engine:
        yield await check_models(settings, engine)
        yield explain_arguments(engine.describe())  # after the list, which may tell the dialect
        if draw:
            yield await check_drawing(settings, engine)


async def check_models(settings: Settings, engine: Engine) -> Finding:
    """Whether the engine answers, and whether it has the model that is set."""
    where = f"{settings.local_engine}{f' at {settings.local_url}' if settings.local_url else ''}"
    wanted = settings.local_model
    listed: tuple[str, ...] = ()
    if isinstance(engine, ListsModels):
        try:
            listed = await engine.list_models()
        except RequestRefused as exc:
            # A key may draw and yet not list: OpenAI has such keys.
            return Finding("engine", "warn", f"{where}: {exc.message}", exc.hint)
    if not listed:
        by = f"draws with {wanted}" if wanted else "draws with what it has loaded"
        return Finding("engine", "ok", f"{where} gives no list of models; {by}")
    names = ", ".join(sanitize(name, 80) for name in listed[:MAX_SHOWN])
    more = f" and {len(listed) - MAX_SHOWN} more" if len(listed) > MAX_SHOWN else ""
    detail = f"{where} has {count_of(len(listed), 'model')}: {names}{more}"
    if wanted and not any(wanted in name for name in listed):
        remedy = "set ARTA_LOCAL_MODEL to one of them"
        return Finding("engine", "warn", f"{detail}; {wanted} is not among them", remedy)
    return Finding("engine", "ok", detail)


def explain_arguments(info: EngineInfo) -> Finding:
    """Which arguments of a call arrive at the engine."""
    taken = [name for name in ARGUMENTS if name in info.honours]
    left_out = [name for name in ARGUMENTS if name not in info.honours]
    detail = f"takes prompt, aspect_ratio{''.join(f', {name}' for name in taken)}"
    if left_out:
        detail += f"; leaves out {', '.join(left_out)}, as each result says"
    return Finding("engine", "ok", detail)


async def check_drawing(settings: Settings, engine: Engine) -> Finding:
    """One small picture, while no other process draws with the engine. Raises EngineError."""
    from arta_mcp.app import make_service_dir
    from arta_mcp.local.store import KEEP_RECORDS, Store

    info = engine.describe()
    store = Store(make_service_dir(settings), keep=KEEP_RECORDS)
    with store.keeping_others_from(info.engine) as nobody_draws:
        if not nobody_draws:
            detail = "not tried: another process of arta-mcp has the engine now"
            return Finding("picture", "warn", detail, "try again once it has drawn")
        width, height = fit_size(replace(info, native_area=SMALL_AREA), "1:1")
        print_message(f"note: one small picture is drawn now, {width}x{height}; Ctrl-C stops it")
        return await draw_picture(engine, (width, height))


async def draw_picture(engine: Engine, size: tuple[int, int]) -> Finding:
    """Draws with the engine's own steps, and says how long each took."""
    from arta_mcp.generations.pictures import decode, run_in_turn

    steps: list[tuple[float, int, int | None]] = []
    request = ImageRequest(
        PROMPT, "", style="Flux", category="flux", seed=1, index=0, aspect_ratio="1:1", size=size
    )
    began = time.monotonic()
    image = await engine.generate(
        request, lambda step, of: steps.append((time.monotonic(), step, of))
    )
    took = time.monotonic() - began
    width, height = (await run_in_turn(partial(decode, image.data))).size
    drew = f" by {sanitize(image.model, 120)}" if image.model else ""
    note = f"; {image.note}" if image.note else ""
    detail = f"{width}x{height} in {took:.1f} s{drew}{time_steps(steps, image, took)}{note}"
    return Finding("picture", "ok", detail)


def time_steps(
    steps: list[tuple[float, int, int | None]], image: GeneratedImage, took: float
) -> str:
    """The seconds of a step, where the engine counts them or says how many there were."""
    if len(steps) > 1 and steps[-1][1] > steps[0][1]:
        a_step = (steps[-1][0] - steps[0][0]) / (steps[-1][1] - steps[0][1])
        count = steps[-1][2] or steps[-1][1]
    elif count := image.num_inference_steps or 0:
        a_step = took / count
    else:
        return "; it does not say how many steps that took"
    return f", {a_step:.2g} s a step ({count_of(count, 'step')})"
