"""Asking a person's own server for a picture: one POST, never repeated; what errors mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from arta_mcp.errors import (
    AnswerLost,
    ArtaError,
    EngineBusy,
    EngineCrashed,
    EngineError,
    EngineUnavailable,
    ModelNotFound,
    NotSent,
    OutOfMemory,
    PromptRejected,
    ProtocolError,
    RequestRefused,
    Unavailable,
)
from arta_mcp.redaction import Secret, sanitize
from arta_mcp.untrusted_json import is_object, json_or_none, list_or_empty, text

MAX_IMAGE = 32 * 1024 * 1024
"""bytes of a picture"""

MAX_ANSWER = MAX_IMAGE * 4 // 3 + 1024 * 1024
"""bytes of an answer with one picture in Base64"""

MAX_LISTING = 1024 * 1024
"""bytes of any other answer"""

ASK_TIMEOUT = 15.0
"""seconds for what draws nothing"""

MODERATION = ("moderation_blocked", "content_policy_violation", "content_filter")
"""codes of servers that refuse the words themselves"""

NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
"""codes that come as 429 and that no waiting mends"""

_MEMORY = re.compile(
    r"(?i)out of memory|\boom\b|can.?t allocate|failed to allocate|not enough memory"
)


_NO_MODEL = re.compile(
    r"(?i)\bmodel\b.{0,200}\b(not (found|exist|available|loaded|supported)|unknown|invalid)"
    r"|(unknown|invalid|no such) model"
)


class HttpAnswer(Protocol):
    """What came back; header names are in lower case."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class HttpClient(Protocol):
    """The client that is handed in: it sends once, follows no redirect, and bounds what it reads.

    Raises NotSent when nothing can have been done about a request, Unavailable when there was no
    whole answer, ProtocolError for one that is too long.
    """

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Mapping[str, object] | None = None,
        limit: int = ...,
        timeout: float | None = None,
    ) -> HttpAnswer: ...

    async def download(self, url: str, *, limit: int, private: bool) -> HttpAnswer: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Server:
    """A server at an address, with the key that goes to it and to nobody else.

    `timeout` is how many seconds one picture may take; `key_setting` is where the key is set.
    """

    url: str
    http: HttpClient
    key: Secret | None = None
    timeout: float = 600.0

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def has(self, url: str) -> bool:
        """Whether an address is of this server, so that the key may go there."""
        # To the letter: another port of the same host may be somebody else's.
        return (urlsplit(url).scheme, urlsplit(url).netloc) == (
            urlsplit(self.url).scheme,
            urlsplit(self.url).netloc,
        )

    async def draw(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        """The object that a POST for one picture is answered with. Raises EngineError.

        Nothing here is sent twice: whatever was sent may have been drawn, and paid for.
        """
        try:
            answer = await self.http.exchange(
                "POST",
                self.url + path,
                headers=self._headers(),
                json=body,
                limit=MAX_ANSWER,
                timeout=self.timeout,
            )
        except NotSent as exc:
            raise self._unavailable(exc) from exc
        except Unavailable as exc:
            raise AnswerLost(exc.message) from exc
        except ProtocolError as exc:
            raise EngineError(f"{self.origin}: {exc.message}") from exc
        if answer.status != 200:
            raise self.explain(path, answer)
        found = json_or_none(answer.body)
        if not is_object(found):
            shown = sanitize(answer.body[:200].decode("utf-8", "replace"), 120)
            raise EngineError(f"{self.origin} answered with no JSON object: {shown}")
        return found

    async def ask(self, path: str) -> object:
        """The JSON that a GET gives; None where there is none, or no answer in time.

        Raises EngineUnavailable where nothing answers, RequestRefused where a key is missing.
        """
        try:
            answer = await self.http.exchange(
                "GET",
                self.url + path,
                headers=self._headers(),
                limit=MAX_LISTING,
                timeout=ASK_TIMEOUT,
            )
        except NotSent as exc:
            raise self._unavailable(exc) from exc
        except ArtaError:
            return None
        if answer.status in (401, 403):
            raise self.explain(path, answer)
        return json_or_none(answer.body) if answer.status == 200 else None

    async def fetch(self, url: str) -> bytes:
        """The picture at an address that the server gave: its own, or public and https."""
        host = urlsplit(url).hostname or ""
        try:
            if self.has(url):
                answer = await self.http.exchange(
                    "GET", url, headers=self._headers(), limit=MAX_IMAGE, timeout=ASK_TIMEOUT * 4
                )
            elif urlsplit(url).scheme == "https":
                answer = await self.http.download(url, limit=MAX_IMAGE, private=False)
            else:
                raise EngineError(
                    f"{self.origin} says that the picture lies at {sanitize(url, 120)}",
                    hint="that is neither its own address nor https: set the server's public"
                    f" address ({sanitize(host, 40)} is not it), or have it answer with b64_json",
                )
        except (Unavailable, ProtocolError) as exc:
            raise EngineError(f"the picture could not be fetched: {exc.message}") from exc
        if answer.status != 200:
            raise EngineError(f"the picture at {sanitize(url, 120)} answers {answer.status}")
        return answer.body

    def explain(self, path: str, answer: HttpAnswer) -> ArtaError:
        """What an answer that is an error means, whichever of the five shapes its body has."""
        words, code = read_error(answer.body)
        said = f"{self.origin} answers {answer.status}" + (f": {words}" if words else "")
        status = answer.status
        # By code and status before words, which are anybody's.
        if code in MODERATION:
            return PromptRejected(said)
        if status in (401, 403):
            hint = "set ARTA_LOCAL_KEY to the key of that server"
            return RequestRefused(said, hint=hint)
        if code in NO_MONEY or status == 402:
            return RequestRefused(said, hint="see to the account behind the key at that service")
        if code == "model_not_found" or (status in (400, 404, 422) and _NO_MODEL.search(words)):
            return ModelNotFound(said)
        if status in (404, 405):
            hint = f"ARTA_LOCAL_URL is the part before {path}; see that the server draws pictures"
            return EngineUnavailable(f"{self.origin} has no {path}", hint=hint)
        if 300 <= status < 400:
            return EngineUnavailable(said, hint="set ARTA_LOCAL_URL to where it leads")
        retry_after = read_retry_after(answer.headers)
        # A 503 may also come from what drew: only one that names a time was not begun.
        if status == 429 or (status in (408, 409, 503) and retry_after is not None):
            return EngineBusy(said, retry_after=retry_after)
        if _MEMORY.search(words):
            return OutOfMemory(said)
        if status >= 500:
            return EngineCrashed(said)
        return RequestRefused(said)

    def _unavailable(self, exc: NotSent) -> EngineUnavailable:
        hint = exc.hint if "proxy" in exc.hint else ""
        return EngineUnavailable(f"{self.origin}: {exc.message}", hint=hint)

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key.reveal()}"} if self.key else {}


def read_error(body: bytes) -> tuple[str, str]:
    """What an error's body says, and its code: OpenAI's object, a text, FastAPI's, or no JSON."""
    answer = json_or_none(body)
    if not is_object(answer):
        return sanitize(body[:400].decode("utf-8", "replace"), 200), ""
    error = answer.get("error")
    if is_object(error):
        return sanitize(text(error, "message"), 300), text(error, "code") or text(error, "type")
    detail = answer.get("detail") or answer.get("errors") or answer.get("message")
    parts = [one for one in (error, detail) if isinstance(one, str)]
    # FastAPI's: what is wrong, each with the path to its field
    for entry in list_or_empty(detail):
        if is_object(entry):
            where = str((list_or_empty(entry.get("loc")) or [""])[-1])
            parts.append(f"{where}: {text(entry, 'msg')}" if where else text(entry, "msg"))
        else:
            parts.append(str(entry))
    return sanitize("; ".join(parts) or body[:400].decode("utf-8", "replace"), 300), ""


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until a server wants to be asked again, from each of its three forms."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "")
        if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
            return float(value) / unit
    from email.utils import parsedate_to_datetime

    # By the server's own clock, which wrote its date.
    when, now = headers.get("retry-after", ""), headers.get("date", "")
    try:
        return max(0.0, (parsedate_to_datetime(when) - parsedate_to_datetime(now)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
