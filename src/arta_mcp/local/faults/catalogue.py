"""Scripted faults for the embedded service: what can go wrong, where, and what it looks like.

A fault is said as `NAME@ENDPOINT[*TIMES|*always][+SKIP][=VALUE]`: `503@submit*2=Retry-After:1`.
`FAULTS` describes every one, so that a test can walk all of them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from http import HTTPStatus

import anyio
from starlette.responses import JSONResponse, Response

from arta_mcp.errors import ConfigError
from arta_mcp.local.faults import effects
from arta_mcp.local.faults.effects import IDENTITY, MAX_SECONDS, FaultContext
from arta_mcp.redaction import sanitize
from arta_mcp.untrusted_json import is_object, json_or_none

ENDPOINTS = (*IDENTITY, "submit", "status", "styles", "image")

_FORM = re.compile(r"([\w-]+)@(\w+)(?:\*(\d{1,6}|always))?(?:\+(\d{1,6}))?(?:=(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault to come; `times` None means always, `after` requests pass before the first.

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

    def __str__(self) -> str:
        times = "" if self.times == 1 else f"*{self.times or 'always'}"
        after = f"+{self.after}" if self.after else ""
        value = f"={self.value}" if self.value else ""
        return f"{self.name}@{self.endpoint}{times}{after}{value}"


def _is_wait(value: str) -> bool:
    try:
        return 0 <= float(value) <= MAX_SECONDS
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class FaultKind:
    """What a fault does, and the endpoints where it can.

    At most one of `instead`, `change` and `edit` is given. `value` is the default and `takes`
    names what it is. `at_done`: it waits for a status that is DONE. `needs_port`: without a real
    connection it is only an exception.
    """

    sentence: str
    endpoints: tuple[str, ...] = ENDPOINTS
    _: KW_ONLY
    instead: effects.Instead | None = None
    change: effects.Change | None = None
    edit: effects.Edit | None = None
    is_late: bool = False
    value: str = ""
    takes: str = ""
    at_done: bool = False
    needs_port: bool = False

    @property
    def handled(self) -> bool:
        """Whether the request has its effect all the same: after a submit the job exists."""
        return self.instead is None

    async def apply(
        self, context: FaultContext, respond: Callable[[], Awaitable[Response]]
    ) -> Response:
        """What the client gets instead of what the service would `respond`."""
        if self.instead is not None:
            return self.instead(context)
        response = await respond()
        if self.is_late:
            await anyio.sleep(context.seconds)
        if self.change is not None:
            return self.change(context, response)
        job = json_or_none(bytes(response.body)) if self.edit is not None else None
        if self.edit is None or not is_object(job) or "record_id" not in job:
            return response
        return JSONResponse(self.edit(context, job), status_code=response.status_code)


class FaultScript:
    """The faults still to come, in their order: the first that is due is taken."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._armed: list[_ArmedFault] = []
        self.add(*faults)

    def add(self, *faults: Fault) -> None:
        """Have these happen as well, after those that are there."""
        self._armed.extend(_ArmedFault(fault, fault.times, fault.after) for fault in faults)

    def clear(self) -> None:
        """Have no further fault."""
        self._armed.clear()

    @property
    def pending(self) -> tuple[Fault, ...]:
        """The faults that may still happen."""
        return tuple(armed.fault for armed in self._armed if armed.left != 0)

    def take(self, endpoint: str, *, done: bool = False) -> Fault | None:
        """The fault of this request; `done` asks those that wait for a DONE."""
        for armed in self._armed:
            fault = armed.fault
            if fault.endpoint != endpoint or FAULTS[fault.name].at_done is not done:
                continue
            # Each fault counts for itself: while the first skips, the second may be due.
            if armed.left != 0 and armed.skip:
                armed.skip -= 1
            elif armed.left != 0:
                armed.left = None if armed.left is None else armed.left - 1
                return fault
        return None


@dataclass(slots=True)
class _ArmedFault:
    fault: Fault
    left: int | None
    """how often it still happens; None for always"""
    skip: int
    """requests that pass before it does"""


_JOB = ("submit", "status")
_FASTAPI = (*_JOB, "styles")
_JSON = (*IDENTITY, *_FASTAPI)

_HTML = b"<!doctype html><title>Bad gateway</title><h1>Bad gateway</h1>"
_BAD_FIELDS = [
    {"type": "less_than_equal", "loc": ["body", "steps"], "msg": "Input should be at most 50"}
]
# Words that do not fit into a row, and what more than one row does
_FAILED = "the generation failed"
_FILE = "file:///etc/passwd"
_METADATA = "http://169.254.169.254/latest/meta-data"  # where clouds keep their credentials
_OTHER_PROJECT = "the refresh token is of another project than the key"
_BLOCKED = "Requests from this Android client application <empty> are blocked."
_page = partial(effects.replace_body, _HTML)
_MOVE = effects.edit_images(lambda context, _: {"url": context.value})
_BLUR_ALL = effects.edit_images(lambda _, index: {"isBlur": True})
_BLUR_FIRST = effects.edit_images(lambda _, index: {"isBlur": index == 0})

FAULTS: Mapping[str, FaultKind] = {
    # The connection
    "refused": FaultKind(
        "after this answer no connection is accepted for some seconds",
        change=effects.shut_listener,
        takes="seconds",
        value="1",
        needs_port=True,
    ),
    "reset-before": FaultKind(
        "the connection is reset once the request is read, and nothing is done",
        instead=effects.reset,
        needs_port=True,
    ),
    "reset-after": FaultKind(
        "the request is handled, then the connection is reset",
        change=effects.reset,
        needs_port=True,
    ),
    "answer-lost": FaultKind(
        "the request is handled, then the connection is closed without a byte",
        change=effects.close,
        needs_port=True,
    ),
    "slow-headers": FaultKind(
        "the answer begins only after some seconds", is_late=True, takes="seconds", value="1"
    ),
    "slow-body": FaultKind(
        "the headers come at once, the body in drops over some seconds",
        change=effects.drip,
        takes="seconds",
        value="1",
    ),
    "endless-body": FaultKind("the body goes on for 64 MiB or a minute", change=effects.flood),
    # The status
    **{
        str(status): FaultKind(
            f"the request is refused with {status} {HTTPStatus(status).phrase}",
            instead=effects.refuse(status),
            takes="header",
        )
        for status in (400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504)
    },
    **{
        f"{status}-{name}": FaultKind(
            f"the request is refused with {status} and a Retry-After {words}",
            instead=effects.refuse(status, form),
            takes="seconds",
            value="1",
        )
        for status in (429, 503)
        for name, form, words in (
            ("wait", "seconds", "in seconds"),
            ("date", "date", "as an HTTP date"),
        )
    },
    **{
        f"late-{status}": FaultKind(
            f"the request is handled, then answered with {status} all the same",
            change=effects.fail_after_all(status),
        )
        for status in (500, 502, 504)
    },
    **{
        f"redirect-{status}": FaultKind(
            f"the client is sent to another host with {status}",
            instead=effects.redirect(status),
            takes="url",
            value="http://elsewhere.invalid/",
        )
        for status in (302, 307)
    },
    # The body
    **{
        name: FaultKind(sentence, _JSON, change=change)
        for name, sentence, change in (
            ("empty-body", "the answer has no body", effects.replace_body(b"")),
            ("html-body", "the answer is a web page", _page("text/html")),
            ("not-object", "the answer is a JSON list", effects.replace_body(b"[1, 2]")),
            ("truncated-json", "the JSON stops in the middle", effects.halve_body),
            ("wrong-types", "every field has another type", effects.swap_types),
        )
    },
    **{
        f"detail-{form}": FaultKind(
            f"the request is refused with 422 and `detail` is a {form}",
            _FASTAPI,
            instead=effects.answer(422, {"detail": detail}),
        )
        for form, detail in (("string", "the form is not acceptable"), ("list", _BAD_FIELDS))
    },
    "echo": FaultKind(
        "the request is refused with 400 and words that repeat its secrets", instead=effects.echo
    ),
    # The job
    **{
        name: FaultKind(sentence, _JOB, edit=effects.set_field(field), takes="text", value=value)
        for name, sentence, field, value in (
            ("unknown-status", "the job has a status nobody heard of", "status", "CANCELLED"),
            ("error-code", "the job has an error code", "error_code", "GENERATION_ERROR"),
            ("error-details", "the job has error details", "error_details", _FAILED),
        )
    },
    **{
        name: FaultKind(sentence, ("status",), edit=effects.end_in(status, response))
        for name, sentence, status, response in (
            ("stuck", "the job is still being drawn", "IN_PROGRESS", None),
            ("done-null", "the job is DONE and `response` is null", "DONE", None),
            ("done-empty", "the job is DONE and `response` is empty", "DONE", ()),
        )
    },
    **{
        name: FaultKind(sentence, ("status",), edit=_MOVE, takes="url", value=url, at_done=True)
        for name, sentence, url in (
            ("foreign-scheme", "the pictures have an address that is not http", _FILE),
            ("foreign-url", "the pictures lie on another host", _METADATA),
        )
    },
    "all-blurred": FaultKind("every picture is blurred", ("status",), edit=_BLUR_ALL, at_done=True),
    "some-blurred": FaultKind(
        "the first picture is blurred", ("status",), edit=_BLUR_FIRST, at_done=True
    ),
    "stale-token": FaultKind(
        "the id token is refused from now on, here and later", _JOB, instead=effects.refuse_token
    ),
    # The account
    **{
        code: FaultKind(f"{words} ({code})", where, instead=effects.refuse_with_code(400, code))
        for code, where, words in (
            ("OPERATION_NOT_ALLOWED", ("sign_up",), "anonymous sign-in is switched off"),
            ("ADMIN_ONLY_OPERATION", ("sign_up",), "sign-up is switched off"),
            ("PROJECT_DISABLED", ("sign_up",), "the project is switched off"),
            ("TOKEN_EXPIRED", ("refresh",), "the credential is no longer valid"),
            ("USER_DISABLED", ("refresh",), "the account is banned"),
            ("USER_NOT_FOUND", ("refresh",), "the account is deleted"),
            ("INVALID_REFRESH_TOKEN", ("refresh",), "the refresh token is malformed or foreign"),
            ("MISSING_REFRESH_TOKEN", ("refresh",), "the refresh token is missing"),
            ("INVALID_GRANT_TYPE", ("refresh",), "the grant type is wrong"),
            ("MISSING_GRANT_TYPE", ("refresh",), "the grant type is missing"),
            ("PROJECT_NUMBER_MISMATCH", ("refresh",), _OTHER_PROJECT),
            ("TOO_MANY_ATTEMPTS_TRY_LATER", IDENTITY, "unusual activity from this address"),
            ("QUOTA_EXCEEDED", IDENTITY, "the quota is used up"),
        )
    },
    **{
        code: FaultKind(
            f"Google says: {words}", IDENTITY, instead=effects.refuse_with_code(status, code, words)
        )
        for code, status, words in (
            ("API_KEY_INVALID", 400, "API key not valid. Please pass a valid API key."),
            ("API_KEY_ANDROID_APP_BLOCKED", 403, _BLOCKED),
            ("PERMISSION_DENIED", 403, "The request is missing a valid API key."),
            ("INVALID_ARGUMENT", 400, "Invalid JSON payload received. Unexpected token."),
        )
    },
    # The picture
    "image-cut": FaultKind(
        "the picture stops in the middle", ("image",), change=effects.cut, needs_port=True
    ),
    **{
        name: FaultKind(sentence, ("image",), change=change)
        for name, sentence, change in (
            ("image-too-large", "the picture has more than 32 MiB", effects.enlarge),
            ("image-not-one", "the picture is a web page", _page("image/png")),
            ("image-empty", "the picture has no byte", effects.replace_body(b"", "image/png")),
        )
    },
}
"""every fault by its name"""
