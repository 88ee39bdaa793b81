"""Writes the tables of docs/performance.md and docs/scaling.md from benchmarks/results.

`python tools/write_performance.py`. Each file of results has its place in a document, between
two marks; what stands there is from one run and says of when. `make bench` calls this at its end,
and tests/test_documents.py fails when a document and the results differ.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "docs" / "performance.md", ROOT / "docs" / "scaling.md")
PLACE = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(document: str) -> str:
    """The document with every place filled from its file of results."""

    def fill(place: re.Match[str]) -> str:
        return f"{place[1]}{_section(place[2])}{place[3]}"

    return PLACE.sub(fill, document)


def _section(name: str) -> str:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return f"Not run yet: `python benchmarks/{name}.py`.\n"
    found = json.loads(path.read_bytes())
    before, after = found["load"]
    lines = [
        f"`python benchmarks/{name}.py`, {found['date']} UTC, commit {found['commit']}, Python"
        f" {found['python']}, {found['machine']}, load {before} before and {after} after.",
    ]
    for table in found["tables"]:
        lines += ["", f"{table['title']}:", "", *_table(table["head"], table["rows"])]
    budgets = [[b["what"], f"{b['found']:g}", f"{b['most']:g}", _word(b)] for b in found["budgets"]]
    lines += ["", *_table(["budget", "found", "at most", ""], budgets)]
    return "\n".join(lines) + "\n"


def _word(budget: dict[str, Any]) -> str:
    return "**missed**" if budget["found"] > budget["most"] else "kept"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
