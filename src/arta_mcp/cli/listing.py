"""The `history` and `models` commands: what was drawn, and what can be drawn with."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from arta_mcp.cli.console import FAILED, OK, confirm, is_terminal, print_json, print_message
from arta_mcp.cli.parser import Parser, Subparsers
from arta_mcp.cli.session import MAX_HISTORY, run_session
from arta_mcp.cli.tables import count_of, format_time, print_table
from arta_mcp.config import Settings
from arta_mcp.errors import InvalidRequest
from arta_mcp.redaction import redact, sanitize, shorten

if TYPE_CHECKING:
    from arta_mcp.generations.service import Generations
    from arta_mcp.state.records import Pruned
    from arta_mcp.styles import Catalogue

MAX_DAYS = 36_500
"""of `--prune`"""

REPORT_INTERVAL = 5.0
"""seconds between two lines about how far `--prune --everybody` is"""

MAX_MODEL = 40
"""characters of what drew: the end of a long name is a folder or a version"""

MAX_PROMPT = 4000
"""characters of a prompt that a row shows at most"""


def add_history(commands: Subparsers) -> None:
    """The `history` command."""
    parser = commands.add_parser("history", help="list the latest generations")
    parser.add_argument("--limit", type=int, default=20, help="how many at most; default 20")
    parser.add_argument(
        "--prune",
        type=int,
        metavar="DAYS",
        help="remove what ended and is older, with the sketches kept of it; asks nothing",
    )
    parser.add_argument(
        "--everybody",
        action="store_true",
        help="with --prune: that of every caller and owner in the state; asks first",
    )
    parser.add_argument(
        "--forget",
        action="store_true",
        help="remove all that has ended, with what was asked and every picture kept of it",
    )
    parser.add_argument(
        "--yes", action="store_true", help="do not ask before --forget and --everybody"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(run=run_history, parser=parser)


def add_models(commands: Subparsers) -> None:
    """The `models` command."""
    parser = commands.add_parser("models", help="list what can be drawn with")
    parser.add_argument(
        "--search", metavar="WORDS", help="only those whose name or category matches"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_models)


def run_history(settings: Settings, options: argparse.Namespace) -> int:
    """Lists the newest generations first: JSON lines, or a table."""
    if options.everybody and options.prune is None:
        parser: Parser = options.parser
        parser.fail("--everybody is for --prune alone", "history --prune DAYS --everybody")
    if options.prune is not None:
        return prune_history(settings, options)
    if options.forget:
        return forget_history(settings, options)
    # SQLite reads a negative limit as none at all.
    limit = min(MAX_HISTORY, max(1, options.limit))
    found = run_session(settings, None, lambda generations: generations.history(limit))
    if not found:
        print_message("nothing was drawn here yet; `arta-mcp generate PROMPT` begins")
    elif options.json:
        for generation in found:
            print_json(generation.to_dict())
    else:
        rows: list[tuple[str, ...]] = []
        for one in found:
            # In its own letters: joiners, which `sanitize` would write out, make words and emoji.
            prompt = shorten(" ".join(redact(one.request.prompt).split()), MAX_PROMPT)
            when = format_time(one.created_at)
            drew = sanitize(one.engine_model or one.engine, MAX_MODEL)
            rows.append((when, one.status, one.record_id or "-", one.model, drew, prompt))
        print_table(("WHEN", "STATUS", "RECORD ID", "MODEL", "DRAWN BY", "PROMPT"), rows)
    return OK


def prune_history(settings: Settings, options: argparse.Namespace) -> int:
    """Removes old generations from the journal and says how many; never one that may still run.

    Raises InvalidRequest for days that cannot be.
    """
    days: int = options.prune
    if not 0 <= days <= MAX_DAYS:
        raise InvalidRequest("--prune", days, f"days, 0 to {MAX_DAYS}")
    if options.everybody and not is_sure(
        options,
        "history --prune --everybody",
        f"This removes what everybody in this state ordered over {count_of(days, 'day')} ago.",
    ):
        return FAILED

    def prune(generations: Generations) -> Awaitable[tuple[Pruned, int]]:
        if options.everybody:
            return generations.prune_everybody(days, report=report_owners())
        return generations.prune(days)

    pruned, pictures = run_session(settings, None, prune)
    if options.json:
        print_json({"pruned": pruned.count, "pictures": pictures, "kept": pruned.kept})
        return OK
    what = count_of(pruned.count, "generation")
    print_message(f"removed {what} and {count_of(pictures, 'picture')} kept of sketches")
    if pruned.count:
        print_message(
            "note: their idempotency keys and batches order anew; what was saved elsewhere stays"
        )
    if pruned.kept:
        what = count_of(pruned.kept, "generation")
        print_message(f"note: {what} as old stay, since their end is not known")
    if settings.state_url is not None and not options.everybody:
        print_message("note: other owners' stay; --everybody removes those as well")
    return OK


def forget_history(settings: Settings, options: argparse.Namespace) -> int:
    """Removes all that has ended, after a yes, and says what stays."""
    what = "This removes what was asked here and the pictures that are kept of it."
    if not is_sure(options, "history --forget", what):
        return FAILED
    forgotten, pictures = run_session(settings, None, lambda generations: generations.forget())
    if options.json:
        print_json({"forgotten": forgotten.count, "pictures": pictures, "kept": forgotten.kept})
        return OK
    what = count_of(forgotten.count, "generation")
    print_message(f"forgot {what} and {count_of(pictures, 'picture')} kept of them")
    print_message("note: the account stays, and what was saved in a folder of yours")
    if forgotten.kept:
        what = count_of(forgotten.kept, "generation")
        print_message(f"note: kept {what}: the end is not known, and a second could be ordered")
        print_message(
            "hint: `arta-mcp history` lists them; `arta-mcp get RECORD_ID` asks for the end"
        )
    return OK


def is_sure(options: argparse.Namespace, command: str, what: str) -> bool:
    """Whether a person says yes to what `command` removes, or has said so with --yes."""
    if options.yes:
        return True
    if not sys.stdin.isatty() or not is_terminal():
        parser: Parser = options.parser
        parser.fail(f"{command} asks first, and nobody is there", "add --yes")
    print_message(what)
    if confirm("Remove it?"):
        return True
    print_message("nothing was changed")
    return False


def report_owners() -> Callable[[int, int], None]:
    """Says now and then how far it is, when it takes long."""
    said = time.monotonic()

    def report(done: int, owners: int) -> None:
        nonlocal said
        if time.monotonic() - said > REPORT_INTERVAL:
            said = time.monotonic()
            print_message(f"{done} of {count_of(owners, 'owner')}")

    return report


def run_models(settings: Settings, options: argparse.Namespace) -> int:
    """Lists the models that match: one JSON object, or a table."""

    async def look(generations: Generations) -> tuple[Catalogue, tuple[str, ...]]:
        return await generations.catalogue(), await generations.engine_models()

    catalogue, of_server = run_session(settings, None, look)
    found = catalogue.search(options.search)
    if options.json:
        listed = [asdict(style) for style in found]
        print_json({"as_of": catalogue.as_of, "source": catalogue.source, "models": listed})
        return OK
    if found:
        rows = [(style.id, style.category, style.name) for style in found]
        print_table(("MODEL", "CATEGORY", "STYLE"), rows)
    origin = "as the service lists them" if catalogue.source == "live" else "as shipped"
    # On stderr: a pipe gets models and nothing else.
    count = count_of(len(found), "model")
    print_message(f"{count}, {origin}, {catalogue.as_of}; default {catalogue.default.id}")
    if of_server:
        names = ", ".join(sanitize(name, 80) for name in of_server)
        print_message(f"note: the engine's server has {names}; ARTA_LOCAL_MODEL chooses one")
    if not found:
        print_message("hint: `arta-mcp models` without --search shows all")
    return OK
