"""Everything that works round the SDK (mcp 2.3), each with the reason and when it can go."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Annotated, Any

from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from pydantic import BaseModel, ValidationError

from arta_mcp.errors import ArtaError
from arta_mcp.generations.values import explain_arguments
from arta_mcp.server.content import explain


class StrictTool(Tool):
    """A tool that refuses unknown arguments and explains every ArtaError in our own words.

    Without it mcp 2.3 drops an argument that it does not know, so that a misspelt one never comes
    to light, and shows pydantic's own text for a wrong one. Ends when `MCPServer.tool` takes a
    model configuration and a function that explains errors.
    """

    def model_post_init(self, context: Any, /) -> None:
        """Makes the argument model strict, which `from_function` has no parameter for."""
        arguments = self.fn_metadata.arg_model
        # defaults are validated too: the fingerprint behind an idempotency key has 7 and 7.0 apart
        arguments.model_config.update(extra="forbid", validate_default=True)
        arguments.model_rebuild(force=True)
        self.parameters = without_titles(arguments.model_json_schema(by_alias=True))

    async def run(
        self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False
    ) -> Any:
        """Runs the tool; the one place where an ArtaError becomes a ToolError.

        The SDK documents that every failure is a ToolError whose `__cause__` is what was raised,
        and marks a bug as UnexpectedToolError, whose text it keeps from the model.
        """
        try:
            return await super().run(arguments, context, convert_result)
        except ToolError as exc:
            error = cause = exc.__cause__
            # a result that does not fit its schema is a ValidationError too, but a bug
            if isinstance(cause, ValidationError) and not isinstance(exc, UnexpectedToolError):
                error = explain_arguments(cause, self.parameters)
            if not isinstance(error, ArtaError):
                raise
            # `from cause`: of a ValidationError the SDK logs the names and leaves the values out
            raise ToolError(f"Error executing tool {self.name}: {explain(error)}") from cause


def without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without pydantic's titles, which repeat the names and cost every host bytes."""
    return {
        key: without_titles(value) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownArgumentType]  # JSON
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }


def with_fields_of(model: type[BaseModel], function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a function with `**arguments` the model's fields for them, in its signature.

    `Tool.from_function` makes a tool's arguments from a signature and takes no model (mcp 2.3);
    with one, this ends. Fields with a default factory are not supported.
    """
    written = signature(function, eval_str=True)
    kept = [one for one in written.parameters.values() if one.kind is not one.VAR_KEYWORD]
    fields = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.is_required() else field.default,
            annotation=Annotated[field.annotation, field],
        )
        for name, field in model.model_fields.items()
    ]
    function.__signature__ = written.replace(parameters=[*kept, *fields])  # pyright: ignore[reportFunctionMemberAccess]  # PEP 362 names it, typeshed does not
    return function


def lowlevel_server(server: MCPServer[Any]) -> Server[Any]:
    """The server below an MCPServer, for what the latter has no method for in mcp 2.3.

    That is serving methods that 2026-07-28 removed (`mcp.server.extension` refers to this server
    for them) and running on open streams. Ends when both are public.
    """
    return server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # see above


def connection_of(ctx: ServerRequestContext[Any]) -> Connection:
    """The client's connection: a session lives for one request only, a subscription for longer.

    Ends when ServerRequestContext has the `connection` that the SDK's next Context has already,
    or with the last client that speaks a revision before 2026-07-28.
    """
    return ctx.session._connection  # pyright: ignore[reportPrivateUsage]  # see above
