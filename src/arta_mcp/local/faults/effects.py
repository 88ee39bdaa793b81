"""What scripted trouble does to one request: the effects that `faults.py` gives names to."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from math import ceil

import anyio
import anyio.lowlevel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from arta_mcp.arta.protocol import MAX_IMAGE
from arta_mcp.arta.refusals import Refusal
from arta_mcp.untrusted_json import entries, is_object, json_or_none

LINE = "arta.line"
"""the ASGI extension that gives a `Line`"""

MAX_SECONDS = 60.0
"""no fault lasts longer"""

ENDLESS = 64 * 1024 * 1024
"""bytes after which even the endless body ends"""

IDENTITY = ("sign_up", "refresh")
"""the endpoints whose host is Google's and refuses in Google's manner"""

_STATES = {
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

_PIECE = 64 * 1024
"""bytes of one piece of a flood"""

Change = Callable[["Strike", Response], Response]
Effect = Callable[["Strike"], Awaitable[Response]]
Edit = Callable[["Strike", dict[str, object]], dict[str, object]]


@dataclass(frozen=True, slots=True)
class Strike:
    """One request that a fault strikes; `real` lets the service answer it."""

    endpoint: str
    value: str
    request: Request
    real: Callable[[], Awaitable[Response]]
    now: float
    refuse_token: Callable[[str], None]

    @property
    def seconds(self) -> float:
        return float(self.value)

    @property
    def line(self) -> Line | None:
        line = self.request.scope.get("extensions", {}).get(LINE)
        return line if isinstance(line, Line) else None


@dataclass(frozen=True, slots=True)
class Line:
    """What a real connection can do to its client; `running.py` provides it."""

    reset: Callable[[], None]
    hang_up: Callable[[], None]
    shut: Callable[[float], None]


class _Broken(Response):
    """An answer that is told piece by piece and may end as no answer should."""

    def __init__(
        self,
        like: Response | None,
        pieces: AsyncIterator[bytes] | None = None,
        *,
        length: int | None = None,
        end: Callable[[Line], None] | None = None,
        line: Line | None = None,
    ) -> None:
        super().__init__(status_code=like.status_code if like else 200)
        kind = like.headers.get("content-type", "") if like else ""
        self.raw_headers = [(b"content-type", kind.encode("latin-1"))]
        if length is not None:
            self.raw_headers.append((b"content-length", str(length).encode()))
        if pieces is None:
            self.status_code = 0
        self._pieces, self._end, self._line = pieces, end, line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._pieces is not None:
            await self._tell(self._pieces, send)
        elif self._line is None:
            raise ConnectionResetError("a scripted fault broke the connection")
        if self._end is None or self._line is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        self._end(self._line)
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _tell(self, pieces: AsyncIterator[bytes], send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        with anyio.move_on_after(MAX_SECONDS):
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})


# How an effect is made


def instead(make: Callable[[Strike], Response]) -> Effect:
    """The request is not handled; this is the answer."""

    async def effect(strike: Strike) -> Response:
        return make(strike)

    return effect


def changed(change: Change) -> Effect:
    """The request is handled and its answer changed."""

    async def effect(strike: Strike) -> Response:
        return change(strike, await strike.real())

    return effect


def edited(edit: Edit) -> Effect:
    """The request is handled and, when the answer is a job, its fields are changed."""

    def change(strike: Strike, response: Response) -> Response:
        answer = json_or_none(bytes(response.body))
        if not is_object(answer) or "record_id" not in answer:
            return response
        return JSONResponse(edit(strike, answer), status_code=response.status_code)

    return changed(change)


def refusal(status: int, *, headers: Callable[[Strike], Mapping[str, str]]) -> Effect:
    def make(strike: Strike) -> Response:
        return _say(strike, status, HTTPStatus(status).phrase, headers(strike))

    return instead(make)


def code(status: int, code: str, words: str = "") -> Effect:
    body = Refusal(status, words, code).render()
    return instead(lambda strike: JSONResponse(body, status_code=status))


def _say(
    strike: Strike, status: int, words: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A refusal in the manner of the host that is asked."""
    google = strike.endpoint in IDENTITY
    refusal = Refusal(status, words, _STATES.get(status, "UNKNOWN") if google else "")
    return JSONResponse(refusal.render(), status_code=status, headers=dict(headers or {}))


def given_header(strike: Strike) -> dict[str, str]:
    name, colon, value = strike.value.partition(":")
    return {name.strip(): value.strip()} if colon else {}


def wait_seconds(strike: Strike) -> dict[str, str]:
    return {"Retry-After": strike.value}


def wait_until(strike: Strike) -> dict[str, str]:
    return {"Retry-After": formatdate(ceil(strike.now + strike.seconds), usegmt=True)}


def _hang_up(line: Line) -> None:
    line.hang_up()


def _reset_line(line: Line) -> None:
    line.reset()


# The effects


async def shut_the_door(strike: Strike) -> Response:
    response = await strike.real()
    if strike.line is None:
        raise ConnectionRefusedError("a scripted fault refuses connections")
    response.headers["connection"] = "close"
    strike.line.shut(strike.seconds)
    return response


def reset(strike: Strike, response: Response | None = None) -> Response:
    return _Broken(response, end=_reset_line, line=strike.line)


def lose(strike: Strike, response: Response) -> Response:
    return _Broken(response, end=_hang_up, line=strike.line)


async def late(strike: Strike) -> Response:
    response = await strike.real()
    await anyio.sleep(strike.seconds)
    return response


def drip(strike: Strike, response: Response) -> Response:
    body = bytes(response.body)
    return _Broken(response, _drops(body, strike.seconds), length=len(body))


async def _drops(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    size = max(1, len(body) // 20)
    for start in range(0, len(body), size):
        await anyio.sleep(seconds * size / len(body))
        yield body[start : start + size]


def endless(strike: Strike, response: Response) -> Response:
    return _Broken(response, _flood(bytes(response.body), ENDLESS), end=_hang_up, line=strike.line)


async def _flood(body: bytes, total: int) -> AsyncIterator[bytes]:
    """The body's beginning and then more and more of the same string."""
    yield body[:16]
    until = time.monotonic() + MAX_SECONDS
    for _ in range((total - 16) // _PIECE):
        if time.monotonic() > until:
            return
        await anyio.lowlevel.checkpoint()
        yield b"a" * _PIECE


def after_all(status: int) -> Change:
    return lambda strike, response: _say(strike, status, HTTPStatus(status).phrase)


def with_body(body: bytes, kind: str = "application/json") -> Change:
    return lambda strike, response: Response(body, response.status_code, media_type=kind)


def halved(strike: Strike, response: Response) -> Response:
    body = bytes(response.body)
    return Response(body[: len(body) // 2], response.status_code, media_type="application/json")


def of_other_types(strike: Strike, response: Response) -> Response:
    answer = json_or_none(bytes(response.body))
    swapped = {name: _other(value) for name, value in answer.items()} if is_object(answer) else 7
    return JSONResponse(swapped, status_code=response.status_code)


def _other(value: object) -> object:
    return {"was": "text"} if isinstance(value, str) else "was no text"


def detail_of(status: int, detail: object) -> Effect:
    return instead(lambda strike: JSONResponse({"detail": detail}, status_code=status))


def redirect(status: int) -> Callable[[Strike], Response]:
    return lambda strike: Response(b"", status, headers={"Location": strike.value})


def field(name: str) -> Edit:
    return lambda strike, job: {**job, name: strike.value}


def done_with(response: object) -> Edit:
    return lambda strike, job: {**job, "status": "DONE", "response": response}


def stuck(strike: Strike, job: dict[str, object]) -> dict[str, object]:
    return {**job, "status": "IN_PROGRESS", "response": None}


def other_address(strike: Strike, job: dict[str, object]) -> dict[str, object]:
    return {**job, "response": [{**image, "url": strike.value} for image in _images(job)]}


def blur_all(strike: Strike, job: dict[str, object]) -> dict[str, object]:
    return {**job, "response": [{**image, "isBlur": True} for image in _images(job)]}


def blur_first(strike: Strike, job: dict[str, object]) -> dict[str, object]:
    blurred = [{**image, "isBlur": index == 0} for index, image in enumerate(_images(job))]
    return {**job, "response": blurred}


def _images(job: Mapping[str, object]) -> list[dict[str, object]]:
    return [image for image in entries(job.get("response")) if is_object(image)]


async def stale(strike: Strike) -> Response:
    strike.refuse_token(strike.request.headers.get("authorization", ""))
    return await strike.real()


async def echo(strike: Strike) -> Response:
    request = strike.request
    sent = (await request.body()).decode("utf-8", "replace")
    words = f"cannot serve {request.url} {request.headers.get('authorization', '')} {sent}"
    return _say(strike, 400, words)


def cut(strike: Strike, response: Response) -> Response:
    body = bytes(response.body)
    half = _drops(body[: len(body) // 2], 0.0)
    length = len(body) if strike.line else None
    return _Broken(response, half, length=length, end=_hang_up, line=strike.line)


def too_large(strike: Strike, response: Response) -> Response:
    total = 16 + (MAX_IMAGE // _PIECE + 1) * _PIECE
    return _Broken(response, _flood(bytes(response.body), total), length=total)
