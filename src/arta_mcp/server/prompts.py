"""The prompts that a person picks in their host, and completions of what is typed there."""

from __future__ import annotations

from typing import Annotated, Any

from mcp import types
from mcp.server.mcpserver import MCPServer
from pydantic import Field

from arta_mcp.arta.protocol import RATIOS
from arta_mcp.generations.service import Generations
from arta_mcp.matching import normalize
from arta_mcp.server.resources import MAX_LISTED

MAX_COMPLETIONS = 100
"""values in one answer; the specification's bound, and a host may drop an answer that is longer"""


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


def add_completions(server: MCPServer[Any], generations: Generations) -> None:
    """Puts completions of prompts and resource templates on the server, by argument name."""

    @server.completion()
    async def complete(
        ref: types.PromptReference | types.ResourceTemplateReference,
        argument: types.CompletionArgument,
        context: types.CompletionContext | None,
    ) -> types.Completion | None:
        match argument.name:
            case "model":
                # as known by now: a person who types does not wait for the service's list
                values = [style.id for style in generations.known_catalogue.styles]
            case "aspect_ratio":
                values = [*RATIOS]
            case "record_id":
                latest = await generations.history(MAX_LISTED)
                values = [entry.record_id for entry in latest if entry.record_id]
            case "index":
                values = [str(index) for index in range(8)]
            case _:
                return None
        begun = normalize(argument.value)
        start = f"-{begun}"
        spelled = {value: f"-{normalize(value)}" for value in values}
        found = [value for value in spelled if begun in spelled[value]]
        # first what begins with the text, then what has a word that does
        found.sort(key=lambda v: (not spelled[v].startswith(start), start not in spelled[v]))
        has_more = len(found) > MAX_COMPLETIONS
        return types.Completion(values=found[:MAX_COMPLETIONS], total=len(found), has_more=has_more)
