"""Editing JSON with comments: what is not part of the change keeps every byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arta_mcp.cli.install import jsonc
from arta_mcp.cli.install import jsonc_edit as splice
from arta_mcp.untrusted_json import entries, is_object

SAMPLES = sorted((Path(__file__).parents[1] / "hosts").glob("*.json"))
ENTRY = {"command": "/opt/bin/arta-mcp", "args": ["-m", "é"], "env": {"A": 'quo"te'}, "none": []}

BLANKS = st.sampled_from(
    ["", " ", "\n", "\r\n", "\t", "\n    ", "// {\n", "/* , } */", '\n  // "x": 1,\n', "/*\n*/\n"]
)
KEYS = st.sampled_from(["mcpServers", "arta", "a", "ключ", "", 'q"', "x:y"])
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    KEYS,
)


@st.composite
def containers(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    """The text of an object or array with anything between its parts."""
    is_object = draw(st.booleans())
    parts: list[str] = []
    for value in draw(st.lists(values, max_size=4)):
        key = json.dumps(draw(KEYS)) + draw(BLANKS) + ":" + draw(BLANKS) if is_object else ""
        parts.append(draw(BLANKS) + key + value + draw(BLANKS))
    inside = ",".join(parts) + (draw(st.sampled_from(["", ","])) if parts else "") + draw(BLANKS)
    return "{" + inside + "}" if is_object else "[" + inside + "]"


VALUES = st.recursive(PLAIN.map(json.dumps), containers, max_leaves=12)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A whole file whose root is an object."""
    root = draw(containers(VALUES).filter(lambda text: text.startswith("{")))
    bom = draw(st.sampled_from(["", "\ufeff"]))
    return bom + draw(BLANKS) + root + draw(BLANKS)


def data(text: str) -> object:
    root = jsonc.parse(text).root
    return root.data() if root else None


def notes(text: str) -> list[str]:
    return [text[start:end] for start, end in jsonc.parse(text).comments]


def is_within(part: str, whole: str) -> bool:
    """Whether `whole` is `part` with something put in."""
    rest = iter(whole)
    return all(char in rest for char in part)


@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_plain_json_is_read_as_the_standard_library_reads_it(value: object) -> None:
    assert data(json.dumps(value)) == value
    assert data(json.dumps(value, indent=1, ensure_ascii=False)) == value


@given(st.text(alphabet='{}[]",:/*\n\\ a1-.e+tnu\ufeff', max_size=30))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    try:
        document = jsonc.parse(text)
    except jsonc.NotJson as exc:
        line, column = exc.line, exc.column
    else:
        line, column = 1, 1
        if document.root and not document.extras and not text.startswith("\ufeff"):
            assert json.loads(text) == document.root.data()
    assert 1 <= line <= text.count("\n") + 1
    assert 1 <= column <= len(text) + 1


@given(texts())
def test_setting_a_member_changes_nothing_else(text: str) -> None:
    before = data(text)
    assert is_object(before)
    after = splice.set_in(text, ("arta",), ENTRY)
    assert data(after) == {**before, "arta": ENTRY}
    if "arta" not in before:
        assert notes(after) == notes(text)
        root = jsonc.parse(text).root
        assert root is not None
        if root.children or notes(text[root.start : root.end]):
            assert is_within(text, after), "only insertions"


@given(texts())
def test_deleting_a_member_changes_nothing_else_and_keeps_every_comment_outside_it(
    text: str,
) -> None:
    before = data(text)
    assert is_object(before)
    after = splice.delete_in(text, ("arta",))
    assert data(after) == {key: before[key] for key in before if key != "arta"}
    assert is_within(after, text), "only deletions"
    if "arta" not in before:
        assert after == text
    root = jsonc.parse(text).root
    assert root is not None
    doomed = [child for child in root.children if child.key == "arta"]
    outside = [
        text[start:end]
        for start, end in jsonc.parse(text).comments
        if not any(child.start < start < child.end for child in doomed)
    ]
    assert notes(after) == outside


@given(texts())
def test_what_was_added_can_be_taken_away_again(text: str) -> None:
    before = data(text)
    assert is_object(before)
    if "arta" in before:
        return
    back = splice.delete_in(splice.set_in(text, ("arta",), ENTRY), ("arta",))
    assert data(back) == before
    assert notes(back) == notes(text)


@given(texts())
def test_a_second_setting_changes_nothing(text: str) -> None:
    once = splice.set_in(text, ("arta",), ENTRY)
    assert data(splice.set_in(once, ("arta",), ENTRY)) == data(once)


@given(containers(VALUES).filter(lambda text: text.startswith("[")))
def test_an_item_is_added_to_an_array_and_taken_away_again(array: str) -> None:
    text = '{"inputs": ' + array + "}"
    items = entries(data(array))
    after = splice.append_in(text, ("inputs",), ENTRY)
    assert data(after) == {"inputs": [*items, ENTRY]}
    back = splice.delete_item(after, ("inputs",), len(items))
    assert data(back) == {"inputs": items}
    assert notes(back) == notes(text)


@given(texts())
def test_a_veiled_text_has_the_same_keys_and_lines_but_no_text_values(text: str) -> None:
    shown = splice.veiled(text, (), ())
    assert shown.count("\n") == text.count("\n")
    assert not any(isinstance(value, str) and value != "…" for value in leaves(data(shown)))


def leaves(value: object) -> list[object]:
    inner = list(value.values()) if is_object(value) else entries(value)
    return [leaf for part in inner for leaf in leaves(part)] or [value]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_adding_and_deleting_a_server_gives_back_the_same_bytes(path: Path, newline: str) -> None:
    text = path.read_bytes().decode().replace("\n", newline)
    servers = next((k for k in ("mcpServers", "servers") if f'\n  "{k}' in text), "context_servers")
    places = [(), (servers,)] if jsonc.parse(text).at((servers,)) else [()]
    for place in places:
        added = splice.set_in(text, (*place, "arta"), ENTRY)
        assert splice.delete_in(added, (*place, "arta")) == text or data(text) == {"mcpServers": {}}
        assert added.replace("\r\n", "").count("\n") == (
            0 if newline == "\r\n" else added.count("\n")
        )


LAYOUTS = {
    "nothing": ("", '{\n  "s": {\n    "arta": {\n      "args": []\n    }\n  }\n}\n'),
    "blanks": (" \n\n", '{\n  "s": {\n    "arta": {\n      "args": []\n    }\n  }\n}\n'),
    "a comment": ("// c\n", '// c\n{\n  "s": {\n    "arta": {\n      "args": []\n    }\n  }\n}\n'),
    "an empty object": ("{}", '{\n  "s": {\n    "arta": {\n      "args": []\n    }\n  }\n}'),
    "one line": ('{"s": {"a": 1}}', '{"s": {"a": 1, "arta": {"args": []}}}'),
    "one tight line": ('{"s":{"a":1}}', '{"s":{"a":1,"arta":{"args":[]}}}'),
    "one line that trails": ('{"s": {"a": 1,}}', '{"s": {"a": 1, "arta": {"args": []},}}'),
    "an empty object in a line": ('{"s":{}}', '{"s":{"arta":{"args":[]}}}'),
    "tabs": (
        '{\n\t"s": {\n\t\t"a": 1\n\t}\n}',
        '{\n\t"s": {\n\t\t"a": 1,\n\t\t"arta": {\n\t\t\t"args": []\n\t\t}\n\t}\n}',
    ),
    "a trailing comma and a comment": (
        '{\n  "s": {\n    "a": 1, // why\n  },\n}',
        '{\n  "s": {\n    "a": 1, // why\n    "arta": {\n      "args": []\n    },\n  },\n}',
    ),
    "a comment and no trailing comma": (
        '{\n  "s": {\n    "a": 1 // why\n  }\n}',
        '{\n  "s": {\n    "a": 1, // why\n    "arta": {\n      "args": []\n    }\n  }\n}',
    ),
    "only a comment": (
        '{\n  "s": {\n    // none yet\n  }\n}',
        '{\n  "s": {\n    // none yet\n    "arta": {\n      "args": []\n    }\n  }\n}',
    ),
    "twice the same key": (
        '{\n  "s": {"b": 1},\n  "s": {"a": 1}\n}',
        '{\n  "s": {"b": 1},\n  "s": {"a": 1, "arta": {"args": []}}\n}',
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_added_looks_like_what_is_there(name: str) -> None:
    text, expected = LAYOUTS[name]
    assert splice.set_in(text, ("s", "arta"), {"args": list[str]()}) == expected


def test_a_value_is_replaced_where_it_stands() -> None:
    text = '{\n  "a": 1, // one\n  "arta": {"old": true}, // ours\n  "b": 2\n}'
    expected = '{\n  "a": 1, // one\n  "arta": {"new": 0}, // ours\n  "b": 2\n}'
    assert splice.set_in(text, ("arta",), {"new": 0}) == expected


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ('{\n  "a": 1\n  "b": 2\n}', (3, 3), "a string stands here, expected , or }"),
        ('{"a": ', (1, 7), "the file ends, expected a value"),
        ('{"a": [1, 2}', (1, 12), "} stands here, expected , or ]"),
        ("{\n  a: 1}", (2, 3), "'a' does not belong here"),
        ('{"a": "b\n"}', (1, 7), "a text without an end, or with a wrong escape"),
        ('{"a": 1 /* b }', (1, 9), "a comment without an end"),
        ('{,"a": 1}', (1, 2), ", stands here, expected a key in double quotes"),
        ('{"a" 1}', (1, 6), "a number stands here, expected :"),
        ("{} {}", (1, 4), "{ stands here, expected the end of the file"),
        ('{"a": ' + "[" * 300, (1, 207), "nested deeper than 200 levels"),
    ],
)
def test_a_broken_text_is_refused_where_it_breaks(
    text: str, place: tuple[int, int], reason: str
) -> None:
    with pytest.raises(jsonc.NotJson) as caught:
        jsonc.parse(text)
    assert (caught.value.line, caught.value.column) == place
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "the whole file is an array, not an object"),
        ('"x"', "the whole file is a text, not an object"),
        ('{"s": null}', "s is null, not an object"),
        ('{"s": [1]}', "s is an array, not an object"),
    ],
)
def test_nothing_is_put_into_what_is_no_object(text: str, sentence: str) -> None:
    with pytest.raises(jsonc.WrongKind, match=sentence):
        splice.set_in(text, ("s", "arta"), {})
