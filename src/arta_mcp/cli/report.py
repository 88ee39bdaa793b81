"""What a bug report needs of a machine, as Markdown to paste, without secrets or a home's name."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from arta_mcp import __version__
from arta_mcp.cli.console import print_data, print_message
from arta_mcp.config import SETTINGS, Setting
from arta_mcp.errors import ConfigError
from arta_mcp.redaction import sanitize
from arta_mcp.state.records import StateCheck

MAX_CELL = 4000
"""characters of one cell"""


def print_report(findings: Sequence[StateCheck], environ: Mapping[str, str]) -> None:
    """The report of these findings of the doctor: a table of what is here, one of what it says."""
    implementation = f"{platform.python_implementation()} {platform.python_version()}"
    rows = {
        "arta-mcp": f"{__version__}, started as {sys.argv[0]}",
        "Python": f"{implementation}, {sys.executable}",
        "system": f"{platform.platform()}, {platform.machine()}",
        "packages": ", ".join(list_packages()),
        "settings": ", ".join(list_settings(environ)) or "none",
    }
    print_table("what", "is", rows.items())
    print_data("")
    print_table("check", "says", ((one.name, describe(one)) for one in findings))
    print_message("note: no key, token or prompt is in it; read it before you post it")


def describe(finding: StateCheck) -> str:
    """One finding in one cell."""
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    return f"{finding.status}: {finding.detail}{remedy}"


def list_packages() -> Iterator[str]:
    """What we depend on directly, and what is here of the extras, in the installed version."""
    for requirement in requires("arta-mcp") or []:
        (name,) = re.findall(r"^[\w.-]+", requirement)
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            if "extra ==" not in requirement:
                yield f"{name} (missing)"


def list_settings(environ: Mapping[str, str]) -> Iterator[str]:
    """Each variable that is set, with its value where that is right and can be no secret."""
    for setting in SETTINGS:
        if environ.get(setting.name):
            yield f"{setting.name}{show_value(setting, environ)}"


def show_value(setting: Setting, environ: Mapping[str, str]) -> str:
    """The value behind an equals sign, or in brackets why it is not shown."""
    if setting.secret:
        return " (set)"
    try:
        setting.read(environ)
    except ConfigError:
        return " (wrong)"  # which may be a password in an address
    return f"={environ[setting.name]}"


def print_table(left: str, right: str, rows: Iterable[tuple[str, str]]) -> None:
    """A table of Markdown; `~` stands for the home folder, whose name is a person's."""
    home = str(Path.home())
    print_data(f"| {left} | {right} |\n|---|---|")
    for name, text in rows:
        shown = sanitize(text, MAX_CELL).replace(home, "~").replace("|", "\\|")
        print_data(f"| {name} | {shown} |")
