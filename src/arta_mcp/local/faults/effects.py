"""What a fault does to one request: the effects that `catalogue` gives names to.

An effect is of one of three kinds: `instead` answers without the service, `change` turns the
service's answer into another, `edit` changes the fields of a job in it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping
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
from arta_mcp.untrusted_json import is_object, json_or_none, list_or_empty

MAX_SECONDS = 60.0
"""no fault lasts longer"""

MAX_ENDLESS = 64 * 1024 * 1024
"""bytes after which even the endless body ends"""

IDENTITY = ("sign_up", "refresh")
"""the endpoints whose host is Google's and refuses in Google's manner"""

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

_CHUNK = 64 * 1024
"""bytes of one piece of a flood"""


@dataclass(frozen=True, slots=True)
class Connection:
    """A real connection and the listener that accepted it; `injection` provides both."""

    transport: asyncio.Transport
    shut_listener: Callable[[float], None]
    """accept no connection for so many seconds"""

    def reset(self) -> None:
        """RST instead of FIN: the kernel sends one when a socket that may not linger is closed."""
        if (raw := self.transport.get_extra_info("socket")) is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def close(self) -> None:
        """FIN, once what was sent so far has left."""
        self.transport.close()


@dataclass(frozen=True, slots=True)
class FaultContext:
    """One request that a fault befalls; without a port there is no `connection`."""

    endpoint: str
    value: str
    request: Request
    body: bytes
    now: float
    """seconds since the epoch, by the service's clock"""
    connection: Connection | None
    refuse_token: Callable[[str], None]

    @property
    def seconds(self) -> float:
        """The value of a fault that takes seconds."""
        return float(self.value)


Instead = Callable[[FaultContext], Response]
Change = Callable[[FaultContext, Response], Response]
Edit = Callable[[FaultContext, dict[str, object]], dict[str, object]]


class BrokenResponse(Response):
    """An answer that is sent in `pieces`, or not at all, and may `end` as no answer should."""

    def __init__(
        self,
        connection: Connection | None,
        *,
        like: Response | None = None,
        pieces: AsyncIterator[bytes] | None = None,
        length: int | None = None,
        end: Callable[[Connection], None] | None = None,
    ) -> None:
        # 0 is for the log: the client sees no status where there is no answer.
        super().__init__(status_code=0 if like is None else like.status_code)
        kind = "" if like is None else like.headers.get("content-type", "")
        self.raw_headers = [(b"content-type", kind.encode("latin-1"))]
        if length is not None:
            self.raw_headers.append((b"content-length", str(length).encode()))
        self._connection, self._pieces, self._end = connection, pieces, end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._pieces is not None:
            start = {"type": "http.response.start", "status": self.status_code}
            await send({**start, "headers": self.raw_headers})
            # A client may read slower than any fault is meant to last.
            with anyio.move_on_after(MAX_SECONDS):
                async for piece in self._pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        elif self._connection is None:
            raise ConnectionResetError("a scripted fault broke the connection")
        if self._end is None or self._connection is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        self._end(self._connection)
        # uvicorn would complain of an answer that ends before its connection does.
        while (await receive())["type"] != "http.disconnect":
            pass


# Instead of the service


def refuse(status: int, retry_after: str = "") -> Instead:
    """A refusal with a Retry-After in `seconds` or as a `date`, or with the header it is given."""

    def respond(context: FaultContext) -> Response:
        name, colon, value = context.value.partition(":")
        match retry_after:
            case "seconds":
                headers = {"Retry-After": context.value}
            case "date":  # rounded up: it says whole seconds, and none may be too early
                date = formatdate(ceil(context.now + context.seconds), usegmt=True)
                headers = {"Retry-After": date}
            case _:
                headers = {name.strip(): value.strip()} if colon else {}
        return _refusal(context, status, HTTPStatus(status).phrase, headers)

    return respond


def refuse_with_code(status: int, code: str, words: str = "") -> Instead:
    """A refusal of Google's."""
    return answer(status, Refusal(status, words, code).render())


def answer(status: int, body: object) -> Instead:
    """Always the same JSON."""
    return lambda context: JSONResponse(body, status_code=status)


def refuse_token(context: FaultContext) -> Response:
    """The id token is stale, here and from now on."""
    context.refuse_token(context.request.headers.get("authorization", ""))
    return _refusal(context, 401, "Token expired")


def redirect(status: int) -> Instead:
    """Off to the address that is the value."""
    return lambda context: Response(b"", status, headers={"Location": context.value})


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


# What becomes of the service's answer


def shut_listener(context: FaultContext, response: Response) -> Response:
    """The answer, and then no other for so many seconds."""
    if context.connection is None:
        raise ConnectionRefusedError("a scripted fault refuses connections")
    response.headers["connection"] = "close"
    context.connection.shut_listener(context.seconds)
    return response


def reset(context: FaultContext, response: Response | None = None) -> Response:
    """A reset connection and no byte."""
    return BrokenResponse(context.connection, end=Connection.reset)


def close(context: FaultContext, response: Response) -> Response:
    """A closed connection and no byte."""
    return BrokenResponse(context.connection, end=Connection.close)


def drip(context: FaultContext, response: Response) -> Response:
    """The whole body, a twentieth at a time."""
    body = bytes(response.body)
    drops = _drops(body, context.seconds)
    return BrokenResponse(context.connection, like=response, pieces=drops, length=len(body))


def flood(context: FaultContext, response: Response) -> Response:
    """A body without a length and without an end, until the connection is closed."""
    endless = _flood(bytes(response.body), MAX_ENDLESS)
    return BrokenResponse(context.connection, like=response, pieces=endless, end=Connection.close)


def cut(context: FaultContext, response: Response) -> Response:
    """Half of the body, where the headers promise all of it."""
    body = bytes(response.body)
    return BrokenResponse(
        context.connection,
        like=response,
        pieces=_drops(body[: len(body) // 2], 0.0),
        # Without a port the test client itself would object to the wrong length.
        length=len(body) if context.connection else None,
        end=Connection.close,
    )


def enlarge(context: FaultContext, response: Response) -> Response:
    """A body of just more than the largest picture."""
    total = 16 + (MAX_IMAGE // _CHUNK + 1) * _CHUNK
    pieces = _flood(bytes(response.body), total)
    return BrokenResponse(context.connection, like=response, pieces=pieces, length=total)


async def _drops(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    size = max(1, len(body) // 20)
    for start in range(0, len(body), size):
        await anyio.sleep(seconds * size / len(body))
        yield body[start : start + size]


async def _flood(body: bytes, total: int) -> AsyncIterator[bytes]:
    """The body's beginning and then more and more of the same string."""
    yield body[:16]
    until = time.monotonic() + MAX_SECONDS
    for _ in range((total - 16) // _CHUNK):
        # The deadline of the sender is checked where it awaits; a fast client never lets it.
        if time.monotonic() > until:
            return
        await anyio.lowlevel.checkpoint()
        yield b"a" * _CHUNK


def fail_after_all(status: int) -> Change:
    """The work is done and the answer says that it is not."""
    return lambda context, _: _refusal(context, status, HTTPStatus(status).phrase)


def replace_body(body: bytes, kind: str = "application/json") -> Change:
    """The same status with another body."""
    return lambda _, response: Response(body, response.status_code, media_type=kind)


def halve_body(context: FaultContext, response: Response) -> Response:
    """JSON that stops in the middle, with the length that it has."""
    body = bytes(response.body)
    return Response(body[: len(body) // 2], response.status_code, media_type="application/json")


def swap_types(context: FaultContext, response: Response) -> Response:
    """An object for each text, and a text for everything else."""
    answer = json_or_none(bytes(response.body))
    swapped: object = 7
    if is_object(answer):
        swapped = {
            name: {"was": "text"} if isinstance(value, str) else "was no text"
            for name, value in answer.items()
        }
    return JSONResponse(swapped, status_code=response.status_code)


# What becomes of a job


def set_field(name: str) -> Edit:
    """The value as a field of the job."""
    return lambda context, job: {**job, name: context.value}


def end_in(status: str, response: object) -> Edit:
    """A job of this status, with this for its pictures."""
    return lambda context, job: {**job, "status": status, "response": response}


def edit_images(change: Callable[[FaultContext, int], dict[str, object]]) -> Edit:
    """Other fields in each picture, which `change` is given the index of."""

    def edit(context: FaultContext, job: dict[str, object]) -> dict[str, object]:
        images = [image for image in list_or_empty(job.get("response")) if is_object(image)]
        changed = [{**image, **change(context, index)} for index, image in enumerate(images)]
        return {**job, "response": changed}

    return edit
