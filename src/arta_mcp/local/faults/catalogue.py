"""Scripted faults for the embedded service: what can go wrong, where, and what it looks like.

A fault is said as `NAME@ENDPOINT[*TIMES|*always][+SKIP][=VALUE]`: `503@submit*2=Retry-After:1`.
`FAULTS` describes every one, so that a test can walk all of them.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from email.utils import formatdate
from functools import cache
from http import HTTPStatus
from itertools import islice, product
from math import ceil

import anyio
import anyio.lowlevel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from arta_mcp.arta.protocol import MAX_IMAGE, render_styles
from arta_mcp.arta.refusals import Refusal
from arta_mcp.errors import ConfigError
from arta_mcp.local.service import answer_fields
from arta_mcp.redaction import sanitize
from arta_mcp.untrusted_json import is_object, list_or_empty

MAX_SECONDS = 60.0
"""no fault lasts longer"""

CLOCK_SKEW = 7200.0
"""seconds that the clock of a service is ahead of ours, where a fault makes it so"""

MAX_ENDLESS = 64 * 1024 * 1024
"""bytes after which even the endless body ends"""

IDENTITY = ("sign_up", "refresh")
"""the endpoints whose host is Google's and refuses in Google's manner"""

ENDPOINTS = (*IDENTITY, "submit", "status", "styles", "image")

_FORM = re.compile(r"([\w-]+)@(\w+)(?:\*(\d{1,6}|always))?(?:\+(\d{1,6}))?(?:=(.*))?", re.DOTALL)
_CHUNK = 64 * 1024
"""bytes of one piece of a flood"""


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
        is_wait = False
        with suppress(ValueError):
            is_wait = 0 <= float(self.value or 1) <= MAX_SECONDS
        if kind.takes_seconds and not is_wait:
            words = sanitize(repr(self.value), 80)
            raise ConfigError(
                f"fault {self.name} takes 0 to {MAX_SECONDS:.0f} seconds, not {words}"
            )

    @classmethod
    def parse(cls, text: str) -> Fault:
        """The fault of its one-line form."""
        found = _FORM.fullmatch(text.strip())
        if found is None:
            words = sanitize(repr(text), 80)
            raise ConfigError(f"fault {words} is not NAME@ENDPOINT[*TIMES|*always][+SKIP][=VALUE]")
        name, endpoint, times, after, value = found.groups()
        repeats = None if times == "always" else int(times or 1)
        return cls(name, endpoint, times=repeats, after=int(after or 0), value=value or "")

    def __str__(self) -> str:
        times = "" if self.times == 1 else f"*{self.times or 'always'}"
        after = f"+{self.after}" if self.after else ""
        value = f"={self.value}" if self.value else ""
        return f"{self.name}@{self.endpoint}{times}{after}{value}"


@dataclass(frozen=True, slots=True)
class FaultContext:
    """One request that a fault befalls; `transport` and `shut_listener` need a real port."""

    endpoint: str
    value: str
    """what the fault was given, empty for its default"""
    request: Request
    body: bytes
    response: Response
    """the service's own answer, or an empty one where the request is not handled"""
    now: float
    """seconds since the epoch, by the service's clock"""
    refuse_token: Callable[[str], None]
    transport: asyncio.Transport | None = None
    shut_listener: Callable[[float], None] | None = None
    """accept no connection for so many seconds"""

    @property
    def seconds(self) -> float:
        """The value of a fault that takes seconds."""
        return float(self.value or 1)


Effect = Callable[[FaultContext], Response]
"""what the client gets instead of the service's own answer"""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """What a fault does, and the endpoints where it can."""

    sentence: str
    effect: Effect
    endpoints: tuple[str, ...] = ENDPOINTS
    _: KW_ONLY
    handled: bool = True
    """whether the request has its effect all the same: after a submit the job exists"""
    is_late: bool = False
    """whether the seconds pass before the answer"""
    takes_seconds: bool = False
    at_done: bool = False
    """whether it waits for a status that is DONE"""


class BrokenResponse(Response):
    """An answer that is sent in `pieces`, or not at all, and may `end` as no answer should."""

    def __init__(
        self,
        context: FaultContext,
        *,
        pieces: AsyncIterator[bytes] | None = None,
        length: int | None = None,
        end: Callable[[asyncio.Transport], None] | None = None,
    ) -> None:
        # 0 is for the log: the client sees no status where there is no answer.
        super().__init__(status_code=0 if pieces is None else context.response.status_code)
        kind = context.response.headers.get("content-type", "")
        self.raw_headers = [(b"content-type", kind.encode("latin-1"))]
        if length is not None:
            self.raw_headers.append((b"content-length", str(length).encode()))
        self._transport, self._pieces, self._end = context.transport, pieces, end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._pieces is not None:
            start = {"type": "http.response.start", "status": self.status_code}
            await send({**start, "headers": self.raw_headers})
            # A client may read slower than any fault is meant to last.
            with anyio.move_on_after(MAX_SECONDS):
                async for piece in self._pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        elif self._transport is None:
            raise ConnectionResetError("a scripted fault broke the connection")
        if self._end is None or self._transport is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        self._end(self._transport)
        # uvicorn would complain of an answer that ends before its connection does.
        while (await receive())["type"] != "http.disconnect":
            pass


# What the connection does


def shut_listener(context: FaultContext) -> Response:
    """The answer, and then no other for so many seconds."""
    if context.shut_listener is None:
        raise ConnectionRefusedError("a scripted fault refuses connections")
    context.response.headers["connection"] = "close"
    context.shut_listener(context.seconds)
    return context.response


def reset(transport: asyncio.Transport) -> None:
    """RST instead of FIN: the kernel sends one when a socket that may not linger is closed."""
    if (raw := transport.get_extra_info("socket")) is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def close(transport: asyncio.Transport) -> None:
    """FIN, once what was sent so far has left."""
    transport.close()


def break_off(end: Callable[[asyncio.Transport], None]) -> Effect:
    """No byte, and such an end of the connection."""
    return lambda context: BrokenResponse(context, end=end)


def drip(context: FaultContext) -> Response:
    """The whole body, a twentieth at a time."""
    body = bytes(context.response.body)
    return BrokenResponse(context, pieces=_drops(body, context.seconds), length=len(body))


def cut(context: FaultContext) -> Response:
    """Half of the body, where the headers promise all of it."""
    body = bytes(context.response.body)
    drops = _drops(body[: len(body) // 2], 0.0)
    # Without a port the test client itself would object to the wrong length.
    length = len(body) if context.transport else None
    return BrokenResponse(context, pieces=drops, length=length, end=close)


def flood(context: FaultContext) -> Response:
    """A body without a length and without an end, until the connection is closed."""
    return BrokenResponse(context, pieces=_flood(context, MAX_ENDLESS), end=close)


def enlarge(context: FaultContext) -> Response:
    """A body of just more than the largest picture."""
    total = 16 + (MAX_IMAGE // _CHUNK + 1) * _CHUNK
    return BrokenResponse(context, pieces=_flood(context, total), length=total)


def swap_picture(context: FaultContext) -> Response:
    """A PNG that is small on the wire and vast in memory."""
    return Response(make_bomb(), media_type="image/png")


def spoil(context: FaultContext) -> Response:
    """The body with noughts for its second half."""
    body = bytes(context.response.body)
    half = len(body) // 2
    return replace_body(body[:half] + bytes(len(body) - half), "image/png")(context)


@cache
def make_bomb() -> bytes:
    """A PNG of 21 kB that is 13,300 pixels square, one bit each."""
    side = 13_300
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side + 7) // 8 + 1) * side, 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )


async def _drops(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    size = max(1, len(body) // 20)
    for start in range(0, len(body), size):
        await anyio.sleep(seconds * size / len(body))
        yield body[start : start + size]


async def _flood(context: FaultContext, total: int) -> AsyncIterator[bytes]:
    """The body's beginning and then more and more of the same string."""
    yield bytes(context.response.body)[:16]
    until = time.monotonic() + MAX_SECONDS
    for _ in range((total - 16) // _CHUNK):
        # The deadline of the sender is checked where it awaits; a fast client never lets it.
        if time.monotonic() > until:
            return
        await anyio.lowlevel.checkpoint()
        yield b"a" * _CHUNK


# What the answer says

_GOOGLE_STATES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""Google's state for an HTTP status"""


def refuse(status: int, retry_after: str = "") -> Effect:
    """A refusal with the header it is given, or a Retry-After: a `wait`, a `date`, a date `ahead`.

    The last is by the service's own `Date`, whose clock is not ours.
    """

    def respond(context: FaultContext) -> Response:
        name, colon, value = context.value.partition(":")
        headers = {name.strip(): value.strip()} if colon else {}
        if retry_after == "wait":
            headers = {"Retry-After": context.value or "1"}
        elif retry_after:
            now = context.now + (CLOCK_SKEW if retry_after == "ahead" else 0)
            # rounded up: it says whole seconds, and none may be too early
            date = formatdate(ceil(now + context.seconds), usegmt=True)
            headers = {"Retry-After": date, "Date": formatdate(now, usegmt=True)}
        return _refusal(context, status, HTTPStatus(status).phrase, headers)

    return respond


def refuse_token(context: FaultContext) -> Response:
    """The id token is stale, here and from now on."""
    context.refuse_token(context.request.headers.get("authorization", ""))
    return _refusal(context, 401, "Token expired")


def echo(context: FaultContext) -> Response:
    """A refusal that repeats all that was sent, secrets included."""
    request, sent = context.request, context.body.decode("utf-8", "replace")
    words = f"cannot serve {request.url} {request.headers.get('authorization', '')} {sent}"
    return _refusal(context, 400, words)


def _refusal(
    context: FaultContext, status: int, words: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A refusal in the manner of the host that is asked."""
    google = context.endpoint in IDENTITY
    refusal = Refusal(status, words, _GOOGLE_STATES.get(status, "UNKNOWN") if google else "")
    return JSONResponse(refusal.render(), status_code=status, headers=headers)


def answer(status: int, body: object) -> Effect:
    """Always the same JSON."""
    return lambda _: JSONResponse(body, status_code=status)


def redirect(status: int) -> Effect:
    """Off to the address that is the value."""
    default = "http://elsewhere.invalid/"
    return lambda context: Response(b"", status, headers={"Location": context.value or default})


def replace_body(body: bytes, kind: str = "application/json") -> Effect:
    """The same status with another body."""
    return lambda context: Response(body, context.response.status_code, media_type=kind)


def halve_body(context: FaultContext) -> Response:
    """JSON that stops in the middle, with the length that it has."""
    body = bytes(context.response.body)
    return replace_body(body[: len(body) // 2])(context)


def swap_types(context: FaultContext) -> Response:
    """An object for each text, and a text for everything else."""
    swapped = {
        name: {"was": "text"} if isinstance(value, str) else "was no text"
        for name, value in answer_fields(context.response).items()
    }
    return JSONResponse(swapped, status_code=context.response.status_code)


_SPELLINGS = tuple(zip("abcdefgh" * 4, "ABCDEFGH" * 4, strict=True))


# What the job is


def edit_job(edit: Callable[[FaultContext, dict[str, object]], dict[str, object]]) -> Effect:
    """Other fields in the job, which `edit` is given; an answer without one stays as it is."""

    def respond(context: FaultContext) -> Response:
        job = answer_fields(context.response)
        if "record_id" not in job:
            return context.response
        return JSONResponse({**job, **edit(context, job)}, context.response.status_code)

    return respond


def set_field(name: str, default: str) -> Effect:
    """The value as a field of the job."""
    return edit_job(lambda context, _: {name: context.value or default})


def end_in(status: str, response: object = None) -> Effect:
    """A job of this status, with this for its pictures."""
    return edit_job(lambda context, job: {"status": status, "response": response})


def edit_images(edit: Callable[[FaultContext, int], dict[str, object]]) -> Effect:
    """Other fields in each picture, which `edit` is given the index of."""

    def edit_all(context: FaultContext, job: dict[str, object]) -> dict[str, object]:
        images = [image for image in list_or_empty(job.get("response")) if is_object(image)]
        return {"response": [{**image, **edit(context, i)} for i, image in enumerate(images)]}

    return edit_job(edit_all)


# Every fault by its name

_POLL = ("status",)
_JOB = ("submit", "status")
_FASTAPI = (*_JOB, "styles")
_JSON = (*IDENTITY, *_FASTAPI)
_REFRESH = ("refresh",)

_REFUSED = "the request is refused with"
_HTML = b"<!doctype html><title>Bad gateway</title><h1>Bad gateway</h1>"
_BAD_FIELDS = [
    {"type": "less_than_equal", "loc": ["body", "steps"], "msg": "Input should be at most 50"}
]
_OTHER_PROJECT = "the refresh token is of another project than the key"
_BLOCKED = "Requests from this {} client application <empty> are blocked."
_NO_API = "Identity Toolkit API has not been used in project 1 before or it is disabled."
_METADATA = "http://169.254.169.254/latest/meta-data"  # where clouds keep their credentials
_TO_FILE = edit_images(lambda context, _: {"url": context.value or "file:///etc/passwd"})
_TO_METADATA = edit_images(lambda context, _: {"url": context.value or _METADATA})
_BLUR_ALL = edit_images(lambda _, index: {"isBlur": True})
_BLUR_FIRST = edit_images(lambda _, index: {"isBlur": index == 0})

FAULTS: Mapping[str, FaultKind] = {
    # The connection
    "refused": FaultKind(
        "after this answer no connection is accepted for some seconds",
        shut_listener,
        takes_seconds=True,
    ),
    "reset-before": FaultKind(
        "the connection is reset once the request is read, and nothing is done",
        break_off(reset),
        handled=False,
    ),
    "reset-after": FaultKind(
        "the request is handled, then the connection is reset", break_off(reset)
    ),
    "answer-lost": FaultKind(
        "the request is handled, then the connection is closed without a byte", break_off(close)
    ),
    "slow-headers": FaultKind(
        "the answer begins only after some seconds",
        lambda context: context.response,
        is_late=True,
        takes_seconds=True,
    ),
    "slow-body": FaultKind(
        "the headers come at once, the body in drops over some seconds", drip, takes_seconds=True
    ),
    "endless-body": FaultKind("the body goes on for 64 MiB or a minute", flood),
    # The status
    **{
        str(status): FaultKind(
            f"{_REFUSED} {status} {HTTPStatus(status).phrase}", refuse(status), handled=False
        )
        for status in (400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504)
    },
    **{
        f"{status}-{form}": FaultKind(
            f"{_REFUSED} {status} and a Retry-After {words}",
            refuse(status, form),
            handled=False,
            takes_seconds=True,
        )
        for status in (429, 503)
        for form, words in (
            ("wait", "in seconds"),
            ("date", "as an HTTP date"),
            ("ahead", "as an HTTP date, by a clock that is two hours ahead"),
        )
    },
    **{
        f"late-{status}": FaultKind(
            f"the request is handled, then answered with {status} all the same", refuse(status)
        )
        for status in (500, 502, 504)
    },
    **{
        f"redirect-{status}": FaultKind(
            f"the client is sent to another host with {status}", redirect(status), handled=False
        )
        for status in (302, 307)
    },
    # The body
    "empty-body": FaultKind("the answer has no body", replace_body(b""), _JSON),
    "html-body": FaultKind("the answer is a web page", replace_body(_HTML, "text/html"), _JSON),
    "not-object": FaultKind("the answer is a JSON list", replace_body(b"[1, 2]"), _JSON),
    "truncated-json": FaultKind("the JSON stops in the middle", halve_body, _JSON),
    "wrong-types": FaultKind("every field has another type", swap_types, _JSON),
    **{
        f"detail-{form}": FaultKind(
            f"{_REFUSED} 422 and `detail` is a {form}",
            answer(422, {"detail": detail}),
            _FASTAPI,
            handled=False,
        )
        for form, detail in (("string", "the form is not acceptable"), ("list", _BAD_FIELDS))
    },
    "echo": FaultKind(f"{_REFUSED} 400 and words that repeat its secrets", echo, handled=False),
    "long-words": FaultKind(
        f"{_REFUSED} 422 and 300,000 characters of words",
        answer(422, {"detail": "x" * 300_000}),
        handled=False,
    ),
    "many-styles": FaultKind(
        "the style list has 24,000 names, which differ in case only",
        lambda _: JSONResponse(
            render_styles(tuple(map("".join, islice(product(*_SPELLINGS), 24_000))))
        ),
        ("styles",),
    ),
    # The job
    "foreign-id": FaultKind(
        "the record id is one that a shell would run",
        set_field("record_id", "x; echo $HOME `id` #"),
        _JOB,
    ),
    **{
        name: FaultKind(sentence, set_field(field, value), _JOB)
        for name, sentence, field, value in (
            ("unknown-status", "the job has a status nobody heard of", "status", "CANCELLED"),
            ("error-code", "the job has an error code", "error_code", "GENERATION_ERROR"),
            (
                "error-details",
                "the job has error details",
                "error_details",
                "the generation failed",
            ),
        )
    },
    "stuck": FaultKind("the job is still being drawn", end_in("IN_PROGRESS"), _POLL),
    "done-null": FaultKind("the job is DONE and `response` is null", end_in("DONE"), _POLL),
    "done-empty": FaultKind("the job is DONE and `response` is empty", end_in("DONE", ()), _POLL),
    **{
        name: FaultKind(sentence, effect, _POLL, at_done=True)
        for name, sentence, effect in (
            ("foreign-scheme", "the pictures have an address that is not http", _TO_FILE),
            ("foreign-url", "the pictures lie on another host", _TO_METADATA),
            ("all-blurred", "every picture is blurred", _BLUR_ALL),
            ("some-blurred", "the first picture is blurred", _BLUR_FIRST),
        )
    },
    "stale-token": FaultKind(
        "the id token is refused from now on, here and later", refuse_token, _JOB, handled=False
    ),
    # The account
    **{
        code: FaultKind(
            f"{words} ({code})", answer(400, Refusal(400, code=code).render()), where, handled=False
        )
        for code, where, words in (
            ("OPERATION_NOT_ALLOWED", ("sign_up",), "anonymous sign-in is switched off"),
            ("ADMIN_ONLY_OPERATION", ("sign_up",), "sign-up is switched off"),
            ("PROJECT_DISABLED", ("sign_up",), "the project is switched off"),
            ("CONFIGURATION_NOT_FOUND", ("sign_up",), "the project has no Authentication"),
            ("TOKEN_EXPIRED", _REFRESH, "the credential is no longer valid"),
            ("USER_DISABLED", _REFRESH, "the account is banned"),
            ("USER_NOT_FOUND", _REFRESH, "the account is deleted"),
            ("INVALID_REFRESH_TOKEN", _REFRESH, "the refresh token is malformed or foreign"),
            ("MISSING_REFRESH_TOKEN", _REFRESH, "the refresh token is missing"),
            ("INVALID_GRANT_TYPE", _REFRESH, "the grant type is wrong"),
            ("MISSING_GRANT_TYPE", _REFRESH, "the grant type is missing"),
            ("PROJECT_NUMBER_MISMATCH", _REFRESH, _OTHER_PROJECT),
            ("TOO_MANY_ATTEMPTS_TRY_LATER", IDENTITY, "unusual activity from this address"),
            ("QUOTA_EXCEEDED", IDENTITY, "the quota is used up"),
        )
    },
    **{
        code: FaultKind(
            f"Google says: {words}",
            answer(status, Refusal(status, words, code).render()),
            IDENTITY,
            handled=False,
        )
        for code, status, words in (
            ("API_KEY_INVALID", 400, "API key not valid. Please pass a valid API key."),
            ("API_KEY_ANDROID_APP_BLOCKED", 403, _BLOCKED.format("Android")),
            ("API_KEY_IOS_APP_BLOCKED", 403, _BLOCKED.format("iOS")),
            ("API_KEY_HTTP_REFERRER_BLOCKED", 403, "Requests from referer <empty> are blocked."),
            ("API_KEY_SERVICE_BLOCKED", 403, "Requests to this API method are blocked."),
            ("SERVICE_DISABLED", 403, _NO_API),
            ("UNAUTHENTICATED", 401, "Firebase App Check token is invalid."),
            ("PERMISSION_DENIED", 403, "The request is missing a valid API key."),
            ("INVALID_ARGUMENT", 400, "Invalid JSON payload received. Unexpected token."),
        )
    },
    # The picture
    "image-cut": FaultKind("the picture stops in the middle", cut, ("image",)),
    **{
        name: FaultKind(sentence, effect, ("image",))
        for name, sentence, effect in (
            ("image-too-large", "the picture has more than 32 MiB", enlarge),
            ("image-not-one", "the picture is a web page", replace_body(_HTML, "image/png")),
            ("image-empty", "the picture has no byte", replace_body(b"", "image/png")),
            ("image-bomb", "the picture is small, and vast unpacked", swap_picture),
            ("image-broken", "the picture cannot be decoded", spoil),
        )
    },
}
