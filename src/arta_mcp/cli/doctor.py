"""The doctor: tries everything that a picture needs, and says what to do about what is wrong."""

from __future__ import annotations

import argparse
import logging
import platform
import sys
import textwrap
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import date
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

from arta_mcp import __version__
from arta_mcp.cli.account import read_account
from arta_mcp.cli.console import (
    FAILED,
    OK,
    columns,
    print_data,
    print_json,
    print_message,
    translate_hint,
)
from arta_mcp.cli.engine import check_engine
from arta_mcp.cli.parser import Subparsers
from arta_mcp.cli.report import print_report
from arta_mcp.cli.serve import find_mark
from arta_mcp.cli.stopping import run_until_stopped
from arta_mcp.cli.tables import count_of, format_time
from arta_mcp.config import SETTINGS, Settings
from arta_mcp.errors import ArtaError, ConfigError, ProtocolError, Unavailable
from arta_mcp.generations.pictures import decode, run_in_turn
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.matching import suggest
from arta_mcp.quick_replies import NoQuickReplies, RecordedReplies
from arta_mcp.redaction import sanitize
from arta_mcp.state.records import StateCheck as Finding

if TYPE_CHECKING:
    from arta_mcp.arta.transport import Transport
    from arta_mcp.generations.service import Generations

log = logging.getLogger(__name__)

PICTURE_TIMEOUT = 120.0
"""seconds for the real generation"""

ADDRESS_TIMEOUT = 15.0
"""seconds for one address"""

MAX_SKEW = 60.0
"""seconds that our clock may differ from that of a service"""

MAX_LIST_AGE = 180
"""days after which the shipped list of styles is called old"""

INDENT = 20
"""columns before what a finding says"""

COLOURS = {"ok": "32", "warn": "33", "fail": "31"}
"""status -> code of its colour (ECMA-48, SGR)"""


def add_doctor(commands: Subparsers) -> None:
    """The `doctor` command."""
    parser = commands.add_parser(
        "doctor",
        help="try everything that a picture needs, and say what to do about what is wrong",
        description="Looks at settings, state folder and account, asks each remote address for /"
        " (without key or token), and draws one real picture: a small one with an engine of your"
        " own, and none without --draw where that may cost money. Exit code 1 for what fails.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--no-picture", action="store_true", help="order no picture")
    which.add_argument("--draw", action="store_true", help="draw one even if it may cost money")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print JSON")
    how.add_argument(
        "--report", action="store_true", help="print what a bug report needs, without secrets"
    )
    parser.set_defaults(run_without_settings=run_doctor)


def run_doctor(options: argparse.Namespace) -> int:
    """Prints each finding as it is made, or all of them as JSON; the exit code is 1 for a fail."""
    findings: list[Finding] = []

    async def examine() -> None:
        draw = None if options.no_picture else options.draw
        async for finding in find_all(options.environ, draw=draw):
            findings.append(finding)
            if not options.json and not options.report:
                print_finding(finding, options.environ)

    run_until_stopped(examine)
    failed = sum(finding.status == "fail" for finding in findings)
    if options.report:
        print_report(findings, options.environ)
    elif options.json:
        print_json({"ok": not failed, "findings": [asdict(finding) for finding in findings]})
    else:
        warned = sum(finding.status == "warn" for finding in findings)
        print_message(f"{count_of(len(findings), 'line')}: {failed} fail, {warned} warn")
    return FAILED if failed else OK


def print_finding(finding: Finding, environ: Mapping[str, str]) -> None:
    """A finding in columns, its remedy behind an arrow; wrapped and coloured on a terminal."""
    status = f"{finding.status:<4}"
    lines = [finding.detail]
    if finding.remedy:
        lines.append(f"-> {translate_hint(finding.remedy)}")
    if sys.stdout.isatty():
        if not environ.get("NO_COLOR") and environ.get("TERM") != "dumb":
            status = f"\x1b[{COLOURS[finding.status]}m{status}\x1b[0m"
        wrapper = textwrap.TextWrapper(max(20, columns() - INDENT), break_on_hyphens=False)
        lines = [part for line in lines for part in wrapper.wrap(line)]
    head = f"{status}  {finding.name:<{INDENT - 6}}"
    for line in lines:
        print_data(line, head=head)
        head = " " * INDENT


async def find_all(environ: Mapping[str, str], *, draw: bool | None) -> AsyncGenerator[Finding]:
    """Everything in the order in which a picture needs it; stops where nothing further can work.

    `draw`: a picture, even where it may cost money; False: only where it does not; None: none.
    """
    packages = ", ".join(f"{name} {version(name)}" for name in ("mcp", "httpx", "pydantic"))
    about = f"arta-mcp {__version__}, Python {platform.python_version()}, {packages}"
    yield Finding("program", "ok", about)
    try:
        settings = Settings.from_env(environ)
    except ConfigError as exc:
        yield Finding("settings", "fail", exc.message, exc.hint)
        return
    for finding in check_settings(settings, environ):
        yield finding
    failed = set[str]()
    yield check_quick_start(settings, environ)
    if settings.local_styles is not None:
        yield check_own_styles(settings.local_styles)
    checks = [("state folder", check_state(settings)), ("account", check_account(settings))]
    if settings.backend == "arta":
        checks.append(("address", check_addresses(settings)))
    if settings.draws_with_ai and settings.local_engine == "diffusers":
        checks.append(("engine", check_diffusers(settings)))
    for name, check in checks:
        if name == "account" and failed & {"state folder", "shared state"}:
            await check.aclose()
            continue
        async for finding in guard(name, check):
            failed |= {finding.name} if finding.status == "fail" else set()
            yield finding
    if failed - {"output folder", "account file"}:
        detail = "not tried: it would fail for the reason above"
        yield Finding("picture", "warn", detail, "mend that first")
        return
    async for finding in check_pictures(settings, draw=draw):
        yield finding


async def check_pictures(settings: Settings, *, draw: bool | None) -> AsyncGenerator[Finding]:
    """What can be drawn, how often, and one picture of it; `draw` as for `find_all`."""
    if settings.has_key and settings.hourly_limit is not None:
        async for finding in guard("hourly limit", check_hourly_limit(settings)):
            yield finding
    is_own = settings.draws_with_ai
    by_service = draw is not None and not is_own
    async for finding in guard("picture", check_service(settings, draw=by_service)):
        yield finding
    if not is_own:
        return
    by_engine = draw is True or (draw is False and not settings.may_cost)
    async for finding in guard("engine", check_engine(settings, draw=by_engine)):
        yield finding
    if draw is False and settings.may_cost:
        detail = f"not tried: it may cost money at {settings.local_url}; --draw draws one"
        yield Finding("picture", "ok", detail)


async def guard(name: str, check: AsyncGenerator[Finding]) -> AsyncGenerator[Finding]:
    """The findings of a check; what it raises is one more, so that no check ends the doctor."""
    try:
        async for finding in check:
            yield finding
    except ArtaError as exc:
        yield Finding(name, "fail", exc.message, exc.hint or "try again later")
    except OSError as exc:
        where = f" ({sanitize(str(exc.filename))})" if exc.filename else ""
        why = f"{sanitize(exc.strerror or str(exc), 200)}{where}"
        yield Finding(name, "fail", why, "make room or set the permissions")
    except Exception as exc:
        log.debug("a check failed", exc_info=exc)
        why = f"{type(exc).__name__}: {sanitize(str(exc), 200)}"
        yield Finding(name, "fail", why, "this is a bug in arta-mcp; please report it")


async def check_state(settings: Settings) -> AsyncGenerator[Finding]:
    """Whether tokens, generations and pictures can be kept where the settings say."""
    from arta_mcp.app import open_state, pictures_dir
    from arta_mcp.state.checks import check_folder

    state = open_state(settings)
    try:
        described = await state.describe(settings.account_name)
    finally:
        await state.close()
    for finding in described.checks:
        yield finding
    if settings.backend == "local" and not settings.draws_with_ai:
        yield check_sketches(settings)
    if folder := settings.output_dir or pictures_dir(settings):
        yield check_folder("output folder", "ARTA_OUTPUT_DIR", folder, private=False)


def check_settings(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Which backend they choose and why; a line for each variable that means nothing."""
    names = [setting.name for setting in SETTINGS]
    why = "ARTA_API_KEY is set" if settings.api_key else "no ARTA_API_KEY"
    what = "the remote service" if settings.backend == "arta" else "sketches, no AI pictures"
    if settings.draws_with_ai:
        why = f"ARTA_LOCAL_ENGINE={settings.local_engine}"
        where = f" at {settings.local_url}" if settings.local_url else ""
        what = f"AI pictures by {settings.local_model or 'the model that is loaded'}{where}"
        if settings.local_engine == "diffusers":
            what = f"AI pictures on this machine by {settings.local_model}"
    given = ", ".join(name for name in names if environ.get(name)) or "nothing"
    yield Finding("settings", "ok", f"backend {settings.backend} ({why}): {what}; set: {given}")
    if settings.unused:
        yield Finding("settings", "warn", settings.unused, "remove what is not meant")
    if settings.travels_in_the_clear:
        detail = f"prompts and key travel in the clear to {settings.local_url}"
        yield Finding("engine", "warn", detail, "use https:// where others share the network")
    for name in settings.unknown:
        meant = suggest(name, names, limit=1)
        remedy = f"did you mean {meant[0]}?" if meant else "remove it"
        yield Finding("settings", "warn", f"{name} means nothing here", remedy)


def check_quick_start(settings: Settings, environ: Mapping[str, str]) -> Finding:
    """Whether a host's first questions are answered while the SDK loads, or why not."""
    if not settings.quick_replies:
        return Finding("quick start", "ok", "off (ARTA_QUICK_REPLIES=off)")
    try:
        RecordedReplies.read(settings.drawn_by, find_mark(settings, environ))
    except NoQuickReplies as exc:
        return Finding("quick start", "warn" if exc.hint else "ok", f"off: {exc}", exc.hint)
    return Finding("quick start", "ok", "on")


def check_own_styles(path: Path) -> Finding:
    """Whether a person's file of styles can be used, or in which line it cannot."""
    from arta_mcp.engines.recipes import load_own

    try:
        count = count_of(len(load_own(path)), "style")
    except ConfigError as exc:
        return Finding("styles", "fail", exc.message, exc.hint)
    return Finding("styles", "ok", f"{count} of yours in {path} (ARTA_LOCAL_STYLES)")


async def check_hourly_limit(settings: Settings) -> AsyncGenerator[Finding]:
    """How many pictures hosts may still ask for in this hour."""
    from arta_mcp.app import count_hour, state_dir

    is_there = settings.state_url is not None or state_dir(settings).is_dir()
    used = await count_hour(settings) if is_there else 0
    limit = settings.hourly_limit or 0
    detail = f"hosts have asked for {used} of {limit} pictures of an hour (ARTA_HOURLY_LIMIT)"
    remedy = "until then hosts are told when to ask again" if used >= limit else ""
    yield Finding("hourly limit", "warn" if remedy else "ok", detail, remedy)


def check_sketches(settings: Settings) -> Finding:
    """How much is kept of sketches, and how much may be."""
    from arta_mcp.app import service_dir
    from arta_mcp.local.store import KEEP_RECORDS, measure_sketches

    sizes = measure_sketches(service_dir(settings))
    megabytes = sum(sum(pictures.values()) for pictures in sizes.values()) / 1e6
    limit = f"{KEEP_RECORDS} jobs or {settings.sketch_limit / 1e6:.0f} MB"
    detail = f"{count_of(len(sizes), 'job')}, {megabytes:.0f} MB; beyond {limit} the oldest go"
    return Finding("sketches", "ok", f"{detail} (ARTA_SKETCH_LIMIT)")


async def check_diffusers(settings: Settings) -> AsyncGenerator[Finding]:
    """Whether the extra is installed and the folder a model. Raises ConfigError."""
    from arta_mcp.engines.worker import check_start

    check_start(settings.local_model or "")
    packages = ", ".join(f"{name} {version(name)}" for name in ("diffusers", "torch"))
    device = f"device {settings.local_device}, dtype {settings.local_dtype}"
    fetched = "may be fetched from the hub" if settings.local_download else "nothing is fetched"
    yield Finding("engine", "ok", f"{packages}; {device}; {fetched}")


async def check_account(settings: Settings) -> AsyncGenerator[Finding]:
    """Whether an account is stored, whole, and good for the next call."""
    account, location = await read_account(settings)
    if location is None:
        yield Finding("account", "ok", "none yet; the first picture signs up")
    elif account is None:
        detail = f"{location} is damaged"
        yield Finding("account", "warn", detail, "the next picture signs up anew")
    elif account.is_fresh(time.time()):
        yield Finding("account", "ok", f"stored, good until {format_time(account.expires_at)}")
    else:
        yield Finding("account", "ok", "stored, due for renewal, which the next call does")


async def check_addresses(settings: Settings) -> AsyncGenerator[Finding]:
    """Each host once, and how far our clock is from theirs."""
    from arta_mcp.app import open_transport

    hosts: dict[str, str] = {}
    """origin -> the first setting that leads to it"""
    for name in ("base_url", "auth_url", "token_refresh_url", "styles_url"):
        parts = urlsplit(getattr(settings, name) or "")
        if parts.netloc:
            hosts.setdefault(f"{parts.scheme}://{parts.netloc}", f"ARTA_{name.upper()}")
    skews: list[float] = []
    async with open_transport(settings) as transport:
        for origin, name in hosts.items():
            try:
                yield await check_address(transport, origin, name, skews)
            except ConfigError as exc:
                # Of the proxy or the certificates, so every further address would say the same.
                yield Finding("network", "fail", exc.message, exc.hint)
                return
    if not skews:
        return
    # The worst of them: one service that disagrees is enough to make a fresh token a stale one.
    skew = max(skews, key=abs)
    if abs(skew) <= MAX_SKEW:
        yield Finding("clock", "ok", "agrees with the services to the minute")
    else:
        detail = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the services"
        remedy = "set it, by NTP at best: waits are told as moments"
        yield Finding("clock", "warn", detail, remedy)


async def check_address(transport: Transport, url: str, name: str, skews: list[float]) -> Finding:
    """Whether there is a way to this host: any answer is a good one. Raises ConfigError.

    A `Date` in the answer adds to `skews` the seconds that our clock is ahead of the host's.
    """
    began = time.monotonic()
    try:
        # Without key or token: an address that was mistyped must not learn them.
        with anyio.fail_after(ADDRESS_TIMEOUT):
            answer = await transport.exchange("GET", f"{url}/")
    except ProtocolError:
        # Too long an answer, but one.
        return Finding("address", "ok", f"{url} ({name}) answers")
    except (Unavailable, TimeoutError) as exc:
        slow = f"no answer in {ADDRESS_TIMEOUT:.0f} s"
        why = exc.message if isinstance(exc, ArtaError) else slow
        remedy = f"check the network and its proxy (ARTA_PROXY), then {name}"
        if "certificate" in why.lower():
            remedy = (
                "set the clock; behind a proxy that opens TLS, set SSL_CERT_FILE to its authority"
            )
        # Without the live list of styles the shipped one serves, so a picture can be drawn.
        status = "warn" if name == "ARTA_STYLES_URL" else "fail"
        return Finding("address", status, f"{url} ({name}): {why}", remedy)
    took = time.monotonic() - began
    # Without a date, or with one that cannot be read, the clocks are not compared.
    with suppress(ValueError):
        theirs = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
        # The answer was written about half of the way ago.
        skews.append(time.time() - took / 2 - theirs)
    detail = f"{url} ({name}) answers GET / with {answer.status} in {took:.2f} s"
    return Finding("address", "ok", detail)


async def check_service(settings: Settings, *, draw: bool) -> AsyncGenerator[Finding]:
    """Styles, and whether their list is old; a real picture, by the code that every call runs."""
    from arta_mcp.app import open_generations

    warnings: list[str] = []
    async with open_generations(settings, warn=warnings.append, resume=False) as generations:
        catalogue = await generations.catalogue()
        origin = "as the service lists them" if catalogue.source == "live" else "as shipped"
        detail = f"{count_of(len(catalogue.styles), 'model')}, {origin}, {catalogue.as_of}"
        # A live list has a time of day behind the date.
        age = (date.today() - date.fromisoformat(catalogue.as_of[:10])).days
        if settings.backend == "arta" and catalogue.source != "live" and age > MAX_LIST_AGE:
            remedy = f"the list has {age} days: get a newer arta-mcp, or set ARTA_STYLES_URL"
            yield Finding("styles", "warn", detail, remedy)
        else:
            yield Finding("styles", "ok", detail)
        if draw:
            async for finding in guard("picture", check_picture(settings, generations)):
                yield finding
    for warning in warnings:
        yield Finding("state folder", "warn", warning, "nothing more to do; it begins anew")


async def check_picture(settings: Settings, generations: Generations) -> AsyncGenerator[Finding]:
    """One real picture, opened. Raises ArtaError."""
    if settings.backend == "arta":
        print_message("note: one picture is ordered now, with your key; --no-picture orders none")
    request = GenerationRequest.of(prompt="a sailing boat at night, a test by arta-mcp doctor")
    wait = min(settings.job_timeout, PICTURE_TIMEOUT)
    generation = await generations.generate(request, max_wait=wait)
    record_id = generation.record_id or ""
    if generation.status != "done":
        detail = f"still being drawn after {wait:.0f} s, record id {record_id}"
        remedy = f"the service is slow; `arta-mcp get {record_id}` looks later"
        yield Finding("picture", "warn", detail, remedy)
        return
    # As a host would get it, and opened: bytes that are no picture are no success.
    content = (await generations.picture(record_id, 0)).content
    width, height = (await run_in_turn(partial(decode, content))).size
    took = f"{generation.elapsed:.1f} s"
    yield Finding("picture", "ok", f"{width}x{height}, drawn in {took}, record id {record_id}")
