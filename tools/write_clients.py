"""Writes the tables of docs/clients.md.

`python tools/write_clients.py` writes them from `tests/interop/results.json`, which `make
interop-all` leaves, and from `tests/interop/clients.toml`, which is written by hand;
tests/test_documents.py fails when the page is stale.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "clients.md"
INTEROP = ROOT / "tests" / "interop"

sys.path.insert(0, str(ROOT / "tests"))

from harness.clients import pinned  # noqa: E402  # it stands in the folder that was just added

PREVIEWS = {"picture": "a picture", "base64 as text": "base64 in the text", "nothing": "nothing"}


def clients_page(text: str) -> str:
    """The page with its tables as the data files have them."""
    facts: dict[str, Any] = tomllib.loads((INTEROP / "clients.toml").read_text(encoding="utf-8"))
    results: dict[str, Any] = json.loads((INTEROP / "results.json").read_text(encoding="utf-8"))
    clients = [(name, known, results[name]) for name, known in facts["clients"].items()]
    tables = {
        "hosts": _table(
            "host, introduces itself as, the model sees, the person sees, gives a call up after"
            ", evidence",
            (
                (
                    host["title"],
                    f"`{host['introduced_as']}`" if "introduced_as" in host else "",
                    *(host.get(key, "") for key in ("sees", "person", "limit", "evidence")),
                )
                for host in facts["hosts"]
            ),
        ),
        "reading": _table(
            "client, package, introduces itself as, protocol, bounds and choices as keywords"
            ", the model sees of a result, and of a preview",
            (
                (
                    known["title"],
                    f"{known['package']} {_version(name, known['package'])}",
                    known.get("introduced_as", f"`{run['introduced_as']}`"),
                    run["protocol"],
                    _keywords(run),
                    known.get("sees", " and ".join(run["sees"])),
                    known.get("preview", PREVIEWS[run["preview"]]),
                )
                for name, known, run in clients
            ),
        ),
        "limits": _table(
            "client, gives a call up after, set by, how that shows on the wire, picture of 15 s"
            ", longer picture, tried",
            (
                (
                    known["title"],
                    known["limit"],
                    known["setting"],
                    _cuts(run),
                    _count(run),
                    f"{longer['draw']:.0f} s: {_count(longer)}"
                    if (longer := run.get("longer"))
                    else "",
                    f"{run['date']}, {run['commit']}",
                )
                for _, known, run in clients
            ),
        ),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        text = f"{head}{begin}{table}{end}{tail}"
    return text


def _table(heads: str, rows: Iterable[tuple[str, ...]]) -> str:
    names = heads.split(", ")
    lines = [f"| {' | '.join(row)} |" for row in (names, *rows)]
    lines.insert(1, "|---" * len(names) + "|")
    return "\n".join(re.sub(r" {2,}", " ", line) for line in lines) + "\n"


def _version(name: str, package: str) -> str:
    return pinned(name, package) or f"({package} is not pinned)"


def _keywords(run: dict[str, Any]) -> str:
    match run["keeps"]:
        case ["enum", "maximum"]:
            kept = "kept"
        case ["enum"]:
            kept = "choices kept, bounds dropped"
        case ["maximum"]:
            kept = "bounds kept, choices dropped"
        case _:
            kept = "dropped"
    return f"{kept}; every argument required" if run["strict"] else kept


def _count(run: dict[str, Any]) -> str:
    calls = "1 call" if run["calls"] == 1 else f"{run['calls']} calls"
    jobs = "1 job" if run["jobs"] == 1 else f"{run['jobs']} jobs"
    return f"{calls}, {jobs}, {run['seconds']} s"


def _cuts(run: dict[str, Any]) -> str:
    cuts = run["cuts"] or run.get("longer", {}).get("cuts", [])
    if not cuts:
        return ""
    return f"at {cuts[0]['after']:.0f} s: {cuts[0]['how']}"


if __name__ == "__main__":
    PAGE.write_text(clients_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
