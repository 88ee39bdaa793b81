from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from arta_mcp.arta.protocol import Image
from arta_mcp.generations.results import request_of, to_generation, to_sample
from arta_mcp.generations.schedule import DurationSample
from arta_mcp.state.records import JournalEntry, Timing
from arta_mcp.styles import MAX_STYLE

BEGAN = 1_000_000.0


def timing(finished: float, seen_waiting: float | None, drawing: float | None = None) -> Timing:
    waiting = None if seen_waiting is None else BEGAN + seen_waiting
    return Timing(BEGAN, waiting, BEGAN + finished, waiting, drawing and BEGAN + drawing)


def test_a_job_is_known_to_have_ended_between_its_last_two_polls() -> None:
    assert to_sample(timing(10, 9, drawing=4)) == DurationSample(9, 10, 9, 4)
    assert to_sample(timing(3, None)) == DurationSample(0, 3, 0, None)


@pytest.mark.parametrize(
    ("finished", "seen_waiting"),
    [(600, 5), (600, None), (10, 2.9), (0, None), (-1, None)],
)
def test_a_job_that_no_poll_followed_to_its_end_teaches_no_duration(
    finished: float, seen_waiting: float | None
) -> None:
    assert to_sample(timing(finished, seen_waiting)) is None


ARTA: Any = {"backend": "arta", "engine_notice": None}


def entry(request: str) -> JournalEntry:
    return JournalEntry(
        service="test",
        key="k",
        fingerprint="f",
        request=request,
        style="Flux",
        phase="sending",
        created_at=BEGAN,
        record_id="r1",
    )


@pytest.mark.parametrize("request_text", ["", "{}", "[]", "null", '{"prompt": 7}', "{", "\ud800"])
def test_an_entry_without_a_readable_request_is_still_told(request_text: str) -> None:
    asked = request_of(entry(request_text))
    assert (asked.prompt, asked.n, asked.idempotency_key) == ("", 1, "k")


def test_what_the_engine_wants_said_is_said_first() -> None:
    told = to_generation(entry("{}"), now=BEGAN, **ARTA | {"engine_notice": "by rules"})
    assert told.notice == "by rules"


def test_what_an_earlier_version_wrote_down_unseen_is_shown_short_and_harmless() -> None:
    image = Image("https://a.example/![x](https://b.example)", "", False, "x" * 300_000)
    stored = replace(
        entry("{}"), style="s" * 284_000, error="e\x1b" * 100_000, images=(image,), phase="done"
    )
    told = to_generation(stored, backend="arta", engine_notice=None, now=BEGAN)
    assert told.images[0].url == "https://a.example/!%5Bx%5D(https://b.example)"
    assert len(repr(told)) < 10_000
    assert "\x1b" not in str(told.error)
    assert (told.model, len(told.style)) == (told.style, MAX_STYLE)


def test_a_picture_has_the_path_and_the_type_of_its_file() -> None:
    stored = replace(entry("{}"), images=(Image("http://h/a", mime_type="text/html"),) * 2)
    saved = replace(stored, paths=("/saved/a.jpg", None))
    kept = {("r", 0): "/kept/0.png", ("r", 1): "/kept/1.webp"}

    def find_file(record_id: str, index: int) -> str | None:
        return kept.get((record_id, index))

    told = to_generation(
        replace(saved, record_id="r"),
        backend="local",
        engine_notice=None,
        now=BEGAN,
        find_file=find_file,
    )
    assert [(image.path, image.mime_type) for image in told.images] == [
        ("/saved/a.jpg", "image/jpeg"),
        ("/kept/1.webp", "image/webp"),
    ]
