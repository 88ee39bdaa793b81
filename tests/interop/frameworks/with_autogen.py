# type: ignore  # runs in an environment of its own, which the checker does not see
"""AutoGen's MCP tools; the model reads each tool's schema."""

import asyncio

from autogen_core import CancellationToken
from autogen_ext.tools.mcp import StdioServerParams, mcp_server_tools
from scripted_model import ARGUMENTS, TOOL, print_report, read_task


async def main():
    server = StdioServerParams(args=[], read_timeout_seconds=60, **read_task())
    tools = {tool.name: tool for tool in await mcp_server_tools(server)}
    result = await tools[TOOL].run_json(ARGUMENTS, CancellationToken())
    read = [tool.schema for tool in tools.values()]
    print_report(read, tools[TOOL].return_value_as_string(result))


asyncio.run(main())
