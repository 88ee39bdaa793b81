"""The `account` command: what is stored of the anonymous account, and dropping it."""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from typing import TYPE_CHECKING

import anyio

from arta_mcp.cli import entry as cli
from arta_mcp.cli.progress import moment, one_line
from arta_mcp.config import Settings

if TYPE_CHECKING:
    from arta_mcp.arta.account import Account
    from arta_mcp.cli.generate import Words


def add_account(words: Words) -> None:
    parser = words.add_parser("account", help="show or drop the anonymous account")
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
    parser.set_defaults(run=account)


def account(settings: Settings, options: argparse.Namespace) -> int:
    stored, stored_in = anyio.run(stored_account, settings)
    if options.action == "reset":
        return _reset_account(settings, options, is_stored=stored_in is not None)
    about = {
        "service": settings.service,
        "stored_in": stored_in if stored else None,
        "user_id": stored.user_id if stored else None,
        "issued_at": stored.issued_at if stored else None,
        "expires_at": stored.expires_at if stored else None,
        "is_fresh": bool(stored and stored.is_fresh(time.time())),
    }
    if options.json:
        cli.data(json.dumps(about, ensure_ascii=False))
        return cli.OK
    cli.data(f"service  {settings.service}")
    if stored is None:
        cli.data("account  none; the first picture signs up")
        return cli.OK
    cli.data(f"account  {one_line(stored.user_id) or '(the service told no user id)'}")
    cli.data(f"issued   {moment(stored.issued_at)}")
    ahead = "" if about["is_fresh"] else "; due for renewal, which the next call does by itself"
    cli.data(f"expires  {moment(stored.expires_at)}{ahead}")
    cli.data(f"file     {stored_in}")
    return cli.OK


def _reset_account(settings: Settings, options: argparse.Namespace, *, is_stored: bool) -> int:
    if not is_stored:
        cli.talk("no account is stored; nothing to drop")
        return cli.OK
    if not options.yes:
        if not cli.is_asked():
            parser: cli.Parser = options.parser
            parser.fail("account reset asks first, and nobody is there", "add --yes")
        cli.talk(f"This drops the account that {settings.service} knows you by, and nothing else.")
        cli.talk("The next picture signs up anew; earlier record ids may not open for it.")
        if not cli.ask("Drop it?"):
            cli.talk("nothing was changed")
            return cli.FAILED
    from arta_mcp.app import forget_account

    anyio.run(partial(forget_account, settings, warn=cli.talk))
    cli.talk("the account was dropped; the next picture signs up anew")
    return cli.OK


async def stored_account(settings: Settings) -> tuple[Account | None, str | None]:
    """The account that the settings name, as stored, and where; None and None when there is none.

    A damaged one has a place and no account.
    """
    from arta_mcp.app import open_state

    state = open_state(settings, warn=cli.talk)
    try:
        location = (await state.describe(settings.account_name)).account_location
        return (await state.account(settings.account_name) if location else None), location
    finally:
        await state.close()
