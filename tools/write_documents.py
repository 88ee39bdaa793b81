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


def server_json(bundle_sha256: str | None = None, container: str | None = None) -> str:
    """What the registry of servers is told: the package, and of bundle and container what exists.

    `bundle_sha256` is that of the bundle which the release of this version holds, `container` the
    whole name of a pushed image, with its tag.
    """
    source = "https://github.com/arta-mcp/arta-mcp"
    stdio = {"type": "stdio"}
    variables = [_variable(setting) for setting in SETTINGS]
    packages: list[dict[str, object]] = [
        {
            "registryType": "pypi",
            "identifier": "arta-mcp",
            "version": __version__,
            "runtimeHint": "uvx",
            "transport": stdio,
            "environmentVariables": variables,
        }
    ]
    if bundle_sha256:
        address = f"{source}/releases/download/v{__version__}/arta-mcp-{__version__}.mcpb"
        packages.append(
            {
                "registryType": "mcpb",
                "identifier": address,
                "fileSha256": bundle_sha256,
                "transport": stdio,
            }
        )
    if container:
        packages.append(
            {
                "registryType": "oci",
                "identifier": container,
                "runtimeHint": "docker",
                "transport": stdio,
                "environmentVariables": variables,
            }
        )
    server = {
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": NAME,
        "title": "ARTA image generation",
        "description": "Draws pictures from text, through the ARTA API or offline, with progress.",
        "version": __version__,
        "repository": {"url": source, "source": "github"},
        "websiteUrl": "https://arta-mcp.github.io/arta-mcp/",
        "packages": packages,
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
