"""What a journal entry, or a finished job, means to a caller. No I/O happens here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from arta_mcp.arta.protocol import MAX_MIME_TYPE, Job, LocalDetails, escape_address
from arta_mcp.errors import (
    CANCELLED,
    ENGINE_ERRORS,
    MAX_TEXT,
    PROMPT_REJECTED,
    ArtaError,
    JobCancelled,
    JobFailed,
    PromptRejected,
)
from arta_mcp.generations.schedule import DurationSample
from arta_mcp.generations.values import (
    ENGINES_OWN,
    Cancellation,
    GeneratedImage,
    Generation,
    GenerationRequest,
)
from arta_mcp.redaction import sanitize
from arta_mcp.state.records import JournalEntry, Timing
from arta_mcp.styles import MAX_STYLE, SHIPPED
from arta_mcp.untrusted_json import json_or_none

FindFile = Callable[[str, int], str | None]
"""from record id and index to the path of a picture on this machine, None when it is not there"""

CancelJob = Callable[[str], Cancellation | None]
"""gives up a job of this record id on this machine; blocking; None where there is none"""

RemoveFiles = Callable[[tuple[str, ...], Literal["sketches", "all"]], int]
"""removes the pictures of these record ids that may go from this machine; blocking; how many"""


def to_generation(
    entry: JournalEntry,
    *,
    backend: str,
    engine_notice: str | None,
    now: float,
    find_file: FindFile | None = None,
) -> Generation:
    """A journal entry as a caller sees it; `now` is in seconds since the epoch.

    `find_file` knows where the embedded service keeps what was not saved elsewhere.
    """
    phase = entry.phase
    images = tuple(_to_image(entry, index, find_file) for index in range(len(entry.images)))
    details = LocalDetails.parse(json_or_none(entry.details.encode("utf-8", "replace")))
    notes = [details.not_drawn if details else None, engine_notice]
    if details and details.not_honoured:
        notes.append(f"not passed on, as the engine takes none: {', '.join(details.not_honoured)}")
    if blurred := sum(image.blurred for image in entry.images):
        notes.append(f"{blurred} of {len(entry.images)} pictures were blurred by the service")
    if missing := sum(path is None for path in entry.paths):
        notes.append(f"{missing} of {len(entry.paths)} pictures could not be saved")
    style = sanitize(entry.style, MAX_STYLE)
    shipped = SHIPPED.find(style)  # none for a style that is newer than this version
    end = entry.finished_at or now
    return Generation(
        record_id=entry.record_id,
        status=phase if phase in ("done", "failed", "refused", "unknown") else "pending",
        backend=backend,
        engine=entry.engine,
        engine_model=entry.engine_model,
        model=shipped.id if shipped else style,
        style=style,
        request=_as_drawn(request_of(entry), details),
        seed=entry.seed,
        images=images,
        elapsed=round(max(0.0, end - (entry.submitted_at or entry.created_at)), 3),
        created_at=entry.created_at,
        notice=join_notes(*notes),
        error=sanitize(entry.error, MAX_TEXT) if entry.error else None,
    )


def _as_drawn(request: GenerationRequest, details: LocalDetails | None) -> GenerationRequest:
    """The request with what the engine used; None for what it takes none of, or does not tell."""
    if details is None:
        return request
    used = {
        "guidance_scale": details.guidance_scale,
        "num_inference_steps": details.num_inference_steps,
    }
    told: dict[str, object] = {name: None for name in ENGINES_OWN if name in details.not_honoured}
    told |= {name: value for name, value in used.items() if value is not None}
    return request.model_copy(update=told) if told else request


def _to_image(entry: JournalEntry, index: int, find_file: FindFile | None) -> GeneratedImage:
    image = entry.images[index]
    path = entry.paths[index] if index < len(entry.paths) else None  # none before they are saved
    if path is None and find_file is not None:
        path = find_file(entry.record_id or "", index)
    # A saved file has its suffix from its bytes; what the service says may be anything.
    suffix = Path(path).suffix.lstrip(".").replace("jpg", "jpeg") if path else ""
    mime_type = f"image/{suffix}" if suffix else sanitize(image.mime_type, MAX_MIME_TYPE)
    # Escaped again: an earlier version wrote down what it was given.
    return GeneratedImage(escape_address(image.url), mime_type, image.blurred, path)


def request_of(entry: JournalEntry) -> GenerationRequest:
    """The request; the defaults for an entry that was adopted, or is damaged."""
    found = GenerationRequest.from_journal(entry.request)
    return found or GenerationRequest.model_construct(prompt="", idempotency_key=entry.key)


def failure_of(job: Job) -> ArtaError | None:
    """The error that a finished job means; None for one with something to show."""
    if job.is_failed and job.local is not None and (failure := _engine_failure(job)):
        return failure
    if job.is_failed:
        return JobFailed(f"the service gave the job up: {job.words}", record_id=job.record_id)
    if job.is_empty:
        return JobFailed("the service says DONE but gives no pictures", record_id=job.record_id)
    if not all(image.blurred for image in job.images):
        return None
    message = "the service blurred every picture, as it does with what it will not show"
    return PromptRejected(message, record_id=job.record_id)


def _engine_failure(job: Job) -> ArtaError | None:
    """What a failure of the embedded service means by its code; None for one of no known kind."""
    words = job.error_details or job.words
    hint = job.local.hint if job.local else ""
    kinds = ENGINE_ERRORS | {PROMPT_REJECTED: PromptRejected, CANCELLED: JobCancelled}
    kind = kinds.get(job.error_code or "")
    return kind(words, hint=hint, record_id=job.record_id) if kind else None


def to_sample(timing: Timing) -> DurationSample | None:
    """How long a job took as its polls saw it; None when no poll was made around its end.

    Such a job (a process ended and a later one found it done) would teach its age, not its
    duration: more than 2 s and half of its time lie between the last two polls.
    """
    began = timing.submitted_at
    latest = timing.finished_at - began
    earliest = (timing.seen_waiting or began) - began
    if latest <= 0 or latest - earliest > 2 + latest / 2:
        return None
    queued = (timing.seen_queued or began) - began
    drawing = None if timing.seen_drawing is None else timing.seen_drawing - began
    return DurationSample(max(0.0, earliest), latest, max(0.0, queued), drawing)


def join_notes(*notes: str | None) -> str | None:
    """All notes that are not empty as one; None without any."""
    return "; ".join(note for note in notes if note) or None
