"""The front desk: its answers are the SDK's, and a host cannot tell where it ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import write_quick_replies
from arta_mcp import quick_replies as frontdesk
from arta_mcp.app import open_generations
from arta_mcp.config import SETTINGS, Settings
from arta_mcp.quick_replies import (
    CLIENT_CAPABILITIES,
    CLIENT_INFO,
    FILE,
    PROTOCOL_VERSION,
    Answers,
    Clerk,
    Desk,
    Json,
)
from arta_mcp.server.build import build_server
from arta_mcp.server.sdk import Wire, serve_wire
from write_quick_replies import ASKED, CLIENT, UNKNOWN, Replies, ask_all, without_settings

ROOT = Path(__file__).parent.parent
HANDSHAKES = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = "2026-07-28"
PATIENCE = 60.0
"""seconds that a server process gets on a machine under load"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the desk stays closed on Windows")


def rpc(method: str, number: object = None, **params: object) -> str:
    """A line of the host's; without a number it is a notification."""
    message: Json = {"jsonrpc": "2.0"}
    if number is not None:
        message["id"] = number
    message["method"] = method
    if params:
        message["params"] = params
    return json.dumps(message)


def initialize(number: object = 0, version: object = "2025-11-25", **more: object) -> str:
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": CLIENT, **more}
    return rpc("initialize", number, **params)


def modern(method: str, number: object, **more: object) -> str:
    meta: Json = {PROTOCOL_VERSION: MODERN, CLIENT_CAPABILITIES: {}, **more}
    return rpc(method, number, _meta=meta)


INITIALIZED = rpc("notifications/initialized")


def file_content() -> Json:
    return json.loads(FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def answers() -> Answers:
    return Answers(file_content())


def are_there(content: Json) -> bool:
    """Whether the packages that gave the answers are those that are installed."""
    packages = content["packages"]
    assert isinstance(packages, dict)
    return all(frontdesk.is_installed(name, str(found)) for name, found in packages.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # JSON


@pytest.fixture
def fresh(answers: Answers, need: Callable[[bool, str], None]) -> None:
    """The desk is in use: without it, whoever waits at the gate waits for ever."""
    need(are_there(file_content()), "mcp or pydantic are not those of constraints.txt")
    if not answers.fit():
        pytest.fail("src/arta_mcp/quick_replies.json is stale; run `make quick-replies`")


@pytest.fixture(scope="module")
def live() -> dict[str, Replies]:
    return ask_all()


# The file


def test_the_shipped_answers_are_what_the_sdk_says_live(live: dict[str, Replies]) -> None:
    answers = Answers(file_content())
    for version, replies in live.items():
        known = MODERN if version == MODERN else answers.negotiate(version)
        for method, line in replies.items():
            number = json.loads(line)["id"]
            said = f'{{"jsonrpc":"2.0","id":{number},{answers.find(known, method)}'
            assert said == line, f"{version} {method}: run `make quick-replies`"


def test_the_file_is_what_its_script_writes(
    live: dict[str, Replies], need: Callable[[bool, str], None]
) -> None:
    content = file_content()
    packages = content["packages"]
    assert isinstance(packages, dict)
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for name, package in write_quick_replies.PACKAGES.items():
        assert f"{package}=={packages[name]}" in pinned, "run `make quick-replies`"
    need(are_there(content), "mcp or pydantic are not those of constraints.txt")
    assert FILE.read_text(encoding="utf-8") == write_quick_replies.generate(live), (
        "run `make quick-replies`"
    )


def test_every_revision_of_the_sdk_has_an_answer_to_each_question() -> None:
    table = file_content()["answers"]
    assert isinstance(table, dict)
    assert list(table) == [*HANDSHAKES, MODERN]  # pyright: ignore[reportUnknownArgumentType]  # JSON
    for version, row in table.items():  # pyright: ignore[reportUnknownVariableType]  # JSON
        first = () if version == MODERN else ("initialize",)
        assert tuple(row) == (*first, *ASKED)  # pyright: ignore[reportUnknownArgumentType]  # JSON


def test_no_setting_changes_an_answer(live: dict[str, Replies], tmp_path: Path) -> None:
    chosen = {
        "ARTA_BACKEND": "arta",
        "ARTA_API_KEY": "a-key-of-my-own",
        "ARTA_OUTPUT_DIR": str(tmp_path / "pictures"),
        "ARTA_STATE_DIR": str(tmp_path / "state"),
        "ARTA_PROXY": "http://127.0.0.1:9",
        "ARTA_USER_AGENT": "something-else/1",
        "ARTA_CLIENT_TYPE": "OTHER",
        "ARTA_LOG_LEVEL": "DEBUG",
    }
    for setting in SETTINGS:
        if setting.name.endswith(("_URL", "_URLS")):
            chosen.setdefault(setting.name, "http://127.0.0.1:9/other")
        elif setting.choices:
            other = [choice for choice in setting.choices if choice != setting.default]
            chosen.setdefault(setting.name, other[0])
        elif setting.default.replace(".", "", 1).isdigit():
            chosen.setdefault(setting.name, "7")
    del chosen["ARTA_FRONT_DESK"]
    revision = "2025-11-25"
    requests = [write_quick_replies.handshake(revision), *write_quick_replies.plain()]
    assert write_quick_replies.Talk(requests, **chosen).replies() == live[revision]
    again = write_quick_replies.Talk(write_quick_replies.enveloped(MODERN), **chosen)
    assert again.replies() == live[MODERN]


@pytest.mark.usefixtures("fresh")
def test_other_sources_or_packages_do_not_fit() -> None:
    content = file_content()
    sources, packages = content["sources"], content["packages"]
    assert isinstance(sources, dict)
    assert isinstance(packages, dict)
    assert not Answers({**content, "sources": {**sources, "crc32": 1}}).fit()
    for name in packages:  # pyright: ignore[reportUnknownVariableType]  # JSON
        assert not Answers({**content, "packages": {**packages, name: "0.1"}}).fit()


# The real process


GATE = """
import os, sys
class Gate:
    def find_spec(self, name, path=None, target=None):
        if name == "mcp":
            if os.environ["STRAY"]:
                print("a stray print", flush=True)
                os.write(1, b"a stray write")
            os.read(int(os.environ["GATE"]), 1)
        return None
sys.meta_path.insert(0, Gate())
from arta_mcp.cli import main
sys.exit(main([]))
"""
"""starts the server, whose import of the SDK then waits for a byte"""


class Server:
    """A server process, its wire, and the gate that its SDK waits at."""

    def __init__(self, *, stray: str = "", **environ: str) -> None:
        behind, self._gate = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", GATE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            pass_fds=[behind],
            env=without_settings(os.environ) | {"GATE": str(behind), "STRAY": stray, **environ},
        )
        os.close(behind)

    def say(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(line + "\n" for line in lines))
        self.process.stdin.flush()

    def hear(self, count: int = 1) -> list[str]:
        assert self.process.stdout is not None
        return [self.process.stdout.readline().rstrip("\n") for _ in range(count)]

    def let_sdk_in(self) -> None:
        os.write(self._gate, b".")

    def end(self) -> tuple[str, str]:
        """Closes stdin; gives the rest of stdout, and stderr."""
        self.let_sdk_in()
        rest = self.process.communicate(timeout=PATIENCE)
        os.close(self._gate)
        return rest


@contextmanager
def a_server(**options: str) -> Generator[Server]:
    server = Server(**options)
    watch = threading.Timer(PATIENCE, server.process.kill)
    watch.start()
    try:
        yield server
    finally:
        watch.cancel()
        server.process.kill()
        server.process.communicate()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("version", [*HANDSHAKES, UNKNOWN, MODERN])
def test_all_is_answered_before_the_sdk_has_loaded_and_the_session_is_true(
    version: str, live: dict[str, Replies], tmp_path: Path
) -> None:
    if version == MODERN:
        requests = write_quick_replies.enveloped(version)
        call = modern("tools/call", 99)
        call = call.replace('{"_meta"', '{"name": "list_models", "_meta"')
    else:
        requests = [write_quick_replies.handshake(version), *write_quick_replies.plain()]
        call = rpc("tools/call", 99, name="list_models")
    with a_server(stray="yes", ARTA_STATE_DIR=str(tmp_path)) as server:
        for number, request in enumerate(requests):
            server.say(json.dumps({"jsonrpc": "2.0", "id": number, **request}))
            assert server.hear() == [live[version][str(request["method"])]]
            if request["method"] == "initialize":
                server.say(INITIALIZED)
        server.let_sdk_in()
        server.say(call)
        [line] = server.hear()
        assert json.loads(line)["id"] == 99
        assert json.loads(line)["result"]["isError"] is False
        rest, errors = server.end()
        assert rest == ""
        assert "a stray print" in errors
        assert "a stray write" in errors
        assert "front desk" not in errors
    assert server.process.returncode == 0


@pytest.mark.usefixtures("fresh")
def test_a_host_that_leaves_early_has_its_answers_and_the_server_ends_well() -> None:
    with a_server() as server:
        server.say(initialize(1), rpc("tools/list", 2))
        assert server.process.stdin is not None
        server.process.stdin.close()
        server.process.stdin = None
        assert [json.loads(line)["id"] for line in server.hear(2)] == [1, 2]
        assert server.end()[0] == ""
    assert server.process.returncode == 0


def test_a_flood_that_is_written_before_anything_is_read_is_answered_once_each() -> None:
    pings = [rpc("ping", number, _meta={"progressToken": "x" * 200}) for number in range(2000)]
    with a_server() as server:
        server.let_sdk_in()
        server.say(initialize("first"), INITIALIZED, *pings)
        numbers = [json.loads(line)["id"] for line in server.hear(len(pings) + 1)]
        assert numbers[0] == "first"
        assert sorted(numbers[1:]) == list(range(2000))
        assert server.end()[0] == ""


def test_a_wrong_setting_is_told_before_anything_is_answered() -> None:
    with a_server(ARTA_MAX_WAIT="soon") as server:
        server.say(initialize(1), rpc("tools/list", 2))
        rest, errors = server.process.communicate(timeout=PATIENCE)
        assert rest == ""
        assert errors.startswith("error: ARTA_MAX_WAIT is 'soon'")
    assert server.process.returncode == 2


def test_a_changed_source_is_heard_and_not_a_stale_answer(tmp_path: Path) -> None:
    shutil.copytree(frontdesk.HERE, tmp_path / "arta_mcp")
    source = tmp_path / "arta_mcp" / "server" / "tools.py"
    changed = source.read_text(encoding="utf-8").replace('title="List models"', 'title="Changed"')
    source.write_text(changed, encoding="utf-8")
    with a_server(PYTHONPATH=str(tmp_path)) as server:
        server.let_sdk_in()
        server.say(initialize(1), rpc("tools/list", 2))
        tools = json.loads(server.hear(2)[1])["result"]["tools"]
        assert "Changed" in [tool["title"] for tool in tools]


# With the desk and without it


Lines = Sequence[str]

LONG = "x" * 200_000

CONVERSATIONS: dict[str, Lines] = {
    "usual": [initialize(1), INITIALIZED, rpc("tools/list", 2), rpc("ping", 3)],
    "ids": [initialize("a"), *(rpc("ping", i) for i in ("a", "7", 7, 0, -1, 2**53, 2**70, "é"))],
    "quote in an id": [initialize(1), rpc("ping", 'a"b')],
    "backslash in an id": [initialize(1), rpc("ping", "a\\b")],
    "line end in an id": [initialize(1), rpc("ping", "a\nb"), rpc("ping", "")],
    "delete in an id": [initialize(1), rpc("ping", "\x7f")],
    "fraction as an id": [initialize(1), rpc("ping", 1.5), rpc("ping", 2)],
    "truth as an id": [initialize(1), rpc("ping", True), rpc("ping", 2)],
    "list as an id": [initialize(1), rpc("ping", ["x"]), rpc("ping", 2)],
    "null id": [initialize(1), '{"jsonrpc":"2.0","id":null,"method":"ping"}', rpc("ping", 2)],
    "whole float id": [initialize(1.0), rpc("ping", 2)],
    "twice": [initialize(1), initialize(2, "2024-11-05"), rpc("tools/list", 3)],
    "same id again": [initialize(1), rpc("ping", 1), rpc("tools/list", 1), rpc("ping", 1)],
    "no handshake": [rpc("ping", 1), rpc("tools/list", 2), initialize(3), rpc("tools/list", 4)],
    "early notification": [INITIALIZED, initialize(1), INITIALIZED, INITIALIZED, rpc("ping", 2)],
    "unknown version": [initialize(1, "2031-01-01"), rpc("resources/list", 2)],
    "modern version in a handshake": [initialize(1, MODERN), rpc("prompts/list", 2)],
    "version of another type": [initialize(1, 5), rpc("ping", 2), rpc("tools/list", 3)],
    "modern": [modern("server/discover", 1), modern("tools/list", 2), modern("ping", 3)],
    "handshake on modern": [modern("tools/list", 1), initialize(2), modern("tools/list", 3)],
    "modern on handshake": [initialize(1), modern("tools/list", 2), rpc("tools/list", 3)],
    "plain on modern": [modern("tools/list", 1), rpc("tools/list", 2), rpc("ping", 3)],
    "modern of an unknown version": [
        modern("tools/list", 1, **{PROTOCOL_VERSION: "2031-01-01"}),
        modern("tools/list", 2),
    ],
    "modern without capabilities": [
        rpc("tools/list", 1, _meta={PROTOCOL_VERSION: MODERN}),
        modern("tools/list", 2),
    ],
    "enveloped handshake": [
        initialize(1, _meta={PROTOCOL_VERSION: MODERN, CLIENT_CAPABILITIES: {}}),
        rpc("ping", 2),
    ],
    "trace in the envelope": [modern("tools/list", 1, traceparent="00-1-2-3"), modern("ping", 2)],
    "cursor": [initialize(1), rpc("tools/list", 2, cursor="x"), rpc("tools/list", 3, cursor=None)],
    "unknown params": [initialize(1), rpc("tools/list", 2, page=3), rpc("ping", 3, much=1)],
    "params of another type": [
        initialize(1),
        '{"jsonrpc":"2.0","id":2,"method":"tools/list","params":null}',
        '{"jsonrpc":"2.0","id":3,"method":"tools/list","params":[]}',
    ],
    "progress tokens": [
        initialize(1),
        rpc("tools/list", 2, _meta={"progressToken": "t"}),
        rpc("tools/list", 3, _meta={"progressToken": {}}),
        rpc("tools/list", 4, _meta={"progressToken": True}),
        rpc("tools/list", 5, _meta={"other": 1}),
        rpc("tools/list", 6, _meta=None),
    ],
    "unknown method": [initialize(1), rpc("logging/setLevel", 2, level="info"), rpc("nothing", 3)],
    "garbage": [initialize(1), "", "  ", "{", "null", "[1]", "\x00", rpc("ping", 2)],
    "batch": [initialize(1), f"[{rpc('ping', 2)},{rpc('ping', 3)}]", rpc("ping", 4)],
    "garbage first": ["hello", initialize(1), rpc("ping", 2)],
    "blanks around": [f"  {initialize(1)} ", f"\t{rpc('ping', 2)}\r"],
    "carriage returns": [initialize(1) + "\r" + rpc("ping", 2) + "\r", rpc("ping", 3)],
    "one key twice": [initialize(1), '{"jsonrpc":"2.0","id":2,"id":3,"method":"ping"}'],
    "keys beside": [initialize(1), '{"jsonrpc":"2.0","id":2,"method":"ping","more":1}'],
    "another jsonrpc": [initialize(1), '{"jsonrpc":"1.0","id":2,"method":"ping"}', rpc("ping", 3)],
    "surrogate": [
        initialize(1),
        '{"jsonrpc":"2.0","id":2,"method":"ping","params":{"_meta":{"progressToken":"\\ud800"}}}',
        rpc("ping", 3),
    ],
    "not a number": [initialize(1, capabilities={"x": float("nan")}), rpc("ping", 2)],
    "nested deep": [initialize(1, capabilities={"x": json.loads("[" * 300 + "]" * 300)})],
    "long lines": [
        initialize(1, clientInfo={"name": LONG, "version": "1"}),
        rpc("ping", 2, _meta={"progressToken": LONG}),
        rpc("ping", LONG),
    ],
    "response": [initialize(1), '{"jsonrpc":"2.0","id":9,"result":{}}', rpc("ping", 2)],
    "cancelled": [
        initialize(1),
        rpc("notifications/cancelled", requestId=1),
        rpc("notifications/cancelled", requestId=2),
        rpc("tools/list", 3),
    ],
    "a call at once": [
        initialize(1),
        rpc("tools/call", 2, name="nothing", arguments={}),
        rpc("tools/list", 3),
    ],
    "said too much": [initialize(0), *(rpc("tools/list", number) for number in range(1, 9))],
}


class File:
    """The wire without a desk: what the SDK would make of the same descriptors."""

    def __init__(self, source: TextIO, sink: int) -> None:
        self._source, self._sink = source, sink

    def readline(self) -> str:
        return self._source.readline()

    def write(self, text: str) -> None:
        os.write(self._sink, text.encode())

    def flush(self) -> None: ...


ENDS = ("end", "very end")
"""ids of requests that no method serves; the second is sent when the first is answered"""


class Host:
    """Says all lines at once, without reading, and leaves when the last is answered."""

    def __init__(self, lines: Lines, heard: int, source: int, sink: int) -> None:
        self.said: list[str] = []
        self.enough = threading.Event()
        self._lines, self._heard, self._source, self._sink = lines, heard, source, sink
        self._ends = {end: threading.Event() for end in ENDS}
        self._threads = [threading.Thread(target=run) for run in (self._write, self._read)]

    def __enter__(self) -> Host:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)

    def _write(self) -> None:
        with os.fdopen(self._sink, "w", encoding="utf-8", newline="\n") as file:
            file.write("".join(f"{line}\n" for line in self._lines))
            for end, answered in self._ends.items():
                file.write(f"{rpc('the end', end)}\n")
                file.flush()
                answered.wait(PATIENCE)

    def _read(self) -> None:
        with os.fdopen(self._source, encoding="utf-8", newline="\n") as file:
            for line in file:
                self.said.append(line)
                if len(self.said) == self._heard:
                    self.enough.set()
                number = json.loads(line)["id"]
                if number in ENDS:
                    self._ends[number].set()


def converse(lines: Lines, wire: Callable[[TextIO, int], Wire], heard: int = 0) -> list[str]:
    """All that a real server says to these lines, in this process and over real pipes.

    The server starts when so many answers are there: they are the desk's.
    """
    (source, host_sink), (host_source, sink) = os.pipe(), os.pipe()
    server = build_server(open_generations(Settings.from_env({})))
    with os.fdopen(source, encoding="utf-8", errors="replace") as file:
        ends = wire(file, sink)
        with Host(lines, heard, host_source, host_sink) as host:
            assert not heard or host.enough.wait(PATIENCE)
            serve_wire(server, ends)
            os.close(sink)
    return sorted(host.said)


def with_desk(answers: Answers) -> Callable[[TextIO, int], Desk]:
    def wire(source: TextIO, sink: int) -> Desk:
        desk = Desk(source, sink, Clerk(answers))
        desk.open()
        return desk

    return wire


def answered_at_the_desk(answers: Answers, lines: Lines) -> int:
    clerk, count = Clerk(answers), 0
    for line in "\n".join(lines).replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        try:
            reply = clerk.answer(line + "\n")
        except (ValueError, RecursionError):
            break
        if reply is None:
            break
        count += bool(reply)
    return count


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_is_the_same_with_the_desk_and_without(name: str, answers: Answers) -> None:
    lines = CONVERSATIONS[name]
    without = converse(lines, File)
    count = answered_at_the_desk(answers, lines)
    assert converse(lines, with_desk(answers), count) == without
    assert converse(lines, with_desk(answers)) == without


def test_the_sdk_hears_the_handshake_then_only_what_the_desk_did_not_answer(
    answers: Answers,
) -> None:
    lines = [f"{line}\n" for line in (initialize(1), INITIALIZED, rpc("ping", 2), rpc("x", 3))]
    (source, host_sink), (host_source, sink) = os.pipe(), os.pipe()
    with (
        os.fdopen(source, encoding="utf-8") as wire,
        os.fdopen(host_sink, "w", encoding="utf-8") as host,
        os.fdopen(host_source, encoding="utf-8") as said,
    ):
        desk = with_desk(answers)(wire, sink)
        host.write("".join(lines))
        host.flush()
        handshake, ping = said.readline(), said.readline()
        assert json.loads(ping) == {"jsonrpc": "2.0", "id": 2, "result": {}}
        assert desk.readline() == lines[0]
        desk.write(handshake)
        assert desk.readline() == lines[1]
        assert desk.readline() == lines[3]
        host.write(lines[2])
        host.close()
        assert desk.readline() == lines[2]
        assert desk.readline() == ""
        os.close(sink)
        assert said.read() == ""


def test_an_opening_that_the_sdk_says_in_other_words_is_told_and_said_once(
    answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    content = file_content()
    text = json.dumps(content).replace('"title": "ARTA', '"title": "Old')
    lines = CONVERSATIONS["usual"]
    stale, live = converse(lines, with_desk(Answers(json.loads(text))), 3), converse(lines, File)
    assert [json.loads(line)["id"] for line in stale] == [json.loads(line)["id"] for line in live]
    assert stale != live
    assert "in other words than the SDK would have" in caplog.text
    caplog.clear()
    assert converse(lines, with_desk(answers), 3) == live
    assert caplog.text == ""


EMPTY: Json = {}
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
objects = st.dictionaries(
    st.sampled_from(["listChanged", "list_changed", "form", "url", "context", "tools", "x"]),
    st.just(EMPTY) | st.booleans() | st.just({"applyDefaults": True}) | plain_json,
    max_size=2,
)
capabilities = st.dictionaries(
    st.sampled_from(
        ["roots", "sampling", "elicitation", "experimental", "extensions", "tasks", "tools"]
    ),
    objects | plain_json,
    max_size=3,
)
clients = st.fixed_dictionaries(
    {"name": st.text(max_size=3) | plain_json, "version": st.text(max_size=3)},
    optional={
        "title": st.text(max_size=3) | plain_json,
        "websiteUrl": plain_json,
        "description": plain_json,
        "icons": plain_json,
        "website_url": plain_json,
    },
)


@settings(max_examples=60, deadline=None)
@given(capabilities=capabilities | plain_json, client=clients | plain_json)
@example(capabilities={"roots": {"listChanged": True}, "sampling": {}}, client=CLIENT)
@example(capabilities={"roots": {"listChanged": {}}}, client=CLIENT)
@example(capabilities={"roots": {"listChanged": None}}, client=CLIENT)
@example(capabilities={"elicitation": {"form": {"applyDefaults": True}}}, client=CLIENT)
@example(capabilities={"sampling": {"tools": 1}}, client=CLIENT)
@example(capabilities={"extensions": {"io.x/ui": {"a": [None, 1.5]}}}, client=CLIENT)
@example(capabilities={"extensions": {"x": None}, "experimental": {"x": {}}}, client=CLIENT)
@example(capabilities={"tools": True, "logging": None, "roots": {}}, client=CLIENT)
@example(capabilities={"tasks": {"requests": {"sampling": 1}}}, client=CLIENT)
@example(capabilities={}, client={**CLIENT, "title": None})
@example(capabilities={}, client={**CLIENT, "icons": [{"src": 1}]})
def test_whatever_a_host_says_of_itself_is_taken_or_refused_as_by_the_sdk(
    capabilities: object, client: object, answers: Answers
) -> None:
    handshake = [
        initialize(1, capabilities=capabilities, clientInfo=client),
        INITIALIZED,
        rpc("ping", 2),
    ]
    meta = {CLIENT_CAPABILITIES: capabilities, CLIENT_INFO: client}
    for lines in (handshake, [modern("prompts/list", 1, **meta), modern("prompts/list", 2)]):
        count = answered_at_the_desk(answers, lines)
        if count:
            assert converse(lines, with_desk(answers), count) == converse(lines, File)


Step = Callable[[int], str]


def plainly(method: str) -> Step:
    return lambda number: rpc(method, number)


def in_envelope(method: str) -> Step:
    return lambda number: modern(method, number)


def with_version(version: str) -> Step:
    return lambda number: initialize(number, version)


def said(line: str) -> Step:
    return lambda _: line


def cancel_the_last(number: int) -> str:
    return rpc("notifications/cancelled", requestId=number - 1)


def call_what_is_not_there(number: int) -> str:
    return rpc("tools/call", number, name="nothing")


def turn_the_page(number: int) -> str:
    return rpc("tools/list", number, cursor="x")


STEPS: tuple[Step, ...] = (
    *(plainly(method) for method in ("ping", "prompts/list", "tools/list")),
    *(in_envelope(method) for method in ("ping", "prompts/list")),
    *(with_version(version) for version in ("2024-11-05", "2025-11-25", MODERN)),
    said(INITIALIZED),
    said("{"),
    cancel_the_last,
    call_what_is_not_there,
    turn_the_page,
)


@settings(max_examples=60, deadline=None)
@given(chosen=st.lists(st.sampled_from(STEPS), max_size=8), hurry=st.booleans())
def test_requests_in_any_order_are_answered_as_without_the_desk(
    chosen: list[Step], hurry: bool, answers: Answers
) -> None:
    lines = [step(number) for number, step in enumerate(chosen)]
    count = 0 if hurry else answered_at_the_desk(answers, lines)
    assert converse(lines, with_desk(answers), count) == converse(lines, File)
