"""Writes src/arta_mcp/quick_replies.json: what the SDK replies to a host's first questions.

`python tools/write_quick_replies.py` asks the real server, in this process and without quick
replies, and records its replies; with `--check` it says whether a source has changed since then,
and with `--check-all` whether the file is what it would write with the packages that are installed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata

import anyio
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from arta_mcp import quick_replies
from arta_mcp.app import open_generations
from arta_mcp.config import DrawnBy, Settings
from arta_mcp.server.build import build_server
from arta_mcp.server.wire import serve_connection

SETS: Mapping[DrawnBy, Mapping[str, str]] = {
    "remote": {"ARTA_API_KEY": "a-key-for-a-recording"},
    "sketch": {},
    "engine": {"ARTA_LOCAL_ENGINE": "openai", "ARTA_LOCAL_URL": "http://127.0.0.1:1"},
}
"""each set of replies, and settings of a server that gives them"""

SOURCES = (
    *("__init__.py", "arta/protocol.py", "generations/values.py", "styles.py"),
    *(
        f"server/{name}.py"
        for name in (
            *("arguments", "build", "calls", "completions", "content", "notifications", "prompts"),
            *("resources", "sdk", "tools"),
        )
    ),
)
"""the files of the package with words or values that stand in a reply, or that decide which
methods there are; tests/test_quick_replies.py looks for each word of each reply in them"""

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
    file = quick_replies.REPLIES_FILE
    found = file.read_text(encoding="utf-8") if file.exists() else "{}"
    if "--check" in arguments:
        changed = find_changes(json.loads(found))
        if changed:
            names = ", ".join(f"src/arta_mcp/{name}" for name in changed)
            print(f"{file.name} is stale, for {names} changed:", file=sys.stderr)
            print("    run `make quick-replies` and commit what it writes", file=sys.stderr)
        return int(bool(changed))
    text = generate(record_replies())
    if "--check-all" in arguments:
        if found != text:
            print(f"{file.name} is not what these packages reply", file=sys.stderr)
        return int(found != text)
    file.write_text(text, encoding="utf-8")
    print(f"wrote {file}")
    return 0


def find_changes(file: Mapping[str, object]) -> list[str]:
    """The sources that changed, came or went since the file was recorded."""
    known: object = file.get("sources")
    recorded: dict[str, int] = known if isinstance(known, dict) else {}  # pyright: ignore[reportUnknownVariableType]  # JSON
    now = {name: quick_replies.fingerprint(name) for name in SOURCES}
    return sorted(name for name in {*recorded, *now} if recorded.get(name) != now.get(name))


def generate(live: Mapping[str, Mapping[str, Replies]]) -> str:
    """The file's text, from live replies by set and protocol version."""
    replies: list[object] = []
    index: dict[str, dict[str, dict[str, int]]] = {}
    for drawn_by, by_version in live.items():
        for version in (*HANDSHAKE_PROTOCOL_VERSIONS, *MODERN_PROTOCOL_VERSIONS):
            row = index.setdefault(drawn_by, {})[version] = {}
            for method, line in by_version[version].items():
                reply = reply_without_id(line)
                if reply not in replies:
                    replies.append(reply)
                row[method] = replies.index(reply)
    opened = json.loads(live["sketch"][UNKNOWN_VERSION]["initialize"])
    file = {
        "mcp": ".".join(metadata.version("mcp").split(".")[:2]),
        "sources": {name: quick_replies.fingerprint(name) for name in sorted(SOURCES)},
        "handshake": HANDSHAKE_PROTOCOL_VERSIONS,
        "modern": MODERN_PROTOCOL_VERSIONS,
        "counter_offer": opened["result"]["protocolVersion"],
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


def record_replies() -> dict[str, dict[str, Replies]]:
    """What the server replies in each set, in each version and in an unknown one."""
    versions = (*HANDSHAKE_PROTOCOL_VERSIONS, UNKNOWN_VERSION, *MODERN_PROTOCOL_VERSIONS)
    return {
        drawn_by: {
            version: ask(opening_requests(version), Settings.from_env(environ), drawn_by)
            for version in versions
        }
        for drawn_by, environ in SETS.items()
    }


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


def ask(requests: Sequence[Request], settings: Settings, drawn_by: DrawnBy) -> Replies:
    """What a server says to these requests on a connection of its own."""
    lines = [
        json.dumps({"jsonrpc": "2.0", "id": number, **request})
        for number, request in enumerate(requests)
    ]
    wire = ListWire(lines)
    server = build_server(open_generations(settings), drawn_by=drawn_by)
    anyio.run(serve_connection, server, wire)
    by_number = {json.loads(line)["id"]: line for line in wire.written}
    return {str(request["method"]): by_number[number] for number, request in enumerate(requests)}


class ListWire:
    """A wire whose host sends all lines at once, and leaves when each has its reply."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.read_at = time.monotonic()
        self.written: list[str] = []
        self._lines = [f"{line}\n" for line in lines]
        self._missing = len(self._lines)
        self._is_done = threading.Event()

    def readline(self) -> str:
        """The next line; nothing when all are replied to."""
        if self._lines:
            return self._lines.pop(0)
        self._is_done.wait()
        return ""

    def write(self, text: str) -> None:
        """Keeps a reply."""
        self.written.append(text.rstrip("\n"))
        if len(self.written) == self._missing:
            self._is_done.set()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
