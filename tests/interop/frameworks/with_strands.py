# type: ignore  # runs in an environment of its own, which the checker does not see
"""Strands' MCP client; the model reads each tool's specification."""

from mcp import StdioServerParameters, stdio_client
from scripted_model import ARGUMENTS, TOOL, print_report, read_task
from strands.tools.mcp import MCPClient

task = read_task()
server = StdioServerParameters(command=task["command"], env=task["env"], cwd=task["cwd"])
with MCPClient(lambda: stdio_client(server)) as client:
    read = [
        {**tool.tool_spec, "parameters": tool.tool_spec["inputSchema"]["json"]}
        for tool in client.list_tools_sync()
    ]
    result = client.call_tool_sync("call_1", TOOL, ARGUMENTS)
print_report(read, str(result["content"]))
