"""What the sketch says about itself; this loads without Pillow, and no I/O happens here."""

from __future__ import annotations

from arta_mcp.engines.base import EngineInfo

CAPTION = "sketch by arta-mcp, not made by an AI model"
"""drawn into every picture"""

SOFTWARE = "arta-mcp sketch"
COMMENT = "A sketch drawn by rules from the words of the prompt, not made by an AI model."
"""with `SOFTWARE` among the PNG texts of every picture"""


def describe() -> EngineInfo:
    """The engine's name and what people are told about its pictures."""
    return EngineInfo(
        name="sketch",
        is_ai=False,
        notice=(
            "a sketch by the embedded service, not by an AI model;"
            " set ARTA_API_KEY to use the remote one"
        ),
    )
