"""What the catalogue of styles promises, and that no name or date in it is mistyped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arta_mcp import styles
from arta_mcp.errors import UnknownStyle
from arta_mcp.matching import suggest
from arta_mcp.styles import SHIPPED, Catalogue, Style, category_of, names_in_refusal

FACTS = Path(__file__).parents[2] / "shared" / "facts" / "arta-wire.md"

LISTED_ON = {
    "T1": "2025-04-13",
    "T2": "2025-08-04",
    "R": "2025-09-13",
    "T3": "2025-10-03",
    "J1": "2025-11-28",
    "T4": "2026-01-27",
}
"""columns of the table whose list has a date before J2's"""

IN_ALL_LISTS = """\
Anime tattoo, Biomech, Black Ink, Chicano, Death metal, Dotwork, Embroidery tattoo, F Dev, F Pro,
Flame design, Flux, Graffiti, Japanese_2, Kawaii, Low Poly, Medieval, Mini tattoo, Neo-traditional,
New School, Old School, Old school colored, On limbs black, Professional, Realistic tattoo,
Red and Black, RevAnimated, Surrealism, Trash Polka, Vincent Van Gogh, Watercolor"""
"""the names in every list of the service and its clients, March 2025 to May 2026"""

shipped_styles = st.sampled_from(SHIPPED.styles)
wire_names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12)
live_lists = st.lists(wire_names | st.sampled_from([s.name for s in SHIPPED.styles]), max_size=20)


def unknown(model: str, catalogue: Catalogue = SHIPPED) -> UnknownStyle:
    with pytest.raises(UnknownStyle) as caught:
        catalogue.resolve(model)
    return caught.value


def ids(text: str | None, catalogue: Catalogue = SHIPPED) -> list[str]:
    return [style.id for style in catalogue.search(text)]


# The table of the facts


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    if not FACTS.exists() and os.environ.get("REQUIRE_ALL") != "1":
        pytest.skip(f"{FACTS} is not here: the names cannot be compared with their source")
    text = FACTS.read_text(encoding="utf-8")
    section = text.split("### 3.3 Union table")[1].split("### 3.4")[0]
    rows = [
        [cell.strip().strip("*") for cell in line.strip()[1:-1].split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    head, _, *body = rows
    return [dict(zip(head, row, strict=True)) for row in body]


def test_the_shipped_names_are_those_of_the_servers_last_known_list(table: list[dict[str, str]]):
    listed = {row["wire style"] for row in table if row["J2"]}
    assert listed == {style.name for style in SHIPPED.styles}
    assert len(SHIPPED.styles) == 110
    assert (SHIPPED.as_of, SHIPPED.source) == (styles.AS_OF, "shipped")


def test_every_older_name_is_retired_with_the_day_it_was_last_listed(table: list[dict[str, str]]):
    expected = {
        row["wire style"]: max(
            (day for column, day in LISTED_ON.items() if row[column]), default=None
        )
        for row in table
        if not row["J2"]
    }
    assert expected == styles.RETIRED


def test_every_alias_of_the_table_finds_its_style_or_says_it_is_gone(table: list[dict[str, str]]):
    looked_up = 0
    for row in table:
        name = row["wire style"]
        cells = [cell for column, cell in row.items() if column.startswith("alias")]
        aliases = [alias.strip().strip("`") for cell in cells for alias in cell.split(",")]
        for alias in filter(None, [*aliases, name]):
            looked_up += 1
            if alias == "gpt-image":
                assert SHIPPED.resolve(alias).name == "GPT4o"
            elif row["J2"]:
                assert SHIPPED.resolve(alias).name == name
            else:
                assert (styles.RETIRED[name] or "never valid") in str(unknown(alias))
    assert looked_up > 250


# Looking up


@pytest.mark.parametrize("name", IN_ALL_LISTS.replace("\n", " ").split(", "))
def test_a_name_that_stood_in_every_list_is_there(name: str):
    assert name == SHIPPED.resolve(name).name


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("flux", "Flux"),
        ("FLUX_DEV", "F Dev"),
        ("f.dev", "F Dev"),
        ("flux-pro", "F Pro"),
        ("gpt-image", "GPT4o"),
        ("anime_tattoo", "Anime tattoo"),
        ("watercolor", "Watercolor"),
        (" vincent van gogh ", "Vincent Van Gogh"),
        ("japanese-2", "Japanese_2"),
        ("nano-banana", "Nano Banana Style"),
        ("qa_t2i_test_gpt_image_2_v3", "qa_t2i_test_gpt_image_2_v3"),
    ],
)
def test_an_alias_is_found_however_it_is_spelled(model: str, name: str):
    assert name == SHIPPED.resolve(model).name


@given(shipped_styles)
def test_a_style_is_found_by_id_and_name_in_any_case_and_with_any_separator(style: Style):
    kebab, snake = style.id, style.id.replace("-", "_").replace(".", "_")
    for spelling in (kebab, snake, style.name, kebab.upper(), snake.upper(), style.name.upper()):
        assert style == SHIPPED.resolve(spelling)


@given(st.text())
def test_whatever_is_asked_for_there_is_a_style_or_an_unknown_style(model: str):
    known = {style.id for style in SHIPPED.styles}
    try:
        found = SHIPPED.resolve(model)
    except UnknownStyle as exc:
        asked, near_ids = exc.name, exc.suggestions
    else:
        asked, near_ids = model, (found.id,)
    assert model == asked
    assert len(near_ids) <= 3
    assert known >= set(near_ids)


def test_the_default_is_flux():
    assert Style("flux", "Flux", "flux") == SHIPPED.default
    assert SHIPPED.default == SHIPPED.resolve(styles.DEFAULT)


# Names that are not there


@pytest.mark.parametrize(
    ("model", "best"),
    [
        ("fluxx", "flux"),
        ("flxu", "flux"),
        ("flux-schnell", "flux"),
        ("f_devv", "f-dev"),
        ("van-goh", "vincent-van-gogh"),
        ("waterclor", "watercolor"),
        ("gpt-4o", "gpt4o"),
        ("gpt-image-1", "gpt4o"),
        ("studio gibli", "studio-ghibli-style"),
        ("sdxl", "flux"),
    ],
)
def test_a_misspelt_model_names_the_nearest_ids_best_first(model: str, best: str):
    error = unknown(model)
    assert best == error.suggestions[0]
    assert repr(model) in str(error)
    assert best in error.hint


@pytest.mark.parametrize("model", ["", "-", "x", "zzzz", "qwertyuiop", "red fox in snow"])
def test_a_model_that_resembles_nothing_gets_no_guesses(model: str):
    assert unknown(model).suggestions == ()


def test_nobody_is_led_to_a_test_name_of_the_service():
    assert unknown("gpt-image-2-v4").suggestions[0] == "gpt4o"
    assert unknown("our_hunyuan_t2i_9").suggestions == ("hunyuan-style",)


def test_a_retired_model_says_since_when_and_names_its_nearest_living_kin():
    error = unknown("sdxl_1_0")
    assert (
        str(error) == "model 'sdxl_1_0' is gone: last listed on 2026-01-27, missing on 2026-05-30"
    )
    assert error.suggestions == ("flux",)
    photographic = unknown("Photographic")
    assert photographic.suggestions[0] == "professional"
    assert {SHIPPED.resolve(near).category for near in photographic.suggestions} == {"photo"}


def test_a_name_that_only_other_programs_list_was_never_valid():
    error = unknown("Flux Black Ink")
    assert "never valid" in str(error)
    assert error.suggestions[0] == "black-ink"


# Searching


@pytest.mark.parametrize("text", [None, "", "  ", "--"])
def test_a_search_for_nothing_finds_everything(text: str | None):
    assert SHIPPED.styles == SHIPPED.search(text)


def test_a_search_finds_names_aliases_and_categories():
    assert ids("van gogh") == ["vincent-van-gogh"]
    assert ids("flux dev") == ["f-dev"]
    assert ids("GHIBLI") == ["gpt4o-ghibli", "studio-ghibli-style"]
    assert {style.id for style in SHIPPED.styles if style.category == "photo"} == set(ids("photo"))
    assert {style.id for style in SHIPPED.styles if style.category == "logo"} == set(ids("logo"))


def test_a_search_shows_the_exact_name_first_and_test_names_last():
    assert ids("flux")[0] == "flux"
    assert ids("flux")[-1] == "test-qa-t2i-our-flux2-klein-9b-1"


def test_a_search_forgives_a_misspelt_word():
    assert ids("tatoo") == ids("tattoo")
    assert ids("watercolour") == ["watercolor"]
    assert ids("zzzz") == []


@given(st.text())
def test_a_search_never_fails_and_never_finds_a_style_twice(text: str):
    found = SHIPPED.search(text)
    assert len(found) == len(set(found))
    assert set(SHIPPED.styles) >= set(found)


# Live lists


def test_a_name_that_only_the_service_knows_gets_an_id_and_a_category():
    live = Catalogue.from_names(["Flux", "Neon City Style", "Zorp"], "2026-12-01")
    assert live.resolve("neon_city") == Style("neon-city-style", "Neon City Style", "art")
    assert live.resolve("ZORP") == Style("zorp", "Zorp", "other")
    assert (live.as_of, live.source) == ("2026-12-01", "live")


def test_a_style_missing_from_a_live_list_is_gone_since_that_list():
    live = Catalogue.from_names(["Flux", "F Pro"], "2026-12-01")
    assert "last listed on 2026-05-30, missing on 2026-12-01" in str(unknown("flux-dev", live))
    assert unknown("flux-dev", live).suggestions == ("f-pro", "flux")
    assert "missing on 2026-12-01" in str(unknown("gpt-image", live))


def test_a_retired_style_that_the_service_lists_again_is_a_style_again():
    live = Catalogue.from_names(["Flux", "SDXL 1.0"], "2026-12-01")
    assert live.resolve("sdxl_1_0").id == "sdxl-1.0"


def test_a_retired_name_is_not_taken_for_a_longer_new_one():
    live = Catalogue.from_names(["Flux", "Anime Style"], "2026-12-01")
    assert unknown("anime", live).suggestions[0] == "anime-style"


def test_without_flux_the_default_is_the_first_style():
    live = Catalogue.from_names(["Watercolor", "F Pro"], "2026-12-01")
    assert live.default.name == "F Pro"


@pytest.mark.parametrize("names", [[], ["", " ", "\n", "bad\x00name"]])
def test_an_empty_list_teaches_nothing(names: list[str]):
    assert Catalogue.from_names(names, "2026-12-01") is SHIPPED


def test_the_order_of_a_live_list_does_not_matter():
    names = [style.name for style in SHIPPED.styles]
    backwards = Catalogue.from_names([*reversed(names), *names], "2026-12-01")
    assert SHIPPED.styles == backwards.styles


def test_names_that_differ_only_in_spelling_get_different_ids():
    live = Catalogue.from_names(["Foo Bar", "foo-bar", "FOO_BAR"], "2026-12-01")
    assert live.resolve("foo-bar").name == "foo-bar"
    assert {"foo-bar", "foo-bar-2", "foo-bar-3"} == {style.id for style in live.styles}


@given(live_lists)
def test_in_any_live_list_ids_are_unique_and_find_their_style(names: list[str]):
    live = Catalogue.from_names(names, "2026-12-01")
    assert len({style.id for style in live.styles}) == len(live.styles)
    for style in live.styles:
        assert style == live.resolve(style.name) == live.resolve(style.id)
        assert style.category in styles.CATEGORIES
        assert style in live.search(style.category)


# Categories


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("F2 Klein 4B", "flux"),
        ("F2 Logos Style", "logo"),
        ("GPT4o Ghibli", "gpt"),
        ("Trash Polka", "tattoo"),
        ("Realistic tattoo", "tattoo"),
        ("Surrealism", "art"),
        ("Studio Ghibli Style", "art"),
        ("Film Grain Style", "photo"),
        ("Doll Nano Style", "nano"),
        ("Seedream Test", "other"),
        ("our_hunyuan_t2i", "other"),
        ("qa_t2i_test_gpt_image_2_v3", "other"),
        ("QA_text2image_flux2_turbo", "other"),
        ("Sports Logo 7", "logo"),
        ("F3 Ultra", "flux"),
        ("never heard of", "other"),
    ],
)
def test_a_category_is_told_from_the_name(name: str, category: str):
    assert category == category_of(name)


def test_every_category_has_styles():
    assert {style.category for style in SHIPPED.styles} == set(styles.CATEGORIES)


# Near names


def test_near_names_serve_ratios_commands_and_settings_too():
    ratios = ["1:1", "2:3", "3:2", "3:4", "4:3", "9:16", "16:9"]
    assert suggest("16x9", ratios) == ("16:9",)
    assert suggest("4:5", ratios) == ("4:3",)
    assert suggest("landscape", ratios) == ()
    assert suggest("genrate", ["serve", "generate", "get"]) == ("generate",)
    assert suggest("ARTA_BASE_ULR", ["ARTA_BASE_URL", "ARTA_API_KEY"]) == ("ARTA_BASE_URL",)


def test_near_names_are_in_one_order_whatever_the_order_of_the_choices():
    assert suggest("tatoo", ["b-tattoo", "a-tattoo"]) == ("a-tattoo", "b-tattoo")
    assert suggest("tatoo", ["a-tattoo", "b-tattoo"], limit=1) == ("a-tattoo",)


@given(st.text(min_size=1000, max_size=2000))
def test_a_very_long_word_is_near_nothing_or_something_but_never_slow_or_wrong(word: str):
    assert len(suggest(word, [style.id for style in SHIPPED.styles])) <= 3


# Refusals that list the valid names


def test_a_refusal_teaches_the_valid_names():
    message = """Value error, Style Fluxx not in frozenset({'Flux', "Bob's Style", 'F Dev'})"""
    assert names_in_refusal(message) == ("Bob's Style", "F Dev", "Flux")
    assert names_in_refusal(message.removesuffix(")")) == ("Bob's Style", "F Dev", "Flux")


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
    assert names_in_refusal(message) == ()


def test_a_style_that_imitates_a_refusal_does_not_teach_its_own_names():
    model = "x not in frozenset({'Evil'})"
    assert names_in_refusal(f"Style {model} not in frozenset({{'Flux'}})") == ("Flux",)


@given(st.text(), st.frozensets(wire_names, min_size=1))
def test_every_printable_name_survives_the_way_through_a_refusal(model: str, names: frozenset[str]):
    printable = frozenset(name for name in names if name.isprintable()) or frozenset({"Flux"})
    assert names_in_refusal(f"Style {model} not in {printable!r}") == tuple(sorted(printable))


@given(st.text())
def test_any_text_may_be_looked_at_for_a_refusal(message: str):
    found = names_in_refusal(message)
    assert list(found) == sorted(set(found))
