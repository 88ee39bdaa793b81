"""The prompts that a person picks in their host."""

from __future__ import annotations

from typing import Annotated, Any

from mcp import MCPError, types
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS
from pydantic import Field

from arta_mcp.errors import ArtaError, InvalidRequest, JobFailed, UnknownRecord
from arta_mcp.generations.callers import Call
from arta_mcp.generations.service import Generations
from arta_mcp.matching import suggest
from arta_mcp.redaction import sanitize
from arta_mcp.server.calls import current_owner
from arta_mcp.server.content import explain
from arta_mcp.server.sdk import lowlevel_server


def add_prompts(server: MCPServer[Any], generations: Generations) -> None:
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
            " me the picture's file or address and the prompt you wrote."
        )

    @server.prompt(title="Vary a picture")
    async def vary(
        record_id: Annotated[str, Field(description="record id of a finished generation")],
        change: Annotated[str, Field(description="what should be different")],
    ) -> str:
        """Draw a finished generation again with one thing changed."""
        try:
            found = await generations.get(record_id, call=Call(owner=current_owner()))
        except (UnknownRecord, JobFailed) as exc:
            raise MCPError(INVALID_PARAMS, explain(exc)) from exc
        except ArtaError as exc:
            raise MCPError(INTERNAL_ERROR, explain(exc)) from exc
        return (
            f"Call get_generation with record_id {found.record_id} and read its prompt, model,"
            f" ratio and seed. Rewrite the prompt so that this is different: {change}. Keep"
            " everything else, the seed too, and call generate_image once. Show me both pictures"
            " and what you changed in the prompt."
        )

    async def get_prompt(
        ctx: ServerRequestContext[Any], params: types.GetPromptRequestParams
    ) -> types.GetPromptResult | types.InputRequiredResult:
        try:
            check_arguments(await server.list_prompts(), params.name, params.arguments or {})
        except InvalidRequest as exc:
            raise MCPError(INVALID_PARAMS, explain(exc)) from exc
        context: Context[Any, Any] = Context(
            request_context=ctx, mcp_server=server, input_params=params
        )
        return await server.get_prompt(params.name, params.arguments, context)

    # mcp 2.3 answers a wrong name or argument with code 0 or -32603 and logs a traceback; ends when
    # it says -32602, as the specification asks
    lowlevel_server(server).add_request_handler(
        "prompts/get", types.GetPromptRequestParams, get_prompt
    )


def check_arguments(prompts: list[types.Prompt], name: str, given: dict[str, str]) -> None:
    """Raises InvalidRequest that tells everything wrong with a request for a prompt."""
    found = next((prompt for prompt in prompts if prompt.name == name), None)
    if found is None:
        raise _no_such("prompt", name, [prompt.name for prompt in prompts])
    arguments = found.arguments or []
    known = [argument.name for argument in arguments]
    problems = [_no_such("argument", one, known) for one in given if one not in known]
    for argument in arguments:
        if argument.required and not given.get(argument.name, "").strip():
            sentence = f"{argument.name} is missing or empty; it is {argument.description}"
            problems.append(
                InvalidRequest(argument.name, given.get(argument.name), "a text", message=sentence)
            )
    if problems:
        raise InvalidRequest.join(*problems)


def _no_such(kind: str, name: str, known: list[str]) -> InvalidRequest:
    near = suggest(name, known, limit=1)
    return InvalidRequest(
        kind,
        name,
        ", ".join(known),
        message=f"no {kind} is called {sanitize(repr(name), 80)}; there are {', '.join(known)}",
        hint=f"did you mean {near[0]}?" if near else "",
    )
