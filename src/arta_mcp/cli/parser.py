"""Parsing a command line, with our `error:` and `hint:` lines in place of argparse's."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeAlias

from arta_mcp import __version__
from arta_mcp.cli.console import WrongCommandLine
from arta_mcp.matching import suggest
from arta_mcp.redaction import sanitize
from arta_mcp.untrusted_json import is_object

Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"  # pyright: ignore[reportPrivateUsage]  # argparse names it so
"""what commands are added to"""


def build_parser(*add_commands: Callable[[Subparsers], None]) -> Parser:
    """The parser of the whole command line; it knows no command, so every command may know it."""
    parser = Parser(
        prog="arta-mcp",
        description="Draws pictures from text. Without a command it is an MCP server on stdio.",
        epilog="Settings come from ARTA_* variables; the README lists them."
        " Exit codes: 0 ok, 1 failed, 2 usage, 3 still pending, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"arta-mcp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add_command in add_commands:
        add_command(commands)
    for command in commands.choices.values():
        command.set_defaults(parser=command)
    return parser


class Parser(argparse.ArgumentParser):
    """A parser that ends with the nearest right word; `options.parser` is the command's own."""

    hides_values = False
    """whether what is no option may be a secret, which an error must not quote"""

    def error(self, message: str) -> NoReturn:
        """What argparse calls when a line is wrong; `message` is its own English sentence."""
        # `argument COMMAND: invalid choice: 'genrate' (choose from ...)`: the sentence is the only
        # place where argparse names the wrong word. Other words of it only cost the hint.
        word = message.partition("invalid choice: '")[2].partition("' (")[0]
        choices = [str(choice) for action in self._actions for choice in action.choices or ()]
        meant = suggest(word, choices, limit=1) if word else ()
        hint = f'`{self.prog} generate "{sanitize(word, 60)}"` draws it' if " " in word else ""
        self.fail(message, f"did you mean {meant[0]}?" if meant else hint)

    def refuse(self, strange: list[str]) -> NoReturn:
        """Ends because of arguments that mean nothing to this command."""
        word = strange[0].partition("=")[0]
        if self.hides_values:
            strange = [one.partition("=")[0] if one.startswith("-") else "…" for one in strange]
        message = f"unrecognized arguments: {' '.join(strange)}"
        # Argparse's private table of its options: it has no public one.
        options = self._option_string_actions
        if not word.startswith("-"):
            is_prompt = self.prog.endswith("generate")
            self.fail(message, "put text with blanks in quotes" if is_prompt else "")
        if word in options:
            self.fail(message, f"put {word} behind the command: {self.prog} ... {word}")
        meant = suggest(word, options, limit=1)
        self.fail(message, f"did you mean {meant[0]}?" if meant else "")

    def fail(self, message: str, hint: str = "") -> NoReturn:
        """Raises WrongCommandLine."""
        hint = hint or f"{self.prog} --help shows what there is"
        raise WrongCommandLine(sanitize(message), hint=hint)

    def actions(self) -> Iterator[argparse.Action]:
        """Every option and argument, those of the commands too."""
        # Argparse's private list of them; shtab walks the same one.
        for action in self._actions:
            yield action
            for command in action.choices.values() if is_object(action.choices) else ():
                yield from command.actions() if isinstance(command, Parser) else ()
