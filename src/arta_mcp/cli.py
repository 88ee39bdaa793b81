"""The command line: argv, os.environ, exit codes, print; the composition root."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from arta_mcp import __version__
from arta_mcp.config import SETTINGS, Settings
from arta_mcp.errors import ArtaError, ConfigError, InvalidRequest, redact

OK, FAILED, USAGE, PENDING, INTERRUPTED = 0, 1, 2, 3, 130

COMMANDS = ("serve", "generate", "get", "history", "models", "local")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code: 0 ok, 1 failed, 2 usage, 3 pending."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if not arguments:
            return serve_stdio(read_settings(os.environ))
        return run_command(arguments, os.environ)
    except ArtaError as exc:
        tell_error(exc)
        return USAGE if isinstance(exc, ConfigError | InvalidRequest) else FAILED
    except KeyboardInterrupt:
        talk("stopped")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED


def talk(line: str) -> None:
    """One line for people: stderr, since stdout is data."""
    print(redact(line), file=sys.stderr, flush=True)


def data(line: str) -> None:
    """One line of result."""
    print(redact(line), flush=True)


def tell_error(error: ArtaError) -> None:
    talk(f"error: {error.message}")
    if error.hint:
        talk(f"hint: {error.hint}")
    if error.record_id:
        talk(f"hint: the record id is {error.record_id}; `arta-mcp get {error.record_id}` looks")


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings; tells unknown variables and sets up logging."""
    settings = Settings.from_env(environ)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    for name in settings.unknown:
        from arta_mcp.near import near

        meant = near(name, [setting.name for setting in SETTINGS], limit=1)
        talk(f"warning: {name} means nothing here{f'; did you mean {meant[0]}?' if meant else ''}")
    return settings


class RedactingFormatter(logging.Formatter):
    """Removes secrets from whole lines, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def serve_stdio(settings: Settings) -> int:
    """The MCP server on stdin and stdout, until stdin closes."""
    from arta_mcp.assemble import open_generations
    from arta_mcp.server import build_server

    build_server(open_generations(settings, warn=talk)).run()
    return OK


def run_command(arguments: list[str], environ: Mapping[str, str]) -> int:
    parsed = build_parser().parse_args(arguments)
    run: Callable[[Settings, argparse.Namespace], int] = parsed.run
    return run(read_settings(environ), parsed)


def _serve(settings: Settings, _: argparse.Namespace) -> int:
    return serve_stdio(settings)


class Parser(argparse.ArgumentParser):
    """Our `error:` and `hint:` lines in place of argparse's, with the nearest word."""

    def error(self, message: str) -> NoReturn:
        talk(f"error: {message}")
        talk(f"hint: {_nearest_word(message) or f'{self.prog} --help shows what there is'}")
        raise SystemExit(USAGE)


def _nearest_word(message: str) -> str:
    """`invalid choice: 'genrate'` and `unrecognized arguments: --jsn` name the wrong word."""
    from arta_mcp.near import near

    _, _, rest = message.partition("invalid choice: '")
    meant = near(rest.partition("'")[0], COMMANDS, limit=1) if rest else ()
    return f"did you mean {meant[0]}?" if meant else ""


def build_parser() -> Parser:
    from arta_mcp import commands

    parser = Parser(
        prog="arta-mcp",
        description="Draws pictures from text. Without a command it is an MCP server on stdio.",
        epilog="Settings come from ARTA_* variables; the README lists them.",
    )
    parser.add_argument("--version", action="version", version=f"arta-mcp {__version__}")
    words = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    serve = words.add_parser("serve", help="the MCP server on stdin and stdout")
    serve.set_defaults(run=_serve)
    commands.add_generate(words)
    commands.add_get(words)
    commands.add_history(words)
    commands.add_models(words)
    commands.add_local(words)
    return parser
