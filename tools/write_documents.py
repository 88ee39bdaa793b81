"""Writes what documents repeat from code: the README's settings table and server.json.

`python tools/write_documents.py` rewrites both; tests/test_documents.py fails when they are stale.
"""

from __future__ import annotations

import json
from pathlib import Path

from arta_mcp import __version__
from arta_mcp.config import SETTINGS, Setting

ROOT = Path(__file__).parent.parent
BEGIN = "<!-- settings: begin (checked by tests/test_documents.py) -->\n"
END = "<!-- settings: end -->"
NAME = "io.github.arta-mcp/arta-mcp"


def settings_table() -> str:
    rows = ["| name | default | meaning |", "|---|---|---|", *map(_row, SETTINGS)]
    return "\n".join(rows) + "\n"


def server_json() -> str:
    server = {
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": NAME,
        "title": "ARTA image generation",
        "description": "Draws pictures from text, through the ARTA API or offline, with progress.",
        "version": __version__,
        "websiteUrl": "https://github.com/arta-mcp/arta-mcp",
        "packages": [
            {
                "registryType": "pypi",
                "identifier": "arta-mcp",
                "version": __version__,
                "runtimeHint": "uvx",
                "transport": {"type": "stdio"},
                "environmentVariables": [_variable(setting) for setting in SETTINGS],
            }
        ],
    }
    return json.dumps(server, indent=2, ensure_ascii=False) + "\n"


def readme(text: str) -> str:
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{settings_table()}{END}{tail}"


def _row(setting: Setting) -> str:
    default = f"`{setting.default}`" if setting.default else "none"
    secret = " (secret)" if setting.secret else ""
    return f"| `{setting.name}` | {default} | {setting.description}{secret} |"


def _variable(setting: Setting) -> dict[str, object]:
    entry: dict[str, object] = {
        "name": setting.name,
        "description": setting.description.replace("`", ""),
        "isRequired": False,
        "isSecret": setting.secret,
    }
    if setting.default:
        entry["default"] = setting.default
    if setting.choices:
        entry["choices"] = list(setting.choices)
    return entry


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(readme(path.read_text(encoding="utf-8")), encoding="utf-8")
    (ROOT / "server.json").write_text(server_json(), encoding="utf-8")
