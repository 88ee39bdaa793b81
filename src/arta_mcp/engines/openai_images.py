"""Any server with `POST /v1/images/generations`: what each dialect of it takes and does not."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

import anyio.to_thread

from arta_mcp.engines.base import EngineInfo, GeneratedImage, ImageRequest, OnStep
from arta_mcp.engines.http import Server
from arta_mcp.engines.png import describe_picture, write_png
from arta_mcp.errors import EngineError, ModelNotFound, RequestRefused
from arta_mcp.redaction import sanitize
from arta_mcp.untrusted_json import is_object, list_or_empty, text

PATH = "/v1/images/generations"
MODELS = "/v1/models"

OPENAI_URL = "https://api.openai.com"
OPENAI_MODEL = "gpt-image-2"
"""what OpenAI itself draws with where nobody says otherwise: it refuses a request without one"""

STANDARD_SIZES = ((1024, 1024), (1536, 1024), (1024, 1536))
"""what servers with a closed list of sizes have, where their refusal does not tell it"""

MAX_TOLD_MODELS = 12
"""names in an error"""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The fields beyond OpenAI's own that a server reads; None for what it has no field for."""

    negative_prompt: str | None = None
    num_inference_steps: str | None = None
    guidance_scale: str | None = None
    seed: str | None = None
    response_format: str | None = "b64_json"
    """None: never sent, since it is refused"""
    folds_negative: bool = False
    """what is to be avoided becomes a sentence of the prompt"""
    has_block: bool = False
    """the fields stand as JSON in `<sd_cpp_extra_args>`, inside the prompt"""


DIALECTS = {
    "openai": Dialect(response_format=None, folds_negative=True),
    "plain": Dialect(),
    "vllm-omni": Dialect("negative_prompt", "num_inference_steps", "guidance_scale", "seed"),
    "localai": Dialect("negative_prompt", "step", None, "seed"),
    "lemonade": Dialect(None, "steps", "cfg_scale", "seed"),
    "sd-server": Dialect(
        "negative_prompt",
        "sample_params.sample_steps",
        "sample_params.guidance.txt_cfg",
        "seed",
        response_format=None,
        has_block=True,
    ),
}
"""sources, read 2026-11-25: the servers' own pages; an unknown field is a 400 at OpenAI alone, yet
the plain dialect sends none"""


class OpenAIImages:
    """Draws through such a server, one picture a request."""

    def __init__(
        self,
        server: Server,
        *,
        model: str | None = None,
        dialect: str = "auto",
        sizes: tuple[tuple[int, int], ...] = (),
    ) -> None:
        url = server.url.removesuffix("/").removesuffix("/v1")
        self._server = replace(server, url=url)
        is_openai = urlsplit(url).hostname == "api.openai.com"
        self._model = model or (OPENAI_MODEL if is_openai else None)
        # Known by its name: nobody has to be asked.
        if dialect == "auto" and (is_openai or re.match("gpt-image|chatgpt-image", model or "")):
            dialect = "openai"
        self._dialect = None if dialect == "auto" else dialect
        self._sizes = sizes
        self._asked = False

    def describe(self) -> EngineInfo:
        """See `Engine.describe`."""
        where = self._server.origin
        by = f"by {self._model or 'a model'} at {where}"
        dialect = DIALECTS.get(self._dialect or "plain", Dialect())
        return EngineInfo(
            engine="openai",
            model=self._model,
            is_ai=True,
            notice=f"drawn {by}",
            summary=f"Pictures are drawn {by}; the styles are words that are added to the prompt.",
            sizes=self._sizes,
            honours=frozenset(
                name
                for name in ("negative_prompt", "num_inference_steps", "guidance_scale", "seed")
                if getattr(dialect, name)
            ),
            is_repeatable=False,
        )

    async def list_models(self) -> tuple[str, ...]:
        """What the server says that it has, and what of it tells the dialect; () without a list."""
        answer = await self._server.ask(MODELS)
        listed = list_or_empty(answer.get("data")) if is_object(answer) else []
        models = [entry for entry in listed if is_object(entry) and text(entry, "id")]
        if self._dialect is None:
            owners = {text(entry, "owned_by").lower() for entry in models}
            # sd-server calls whatever it has loaded so; vLLM names itself as the owner.
            if any(text(entry, "id") == "sd-cpp-local" for entry in models):
                self._dialect = "sd-server"
            elif owners & {"vllm", "vllm-omni"}:
                self._dialect = "vllm-omni"
            elif models or is_object(answer):
                self._dialect = "plain"
        return tuple(text(entry, "id") for entry in models)

    async def generate(self, request: ImageRequest, on_step: OnStep) -> GeneratedImage:
        """See `Engine.generate`."""
        if not self._asked and (self._model is None or self._dialect is None):
            with suppress(RequestRefused):  # a key that may draw and not list
                models = await self.list_models()
                self._model = self._model or next(iter(models), None)
            # Once: a server without a list would be asked for it before every picture.
            self._asked = True
        dialect_name = self._dialect or "plain"
        size = nearest(request.size, self._sizes) if self._sizes else request.size
        try:
            return await self._draw(request, size, dialect_name)
        except ModelNotFound as exc:
            with suppress(EngineError):
                listed = await self.list_models()
                names = ", ".join(listed[:MAX_TOLD_MODELS])
                exc.hint = f"set ARTA_LOCAL_MODEL to one of {names}" if names else exc.hint
            raise
        except RequestRefused as exc:
            # Refused for its size: nothing was drawn. A second refusal is the end.
            # The list is nowhere to be asked for; most refusals name it.
            told = tuple(read_sizes(exc.message))
            if self._sizes or not re.search(r"(?i)\bsize\b", exc.message):
                raise
            others = tuple(one for one in told if one != size) or STANDARD_SIZES
            image = await self._draw(request, nearest(size, others), dialect_name)
            self._sizes = others
            return image

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        await self._server.http.aclose()

    async def _draw(
        self, asked: ImageRequest, size: tuple[int, int], dialect_name: str
    ) -> GeneratedImage:
        dialect, request = DIALECTS[dialect_name], replace(asked, size=size)
        answer = await self._server.draw(PATH, write_body(request, dialect, self._model))
        entry = next(iter(list_or_empty(answer.get("data"))), None)
        if not is_object(entry):
            raise EngineError(f"{self._server.origin} answered without a picture")
        content = await self._read_picture(entry)
        model = text(answer, "model") or self._model
        steps, guidance = request.num_inference_steps, request.guidance_scale
        takes_negative = dialect.negative_prompt is not None or dialect.folds_negative
        texts = describe_picture(
            request if takes_negative else replace(request, negative_prompt=""),
            self.describe(),
            model=model,
            steps=steps if dialect.num_inference_steps else None,
            guidance=guidance if dialect.guidance_scale else None,
            honours_seed=dialect.seed is not None,
        )
        data, drawn = await anyio.to_thread.run_sync(write_png, content, texts)
        return GeneratedImage(
            data=data,
            model=sanitize(model, 200) if model else None,
            not_honoured=tuple(
                name
                for name in ("negative_prompt", "guidance_scale", "num_inference_steps", "seed")
                if getattr(dialect, name) is None
                and not (name == "negative_prompt" and dialect.folds_negative)
            ),
            note=explain_difference(asked, drawn, text(entry, "revised_prompt")),
        )

    async def _read_picture(self, entry: dict[str, object]) -> bytes:
        if encoded := text(entry, "b64_json"):
            try:  # some servers give a data URL here
                return base64.b64decode(encoded.rpartition(",")[2], validate=True)
            except (binascii.Error, ValueError) as exc:
                raise EngineError(f"{self._server.origin} answered with broken Base64") from exc
        url = text(entry, "url")
        if url.startswith("data:"):
            return await self._read_picture({"b64_json": url})
        if not url:
            raise EngineError(f"{self._server.origin} answered without a picture")
        return await self._server.fetch(urljoin(self._server.url + "/", url))


def write_body(request: ImageRequest, dialect: Dialect, model: str | None) -> dict[str, object]:
    """The request in a dialect."""
    prompt = without_block(request.prompt)
    avoided = without_block(request.negative_prompt)
    # OpenAI has no field for it and refuses those that it does not know.
    if avoided and dialect.folds_negative:
        prompt = f"{prompt}\nAvoid: {avoided}"
    values: dict[str, object] = {
        "negative_prompt": avoided or None,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "seed": request.picture_seed,
    }
    fields: dict[str, object] = {}
    for name, value in values.items():
        path: str | None = getattr(dialect, name)
        if path is not None and value is not None:
            _put(fields, path.split("."), value)
    if dialect.has_block and fields:
        prompt = f"{prompt} <sd_cpp_extra_args>{json.dumps(fields)}</sd_cpp_extra_args>"
        fields = {}
    # One picture a request: Lemonade takes no more, and a failure then costs one.
    width, height = request.size
    body: dict[str, object] = {"prompt": prompt, "n": 1, "size": f"{width}x{height}", **fields}
    if model is not None:
        body["model"] = model
    if dialect.response_format is not None:
        body["response_format"] = dialect.response_format
    return body


def without_block(words: str) -> str:
    """Words that open no block of settings: sd-server takes one out of any prompt, and obeys it."""
    return re.sub(r"(?i)sd_cpp_extra_args", "sd cpp extra args", words)


def nearest(size: tuple[int, int], sizes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """The size of the list that has most nearly the shape, then the area."""

    def distance(other: tuple[int, int]) -> tuple[float, int]:
        shape = abs(math.log(size[0] * other[1] / (size[1] * other[0])))
        return round(shape, 3), abs(size[0] * size[1] - other[0] * other[1])

    return min(sizes, key=distance)


def read_sizes(words: str) -> Iterator[tuple[int, int]]:
    """The sizes that a refusal names."""
    for width, height in re.findall(r"\b(\d{3,4}) ?[x\u00d7] ?(\d{3,4})\b", words):
        yield int(width), int(height)


def explain_difference(request: ImageRequest, size: tuple[int, int], revised: str) -> str:
    """What of the picture is not as it was asked for."""
    notes: list[str] = []
    if size != request.size:
        asked, got = ("{} x {}".format(*one) for one in (request.size, size))
        notes.append(f"the server drew {got} pixels in place of {asked}")
    if revised and revised != request.prompt:
        notes.append(f"the server drew other words: {sanitize(revised, 160)}")
    return "; ".join(notes)


def _put(fields: dict[str, object], path: list[str], value: object) -> None:
    for name in path[:-1]:
        inner = fields.setdefault(name, {})
        assert isinstance(inner, dict)  # noqa: S101  # the table above has no path through a value
        fields = inner  # pyright: ignore[reportUnknownVariableType]  # one of our own
    fields[path[-1]] = value
