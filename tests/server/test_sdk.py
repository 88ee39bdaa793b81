"""Half an emoji in a request does not cost the host its reply."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arta_mcp.server.sdk import repair_surrogates
from test_quick_replies import INITIALIZED, initialize, rpc

CALL = rpc("tools/call", 9, name="list_models", arguments={"search": "flux \ud83e"})
"""written as `JSON.stringify` does it, with half of the fox as an escape"""


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
    assert json.loads(repair_surrogates(f'{{"prompt": "{escaped}"}}\n')) == {"prompt": text}


@given(st.recursive(st.text() | st.integers() | st.none(), lambda t: st.lists(t, max_size=3)))
def test_what_is_whole_stays_byte_for_byte(value: object) -> None:
    for ascii_only in (True, False):
        line = json.dumps(value, ensure_ascii=ascii_only) + "\n"
        assert repair_surrogates(line) == line


@pytest.mark.parametrize("line", ["", "\n", "\\ud83e", "{not json \\ud8", "[" * 100_000 + "\\ud8"])
def test_what_is_no_json_is_left_to_the_sdk(line: str) -> None:
    assert repair_surrogates(line) == line


@pytest.mark.parametrize("quick", ["on", "off"])
def test_a_request_with_half_an_emoji_is_answered(tmp_path: Path, quick: str) -> None:
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "ARTA_FRONT_DESK": quick}
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
