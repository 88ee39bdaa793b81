"""The `account` command: what is stored of the anonymous account, and dropping it."""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import anyio

from arta_mcp.cli.console import (
    FAILED,
    OK,
    confirm,
    is_terminal,
    print_data,
    print_json,
    print_message,
)
from arta_mcp.cli.parser import Parser, Subparsers
from arta_mcp.cli.tables import format_time
from arta_mcp.config import Settings
from arta_mcp.redaction import sanitize

if TYPE_CHECKING:
    from arta_mcp.arta.account import Account


def add_account(commands: Subparsers) -> None:
    """The `account` command."""
    parser = commands.add_parser("account", help="show or drop the anonymous account")
    parser.add_argument(
        "action",
        nargs="?",
        choices=("status", "reset"),
        default="status",
        help="status: what is stored, never a token; reset: drop it, so that the next picture"
        " signs up anew; default status",
    )
    parser.add_argument("--yes", action="store_true", help="reset without asking")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_account)


def run_account(settings: Settings, options: argparse.Namespace) -> int:
    """Shows the account, or drops it."""
    account, location = anyio.run(read_account, settings)
    if options.action == "reset":
        return reset_account(settings, options, is_stored=location is not None)
    is_fresh = account is not None and account.is_fresh(time.time())
    if options.json:
        names = ("user_id", "issued_at", "expires_at")  # never a token
        about = {"service": settings.service, "stored_in": location if account else None}
        stored = {name: getattr(account, name, None) for name in names}
        print_json({**about, **stored, "is_fresh": is_fresh})
        return OK
    print_data(f"service  {settings.service}")
    if account is None:
        print_data("account  none; the first picture signs up")
        return OK
    renewal = "" if is_fresh else "; due for renewal, which the next call does by itself"
    # The service may repeat a secret or anything else as the user id.
    print_data(f"account  {sanitize(account.user_id, 4000) or '(the service told no user id)'}")
    print_data(f"issued   {format_time(account.issued_at)}")
    print_data(f"expires  {format_time(account.expires_at)}{renewal}")
    print_data(f"{'file' if settings.state_url is None else 'key '}     {location}")
    return OK


def reset_account(settings: Settings, options: argparse.Namespace, *, is_stored: bool) -> int:
    """Drops the stored account, after a yes: earlier record ids are lost with it."""
    if not is_stored:
        print_message("no account is stored; nothing to drop")
        return OK
    # Asked for: a dropped account does not come back, and the service may keep to it what it drew.
    if not options.yes:
        if not sys.stdin.isatty() or not is_terminal():
            parser: Parser = options.parser
            parser.fail("account reset asks first, and nobody is there", "add --yes")
        service = settings.service
        print_message(f"This drops the account that {service} knows you by, and nothing else.")
        print_message("The next picture signs up anew; earlier record ids may not open for it.")
        if not confirm("Drop it?"):
            print_message("nothing was changed")
            return FAILED
    # Under the account's lock: another process may be renewing it at this moment.
    from arta_mcp.app import forget_account

    anyio.run(partial(forget_account, settings, warn=print_message))
    print_message("the account was dropped; the next picture signs up anew")
    return OK


async def read_account(settings: Settings) -> tuple[Account | None, str | None]:
    """The account as stored, and where; a damaged one is only a location, none is neither."""
    from arta_mcp.app import open_state

    state = open_state(settings, warn=print_message)
    try:
        # The location first: reading the account would make the state folder.
        location = (await state.describe(settings.account_name)).account_location
        is_kept = location is not None or settings.state_url is not None
        return (await state.account(settings.account_name) if is_kept else None), location
    finally:
        await state.close()
