# type: ignore  # runs in an environment of its own, which the checker does not see
"""LlamaIndex's MCP tools; the model reads what every function-calling LLM of it converts to."""

import asyncio

from llama_index.tools.mcp import BasicMCPClient, McpToolSpec
from scripted_model import ARGUMENTS, TOOL, print_report, read_task


async def main():
    task = read_task()
    client = BasicMCPClient(task["command"], env=task["env"])
    tools = {tool.metadata.name: tool for tool in await McpToolSpec(client).to_tool_list_async()}
    result = await tools[TOOL].acall(**ARGUMENTS)
    read = [tool.metadata.to_openai_tool()["function"] for tool in tools.values()]
    print_report(read, str(result.content))


asyncio.run(main())
