"""The server as a host meets it: its name, instructions and icon, and when it opens and closes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.apps import Apps
from mcp.server.mcpserver import MCPServer
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp.types import Icon

from arta_mcp import __version__
from arta_mcp.generations.service import Generations
from arta_mcp.server.completions import add_completions
from arta_mcp.server.notifications import add_notifications
from arta_mcp.server.prompts import add_prompts
from arta_mcp.server.resources import add_gallery, add_resources
from arta_mcp.server.tools import ResultExtras, build_tools

INSTRUCTIONS = (
    "Draws pictures from text. Call generate_image with a full, visual prompt and show the person"
    " the addresses it returns. If it answers `pending`, call get_generation with the record id"
    " instead of ordering again. When you repeat a call that failed or timed out, send the same"
    " idempotency_key, unless the error says otherwise. list_models shows the styles. Without"
    " ARTA_API_KEY (backend `local`) pictures are sketches by rules, not AI pictures: say so to"
    " the person."
)
"""what a host puts before every conversation: at most 800 bytes, nothing that a tool says itself"""

ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect"
    " width='32' height='32' rx='7' fill='%23264653'/%3E%3Ccircle cx='22' cy='10' r='4'"
    " fill='%23e9c46a'/%3E%3Cpath d='M3 27 12 12l7 11 3-4 7 8z' fill='%23e76f51'/%3E%3C/svg%3E"
)


def build_server(generations: Generations, extras: ResultExtras = ResultExtras()) -> MCPServer[Any]:  # noqa: B008  # frozen
    """The server over one Generations, which opens with the server and closes with it."""
    bus = InMemorySubscriptionBus()

    @asynccontextmanager
    async def lifespan(_: MCPServer[Any]) -> AsyncGenerator[None]:
        async with generations:
            # it ends with the generations, which end with the server
            generations.subscribe(publish)
            yield

    server: MCPServer[Any] = MCPServer(
        "arta-mcp",
        title="ARTA image generation",
        instructions=INSTRUCTIONS,
        website_url="https://github.com/arta-mcp/arta-mcp",
        icons=[Icon(src=ICON, mime_type="image/svg+xml", sizes=["any"])],
        version=__version__,
        tools=build_tools(generations, extras),
        lifespan=lifespan,
        extensions=[Apps()],
        subscriptions=bus,
        # for a program that embeds the server: `cli` has set logging up by then, and that stays
        log_level="WARNING",
    )
    publish = add_notifications(server, bus)
    add_resources(server, generations)
    add_gallery(server)
    add_prompts(server)
    add_completions(server, generations)
    return server
