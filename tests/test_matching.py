from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from arta_mcp.matching import MAX_WORD, normalize, rank, suggest

HOSTS = ("claude-desktop", "claude-code", "cursor", "vscode")
words = st.text(max_size=30)


def test_a_misspelt_word_finds_what_it_resembles_best_first() -> None:
    assert suggest("fluxx", ["flux", "flux-dev", "f-dev"])[0] == "flux"
    assert suggest("claude-dekstop", HOSTS)[0] == "claude-desktop"
    assert suggest("ARTA_MAXWAIT", ["ARTA_MAX_WAIT", "ARTA_PROXY"]) == ("ARTA_MAX_WAIT",)
    assert suggest("4:5", ["4:3", "16:9"], limit=1) == ("4:3",)


def test_one_word_of_a_long_name_is_enough() -> None:
    assert suggest("van goh", ["vincent-van-gogh", "watercolor"]) == ("vincent-van-gogh",)


def test_a_word_that_resembles_nothing_finds_nothing() -> None:
    assert suggest("dall-e-3", ["flux", "graffiti", "watercolor"]) == ()
    assert suggest("", HOSTS) == ()
    assert suggest("...", HOSTS) == ()
    assert suggest("cursor", []) == ()


def test_case_and_separators_make_no_difference() -> None:
    assert normalize("Vincent_Van Gogh") == normalize("vincent-van.gogh") == "vincent-van-gogh"
    assert rank("VS_Code", ["vs-code"]) == [(1.0, "vs-code")]


def test_ties_are_in_the_order_of_the_alphabet_whatever_the_order_given() -> None:
    assert rank("logo-2", ["logo-3", "logo-1"]) == rank("logo-2", ["logo-1", "logo-3"])
    assert [name for _, name in rank("logo-2", ["logo-3", "logo-1"])] == ["logo-1", "logo-3"]


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


def test_an_endless_word_costs_no_more_than_a_long_one() -> None:
    begun = time.process_time()
    suggest("x" * 1_000_000, HOSTS)
    suggest("x " * 500_000, HOSTS)
    assert time.process_time() - begun < 1
