"""What a journal entry, or a finished job, means to a caller; no I/O happens here."""

from __future__ import annotations

from typing import Literal

from arta_mcp.arta.protocol import Job
from arta_mcp.errors import ArtaError, JobFailed, PromptRejected
from arta_mcp.generations.schedule import DurationSample
from arta_mcp.generations.values import GeneratedImage, Generation, GenerationRequest
from arta_mcp.state.contract import Entry, Timing
from arta_mcp.styles import SHIPPED

LOCAL_NOTICE = (
    "a sketch by the embedded service, not by an AI model; set ARTA_API_KEY to use the remote one"
)


_STATUS: dict[str, Literal["done", "failed", "refused", "unknown"]] = {
    "done": "done",
    "failed": "failed",
    "refused": "refused",
    "unknown": "unknown",
}


def as_generation(entry: Entry, *, backend: str, now: float) -> Generation:
    """A journal entry as a caller sees it; `now` is in seconds since the epoch."""
    request = _stored_request(entry)
    standing = entry.standing(now)
    images = tuple(
        GeneratedImage(
            url=image.url,
            mime_type=image.mime_type,
            blurred=image.blurred,
            path=entry.paths[index] if index < len(entry.paths) else None,
        )
        for index, image in enumerate(entry.images)
    )
    end = entry.finished_at or now
    return Generation(
        record_id=entry.record_id,
        status=_STATUS.get(standing, "pending"),
        backend=backend,
        model=_model_of(entry.style),
        style=entry.style,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        n=request.n,
        aspect_ratio=request.aspect_ratio,
        guidance_scale=request.guidance_scale,
        num_inference_steps=request.num_inference_steps,
        seed=entry.seed,
        images=images,
        elapsed=round(max(0.0, end - (entry.submitted_at or entry.created_at)), 3),
        created_at=entry.created_at,
        idempotency_key=entry.key,
        notice=_notice(entry, backend),
        error=entry.error,
    )


def _notice(entry: Entry, backend: str) -> str | None:
    parts = [LOCAL_NOTICE if backend == "local" else None]
    if blurred := sum(image.blurred for image in entry.images):
        parts.append(f"{blurred} of {len(entry.images)} pictures were blurred by the service")
    if missing := sum(path is None for path in entry.paths):
        parts.append(f"{missing} of {len(entry.paths)} pictures could not be saved")
    return join_notes(*parts)


def failure_of(job: Job) -> ArtaError | None:
    if job.is_failed:
        return JobFailed(f"the service gave the job up: {job.words}", record_id=job.record_id)
    if all(image.blurred for image in job.images):
        return PromptRejected(
            "the service blurred every picture, as it does with what it will not show",
            record_id=job.record_id,
        )
    return None


def most_images(entry: Entry) -> int | None:
    """How many pictures were ordered; None for a job of another journal."""
    return _stored_request(entry).n if entry.style else None


def sample_of(timing: Timing) -> DurationSample | None:
    """How long a job took as its looks saw it; None when nobody looked around its end."""
    began = timing.submitted_at
    latest = timing.finished_at - began
    earliest = (timing.seen_waiting or began) - began
    if latest <= 0 or latest - earliest > 2 + latest / 2:
        return None
    queued = (timing.seen_queued or began) - began
    drawing = None if timing.seen_drawing is None else timing.seen_drawing - began
    return DurationSample(max(0.0, earliest), latest, max(0.0, queued), drawing)


def _stored_request(entry: Entry) -> GenerationRequest:
    try:
        return GenerationRequest.model_validate_json(entry.request)
    except ValueError:
        return GenerationRequest.model_construct(prompt="")


def _model_of(style: str) -> str:
    try:
        return SHIPPED.resolve(style).id
    except ArtaError:
        return style


def join_notes(*parts: str | None) -> str | None:
    return "; ".join(part for part in parts if part) or None
