"""The MCP server on stdin and stdout."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from arta_mcp.cli.console import OK, print_message
from arta_mcp.config import Settings
from arta_mcp.quick_replies import start_quick_replies

# For the checker only: a server must reply before argparse is loaded.
if TYPE_CHECKING:
    import argparse

    from arta_mcp.cli.parser import Subparsers


def add_serve(commands: Subparsers) -> None:
    """The `serve` command: the same server that runs without a command."""
    parser = commands.add_parser("serve", help="the MCP server on stdin and stdout")
    parser.set_defaults(run=serve_stdio)


def serve_stdio(settings: Settings, _: argparse.Namespace | None = None) -> int:
    """Serves until stdin closes; a host's first questions get quick replies during the imports."""
    gc.disable()  # what an import makes stays; a search for garbage finds none
    handoff = start_quick_replies() if settings.front_desk else None
    from arta_mcp.app import open_generations
    from arta_mcp.server.build import build_server
    from arta_mcp.server.sdk import serve_wire
    from arta_mcp.server.tools import ResultExtras

    extras = ResultExtras(resource_links=settings.resource_links, previews=settings.preview)
    server = build_server(open_generations(settings, warn=print_message), extras)
    gc.freeze()
    gc.enable()
    serve_wire(server, handoff)
    return OK
