"""Runs one command: which one, and what its end means."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress

from arta_mcp.cli.console import (
    FAILED,
    INTERRUPTED,
    USAGE,
    WrongCommandLine,
    describe_error,
    print_error,
    print_json,
    print_message,
)
from arta_mcp.cli.interrupts import raise_interrupts
from arta_mcp.cli.serve import serve_stdio
from arta_mcp.cli.settings import read_settings
from arta_mcp.cli.stopping import Stopped
from arta_mcp.cli.streams import replace_missing_streams, unblock_stderr
from arta_mcp.errors import ArtaError, ConfigError, InvalidRequest
from arta_mcp.redaction import sanitize

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code: 0 ok, 1 failed, 2 usage, 3 pending."""
    replace_missing_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    is_server = arguments[:1] in ([], ["serve"])
    with unblock_stderr() if is_server else nullcontext():
        try:
            if arguments:
                return run_command(arguments, os.environ)
            if sys.stdin.isatty():
                print_message(
                    "an MCP server on stdin and stdout, waiting for a host; Ctrl-C ends it"
                )
                print_message("hint: `arta-mcp --help` shows the commands for people")
            return serve_stdio(os.environ)
        except BaseException as exc:
            # Ctrl-C too: it has an exit code of its own, and no traceback.
            as_json = any(len(word) > 2 and "--json".startswith(word) for word in arguments)
            return _report_end(exc, as_json=as_json)


def run_command(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Runs the command that these arguments name, and gives its exit code.

    Raises SystemExit for a wrong command line, and what the command raises.
    """
    # Not at the top: the server on stdio has replied before argparse and these were loaded.
    from arta_mcp.cli import account, completion, doctor, generate, listing, local, serve, setup
    from arta_mcp.cli.install import command as install
    from arta_mcp.cli.parser import build_parser

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an old console cannot say every character
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser(
        serve.add_serve,
        generate.add_generate,
        generate.add_get,
        generate.add_cancel,
        listing.add_history,
        listing.add_models,
        account.add_account,
        doctor.add_doctor,
        setup.add_setup,
        install.add_install,
        install.add_uninstall,
        local.add_local,
        completion.add_completion,
    )
    # Not `parse_args`: there the root parser complains, which knows no option of a command.
    parsed, strange = parser.parse_known_args(arguments)
    if strange:
        parsed.parser.refuse(strange)
    parsed.environ, parsed.root_parser = environ, parser
    if getattr(parsed, "run_without_settings", None) is not serve.run_serve:
        raise_interrupts()  # a command may have something to clean up
    if "run_without_settings" in parsed:  # it gets on when a setting is wrong
        return parsed.run_without_settings(parsed)
    return parsed.run(read_settings(environ), parsed)


def _report_end(exc: BaseException, *, as_json: bool) -> int:
    """Says why a command ended, without a traceback, and gives its exit code.

    With `as_json` an error is also an object on stdout.
    """
    match exc:
        case BaseExceptionGroup():
            # From a task group: its first error is the cause of the others.
            first = exc.exceptions[0]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # of any type
            return _report_end(first, as_json=as_json)  # pyright: ignore[reportUnknownArgumentType]  # of any type
        case SystemExit():
            raise exc
        case KeyboardInterrupt():
            print_message("stopped")
            return exc.code if isinstance(exc, Stopped) else INTERRUPTED
        case BrokenPipeError():
            # The reader of stdout has gone as `head` does; that is no error to speak of. The
            # interpreter would flush what is left at its end, fail, and say so on stderr.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        case ArtaError():
            error = exc
        case OSError():
            where = f" ({sanitize(str(exc.filename))})" if exc.filename else ""
            error = ArtaError(f"{sanitize(exc.strerror or str(exc))}{where}")
        case _:
            error = ArtaError(
                f"{type(exc).__name__}: {sanitize(str(exc), 200)}",
                hint="this is a bug in arta-mcp; ARTA_LOG_LEVEL=DEBUG shows where it happened",
            )
    print_error(error)
    if as_json:
        with suppress(Exception):  # stdout may be what failed
            print_json(describe_error(error))
    log.debug("a command failed", exc_info=exc)
    is_usage = isinstance(exc, ConfigError | InvalidRequest | WrongCommandLine)
    return USAGE if is_usage else FAILED
