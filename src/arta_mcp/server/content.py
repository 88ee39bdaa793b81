"""From Generation and ArtaError to what MCP shows; no I/O happens here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from mcp.types import CallToolResult, ContentBlock, TextContent
from pydantic import BaseModel, Field

from arta_mcp.errors import ArtaError
from arta_mcp.generations.values import Generation
from arta_mcp.redaction import redact
from arta_mcp.styles import Catalogue, Style


class ImageOutput(BaseModel):
    """One picture of a result."""

    url: str
    mime_type: str
    blurred: bool
    path: Annotated[str | None, Field(description="where it was saved on this machine")]


class GenerationOutput(BaseModel):
    """A result of `generate_image` and `get_generation`."""

    # not derived from GenerationRequest: in a result there are no bounds, descriptions and choices
    record_id: str
    status: Literal["done", "pending"]
    backend: Literal["arta", "local"]
    model: str
    style: str
    prompt: str
    negative_prompt: str
    n: int
    aspect_ratio: str
    guidance_scale: float
    num_inference_steps: int
    seed: int | None
    images: list[ImageOutput]
    elapsed: Annotated[float, Field(description="seconds")]
    notice: str | None


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


def render(generation: Generation, extras: Sequence[ContentBlock] = ()) -> CallToolResult:
    """One text block that stands alone, structured content that stands alone, and `extras`."""
    output = GenerationOutput.model_validate(generation.to_dict())
    return CallToolResult(
        content=[TextContent(type="text", text=describe(generation)), *extras],
        structured_content=output.model_dump(),
    )


def describe(generation: Generation) -> str:
    """The result in a few lines: first of all the pictures, each with its file before its address.

    A file outlives the process that drew it, an address may not.
    """
    lines: list[str] = []
    for number, image in enumerate(generation.images, 1):
        where = [image.path, image.url] if image.path else [image.url]
        blurred = " (blurred by the service)" if image.blurred else ""
        lines.append(f"{number}. " + "\n   ".join(where) + blurred)
    if generation.status == "pending":
        lines.append(
            f"Still being drawn after {generation.elapsed:.0f} s. Call get_generation with"
            f' record_id "{generation.record_id}" for the result, again after some seconds if need'
            " be; do not order it again."
        )
    facts = [f"model {generation.model}", generation.request.aspect_ratio]
    facts += [f"seed {generation.seed}"] if generation.seed is not None else []
    facts += [f"{generation.elapsed:.1f} s"] if generation.status == "done" else []
    lines.append(f"{', '.join(facts)}; record id {generation.record_id}")
    if generation.notice:
        lines.append(f"Note: {generation.notice}.")
    return "\n".join(lines)


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
        models=[ModelOutput(id=s.id, style=s.name, category=s.category) for s in found],
    )
    text = "\n".join(filter(None, (summary, describe_models(catalogue, found))))
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=output.model_dump(),
    )


def describe_models(catalogue: Catalogue, found: tuple[Style, ...]) -> str:
    """Ids by category, one category a line."""
    origin = "as the service lists them" if catalogue.source == "live" else "as shipped"
    lines = [f"{len(found)} models, {origin}, {catalogue.as_of}; default {catalogue.default.id}"]
    for category in dict.fromkeys(style.category for style in found):
        ids = ", ".join(style.id for style in found if style.category == category)
        lines.append(f"{category}: {ids}")
    if not found:
        lines.append("Nothing matches; call list_models without search to see all.")
    return "\n".join(lines)


def explain(error: ArtaError) -> str:
    """The sentence, the remedy and the record id of an error, for a model to act on."""
    hint = f". Hint: {error.hint}" if error.hint else ""
    record_id = f". Record id: {error.record_id}" if error.record_id else ""
    return redact(f"{error.message.rstrip('.')}{hint}{record_id}")
