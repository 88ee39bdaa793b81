"""GenerationRequest: what may be asked for, and how a wrong wish is answered."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from arta_mcp.errors import InvalidRequest
from arta_mcp.generations.values import EngineUsed, GenerationRequest


def test_defaults_are_those_of_the_design() -> None:
    request = GenerationRequest.of(prompt="  a fox ")
    assert request.prompt == "a fox"
    assert (request.model, request.n, request.aspect_ratio) == ("flux", 1, "1:1")
    assert (request.guidance_scale, request.num_inference_steps) == (7, 30)
    assert request.negative_prompt == "blurry, deformed hands, ugly"
    assert (request.seed, request.idempotency_key) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "sentence", "hint"),
    [
        ({"prompt": ""}, "prompt is ''; allowed is a text of 1..4000 characters", ""),
        ({"prompt": "x", "n": 9}, "n is 9; allowed is a whole number in 1..8", ""),
        ({"prompt": "x", "n": 1.5}, "n is 1.5; allowed is a whole number in 1..8", ""),
        (
            {"prompt": "x", "seed": -1},
            "seed is -1; allowed is a whole number in 0..4294967295 or null",
            "",
        ),
        (
            {"prompt": "x", "aspect_ratio": "16x9"},
            "aspect_ratio is '16x9'; allowed is one of"
            " 1:1, 2:3, 3:2, 3:4, 4:3, 9:16, 16:9, 9:21, 21:9",
            "did you mean 16:9?",
        ),
        (
            {"prompt": "x", "stepps": 3},
            "no argument is called 'stepps'; there are prompt, model, negative_prompt, n,"
            " aspect_ratio, guidance_scale, num_inference_steps, seed, idempotency_key",
            "did you mean num_inference_steps?",
        ),
        (
            {"prompt": "x", "n": 9, "seed": -1},
            "n is 9; allowed is a whole number in 1..8;"
            " and seed is -1; allowed is a whole number in 0..4294967295 or null",
            "",
        ),
    ],
)
def test_a_wrong_argument_is_named_with_value_and_bounds(
    arguments: dict[str, object], sentence: str, hint: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerationRequest.of(**arguments)
    assert (caught.value.message, caught.value.hint) == (sentence, hint)


def test_a_missing_prompt_is_told() -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerationRequest.of()
    assert caught.value.argument == "prompt"
    assert caught.value.message == "prompt is missing; allowed is a text of 1..4000 characters"
    assert caught.value.hint == "give prompt"


def test_a_request_cannot_be_changed() -> None:
    request = GenerationRequest(prompt="x")
    with pytest.raises(ValidationError):
        request.prompt = "y"  # pyright: ignore[reportAttributeAccessIssue]  # that is the point


def test_the_fingerprint_is_of_the_picture_and_not_of_the_key() -> None:
    sketch, tiny = EngineUsed("sketch"), EngineUsed("diffusers", "tiny")
    request = GenerationRequest(prompt="x", seed=7)
    same = GenerationRequest(
        prompt=" x", seed=7, idempotency_key="k", model="Flux", guidance_scale=7.0
    )
    assert request.fingerprint("Flux", sketch) == same.fingerprint("Flux", sketch)
    others = {
        request.fingerprint("F Dev", sketch),
        request.fingerprint("Flux", tiny),
        request.fingerprint("Flux", replace(tiny, model="other")),
        GenerationRequest(prompt="x").fingerprint("Flux", sketch),
    }
    assert len(others | {request.fingerprint("Flux", sketch)}) == 5


def test_a_default_and_the_same_value_make_one_fingerprint() -> None:
    spelled_out = GenerationRequest(prompt="x", guidance_scale=7)
    assert spelled_out.fingerprint("Flux", EngineUsed()) == GenerationRequest(
        prompt="x"
    ).fingerprint("Flux", EngineUsed())


def test_prompts_of_any_script_travel_unchanged() -> None:
    prompt = "лиса 🦊 \u202eexit\u202c \x07 a\u0000b"
    assert GenerationRequest.of(prompt=prompt).prompt == prompt
