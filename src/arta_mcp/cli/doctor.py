"""The doctor: tries everything that a picture needs, and says what to do about what is wrong."""

from __future__ import annotations

import argparse
import io
import json
import platform
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import anyio

from arta_mcp import __version__
from arta_mcp.cli import entry as cli
from arta_mcp.cli.progress import counted, folded, mark, moment
from arta_mcp.config import SETTINGS, Settings
from arta_mcp.errors import ArtaError, ConfigError, ProtocolError, Unavailable
from arta_mcp.generations.values import GenerationRequest

if TYPE_CHECKING:
    from arta_mcp.arta.transport import Transport
    from arta_mcp.cli.generate import Words

PROMPT = "a sailing boat at night, a test by arta-mcp doctor"

PICTURE_PATIENCE = 120.0
"""seconds for the real generation"""

ADDRESS_PATIENCE = 15.0
"""seconds for one address"""

MOST_SKEW = 60.0
"""seconds that our clock may differ from that of a service"""

OLD_LIST = 180
"""days after which the shipped list of styles is called old"""


INDENT = 20
"""columns before what a finding says"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was tried, how it stands, and what to do about it."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


def add_doctor(words: Words) -> None:
    parser = words.add_parser(
        "doctor",
        help="try everything that a picture needs, and say what to do about what is wrong",
        description="Looks at settings, state folder and account, asks each remote address for /"
        " (without key or token), and draws one real picture. Exit code 1 when something fails.",
    )
    parser.add_argument("--no-picture", action="store_true", help="order no picture")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run_without_settings=doctor)


def doctor(options: argparse.Namespace) -> int:
    findings: list[Finding] = []

    async def examine() -> None:
        async for finding in _examine(options.environ, draw=not options.no_picture):
            findings.append(finding)
            if not options.json:
                _print(finding, options.environ)

    anyio.run(examine)
    failed = sum(finding.status == "fail" for finding in findings)
    if options.json:
        listed = [asdict(finding) for finding in findings]
        cli.data(json.dumps({"ok": not failed, "findings": listed}, ensure_ascii=False))
    else:
        warned = sum(finding.status == "warn" for finding in findings)
        cli.talk(f"{counted(len(findings), 'line')}: {failed} fail, {warned} warn")
    return cli.FAILED if failed else cli.OK


def _print(finding: Finding, environ: Mapping[str, str]) -> None:
    first, *more = folded(finding.detail, indent=INDENT)
    cli.data(f"{mark(finding.status, environ)}  {finding.name:<{INDENT - 6}}{first}")
    if finding.remedy:
        more += folded(f"-> {cli.as_commands(finding.remedy)}", indent=INDENT)
    for line in more:
        cli.data(f"{'':<{INDENT}}{line}")


async def _examine(environ: Mapping[str, str], *, draw: bool) -> AsyncGenerator[Finding]:
    """Everything in the order in which a picture needs it; stops where nothing further can work."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("mcp", "httpx", "pydantic"))
    yield Finding(
        "program", "ok", f"arta-mcp {__version__}, Python {platform.python_version()}, {packages}"
    )
    try:
        settings = Settings.from_env(environ)
    except ConfigError as exc:
        yield Finding("settings", "fail", exc.message, exc.hint)
        return
    for finding in _settings(settings, environ):
        yield finding
    can_store = True
    async for finding in _state(settings):
        if finding.name == "state folder":
            can_store = finding.status != "fail"
        yield finding
    if can_store:
        yield await _account(settings)
    can_reach = True
    if settings.backend == "arta":
        async for finding in _addresses(settings):
            can_reach = can_reach and finding.status != "fail"
            yield finding
    if not can_store or not can_reach:
        yield Finding("picture", "warn", "not tried: it would fail for the reason above")
        return
    async for finding in _service(settings, draw=draw):
        yield finding


def _settings(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    from arta_mcp.matching import suggest

    why = "ARTA_API_KEY is set" if settings.api_key else "no ARTA_API_KEY"
    what = "the remote service" if settings.backend == "arta" else "sketches, no AI pictures"
    given = [setting.name for setting in SETTINGS if environ.get(setting.name)]
    yield Finding(
        "settings",
        "ok",
        f"backend {settings.backend} ({why}): {what}; set: {', '.join(given) or 'nothing'}",
    )
    for name in settings.unknown:
        meant = suggest(name, [setting.name for setting in SETTINGS], limit=1)
        remedy = f"did you mean {meant[0]}?" if meant else "remove it"
        yield Finding("settings", "warn", f"{name} means nothing here", remedy)


async def _state(settings: Settings) -> AsyncGenerator[Finding]:
    """Looks and changes nothing."""
    from arta_mcp.app import open_state
    from arta_mcp.state.checks import check_folder

    state = open_state(settings)
    checks = (await state.describe(settings.account_name)).checks
    if settings.output_dir is not None:
        output = check_folder(
            "output folder", "ARTA_OUTPUT_DIR", settings.output_dir, private=False
        )
        checks = (*checks, output)
    for check in checks:
        yield Finding(check.name, check.status, check.detail, check.remedy)


async def _account(settings: Settings) -> Finding:
    from arta_mcp.cli.account import stored_account

    stored, location = await stored_account(settings)
    if location is None:
        return Finding("account", "ok", "none yet; the first picture signs up")
    if stored is None:
        detail = f"{location} is damaged"
        return Finding("account", "warn", detail, "the next picture signs up anew")
    until = moment(stored.expires_at)
    fresh = stored.is_fresh(time.time())
    state = f"good until {until}" if fresh else "due for renewal, which the next call does"
    return Finding("account", "ok", f"stored, {state}")


async def _addresses(settings: Settings) -> AsyncGenerator[Finding]:
    """Each host once, and how far our clock is from theirs."""
    from arta_mcp.app import open_transport

    hosts: dict[str, str] = {}
    for name, address in (
        ("ARTA_BASE_URL", settings.base_url),
        ("ARTA_AUTH_URL", settings.auth_url),
        ("ARTA_TOKEN_REFRESH_URL", settings.token_refresh_url),
        ("ARTA_STYLES_URL", settings.styles_url),
    ):
        if address:
            parts = urlsplit(address)
            hosts.setdefault(f"{parts.scheme}://{parts.netloc}", name)
    skews: list[float] = []
    async with open_transport(settings) as transport:
        for origin, name in hosts.items():
            try:
                yield await _address(transport, origin, name, skews)
            except ConfigError as exc:  # holds for every address alike
                yield Finding("network", "fail", exc.message, exc.hint)
                return
    if skews:
        yield _clock(max(skews, key=abs))


async def _address(transport: Transport, origin: str, name: str, skews: list[float]) -> Finding:
    """Any answer is a good one: the question is whether there is a way to this host."""
    began = time.monotonic()
    try:
        with anyio.fail_after(ADDRESS_PATIENCE):
            answer = await transport.exchange("GET", f"{origin}/")
    except ProtocolError:  # too long an answer is one
        return Finding("address", "ok", f"{origin} ({name}) answers")
    except (Unavailable, TimeoutError) as exc:
        slow = f"no answer in {ADDRESS_PATIENCE:.0f} s"
        why = exc.message if isinstance(exc, ArtaError) else slow
        # without the live list the shipped one serves
        status = "warn" if name == "ARTA_STYLES_URL" else "fail"
        return Finding("address", status, f"{origin} ({name}): {why}", _way_out(why, name))
    took = time.monotonic() - began
    if (theirs := _moment_of(answer.headers.get("date", ""))) is not None:
        skews.append(time.time() - took / 2 - theirs)
    return Finding(
        "address",
        "ok",
        f"{origin} ({name}) answers GET / with {answer.status} in {took:.2f} s",
    )


def _way_out(why: str, name: str) -> str:
    if "certificate" in why.lower():
        return "set the clock; behind a proxy that opens TLS, set SSL_CERT_FILE to its authority"
    return f"check the network and its proxy (ARTA_PROXY), then {name}"


def _moment_of(header: str) -> float | None:
    try:
        return parsedate_to_datetime(header).timestamp()
    except ValueError:
        return None


def _clock(skew: float) -> Finding:
    if abs(skew) <= MOST_SKEW:
        return Finding("clock", "ok", "agrees with the services to the minute")
    way = "ahead of" if skew > 0 else "behind"
    detail = f"{abs(skew):.0f} s {way} the services"
    return Finding("clock", "warn", detail, "set it, by NTP at best: waits are told as moments")


async def _service(settings: Settings, *, draw: bool) -> AsyncGenerator[Finding]:
    """Styles and a real picture, by the same code that every call runs."""
    from arta_mcp.app import open_generations

    notes: list[str] = []
    async with open_generations(settings, warn=notes.append) as generations:
        catalogue = await generations.catalogue()
        age = (date.today() - date.fromisoformat(catalogue.as_of[:10])).days
        origin = "as the service lists them" if catalogue.source == "live" else "as shipped"
        is_old = settings.backend == "arta" and catalogue.source != "live" and age > OLD_LIST
        yield Finding(
            "styles",
            "warn" if is_old else "ok",
            f"{counted(len(catalogue.styles), 'model')}, {origin}, {catalogue.as_of}",
            f"the list has {age} days: get a newer arta-mcp, or set ARTA_STYLES_URL"
            if is_old
            else "",
        )
        if draw:
            request = GenerationRequest.of(prompt=PROMPT)
            try:
                wait = min(settings.job_timeout, PICTURE_PATIENCE)
                generation = await generations.generate(request, max_wait=wait)
                record_id = generation.record_id or ""
                if generation.status == "done":
                    picture = await generations.picture(record_id, 0)
                    size = await anyio.to_thread.run_sync(_size, picture.content)
                    detail = f"{size}, drawn in {generation.elapsed:.1f} s, record id {record_id}"
                    yield Finding("picture", "ok", detail)
                else:
                    detail = f"still being drawn after {wait:.0f} s, record id {record_id}"
                    remedy = f"the service is slow; `arta-mcp get {record_id}` looks later"
                    yield Finding("picture", "warn", detail, remedy)
            except ArtaError as exc:
                yield Finding("picture", "fail", exc.message, exc.hint)
    for note in notes:
        yield Finding("state folder", "warn", note)


def _size(content: bytes) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        return f"{picture.width}x{picture.height}"
