"""Reading JSON from outside: any bytes give a value or a ProtocolError.

No I/O happens here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeGuard

from arta_mcp.errors import ProtocolError
from arta_mcp.redaction import sanitize

MAX_DEPTH = 100
"""levels of lists and objects within each other: more than any answer has; all walks are safe"""


def read_object(body: bytes) -> dict[str, object]:
    """The JSON object in an answer; ProtocolError for anything else."""
    if not body.strip():
        raise ProtocolError("the service answered with an empty body")
    answer = json_or_none(body)
    if not is_object(answer):
        raise ProtocolError(f"the service answered with no JSON object: {excerpt(body, 120)}")
    return answer


def json_or_none(body: bytes) -> object:
    """The parsed body, None when it is not JSON (or nested beyond reason)."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):  # a kilobyte of `[` is enough for the second
        return None
    # What walks or writes the answer later may have less stack left than json.loads had here.
    # Most answers have too few brackets to be deep, and need no walk to see it.
    may_be_deep = body.count(b"[") + body.count(b"{") > MAX_DEPTH
    return None if may_be_deep and _is_deeper(answer, MAX_DEPTH) else answer


def excerpt(body: bytes, limit: int) -> str:
    """The beginning of a body that is no answer: one line of at most `limit` characters."""
    return sanitize(body.decode("utf-8", "replace"), limit)


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Whether a parsed value is a JSON object; the names of such a one are always texts."""
    return isinstance(value, dict)


def list_or_empty(value: object) -> list[object]:
    """The elements of a list; none when it is no list."""
    return list(value) if _is_list(value) else []


def text(answer: Mapping[str, object], name: str) -> str:
    """The field when it is a string, else the empty string."""
    value = answer.get(name)
    return value if isinstance(value, str) else ""


def words_or_none(value: object) -> str | None:
    """A field of any type as one line of text that is safe to show; None stays None."""
    if value is None:
        return None
    return sanitize(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _is_deeper(value: object, levels: int) -> bool:
    """Level by level and not by recursion, which is what it guards against."""
    level = [value]
    for _ in range(levels):
        inside = [
            child
            for parent in level
            for child in (parent.values() if is_object(parent) else list_or_empty(parent))
        ]
        level = [child for child in inside if is_object(child) or _is_list(child)]
        if not level:
            return False
    return True


def _is_list(value: object) -> TypeGuard[list[object] | tuple[object, ...]]:
    return isinstance(value, list | tuple)
