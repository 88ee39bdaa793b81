"""Everything that works round the SDK (mcp 2.3), each with the reason and when it can go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from pydantic import BaseModel, Field, ValidationError

from arta_mcp.errors import ArtaError, InvalidRequest
from arta_mcp.server.arguments import input_schema, parse_arguments, without_titles
from arta_mcp.server.content import explain


class StrictTool(Tool):
    """A tool whose function takes one model of all its arguments, as `arguments`.

    Without it mcp 2.3 drops an argument that it does not know, so that a misspelt one never comes
    to light, shows pydantic's own text for a wrong one, and reads a text that looks like JSON as
    JSON, so that the key `[1]` is refused and the key `null` none. Ends when `Tool.from_function`
    takes a model of the arguments and a function that explains errors.
    """

    also_wrong: Callable[[Mapping[str, object]], Sequence[ArtaError]] = Field(
        default=lambda _: (), exclude=True
    )
    """what else is wrong with arguments that the model refuses, so that all is told at once"""

    def model_post_init(self, context: Any, /) -> None:
        """Publishes the model's own schema in place of that of the one parameter."""
        self.parameters = input_schema(self._model)
        self.fn_metadata.output_schema = without_titles(self.fn_metadata.output_schema or {})

    @property
    def _model(self) -> type[BaseModel]:
        model: Any = self.fn_metadata.arg_model.model_fields["arguments"].annotation
        return model

    async def run(
        self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False
    ) -> Any:
        """Runs the tool; the one place where an ArtaError becomes a ToolError.

        The SDK documents that every failure is a ToolError whose `__cause__` is what was raised,
        and marks a bug as UnexpectedToolError, whose text it keeps from the model.
        """
        try:
            try:
                parsed = parse_arguments(self._model, arguments)
            except InvalidRequest as exc:
                raise InvalidRequest.join(exc, *self.also_wrong(arguments)) from exc.__cause__
            return await super().run({"arguments": parsed}, context, convert_result)
        except (ArtaError, ToolError) as exc:
            error = exc if isinstance(exc, ArtaError) else exc.__cause__
            if not isinstance(error, ArtaError):
                raise
            # of a ValidationError the SDK logs the names and leaves the values out
            cause = error.__cause__ if isinstance(error.__cause__, ValidationError) else error
            raise ToolError(f"Error executing tool {self.name}: {explain(error)}") from cause


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
