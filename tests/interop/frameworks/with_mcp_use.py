# type: ignore  # runs in an environment of its own, which the checker does not see
"""mcp-use's tools for LangChain; the model reads what every chat model of LangChain converts to."""

import asyncio

from langchain_core.utils.function_calling import convert_to_openai_tool
from mcp_use import MCPClient
from mcp_use.agents.adapters.langchain_adapter import LangChainAdapter
from scripted_model import ARGUMENTS, TOOL, print_report, read_task


async def main():
    task = read_task()
    servers = {"arta": {"command": task["command"], "args": [], "env": task["env"]}}
    client = MCPClient({"mcpServers": servers})
    tools = {tool.name: tool for tool in await LangChainAdapter().create_tools(client)}
    result = await tools[TOOL].ainvoke(ARGUMENTS)
    read = [convert_to_openai_tool(tool)["function"] for tool in tools.values()]
    await client.close_all_sessions()
    print_report(read, str(result))


asyncio.run(main())
