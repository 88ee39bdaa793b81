# type: ignore  # runs in an environment of its own, which the checker does not see
"""LangChain's MCP adapters; the model reads what every chat model of LangChain converts to."""

import asyncio

from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_mcp_adapters.client import MultiServerMCPClient
from scripted_model import ARGUMENTS, TOOL, print_report, read_task


async def main():
    client = MultiServerMCPClient({"arta": {"transport": "stdio", "args": [], **read_task()}})
    tools = {tool.name: tool for tool in await client.get_tools()}
    call = {"name": TOOL, "args": ARGUMENTS, "id": "call_1", "type": "tool_call"}
    message = await tools[TOOL].ainvoke(call)
    read = [convert_to_openai_tool(tool)["function"] for tool in tools.values()]
    print_report(read, str(message.content))


asyncio.run(main())
