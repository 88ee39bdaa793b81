"""Every line that a host sends is a message or gets a reply that says why it is none."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arta_mcp.server.wire import MessagesAhead, NoMessage, NoReply, parse_message
from test_quick_replies import INITIALIZED, initialize, rpc

CALL = rpc("tools/call", 9, name="list_models", arguments={"search": "flux \ud83e"})
"""written as `JSON.stringify` does it, with half of the fox as an escape"""


def parse(line: str) -> dict[str, object]:
    return parse_message(line).model_dump(exclude_unset=True)


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (r"fox \ud83e", "fox \ufffd"),
        (r"\udd8a fox", "\ufffd fox"),
        (r"whole \ud83e\udd8a", "whole \U0001f98a"),
        (r"no escape \\ud83e", r"no escape \ud83e"),
    ],
)
def test_halves_become_the_replacement_character(escaped: str, text: str) -> None:
    line = f'{{"jsonrpc": "2.0", "method": "x", "params": {{"prompt": "{escaped}"}}}}\n'
    assert parse(line)["params"] == {"prompt": text}


@given(st.recursive(st.text() | st.integers() | st.none(), lambda t: st.lists(t, max_size=3)))
def test_what_is_a_message_arrives_as_it_is(value: object) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"value": value}}
    for ascii_only in (True, False):
        assert parse(json.dumps(message, ensure_ascii=ascii_only) + "\n") == message


PARSE_ERROR, INVALID_REQUEST = -32700, -32600

BROKEN = {
    "a cut line": (rpc("ping", 5)[:-9], PARSE_ERROR, None),
    "no JSON": ("hello", PARSE_ERROR, None),
    "half an escape": ('"\\ud8', PARSE_ERROR, None),
    "nested without end": ("[" * 100_000, PARSE_ERROR, None),
    "another encoding": (
        rpc("ping", 5).encode("utf-16").decode("utf-8", "replace"),
        PARSE_ERROR,
        None,
    ),
    "a batch": (f"[{rpc('ping', 1)}]", INVALID_REQUEST, None),
    "an empty batch": ("[]", INVALID_REQUEST, None),
    "no object": ("7", INVALID_REQUEST, None),
    "an empty object": ("{}", INVALID_REQUEST, None),
    **{
        f"an id that is {odd}": (
            f'{{"jsonrpc":"2.0","id":{odd},"method":"ping"}}',
            INVALID_REQUEST,
            None,
        )
        for odd in ("null", "true", "1.5", "1.0", "[1]", "{}")
    },
    "another version": ('{"jsonrpc":"1.0","id":5,"method":"ping"}', INVALID_REQUEST, 5),
    "params of the wrong kind": (
        '{"jsonrpc":"2.0","id":"five","method":"ping","params":[]}',
        INVALID_REQUEST,
        "five",
    ),
    "a wrong method": ('{"jsonrpc":"2.0","id":5,"method":["ping"]}', INVALID_REQUEST, 5),
}
"""line, code of the error, and the id of its reply"""


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_message_has_a_reply(name: str) -> None:
    line, code, request_id = BROKEN[name]
    with pytest.raises(NoMessage) as caught:
        parse_message(f"{line}\n")
    assert not isinstance(caught.value, NoReply)
    assert (caught.value.reply.error.code, caught.value.reply.id) == (code, request_id)


@pytest.mark.parametrize("line", ['{"jsonrpc":"2.0","error":{}}', '{"id":1,"result":7}'])
def test_what_is_meant_as_a_reply_has_none(line: str) -> None:
    with pytest.raises(NoReply):
        parse_message(line)


@pytest.mark.parametrize("quick", ["on", "off"])
def test_every_broken_line_is_replied_to_and_told_and_the_next_call_is_served(
    tmp_path: Path, quick: str
) -> None:
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "ARTA_QUICK_REPLIES": quick}
    lines = [initialize(1), INITIALIZED, *(line for line, *_ in BROKEN.values()), "", " ", CALL]
    with subprocess.Popen(
        [sys.executable, "-m", "arta_mcp"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(b"\xef\xbb\xbf" + "".join(f"{line}\n" for line in lines).encode())
        server.stdin.flush()
        replies = [json.loads(server.stdout.readline()) for _ in range(len(BROKEN) + 2)]
        rest, errors = server.communicate(rpc("ping", 5)[:-9].encode(), timeout=60)
    replies.append(json.loads(rest))
    broken = [(reply["error"]["code"], reply["id"]) for reply in replies if "error" in reply]
    assert broken == [*((code, number) for _, code, number in BROKEN.values()), (PARSE_ERROR, None)]
    assert sorted(reply["id"] for reply in replies if "result" in reply) == [1, 9]
    assert len(errors.decode().splitlines()) == len(broken), errors


@pytest.mark.parametrize("quick", ["on", "off"])
def test_a_request_with_half_an_emoji_is_answered(tmp_path: Path, quick: str) -> None:
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "ARTA_QUICK_REPLIES": quick}
    process = subprocess.Popen(
        [sys.executable, "-m", "arta_mcp"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{initialize(1)}\n{INITIALIZED}\n{CALL}\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.stdin.close()
        assert process.wait(20) == 0
    assert [answer["id"] for answer in answers] == [1, 9]
    assert answers[1]["result"]["structuredContent"]["backend"] == "local"


class HeldLines:
    """A wire with these lines, of which all but the first come when `rest` is set."""

    read_at = 0.0

    def __init__(self, *lines: str) -> None:
        self.lines, self.has_begun = [*lines], False
        self.rest, self.all_read = threading.Event(), threading.Event()

    def readline(self) -> str:
        if not self.lines:
            self.all_read.set()
            return ""
        if self.has_begun:
            self.rest.wait(10)
        self.has_begun = True
        return f"{self.lines.pop(0)}\n"

    def write(self, text: str, /) -> None: ...

    async def read_all(self) -> None:
        self.rest.set()
        await anyio.to_thread.run_sync(self.all_read.wait, 10)


def id_of(message: object) -> object:
    return getattr(message, "id", None)


@pytest.mark.anyio
async def test_a_ping_goes_before_the_calls_that_wait() -> None:
    calls = [rpc("tools/call", number, name="list_models", arguments={}) for number in (2, 3, 4)]
    wire = HeldLines(initialize(1), *calls, rpc("ping", 5), rpc("ping", 6))
    messages = aiter(MessagesAhead(wire))
    first, _ = await anext(messages)
    await wire.read_all()
    assert [id_of(first), *[id_of(found) async for found, _ in messages]] == [1, 5, 6, 2, 3, 4]


@pytest.mark.anyio
async def test_nothing_goes_before_the_opening() -> None:
    wire = HeldLines(initialize(1), rpc("ping", 2))
    messages = MessagesAhead(wire)
    await wire.read_all()
    assert [id_of(found) async for found, _ in messages] == [1, 2]
