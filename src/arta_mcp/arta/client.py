"""ArtaClient: the remote side as a Python object: submit, look, download, styles."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anyio

from arta_mcp.arta.protocol import (
    MAX_IMAGE,
    SUBMIT_PATH,
    Image,
    Job,
    Refusal,
    Submit,
    parse_styles,
    status_path,
)
from arta_mcp.arta.refusals import styles_in_refusal
from arta_mcp.arta.tokens import TokenSource
from arta_mcp.arta.transport import Answer, NotSent, Transport
from arta_mcp.background import Told
from arta_mcp.errors import (
    ArtaError,
    AuthError,
    PromptRejected,
    ProtocolError,
    RateLimited,
    SubmitUnknown,
    Unavailable,
    UnknownRecord,
    UnknownStyle,
)
from arta_mcp.redaction import Secret, sanitize

_PAUSES = (0.5, 1.0, 2.0)
"""seconds before a submit that never left is tried again"""

_LEAST_PAUSE = 0.5
"""seconds before a submit that was put off is tried again, also where `Retry-After` is 0"""

_SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpg"), (b"GIF8", "gif"))


class Transient(Unavailable):
    """A look that failed in a way that the next one may not; the job is not touched by it."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Picture:
    """A downloaded picture; `suffix` is told from its bytes, never from its address."""

    content: bytes = field(repr=False)
    suffix: str


class ArtaClient:
    """One image host, spoken to with the tokens of one account."""

    def __init__(
        self,
        base_url: str,
        *,
        tokens: TokenSource,
        transport: Transport,
        styles_url: str | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        """`clock` gives seconds since the epoch."""
        self._base_url, self._styles_url = base_url.rstrip("/"), styles_url
        self._tokens, self._transport = tokens, transport
        self._clock, self._sleep = clock, sleep
        self._private = (urlsplit(base_url).hostname or "") in ("127.0.0.1", "localhost", "::1")

    @property
    def lists_styles(self) -> bool:
        """Whether there is an address to ask for the live list."""
        return bool(self._styles_url)

    async def ready(self, *, meanwhile: Told | None = None, every: float = 2.5) -> None:
        """Makes sure of a fresh token, so that `submit` has one thing left to do: the POST."""
        await self._tokens.current(meanwhile=meanwhile, every=every)

    async def submit(self, order: Submit, *, deadline: float) -> Job:
        """Orders a job, at most once; `deadline` is seconds from now for pauses before a repeat.

        It is sent again only when no job can exist: no connection was made, 401 (once), 429 or 503
        with a `Retry-After` inside the deadline. Raises SubmitUnknown when the answer was lost.
        """
        end = self._clock() + deadline
        renewed, pauses = False, iter(_PAUSES)
        token = await self._tokens.current()
        while True:
            try:
                answer = await self._post(order, token)
            except NotSent:
                pause = next(pauses, None)
                if pause is None or self._clock() + pause > end:
                    raise
                await self._sleep(pause)
                continue
            if 200 <= answer.status < 300:
                return _submitted(answer)
            refusal = self._refusal(answer)
            if refusal.status == 401 and not renewed:
                token, renewed = await self._tokens.renew(token), True
            elif refusal.status in (429, 503) and self._fits(refusal.retry_after, end):
                await self._sleep(max(_LEAST_PAUSE, refusal.retry_after or 0))
            else:
                raise _explain_submit(refusal, order.style)

    async def look(self, record_id: str) -> Job:
        """Where a job stands now.

        Raises Transient when another look may tell, anything else when none will.
        """
        try:
            return await self._look(record_id)
        except Transient:
            raise
        except Unavailable as exc:
            raise Transient(exc.message) from exc
        except ArtaError as exc:
            exc.record_id = exc.record_id or record_id
            raise

    async def download(self, image: Image) -> Picture:
        """The picture behind an address, at most 32 MiB; raises Unavailable or ProtocolError."""
        answer = await self._transport.download(image.url, limit=MAX_IMAGE, private=self._private)
        if answer.status != 200:
            raise Unavailable(f"a picture's host answers with {answer.status}")
        suffix = _suffix(answer.body)
        if suffix is None:
            raise ProtocolError("what came from a picture's address is not a picture")
        return Picture(answer.body, suffix)

    async def styles(self) -> tuple[str, ...]:
        """The wire styles of the live list; raises when the service has none to give."""
        answer = await self._transport.exchange("GET", self._styles_url or "")
        if answer.status != 200:
            raise Unavailable(f"the style list's host answers with {answer.status}")
        return parse_styles(answer.body)

    async def _post(self, order: Submit, token: Secret) -> Answer:
        try:
            return await self._transport.exchange(
                "POST", self._base_url + SUBMIT_PATH, headers=_bearer(token), form=order.form()
            )
        except NotSent:
            raise
        except (Unavailable, ProtocolError) as exc:
            raise SubmitUnknown(f"the answer to the submit was lost: {exc.message}") from exc

    async def _look(self, record_id: str) -> Job:
        token = await self._tokens.current()
        answer = await self._status(record_id, token)
        if answer.status == 401:
            answer = await self._status(record_id, await self._tokens.renew(token))
        if answer.status == 200:
            return _looked(answer, record_id)
        raise _explain_look(self._refusal(answer))

    async def _status(self, record_id: str, token: Secret) -> Answer:
        url = self._base_url + status_path(record_id)
        try:
            return await self._transport.exchange("GET", url, headers=_bearer(token))
        except ProtocolError as exc:
            raise Transient(exc.message) from exc

    def _refusal(self, answer: Answer) -> Refusal:
        return Refusal.parse(answer.status, answer.headers, answer.body, now=self._clock())

    def _fits(self, retry_after: float | None, end: float) -> bool:
        return retry_after is not None and self._clock() + retry_after <= end


def _bearer(token: Secret) -> Mapping[str, str]:
    """The bare id token: this service wants no `Bearer` before it."""
    return {"authorization": token.reveal()}


def _submitted(answer: Answer) -> Job:
    try:
        return Job.parse(answer.body)
    except ProtocolError as exc:
        if exc.record_id is not None:  # a job exists, whatever else is wrong: look at it later
            return Job(record_id=exc.record_id, status="IN_QUEUE")
        raise SubmitUnknown(f"the answer to the submit cannot be read: {exc.message}") from exc


def _looked(answer: Answer, record_id: str) -> Job:
    try:
        job = Job.parse(answer.body)
    except ProtocolError as exc:
        if exc.record_id is None:
            raise Transient(exc.message) from exc
        raise
    if job.record_id != record_id:
        raise Transient(f"the service answered for another job: {sanitize(job.record_id, 80)}")
    return job


def _explain_submit(refusal: Refusal, style: str) -> ArtaError:
    """The error for a refused submit; only some refusals say that no job was made."""
    said = f"the service refuses with {refusal.status}: {_words(refusal)}"
    match refusal.status:
        case 400 | 422 if valid := styles_in_refusal(refusal.words):
            return RefusedStyle(style, valid)
        case 400 | 422:
            return PromptRejected(said)
        case 401 | 403:
            return AuthError(said, hint="`arta-mcp doctor` shows what the service accepts")
        case 429:
            return RateLimited(said, retry_after=refusal.retry_after)
        case 503 if refusal.retry_after is not None:
            return Unavailable(said)
        case status if status >= 500 or 300 <= status < 400 or status in (408, 409):
            return SubmitUnknown(f"{said}, and does not say whether a job was made")
        case _:
            return ProtocolError(said)


class RefusedStyle(UnknownStyle):
    """The service does not draw this style; `valid` are the wire names it listed."""

    def __init__(self, name: str, valid: tuple[str, ...]) -> None:
        self.valid = valid
        super().__init__(name, message=f"the service has no style {sanitize(repr(name), 80)} now")


def _explain_look(refusal: Refusal) -> ArtaError:
    """The error for a look that was refused; without a word it may be a hiccup (tgpt#374)."""
    said = f"the service refuses the look with {refusal.status}: {_words(refusal)}"
    match refusal.status:
        case 408 | 429:
            return Transient(said, retry_after=refusal.retry_after)
        case status if status >= 500:
            return Transient(said, retry_after=refusal.retry_after)
        case 404 if refusal.detail is not None:
            return UnknownRecord("the service knows no generation with this record id")
        case _ if refusal.detail is None:
            return Transient(said)
        case 401 | 403:
            return AuthError(said)
        case _:
            return ProtocolError(said)


def _words(refusal: Refusal) -> str:
    return sanitize(f"{refusal.code} {refusal.words}") or "no reason given"


def _suffix(content: bytes) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:12] in (b"ftypavif", b"ftypavis"):
        return "avif"
    return next((suffix for start, suffix in _SIGNATURES if content.startswith(start)), None)
