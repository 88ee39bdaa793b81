"""Scripted trouble for the embedded service: what can go wrong, where, and what it looks like.

A fault is said as `NAME@ENDPOINT[*TIMES|*always][+SKIP][=VALUE]`: `503@submit*2=Retry-After:1`.
`FAULTS` describes every one, so that a test can walk all of them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from arta_mcp.errors import ConfigError
from arta_mcp.local.faults import effects as trouble
from arta_mcp.local.faults.effects import IDENTITY, MAX_SECONDS, Effect, Strike
from arta_mcp.redaction import sanitize

ENDPOINTS = (*IDENTITY, "submit", "status", "styles", "image")

_FORM = re.compile(r"([\w-]+)@(\w+)(?:\*(\d{1,6}|always))?(?:\+(\d{1,6}))?(?:=(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fault:
    """One piece of trouble; `times` None strikes always, `after` requests pass before the first.

    Raises ConfigError for a name, endpoint or value that makes no fault.
    """

    name: str
    endpoint: str
    times: int | None = 1
    after: int = 0
    value: str = ""

    def __post_init__(self) -> None:
        kind = FAULTS.get(self.name)
        if kind is None:
            raise ConfigError(
                f"no fault is called {sanitize(repr(self.name), 80)}",
                hint=f"there are: {', '.join(FAULTS)}",
            )
        if self.endpoint not in kind.endpoints:
            raise ConfigError(
                f"fault {self.name} cannot strike at {sanitize(repr(self.endpoint), 80)}",
                hint=f"it strikes at: {', '.join(kind.endpoints)}",
            )
        if kind.takes == "seconds" and not _is_wait(self.value or kind.value):
            raise ConfigError(
                f"fault {self.name} takes 0 to {MAX_SECONDS:.0f} seconds, "
                f"not {sanitize(repr(self.value), 80)}"
            )

    @classmethod
    def parse(cls, text: str) -> Fault:
        """The fault of its one-line form."""
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise ConfigError(
                f"fault {sanitize(repr(text), 80)} is not"
                " NAME@ENDPOINT[*TIMES|*always][+SKIP][=VALUE]"
            )
        name, endpoint, times, after, value = found.groups()
        return cls(
            name=name,
            endpoint=endpoint,
            times=None if times == "always" else int(times or 1),
            after=int(after or 0),
            value=value or "",
        )

    async def strike(
        self,
        request: Request,
        real: Callable[[], Awaitable[Response]],
        *,
        now: float,
        refuse_token: Callable[[str], None],
    ) -> Response:
        """What the client gets instead of `real`."""
        kind = FAULTS[self.name]
        value = self.value or kind.value
        return await kind.effect(Strike(self.endpoint, value, request, real, now, refuse_token))

    def __str__(self) -> str:
        times = "" if self.times == 1 else f"*{self.times or 'always'}"
        after = f"+{self.after}" if self.after else ""
        value = f"={self.value}" if self.value else ""
        return f"{self.name}@{self.endpoint}{times}{after}{value}"


@dataclass(frozen=True, slots=True)
class FaultKind:
    """What a fault does and where it can strike.

    `handled`: the request had its effect all the same, so after a submit the job exists.
    `value` is the default and `takes` names what it is. `at_done`: it waits for a status that is
    DONE. `needs_port`: without a real connection (`Running`) it is only an exception.
    """

    sentence: str
    endpoints: tuple[str, ...]
    effect: Effect
    handled: bool = False
    value: str = ""
    takes: str = ""
    at_done: bool = False
    needs_port: bool = False


class Script:
    """The faults still to come, in their order: the first that is due strikes."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._armed: list[_Armed] = []
        self.add(*faults)

    def add(self, *faults: Fault) -> None:
        self._armed.extend(_Armed(fault, fault.times, fault.after) for fault in faults)

    def clear(self) -> None:
        self._armed.clear()

    @property
    def pending(self) -> tuple[Fault, ...]:
        """The faults that may still strike."""
        return tuple(armed.fault for armed in self._armed if armed.left != 0)

    def take(self, endpoint: str, *, done: bool = False) -> Fault | None:
        """The fault that strikes this request; `done` asks those that wait for a DONE."""
        for armed in self._armed:
            waits_for_done = FAULTS[armed.fault.name].at_done
            if armed.fault.endpoint == endpoint and waits_for_done is done and armed.is_due():
                return armed.fault
        return None


@dataclass(slots=True)
class _Armed:
    fault: Fault
    left: int | None
    skip: int

    def is_due(self) -> bool:
        if self.left == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.left = None if self.left is None else self.left - 1
        return True


def _is_wait(value: str) -> bool:
    try:
        return 0 <= float(value) <= MAX_SECONDS
    except ValueError:
        return False


_JOB = ("submit", "status")
_JSON = (*IDENTITY, "submit", "status", "styles")
_HTML = b"<!doctype html><title>Bad gateway</title><h1>Bad gateway</h1>"
_ELSEWHERE = "http://elsewhere.invalid/"
_BAD_FIELDS = [
    {"type": "less_than_equal", "loc": ["body", "steps"], "msg": "Input should be at most 50"}
]
_KEY_WORDS = {
    "API_KEY_INVALID": (400, "API key not valid. Please pass a valid API key."),
    "API_KEY_ANDROID_APP_BLOCKED": (
        403,
        "Requests from this Android client application <empty> are blocked.",
    ),
    "PERMISSION_DENIED": (403, "The request is missing a valid API key."),
    "INVALID_ARGUMENT": (400, "Invalid JSON payload received. Unexpected token."),
}
"""refusals that are a sentence, on either identity endpoint"""

_SIGN_UP_CODES = {
    "OPERATION_NOT_ALLOWED": "anonymous sign-in is switched off",
    "ADMIN_ONLY_OPERATION": "sign-up is switched off",
    "PROJECT_DISABLED": "the project is switched off",
}
_REFRESH_CODES = {
    "TOKEN_EXPIRED": "the credential is no longer valid",
    "USER_DISABLED": "the account is banned",
    "USER_NOT_FOUND": "the account is deleted",
    "INVALID_REFRESH_TOKEN": "the refresh token is malformed or foreign",
    "MISSING_REFRESH_TOKEN": "the refresh token is missing",
    "INVALID_GRANT_TYPE": "the grant type is wrong",
    "MISSING_GRANT_TYPE": "the grant type is missing",
    "PROJECT_NUMBER_MISMATCH": "the refresh token is of another project than the key",
}
_EITHER_CODES = {
    "TOO_MANY_ATTEMPTS_TRY_LATER": "unusual activity from this address",
    "QUOTA_EXCEEDED": "the quota is used up",
}


def _connections() -> dict[str, FaultKind]:
    return {
        "refused": FaultKind(
            "after this answer no connection is accepted for some seconds",
            ENDPOINTS,
            trouble.shut_the_door,
            handled=True,
            value="1",
            takes="seconds",
            needs_port=True,
        ),
        "reset-before": FaultKind(
            "the connection is reset once the request is read, and nothing is done",
            ENDPOINTS,
            trouble.instead(trouble.reset),
            needs_port=True,
        ),
        "reset-after": FaultKind(
            "the request is handled, then the connection is reset",
            ENDPOINTS,
            trouble.changed(trouble.reset),
            handled=True,
            needs_port=True,
        ),
        "answer-lost": FaultKind(
            "the request is handled, then the connection is closed without a byte",
            ENDPOINTS,
            trouble.changed(trouble.lose),
            handled=True,
            needs_port=True,
        ),
        "slow-headers": FaultKind(
            "the answer begins only after some seconds",
            ENDPOINTS,
            trouble.late,
            handled=True,
            value="1",
            takes="seconds",
        ),
        "slow-body": FaultKind(
            "the headers come at once, the body in drops over some seconds",
            ENDPOINTS,
            trouble.changed(trouble.drip),
            handled=True,
            value="1",
            takes="seconds",
        ),
        "endless-body": FaultKind(
            "the body goes on for 64 MiB or a minute",
            ENDPOINTS,
            trouble.changed(trouble.endless),
            handled=True,
        ),
    }


def _statuses() -> dict[str, FaultKind]:
    codes = (400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504)
    plain = {
        str(code): FaultKind(
            f"the request is refused with {code} {HTTPStatus(code).phrase}",
            ENDPOINTS,
            trouble.refusal(code, headers=trouble.given_header),
            takes="header",
        )
        for code in codes
    }
    waits = {
        f"{code}-{name}": FaultKind(
            f"the request is refused with {code} and a Retry-After {words}",
            ENDPOINTS,
            trouble.refusal(code, headers=headers),
            value="1",
            takes="seconds",
        )
        for code in (429, 503)
        for name, words, headers in (
            ("wait", "in seconds", trouble.wait_seconds),
            ("date", "as an HTTP date", trouble.wait_until),
        )
    }
    late = {
        f"late-{code}": FaultKind(
            f"the request is handled, then answered with {code} all the same",
            ENDPOINTS,
            trouble.changed(trouble.after_all(code)),
            handled=True,
        )
        for code in (500, 502, 504)
    }
    redirects = {
        f"redirect-{code}": FaultKind(
            f"the client is sent to another host with {code}",
            ENDPOINTS,
            trouble.instead(trouble.redirect(code)),
            value=_ELSEWHERE,
            takes="url",
        )
        for code in (302, 307)
    }
    return plain | waits | late | redirects


def _bodies() -> dict[str, FaultKind]:
    def body(sentence: str, change: trouble.Change) -> FaultKind:
        return FaultKind(sentence, _JSON, trouble.changed(change), handled=True)

    return {
        "empty-body": body("the answer has no body", trouble.with_body(b"")),
        "html-body": body("the answer is a web page", trouble.with_body(_HTML, "text/html")),
        "not-object": body("the answer is a JSON list", trouble.with_body(b"[1, 2]")),
        "truncated-json": body("the JSON stops in the middle", trouble.halved),
        "wrong-types": body("every field has another type", trouble.of_other_types),
        "detail-string": FaultKind(
            "the request is refused with 422 and `detail` is a string",
            (*_JOB, "styles"),
            trouble.detail_of(422, "the form is not acceptable"),
        ),
        "detail-list": FaultKind(
            "the request is refused with 422 and `detail` is a list",
            (*_JOB, "styles"),
            trouble.detail_of(422, _BAD_FIELDS),
        ),
        "echo": FaultKind(
            "the request is refused with 400 and words that repeat its secrets",
            ENDPOINTS,
            trouble.echo,
        ),
    }


def _jobs() -> dict[str, FaultKind]:
    def edit(
        sentence: str,
        change: trouble.Edit,
        *,
        where: tuple[str, ...] = ("status",),
        value: str = "",
        takes: str = "",
        at_done: bool = False,
    ) -> FaultKind:
        effect = trouble.edited(change)
        return FaultKind(sentence, where, effect, True, value, takes, at_done)

    field, done_with = trouble.field, trouble.done_with
    return {
        "unknown-status": edit(
            "the job has a status nobody heard of",
            field("status"),
            where=_JOB,
            value="CANCELLED",
            takes="text",
        ),
        "error-code": edit(
            "the job has an error code",
            field("error_code"),
            where=_JOB,
            value="GENERATION_ERROR",
            takes="text",
        ),
        "error-details": edit(
            "the job has error details",
            field("error_details"),
            where=_JOB,
            value="the generation failed",
            takes="text",
        ),
        "stuck": edit("the job is still being drawn", trouble.stuck),
        "done-null": edit("the job is DONE and `response` is null", done_with(None)),
        "done-empty": edit("the job is DONE and `response` is empty", done_with([])),
        "foreign-scheme": edit(
            "the pictures have an address that is not http",
            trouble.other_address,
            value="file:///etc/passwd",
            takes="url",
            at_done=True,
        ),
        "foreign-url": edit(
            "the pictures lie on another host",
            trouble.other_address,
            value="http://169.254.169.254/latest/meta-data",
            takes="url",
            at_done=True,
        ),
        "all-blurred": edit("every picture is blurred", trouble.blur_all, at_done=True),
        "some-blurred": edit("the first picture is blurred", trouble.blur_first, at_done=True),
        "stale-token": FaultKind(
            "the id token is refused from now on, here and later", _JOB, trouble.stale
        ),
    }


def _identities() -> dict[str, FaultKind]:
    listed = ((("sign_up",), _SIGN_UP_CODES), (("refresh",), _REFRESH_CODES))
    codes = {
        code: FaultKind(f"{words} ({code})", where, trouble.code(400, code))
        for where, table in (*listed, (IDENTITY, _EITHER_CODES))
        for code, words in table.items()
    }
    sentences = {
        code: FaultKind(f"Google says: {words}", IDENTITY, trouble.code(status, code, words))
        for code, (status, words) in _KEY_WORDS.items()
    }
    return codes | sentences


def _pictures() -> dict[str, FaultKind]:
    def picture(sentence: str, change: trouble.Change, *, needs_port: bool = False) -> FaultKind:
        effect = trouble.changed(change)
        return FaultKind(sentence, ("image",), effect, handled=True, needs_port=needs_port)

    page = trouble.with_body(_HTML, "image/png")
    return {
        "image-cut": picture("the picture stops in the middle", trouble.cut, needs_port=True),
        "image-too-large": picture("the picture has more than 32 MiB", trouble.too_large),
        "image-not-one": picture("the picture is a web page", page),
        "image-empty": picture("the picture has no byte", trouble.with_body(b"", "image/png")),
    }


FAULTS: Mapping[str, FaultKind] = {
    **_connections(),
    **_statuses(),
    **_bodies(),
    **_jobs(),
    **_identities(),
    **_pictures(),
}
"""every fault by its name"""
