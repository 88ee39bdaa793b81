"""Refusals: what either host answers instead of what was asked for.

Google's error object (identity host) and FastAPI's `detail` (image host), with empty, HTML and
broken bodies among them. No I/O happens here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

from arta_mcp.redaction import MAX_QUOTED, sanitize
from arta_mcp.styles import MAX_STYLES, is_style_name
from arta_mcp.untrusted_json import excerpt, is_object, json_or_none, list_or_empty, text

_STATUSES = (
    *("INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_FOUND", "ABORTED"),
    *("RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN"),
)
_BESIDE = {
    **{status: status for status in _STATUSES},
    "API_KEY_INVALID": "INVALID_ARGUMENT",
    **dict.fromkeys(
        (
            *("API_KEY_ANDROID_APP_BLOCKED", "API_KEY_IOS_APP_BLOCKED", "API_KEY_SERVICE_BLOCKED"),
            *("API_KEY_HTTP_REFERRER_BLOCKED", "SERVICE_DISABLED"),
        ),
        "PERMISSION_DENIED",
    ),
}
"""Google's codes that stand beside a sentence instead of in it, with the `status` of each"""

# The list ends the message: what a style that imitates a refusal brings along stands before it.
# Possessive repeats, so that a message that is nearly a refusal is given up in linear time.
_LITERAL = r"""(?:'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")"""
_VALID_STYLES = re.compile(rf"not in (?:frozenset\()?\{{({_LITERAL}(?:, ?{_LITERAL})*+)\}}\)?\s*\Z")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is an error, from either host.

    `code` is Google's (`USER_DISABLED`), empty for the image host; `words` are safe to show,
    `detail` is raw; `retry_after` is in seconds.
    """

    status: int
    words: str = ""
    code: str = ""
    retry_after: float | None = None
    detail: object = field(default=None, compare=False)

    @classmethod
    def parse(
        cls, status: int, headers: Mapping[str, str], body: bytes, *, now: float = 0.0
    ) -> Refusal:
        """Never raises: a body that is empty, HTML or broken is itself the message.

        `now` is the time in seconds since the epoch, for a `Retry-After` that is a date; the
        service's own `Date` goes before it, since their clocks need not agree.
        """
        sent_at = _parse_date(headers.get("date", ""))
        retry_after = parse_retry_after(
            headers.get("retry-after"), now=now if sent_at is None else sent_at
        )
        answer = json_or_none(body)
        error = answer.get("error") if is_object(answer) else None
        if is_object(error):
            code, words = _google_words(error)
            return cls(status, sanitize(words), sanitize(code, 80), retry_after)
        detail = answer.get("detail") if is_object(answer) else None
        if detail is not None:
            return cls(status, sanitize(detail_words(detail)), "", retry_after, detail)
        return cls(status, excerpt(body, MAX_QUOTED), "", retry_after)

    @property
    def valid_styles(self) -> tuple[str, ...]:
        """The wire styles that the refusal of a style lists; () for any other refusal."""
        # Read from the whole: the words that are shown are cut.
        return styles_in_refusal(detail_words(self.detail))

    def render(self) -> dict[str, object]:
        """The body in the style of the host that refuses: Google's when there is a code."""
        if not self.code:
            return {"detail": self.detail if self.detail is not None else self.words}
        state, message, reason = _BESIDE.get(self.code), self.words, "invalid"
        if state is not None:
            reason = "forbidden" if self.status == 403 else "badRequest"
        else:
            message = f"{self.code} : {self.words}" if self.words else self.code
        entry = {"message": message, "domain": "global", "reason": reason}
        error: dict[str, object] = {"code": self.status, "message": message, "errors": [entry]}
        if state is not None:
            error["status"] = state
        if state not in (None, self.code):
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": self.code}
            error["details"] = [info]
        return {"error": error}


def style_refusal(style: str, valid: list[str]) -> Refusal:
    """What the service answers to a style outside its set; the message lists every valid one."""
    names = ", ".join(repr(name) for name in valid)
    message = f"Value error, Style {style} not in frozenset({{{names}}})"
    detail: list[dict[str, object]] = [
        {"type": "value_error", "loc": ["body", "style"], "msg": message, "input": style, "ctx": {}}
    ]
    return Refusal(status=422, words=message, detail=detail)


def styles_in_refusal(message: str) -> tuple[str, ...]:
    """The valid names that a `style_refusal` lists, sorted; () for anything else.

    A list cut short is anything else: taken for the whole, it would retire living styles. So is
    one of over MAX_STYLES names; what can be no name is left out.
    """
    refusal = _VALID_STYLES.search(message)
    if refusal is None:
        return ()
    literals: list[str] = re.findall(_LITERAL, refusal[1])
    # repr escapes quotes, backslashes and what cannot be printed; no name has any of the last.
    names = {re.sub(r"\\(.)", r"\1", literal[1:-1]) for literal in literals}
    return tuple(sorted(filter(is_style_name, names))) if len(names) <= MAX_STYLES else ()


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Seconds to wait, from seconds or an HTTP date (RFC 9110, 10.2.3), else None."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        date = _parse_date(value)
        if date is None:
            return None
        seconds = date - now
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _parse_date(value: str) -> float | None:
    """An HTTP date in seconds since the epoch; the form without a zone is in UTC as well."""
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _google_words(error: Mapping[str, object]) -> tuple[str, str]:
    """Google's message is `CODE`, `CODE : detail`, or a sentence; a reason may stand beside it."""
    message = text(error, "message")
    code, _, words = message.partition(" : ")
    if code.replace("_", "").isupper() and " " not in code:
        return code, words
    for entry in list_or_empty(error.get("details")):
        if is_object(entry) and text(entry, "reason"):
            return text(entry, "reason"), message
    return text(error, "status") or "UNKNOWN", message


def detail_words(detail: object) -> str:
    """FastAPI's `detail`: a string, or a list of `{loc, msg}`."""
    if isinstance(detail, str):
        return detail
    if not list_or_empty(detail):
        return json.dumps(detail, ensure_ascii=False, default=str)
    words: list[str] = []
    for entry in list_or_empty(detail):
        if is_object(entry) and text(entry, "msg"):
            where = str((list_or_empty(entry.get("loc")) or [""])[-1])
            words.append(f"{where}: {text(entry, 'msg')}" if where else text(entry, "msg"))
        else:
            words.append(json.dumps(entry, ensure_ascii=False, default=str))
    return "; ".join(words)
