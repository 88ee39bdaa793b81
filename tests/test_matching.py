from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arta_mcp.matching import MAX_WORD, normalize, rank, suggest

HOSTS = ("claude-desktop", "claude-code", "cursor", "vscode")
COMMANDS = ("serve", "generate", "get", "install", "uninstall")
RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "9:16", "16:9")
SETTINGS = ("ARTA_MAX_WAIT", "ARTA_BASE_URL", "ARTA_API_KEY", "ARTA_TOKEN_REFRESH_URL")
ARGUMENTS = ("prompt", "negative_prompt", "n", "aspect_ratio", "num_inference_steps", "seed")
words = st.text(max_size=30)


@pytest.mark.parametrize(
    ("word", "choices", "best"),
    [
        ("fluxx", ("flux", "flux-dev", "f-dev"), "flux"),
        ("van goh", ("vincent-van-gogh", "watercolor"), "vincent-van-gogh"),
        ("claude-dekstop", HOSTS, "claude-desktop"),
        ("genrate", COMMANDS, "generate"),
        ("instal", COMMANDS, "install"),
        ("4:5", RATIOS, "4:3"),
        ("16x9", RATIOS, "16:9"),
        ("ARTA_MAXWAIT", SETTINGS, "ARTA_MAX_WAIT"),
        ("ARTA_BASE_ULR", SETTINGS, "ARTA_BASE_URL"),
        ("ARTA_TOKEN", SETTINGS, "ARTA_TOKEN_REFRESH_URL"),
        ("stepps", ARGUMENTS, "num_inference_steps"),
        ("ratio", ARGUMENTS, "aspect_ratio"),
        ("promt", ARGUMENTS, "prompt"),
        ("negativ_prompt", ARGUMENTS, "negative_prompt"),
    ],
)
def test_a_misspelt_word_finds_what_it_resembles_best_first(
    word: str, choices: tuple[str, ...], best: str
) -> None:
    assert suggest(word, choices)[0] == best


def test_a_word_that_resembles_nothing_finds_nothing() -> None:
    assert suggest("dall-e-3", ["flux", "graffiti", "watercolor"]) == ()
    assert suggest("landscape", RATIOS) == ()
    assert suggest("x", ["anything-xl", "sdxl-l"]) == ()
    assert suggest("", HOSTS) == ()
    assert suggest("...", HOSTS) == ()
    assert suggest("cursor", []) == ()


def test_case_and_separators_make_no_difference() -> None:
    assert normalize("Vincent_Van Gogh") == normalize("vincent-van.gogh") == "vincent-van-gogh"
    assert rank("VS_Code", ["vs-code"]) == [(1.0, "vs-code")]


def test_ties_are_in_the_order_of_the_alphabet_whatever_the_order_given() -> None:
    for choices in (["b-tattoo", "a-tattoo"], ["a-tattoo", "b-tattoo"]):
        assert [name for _, name in rank("tatoo", choices)] == ["a-tattoo", "b-tattoo"]
        assert suggest("tatoo", choices, limit=1) == ("a-tattoo",)


@given(words, st.lists(words, max_size=10), st.integers(0, 5))
def test_near_names_are_some_of_the_choices_and_no_more_than_asked_for(
    word: str, choices: list[str], limit: int
) -> None:
    found = suggest(word, choices, limit=limit)
    assert len(found) <= limit
    assert set(found) <= set(choices)
    assert len(set(found)) == len(found)


@given(st.text(st.characters(categories=["Ll"]), min_size=1, max_size=MAX_WORD))
def test_a_word_is_nearest_to_itself(word: str) -> None:
    likeness = {name: value for value, name in rank(word, [word, "something-else"])}
    assert likeness[word] == max(likeness.values())
    assert suggest(word, [word]) == (word,)


@pytest.mark.parametrize("word", ["a" * 10**6, "a " * 10**6, "ab" * 10**6, "a b c d e f g " * 9])
def test_no_word_and_no_catalogue_of_a_thousand_names_takes_two_seconds(word: str) -> None:
    rng = random.Random(7)
    names = ["".join(rng.choices("ab -", k=400)) for _ in range(1000)]
    begun = time.process_time()
    suggest(word, names)
    assert time.process_time() - begun < 2
