"""Completions of what a person types into a prompt or a resource template."""

from __future__ import annotations

from typing import Any

from mcp import types
from mcp.server.mcpserver import MCPServer

from arta_mcp.arta.protocol import RATIOS
from arta_mcp.generations.service import Generations
from arta_mcp.matching import normalize
from arta_mcp.server.calls import current_owner
from arta_mcp.server.resources import MAX_LISTED

MAX_COMPLETIONS = 100
"""values in one answer; the specification's bound, and a host may drop an answer that is longer"""


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
                values = [style.id for style in generations.known_catalogue.search(None)]
            case "aspect_ratio":
                values = [*RATIOS]
            case "record_id":
                latest = await generations.history(MAX_LISTED, owner=current_owner())
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
