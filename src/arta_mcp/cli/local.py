"""The `local` command: the embedded service alone, for people who build on it."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from arta_mcp.arta.protocol import REFRESH_PATH, SIGN_UP_PATHS
from arta_mcp.arta.url_guard import is_loopback
from arta_mcp.cli.console import OK, print_data, print_message
from arta_mcp.cli.parser import Subparsers
from arta_mcp.config import Settings
from arta_mcp.errors import ConfigError, InvalidRequest

if TYPE_CHECKING:
    from arta_mcp.local.faults.catalogue import Fault


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
    """Serves until it is stopped. Raises InvalidRequest for an option that cannot be."""
    from arta_mcp.app import explain_service_error, open_engine_transport, open_service
    from arta_mcp.engines.open import open_engine
    from arta_mcp.local.faults.catalogue import FAULTS
    from arta_mcp.local.faults.injection import FaultyServer, FaultyService
    from arta_mcp.local.loopback import UvicornServer, run_forever
    from arta_mcp.local.service import Service

    if "help" in options.fault:
        for name, kind in FAULTS.items():
            print_data(f"{name:<28} {', '.join(kind.endpoints):<48} {kind.sentence}")
        return OK
    check_options(options)
    faults = [parse_fault(text) for text in options.fault]
    try:
        # The folder of the service that a server without a key starts: jobs of both open in either.
        service = open_service(
            settings,
            open_engine(settings, open_engine_transport(settings)),
            FaultyService if faults else Service,
            queue=options.queue,
            draw=options.draw,
            latency=options.latency,
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
    except OSError as exc:
        if exc.filename is None and exc.errno is not None:  # no file: a socket
            why = (exc.strerror or str(exc)).lower()
            raise InvalidRequest("--port", options.port, f"one that is free ({why})") from exc
        raise explain_service_error(settings, exc) from exc
    return OK


def check_options(options: argparse.Namespace) -> None:
    """Raises InvalidRequest for an option whose value cannot be, before anything is made."""
    if not is_loopback(options.host):
        allowed = "an address of this machine alone: 127.0.0.1, ::1 or localhost"
        raise InvalidRequest("--host", options.host, allowed)
    if options.port is not None and not 0 < options.port < 65536:
        raise InvalidRequest("--port", options.port, "a number in 1..65535")
    for name in ("queue", "draw", "latency"):
        seconds = getattr(options, name)
        if seconds is not None and not 0 <= seconds < math.inf:  # which nan never is
            raise InvalidRequest(f"--{name}", seconds, "seconds, 0 or more")


def parse_fault(text: str) -> Fault:
    """The fault of its one-line form. Raises ConfigError that says where they are listed."""
    from arta_mcp.local.faults.catalogue import Fault

    try:
        return Fault.parse(text)
    except ConfigError as exc:
        listed = "`arta-mcp local --fault help` lists them all"
        hint = listed if exc.hint == ConfigError.default_hint else f"{exc.hint}; {listed}"
        raise ConfigError(f"--fault: {exc.message}", hint=hint) from exc


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
