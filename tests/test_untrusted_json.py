from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arta_mcp.errors import ProtocolError
from arta_mcp.redaction import MAX_QUOTED, Secret
from arta_mcp.untrusted_json import (
    MAX_DEPTH,
    excerpt,
    is_object,
    json_or_none,
    list_or_empty,
    read_object,
    text,
    words_or_none,
)

any_text = st.text(st.characters())  # with lone surrogates, which JSON can say
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)


def nested(levels: int, opening: str = "[", closing: str = "]", inside: str = "1") -> bytes:
    return (opening * levels + inside + closing * levels).encode()


def test_an_object_is_read_in_any_of_jsons_encodings() -> None:
    for encoding in ("utf-8", "utf-16", "utf-32"):
        assert read_object('{"ä": [1, null]}'.encode(encoding)) == {"ä": [1, None]}


@pytest.mark.parametrize("body", [b"", b" \r\n\t"])
def test_an_empty_body_is_called_empty(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_object(body)
    assert str(caught.value) == "the service answered with an empty body"


@pytest.mark.parametrize("body", [b"<h1>Bad\n gateway</h1>", b"[1]", b'"a"', b"\xff\xfe\x00", b"{"])
def test_what_is_no_object_is_shown_in_one_short_line(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="the service answered with no JSON object") as caught:
        read_object(body * 1000)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_what_is_shown_of_a_body_is_redacted_before_it_is_cut() -> None:
    Secret("sentinel-in-a-body")
    for blanks in range(360, 420):
        shown = excerpt(b" " * blanks + b"sentinel-in-a-body", 100)
        assert shown in ("", "[redacted]"[: len(shown)])


def test_nesting_is_read_down_to_a_level_that_is_safe_to_write_out() -> None:
    assert json_or_none(nested(MAX_DEPTH)) is not None
    assert json_or_none(nested(MAX_DEPTH + 1)) is None
    assert json_or_none(nested(MAX_DEPTH + 1, '{"a":', "}")) is None


@given(st.integers(800, 1100))
@settings(max_examples=50, deadline=None)
def test_no_depth_overflows_the_stack(levels: int) -> None:
    assert json_or_none(nested(levels)) is None
    assert json_or_none(nested(levels, '{"a":[', "]}")) is None


def test_a_megabyte_of_anything_is_read_in_bounded_time() -> None:
    begun = time.process_time()
    for body in (nested(500_000), b"[" * 1_000_000, b"[" + b"0," * 500_000 + b"0]", b"9" * 10**6):
        json_or_none(body)
    assert time.process_time() - begun < 4


@given(st.binary() | any_json.map(lambda value: json.dumps(value).encode()))
@settings(deadline=None)
def test_any_body_is_an_object_or_a_protocol_error(body: bytes) -> None:
    said = ""
    try:
        assert is_object(read_object(body))
    except ProtocolError as exc:
        said = str(exc)
    assert said.isprintable()


@given(st.dictionaries(st.sampled_from("abc"), any_json), st.sampled_from("abc"))
def test_a_field_is_its_text_or_empty(answer: dict[str, object], name: str) -> None:
    value = answer.get(name)
    assert text(answer, name) == (value if isinstance(value, str) else "")


@given(any_json)
def test_a_list_is_itself_and_anything_else_an_empty_one(value: object) -> None:
    assert list_or_empty(value) == (value if isinstance(value, list) else [])


@given(any_json)
def test_a_field_of_any_type_becomes_words_that_can_be_shown(value: object) -> None:
    words = words_or_none(value)
    if value is None:
        assert words is None
    else:
        assert words is not None
        assert words.isprintable()
        assert len(words) <= MAX_QUOTED


def test_words_are_those_of_the_service_and_json_for_other_types() -> None:
    assert words_or_none("not safe") == "not safe"
    assert words_or_none(1003) == "1003"
    assert words_or_none({"reason": "ä"}) == '{"reason": "ä"}'
    assert words_or_none(False) == "false"
