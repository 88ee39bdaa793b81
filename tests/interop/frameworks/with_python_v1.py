# type: ignore  # runs on mcp 1.x in an environment of its own, which the checker does not see
"""The client of the Python SDK's 1.x line, with no limit of its own; the host is this program."""

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from scripted_model import ARGUMENTS, MAX_CALLS, TOOL, next_call, print_report, read_task


async def main():
    task = read_task()
    server = StdioServerParameters(command=task["command"], env=task["env"], cwd=task["cwd"])
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        listed = await session.list_tools()
        calls, step = [], (TOOL, ARGUMENTS)
        while step is not None and len(calls) < MAX_CALLS:
            result = (await session.call_tool(*step)).model_dump_json()
            calls.append({"name": step[0], "arguments": step[1], "result": result})
            step = next_call(*step, result)
    tools = [
        {"name": tool.name, "description": tool.description, "parameters": tool.inputSchema}
        for tool in listed.tools
    ]
    print_report(tools, calls)


anyio.run(main)
