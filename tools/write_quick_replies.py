"""Writes src/arta_mcp/quick_replies.json: what the SDK answers to a host's first questions.

`python tools/write_quick_replies.py` asks the real server, as a process with its front desk off,
and keeps its replies; with `--check` it only tells whether the file is what it would write.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from arta_mcp import quick_replies as frontdesk

PACKAGES = {"mcp": "mcp", "mcp_types": "mcp-types", "pydantic": "pydantic"}
"""the packages that decide the answers, by import name; the last makes the tools' schemas"""

ASIDE = {
    *("background", "errors", "files", "matching", "redaction", "untrusted_json"),
    *("arta/account", "arta/client", "arta/refusals", "arta/tokens", "arta/transport"),
    *("generations/service", "generations/downloads"),
}
"""modules under the server that run in calls and put nothing into any of these answers"""

ASKED = (
    "server/discover",
    "ping",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
)

UNKNOWN = "1999-12-31"
"""a protocol version that nobody serves"""

CLIENT = {"name": "host", "version": "1"}

Replies = dict[str, str]


def main(arguments: list[str]) -> int:
    text = generate(ask_all())
    if "--check" not in arguments:
        frontdesk.FILE.write_text(text, encoding="utf-8")
        print(f"wrote {frontdesk.FILE}")
        return 0
    if frontdesk.FILE.exists() and frontdesk.FILE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{frontdesk.FILE} is stale; run `make quick-replies`", file=sys.stderr)
    return 1


def generate(live: Mapping[str, Replies]) -> str:
    """The file's text, from live replies by revision."""
    replies: list[object] = []
    answers: dict[str, dict[str, int]] = {}
    for revision in (*HANDSHAKE_PROTOCOL_VERSIONS, *MODERN_PROTOCOL_VERSIONS):
        row = answers[revision] = {}
        for method, line in live[revision].items():
            reply = behind_id(line)
            if reply not in replies:
                replies.append(reply)
            row[method] = replies.index(reply)
    files = sorted(sources())
    file = {
        "packages": {name: version(package) for name, package in PACKAGES.items()},
        "sources": {"crc32": frontdesk.fingerprint(files), "files": files},
        "handshake": HANDSHAKE_PROTOCOL_VERSIONS,
        "modern": MODERN_PROTOCOL_VERSIONS,
        "counter_offer": json.loads(live[UNKNOWN]["initialize"])["result"]["protocolVersion"],
        "answers": answers,
        "replies": replies,
    }
    return json.dumps(file, indent=1, ensure_ascii=False) + "\n"


def behind_id(line: str) -> object:
    """The reply without envelope and id, once it is sure that the desk will say the same bytes."""
    message = json.loads(line)
    named = {"jsonrpc": message.pop("jsonrpc"), "id": message.pop("id"), **message}
    if json.dumps(named, ensure_ascii=False, separators=(",", ":")) != line:
        raise SystemExit(f"the desk cannot say this as the SDK does: {line}")
    return message


def ask_all() -> dict[str, Replies]:
    """What the server says live to each revision and to an unknown one; one process for each."""
    openings = {
        revision: [handshake(revision), *plain()]
        for revision in (*HANDSHAKE_PROTOCOL_VERSIONS, UNKNOWN)
    } | {revision: enveloped(revision) for revision in MODERN_PROTOCOL_VERSIONS}
    talks = {revision: Talk(lines) for revision, lines in openings.items()}
    return {revision: talk.replies() for revision, talk in talks.items()}


class Talk:
    """One server process that is told some requests and asked nothing more."""

    def __init__(self, requests: list[dict[str, object]], **settings: str) -> None:
        self._methods = [str(request["method"]) for request in requests]
        self._process = start(ARTA_FRONT_DESK="off", **settings)
        assert self._process.stdin is not None
        for number, request in enumerate(requests):
            line = json.dumps({"jsonrpc": "2.0", "id": number, **request})
            self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def replies(self) -> Replies:
        """Whole lines by method."""
        assert self._process.stdout is not None
        with self._process:
            lines = [self._process.stdout.readline().rstrip("\n") for _ in self._methods]
        by_number = {json.loads(line)["id"]: line for line in lines}
        return {method: by_number[number] for number, method in enumerate(self._methods)}


def start(**settings: str) -> subprocess.Popen[str]:
    """A server that has only these settings."""
    return subprocess.Popen(
        [sys.executable, "-m", "arta_mcp"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=without_settings(os.environ) | settings,
    )


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith("ARTA_")}


def handshake(revision: str) -> dict[str, object]:
    params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": CLIENT}
    return {"method": "initialize", "params": params}


def plain() -> list[dict[str, object]]:
    return [{"method": method} for method in ASKED]


def enveloped(revision: str) -> list[dict[str, object]]:
    meta = {
        frontdesk.PROTOCOL_VERSION: revision,
        frontdesk.CLIENT_CAPABILITIES: {},
        frontdesk.CLIENT_INFO: CLIENT,
    }
    return [{"method": method, "params": {"_meta": meta}} for method in ASKED]


def sources() -> set[str]:
    """The files of the package that decide the answers: what the server imports, less `ASIDE`."""
    found, rest = {"__init__.py"}, ["server/build"]
    while rest:
        name = rest.pop()
        file = f"{name}.py" if (frontdesk.HERE / f"{name}.py").exists() else f"{name}/__init__.py"
        if name not in ASIDE and file not in found and (frontdesk.HERE / file).exists():
            found.add(file)
            rest += imports(frontdesk.HERE / file)
    return found


def imports(file: Path) -> Iterator[str]:
    """The modules of this package that a file imports, and names that may be modules."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        package, _, module = str(node.module).replace(".", "/").partition("/")
        if package == "arta_mcp":
            yield from [module, *(f"{module}/{alias.name}".strip("/") for alias in node.names)]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
