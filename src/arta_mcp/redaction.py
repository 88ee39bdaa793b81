"""Secrets and other people's text: what must not be shown, and what may be shown of the rest.

No I/O happens here.
"""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from dataclasses import dataclass
from urllib.parse import quote
from weakref import WeakValueDictionary

MAX_QUOTED = 500
"""characters of text from outside that an error quotes at most"""

MAX_ID = 200
"""characters of an id; those of the service that were captured are UUIDs"""

MIN_SECRET = 6
"""characters; replacing anything shorter would mangle ordinary words"""

MIN_PREFIX = 16
"""characters of a token that was cut, by which it is still known; fewer are of no use to anybody"""

MAX_ENDED = 100
"""secrets that are remembered after their end: a line that quotes one may be still to come"""


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class _Known:
    """One value, however many `Secret`s hold it: the forms that are redacted.

    `tokens` are those of which a beginning is redacted too.
    """

    forms: tuple[str, ...]
    tokens: tuple[str, ...]


# What is alive must be redacted, and a long-lived server must not remember every token it ever
# had. A list that is cut at some length, the oldest first, keeps one of the two promises only: the
# API key is as old as the process. So garbage collection says what is alive: each `Secret` holds
# its `_Known`, this holds them weakly, and the deque keeps those made last for a while longer.
_known: WeakValueDictionary[str, _Known] = WeakValueDictionary()
_newest: deque[_Known] = deque(maxlen=MAX_ENDED)
_sorted: _Known | None = None
"""the forms of all, the longest first, until another secret is made: sorting costs every text"""

# Reading settings, the bar's thread and the event loop all make and redact secrets.
_known_lock = threading.Lock()


class Secret:
    """A value that does not show itself, and that `redact` removes from every text while it lives.

    Our own class and not `pydantic.SecretStr`: settings are read before the first answer, and
    importing pydantic costs more than everything else a host waits for.
    """

    __slots__ = ("_known", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._known = _remember(value) if len(value) >= MIN_SECRET else None

    def reveal(self) -> str:
        """The value itself, for the one place that sends it."""
        return self._value

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        # A copy made field by field would not be among what is known.
        return Secret, (self._value,)

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def _remember(value: str) -> _Known:
    global _sorted
    with _known_lock:
        known = _known.get(value)
        if known is None:
            forms = _forms_of(value)
            is_token = len(value) > MIN_PREFIX and _TOKEN.fullmatch(value)
            known = _known[value] = _Known(forms, forms if is_token else ())
            _sorted = None
        _newest.append(known)
        return known


def _forms_of(value: str) -> tuple[str, ...]:
    """As it is, in an address, in JSON (also within JSON) and as Python writes it."""
    in_json = json.dumps(value)[1:-1]
    forms = {
        value,
        quote(value, safe="", errors="replace"),
        quote(value, errors="replace"),
        in_json,
        json.dumps(in_json)[1:-1],
        repr(value)[1:-1],
    }
    return tuple(forms)


_TOKEN = re.compile(r"(?!eyJ)[\w.+/=~-]+")
"""a token whose beginning is its own: not a JWT and not the address of a proxy, which begin as
others do (a picture's signature may be a JWT); the beginning of a JWT is known by its shape"""

# No part backtracks and none starts inside a word: a megabyte of `eyJeyJeyJ` takes milliseconds.
_TOKEN_SHAPES = re.compile(
    r"(?<![\w-])(?=[\w-]*?eyJ[\w-]{8})[\w-]++\.[\w-]++\.[\w-]++"  # a JWT, whosever it is
    r"|(?<![\w-])eyJ[\w-]{13,}+(?:\.[\w-]++)?"  # the beginning of one
    r"|AIza[\w-]{30,}"  # a Google API key
    r"|(?<=[?&]key=)[^&\s\"']+"  # a key in an address
)


def redact(text: str) -> str:
    """The text with every known secret, or what is shaped like one, as `[redacted]`."""
    return _TOKEN_SHAPES.sub("[redacted]", redact_known(text))


def redact_known(text: str) -> str:
    """The text without the secrets that are ours: for addresses, whose signature may be a JWT.

    A token that somebody cut, and of which the first MIN_PREFIX characters or more are left, goes
    as well.
    """
    known = _sort_known()
    for form in known.forms:
        if form in text:
            text = text.replace(form, "[redacted]")
    for token in known.tokens:
        start, rest = token[:MIN_PREFIX], token[MIN_PREFIX:]
        if start in text:
            head, *tails = text.split(start)
            kept = [tail[_count_alike(tail, rest) :] for tail in tails]
            text = "[redacted]".join([head, *kept])
    return text


def _sort_known() -> _Known:
    """All that is known as one; the longest first, as a secret may be part of another's form."""
    global _sorted
    with _known_lock:
        if _sorted is None:
            known = list(_known.values())
            forms = {form for one in known for form in one.forms}
            tokens = {token for one in known for token in one.tokens}
            _sorted = _Known(
                tuple(sorted(forms, key=len, reverse=True)),
                tuple(sorted(tokens, key=len, reverse=True)),
            )
        return _sorted


def _count_alike(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=+@-]*")
"""no step in a path, no option, nothing that ends a quote, a word of a shell or of Markdown"""


def is_plain_id(text: str) -> bool:
    """Whether an id from outside can stand as it is in a hint, a log, a path and a shell line."""
    is_plain = len(text) <= MAX_ID and _PLAIN_ID.fullmatch(text) is not None
    return is_plain and redact_known(text) == text


def sanitize(text: str, limit: int = MAX_QUOTED) -> str:
    """Text from outside made safe to show: redacted, one line, printable, cut to `limit`.

    Every text that somebody else wrote enters ours through here. A run of blanks and line ends is
    one blank. A quote that opens the text (as of `repr`) closes it after a cut too.
    """
    # Redacted before it is cut: half a secret would no longer be recognized. Cut before the rest:
    # what follows in a megabyte is not worth the time.
    words = " ".join(redact(text)[: 4 * limit].split())
    return shorten(escape(words[: limit + 1]), limit)


def shorten(text: str, limit: int) -> str:
    """The text cut to `limit` characters, a quote that opens it closed again."""
    if len(text) <= limit:
        return text
    end = text[0] if text[0] in "'\"" else ""
    return f"{text[: limit - 1 - len(end)]}…{end}"


def escape(text: str) -> str:
    """The text with each character that shows nothing, or turns others round, as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
