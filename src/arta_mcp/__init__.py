"""Draws pictures through the ARTA text-to-image API, as an MCP server, a library and a command."""

__version__ = "0.1.0"
