"""The least that an MCP server can be with the SDK: one tool. What startup.py compares with."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("bare")


@server.tool()
def list_models() -> str:
    """The models."""
    return "one"


if __name__ == "__main__":
    server.run()
