"""The `local` command: the embedded service alone, for people who build on it."""

from __future__ import annotations

import argparse

from arta_mcp.arta.protocol import REFRESH_PATH, SIGN_UP_PATHS
from arta_mcp.cli.console import OK, print_data, print_message
from arta_mcp.cli.parser import Subparsers
from arta_mcp.config import Settings
from arta_mcp.errors import InvalidRequest


def add_local(commands: Subparsers) -> None:
    """The `local` command."""
    parser = commands.add_parser("local", help="run the embedded service alone, on this machine")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--port", type=int, help="default: the one of last time, or a free one")
    less = "less when others wait"
    parser.add_argument("--queue", type=float, help=f"seconds a job queues at least (0.6; {less})")
    parser.add_argument("--draw", type=float, help=f"seconds a job is drawn at least (1; {less})")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME@ENDPOINT",
        help="scripted trouble, e.g. 503@submit*2=Retry-After:1; `--fault help` lists them",
    )
    parser.set_defaults(run=run_local)


def run_local(settings: Settings, options: argparse.Namespace) -> int:
    """Serves until it is stopped. Raises InvalidRequest for a port or fault that cannot be."""
    from arta_mcp.app import service_dir
    from arta_mcp.local.faults.catalogue import FAULTS, Fault
    from arta_mcp.local.faults.injection import FaultyServer, FaultyService
    from arta_mcp.local.loopback import UvicornServer, run_forever
    from arta_mcp.local.service import Service

    if "help" in options.fault:
        for name, kind in FAULTS.items():
            print_data(f"{name:<28} {', '.join(kind.endpoints):<48} {kind.sentence}")
        return OK
    try:
        # The folder of the service that a server without a key starts: jobs of both open in either.
        folder = service_dir(settings)
        faults = [Fault.parse(text) for text in options.fault]
        service = (FaultyService if faults else Service)(
            folder,
            queue=options.queue,
            draw=options.draw,
            latency=options.latency,
            keep_bytes=settings.sketch_limit,
        )
        if isinstance(service, FaultyService):
            service.faults.add(*faults)
        run_forever(
            service,
            host=options.host,
            port=options.port,
            on_ready=print_address,
            server_type=FaultyServer if faults else UvicornServer,
        )
    except (ValueError, OSError) as exc:
        raise InvalidRequest("local", str(exc), "what --help shows") from exc
    return OK


def print_address(url: str) -> None:
    """Where the service answers, and how a client of ours is pointed to it."""
    print_data(f"the embedded service answers at {url}")
    print_message("hint: to use it from another shell or a host, set")
    # Without a list of styles: the default address is the remote service's, and is not for ours.
    for name, value in (
        ("ARTA_BACKEND", "arta"),
        ("ARTA_API_KEY", "any-key"),
        ("ARTA_BASE_URL", url),
        ("ARTA_AUTH_URL", url + SIGN_UP_PATHS[0]),
        ("ARTA_TOKEN_REFRESH_URL", url + REFRESH_PATH),
        ("ARTA_STYLES_URL", ""),
    ):
        print_message(f"  export {name}={value}")
