"""What a server replies that cannot work: its lists as always, and to every call why."""

from __future__ import annotations

from typing import Any

from mcp import MCPError, types
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import MCPServer

from arta_mcp.server.sdk import lowlevel_server


def refuse_calls(server: MCPServer[Any], why: str) -> None:
    """Replies `why` to every request that needs more than this server's own words."""

    async def refuse_tool(
        _: ServerRequestContext[Any], _params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        text = types.TextContent(type="text", text=why)
        return types.CallToolResult(content=[text], is_error=True)

    async def refuse(
        _: ServerRequestContext[Any], _params: types.RequestParams
    ) -> types.EmptyResult:
        raise MCPError(types.INTERNAL_ERROR, why)

    async def complete_nothing(
        _: ServerRequestContext[Any], _params: types.CompleteRequestParams
    ) -> types.CompleteResult:
        return types.CompleteResult(completion=types.Completion(values=[]))

    core = lowlevel_server(server)
    core.add_request_handler("tools/call", types.CallToolRequestParams, refuse_tool)
    core.add_request_handler("resources/read", types.ReadResourceRequestParams, refuse)
    core.add_request_handler("prompts/get", types.GetPromptRequestParams, refuse)
    core.add_request_handler("completion/complete", types.CompleteRequestParams, complete_nothing)
