"""Reads JSON with comments and trailing commas, and remembers where everything stands.

No I/O happens here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["object", "array", "value"]

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
    extras: tuple[int, ...] = ()
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
        root = self._value(0) if self._token else None
        if self._token:
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
