"""The `completion` command: a script with which a shell completes our commands."""

from __future__ import annotations

import argparse

from arta_mcp.arta.protocol import RATIOS
from arta_mcp.cli.console import OK, print_data
from arta_mcp.cli.parser import Parser, Subparsers

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")
"""what shtab knows; asking it would cost every command 40 ms"""


def add_completion(commands: Subparsers) -> None:
    """The `completion` command."""
    parser = commands.add_parser("completion", help="print a script that completes our commands")
    parser.add_argument(
        "shell",
        metavar="SHELL",
        choices=SHELLS,
        help=f'one of {", ".join(SHELLS)}; e.g. eval "$(arta-mcp completion bash)" in ~/.bashrc',
    )
    parser.set_defaults(run_without_settings=run_completion)


def run_completion(options: argparse.Namespace) -> int:
    """Prints the script; models, aspect ratios and hosts are in it, record ids are looked up."""
    import shtab

    from arta_mcp.cli.install.hosts import NAMES as HOSTS
    from arta_mcp.styles import SHIPPED

    known = {
        "model": tuple(style.id for style in SHIPPED.search(None)),
        "aspect_ratio": RATIOS,
        "host": HOSTS,
        "install": HOSTS[:-1],  # of `setup`, which knows no file of its own
    }
    completed = {
        "output": shtab.DIRECTORY,
        "batch": shtab.FILE,
        "file": shtab.FILE,
        # Asked for when the key is pressed: the newest ones are wanted.
        "record_id": shtab.cmd("arta-mcp history --limit 100 2>/dev/null | cut -f3"),
    }
    # The whole line's parser, which the dispatch left here: this module knows no other command.
    parser: Parser = options.root_parser
    for action in parser.actions():
        # `--host` of `local` is another thing than the HOST of `install`.
        name = action.dest if action.dest != "host" or not action.option_strings else ""
        # Only for the script: as choices of the command line their errors would be argparse's.
        action.choices = known.get(name, action.choices)
        if name in completed:
            action.complete = completed[name]  # pyright: ignore[reportAttributeAccessIssue]  # shtab looks there
    print_data(shtab.complete(parser, shell=options.shell))
    return OK
