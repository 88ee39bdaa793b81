"""Quick replies are the SDK's, and a host cannot tell where they end."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import write_quick_replies
from arta_mcp import quick_replies
from arta_mcp.app import open_generations, state_dir
from arta_mcp.cli.serve import find_mark
from arta_mcp.config import SETTINGS, DrawnBy, Settings, without_settings
from arta_mcp.quick_replies import (
    CLIENT_CAPABILITIES,
    CLIENT_INFO,
    PROTOCOL_VERSION,
    REPLIES_FILE,
    ConnectionState,
    Handoff,
    Json,
    NoQuickReplies,
    RecordedReplies,
    Responder,
)
from arta_mcp.server.build import build_server
from arta_mcp.server.wire import Wire, serve_connection
from write_quick_replies import (
    CLIENT,
    METHODS,
    SETS,
    UNKNOWN_VERSION,
    Replies,
    opening_requests,
    record_replies,
)

ROOT = Path(__file__).parent.parent
HANDSHAKES = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = "2026-07-28"
PROCESS_TIMEOUT = 60.0
"""seconds that a server process gets on a machine under load"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no quick replies on Windows")


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
EMPTY: Json = {}


def read_file() -> dict[str, Json]:
    return json.loads(REPLIES_FILE.read_text(encoding="utf-8"))


def replies_of(drawn_by: DrawnBy = "sketch", mcp: str = "") -> RecordedReplies:
    """A recorded set, as it is used with this version of the SDK; by default the recorded one."""
    file = read_file()
    return RecordedReplies({**file}, drawn_by, mcp=mcp or f"{file['mcp']}.0")


@pytest.fixture(scope="module")
def recorded() -> RecordedReplies:
    return replies_of()


@pytest.fixture
def fitting() -> None:
    """Quick replies are in use: without them, a test that holds the SDK back waits for ever."""
    try:
        RecordedReplies.read("sketch", None)
    except NoQuickReplies as exc:
        pytest.fail(f"no quick replies: {exc}; {exc.hint}")


Live = dict[str, dict[str, Replies]]


@pytest.fixture(scope="module")
def live() -> Live:
    return record_replies()


# The file


def test_no_source_has_changed_since_the_replies_were_recorded() -> None:
    assert write_quick_replies.find_changes(read_file()) == [], "run `make quick-replies`"


def test_the_shipped_replies_are_what_the_sdk_says_live(live: Live) -> None:
    assert list(live) == ["remote", "sketch", "engine"]
    for drawn_by in SETS:
        recorded = replies_of(drawn_by)
        assert list(live[drawn_by]) == [*HANDSHAKES, UNKNOWN_VERSION, MODERN]
        for version, replies in live[drawn_by].items():
            known = MODERN if version == MODERN else recorded.negotiate_version(version)
            first = () if version == MODERN else ("initialize",)
            assert tuple(replies) == (*first, *METHODS)
            for number, (method, line) in enumerate(replies.items()):
                found = recorded.find_reply(str(known), method)
                sent = f'{{"jsonrpc":"2.0","id":{number},{found}'
                assert sent == line, f"{drawn_by} {version} {method}: run `make quick-replies`"


def test_the_file_is_what_its_script_writes(live: Live) -> None:
    written = write_quick_replies.generate(live)
    assert REPLIES_FILE.read_text(encoding="utf-8") == written, "run `make quick-replies`"


def test_the_file_is_of_the_pinned_sdk() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"\nmcp=={read_file()['mcp']}." in pins, "run `make quick-replies`"


NOT_OURS = {
    *("2024", "2025", "03", "05", "26", "Method", "discover", "ping", "32601"),  # the protocol's
    *("array", "boolean", "defs"),  # JSON Schema's
    *("private", "profile"),  # of caching, and of MCP Apps' media type
    "4294967295",  # which ours say as a power of two
}
"""what stands in replies and in none of our sources"""


def words_of(value: object) -> set[str]:
    """The words of all texts in a JSON value, less names of members, which are the protocol's."""
    match value:
        case dict():
            return set().union(*map(words_of, value.values()))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # JSON
        case list():
            return set().union(*map(words_of, value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # JSON
        case _:
            return set(re.findall(r"\w{2,}", str(value)))


def test_every_word_of_a_reply_stands_in_a_source() -> None:
    file = read_file()
    packages = [quick_replies.PACKAGE_DIR / name for name in file["sources"]]
    ours = words_of([path.read_text(encoding="utf-8") for path in packages])
    assert sorted(words_of(file["replies"]) - ours - NOT_OURS) == []


def test_a_reply_tells_no_more_of_the_settings_than_what_draws(live: Live, tmp_path: Path) -> None:
    free = {
        "ARTA_OUTPUT_DIR": str(tmp_path / "pictures"),
        "ARTA_STATE_DIR": str(tmp_path / "state"),
        "ARTA_PROXY": "http://127.0.0.1:9",
        "ARTA_USER_AGENT": "something-else/1",
        "ARTA_CLIENT_TYPE": "OTHER",
        "ARTA_LOG_LEVEL": "DEBUG",
        "ARTA_SKETCH_LIMIT": "1GB",
        "ARTA_LOCAL_KEY": "a-key-of-my-own",
        "ARTA_LOCAL_STYLES": str(tmp_path / "styles.json"),
        "ARTA_LOCAL_SIZES": "832x1216",
        "ARTA_STATE_URL": "redis://127.0.0.1:9",
        "ARTA_HTTP_TOKENS": "alice=a-token-of-16-letters",
        "ARTA_HTTP_ALLOWED_ORIGINS": "https://app.example.com",
        "ARTA_HTTP_ISSUER": "https://id.example.com",
    }
    (tmp_path / "styles.json").write_text('[{"name": "mine", "prompt": "{prompt}, mine"}]')
    backends = {"ARTA_BACKEND", "ARTA_API_KEY", "ARTA_LOCAL_ENGINE"}
    for setting in SETTINGS:
        if setting.name in backends:
            continue
        if setting.name.endswith("_URL"):
            free.setdefault(setting.name, "http://127.0.0.1:9/other")
        elif setting.choices:
            other = [choice for choice in setting.choices if choice != setting.default]
            free.setdefault(setting.name, other[0])
        else:
            free.setdefault(setting.name, "7")
    assert free["ARTA_QUICK_REPLIES"] == "off"
    remote = {"ARTA_BACKEND": "arta", "ARTA_API_KEY": "a-key-of-my-own"}
    for chosen in (remote, {"ARTA_BACKEND": "local"}, {"ARTA_LOCAL_ENGINE": "sdapi"}):
        chosen = {**free, **chosen}
        drawn_by = Settings.from_env(chosen).drawn_by
        for version in ("2025-11-25", MODERN):
            replies = ask_process(opening_requests(version), **chosen)
            assert replies == live[drawn_by][version]


def ask_process(requests: Sequence[Json], **settings: str) -> Replies:
    """What a server process with these settings replies."""
    lines = [
        json.dumps({"jsonrpc": "2.0", "id": number, **request})
        for number, request in enumerate(requests)
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "arta_mcp"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=without_settings(os.environ) | settings,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(f"{line}\n" for line in lines))
        process.stdin.flush()
        replies = [process.stdout.readline().rstrip("\n") for _ in lines]
    by_number = {json.loads(line)["id"]: line for line in replies}
    return {str(request["method"]): by_number[number] for number, request in enumerate(requests)}


# What they fit


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages in front of all others; `mcp` is there, but none of its metadata."""
    (tmp_path / "mcp").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


@pytest.mark.parametrize("version", ["2.3.0", "2.3.9", "2.4.0", "2.10.1", "2.4.0b1"])
def test_replies_fit_a_tested_or_later_minor_version_of_the_sdk(
    installation: Path, version: str
) -> None:
    (installation / f"mcp-{version}.dist-info").mkdir()
    (installation / "mcp_types-9.dist-info").mkdir()
    assert RecordedReplies.read("sketch", None).mcp == version


@pytest.mark.parametrize("version", ["2.2.9", "3.0.0", "1.30.0", "20.3.0", "new", ""])
def test_replies_fit_no_earlier_and_no_other_sdk(installation: Path, version: str) -> None:
    if version:
        (installation / f"mcp-{version}.dist-info").mkdir()
    with pytest.raises(
        NoQuickReplies, match=r"recorded with mcp 2\.3, and .* is installed"
    ) as told:
        RecordedReplies.read("sketch", None)
    assert told.value.hint == "install mcp 2.3 or a later 2"


def test_an_sdk_that_is_there_twice_is_none_that_is_known(installation: Path) -> None:
    for version in ("2.3.0", "2.4.0"):
        (installation / f"mcp-{version}.dist-info").mkdir()
    with pytest.raises(NoQuickReplies, match="none that is known"):
        RecordedReplies.read("sketch", None)


@pytest.mark.usefixtures("fitting")
def test_a_changed_source_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = read_file()
    file["sources"] = {**file["sources"], "server/tools.py": 1}
    path = tmp_path / "quick_replies.json"
    path.write_text(json.dumps(file), encoding="utf-8")
    monkeypatch.setattr(quick_replies, "REPLIES_FILE", path)
    with pytest.raises(NoQuickReplies, match=r"before a change of server/tools\.py") as told:
        RecordedReplies.read("sketch", None)
    assert "make quick-replies" in told.value.hint
    assert write_quick_replies.main(["--check"]) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", None, '{"sources": {"gone.py": 1}}'])
def test_a_file_that_is_missing_or_damaged_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    path = tmp_path / "quick_replies.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(quick_replies, "REPLIES_FILE", path)
    with pytest.raises(NoQuickReplies, match=r"quick_replies\.json is missing or damaged"):
        RecordedReplies.read("sketch", None)


def test_a_mark_keeps_them_off_for_the_sdk_that_it_names(tmp_path: Path) -> None:
    mark = tmp_path / "state" / "quick-replies-off"
    replies = RecordedReplies.read("sketch", mark)
    assert "set ARTA_QUICK_REPLIES=off and restart" in quick_replies.keep_off(replies, mark)
    assert mark.stat().st_mode & 0o777 == 0o600
    with pytest.raises(NoQuickReplies, match="turned out to open a connection otherwise") as told:
        RecordedReplies.read("sketch", mark)
    assert str(mark) in told.value.hint
    mark.write_text(mark.read_text(encoding="utf-8").replace("mcp 2.", "mcp 2.9"), encoding="utf-8")
    assert RecordedReplies.read("sketch", mark).mcp == replies.mcp


def test_where_no_mark_can_be_written_the_sentence_is_the_same(
    recorded: RecordedReplies, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    said = quick_replies.keep_off(recorded, tmp_path / "file" / "mark")
    assert said == quick_replies.keep_off(recorded, None)


@pytest.mark.parametrize(
    "environ",
    [{"HOME": "/home/x"}, {"HOME": "/home/x", "XDG_STATE_HOME": "/elsewhere"}, {}],
    ids=lambda environ: " ".join(environ) or "no HOME",
)
def test_the_mark_is_in_the_state_folder(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for folder in ("", str(tmp_path)):
        chosen = Settings.from_env({"ARTA_STATE_DIR": folder})
        assert find_mark(chosen, environ) == state_dir(chosen) / "quick-replies-off"


LATER = "2.99.0"


def test_a_later_sdk_negotiates_by_itself_what_only_it_may_know() -> None:
    later = replies_of(mcp=LATER)
    for version in HANDSHAKES:
        assert count_quick_replies(later, [initialize(1, version), rpc("ping", 2)]) == 2
    assert count_quick_replies(later, [modern("tools/list", 1)]) == 1
    for line in (initialize(1, "2027-07-28"), initialize(1, MODERN)):
        assert count_quick_replies(later, [line]) == 0
        assert count_quick_replies(replies_of(), [line]) == 1


def test_a_discovery_lists_the_versions_that_were_recorded() -> None:
    reply = Responder(replies_of(mcp=LATER)).reply_to(modern("server/discover", 1))
    assert json.loads(reply or "")["result"]["supportedVersions"] == [MODERN]


# The protocol machine

NEW, DISCOVERED, HANDSHAKE, READY, STATELESS, CLOSED = ConnectionState
CALL = rpc("tools/call", 2, name="list_models")
OPENINGS = {
    NEW: [],
    DISCOVERED: [modern("server/discover", 1), modern("server/discover", 2)],
    HANDSHAKE: [initialize(1), rpc("ping", 2)],
    READY: [initialize(1), INITIALIZED, rpc("ping", 2)],
    STATELESS: [modern("ping", 1), modern("ping", 2)],
    CLOSED: [CALL],
}
"""lines that bring a connection into each state"""

REPLAYED = {
    NEW: [],
    DISCOVERED: [modern("server/discover", 1)],
    HANDSHAKE: [initialize(1)],
    READY: [initialize(1), INITIALIZED],
    STATELESS: [modern("ping", 1)],
    CLOSED: [],
}
"""those of them that the SDK has to read"""

ADMITTED = {
    (NEW, initialize(2)): HANDSHAKE,
    (NEW, modern("tools/list", 2)): STATELESS,
    (NEW, modern("server/discover", 2)): DISCOVERED,
    (DISCOVERED, modern("server/discover", 2)): DISCOVERED,
    (DISCOVERED, modern("tools/list", 2)): STATELESS,
    (DISCOVERED, initialize(2)): HANDSHAKE,
    (HANDSHAKE, INITIALIZED): READY,
    (HANDSHAKE, rpc("tools/list", 2)): HANDSHAKE,
    (READY, rpc("tools/list", 2)): READY,
    (STATELESS, modern("tools/list", 2)): STATELESS,
    (STATELESS, modern("server/discover", 2)): STATELESS,
}
"""the table at the top of quick_replies.py: what is not here, closes"""

LINES = (
    *{line for _, line in ADMITTED},
    CALL,
    "{",
    initialize(None),
    rpc("initialize", 2),
    rpc("notifications/initialized", 2),
    rpc("notifications/initialized", _meta=EMPTY),
    rpc("notifications/cancelled", requestId=1),
)


@pytest.mark.parametrize("state", ConnectionState)
def test_a_connection_takes_a_row_of_the_table_or_closes(
    state: ConnectionState, recorded: RecordedReplies
) -> None:
    for line in LINES:
        responder = Responder(recorded)
        for opening in OPENINGS[state]:
            responder.reply_to(opening)
        assert responder.state is state
        reply = responder.reply_to(line)
        assert responder.state is ADMITTED.get((state, line), CLOSED), line
        if responder.state is CLOSED:
            assert reply is None
            assert [again for again, _ in responder.replay] == REPLAYED[state]
            assert responder.is_undecided is (state is DISCOVERED)
        else:
            assert reply == "" if line == INITIALIZED else json.loads(reply or "")["id"] == 2
            assert len(responder.replay) == len(REPLAYED[responder.state])


def after_handshake(*lines: str) -> list[str]:
    """Lines behind a handshake, and one that is sure to have a quick reply but for them."""
    return [initialize("first"), *lines, rpc("ping", "last")]


LONG = "x" * 20_000
METAS = (
    *({"progressToken": token} for token in (EMPTY, True, 1.5, 2**53, "é", LONG, "[" * 101)),
    {"other": 1},
    None,
)
LEFT_FIRST = (
    INITIALIZED,
    "hello",
    rpc("ping", 1),
    initialize(1.0),
    initialize(1, 5),
    initialize(1, capabilities={"x": float("nan")}),
    initialize(1, capabilities={"x": json.loads("[" * 300 + "]" * 300)}),
    initialize(1, clientInfo={"name": LONG, "version": "1"}),
    initialize(1, _meta={PROTOCOL_VERSION: MODERN, CLIENT_CAPABILITIES: {}}),
    modern("tools/list", 1, **{PROTOCOL_VERSION: "2031-01-01"}),
    modern("tools/list", 1, traceparent="00-1-2-3"),
    rpc("tools/list", 1, _meta={PROTOCOL_VERSION: MODERN}),
)
"""openings that the SDK might read in another way"""

LEFT_LATER = (
    *(rpc("ping", odd) for odd in ('a"b', "a\\b", "a\nb", "\x7f", 1.5, True, ["x"], 2**53, LONG)),
    *(f'{{"jsonrpc":"2.0","id":{odd},"method":"ping"}}' for odd in ("null", "NaN", '"é"')),
    *(rpc("ping", 100 + number, _meta=meta) for number, meta in enumerate(METAS)),
    '{"jsonrpc":"2.0","id":200,"method":"ping","params":{"_meta":{"progressToken":"\ufffd"}}}',
    '{"jsonrpc":"2.0","id":201,"method":"ping","params":{"_meta":{"progressToken":"\\ud800"}}}',
    '{"jsonrpc":"2.0","id":202,"method":"ping","params":null}',
    '{"jsonrpc":"2.0","id":203,"method":"ping","params":[]}',
    '{"jsonrpc":"2.0","id":204,"method":["ping"]}',
    '{"jsonrpc":"2.0","id":205,"method":"ping","more":1}',
    '{"jsonrpc":"1.0","id":206,"method":"ping"}',
    '{"jsonrpc":"2.0","id":207,"result":{}}',
    f"[{rpc('ping', 208)},{rpc('ping', 209)}]",
    *("", "  ", "{", "null", "[1]", "\x00"),
    *(rpc("tools/list", 210 + number, cursor=cursor) for number, cursor in enumerate(("x", None))),
    rpc("tools/list", 212, page=3),
    rpc("logging/setLevel", 213, level="info"),
    rpc("nothing", 214),
    rpc("tools/call", 215, name="nothing", arguments={}),
    rpc("notifications/cancelled", requestId="first"),
    modern("tools/list", 216),
    initialize(217, "2024-11-05"),
)
"""the same behind a handshake"""


def test_what_the_sdk_might_read_in_another_way_has_no_quick_reply(
    recorded: RecordedReplies,
) -> None:
    for line in LEFT_FIRST:
        assert count_quick_replies(recorded, [line, initialize(2)]) == 0, line
    for line in LEFT_LATER:
        assert count_quick_replies(recorded, after_handshake(line)) == 1, line


# The real process


GATE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job has it ignored
class Gate:
    def find_spec(self, name, path=None, target=None):
        if name == "mcp":
            if os.environ["STRAY"]:
                print("a stray print", flush=True)
                os.write(1, b"a stray write")
                print("a stray read:", os.read(0, 1))
            os.read(int(os.environ["GATE"]), 1)
        return None
sys.meta_path.insert(0, Gate())
from arta_mcp.cli import main
sys.exit(main([]))
"""
"""starts the server, whose import of the SDK then waits for a byte"""


class GatedServer:
    """A server process, its wire, and the gate that its SDK waits at; killed when it takes long."""

    def __init__(self, *, stray: str = "", python: str = sys.executable, **environ: str) -> None:
        behind, self._gate = os.pipe()
        self.process = subprocess.Popen(
            [python, "-c", GATE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            pass_fds=[behind],
            env=without_settings(os.environ) | {"GATE": str(behind), "STRAY": stray, **environ},
        )
        os.close(behind)
        self._watch = threading.Timer(PROCESS_TIMEOUT, self.process.kill)

    def __enter__(self) -> GatedServer:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.cancel()
        self.process.kill()
        self.process.communicate()
        os.close(self._gate)

    def write(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(line + "\n" for line in lines))
        self.process.stdin.flush()

    def read(self, count: int = 1) -> list[str]:
        assert self.process.stdout is not None
        return [self.process.stdout.readline().rstrip("\n") for _ in range(count)]

    def let_sdk_in(self) -> None:
        os.write(self._gate, b".")

    def finish(self) -> tuple[str, str]:
        """Closes stdin; gives the rest of stdout, and stderr."""
        self.let_sdk_in()
        return self.process.communicate(timeout=PROCESS_TIMEOUT)


@pytest.mark.usefixtures("fitting")
@pytest.mark.parametrize("version", [*HANDSHAKES, UNKNOWN_VERSION, MODERN])
def test_all_is_replied_to_before_the_sdk_has_loaded_and_the_session_is_true(
    version: str, live: Live, tmp_path: Path
) -> None:
    call = rpc("tools/call", 99, name="list_models")
    if version == MODERN:
        call = modern("tools/call", 99).replace('{"_meta"', '{"name": "list_models", "_meta"')
    environ = {"ARTA_STATE_DIR": str(tmp_path), "ARTA_LOG_LEVEL": "DEBUG"}
    with GatedServer(stray="yes", **environ) as server:
        for number, request in enumerate(opening_requests(version)):
            server.write(json.dumps({"jsonrpc": "2.0", "id": number, **request}))
            assert server.read() == [live["sketch"][version][str(request["method"])]]
            if request["method"] == "initialize":
                server.write(INITIALIZED)
        server.let_sdk_in()
        server.write(call)
        [line] = server.read()
        assert json.loads(line)["id"] == 99
        assert json.loads(line)["result"]["isError"] is False
        rest, errors = server.finish()
        assert rest == ""
        assert "a stray print" in errors
        assert "a stray write" in errors
        assert "a stray read: b''" in errors
        assert "than the SDK would have" not in errors
    assert server.process.returncode == 0


@pytest.mark.usefixtures("fitting")
def test_a_host_that_leaves_early_has_its_replies_and_the_server_ends_well() -> None:
    with GatedServer() as server:
        server.write(initialize(1), rpc("tools/list", 2))
        assert server.process.stdin is not None
        server.process.stdin.close()
        server.process.stdin = None
        assert [json.loads(line)["id"] for line in server.read(2)] == [1, 2]
        assert server.finish()[0] == ""
    assert server.process.returncode == 0


@pytest.mark.usefixtures("fitting")
def test_ctrl_c_while_the_sdk_loads_does_not_wait_for_the_hosts_next_line() -> None:
    with GatedServer() as server:
        server.write(initialize(1))
        assert json.loads(server.read()[0])["id"] == 1
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PROCESS_TIMEOUT / 2) == 130


def test_a_flood_that_is_written_before_anything_is_read_is_replied_to_once_each() -> None:
    pings = [rpc("ping", number, _meta={"progressToken": "x" * 200}) for number in range(2000)]
    with GatedServer() as server:
        server.let_sdk_in()
        server.write(initialize("first"), INITIALIZED, *pings)
        numbers = [json.loads(line)["id"] for line in server.read(len(pings) + 1)]
        assert numbers[0] == "first"
        assert sorted(numbers[1:]) == list(range(2000))
        assert server.finish()[0] == ""


@pytest.mark.usefixtures("fitting")
def test_a_wrong_setting_is_reported_at_once_and_the_first_questions_are_replied_to() -> None:
    with GatedServer(ARTA_MAX_WAIT="soon") as server:
        server.write(initialize(1), rpc("tools/list", 2))
        assert [json.loads(line)["id"] for line in server.read(2)] == [1, 2]
        assert server.process.stderr is not None
        assert server.process.stderr.readline().startswith("error: ARTA_MAX_WAIT is 'soon'")
        server.finish()
    assert server.process.returncode == 2


def test_a_changed_source_is_replied_from_and_not_a_stale_file(tmp_path: Path) -> None:
    shutil.copytree(quick_replies.PACKAGE_DIR, tmp_path / "arta_mcp")
    [source] = [
        file
        for file in (tmp_path / "arta_mcp" / "server").glob("*.py")
        if 'title="List models"' in file.read_text(encoding="utf-8")
    ]
    changed = source.read_text(encoding="utf-8").replace('title="List models"', 'title="Changed"')
    source.write_text(changed, encoding="utf-8")
    with GatedServer(PYTHONPATH=str(tmp_path)) as server:
        server.let_sdk_in()
        server.write(initialize(1), rpc("tools/list", 2))
        tools = json.loads(server.read(2)[1])["result"]["tools"]
        assert "Changed" in [tool["title"] for tool in tools]


def test_a_process_that_replied_wrongly_says_so_and_the_next_one_does_not(tmp_path: Path) -> None:
    shutil.copytree(quick_replies.PACKAGE_DIR, tmp_path / "arta_mcp")
    file = tmp_path / "arta_mcp" / "quick_replies.json"
    text = file.read_text(encoding="utf-8")
    wrong = text.replace('"protocolVersion": "2025-11-25"', '"protocolVersion": "2025-11-24"')
    file.write_text(wrong, encoding="utf-8")
    environ = {"PYTHONPATH": str(tmp_path), "ARTA_STATE_DIR": str(tmp_path / "state")}
    settled: list[str] = []
    for _ in range(2):
        with GatedServer(**environ) as server:
            server.let_sdk_in()
            server.write(initialize(1))
            settled.append(json.loads(server.read()[0])["result"]["protocolVersion"])
            server.write(INITIALIZED, CALL)
            called = json.loads(server.read()[0])["result"]
            errors = server.finish()[1]
            is_refused = "set ARTA_QUICK_REPLIES=off" in called["content"][0]["text"]
            assert is_refused is (len(settled) == 1)
            assert ("ERROR arta_mcp.quick_replies: mcp 2." in errors) is is_refused
    assert settled == ["2025-11-24", "2025-11-25"]


# With quick replies and without


Lines = Sequence[str]

CONVERSATIONS: dict[str, Lines] = {
    "usual": after_handshake(INITIALIZED, rpc("tools/list", 2)),
    "what is left to the SDK": after_handshake(*LEFT_LATER),
    **{
        f"left to the SDK at once {number}": [line, initialize(2), modern("tools/list", 3)]
        for number, line in enumerate(LEFT_FIRST)
    },
    "ids": after_handshake(*(rpc("ping", number) for number in ("a", "7", 7, 0, -1, ""))),
    "long ids": after_handshake(*(rpc("ping", f"{number}" * 9000) for number in range(5))),
    "same id again": after_handshake(*(rpc(method, 1) for method in ("ping", "tools/list"))),
    "a token": after_handshake(rpc("ping", 2, _meta={"progressToken": "t"})),
    "early notification": [INITIALIZED, *after_handshake(INITIALIZED, INITIALIZED)],
    "unknown version": [initialize(1, "2031-01-01"), rpc("resources/list", 2)],
    "modern version in a handshake": [initialize(1, MODERN), rpc("prompts/list", 2)],
    "modern": [modern("server/discover", 1), modern("tools/list", 2), modern("ping", 3)],
    "discover twice": [modern("server/discover", 1), modern("server/discover", 2)],
    "discover, then a call": [modern("server/discover", 1), modern("prompts/get", 2)],
    "discover, then plain": [modern("server/discover", 1), rpc("tools/list", 2), rpc("ping", 3)],
    "discover, then no JSON": [modern("server/discover", 1), "{", modern("tools/list", 2)],
    "handshake on modern": [modern("tools/list", 1), initialize(2), modern("tools/list", 3)],
    "plain on modern": [modern("tools/list", 1), rpc("tools/list", 2), rpc("ping", 3)],
    "blanks around": [f"  {initialize(1)} ", f"\t{rpc('ping', 2)}\r"],
    "carriage returns": [initialize(1) + "\r" + rpc("ping", 2) + "\r", rpc("ping", 3)],
    "one key twice": after_handshake('{"jsonrpc":"2.0","id":2,"id":3,"method":"ping"}'),
    "a call at once": after_handshake(rpc("tools/call", 2, name="nothing", arguments={})),
    "more than is sent": after_handshake(*(rpc("tools/list", number) for number in range(1, 9))),
}


@dataclass
class PlainWire:
    """The wire without quick replies: what the SDK would make of the same descriptors."""

    source: TextIO
    sink: int
    read_at: float = 0.0

    def readline(self) -> str:
        return self.source.readline()

    def write(self, text: str) -> None:
        os.write(self.sink, text.encode())


ENDS = ("end", "very end")
"""ids of requests that no method serves; the second is sent when the first is replied to"""


class Host:
    """Writes all lines at once, without reading, and leaves when the last is replied to."""

    def __init__(self, lines: Lines, count: int, source: int, sink: int) -> None:
        """`enough` is set when so many replies are there."""
        self.replies: list[str] = []
        self.enough = threading.Event()
        self._lines, self._count, self._source, self._sink = lines, count, source, sink
        self._ends = {end: threading.Event() for end in ENDS}
        self._threads = [threading.Thread(target=run) for run in (self._write, self._read)]

    def __enter__(self) -> Host:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(PROCESS_TIMEOUT)

    def _write(self) -> None:
        with os.fdopen(self._sink, "w", encoding="utf-8", newline="\n") as file:
            file.write("".join(f"{line}\n" for line in self._lines))
            for end, replied in self._ends.items():
                file.write(f"{rpc('the end', end)}\n")
                file.flush()
                replied.wait(PROCESS_TIMEOUT)

    def _read(self) -> None:
        with os.fdopen(self._source, encoding="utf-8", newline="\n") as file:
            for line in file:
                self.replies.append(line)
                if len(self.replies) == self._count:
                    self.enough.set()
                number = json.loads(line)["id"]
                if number in ENDS:
                    self._ends[number].set()


def converse(lines: Lines, connect: Callable[[TextIO, int], Wire], count: int = 0) -> list[str]:
    """All that a real server replies to these lines, in this process and over real pipes.

    The server starts when `count` replies are there: they are quick ones.
    """
    (source, host_sink), (host_source, sink) = os.pipe(), os.pipe()
    server = build_server(open_generations(Settings.from_env({})))
    with os.fdopen(source, encoding="utf-8", errors="replace") as file:
        wire = connect(file, sink)
        with Host(lines, count, host_source, host_sink) as host:
            assert not count or host.enough.wait(PROCESS_TIMEOUT)
            anyio.run(serve_connection, server, wire)
            os.close(sink)
    return sorted(host.replies)


def quickly(recorded: RecordedReplies) -> Callable[[TextIO, int], Handoff]:
    def connect(source: TextIO, sink: int) -> Handoff:
        handoff = Handoff(source, sink, Responder(recorded))
        handoff.start()
        return handoff

    return connect


def count_quick_replies(recorded: RecordedReplies, lines: Lines) -> int:
    responder = Responder(recorded)
    file = io.StringIO("".join(f"{line}\n" for line in lines), newline=None)
    return sum(bool(responder.reply_to(line)) for line in file)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_is_the_same_with_quick_replies_and_without(
    name: str, recorded: RecordedReplies
) -> None:
    lines = CONVERSATIONS[name]
    without = converse(lines, PlainWire)
    count = count_quick_replies(recorded, lines)
    assert converse(lines, quickly(recorded), count) == without
    assert converse(lines, quickly(recorded)) == without


def test_the_sdk_reads_the_handshake_then_only_what_had_no_quick_reply(
    recorded: RecordedReplies,
) -> None:
    lines = [f"{line}\n" for line in (initialize(1), INITIALIZED, rpc("ping", 2), rpc("x", 3))]
    (source, host_sink), (host_source, sink) = os.pipe(), os.pipe()
    with (
        os.fdopen(source, encoding="utf-8") as wire,
        os.fdopen(host_sink, "w", encoding="utf-8") as host,
        os.fdopen(host_source, encoding="utf-8") as replies,
    ):
        handoff = quickly(recorded)(wire, sink)
        host.write("".join(lines))
        host.flush()
        handshake, ping = replies.readline(), replies.readline()
        assert json.loads(ping) == {"jsonrpc": "2.0", "id": 2, "result": {}}
        assert handoff.readline() == lines[0]
        handoff.write("{}\n")
        handoff.write(handshake)
        assert handoff.readline() == lines[1]
        assert handoff.readline() == lines[3]
        host.write(lines[2])
        host.close()
        assert handoff.readline() == lines[2]
        assert handoff.readline() == ""
        os.close(sink)
        assert replies.read() == "{}\n"


def test_what_comes_when_the_sdk_is_ready_is_its_own(recorded: RecordedReplies) -> None:
    lines = [f"{line}\n" for line in (initialize(1), rpc("ping", 2))]
    interval = sys.getswitchinterval()
    responder = Responder(recorded)
    source, host_sink = os.pipe()
    with (
        ThreadPoolExecutor(1) as sdk,
        os.fdopen(source, encoding="utf-8") as wire,
        os.fdopen(host_sink, "w", encoding="utf-8") as host,
    ):
        handoff = Handoff(wire, -1, responder)
        handoff.start()
        assert sys.getswitchinterval() < interval
        first = sdk.submit(handoff.readline)
        wait_for(responder, CLOSED)
        assert sys.getswitchinterval() == interval
        host.write("".join(lines))
        host.flush()
        assert [first.result(PROCESS_TIMEOUT), handoff.readline()] == lines


def test_a_line_without_a_quick_reply_ends_the_hurry(recorded: RecordedReplies) -> None:
    interval = sys.getswitchinterval()
    responder = Responder(recorded)
    handoff = Handoff(io.StringIO(f"{CALL}\n"), -1, responder)
    handoff.start()
    wait_for(responder, CLOSED)
    assert handoff.readline() == f"{CALL}\n"
    assert sys.getswitchinterval() == interval


def test_a_host_that_does_not_read_is_an_error_to_the_sdk(recorded: RecordedReplies) -> None:
    host_source, sink = os.pipe()
    os.close(host_source)
    responder = Responder(recorded)
    handoff = Handoff(io.StringIO(f"{initialize(1)}\n"), sink, responder)
    handoff.start()
    wait_for(responder, HANDSHAKE)
    assert handoff.readline() == f"{initialize(1)}\n"
    handoff.write('{"jsonrpc":"2.0","id":1,"result":{}}\n')
    with pytest.raises(BrokenPipeError):
        handoff.readline()
    os.close(sink)


def wait_for(responder: Responder, state: ConnectionState) -> None:
    end = time.monotonic() + PROCESS_TIMEOUT
    while responder.state is not state:
        assert time.monotonic() < end
        time.sleep(0.001)


def changed(old: str, new: str) -> RecordedReplies:
    """The recorded replies with other words in them."""
    text = REPLIES_FILE.read_text(encoding="utf-8")
    assert old in text
    return RecordedReplies(json.loads(text.replace(old, new)), "sketch", mcp=LATER)


def test_an_opening_that_the_sdk_says_in_other_words_is_sent_once_and_goes_on(
    recorded: RecordedReplies, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "arta_mcp.quick_replies")
    old = changed('"title": "ARTA', '"title": "Old')
    lines = CONVERSATIONS["usual"]
    stale, live = converse(lines, quickly(old), 3), converse(lines, PlainWire)
    assert [json.loads(line)["id"] for line in stale] == [json.loads(line)["id"] for line in live]
    assert stale != live
    assert "in other words than the SDK would have" in caplog.text
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    caplog.clear()
    assert converse(lines, quickly(recorded), 3) == live
    assert caplog.text == ""


@pytest.mark.parametrize("version", ["2025-11-25", MODERN])
def test_when_the_sdk_settles_something_else_every_call_says_what_to_do(
    version: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = tmp_path / "state" / "quick-replies-off"
    if version == MODERN:
        replies = json.loads(REPLIES_FILE.read_text(encoding="utf-8"))
        replies["modern"].append("2027-07-28")
        replies["index"]["sketch"]["2027-07-28"] = replies["index"]["sketch"][MODERN]
        later = RecordedReplies(replies, "sketch", mcp=LATER)
        ask = partial(modern, **{PROTOCOL_VERSION: "2027-07-28"})
        lines = [ask("tools/list", 1), ask("ping", 2)]
    else:
        later = changed('"protocolVersion": "2025-11-25"', '"protocolVersion": "2025-11-24"')
        ask = rpc
        lines = [initialize(1), INITIALIZED, ask("ping", 2)]
    call, other = ask("tools/call", 3).replace('"params": {', '"params": {"name": "x", '), 4
    lines += [call, rpc("notifications/x"), "{", ask("prompts/get", other), ask("tools/list", 5)]

    def connect(source: TextIO, sink: int) -> Handoff:
        keep_off = partial(quick_replies.keep_off, later, mark)
        handoff = Handoff(source, sink, Responder(later), keep_off=keep_off)
        handoff.start()
        return handoff

    said = {reply["id"]: reply for reply in map(json.loads, converse(lines, connect, 2))}
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    why = record.getMessage()
    assert "set ARTA_QUICK_REPLIES=off and restart the server" in why
    assert said[3]["result"]["content"] == [{"type": "text", "text": why}]
    assert said[3]["result"]["isError"] is True
    assert ("resultType" in said[3]["result"]) is (version == MODERN)
    for number in (4, *ENDS):
        assert said[number]["error"] == {"code": -32603, "message": why}
    assert len(said[5]["result"]["tools"]) == 3
    assert set(said) == {1, 2, 3, 4, 5, *ENDS}
    assert mark.read_text(encoding="utf-8").startswith(f"mcp {LATER}, arta-mcp ")


@pytest.mark.parametrize("version", HANDSHAKES)
@pytest.mark.parametrize("form", [{}, {"extra": 1}], ids=["usual", "left to the SDK"])
@pytest.mark.parametrize("count", [1, 2], ids=["late", "early"])
def test_a_host_that_discovers_and_then_shakes_hands_is_served(
    version: str, form: Json, count: int, recorded: RecordedReplies
) -> None:
    """The SDK alone refuses it: to it, the discover has made the connection a modern one."""
    discover = modern("server/discover", 9)
    handshake = [initialize(1, version, **form), INITIALIZED, rpc("tools/list", 2)]
    lines = [discover, *handshake, rpc("tools/call", 3, name="list_models")]
    count = min(count, count_quick_replies(recorded, lines))
    served = converse(lines, quickly(recorded), count)
    [discovered] = [line for line in converse([discover], PlainWire) if '"id":9,' in line]
    assert served == sorted([discovered, *converse(lines[1:], PlainWire)])
    assert '"code":-32022' in "".join(converse(lines, PlainWire))


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
        **dict.fromkeys(("websiteUrl", "description", "icons", "website_url"), plain_json),
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
    capabilities: object, client: object, recorded: RecordedReplies
) -> None:
    handshake = [
        initialize(1, capabilities=capabilities, clientInfo=client),
        INITIALIZED,
        rpc("ping", 2),
    ]
    meta = {CLIENT_CAPABILITIES: capabilities, CLIENT_INFO: client}
    for lines in (handshake, [modern("prompts/list", 1, **meta), modern("prompts/list", 2)]):
        # without a quick reply, the SDK has refused or taken it as it would have, by itself
        if count := count_quick_replies(recorded, lines):
            assert converse(lines, quickly(recorded), count) == converse(lines, PlainWire)


def steps(number: int) -> tuple[str, ...]:
    """What a host might write as the line of this number."""
    return (
        *(rpc(method, number) for method in ("ping", "prompts/list", "tools/list")),
        *(modern(method, number) for method in ("ping", "prompts/list", "server/discover")),
        *(initialize(number, version) for version in ("2024-11-05", "2025-11-25", MODERN)),
        INITIALIZED,
        "{",
        rpc("notifications/cancelled", requestId=number - 1),
        rpc("tools/call", number, name="nothing"),
        rpc("tools/list", number, cursor="x"),
    )


def shakes_hands_after_a_discover(lines: Lines) -> bool:
    """Whether these are the lines that the SDK refuses and quick replies serve."""
    first = next((i for i, line in enumerate(lines) if "server/discover" not in line), len(lines))
    return first > 0 and "initialize" in "".join(lines[first : first + 1])


openings = st.integers(0, 8).flatmap(
    lambda count: st.tuples(*(st.sampled_from(steps(number)) for number in range(count)))
)


@settings(max_examples=60, deadline=None)
@given(lines=openings, hurry=st.booleans())
def test_requests_in_any_order_are_replied_to_as_without_quick_replies(
    lines: Lines, hurry: bool, recorded: RecordedReplies
) -> None:
    count = 0 if hurry else count_quick_replies(recorded, lines)
    with_replies, without = converse(lines, quickly(recorded), count), converse(lines, PlainWire)
    if not shakes_hands_after_a_discover(lines):
        assert with_replies == without
