"""What is asked for and what comes of it: GenerationRequest, Update, Generation.

No I/O happens here.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from arta_mcp.arta.protocol import (
    DEFAULT_NEGATIVE_PROMPT,
    RATIOS,
    GuidanceScale,
    ImageCount,
    NegativePrompt,
    Prompt,
    Ratio,
    Seed,
    Steps,
)
from arta_mcp.errors import InvalidRequest
from arta_mcp.matching import suggest
from arta_mcp.redaction import sanitize
from arta_mcp.styles import DEFAULT
from arta_mcp.untrusted_json import is_object, json_or_none, list_or_empty, text

Model = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="model id or style name from list_models, in any spelling",
    ),
]
IdempotencyKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        description="any text of yours; when you repeat a call that failed or timed out, send the"
        " SAME key again: you get the first job back, never a second one. New picture: new key",
    ),
]


MAX_TOLD = 8
"""names that no argument has and that an error tells; how many more there are, it says"""


ENGINES_OWN = ("negative_prompt", "guidance_scale", "num_inference_steps")
"""arguments that an engine has defaults of its own for"""


@dataclass(frozen=True, slots=True)
class EngineUsed:
    """What draws behind a service; its model is None where only the service knows it."""

    name: str = "arta"
    model: str | None = None

    @property
    def has_defaults(self) -> bool:
        """Whether what the caller did not say is the engine's to choose."""
        return self.name not in ("arta", "sketch")


def read_ratio(value: object) -> object:
    """`16:9` for each spelling of it (`16 : 9`, `'16:9'`, `16x9`, full width); else the value."""
    if not isinstance(value, str) or len(value) > 40:
        return value
    plain = re.sub(r"""[\s"'`\u2018\u2019\u201c\u201d]""", "", unicodedata.normalize("NFKC", value))
    ratio = re.sub("[xX/\u00d7\u2236]", ":", plain)
    return ratio if ratio in RATIOS else value


class GenerationRequest(BaseModel):
    """One call's arguments. `of` raises InvalidRequest instead of pydantic's error."""

    # Defaults are validated too: the fingerprint behind an idempotency key has 7 and 7.0 apart.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        defer_build=True,  # for the first call
    )

    prompt: Prompt
    model: Model = DEFAULT
    # None: as the engine would by itself; see `without_defaults`
    negative_prompt: NegativePrompt | None = DEFAULT_NEGATIVE_PROMPT
    n: ImageCount = 1
    aspect_ratio: Annotated[Ratio, BeforeValidator(read_ratio)] = "1:1"
    guidance_scale: GuidanceScale | None = 7
    num_inference_steps: Steps | None = 30
    seed: Seed | None = None
    idempotency_key: IdempotencyKey | None = None

    @classmethod
    def of(cls, /, **arguments: object) -> Self:
        """The request; raises InvalidRequest that names argument, value, what is allowed."""
        try:
            return cls.model_validate(arguments)
        except ValidationError as exc:
            raise explain_arguments(exc, cls) from exc

    @classmethod
    def from_journal(cls, stored: str) -> Self | None:
        """The request in an entry that we wrote; it was validated then, so only its shape is read.

        None when the text holds no request.
        """
        fields = json_or_none(stored.encode("utf-8", "replace"))
        if not is_object(fields) or not isinstance(fields.get("prompt"), str):
            return None
        known = {name: value for name, value in fields.items() if name in cls.model_fields}
        return cls.model_construct(**known)  # pyright: ignore[reportArgumentType]  # typed by the fields

    @classmethod
    def from_messages(
        cls, messages: Iterable[Mapping[str, object]], /, **arguments: object
    ) -> Self:
        """The request for a chat: `prompt` when given, else the last user message's text.

        `messages` are `{"role", "content"}` with text or a list of `{"type": "text", "text"}`.
        """
        said = [message.get("content") for message in messages if message.get("role") == "user"]
        content = said[-1] if said else ""
        if not isinstance(content, str):
            parts = [part for part in list_or_empty(content) if is_object(part)]
            content = " ".join(text(part, "text") for part in parts if part.get("type") == "text")
        prompt = arguments.pop("prompt", None) or content
        return cls.of(prompt=prompt, **arguments)

    def without_defaults(self) -> Self:
        """The same with None for what the caller did not give and each engine has its own of.

        Our 30 steps and guidance 7 would spoil what a turbo or Flux model draws.
        """
        own = {name: None for name in ENGINES_OWN if name not in self.model_fields_set}
        return self.model_copy(update=own)

    def fingerprint(self, style: str, engine: EngineUsed) -> str:
        """The same for the same picture: what an idempotency key stands for."""
        arguments = self.model_dump(exclude={"idempotency_key", "model"})
        # 7 and 7.0 are one number: the first is the default, the second comes from a host
        if self.guidance_scale is not None:
            arguments["guidance_scale"] = float(self.guidance_scale)
        arguments["style"] = style
        text = json.dumps([arguments, engine.name, engine.model], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


Step = Literal["waiting", "ordering", "queued", "drawing", "saving"]


@dataclass(frozen=True, slots=True)
class Update:
    """Where a generation stands while a call waits; `waited` and `usual` are in seconds.

    `waiting` is before the submit, for a free place or for another process; `ordering` is when
    the account or the submit itself takes its time. `ahead` is how many jobs come first, `drawn`
    how many steps are done of how many, where the service says so.
    """

    step: Step
    waited: float
    record_id: str | None = None
    usual: float | None = None
    remaining: float | None = None
    ahead: int | None = None
    drawn: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One picture: its address, and where it was saved."""

    url: str
    mime_type: str
    blurred: bool
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A generation as far as it got; `elapsed` is in seconds, `created_at` since the epoch.

    `status` is `done` or `pending` from `generate` and `get`; `history` also gives `failed`,
    `refused` (no job was made) and `unknown` (the answer was lost). `model` is the id of the
    `style` that was submitted, however `request` spelled it; `seed` is the one that was sent.
    `engine_model` is what drew, None where only the remote service knows.
    """

    record_id: str | None
    status: Literal["done", "pending", "failed", "refused", "unknown"]
    backend: str
    engine: str
    engine_model: str | None
    model: str
    style: str
    request: GenerationRequest
    seed: int | None
    images: tuple[GeneratedImage, ...]
    elapsed: float
    created_at: float
    notice: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, object]:
        """One flat JSON object: the request beside its result."""
        asked = self.request.model_dump(exclude={"model", "seed", "idempotency_key"})
        return {
            "record_id": self.record_id,
            "status": self.status,
            "backend": self.backend,
            "engine": self.engine,
            "engine_model": self.engine_model,
            "model": self.model,
            "style": self.style,
            **asked,
            "seed": self.seed,
            "images": [asdict(image) for image in self.images],
            "elapsed": self.elapsed,
            "created_at": self.created_at,
            "idempotency_key": self.request.idempotency_key,
            "notice": self.notice,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What becomes of a cancelled job: `drawn` of its `n` pictures are there and stay.

    `is_drawing`: one is under way, which is still drawn to its end.
    """

    record_id: str
    drawn: int
    n: int
    is_drawing: bool


def explain_arguments(exc: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    """Everything that is wrong with some arguments of `model`, in our words."""
    known = model.model_json_schema()["properties"]
    found = {
        str(error["loc"][0]): error
        for error in reversed(exc.errors(include_url=False, include_context=False))
        if error["loc"]
    }
    strange = {n: e["input"] for n, e in reversed(found.items()) if e["type"] == "extra_forbidden"}
    meant = {name: _meant_names(name, strange[name], known) for name in strange}
    problems = [_explain_strange(strange, meant, known)] if strange else []
    for name, error in reversed(found.items()):
        allowed = describe_bounds(known.get(name))
        if error["type"] == "missing" and not any(name in names for names in meant.values()):
            sentence = f"{name} is missing; allowed is {allowed}"
            problems.append(
                InvalidRequest(name, None, allowed, message=sentence, hint=f"give {name}")
            )
        elif error["type"] not in ("missing", "extra_forbidden"):
            value = error["input"]
            near = _meant(value, _choices(known.get(name))) if isinstance(value, str) else None
            hint = f"did you mean {near}?" if near else ""
            problems.append(InvalidRequest(name, value, allowed, hint=hint))
    return InvalidRequest.join(*problems)


def _explain_strange(
    strange: Mapping[str, object], meant: Mapping[str, list[str]], known: Mapping[str, object]
) -> InvalidRequest:
    """The names that no argument has, with those that they may have meant."""
    shown = [sanitize(repr(name), 80) for name in islice(strange, MAX_TOLD)]
    rest = [f"{len(strange) - MAX_TOLD} more"] if len(strange) > MAX_TOLD else []
    named = dict(islice(((n, names) for n, names in meant.items() if names), MAX_TOLD))
    by = {n: f" by {sanitize(n, 80)}" if len(strange) > 1 else "" for n in named}
    near = [f"{names[0]}{by[n]}" for n, names in named.items() if not is_object(strange[n])]
    hints = [f"did you mean {', '.join(near)}?"] if near else []
    hints += [
        f"give {', '.join(names)} at the top, not inside {sanitize(name, 80)}"
        for name, names in named.items()
        if is_object(strange[name])
    ]
    first = next(iter(strange))
    return InvalidRequest(
        first,
        strange[first],
        ", ".join(known),
        message=f"no argument is called {' or '.join([*shown, *rest])};"
        f" there are {', '.join(known)}",
        hint="; ".join(hints),
    )


def _meant_names(name: str, value: object, known: Mapping[str, object]) -> list[str]:
    """The arguments inside the value of a name that is none, else the nearest real name."""
    inside = [key for key in known if key in value] if is_object(value) else []
    return inside or [*suggest(name, known, limit=1)]


def _meant(value: str, choices: list[str]) -> str | None:
    """The nearest choice: of ratios the nearest shape (`5:4` is `4:3`), else by letters."""

    def log_of(width: str, height: str) -> float:
        return math.log(max(1, int(width)) / max(1, int(height)))

    shape = re.fullmatch(r"\s*(\d{1,5})\s*[:x/]\s*(\d{1,5})\s*", value)
    if shape and choices == list(RATIOS):
        wanted = log_of(shape[1], shape[2])
        return min(choices, key=lambda ratio: abs(log_of(*ratio.split(":")) - wanted))
    return next(iter(suggest(value, choices, limit=1)), None)


def _choices(field: object) -> list[str]:
    return [str(choice) for choice in list_or_empty(field.get("enum"))] if is_object(field) else []


def describe_bounds(field: object) -> str:
    """What an argument may hold, in words, from its JSON schema."""
    if not is_object(field):
        return "not this"
    if options := [option for option in list_or_empty(field.get("anyOf")) if is_object(option)]:
        # null is no choice to tell where it only means the default
        null = {"type": "null"} if field.get("default") is not None else None
        return " or ".join(describe_bounds(option) for option in options if option != null)
    if choices := _choices(field):
        return f"one of {', '.join(choices)}"
    low, high = field.get("minimum"), field.get("maximum")
    match text(field, "type"):
        case "integer":
            return f"a whole number in {low}..{high}"
        case "number":
            return f"a number in {low}..{high}"
        case "null":
            return "null"
        case _:
            low, high = field.get("minLength"), field.get("maxLength", "any")
            return f"a text of {f'{low}..' if low else 'at most '}{high} characters"
