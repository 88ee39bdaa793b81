"""Edits JSON with comments and trailing commas; every byte outside the change stays as it was.

Our own splice editor, because no library on PyPI would do: json-five takes the import name of
another package (json5) and needs whole trees built by hand, jsonc-edit starts Node and npm, the
others only read. No I/O happens here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["object", "array", "value"]
Edit = tuple[int, int, str]
"""start, end, what comes in place of it"""

DEEPEST = 200
"""levels of nesting that are read"""

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]++)
      | (?P<comment>//[^\r\n]*+|/\*.*?\*/)
      | (?P<string>"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+")
      | (?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)
      | (?P<word>true|false|null)
      | (?P<mark>[{}\[\]:,])""",
    re.VERBOSE | re.DOTALL,
)


class NotJson(ValueError):
    """The text cannot be read; `line` and `column` count from 1."""

    def __init__(self, text: str, offset: int, reason: str) -> None:
        self.line, self.column = position(text, offset)
        self.reason = reason
        super().__init__(f"line {self.line}, column {self.column}: {reason}")


class WrongKind(ValueError):
    """What `path` leads to is a `kind` where something else is needed."""

    def __init__(self, path: Sequence[str], kind: str, needed: str) -> None:
        self.path, self.kind, self.needed = tuple(path), kind, needed
        where = ".".join(path) or "the whole file"
        super().__init__(f"{where} is {kind}, not {needed}")


@dataclass(frozen=True, slots=True)
class Node:
    """One value and where it stands."""

    kind: Kind
    start: int
    end: int
    token: str = ""
    """the text of a plain value; nothing for an object or array"""
    children: tuple[Child, ...] = ()
    commas: tuple[int, ...] = ()
    """where the comma after each child stands; as many as children when the last one trails"""

    def named(self, key: str) -> Child | None:
        """The last child of this name: the one that readers see."""
        return next((child for child in reversed(self.children) if child.key == key), None)

    def data(self) -> object:
        """The plain Python value."""
        if self.kind == "object":
            return {child.key: child.value.data() for child in self.children}
        if self.kind == "array":
            return [child.value.data() for child in self.children]
        try:
            return json.loads(self.token)
        except ValueError:  # a number of thousands of digits
            return self.token

    def described(self) -> str:
        if self.kind != "value":
            return f"an {self.kind}"
        words = {'"': "a text", "n": "null", "t": "true", "f": "false"}
        return words.get(self.token[0], "a number")


@dataclass(frozen=True, slots=True)
class Child:
    """A member of an object, or an item of an array (no key); starts at its key."""

    start: int
    key: str | None
    value: Node

    @property
    def end(self) -> int:
        return self.value.end


@dataclass(frozen=True, slots=True)
class Document:
    """A text that was read; `root` is None when it holds no value at all."""

    text: str
    root: Node | None
    comments: tuple[tuple[int, int], ...]
    extras: tuple[int, ...] = field(default=())
    """where something stands that plain JSON does not have: a comment, a trailing comma"""

    def at(self, path: Sequence[str]) -> Node | None:
        node = self.root
        for key in path:
            child = node.named(key) if node else None
            node = child.value if child else None
        return node


def position(text: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset, from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def parse(text: str) -> Document:
    """Raises NotJson."""
    return _Reader(text).document()


def set_in(text: str, path: Sequence[str], value: object) -> str:
    """The text with `value` at a path of keys; missing objects are made. Raises WrongKind."""
    document = parse(text)
    if document.root is None:
        nested = _nested(path, value)
        lead = text if not text.strip("\ufeff \t\r\n") else text.rstrip() + _newline(text)
        return f"{lead.rstrip(' \t\r\n') if not lead.strip() else lead}" + _whole(text, nested)
    node = document.root
    for depth, key in enumerate(path):
        if node.kind != "object":
            raise WrongKind(path[:depth], node.described(), "an object")
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
    document = parse(text)
    node = document.at(path)
    if node is None:
        return set_in(text, path, [value])
    if node.kind != "array":
        raise WrongKind(path, node.described(), "an array")
    return _apply(text, _insert(document, node, None, value))


def delete_in(text: str, path: Sequence[str]) -> str:
    """The text without the member at `path`, however often it occurs; comments stay."""
    while True:
        document = parse(text)
        node = document.at(path[:-1])
        found = [i for i, child in enumerate(node.children) if child.key == path[-1]] if node else []
        if node is None or not found:
            return text
        text = _apply(text, _remove(document, node, found[-1]))


def delete_item(text: str, path: Sequence[str], index: int) -> str:
    """The text without one item of the array at `path`."""
    document = parse(text)
    node = document.at(path)
    assert node is not None, "an item was found there"
    return _apply(text, _remove(document, node, index))


def veiled(text: str, kept: Sequence[tuple[int, int]], hidden: Sequence[tuple[int, int]]) -> str:
    """The text with `…` for every text value and comment outside `kept`, and for all of `hidden`.

    For showing a change without showing what else a file holds.
    """
    document = parse(text)
    inside = [
        (node.start, node.end, '"…"')
        for node in _plain(document.root)
        if node.token.startswith('"') and not _within(node.start, [*kept, *hidden])
    ]
    notes = [
        (start, end, text[start : start + 2] + re.sub(r"[^\r\n]+", "…", text[start + 2 : end]))
        for start, end in document.comments
        if not _within(start, kept)
    ]
    return _apply(text, [*inside, *notes, *((a, b, '"[redacted]"') for a, b in hidden)])


def _within(offset: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start <= offset < end for start, end in spans)


def _plain(node: Node | None) -> Iterator[Node]:
    if node is None:
        return
    if node.kind == "value":
        yield node
    for child in node.children:
        yield from _plain(child.value)


@dataclass(slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


class _Reader:
    """A recursive reader over tokens; comments are noted and passed over."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 1 if text.startswith("\ufeff") else 0
        self._comments: list[tuple[int, int]] = []
        self._extras: list[int] = []
        self._token = self._next()

    def document(self) -> Document:
        root = None
        if self._token is not None:
            root = self._value(0)
            if self._token is not None:
                raise self._unexpected("the end of the file")
        return Document(self._text, root, tuple(self._comments), tuple(sorted(self._extras)))

    def _next(self) -> _Token | None:
        while self._at < len(self._text):
            match = _TOKEN.match(self._text, self._at)
            if match is None:
                raise NotJson(self._text, self._at, self._unreadable())
            start, self._at = self._at, match.end()
            if match.lastgroup == "comment":
                self._comments.append(match.span())
                self._extras.append(start)
            elif match.lastgroup != "blank":
                return _Token(str(match.lastgroup), match[0], start, self._at)
        return None

    def _unreadable(self) -> str:
        if self._text.startswith("/*", self._at):
            return "a comment without an end"
        if self._text[self._at] == '"':
            return "a text without an end, or with a wrong escape"
        return f"{self._text[self._at]!r} does not belong here"

    def _take(self) -> _Token:
        token = self._token
        if token is None:
            raise self._unexpected("a value")
        self._token = self._next()
        return token

    def _unexpected(self, wanted: str) -> NotJson:
        if self._token is None:
            return NotJson(self._text, len(self._text), f"the file ends, expected {wanted}")
        shown = self._token.text if self._token.kind == "mark" else f"a {self._token.kind}"
        return NotJson(self._text, self._token.start, f"{shown} stands here, expected {wanted}")

    def _value(self, depth: int) -> Node:
        token = self._token
        if token is None or token.text in ("}", "]", ":", ","):
            raise self._unexpected("a value")
        if depth > DEEPEST:
            raise NotJson(self._text, token.start, f"nested deeper than {DEEPEST} levels")
        self._take()
        match token.text:
            case "{":
                return self._container("object", "}", token.start, depth)
            case "[":
                return self._container("array", "]", token.start, depth)
            case _:
                return Node("value", token.start, token.end, token.text)

    def _container(self, kind: Kind, close: str, start: int, depth: int) -> Node:
        children: list[Child] = []
        commas: list[int] = []
        while not self._is(close):
            if len(commas) < len(children):
                raise self._unexpected(f", or {close}")
            children.append(self._child(kind, depth))
            if self._is(","):
                commas.append(self._take().start)
        if children and len(commas) == len(children):
            self._extras.append(commas[-1])
        return Node(kind, start, self._take().end, "", tuple(children), tuple(commas))

    def _is(self, mark: str) -> bool:
        return self._token is not None and self._token.text == mark

    def _child(self, kind: Kind, depth: int) -> Child:
        if kind == "array":
            value = self._value(depth + 1)
            return Child(value.start, None, value)
        if self._token is None or self._token.kind != "string":
            raise self._unexpected("a key in double quotes")
        key = self._take()
        if not self._is(":"):
            raise self._unexpected(":")
        self._take()
        return Child(key.start, json.loads(key.text), self._value(depth + 1))


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
    def of(cls, document: Document) -> _Style:
        text, root = document.text, document.root
        first = root.children[0] if root and root.children else None
        unit = "  "
        if first:
            indent, alone = _indent(text, first.start)
            unit = indent if alone and indent else unit
        colon = text.find(":", first.start + len(first.key or "")) if first else -1
        return cls(
            newline=_newline(text),
            unit=unit,
            flat=first is not None and "\n" not in text.strip(),
            tight=first is not None and colon + 1 == first.value.start,
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
    match value:
        case Mapping() if value:
            named: Mapping[str, object] = value
            parts = [
                f"{json.dumps(key, ensure_ascii=False)}{colon}"
                + _render(part, style, deeper, flat=flat)
                for key, part in named.items()
            ]
            opening, closing = "{", "}"
        case list() if value:
            items: list[object] = value
            flat = flat or not any(isinstance(item, Mapping | list) for item in items)
            parts = [_render(item, style, deeper, flat=flat) for item in items]
            opening, closing = "[", "]"
        case _:
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


def _insert(document: Document, node: Node, label: str | None, value: object) -> list[Edit]:
    """One more child at the end of a container, after whatever comments stand there."""
    text, style = document.text, _Style.of(document)
    head = "" if label is None else label + (":" if style.tight else ": ")
    base = _indent(text, node.start)[0]
    last_note = max((end for start, end in document.comments if node.start < start < node.end), default=0)
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


def _remove(document: Document, node: Node, index: int) -> list[Edit]:
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
