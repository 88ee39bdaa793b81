"""Changes JSON with comments in place: every byte outside the change stays as it was.

Our own splice editor, because no library on PyPI would do: json-five takes the import name of
another package (json5) and needs trees built by hand, jsonc-edit starts Node and npm, the others
only read. No I/O happens here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from arta_mcp.cli.install import jsonc
from arta_mcp.untrusted_json import entries, is_object

Edit = tuple[int, int, str]
"""start, end, what comes in place of it"""


def set_in(text: str, path: Sequence[str], value: object) -> str:
    """The text with `value` at a path of keys; missing objects are made. Raises WrongKind."""
    document = jsonc.parse(text)
    if document.root is None:
        lead = text.rstrip(" \t\r\n")
        gap = _newline(text) if lead.strip("\ufeff") else ""
        return lead + gap + _whole(text, _nested(path, value))
    node = document.root
    for depth, key in enumerate(path):
        if node.kind != "object":
            raise jsonc.WrongKind(path[:depth], node.described(), "an object")
        child = node.named(key)
        if child is None:
            label = json.dumps(key, ensure_ascii=False)
            return _apply(text, _insert(document, node, label, _nested(path[depth + 1 :], value)))
        node = child.value
    flat = _Style.of(document).flat or "\n" not in text[node.start : node.end]
    flat = flat and node.kind != "value" and bool(node.children)
    shown = _render(value, _Style.of(document), _indent(text, node.start)[0], flat=flat)
    return _apply(text, [(node.start, node.end, shown)])


def append_in(text: str, path: Sequence[str], value: object) -> str:
    """The text with one more item in the array at `path`, which is made if missing."""
    document = jsonc.parse(text)
    node = document.at(path)
    if node is None:
        return set_in(text, path, [value])
    if node.kind != "array":
        raise jsonc.WrongKind(path, node.described(), "an array")
    return _apply(text, _insert(document, node, None, value))


def delete_in(text: str, path: Sequence[str]) -> str:
    """The text without the member at `path`, however often it occurs; comments stay."""
    while True:
        document = jsonc.parse(text)
        node = document.at(path[:-1])
        found = (
            [i for i, child in enumerate(node.children) if child.key == path[-1]] if node else []
        )
        if node is None or not found:
            return text
        text = _apply(text, _remove(document, node, found[-1]))


def delete_item(text: str, path: Sequence[str], index: int) -> str:
    """The text without one item of the array at `path`."""
    document = jsonc.parse(text)
    node = document.at(path)
    assert node is not None, "an item was found there"
    return _apply(text, _remove(document, node, index))


def veiled(text: str, kept: Sequence[tuple[int, int]], hidden: Sequence[tuple[int, int]]) -> str:
    """The text with `…` for every text value and comment outside `kept`, and for all of `hidden`.

    For showing a change without showing what else a file holds.
    """
    document = jsonc.parse(text)
    inside = [
        (node.start, node.end, '"…"')
        for node in _plain(document.root)
        if node.token.startswith('"') and not _within(node.start, [*kept, *hidden])
    ]
    notes: list[Edit] = []
    for start, end in document.comments:
        inner = end - 2 if text[start + 1] == "*" else end
        if not _within(start, kept):
            notes.append((start + 2, inner, re.sub(r"[^\r\n]+", "…", text[start + 2 : inner])))
    return _apply(text, [*inside, *notes, *((a, b, '"[redacted]"') for a, b in hidden)])


def _within(offset: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start <= offset < end for start, end in spans)


def _plain(node: jsonc.Node | None) -> Iterator[jsonc.Node]:
    if node is None:
        return
    if node.kind == "value":
        yield node
    for child in node.children:
        yield from _plain(child.value)


@dataclass(frozen=True, slots=True)
class _Style:
    """How a file is laid out, so that what is new looks like what is there."""

    newline: str
    unit: str
    flat: bool
    """the whole file is one line"""
    tight: bool
    """no blank after a colon"""

    @classmethod
    def of(cls, document: jsonc.Document) -> _Style:
        text, root = document.text, document.root
        first = root.children[0] if root and root.children else None
        unit = "  "
        if first:
            indent, alone = _indent(text, first.start)
            unit = indent if alone and indent else unit
        return cls(
            newline=_newline(text),
            unit=unit,
            flat=first is not None and "\n" not in text.strip(),
            tight=first is not None and text[first.value.start - 1] == ":",
        )


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _whole(text: str, value: object) -> str:
    style = _Style(_newline(text), "  ", flat=False, tight=False)
    return _render(value, style, "", flat=False) + style.newline


def _nested(path: Sequence[str], value: object) -> object:
    for key in reversed(path):
        value = {key: value}
    return value


def _indent(text: str, offset: int) -> tuple[str, bool]:
    """The blanks that the line of `offset` begins with, and whether nothing else is before it."""
    line = text[text.rfind("\n", 0, offset) + 1 : offset].removeprefix("\ufeff")
    stripped = line.lstrip(" \t")
    return line[: len(line) - len(stripped)], not stripped


def _render(value: object, style: _Style, indent: str, *, flat: bool) -> str:
    """The value as text; arrays of plain values stay on one line, as people write them."""
    deeper, colon = indent + style.unit, ":" if style.tight else ": "
    items = entries(value)
    if is_object(value) and value:
        opening, closing = "{", "}"
        parts = [
            json.dumps(key, ensure_ascii=False) + colon + _render(part, style, deeper, flat=flat)
            for key, part in value.items()
        ]
    elif items:
        opening, closing = "[", "]"
        flat = flat or not any(isinstance(item, dict | list) for item in items)
        parts = [_render(item, style, deeper, flat=flat) for item in items]
    else:
        return json.dumps(value, ensure_ascii=False)
    if flat:
        return opening + ("," if style.tight else ", ").join(parts) + closing
    lines = f",{style.newline}{deeper}".join(parts)
    return f"{opening}{style.newline}{deeper}{lines}{style.newline}{indent}{closing}"


def _apply(text: str, edits: Sequence[Edit]) -> str:
    done: list[str] = []
    at = 0
    for start, end, new in sorted(edits, key=lambda edit: edit[:2]):
        done += (text[at:start], new)
        at = end
    return "".join((*done, text[at:]))


def _insert(
    document: jsonc.Document, node: jsonc.Node, label: str | None, value: object
) -> list[Edit]:
    """One more child at the end of a container, after whatever comments stand there."""
    text, style = document.text, _Style.of(document)
    head = "" if label is None else label + (":" if style.tight else ": ")
    base = _indent(text, node.start)[0]
    last_note = max(
        (end for start, end in document.comments if node.start < start < node.end), default=0
    )
    if not node.children:
        if style.flat:
            return [(node.end - 1, node.end - 1, head + _render(value, style, base, flat=True))]
        indent = base + style.unit
        piece = style.newline + indent + head + _render(value, style, indent, flat=False)
        if not last_note:
            return [(node.start + 1, node.end - 1, piece + style.newline + base)]
        is_closed = "\n" in text[last_note : node.end]
        return [(last_note, last_note, piece + ("" if is_closed else style.newline + base))]
    first, last = node.children[0], node.children[-1]
    trails = len(node.commas) == len(node.children)
    end = node.commas[-1] + 1 if trails else last.end
    comma = "," if trails else ""
    if "\n" not in text[node.start : first.start]:
        piece = ("" if style.tight else " ") + head + _render(value, style, base, flat=True)
        return [(end, end, ("" if trails else ",") + piece + comma)]
    indent, alone = _indent(text, first.start)
    indent = indent if alone else base + style.unit
    piece = style.newline + indent + head + _render(value, style, indent, flat=False) + comma
    place = max(end, last_note)
    if trails:
        return [(place, place, piece)]
    if place == end:
        return [(end, end, "," + piece)]
    return [(end, end, ","), (place, place, piece)]


def _remove(document: jsonc.Document, node: jsonc.Node, index: int) -> list[Edit]:
    """Takes one child out with its comma and, where it stood alone, its line."""
    text, child = document.text, node.children[index]
    low, high = child.start, child.end
    edits: list[Edit] = []
    own = node.commas[index] if index < len(node.commas) else None
    before = node.commas[index - 1] if own is None and index > 0 else None
    if own is not None and not text[high:own].strip():
        high = own + 1
    elif own is not None:
        edits.append((own, own + 1, ""))
    if before is not None:
        edits.append((before, before + 1, ""))
    rest = text[node.start + 1 : low] + text[high : node.end - 1]
    if len(node.children) == 1 and not rest.strip():
        return [(node.start + 1, node.end - 1, "")]
    after = high + len(text[high:]) - len(text[high:].lstrip(" \t"))
    ends_line = after == len(text) or text[after] in "\r\n"
    indent, alone = _indent(text, low)
    if alone and ends_line:
        start = low - len(indent) - 1
        low, high = start - (text[start - 1] == "\r"), after
    elif not alone and own is not None and not ends_line:
        high = after
    elif not alone:
        low = len(text[:low].rstrip(" \t"))
    return [*edits, (low, high, "")]
