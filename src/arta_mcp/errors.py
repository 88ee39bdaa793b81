"""Every error raised on purpose: one class per reaction.

    ArtaError                   .hint, .record_id | None
      ConfigError               fix a setting
      InvalidRequest            .argument .value .allowed: change that argument
      AuthError                 the identity host gives no token: check the key
      UnknownStyle              .name .near: pick another model
      PromptRejected            write another prompt
      RateLimited               .retry_after: wait
      Unavailable               no answer, an empty one, 5xx: try later
      SubmitUnknown             the answer was lost: look before asking again
      KeyConflict               the idempotency key belongs to another request: use a new key
      JobFailed                 the service gave up: its words, verbatim, cut to 500 characters
      JobTimedOut               we gave up: take it up with the record id
      UnknownRecord             no such generation
      ProtocolError             the service broke its contract: report it

A message is one plain sentence that quotes the wrong value, lower case, no full stop: it is read
after a colon. Every text passes through `redact` on its way in, so no error can show a secret.
No I/O happens here.
"""

from __future__ import annotations

import json
import re
import threading
from urllib.parse import quote as url_quote

LONGEST_WORDS = 500
"""characters of somebody else's text that an error quotes at most"""

SHORTEST_SECRET = 6
"""characters; replacing anything shorter would mangle ordinary words"""

_MOST_SECRETS = 500
"""the newest are kept; a process meets a new token every hour, a test or soak many a second"""

_secrets: dict[str, None] = {}
_secrets_lock = threading.Lock()


class Secret:
    """A value that does not show itself and that `redact` removes from every text from now on.

    Our own class and not `pydantic.SecretStr`: settings are read before the first answer, and
    importing pydantic costs more than everything else a host waits for.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        _remember(value)

    def reveal(self) -> str:
        """The value itself, for the one place that sends it."""
        _remember(self._value)  # what is in use stays among the newest: the key is as old as we are
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def _remember(value: str) -> None:
    """Keeps the value, in every form it can come back in, among what `redact` removes."""
    if len(value) < SHORTEST_SECRET:
        return
    with _secrets_lock:
        for form in _forms(value):
            _secrets.pop(form, None)
            _secrets[form] = None
        while len(_secrets) > _MOST_SECRETS:
            del _secrets[next(iter(_secrets))]


def _forms(value: str) -> set[str]:
    """As it is, in an address, in JSON (also within JSON) and as Python writes it."""
    in_json = json.dumps(value)[1:-1]
    return {
        value,
        url_quote(value, safe="", errors="replace"),
        url_quote(value, errors="replace"),
        in_json,
        json.dumps(in_json)[1:-1],
        repr(value)[1:-1],
    }


# No part backtracks and none starts inside a word: a megabyte of `eyJeyJeyJ` takes milliseconds.
_TOKEN_SHAPES = re.compile(
    r"(?<![\w-])(?=[\w-]*?eyJ[\w-]{8})[\w-]++\.[\w-]++\.[\w-]*+"  # a JWT, whosever it is
    r"|AIza[\w-]{30,}"  # a Google API key
    r"|(?<=[?&]key=)[^&\s\"']+"  # a key in an address
)


def redact(text: str) -> str:
    """The text with every known secret, or what is shaped like one, as `[redacted]`."""
    return _TOKEN_SHAPES.sub("[redacted]", without_secrets(text))


def without_secrets(text: str) -> str:
    """The text without the secrets that are ours: for addresses, whose signature may be a JWT."""
    if _secrets:
        with _secrets_lock:
            known = sorted(_secrets, key=len, reverse=True)
        for value in known:
            if value in text:
                text = text.replace(value, "[redacted]")
    return text


def quote(text: str, limit: int = LONGEST_WORDS) -> str:
    """Somebody else's words made safe to show: redacted, one line, printable, cut to `limit`."""
    printable = "".join(char if char.isprintable() else " " for char in redact(text))
    words = " ".join(printable.split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


class ArtaError(Exception):
    """Something that a person, a model or a setting can react to."""

    default_hint = ""

    def __init__(self, message: str, *, hint: str = "", record_id: str | None = None) -> None:
        self.message = redact(message)
        self.hint = redact(hint or self.default_hint)
        self.record_id = record_id
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class ConfigError(ArtaError):
    """A setting is missing, malformed or out of range."""

    default_hint = "the README's table of settings says what each may hold"


class InvalidRequest(ArtaError):
    """An argument is outside what is allowed; nothing was sent."""

    def __init__(self, argument: str, value: object, allowed: str, *, hint: str = "") -> None:
        self.argument, self.value, self.allowed = argument, value, allowed
        super().__init__(
            f"{quote(argument, 80)} is {_shown(value)}; allowed is {allowed}", hint=hint
        )


def _shown(value: object) -> str:
    try:
        return quote(repr(value), 80)
    except (ValueError, RecursionError):  # Python writes out no number of over 4,300 digits
        return f"some {type(value).__name__}"


class AuthError(ArtaError):
    """The identity host gives no token."""

    default_hint = "check ARTA_API_KEY"


class UnknownStyle(ArtaError):
    """No such model; `near` holds the closest names, best first."""

    def __init__(
        self, name: str, near: tuple[str, ...] = (), *, message: str = "", hint: str = ""
    ) -> None:
        self.name, self.near = name, near
        listed = " or ".join(filter(None, (", ".join(near[:-1]), *near[-1:])))
        meant = f"did you mean {listed}? " if near else ""
        super().__init__(
            message or f"no model is called {quote(repr(name), 80)}",
            hint=hint or f"{meant}list_models shows them all",
        )


class PromptRejected(ArtaError):
    """The service refuses this prompt or these arguments; no job exists."""

    default_hint = "write the prompt in other words"


class RateLimited(ArtaError):
    """Too many requests; `retry_after` is in seconds, None when the service did not say."""

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        hint: str = "",
        record_id: str | None = None,
    ) -> None:
        self.retry_after = retry_after
        wait = "some minutes" if retry_after is None else f"{retry_after:.0f} s"
        super().__init__(message, hint=hint or f"wait {wait}, then try again", record_id=record_id)


class Unavailable(ArtaError):
    """No answer, an empty one, or one that says the service is down."""

    default_hint = "try again later"


class SubmitUnknown(ArtaError):
    """The answer to a submit was lost: a job may or may not exist."""

    default_hint = (
        "a picture may have been ordered, and nothing was sent again; repeat the call with another"
        " idempotency_key, or none, only if a second picture is acceptable"
    )


class KeyConflict(ArtaError):
    """The idempotency key belongs to a generation with other arguments."""

    default_hint = "use a new idempotency_key for a new picture, or repeat the first arguments"


class JobFailed(ArtaError):
    """The service gave the job up."""

    default_hint = "ask again, perhaps with another model or prompt"


class JobTimedOut(ArtaError):
    """We stopped waiting for a job that may still end."""

    default_hint = "call get_generation with the record id later"


class UnknownRecord(ArtaError):
    """No generation has this record id."""

    default_hint = "use the record_id of an earlier result; arta://generations lists the latest"


class ProtocolError(ArtaError):
    """The service answered outside its contract."""

    default_hint = "the service may have changed; please report it"
