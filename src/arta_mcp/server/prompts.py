"""The prompts that a person picks in their host."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from pydantic import Field


def add_prompts(server: MCPServer[Any]) -> None:
    """Puts `draw` and `vary` on the server; each leads the assistant to the tools."""

    @server.prompt(title="Draw an idea")
    def draw(
        idea: Annotated[str, Field(description="what you have in mind, in a few words")],
        model: Annotated[str, Field(description="model id; empty: let the assistant choose")] = "",
        aspect_ratio: Annotated[str, Field(description="like 16:9; empty: what fits")] = "",
    ) -> str:
        """Turn an idea into a good prompt, style and ratio, and draw it."""
        chosen = f"Use the model {model}." if model else "Choose a fitting model with list_models."
        shape = f"Use the ratio {aspect_ratio}." if aspect_ratio else "Choose a fitting ratio."
        return (
            f"Draw this idea: {idea}\n\n"
            "First write one full, visual prompt of two or three sentences: subject, what it does,"
            f" setting, light, mood, manner. {chosen} {shape} Then call generate_image once, show"
            " me the picture's address and the prompt you wrote."
        )

    @server.prompt(title="Vary a picture")
    def vary(
        record_id: Annotated[str, Field(description="record id of a finished generation")],
        change: Annotated[str, Field(description="what should be different")],
    ) -> str:
        """Draw a finished generation again with one thing changed."""
        return (
            f"Call get_generation with record_id {record_id} and read its prompt, model, ratio and"
            f" seed. Rewrite the prompt so that this is different: {change}. Keep everything else,"
            " the seed too, and call generate_image once. Show me both addresses and what you"
            " changed in the prompt."
        )
