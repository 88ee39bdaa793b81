"""The `account` command: what is stored of the anonymous account, and dropping it."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from arta_mcp.cli import entry as cli
from arta_mcp.cli.progress import moment, one_line
from arta_mcp.config import Settings

if TYPE_CHECKING:
    from arta_mcp.cli.generate import Words
    from arta_mcp.state.contract import Account


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
    from arta_mcp.app import state_dir

    stored_in = state_dir(settings) / f"account-{settings.account_name}.json"
    if options.action == "reset":
        return _reset_account(settings, options, stored_in)
    stored = anyio.run(stored_account, settings) if stored_in.exists() else None
    about = {
        "service": settings.service,
        "stored_in": str(stored_in) if stored else None,
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


def _reset_account(settings: Settings, options: argparse.Namespace, stored_in: Path) -> int:
    if not stored_in.exists():
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
    anyio.run(_forget_account, settings)
    cli.talk("the account was dropped; the next picture signs up anew")
    return cli.OK


async def stored_account(settings: Settings) -> Account | None:
    """The account that the settings name, as stored."""
    from arta_mcp.app import state_dir
    from arta_mcp.state.contract import open_state

    state = open_state(state_dir(settings), warn=cli.talk)
    try:
        return await state.account(settings.account_name)
    finally:
        await state.close()


async def _forget_account(settings: Settings) -> None:
    from arta_mcp.app import Addresses, open_transport, state_dir, token_source
    from arta_mcp.background import Errands
    from arta_mcp.state.contract import open_state

    state = open_state(state_dir(settings), warn=cli.talk)
    where = Addresses(settings.base_url, settings.auth_url, settings.token_refresh_url)
    try:
        async with Errands() as errands, open_transport(settings) as transport:
            await token_source(settings, where, state, transport, errands).forget()
    finally:
        await state.close()
