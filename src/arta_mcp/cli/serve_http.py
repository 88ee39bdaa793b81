"""The MCP server on HTTP: which settings it needs, and how it starts and ends."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from arta_mcp.arta.url_guard import is_loopback
from arta_mcp.cli.console import INTERRUPTED, OK, print_message
from arta_mcp.cli.interrupts import exit_at_once
from arta_mcp.cli.settings import read_settings
from arta_mcp.cli.stopping import SIGNALS
from arta_mcp.config import HTTP_SLOTS, MAX_HTTP_SLOTS, SETTINGS, Settings
from arta_mcp.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from arta_mcp.arta.transport import Transport
    from arta_mcp.cli.parser import Parser
    from arta_mcp.generations.service import Generations
    from arta_mcp.server.http import HttpServer
    from arta_mcp.server.http_auth import Access

log = logging.getLogger(__name__)

HTTP_SETTINGS = tuple(
    setting for setting in SETTINGS if setting.name.startswith("ARTA_HTTP_") and not setting.secret
)
"""those that are options of the command, too"""

START_TIMEOUT, START_PAUSE = 30.0, 1.0
"""seconds in which a store that does not answer is tried at the start, and between two tries"""

EXIT_TIMEOUT = 11.5
"""seconds from the signal until the process ends, whatever still waits for what"""


def add_http_options(parser: Parser) -> None:
    """An option for each setting of HTTP that is no secret: other users see a command line."""
    parser.add_argument("--http", action="store_true", help="on streamable HTTP, at /mcp")
    group = parser.add_argument_group("with --http, in place of the settings ARTA_HTTP_*")
    for setting in HTTP_SETTINGS:
        option = setting.name.removeprefix("ARTA_HTTP_").lower().replace("_", "-")
        default = f" (default: {setting.default})" if setting.default else ""
        text = f"{setting.description}{default}".replace("%", "%%")
        group.add_argument(f"--{option}", dest=setting.name, metavar="VALUE", help=text)


def merge_options(options: argparse.Namespace) -> dict[str, str]:
    """The environment with the options that were given."""
    given = {setting.name: getattr(options, setting.name) for setting in HTTP_SETTINGS}
    return {
        **options.environ,
        **{name: value for name, value in given.items() if value is not None},
    }


def serve_http(environ: Mapping[str, str]) -> int:
    """Serves until a signal comes, and answers what is open first.

    Raises ConfigError for settings that do not go together, Unavailable for a store that does not
    answer at the start.
    """
    settings = read_settings(environ)
    check_http(settings)
    raise_descriptors()
    listening = listen(settings)
    # Asked of the socket: with port 0 the system has chosen one.
    host, port = settings.http_host, listening.getsockname()[1]
    here = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    settings = replace(settings, http_port=port, http_public_url=settings.http_public_url or here)
    import anyio

    stopped: list[int] = []
    try:
        anyio.run(_serve, settings, listening, f"serving MCP at {here}/mcp", stopped)
    finally:
        listening.close()
    return exit_code(stopped)


def exit_code(stopped: list[int]) -> int:
    """What the process ends with after these signals; SIGTERM is the ordinary end of a server."""
    return INTERRUPTED if stopped[:1] == [signal.SIGINT] else OK


def check_http(settings: Settings) -> None:
    """Raises ConfigError for what must not be served, naming what to set."""
    if (settings.max_concurrency or 0) > MAX_HTTP_SLOTS:
        raise ConfigError(
            f"ARTA_MAX_CONCURRENCY is {settings.max_concurrency}; one process on HTTP takes"
            f" {MAX_HTTP_SLOTS} jobs at most",
            hint="set it to less, or leave it out, and start more processes",
        )
    if settings.state_url is not None and settings.backend == "local":
        raise ConfigError(
            "ARTA_STATE_URL shares generations that the local backend draws and keeps in each"
            " process for itself: the others cannot show them",
            hint="leave ARTA_STATE_URL out and run one process, or set ARTA_API_KEY for the remote"
            " service",
        )
    if not is_loopback(settings.http_host):
        check_exposed(settings)


def check_exposed(settings: Settings) -> None:
    """Raises ConfigError for what must not be served to other machines."""
    host = f"ARTA_HTTP_HOST is {settings.http_host!r}, which other machines reach"
    if not settings.http_tokens and settings.http_issuer is None:
        raise ConfigError(
            f"{host}, and nothing says who may call",
            hint="set ARTA_HTTP_TOKENS to name=token (`openssl rand -hex 24` makes one), or"
            " ARTA_HTTP_ISSUER to your OpenID Connect issuer",
        )
    if not settings.http_allowed_hosts and settings.http_public_url is None:
        raise ConfigError(
            f"{host}, and nothing says under which name",
            hint="set ARTA_HTTP_PUBLIC_URL to the address that callers use, or"
            " ARTA_HTTP_ALLOWED_HOSTS to the names in it",
        )
    if settings.http_public_url is None and (
        settings.backend == "local" or (settings.http_issuer and not settings.http_audience)
    ):
        why = (
            "whose pictures callers elsewhere are to open"
            if settings.backend == "local"
            else "whose issuer's tokens must name it"
        )
        raise ConfigError(
            f"{host}, {why}, and ARTA_HTTP_PUBLIC_URL is not set",
            hint="set ARTA_HTTP_PUBLIC_URL to the address that callers use, such as"
            " https://mcp.example.com",
        )


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises ConfigError for an address or port that cannot be had."""
    from arta_mcp.local.address import open_socket

    host, port = settings.http_host, settings.http_port
    try:
        # A name can have several addresses, of which a socket listens at one.
        name = "127.0.0.1" if host == "localhost" else host
        return open_socket(name, port, listening=True)
    except OSError as exc:
        why = (exc.strerror or str(exc)).lower()
        raise ConfigError(
            f"ARTA_HTTP_HOST {host!r} with ARTA_HTTP_PORT {port} cannot be listened at: {why}",
            hint="set ARTA_HTTP_PORT to one that is free, and ARTA_HTTP_HOST to an address of this"
            " machine",
        ) from exc


def raise_descriptors() -> None:
    """Lets the process have as many descriptors as it may: each call holds one."""
    if sys.platform == "win32":  # where sockets are none
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(
    settings: Settings, listening: socket.socket, ready: str, stopped: list[int]
) -> None:
    import anyio

    from arta_mcp.app import open_generations, open_issuer_transport
    from arta_mcp.server.http import serve

    # Callers that nothing tells apart share no bound: one of them could use up that of all.
    is_guarded = bool(settings.http_tokens or settings.http_issuer)
    generations = open_generations(
        replace(settings, max_concurrency=settings.max_concurrency or HTTP_SLOTS),
        warn=print_message,
        owner_concurrency=settings.http_caller_concurrency if is_guarded else None,
        owner_hourly=settings.http_caller_rate if is_guarded else None,
    )
    stop, starting = anyio.Event(), anyio.CancelScope()

    async def hear_signals() -> None:
        with anyio.open_signal_receiver(*SIGNALS) as received:
            async for number in received:
                if stopped and number == signal.SIGINT:
                    exit_at_once(number, None)
                stopped.append(number)
                stop.set()
                starting.cancel()
                watch_exit(exit_code(stopped))

    async with open_issuer_transport(settings) as transport, anyio.create_task_group() as group:
        group.start_soon(hear_signals)
        server = build_http_server(settings, generations, transport)
        async with server.running():
            with starting:
                await wait_for_store(generations)
            if not stop.is_set():
                print_message(ready)
                await serve(server, listening, until=stop.wait)
        group.cancel_scope.cancel()


def watch_exit(code: int) -> None:
    """Ends the process after its time, whatever still waits for what."""
    # Threads of libraries, a look-up of a name among them, end when they like.
    watch = threading.Timer(EXIT_TIMEOUT, os._exit, (code,))
    watch.daemon = True
    watch.start()


async def wait_for_store(generations: Generations) -> None:
    """Returns once the store answers. Raises Unavailable when it does not in 30 s."""
    import anyio

    until = anyio.current_time() + START_TIMEOUT
    while not (found := await generations.health()).answers:
        why = "; ".join(found.warnings) or "it does not answer"
        if anyio.current_time() > until:
            raise Unavailable(
                f"the store has not answered in {START_TIMEOUT:.0f} s: {why}",
                hint="start it, or set ARTA_STATE_URL or ARTA_STATE_DIR to where it is",
            )
        print_message(f"waiting for the store: {why}")
        await anyio.sleep(START_PAUSE)
    for warning in found.warnings:
        print_message(f"warning: {warning}")


def build_http_server(
    settings: Settings, generations: Generations, transport: Transport
) -> HttpServer:
    """The server that the settings describe; `transport` reaches the issuer of tokens."""
    from arta_mcp.app import find_picture, make_link_key, state_dir
    from arta_mcp.server.build import build_server
    from arta_mcp.server.http import LOCAL_HOSTS, HttpServer
    from arta_mcp.server.remote_view import PictureLinks, hide_folders, hide_paths
    from arta_mcp.server.tools import ResultExtras

    public_url, links = settings.http_public_url or "", None
    if settings.backend == "local":
        find_file = partial(find_picture, settings)
        links = PictureLinks(
            public_url=public_url, key=make_link_key(settings), find_file=find_file
        )
    # A remote service's addresses open everywhere; those of our own service on this machine alone.
    extras = ResultExtras(
        resource_links=settings.resource_links,
        previews=settings.preview,
        show=links.show if links else hide_paths,
    )
    server = build_server(generations, extras, drawn_by=settings.drawn_by, over_http=True)
    folders = (state_dir(settings), generations.output_dir)
    hide_folders(server, [str(folder) for folder in folders if folder is not None])

    access, public = build_access(settings, transport), urlsplit(public_url)
    local = LOCAL_HOSTS if is_loopback(settings.http_host) else ()
    origins = [f"http://{host}:{settings.http_port}" for host in local]
    return HttpServer(
        server,
        access,
        allowed_hosts=[*(settings.http_allowed_hosts or ()), public.netloc, *local],
        allowed_origins=settings.http_allowed_origins or (),
        own_origins=[*origins, f"{public.scheme}://{public.netloc}"],
        check=generations.health,
        drain=generations.drain,
        routes=[*access.routes, *([links.route] if links else [])],
    )


def build_access(settings: Settings, transport: Transport) -> Access:
    """Whom the server takes requests from."""
    from arta_mcp.server.http_auth import Access, Issuer

    public_url, issuer = settings.http_public_url or "", None
    resource = f"{public_url}/mcp"
    if settings.http_issuer is not None:
        given = settings.http_audience
        audiences = (given,) if given else (public_url, resource)
        issuer = Issuer(settings.http_issuer, audiences=audiences, transport=transport)
    return Access(
        tokens=settings.http_tokens or (),
        issuer=issuer,
        scope=settings.http_scope,
        resource=resource,
    )
