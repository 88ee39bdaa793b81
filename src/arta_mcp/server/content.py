"""From Generation and ArtaError to what MCP shows; no I/O happens here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Annotated, Literal, TypeVar

from mcp.types import CallToolResult, ContentBlock, TextContent
from pydantic import BaseModel, Field

from arta_mcp.errors import ArtaError
from arta_mcp.generations.values import Generation
from arta_mcp.redaction import redact, sanitize
from arta_mcp.styles import CATEGORIES, Catalogue, Style

T = TypeVar("T", bound=BaseModel)

MAX_PART = 40_000
"""characters of a result's text, and of what a service lists in its structured part; with the
prompts under 50,000, over which Claude Code moves a result into a file"""

MAX_EARLIER_PROMPT = 200
"""characters of the prompt of an earlier generation: enough to tell it from the others"""


MAX_SERVER_MODELS = 12
"""models of an engine's server that are named"""


class ImageOutput(BaseModel):
    """One picture of a result."""

    url: str
    mime_type: str
    blurred: bool
    path: Annotated[str | None, Field(description="where it was saved on this machine")]


class GenerationOutput(BaseModel):
    """A result of `generate_image`."""

    # not derived from GenerationRequest: in a result there are no bounds, descriptions and choices
    record_id: str
    status: Literal["done", "pending"]
    backend: Literal["arta", "local"]
    engine: str
    engine_model: Annotated[str | None, Field(description="what drew")]
    model: str
    style: str
    prompt: str
    negative_prompt: str | None
    n: int
    aspect_ratio: str
    guidance_scale: float | None
    num_inference_steps: int | None
    seed: int | None
    images: list[ImageOutput]
    elapsed: Annotated[float, Field(description="seconds")]
    notice: str | None
    next: Annotated[str | None, Field(description="what to do now")]


class EarlierOutput(BaseModel):
    """A generation before the newest one."""

    record_id: str | None
    status: str
    prompt: str
    created_at: Annotated[str, Field(description="UTC")]


class LookUpOutput(GenerationOutput):
    """A result of `get_generation`."""

    earlier: Annotated[
        list[EarlierOutput], Field(description="without record_id: those before the newest")
    ]


class ModelOutput(BaseModel):
    """One model of `list_models`."""

    id: str
    style: str
    category: str


class ModelsOutput(BaseModel):
    """A result of `list_models`."""

    backend: Literal["arta", "local"]
    as_of: str
    source: Literal["live", "shipped"]
    default: str
    total: int
    models: list[ModelOutput]


def render(
    generation: Generation,
    extras: Sequence[ContentBlock] = (),
    *,
    earlier: Sequence[Generation] | None = None,
) -> CallToolResult:
    """One text block that stands alone, structured content that stands alone, and `extras`.

    `earlier` is of `get_generation` alone: None for `generate_image`.
    """
    content = generation.to_dict() | {"next": next_step(generation)}
    whole = GenerationOutput.model_validate(content)
    whole.images = cut_list(whole.images)
    output = whole.model_dump()
    if earlier is not None:
        output["earlier"] = [_earlier(one).model_dump() for one in earlier]
    text = cut_text(describe(generation, earlier or ()))
    return CallToolResult(
        content=[TextContent(type="text", text=text), *extras],
        structured_content=output,
    )


def cut_text(text: str) -> str:
    """At most MAX_PART characters and a line that says so; no address or id is cut in two."""
    if len(text) <= MAX_PART:
        return text
    end = max(text.rfind("\n", 0, MAX_PART), text.rfind(", ", 0, MAX_PART), 0)
    return f"{text[:end]}\nLeft out: {len(text) - end} characters more than a result may have."


def cut_list(entries: Sequence[T]) -> list[T]:
    """The first entries, as many as have MAX_PART characters as JSON."""
    ends = accumulate(len(entry.model_dump_json()) for entry in entries)
    return [entry for entry, end in zip(entries, ends, strict=True) if end <= MAX_PART]


def next_step(generation: Generation) -> str | None:
    """What the assistant should do now; some hosts show it nothing but the structured part."""
    if generation.status != "pending":
        return None
    return (
        f'call get_generation with record_id "{generation.record_id}" for the result, again after'
        " some seconds if need be; do not order it again"
    )


def _earlier(generation: Generation) -> EarlierOutput:
    created_at = datetime.fromtimestamp(generation.created_at, UTC)
    return EarlierOutput(
        record_id=generation.record_id,
        status=generation.status,
        prompt=generation.request.prompt[:MAX_EARLIER_PROMPT],
        created_at=created_at.isoformat(timespec="seconds"),
    )


def describe(generation: Generation, earlier: Sequence[Generation] = ()) -> str:
    """The result in a few lines: first of all the pictures, each with its file before its address.

    A file outlives the process that drew it, an address may not.
    """
    lines: list[str] = []
    for number, image in enumerate(generation.images, 1):
        where = [image.path, image.url] if image.path else [image.url]
        blurred = " (blurred by the service)" if image.blurred else ""
        lines.append(f"{number}. " + "\n   ".join(where) + blurred)
    if generation.status == "pending":
        step = next_step(generation) or ""
        lines.append(f"Still being drawn after {generation.elapsed:.0f} s; {step}.")
    facts = [f"model {generation.model}", generation.request.aspect_ratio]
    facts += [f"seed {generation.seed}"] if generation.seed is not None else []
    facts += [f"{generation.elapsed:.1f} s"] if generation.status == "done" else []
    lines.append(f"{', '.join(facts)}; record id {generation.record_id}")
    if generation.notice:
        lines.append(f"Note: {generation.notice}.")
    for one in map(_earlier, earlier):
        lines.append(f"Earlier: {one.record_id}, {one.status}, {one.created_at}: {one.prompt}")
    return "\n".join(lines)


def describe_engine(summary: str | None, models: tuple[str, ...]) -> str | None:
    """What draws with the styles, and which models its server has: no argument chooses them."""
    if not models:
        return summary
    shown = ", ".join(sanitize(name, 80) for name in models[:MAX_SERVER_MODELS])
    more = f" and {len(models) - MAX_SERVER_MODELS} more" if len(models) > MAX_SERVER_MODELS else ""
    return f"{summary} Its server has {shown}{more}; the person chooses by ARTA_LOCAL_MODEL."


def render_models(
    catalogue: Catalogue, found: tuple[Style, ...], backend: str, summary: str | None = None
) -> CallToolResult:
    """The models that a search found, where the knowledge comes from, and what draws with them."""
    output = ModelsOutput(
        backend="local" if backend == "local" else "arta",
        as_of=catalogue.as_of,
        source=catalogue.source,
        default=catalogue.default.id,
        total=len(found),
        models=cut_list([ModelOutput(id=s.id, style=s.name, category=s.category) for s in found]),
    )
    text = "\n".join(filter(None, (summary, describe_models(catalogue, found))))
    return CallToolResult(
        content=[TextContent(type="text", text=cut_text(text))],
        structured_content=output.model_dump(),
    )


def describe_models(catalogue: Catalogue, found: tuple[Style, ...]) -> str:
    """Ids by category, one category a line, with what it is for."""
    origin = "as the service lists them" if catalogue.source == "live" else "as shipped"
    count = "1 model" if len(found) == 1 else f"{len(found)} models"
    lines = [f"{count}, {origin}, {catalogue.as_of}; default {catalogue.default.id}"]
    for category in dict.fromkeys(style.category for style in found):
        ids = ", ".join(style.id for style in found if style.category == category)
        lines.append(f"{category} ({CATEGORIES[category]}): {ids}")
    if not found:
        lines.append("Nothing matches; call list_models without search to see all.")
    return "\n".join(lines)


def explain(error: ArtaError) -> str:
    """The sentence, the remedy and the record id of an error, for a model to act on."""
    hint = f". Hint: {error.hint}" if error.hint else ""
    record_id = f". Record id: {error.record_id}" if error.record_id else ""
    return redact(f"{error.message.rstrip('.')}{hint}{record_id}")
