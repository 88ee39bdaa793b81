"""The server as a host meets it: its name, instructions and icon, and when it opens and closes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from mcp.server.apps import Apps
from mcp.server.mcpserver import MCPServer
from mcp.types import Icon

from arta_mcp import __version__
from arta_mcp.generations.callers import Connection
from arta_mcp.generations.service import Generations
from arta_mcp.server.calls import add_calls
from arta_mcp.server.completions import add_completions
from arta_mcp.server.notifications import OwnersBus, add_notifications
from arta_mcp.server.prompts import add_prompts
from arta_mcp.server.refusing import refuse_calls
from arta_mcp.server.resources import add_gallery, add_resources
from arta_mcp.server.tools import ResultExtras, build_tools

DrawnBy = Literal["remote", "sketch", "engine"]
"""what draws; `engine` is any on this machine but the sketch"""

_COMMON = (
    "Draws pictures from text. Call generate_image with a full, visual prompt and show the person"
    " the files or addresses it returns. If it answers `pending`, or a call timed out, call"
    " get_generation (without a record id: the newest) instead of ordering again. When you repeat a"
    " call that failed, send the same idempotency_key, unless the error says otherwise. list_models"
    " shows the styles."
)
INSTRUCTIONS: Mapping[DrawnBy, str] = {
    "remote": f"{_COMMON} An hourly limit may hold (ARTA_HOURLY_LIMIT): results say when it is"
    " near.",
    "sketch": f"{_COMMON} Pictures are sketches by rules (backend `local`), not AI pictures: say so"
    " to the person.",
    "engine": f"{_COMMON} Pictures are drawn by an engine of the person's own (backend `local`);"
    " each result names it and its model. With a key an hourly limit may hold (ARTA_HOURLY_LIMIT):"
    " results say when it is near.",
}
"""what a host puts before every conversation: at most 800 bytes, nothing that a tool says itself.

Quick replies hold it for each of these and for nothing finer: no name of an engine or a model."""

ICON = (
    "data:image/svg+xml,%3Csvg%20xmlns='http://www.w3.org/2000/svg'%20viewBox='0,0,8,8'%3E"
    "%3Cpath%20fill='%23245'%20d='M0,0h8v8H0'/%3E%3Ccircle%20cx='6'%20cy='2'%20r='1'%20fill='gold'/%3E"
    "%3Cpath%20fill='coral'%20d='M1,7l2-4,2,3,1-1,1,2'/%3E%3C/svg%3E"
)
"""a landscape on a dark ground; in 2026-07-28 it travels in every result, so it is short"""


def build_server(
    generations: Generations,
    extras: ResultExtras = ResultExtras(),  # noqa: B008  # frozen
    *,
    drawn_by: DrawnBy = "sketch",
    refusal: str | None = None,
    over_http: bool = False,
) -> MCPServer[Connection]:
    """The server over one Generations, which opens with the server and closes with it.

    What is listed may depend on `drawn_by` and on nothing else that a person sets: it is recorded.
    `refusal` is the reply to everything that needs a Generations that works, in place of one.
    `over_http` leaves out what needs a connection that outlives a request.
    """
    bus = OwnersBus(generations.owner)

    @asynccontextmanager
    async def lifespan(_: MCPServer[Connection]) -> AsyncGenerator[Connection]:
        async with generations:
            # it ends with the generations, which end with the server
            generations.subscribe(publish)
            connection = Connection()
            try:
                yield connection
            finally:
                connection.close()

    server: MCPServer[Connection] = MCPServer(
        "arta-mcp",
        title="ARTA image generation",
        instructions=INSTRUCTIONS[drawn_by],
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
    if over_http:
        from arta_mcp.server.http_calls import add_http_calls  # not for a server on stdio

        add_http_calls(server)
    else:
        add_calls(server)
    publish = add_notifications(server, generations, bus, over_http=over_http)
    add_resources(server, generations, extras.show)
    add_gallery(server)
    add_prompts(server, generations)
    add_completions(server, generations)
    if refusal is not None:
        refuse_calls(server, refusal)
    return server
