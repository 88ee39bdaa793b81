"""What is said to both hosts of the ARTA API and what they answer.

Client and embedded service both import this module; nothing else knows a path or a field name.
Source of every fact: public clients and captures, gathered in the project's wire notes on
2026-11-22; the tests' `wire/` folder holds the captured answers. No I/O happens here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Literal, get_args
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from arta_mcp.arta.refusals import Refusal, detail_words
from arta_mcp.errors import AuthError, ProtocolError, UnknownRecord
from arta_mcp.redaction import MAX_ID, Secret, is_plain_id, redact_known, sanitize
from arta_mcp.styles import MAX_STYLES, is_style_name
from arta_mcp.untrusted_json import is_object, list_or_empty, read_object, text, words_or_none

MAX_JSON = 1024 * 1024
"""bytes of an answer that are read at most"""

MAX_IMAGE = 32 * 1024 * 1024
"""bytes of a picture that are read at most"""

SUBMIT_PATH = "/api/v1/text2image"
SIGN_UP_PATHS = (
    "/identitytoolkit/v3/relyingparty/signupNewUser",  # the old name, on www.googleapis.com
    "/v1/accounts:signUp",  # the new one, on identitytoolkit.googleapis.com
)
REFRESH_PATH = "/v1/token"

_MIN_LIFETIME = 1.0
"""seconds of a token; an end that is the issue's float would count as damaged on disk"""

_MAX_IMAGES = 64
"""of one job, which can have 8"""

MAX_MIME_TYPE = 80

_MAX_ADDRESS = 4096
"""characters of a picture's address; with a signature and a session's token in it some 2,000"""

_AUTHORITY = re.compile(r"([\w.~-]+|\[[0-9A-Fa-f:.]+\])(:\d*)?")
"""host and port; a name with letters of any script is one, a `<` or a blank is in none"""

_ORIGIN = re.compile(r"(?i)\Ahttps?://[^/?#]*")

# RFC 3986: what may stand behind the authority. Brackets may not: without them an address is no
# image or link of Markdown, without angles no tag.
_URI_CHARACTERS = "/?#@!$&'()*+,;=:%"

STYLES_PATH = "/cms/content/apps/AIArtaAndroid/release/8/default/styles.json"

AspectRatio = Literal["1:1", "2:3", "3:2", "3:4", "4:3", "9:16", "16:9", "9:21", "21:9"]
RATIOS: tuple[str, ...] = get_args(AspectRatio)

MAX_SEED = 2**32 - 1
"""3965768918 was captured, so a seed is unsigned and has 32 bits"""

Prompt = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=4000),
    Field(description="what to draw: subject, setting, light, manner"),
]
NegativePrompt = Annotated[
    str, StringConstraints(max_length=4000), Field(description="what to keep out of the picture")
]
ImageCount = Annotated[int, Field(ge=1, le=8, description="how many pictures of one prompt")]
GuidanceScale = Annotated[
    float, Field(ge=1, le=20, description="how closely to follow the prompt; 7 suits most")
]
Steps = Annotated[int, Field(ge=1, le=50, description="more steps: finer and slower")]
Ratio = Annotated[AspectRatio, Field(description="width to height")]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED, description="the same seed draws alike again")]

DEFAULT_NEGATIVE_PROMPT = "blurry, deformed hands, ugly"


def is_record_id(text: str) -> bool:
    """Whether this can be a record id: it is shown, logged, and part of commands that we hint at.

    One that echoes a token of ours is none.
    """
    return is_plain_id(text)


def status_path(record_id: str) -> str:
    """Where a job is polled; the record id is data and cannot leave its segment.

    Raises UnknownRecord for what cannot be a record id.
    """
    if not is_record_id(record_id):
        raise UnknownRecord(f"no generation has the record id {sanitize(repr(record_id), 80)}")
    return f"{SUBMIT_PATH}/{quote(record_id, safe='')}/status"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where one backend answers; without `styles_url` it has no live list of styles."""

    base_url: str
    auth_url: str
    token_refresh_url: str
    styles_url: str | None = None

    @classmethod
    def at_origin(cls, origin: str, *, styles_url: str | None = None) -> Addresses:
        """Those of a service that answers for every host of the API, as the embedded one does."""
        return cls(origin, origin + SIGN_UP_PATHS[0], origin + REFRESH_PATH, styles_url)


# What we send


@dataclass(frozen=True, slots=True)
class SignUp:
    """The request for an anonymous account."""

    client_type: str

    def body(self) -> dict[str, str | bool]:
        """JSON fields that both paths take; `returnSecureToken` is what the new one documents."""
        return {"clientType": self.client_type, "returnSecureToken": True}

    @classmethod
    def parse(cls, body: bytes) -> SignUp:
        """The request a service received; an absent client type is the empty string."""
        answer = read_object(body) if body.strip() else {}
        client_type = answer.get("clientType", "")
        return cls(client_type=client_type if isinstance(client_type, str) else "")


@dataclass(frozen=True, slots=True)
class Refresh:
    """The request for a new id token."""

    refresh_token: Secret
    grant_type: str = "refresh_token"

    def body(self) -> bytes:
        """The urlencoded form, as documented."""
        token = self.refresh_token.reveal()
        return urlencode({"grant_type": self.grant_type, "refresh_token": token}).encode()

    @classmethod
    def parse(cls, body: bytes) -> Refresh:
        """The request a service received; absent fields are empty.

        Google takes the form, and JSON in either case of names. Raises ProtocolError when what
        opens like JSON is none.
        """
        fields: Mapping[str, object] = dict(parse_qsl(body.decode("utf-8", "replace")))
        if body.lstrip().startswith(b"{"):
            fields = read_object(body)
        token = text(fields, "refresh_token") or text(fields, "refreshToken")
        grant_type = text(fields, "grant_type") or text(fields, "grantType")
        return cls(refresh_token=Secret(token), grant_type=grant_type)


class Submit(BaseModel):
    """The form that makes a job; field names are ours, aliases are the wire's.

    Without `negative_prompt`, `cfg_scale` or `steps` an engine draws as it would by itself.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True, defer_build=True)

    prompt: Prompt
    negative_prompt: NegativePrompt | None = None
    style: Annotated[str, Field(min_length=1)]
    n: Annotated[ImageCount, Field(alias="images_num")] = 1
    guidance_scale: Annotated[GuidanceScale | None, Field(alias="cfg_scale")] = None
    num_inference_steps: Annotated[Steps | None, Field(alias="steps")] = None
    aspect_ratio: Ratio = "1:1"
    seed: Seed | None = None

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, object], *, style: str, seed: int) -> Submit:
        """The form for the arguments of a request, which were validated when it was made."""
        fields = {name: arguments[name] for name in cls.model_fields if name in arguments}
        values = {**fields, "style": style, "seed": seed}
        return cls.model_construct(**values)  # pyright: ignore[reportArgumentType]  # typed by the fields

    def form(self) -> dict[str, str]:
        """Every field as a decimal or plain string."""
        fields = self.model_dump(by_alias=True, exclude_none=True)
        # `7` for 7.0 too, as every client seen writes it
        return {
            name: str(value).removesuffix(".0") if isinstance(value, float) else str(value)
            for name, value in fields.items()
        }

    @classmethod
    def parse(cls, form: Mapping[str, str]) -> Submit | Refusal:
        """The form a service received, or what it answers instead (unknown fields vanish)."""
        try:
            return cls.model_validate(dict(form))
        except ValidationError as exc:
            errors = exc.errors(include_url=False, include_context=False)
            detail = [{**error, "loc": ["body", *error["loc"]]} for error in errors]
            return Refusal(status=422, words=detail_words(detail), detail=detail)


# What they answer


@dataclass(frozen=True, slots=True)
class Tokens:
    """What sign-up and refresh give; `expires_in` is in seconds from the answer."""

    id_token: Secret
    refresh_token: Secret
    expires_in: float
    user_id: str = ""

    @classmethod
    def parse(cls, body: bytes) -> Tokens:
        """Sign-up speaks camelCase, refresh snake_case; both send the lifetime as a string.

        Raises AuthError without an id token, ProtocolError when the answer is no object.
        """
        try:
            answer = read_object(body)
        except ProtocolError:  # its words quote the body, which may be half of a token
            raise ProtocolError("the identity host answered with no JSON object") from None
        id_token = text(answer, "idToken") or text(answer, "id_token")
        refresh_token = text(answer, "refreshToken") or text(answer, "refresh_token")
        if not is_token(id_token):
            raise AuthError("the identity host answered without an id token")
        if refresh_token and not is_token(refresh_token):
            raise AuthError("the identity host answered with a malformed refresh token")
        return cls(
            id_token=Secret(id_token),
            refresh_token=Secret(refresh_token),
            expires_in=_lifetime(answer.get("expiresIn", answer.get("expires_in"))),
            user_id=sanitize(text(answer, "localId") or text(answer, "user_id"), MAX_ID),
        )

    def render_sign_up(self) -> dict[str, str]:
        """The answer to a sign-up, as the service gives it."""
        return {
            "kind": "identitytoolkit#SignupNewUserResponse",
            "idToken": self.id_token.reveal(),
            "email": "",
            "refreshToken": self.refresh_token.reveal(),
            "expiresIn": f"{self.expires_in:.0f}",
            "localId": self.user_id,
        }

    def render_refresh(self, project: str) -> dict[str, str]:
        """The answer to a refresh, as the service gives it; `project` is its number."""
        return {
            "access_token": self.id_token.reveal(),
            "expires_in": f"{self.expires_in:.0f}",
            "token_type": "Bearer",
            "refresh_token": self.refresh_token.reveal(),
            "id_token": self.id_token.reveal(),
            "user_id": self.user_id,
            "project_id": project,
        }


@dataclass(frozen=True, slots=True)
class Image:
    """One picture of a finished job; `blurred` most likely means that moderation hid it."""

    url: str
    name: str = ""
    blurred: bool = False
    mime_type: str = "image/png"

    @classmethod
    def parse(cls, entry: object) -> Image:
        """One entry of `response`; raises ProtocolError when it has no web address."""
        given = text(entry, "url") if is_object(entry) else ""
        url = escape_address(redact_known(given)) if is_web_address(given) else ""
        if not is_object(entry) or not 0 < len(url) <= _MAX_ADDRESS:
            raise ProtocolError(f"an image has no web address: {sanitize(repr(given), 120)}")
        return cls(
            url=url,
            name=sanitize(text(entry, "name"), 200),
            blurred=entry.get("isBlur") is True,
            mime_type=sanitize(text(entry, "MIME"), MAX_MIME_TYPE) or "image/png",
        )

    def render(self) -> dict[str, str | bool]:
        """The entry as it stands in `response`."""
        return {"name": self.name, "url": self.url, "isBlur": self.blurred, "MIME": self.mime_type}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDetails:
    """What the embedded service says of a job beyond the ARTA wire; the remote one never does.

    `step` of `steps` counts drawing, over all pictures; `ahead` is how many jobs come first;
    `not_honoured` names arguments; `not_drawn` is a clause in the engine's own words;
    `hint` is the way out of a failure; steps and guidance are those that were used.
    """

    engine: str = ""
    engine_model: str = ""
    is_ai: bool | None = None
    step: int | None = None
    steps: int | None = None
    ahead: int | None = None
    not_honoured: tuple[str, ...] = ()
    not_drawn: str = ""
    hint: str = ""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    @classmethod
    def parse(cls, value: object) -> LocalDetails | None:
        """The object `local` of a status answer; None without one, wrong fields as absent."""
        if not is_object(value):
            return None

        def count(name: str) -> int | None:
            found = value.get(name)
            return found if type(found) is int and 0 <= found < 2**31 else None

        is_ai, guidance = value.get("is_ai"), value.get("guidance_scale")
        if not isinstance(guidance, int | float) or not 0 <= guidance < 1e6:  # which nan never is
            guidance = None
        named = [name for name in list_or_empty(value.get("not_honoured")) if isinstance(name, str)]
        return cls(
            engine=sanitize(text(value, "engine"), 80),
            engine_model=sanitize(text(value, "engine_model"), 200),
            is_ai=is_ai if isinstance(is_ai, bool) else None,
            step=count("step"),
            steps=count("steps"),
            ahead=count("ahead"),
            not_honoured=tuple(sanitize(name, 80) for name in named[:20]),
            not_drawn=sanitize(text(value, "not_drawn"), 300),
            hint=sanitize(text(value, "hint"), 300),
            num_inference_steps=count("num_inference_steps"),
            guidance_scale=guidance,
        )

    def render(self) -> dict[str, object]:
        """The object as it stands in a status answer, less what says nothing."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "", ())}


@dataclass(frozen=True, slots=True)
class Job:
    """Where a job stands: the one shape that submit and status answer.

    `status` stays a string, since only three of its values were ever captured.
    """

    record_id: str
    status: str
    images: tuple[Image, ...] = ()
    error_code: str | None = None
    error_details: str | None = None
    seed: int | None = None
    local: LocalDetails | None = None

    @property
    def is_queued(self) -> bool:
        return self.status == "IN_QUEUE" and not self.is_failed

    @property
    def is_waiting(self) -> bool:
        return self.status in ("IN_QUEUE", "IN_PROGRESS") and not self.is_failed

    @property
    def is_done(self) -> bool:
        return self.status == "DONE" and not self.is_failed and bool(self.images)

    @property
    def is_empty(self) -> bool:
        """Whether it says DONE and gives no images: perhaps they are only late."""
        return self.status == "DONE" and not self.is_failed and not self.images

    @property
    def is_failed(self) -> bool:
        known = self.status in ("IN_QUEUE", "IN_PROGRESS", "DONE")
        return not known or self.error_code is not None or self.error_details is not None

    @property
    def words(self) -> str:
        """What the service says about a failure, verbatim but safe to show."""
        parts = (f"status {self.status}", self.error_code, self.error_details)
        return sanitize(", ".join(part for part in parts if part))

    @classmethod
    def parse(cls, body: bytes, *, embedded: bool = False) -> Job:
        """Raises ProtocolError, with the record id when the answer holds one.

        `local` is read of an `embedded` service alone: a remote one cannot speak for this machine.
        """
        answer = read_object(body)
        record_id, status = text(answer, "record_id"), sanitize(text(answer, "status"), 80)
        seed = answer.get("seed")
        if not is_record_id(record_id):
            raise ProtocolError("the service answered without a record id")
        if not status:
            raise ProtocolError("the service answered without a status", record_id=record_id)
        listed = list_or_empty(answer.get("response")) if status == "DONE" else []
        try:
            if len(listed) > _MAX_IMAGES:
                raise ProtocolError(f"the service gives {len(listed)} images for one job")
            images = tuple(map(Image.parse, listed))
        except ProtocolError as exc:
            exc.record_id = record_id
            raise
        return cls(
            record_id=record_id,
            status=status,
            images=images,
            error_code=words_or_none(answer.get("error_code")),
            error_details=words_or_none(answer.get("error_details")),
            seed=seed if type(seed) is int and 0 <= seed < 2**63 else None,
            local=LocalDetails.parse(answer.get("local")) if embedded else None,
        )

    def render(self) -> dict[str, object]:
        """The answer as the service gives it: `response` is null before DONE."""
        answer: dict[str, object] = {
            "record_id": self.record_id,
            "status": self.status,
            "response": [image.render() for image in self.images] if self.images else None,
            "error_code": self.error_code,
            "error_details": self.error_details,
            "seed": self.seed,
        }
        return answer if self.local is None else {**answer, "local": self.local.render()}


def parse_styles(body: bytes) -> tuple[str, ...]:
    """The wire styles of the live list, from the newest `textToImage_styles_v*` block.

    What can be no name is left out. Raises ProtocolError when no such block holds a name, or the
    newest one holds too many.
    """

    def version(name: str) -> int:
        digits = name.rpartition("_v")[2]
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 9 else 0

    blocks: dict[str, object] = {}
    for block in list_or_empty(read_object(body).get("content")):
        if is_object(block) and text(block, "name").startswith("textToImage_styles"):
            blocks[text(block, "name")] = block.get("items")
    for name in sorted(blocks, key=version, reverse=True):
        items = list_or_empty(blocks[name])
        # Not cut: taken for the whole, the rest of a list would retire living styles.
        if len(items) > MAX_STYLES:
            raise ProtocolError(f"the style list has {len(items)} entries, over {MAX_STYLES}")
        found = [text(item, "unique_id") for item in items if is_object(item)]
        if names := tuple(dict.fromkeys(filter(is_style_name, found))):
            return names
    raise ProtocolError("the style list holds no styles")


def render_styles(names: tuple[str, ...]) -> dict[str, object]:
    """The live list as the content host gives it."""
    items = [{"unique_id": name} for name in names]
    return {"content": [{"name": "textToImage_styles_v4", "items": items}]}


def is_web_address(url: str) -> bool:
    """Whether a picture's address is http or https with no more than a host, on one short line."""
    if len(url) > _MAX_ADDRESS or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    # a name and password in it would make httpx send an `Authorization` of its own
    is_plain = _AUTHORITY.fullmatch(parts.netloc) is not None
    return parts.scheme in ("http", "https") and bool(parts.hostname) and is_plain


def escape_address(url: str) -> str:
    """A web address with all that stands in no URI as %XX; one escaped before stays as it is.

    A server reads both as the same.
    """
    tail = _ORIGIN.sub("", url)
    origin = url.removesuffix(tail)
    return origin + quote(tail, safe=_URI_CHARACTERS, errors="replace")


def is_token(value: str) -> bool:
    """Whether a token can stand in a header: printable ASCII without blanks."""
    return bool(value) and value.isascii() and value.isprintable() and " " not in value


def _lifetime(value: object) -> float:
    try:
        seconds = float(value) if isinstance(value, str | int | float) else 3600.0
    except (ValueError, OverflowError):
        seconds = 3600.0
    if not math.isfinite(seconds) or not 0 < seconds < 1e8:
        return 3600.0
    return max(_MIN_LIFETIME, seconds)
