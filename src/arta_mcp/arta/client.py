"""ArtaClient: the remote side as a Python object: submit, poll, download, list styles."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anyio

from arta_mcp.arta.protocol import (
    MAX_IMAGE,
    SUBMIT_PATH,
    Addresses,
    Image,
    Job,
    Submit,
    parse_styles,
    status_path,
)
from arta_mcp.arta.refusals import Refusal
from arta_mcp.arta.tokens import TokenSource
from arta_mcp.arta.transport import Answer, Transport
from arta_mcp.arta.url_guard import is_loopback
from arta_mcp.background import pause_after_failure, retry
from arta_mcp.errors import (
    ArtaError,
    AuthError,
    NotSent,
    PicturesRemoved,
    PollFailed,
    PromptRejected,
    ProtocolError,
    RateLimited,
    RefusedStyle,
    SubmitUnknown,
    Unavailable,
    UnknownRecord,
)
from arta_mcp.redaction import Secret, sanitize

MIN_PAUSE = 0.5
"""seconds before a submit that was put off is tried again, also with a `Retry-After` of 0"""

EMBEDDED_EXCHANGES = 4
"""exchanges at once with a service in our own process, which answers one after the other anyway:
httpcore looks at every connection for every request, and 200 of them held the event loop up"""

_SIGNATURES = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpg"), (b"GIF8", "gif"))


@dataclass(frozen=True, slots=True)
class Picture:
    """A downloaded picture; `suffix` comes from its bytes, never from its address."""

    content: bytes = field(repr=False)
    suffix: str


class ArtaClient:
    """One image host, spoken to with the tokens of one account."""

    def __init__(
        self,
        addresses: Addresses,
        *,
        tokens: TokenSource,
        transport: Transport,
        embedded: bool = False,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        """`clock` gives seconds since the epoch; `embedded` is our own service on this machine."""
        self._base_url, self._styles_url = addresses.base_url.rstrip("/"), addresses.styles_url
        self._tokens, self._transport, self._embedded = tokens, transport, embedded
        self._turns = anyio.CapacityLimiter(EMBEDDED_EXCHANGES) if embedded else nullcontext()
        self._clock, self._sleep = clock, sleep
        # What a service on this machine names may lie on this machine; a remote one's may not.
        self._may_download_private = is_loopback(urlsplit(self._base_url).hostname or "")

    @property
    def lists_styles(self) -> bool:
        """Whether there is an address to ask for the live list."""
        return bool(self._styles_url)

    @property
    def has_token(self) -> bool:
        """Whether a fresh token is at hand, so that nothing has to be asked for it."""
        return self._tokens.fresh_token is not None

    async def prepare_token(self) -> None:
        """Makes sure of a fresh token, so that `submit` has one thing left to do: the POST."""
        await self._tokens.get_token()

    async def submit(self, request: Submit, *, deadline: float) -> Job:
        """Makes a job, at most one; `deadline` is seconds from now for pauses before a repeat.

        It is sent again only when no job can exist: no connection was made, 401 (once), 429 or 503
        with a `Retry-After` inside the deadline. Raises SubmitUnknown when the answer was lost.
        """
        end = self._clock() + deadline
        token, is_renewed = await self._tokens.get_token(), False

        async def submit_once() -> Job:
            nonlocal token, is_renewed
            answer = await self._post(request, token)
            if answer.status == 401 and not is_renewed:  # refused before it was read: no job exists
                token, is_renewed = await self._tokens.renew_token(token), True
                answer = await self._post(request, token)
            if not 200 <= answer.status < 300:
                raise _explain_submit(self._parse_refusal(answer), request.style)
            try:
                return Job.parse(answer.body)
            except ProtocolError as exc:
                if exc.record_id is not None:  # a job exists, whatever else is wrong: poll it later
                    return Job(record_id=exc.record_id, status="IN_QUEUE")
                why = f"the answer to the submit cannot be read: {exc.message}"
                raise SubmitUnknown(why) from exc

        def pause_after(exc: ArtaError, tries: int) -> float | None:
            match exc:
                case NotSent():
                    pause = pause_after_failure(exc, tries)
                case RateLimited() | Unavailable() if exc.retry_after is not None:
                    pause = max(MIN_PAUSE, exc.retry_after)
                case _:
                    return None
            return None if pause is None or self._clock() + pause > end else pause

        return await retry(submit_once, pause_after, sleep=self._sleep)

    async def poll_until_answered(self, record_id: str) -> Job:
        """Where a job stands now, for who polls but once: as `poll`, and tried again."""

        def pause_after(exc: ArtaError, tries: int) -> float | None:
            return pause_after_failure(exc, tries) if isinstance(exc, PollFailed) else None

        return await retry(lambda: self.poll(record_id), pause_after, sleep=self._sleep)

    async def poll(self, record_id: str) -> Job:
        """Where a job stands now.

        Raises PollFailed when another poll may help, anything else when none will.
        """
        try:
            token = await self._tokens.get_token()
            answer = await self._get_status(record_id, token)
            if answer.status == 401:
                answer = await self._get_status(record_id, await self._tokens.renew_token(token))
            if answer.status == 200:
                return _read_poll(answer, record_id, embedded=self._embedded)
            raise _explain_poll(self._parse_refusal(answer))
        except PollFailed:
            raise
        except Unavailable as exc:
            raise PollFailed(exc.message, retry_after=exc.retry_after) from exc
        except ArtaError as exc:
            exc.record_id = exc.record_id or record_id
            raise

    async def download(self, image: Image) -> Picture:
        """The picture behind an address, at most 32 MiB; raises Unavailable or ProtocolError."""

        async def fetch() -> Answer:
            answer = await self._transport.download(
                image.url, limit=MAX_IMAGE, private=self._may_download_private
            )
            if answer.status == 410:
                raise _explain_removal(self._parse_refusal(answer))
            return answer

        # What is refused now is refused later too: its address may have expired, or it is gone.
        hint = "get_generation with the record id asks for a new address; if that fails, draw again"
        answer = await self._fetch_again(fetch, "a picture's host", refused_hint=hint)
        suffix = _suffix_of(answer.body)
        if suffix is None:
            raise ProtocolError("what came from a picture's address is not a picture")
        return Picture(answer.body, suffix)

    async def list_styles(self) -> tuple[str, ...]:
        """The wire styles of the live list; raises when the service has none to give."""

        async def fetch() -> Answer:
            return await self._transport.exchange("GET", self._styles_url or "")

        return parse_styles((await self._fetch_again(fetch, "the style list's host")).body)

    async def _fetch_again(
        self,
        fetch: Callable[[], Awaitable[Answer]],
        host: str,
        *,
        refused_hint: str = "",
    ) -> Answer:
        """The 200 of a GET that needs no token; tried again after whatever may pass."""
        is_passing = True

        async def fetch_once() -> Answer:
            nonlocal is_passing
            is_passing = True
            answer = await fetch()
            if answer.status == 200:
                return answer
            is_passing = answer.status in (408, 429) or answer.status >= 500
            wait = self._parse_refusal(answer).retry_after
            hint = "" if is_passing else refused_hint
            raise Unavailable(f"{host} answers with {answer.status}", hint=hint, retry_after=wait)

        def pause_after(exc: ArtaError, tries: int) -> float | None:
            may_pass = is_passing and isinstance(exc, Unavailable)
            return pause_after_failure(exc, tries) if may_pass else None

        return await retry(fetch_once, pause_after, sleep=self._sleep)

    async def _post(self, request: Submit, token: Secret) -> Answer:
        try:
            async with self._turns:
                return await self._transport.exchange(
                    "POST",
                    self._base_url + SUBMIT_PATH,
                    headers=_bearer(token),
                    form=request.form(),
                )
        except NotSent:
            raise
        except (Unavailable, ProtocolError) as exc:
            raise SubmitUnknown(f"the answer to the submit was lost: {exc.message}") from exc

    async def _get_status(self, record_id: str, token: Secret) -> Answer:
        url = self._base_url + status_path(record_id)
        try:
            async with self._turns:
                return await self._transport.exchange("GET", url, headers=_bearer(token))
        except ProtocolError as exc:  # too large or packed: the next one may not be
            raise PollFailed(exc.message) from exc

    def _parse_refusal(self, answer: Answer) -> Refusal:
        return Refusal.parse(answer.status, answer.headers, answer.body, now=self._clock())


def _bearer(token: Secret) -> Mapping[str, str]:
    """The bare id token: this service wants no `Bearer` before it."""
    return {"authorization": token.reveal()}


def _read_poll(answer: Answer, record_id: str, *, embedded: bool) -> Job:
    try:
        job = Job.parse(answer.body, embedded=embedded)
    except ProtocolError as exc:
        if exc.record_id is None:
            raise PollFailed(exc.message) from exc
        raise
    if job.record_id != record_id:
        raise PollFailed(f"the service answered for another job: {sanitize(job.record_id, 80)}")
    return job


def _explain_submit(refusal: Refusal, style: str) -> ArtaError:
    """The error for a refused submit; only some refusals say that no job was made."""
    said = f"the service refuses with {refusal.status}: {_words(refusal)}"
    match refusal.status:
        case 400 | 422 if valid := refusal.valid_styles:
            return RefusedStyle(style, valid)
        case 400 | 422:
            return PromptRejected(said)
        case 401 | 403:
            return AuthError(said, hint="`arta-mcp doctor` shows what the service accepts")
        case 429:
            return RateLimited(said, retry_after=refusal.retry_after)
        case 503 if refusal.retry_after is not None:
            return Unavailable(said, retry_after=refusal.retry_after)
        case status if status >= 500 or 300 <= status < 400 or status in (408, 409):
            return SubmitUnknown(f"{said}, and does not say whether a job was made")
        case _:
            return ProtocolError(said)


def _explain_poll(refusal: Refusal) -> ArtaError:
    """The error for a poll that was refused; without a word it may be a hiccup (tgpt#374)."""
    said = f"the service refuses the look with {refusal.status}: {_words(refusal)}"
    match refusal.status:
        case 408 | 429:
            return PollFailed(said, retry_after=refusal.retry_after)
        case status if status >= 500:
            return PollFailed(said, retry_after=refusal.retry_after)
        case 410 if refusal.detail is not None:
            return _explain_removal(refusal)
        case 404 if refusal.detail is not None:
            return UnknownRecord("the service knows no generation with this record id")
        case _ if refusal.detail is None:
            return PollFailed(said)
        case 401 | 403:
            return AuthError(said)
        case _:
            return ProtocolError(said)


def _explain_removal(refusal: Refusal) -> PicturesRemoved:
    return PicturesRemoved(f"the pictures are gone: {sanitize(_words(refusal), 200)}")


def _words(refusal: Refusal) -> str:
    return sanitize(f"{refusal.code} {refusal.words}") or "no reason given"


def _suffix_of(content: bytes) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:12] in (b"ftypavif", b"ftypavis"):
        return "avif"
    return next((suffix for start, suffix in _SIGNATURES if content.startswith(start)), None)
