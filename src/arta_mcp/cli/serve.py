"""The MCP server on stdin and stdout."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from arta_mcp.cli.console import OK, USAGE, error_lines, print_message
from arta_mcp.cli.settings import read_settings, set_up_log
from arta_mcp.cli.stopping import run_until_stopped, wait_for_parents_death
from arta_mcp.config import Settings
from arta_mcp.errors import ConfigError
from arta_mcp.quick_replies import MARK_NAME, take_wire

# For the checker only: a server must reply before argparse is loaded.
if TYPE_CHECKING:
    import argparse

    from arta_mcp.cli.parser import Subparsers


def add_serve(commands: Subparsers) -> None:
    """The `serve` command: the same server that runs without a command."""
    # Here: a server on stdio has replied before argparse is loaded, and needs nothing of HTTP.
    from arta_mcp.cli.serve_http import add_http_options

    parser = commands.add_parser("serve", help="the MCP server on stdin and stdout, or on HTTP")
    add_http_options(parser)
    parser.set_defaults(run_without_settings=run_serve)


def run_serve(options: argparse.Namespace) -> int:
    """Serves with the settings of these options. Raises WrongCommandLine."""
    from arta_mcp.cli.serve_http import merge_options, serve_http

    environ = merge_options(options)
    if options.http:
        return serve_http(environ)
    if environ != options.environ:
        options.parser.fail("these options are for --http", "add --http")
    return serve_stdio(environ)


def serve_stdio(environ: Mapping[str, str]) -> int:
    """Serves until stdin closes, the parent dies or a signal comes.

    A host's first questions get quick replies during the imports. When a setting is wrong the host
    is served all the same, and every call says what is wrong: it shows no stderr to the person.
    Raises ConfigError where no host is there to show it.
    """
    refusal: ConfigError | None = None
    try:
        settings = read_settings(environ)
    except ConfigError as exc:
        if sys.stdin.isatty():
            raise
        refusal, settings = exc, Settings.from_env({})
        set_up_log(settings.log_level)
        for line in error_lines(exc):
            print_message(line)
    gc.disable()  # what an import makes stays; a search for garbage finds none
    wire = take_wire(
        drawn_by=settings.drawn_by if settings.quick_replies else None,
        mark=find_mark(settings, environ),
    )
    from arta_mcp.server.loading import load_sdk

    load_sdk()
    from arta_mcp.app import open_generations
    from arta_mcp.server.build import build_server
    from arta_mcp.server.tools import ResultExtras
    from arta_mcp.server.wire import TextWire, serve_connection

    extras = ResultExtras(resource_links=settings.resource_links, previews=settings.preview)
    generations = open_generations(settings, warn=print_message)
    why = "\n".join(error_lines(refusal)) if refusal else None
    server = build_server(generations, extras, drawn_by=settings.drawn_by, refusal=why)
    gc.freeze()
    gc.enable()
    import anyio

    async def serve() -> None:
        async with anyio.create_task_group() as group:

            async def end_with_parent() -> None:
                await wait_for_parents_death()
                group.cancel_scope.cancel()

            group.start_soon(end_with_parent)
            await serve_connection(server, wire or TextWire(sys.stdin, sys.stdout))
            group.cancel_scope.cancel()

    run_until_stopped(serve)
    return OK if refusal is None else USAGE


def find_mark(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """The file in the state folder that keeps quick replies off; None for a user without a home.

    The folder is that of `app.state_dir`, which is not asked: it loads platformdirs, and this is
    before the first reply. Quick replies know no Windows.
    """
    if settings.state_dir is not None:
        return settings.state_dir / MARK_NAME
    try:
        home = Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        folder = home / "Library" / "Application Support"
    else:
        folder = Path(environ.get("XDG_STATE_HOME", "").strip() or home / ".local" / "state")
    return folder / "arta-mcp" / MARK_NAME
