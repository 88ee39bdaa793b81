"""The command line: argv, os.environ, exit codes, print; the composition root."""

from __future__ import annotations

import argparse
import gc
import io
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import NoReturn

from arta_mcp import __version__
from arta_mcp.config import SETTINGS, Settings
from arta_mcp.errors import ArtaError, ConfigError, InvalidRequest
from arta_mcp.quick_replies import start_quick_replies
from arta_mcp.redaction import redact, redact_known, sanitize
from arta_mcp.untrusted_json import is_object

log = logging.getLogger(__name__)

OK, FAILED, USAGE, PENDING, INTERRUPTED = 0, 1, 2, 3, 130

_COMMAND_WORDS = {
    "list_models": "`arta-mcp models`",
    "use the record_id of an earlier result; arta://generations lists the latest": (
        "`arta-mcp history` lists the known ones"
    ),
    "call get_generation with the record id later": "`arta-mcp get RECORD_ID` looks again later",
    "idempotency_key": "--idempotency-key",
}
"""how the words of a hint, which are those of the tools, are said at a command line"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code: 0 ok, 1 failed, 2 usage, 3 pending."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if not arguments:
            if sys.stdin is not None and sys.stdin.isatty():
                talk("an MCP server on stdin and stdout, waiting for a host; Ctrl-C ends it")
                talk("hint: `arta-mcp --help` shows the commands for people")
            return serve_stdio(read_settings(os.environ))
        return run_command(arguments, os.environ)
    except BaseException as exc:
        return _ended_by(exc)


def _ended_by(exc: BaseException) -> int:
    """Says why a command ended, without a traceback, and gives its exit code."""
    match exc:
        case BaseExceptionGroup():  # from a task group: its first error is the cause of the others
            return _ended_by(exc.exceptions[0])  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]  # of any type
        case SystemExit():
            raise exc
        case ArtaError():
            tell_error(exc)
            return USAGE if isinstance(exc, ConfigError | InvalidRequest) else FAILED
        case KeyboardInterrupt():
            talk("stopped")
            return INTERRUPTED
        case BrokenPipeError():
            _leave_pipe()
            return FAILED
        case OSError():
            where = f" ({exc.filename})" if exc.filename else ""
            talk(f"error: {sanitize(exc.strerror or str(exc))}{sanitize(where)}")
        case _:
            talk(f"error: {type(exc).__name__}: {sanitize(str(exc), 200)}")
            talk("hint: this is a bug in arta-mcp; ARTA_LOG_LEVEL=DEBUG shows where it happened")
    log.debug("a command failed", exc_info=exc)
    return FAILED


def _leave_pipe() -> None:
    """The reader is gone: what is still in the buffer goes nowhere, and nobody is told."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def talk(line: str) -> None:
    """One line for people: stderr, since stdout is data."""
    with _beside_bar():
        print(redact(line), file=sys.stderr, flush=True)


def data(line: str) -> None:
    """One line of result, less our secrets; an address keeps its signature, which may be a JWT."""
    with _beside_bar():
        print(redact_known(line), flush=True)


def show(picture: str) -> None:
    """A picture as terminals take it; it is no text, so nothing in it is redacted."""
    with _beside_bar():
        print(picture, file=sys.stderr, flush=True)


def is_asked() -> bool:
    """Whether there is a person who can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> bool:
    """Whether a person at this terminal says yes."""
    print(redact(question), end=" [y/N] ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _beside_bar() -> AbstractContextManager[None]:
    """While this lasts a progress bar is out of the way."""
    if "tqdm" not in sys.modules:
        return nullcontext()
    from tqdm import tqdm

    return tqdm.external_write_mode(file=sys.stderr)


def tell_error(error: ArtaError, where: str = "") -> None:
    talk(f"error: {where}{error.message}")
    if error.hint:
        talk(f"hint: {as_commands(error.hint)}")
    if error.record_id:
        talk(f"hint: the record id is {error.record_id}; `arta-mcp get {error.record_id}` looks")


def as_commands(hint: str) -> str:
    """A hint that speaks of tools, in the words of the command line."""
    for word, command in _COMMAND_WORDS.items():
        hint = hint.replace(word, command)
    return hint


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings; tells unknown variables and sets up logging."""
    settings = Settings.from_env(environ)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    for name in settings.unknown:
        from arta_mcp.matching import suggest

        meant = suggest(name, [setting.name for setting in SETTINGS], limit=1)
        talk(f"warning: {name} means nothing here{f'; did you mean {meant[0]}?' if meant else ''}")
    return settings


class RedactingFormatter(logging.Formatter):
    """Removes secrets from whole lines, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def serve_stdio(settings: Settings) -> int:
    """The MCP server on stdin and stdout, until stdin closes.

    Quick replies go to a host's first questions while the imports below run.
    """
    gc.disable()  # what an import makes stays; looking for garbage meanwhile finds none
    handoff = start_quick_replies() if settings.front_desk else None
    from arta_mcp.app import open_generations
    from arta_mcp.server.build import build_server
    from arta_mcp.server.sdk import repair_stdin, serve_wire
    from arta_mcp.server.tools import ResultExtras

    extras = ResultExtras(resource_links=settings.resource_links, previews=settings.preview)
    server = build_server(open_generations(settings, warn=talk), extras)
    gc.freeze()
    gc.enable()
    if handoff is None:
        repair_stdin()
        server.run()
    else:
        serve_wire(server, handoff)
    return OK


def run_command(arguments: list[str], environ: Mapping[str, str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an old console cannot say every character
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser()
    parsed, strange = parser.parse_known_args(arguments)
    if strange:
        parsed.parser.refuse(strange)
    parsed.environ = environ
    if "run_without_settings" in parsed:
        alone: Callable[[argparse.Namespace], int] = parsed.run_without_settings
        return alone(parsed)
    run: Callable[[Settings, argparse.Namespace], int] = parsed.run
    return run(read_settings(environ), parsed)


def _serve(settings: Settings, _: argparse.Namespace) -> int:
    return serve_stdio(settings)


class Parser(argparse.ArgumentParser):
    """Our `error:` and `hint:` lines in place of argparse's, with the nearest word.

    Every command's parser is known as `parser` in what it parsed.
    """

    def error(self, message: str) -> NoReturn:
        self.fail(message, self._nearest_choice(message))

    def refuse(self, strange: list[str]) -> NoReturn:
        """Ends because of arguments that mean nothing to this command."""
        self.fail(f"unrecognized arguments: {' '.join(strange)}", self._nearest_option(strange[0]))

    def fail(self, message: str, hint: str = "") -> NoReturn:
        """Ends with the exit code of a wrong command line."""
        talk(f"error: {sanitize(message)}")
        talk(f"hint: {hint or f'{self.prog} --help shows what there is'}")
        raise SystemExit(USAGE)

    def actions(self) -> list[argparse.Action]:
        """Every option and argument, those of the commands too."""
        found = list(self._actions)
        for action in self._actions:
            commands = action.choices.values() if is_object(action.choices) else ()
            for command in commands:
                found += command.actions() if isinstance(command, Parser) else []
        return found

    def _nearest_choice(self, message: str) -> str:
        """`argument COMMAND: invalid choice: 'genrate' (...)` names the wrong word."""
        from arta_mcp.matching import suggest

        _, _, rest = message.partition("invalid choice: '")
        word = rest.partition("' (")[0]
        choices = [str(choice) for action in self._actions for choice in action.choices or ()]
        meant = suggest(word, choices, limit=1) if word else ()
        if not meant and " " in word:
            return f'`{self.prog} generate "{sanitize(word, 60)}"` draws it'
        return f"did you mean {meant[0]}?" if meant else ""

    def _nearest_option(self, word: str) -> str:
        from arta_mcp.matching import suggest

        if not word.startswith("-"):
            return "put text with blanks in quotes" if self.prog.endswith("generate") else ""
        word = word.partition("=")[0]
        if word in self._option_string_actions:
            return f"put {word} behind the command: {self.prog} ... {word}"
        meant = suggest(word, self._option_string_actions, limit=1)
        return f"did you mean {meant[0]}?" if meant else ""


def build_parser() -> Parser:
    from arta_mcp.cli import account, doctor
    from arta_mcp.cli import generate as commands
    from arta_mcp.cli import local as embedded
    from arta_mcp.cli.install import command as install

    parser = Parser(
        prog="arta-mcp",
        description="Draws pictures from text. Without a command it is an MCP server on stdio.",
        epilog="Settings come from ARTA_* variables; the README lists them."
        " Exit codes: 0 ok, 1 failed, 2 usage, 3 still pending, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"arta-mcp {__version__}")
    words = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    serve = words.add_parser("serve", help="the MCP server on stdin and stdout")
    serve.set_defaults(run=_serve)
    commands.add_generate(words)
    commands.add_get(words)
    commands.add_history(words)
    commands.add_models(words)
    account.add_account(words)
    doctor.add_doctor(words)
    install.add_install(words)
    install.add_uninstall(words)
    embedded.add_local(words)
    commands.add_completion(words)
    for command in words.choices.values():
        command.set_defaults(parser=command)
    return parser
