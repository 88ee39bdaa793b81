"""Secrets and other people's text: what must not be shown, and what may be shown of the rest.

No I/O happens here.
"""

from __future__ import annotations

import json
import re
import threading
from urllib.parse import quote

MAX_QUOTED = 500
"""characters of text from outside that an error quotes at most"""

MIN_SECRET = 6
"""characters; replacing anything shorter would mangle ordinary words"""

MAX_FORMS = 500
"""remembered forms; a process meets a new token every hour, a test or soak many a second"""

_forms: dict[str, None] = {}
"""every form of every known secret, the ones used last at the end"""

# Reading settings, the bar's thread and the event loop all make and redact secrets.
_forms_lock = threading.Lock()


class Secret:
    """A value that does not show itself and that `redact` removes from every text from now on.

    Our own class and not `pydantic.SecretStr`: settings are read before the first answer, and
    importing pydantic costs more than everything else a host waits for.
    """

    __slots__ = ("_forms", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._forms = _forms_of(value) if len(value) >= MIN_SECRET else ()
        _remember(self._forms)

    def reveal(self) -> str:
        """The value itself, for the one place that sends it."""
        # What is in use stays among the newest: the API key is as old as the process.
        _remember(self._forms)
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def _remember(forms: tuple[str, ...]) -> None:
    with _forms_lock:
        for form in forms:
            _forms.pop(form, None)
            _forms[form] = None
        while len(_forms) > MAX_FORMS:
            del _forms[next(iter(_forms))]


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


# No part backtracks and none starts inside a word: a megabyte of `eyJeyJeyJ` takes milliseconds.
_TOKEN_SHAPES = re.compile(
    r"(?<![\w-])(?=[\w-]*?eyJ[\w-]{8})[\w-]++\.[\w-]++\.[\w-]*+"  # a JWT, whosever it is
    r"|AIza[\w-]{30,}"  # a Google API key
    r"|(?<=[?&]key=)[^&\s\"']+"  # a key in an address
)


def redact(text: str) -> str:
    """The text with every known secret, or what is shaped like one, as `[redacted]`."""
    return _TOKEN_SHAPES.sub("[redacted]", redact_known(text))


def redact_known(text: str) -> str:
    """The text without the secrets that are ours: for addresses, whose signature may be a JWT."""
    if _forms:
        with _forms_lock:
            # The longest first: a secret may be part of another form of itself.
            known = sorted(_forms, key=len, reverse=True)
        for form in known:
            if form in text:
                text = text.replace(form, "[redacted]")
    return text


def sanitize(text: str, limit: int = MAX_QUOTED) -> str:
    """Text from outside made safe to show: redacted, one line, printable, cut to `limit`."""
    printable = "".join(char if char.isprintable() else " " for char in redact(text))
    words = " ".join(printable.split())
    return words if len(words) <= limit else words[: limit - 1] + "…"
