"""What a command says, asks and ends with; the only module that prints.

stdout is data for programs, stderr is for people. Light on imports on purpose: the server on stdio
loads this before its first reply.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from typing import TextIO

from arta_mcp.errors import ArtaError
from arta_mcp.redaction import redact, redact_known

OK, FAILED, USAGE, PENDING, INTERRUPTED = 0, 1, 2, 3, 130
"""exit codes; 130 is what a shell gives a program that SIGINT ended"""

_COMMAND_WORDS = {
    "list_models": "`arta-mcp models`",
    "call get_generation without record_id for the newest one": (
        "`arta-mcp history` lists the known ones"
    ),
    "call get_generation with the record id later": "`arta-mcp get RECORD_ID` looks again later",
    "idempotency_key": "--idempotency-key",
}
"""how the words of a hint, which are those of the tools, are said at a command line"""


_ACTS_ON_TERMINAL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x80-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""controls, and what turns the rest of a line round; blanks of any kind may be part of a path"""


class WrongCommandLine(ArtaError):
    """What was typed is no command of ours."""


def print_message(line: str) -> None:
    """One line for people, on stderr; every secret and what looks like one is redacted."""
    with suppress(OSError):  # that nobody can be told fails nothing
        _print(redact(line), sys.stderr)


def print_data(line: str, *, head: str = "") -> None:
    """One line of a result, on stdout, without our own secrets; `head` is ours, with colours."""
    # Not `redact`: the signature in an image address may be a JWT, and the address must open.
    _print(redact_known(line), sys.stdout, head=head)


def print_json(value: object) -> None:
    """One result on a line of stdout, as JSON."""
    text = json.dumps(value, ensure_ascii=False)
    print_data(json.dumps(value) if _ACTS_ON_TERMINAL.search(text) else text)


def print_picture(picture: str) -> None:
    """A picture as terminals take it, on stderr."""
    # Not redacted: it is no text, and a cut in its base64 would make it unreadable.
    _print("", sys.stderr, head=picture)


def print_error(error: ArtaError, where: str = "") -> None:
    """An error as `error:` and `hint:` lines; `where` goes before its sentence."""
    for line in error_lines(error, where):
        print_message(line)


def describe_error(error: ArtaError) -> dict[str, object]:
    """An error for a program, in the words of the command line."""
    hint = translate_hint(error.hint) or None
    return {"error": error.message, "hint": hint, "record_id": error.record_id}


def error_lines(error: ArtaError, where: str = "") -> list[str]:
    """The `error:` and `hint:` lines of an error; `where` goes before its sentence."""
    lines = [f"error: {where}{error.message}"]
    if error.hint:
        lines.append(f"hint: {translate_hint(error.hint)}")
    if record_id := error.record_id:
        lines.append(f"hint: the record id is {record_id}; `arta-mcp get {record_id}` looks")
    return lines


def translate_hint(hint: str) -> str:
    """A hint that speaks of tools, in the words of the command line."""
    for word, command in _COMMAND_WORDS.items():
        hint = hint.replace(word, command)
    return hint


def confirm(question: str) -> bool:
    """Whether the person at this terminal answers yes."""
    print(redact(question), end=" [y/N] ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def ask(question: str, default: str = "") -> str:
    """What the person at this terminal answers; the default for an empty line.

    Raises ArtaError when the terminal was closed.
    """
    shown = f" [{default}]" if default else ""
    print(redact(f"{question}{shown}"), end=" ", file=sys.stderr, flush=True)
    if not (line := sys.stdin.readline()):
        print(file=sys.stderr)
        raise ArtaError("no answer came", hint="nothing was changed")
    return line.strip() or default


def ask_secret(question: str) -> str:
    """What the person types, without showing it."""
    from getpass import getpass

    return getpass(f"{question} ", sys.stderr).strip()


def is_terminal() -> bool:
    """Whether stderr, where a bar and pictures go, is a terminal."""
    return sys.stderr.isatty()


def columns(default: int = 80) -> int:
    """How wide the terminal is; `default` where there is none."""
    for stream in (sys.stderr, sys.stdout):
        # ValueError: a stream that a test or a pipe has replaced has no descriptor.
        with suppress(OSError, ValueError):
            return os.get_terminal_size(stream.fileno()).columns or default
    return default


def _print(text: str, stream: TextIO, *, head: str = "") -> None:
    text = head + _ACTS_ON_TERMINAL.sub(lambda found: repr(found[0])[1:-1], text)
    # A bar on the screen has loaded tqdm already; without one nothing is loaded for it.
    if "tqdm" not in sys.modules:
        print(text, file=stream, flush=True)
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):  # takes the bar out of the way
        print(text, file=stream, flush=True)
