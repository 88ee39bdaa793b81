"""Writes src/arta_mcp/quick_replies.json: what the SDK replies to a host's first questions.

`python tools/write_quick_replies.py` asks the real server, as a process without quick replies, and
records its replies; with `--check` it only says whether the file is what it would write.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from importlib import metadata
from pathlib import Path

from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from arta_mcp import quick_replies

PACKAGES = {"mcp": "mcp", "mcp_types": "mcp-types", "pydantic": "pydantic"}
"""the packages that decide the replies, by import name; the last makes the tools' schemas"""

ASIDE = {
    "arta.refusals",
    "errors",
    "generations.service",
    "matching",
    "redaction",
    "untrusted_json",
}
"""modules under the server that run in calls and put nothing into any of these replies; what they
import is aside with them"""

METHODS = (
    "server/discover",
    "ping",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
)

UNKNOWN_VERSION = "1999-12-31"
"""a protocol version that no server supports"""

CLIENT = {"name": "host", "version": "1"}

Request = dict[str, object]
"""method and params"""

Replies = dict[str, str]
"""method -> the whole line, without its end"""


def main(arguments: list[str]) -> int:
    text = generate(record_replies())
    file = quick_replies.REPLIES_FILE
    if "--check" not in arguments:
        file.write_text(text, encoding="utf-8")
        print(f"wrote {file}")
        return 0
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return 0
    print(f"{file} is stale; run `make quick-replies`", file=sys.stderr)
    return 1


def generate(live: Mapping[str, Replies]) -> str:
    """The file's text, from live replies by protocol version."""
    replies: list[object] = []
    index: dict[str, dict[str, int]] = {}
    for version in (*HANDSHAKE_PROTOCOL_VERSIONS, *MODERN_PROTOCOL_VERSIONS):
        row = index[version] = {}
        for method, line in live[version].items():
            reply = reply_without_id(line)
            if reply not in replies:
                replies.append(reply)
            row[method] = replies.index(reply)
    files = find_sources()
    file = {
        "packages": {name: metadata.version(package) for name, package in PACKAGES.items()},
        "sources": {"crc32": quick_replies.fingerprint(files), "files": files},
        "handshake": HANDSHAKE_PROTOCOL_VERSIONS,
        "modern": MODERN_PROTOCOL_VERSIONS,
        "counter_offer": json.loads(live[UNKNOWN_VERSION]["initialize"])["result"][
            "protocolVersion"
        ],
        "index": index,
        "replies": replies,
    }
    return json.dumps(file, indent=1, ensure_ascii=False) + "\n"


def reply_without_id(line: str) -> object:
    """The result or error of a reply, once it is sure that it will be sent as the same bytes."""
    message = json.loads(line)
    named = {"jsonrpc": message.pop("jsonrpc"), "id": message.pop("id"), **message}
    if json.dumps(named, ensure_ascii=False, separators=(",", ":")) != line:
        raise SystemExit(f"a quick reply would not be written as the SDK does it: {line}")
    return message


def record_replies() -> dict[str, Replies]:
    """What the server replies live in each version and in an unknown one; a process for each."""
    versions = (*HANDSHAKE_PROTOCOL_VERSIONS, UNKNOWN_VERSION, *MODERN_PROTOCOL_VERSIONS)
    servers = {version: LiveServer(opening_requests(version)) for version in versions}
    return {version: server.read_replies() for version, server in servers.items()}


def opening_requests(version: str) -> list[Request]:
    """All that is recorded for a version, as its hosts ask it."""
    if version in MODERN_PROTOCOL_VERSIONS:
        meta = {
            quick_replies.PROTOCOL_VERSION: version,
            quick_replies.CLIENT_CAPABILITIES: {},
            quick_replies.CLIENT_INFO: CLIENT,
        }
        return [{"method": method, "params": {"_meta": meta}} for method in METHODS]
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": CLIENT}
    return [
        {"method": "initialize", "params": params},
        *({"method": method} for method in METHODS),
    ]


class LiveServer:
    """One server process without quick replies, which has some requests to reply to."""

    def __init__(self, requests: list[Request], **settings: str) -> None:
        """These are the only settings that it has."""
        self._methods = [str(request["method"]) for request in requests]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "arta_mcp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=without_settings(os.environ) | {"ARTA_FRONT_DESK": "off", **settings},
        )
        assert self._process.stdin is not None
        for number, request in enumerate(requests):
            line = json.dumps({"jsonrpc": "2.0", "id": number, **request})
            self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def read_replies(self) -> Replies:
        """The replies to all requests; ends the process."""
        assert self._process.stdout is not None
        with self._process:
            lines = [self._process.stdout.readline().rstrip("\n") for _ in self._methods]
        by_number = {json.loads(line)["id"]: line for line in lines}
        return {method: by_number[number] for number, method in enumerate(self._methods)}


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment as it is where nobody has set up arta-mcp."""
    return {name: value for name, value in environ.items() if not name.startswith("ARTA_")}


def find_sources(aside: Set[str] = ASIDE) -> list[str]:
    """The files of the package that decide the replies, sorted.

    They are those of the server room and what these import, and so on, less what is aside.
    """
    left_out = {file for name in aside for file in module_files(name)}
    found: set[Path] = set()
    # From the whole room, not from one file: no file that registers something with the server is
    # left out, whoever imports it.
    rest = sorted((quick_replies.PACKAGE_DIR / "server").glob("*.py"))
    while rest:
        file = rest.pop()
        if file not in found | left_out:
            found.add(file)
            rest += imported_files(file)
    return sorted(file.relative_to(quick_replies.PACKAGE_DIR).as_posix() for file in found)


def imported_files(file: Path) -> Iterator[Path]:
    """The files of this package that a file imports, inside functions and for checkers too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            package, _, module = str(node.module).partition(".")
            names = [module, *(f"{module}.{alias.name}".lstrip(".") for alias in node.names)]
            if package == "arta_mcp":
                yield from (found for name in names for found in module_files(name))


def module_files(name: str) -> Iterator[Path]:
    """The file of a module, by its name below the package; none when it is no module of ours."""
    path = quick_replies.PACKAGE_DIR / name.replace(".", "/")
    yield from (file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
