"""What the sketch says about itself; this loads without Pillow, and no I/O happens here."""

from __future__ import annotations

from arta_mcp.engines.base import EngineInfo

CAPTION = "sketch by arta-mcp, not made by an AI model"
"""drawn into every picture"""

SOFTWARE = "arta-mcp sketch"
COMMENT = "A sketch drawn by rules from the words of the prompt, not made by an AI model."
"""with `SOFTWARE` among the PNG texts of every picture"""


def describe() -> EngineInfo:
    """The engine's name and what people and models are told about its pictures."""
    return EngineInfo(
        engine="sketch",
        model=SOFTWARE,
        is_ai=False,
        notice=(
            "a sketch by the embedded service, not by an AI model; for real pictures run"
            " `arta-mcp setup` (an engine of your own: ARTA_LOCAL_ENGINE, docs/local.md), or set"
            " ARTA_API_KEY to a key of your own for the remote service, of which this is an"
            " unofficial client: its operator has asked another project to stop, and you answer"
            " for having the right to use it"
        ),
        summary=(
            "The embedded service draws sketches by rules, from the words that it knows, and not"
            " AI pictures; say so to the person."
        ),
        honours=frozenset({"negative_prompt", "seed"}),
    )
