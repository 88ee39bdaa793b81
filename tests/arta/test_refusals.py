"""A refused style lists every valid one: what `style_refusal` writes, `styles_in_refusal` reads."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arta_mcp.arta.refusals import Refusal, style_refusal, styles_in_refusal
from arta_mcp.redaction import MAX_QUOTED
from arta_mcp.styles import MAX_STYLE, MAX_STYLES, is_style_name

wire_names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12)


def test_a_refusal_teaches_the_valid_names():
    message = """Value error, Style Fluxx not in frozenset({'Flux', "Bob's Style", 'F Dev'})"""
    assert styles_in_refusal(message) == ("Bob's Style", "F Dev", "Flux")
    assert styles_in_refusal(message.removesuffix(")")) == ("Bob's Style", "F Dev", "Flux")


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Field required",
        "Style X not in frozenset()",
        "Style X not in frozenset({",
        "Style X not in frozenset({'Flux', 'F De",
        "Style X not in frozenset({'Flux', 'F Dev',",
        "Style X not in frozenset({'Flux', 7})",
        "Style X not in frozenset({'Flux'}) and more",
    ],
)
def test_a_message_of_another_shape_or_cut_short_teaches_nothing(message: str):
    assert styles_in_refusal(message) == ()


def test_a_style_that_imitates_a_refusal_does_not_teach_its_own_names():
    model = "x not in frozenset({'Evil'})"
    assert styles_in_refusal(f"Style {model} not in frozenset({{'Flux'}})") == ("Flux",)


@given(st.text(), st.frozensets(wire_names, min_size=1))
def test_every_printable_name_survives_the_way_through_a_refusal(model: str, names: frozenset[str]):
    printable = frozenset(filter(is_style_name, names)) or frozenset({"Flux"})
    ours = style_refusal(model, list(printable)).words
    for message in (ours, f"Style {model} not in {printable!r}"):  # as Python writes it, too
        assert styles_in_refusal(message) == tuple(sorted(printable))


def test_a_list_of_names_that_is_no_list_of_styles_teaches_nothing():
    names = [f"s{number}" for number in range(MAX_STYLES)]
    assert len(styles_in_refusal(style_refusal("x", names).words)) == MAX_STYLES
    assert styles_in_refusal(style_refusal("x", [*names, "more"]).words) == ()
    assert styles_in_refusal(style_refusal("x", ["Flux", "y" * (MAX_STYLE + 1)]).words) == ("Flux",)


@pytest.mark.parametrize(
    "answer",
    [
        {"detail": "x" * 300_000},
        {"detail": [{"loc": ["body"], "msg": "x" * 99}] * 3000},
        {"detail": {"why": "x" * 300_000}},
        {"detail": style_refusal("x", [f"s{number}" for number in range(999)]).words},
        {"error": {"message": "x" * 300_000}},
        ["x" * 300_000],
    ],
    ids=["text", "list", "object", "styles", "google", "no object"],
)
def test_the_words_of_a_refusal_are_short_however_it_is_written(answer: object):
    refusal = Refusal.parse(422, {}, json.dumps(answer).encode())
    assert 0 < len(refusal.words) <= MAX_QUOTED
