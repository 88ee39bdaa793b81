"""What the catalogue of styles promises, and that no name or date in it is mistyped."""

from __future__ import annotations

import time
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arta_mcp import styles
from arta_mcp.errors import UnknownStyle
from arta_mcp.redaction import Secret
from arta_mcp.styles import SHIPPED, Catalogue, Style, category_of

TABLE = Path(__file__).parent / "wire" / "styles_by_day.tsv"

shipped_styles = st.sampled_from(SHIPPED.styles)
wire_names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=12)
live_lists = st.lists(wire_names | st.sampled_from([s.name for s in SHIPPED.styles]), max_size=20)


def unknown(model: str, catalogue: Catalogue = SHIPPED) -> UnknownStyle:
    with pytest.raises(UnknownStyle) as caught:
        catalogue.resolve(model)
    return caught.value


def ids(text: str | None, catalogue: Catalogue = SHIPPED) -> list[str]:
    return [style.id for style in catalogue.search(text)]


# The table of what each list had


class Row(NamedTuple):
    name: str
    aliases: list[str]
    days: list[str]


@pytest.fixture(scope="module")
def table() -> list[Row]:
    _, *lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    return [Row(name, aliases.split(","), days.split()) for name, aliases, days in rows]


def test_the_shipped_names_are_those_of_the_servers_last_known_list(table: list[Row]):
    listed = {row.name for row in table if styles.AS_OF in row.days}
    assert listed == {style.name for style in SHIPPED.styles}
    assert len(SHIPPED.styles) == 110
    assert (SHIPPED.as_of, SHIPPED.source) == (styles.AS_OF, "shipped")


def test_every_older_name_is_retired_with_the_day_it_was_last_listed(table: list[Row]):
    gone = [row for row in table if styles.AS_OF not in row.days]
    assert {row.name: max(row.days, default=None) for row in gone} == styles.RETIRED


def test_every_alias_of_the_table_finds_its_style_or_says_it_is_gone(table: list[Row]):
    looked_up = 0
    for row in table:
        for alias in filter(None, [*row.aliases, row.name]):
            looked_up += 1
            if alias == "gpt-image":
                assert SHIPPED.resolve(alias).name == "GPT4o"
            elif styles.AS_OF in row.days:
                assert SHIPPED.resolve(alias).name == row.name
            else:
                assert (styles.RETIRED[row.name] or "never valid") in str(unknown(alias))
    assert looked_up > 220


# Looking up


def test_an_alias_is_found_however_it_is_spelled():
    expected = {
        "flux": "Flux",
        "FLUX_DEV": "F Dev",
        "f.dev": "F Dev",
        "flux-pro": "F Pro",
        "gpt-image": "GPT4o",
        "anime_tattoo": "Anime tattoo",
        " vincent van gogh ": "Vincent Van Gogh",
        "japanese-2": "Japanese_2",
        "nano-banana": "Nano Banana Style",
        "qa_t2i_test_gpt_image_2_v3": "qa_t2i_test_gpt_image_2_v3",
    }
    assert {model: SHIPPED.resolve(model).name for model in expected} == expected


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


def test_a_misspelt_model_names_the_nearest_ids_best_first():
    expected = {
        "fluxx": "flux",
        "flxu": "flux",
        "flux-schnell": "flux",
        "f_devv": "f-dev",
        "van-goh": "vincent-van-gogh",
        "waterclor": "watercolor",
        "gpt-4o": "gpt4o",
        "gpt-image-1": "gpt4o",
        "studio gibli": "studio-ghibli-style",
        "sdxl": "flux",
    }
    errors = {model: unknown(model) for model in expected}
    assert {model: error.suggestions[0] for model, error in errors.items()} == expected
    assert repr("fluxx") in str(errors["fluxx"])
    assert "flux" in errors["fluxx"].hint


def test_a_model_that_resembles_nothing_gets_no_guesses():
    for model in ("", "-", "x", "zzzz", "qwertyuiop", "red fox in snow"):
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


def test_a_search_for_nothing_finds_everything_but_test_names():
    public = tuple(style for style in SHIPPED.styles if not style.is_leaked)
    assert 90 < len(public) < len(SHIPPED.styles)
    for text in (None, "", "  ", "--"):
        assert SHIPPED.search(text) == public


def test_a_test_name_of_the_service_is_found_by_its_exact_name_alone():
    for style in SHIPPED.styles:
        if style.is_leaked:
            assert SHIPPED.search(style.name)[0] == SHIPPED.search(style.id)[0] == style
    for text in ("flux", "qa", "test", "hunyuan", "our hunyuan", "qa t2i", "gpt image 2 v"):
        assert not [style.id for style in SHIPPED.search(text) if style.is_leaked]


@pytest.mark.parametrize(
    ("words", "some"),
    [
        ("photorealistic", {"professional", "f2-pro", "flux"}),
        ("photo-realistic portrait", {"professional", "f-pro"}),
        ("portrait", {"professional", "polaroid-style"}),
        ("pixel art", {"flux", "gpt4o", "nano-banana-style"}),
        ("oil painting", {"vincent-van-gogh", "flux"}),
        ("line art", {"coloring-book-style", "black-ink"}),
        ("comic", {"cute-cartoon-style"}),
        ("anime", {"studio-ghibli-style", "revanimated", "anime-tattoo"}),
        ("fast", {"f2-turbo", "f2-klein-4b", "f2-klein-9b"}),
        ("fast flux", {"f2-turbo"}),
        ("photorealstic", {"professional"}),
        ("pixel-artt", {"flux"}),
        ("linearts", {"black-ink"}),
    ],
)
def test_words_that_people_use_find_the_styles_that_serve(words: str, some: set[str]):
    found = ids(words)
    assert some <= set(found)
    assert len(found) < len(SHIPPED.styles) / 3


def test_a_name_is_found_before_what_only_a_tag_says():
    live = Catalogue.from_names(["Flux", "GPT4o", "Pixel Art Style"], "2026-12-01")
    assert ids("pixel art", live) == ["pixel-art-style", "flux", "gpt4o"]
    assert ids("anime")[0] == "anime-tattoo"


def test_every_tag_names_styles_that_were_shipped():
    shipped = {style.name for style in SHIPPED.styles}
    for tag, names in styles._TAGS.items():  # pyright: ignore[reportPrivateUsage]  # a table of names that may be mistyped
        assert names <= shipped, tag


def test_a_search_finds_names_aliases_and_categories():
    assert ids("van gogh") == ["vincent-van-gogh"]
    assert ids("flux dev") == ["f-dev"]
    assert ids("GHIBLI") == ["gpt4o-ghibli", "studio-ghibli-style"]
    assert {style.id for style in SHIPPED.styles if style.category == "photo"} == set(ids("photo"))
    assert {style.id for style in SHIPPED.styles if style.category == "logo"} == set(ids("logo"))


def test_a_search_shows_the_exact_name_first():
    assert ids("flux")[0] == "flux"
    assert ids("f pro")[0] == "f-pro"


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


def test_an_empty_list_teaches_nothing():
    for names in ([], ["", " ", "\n", "bad\x00name"]):
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
@settings(deadline=None)
def test_in_any_live_list_ids_are_unique_and_find_their_style(names: list[str]):
    live = Catalogue.from_names(names, "2026-12-01")
    assert len({style.id for style in live.styles}) == len(live.styles)
    for style in live.styles:
        assert style == live.resolve(style.name) == live.resolve(style.id)
        assert style.category in styles.CATEGORIES
        assert style in live.search(style.name if style.is_leaked else style.category)


def test_what_can_be_no_name_is_left_out():
    token = Secret("sentinel-token-as-a-style")
    names = ["Flux", "x" * 65, "x" * 284_000, "a\u202eb", f"by {token.reveal()}"]
    live = Catalogue.from_names(names, "2026-12-01")
    assert [style.name for style in live.styles] == ["Flux"]


def test_a_list_that_is_too_long_to_be_one_teaches_nothing():
    names = [f"Style {number}" for number in range(styles.MAX_STYLES)]
    assert len(Catalogue.from_names(names, "2026-12-01").styles) == styles.MAX_STYLES
    assert Catalogue.from_names([*names, "one more"], "2026-12-01") is SHIPPED


HOSTILE_LISTS = {
    "case only": [
        "".join(c) for c in islice(product(*zip("ab" * 32, "AB" * 32, strict=True)), 1000)
    ],
    "few letters": ["ab" * 30 + f"{n:03}" for n in range(1000)],
    "many words": [
        " ".join(f"{n:03}"[i % 3] + "ab"[i % 2] for i in range(21)) for n in range(1000)
    ],
    "separators": ["a" + "-_. "[n % 4] * (n % 60 + 1) + str(n) for n in range(1000)],
}


@pytest.mark.parametrize("kind", HOSTILE_LISTS)
def test_no_list_costs_much_time_whatever_is_asked_of_it(kind: str):
    begun = time.process_time()
    live = Catalogue.from_names(HOSTILE_LISTS[kind], "2026-12-01")
    assert live.source == "live"
    for asked in ("abab" * 16, "ab ba " * 10, "a1b " * 16, "zzzz"):
        live.search(asked)
        with pytest.raises(UnknownStyle):
            live.resolve(f"{asked}?")
    assert time.process_time() - begun < 1


# Categories


def test_a_category_is_told_from_the_name():
    expected = {
        "F2 Klein 4B": "flux",
        "F2 Logos Style": "logo",
        "GPT4o Ghibli": "gpt",
        "Trash Polka": "tattoo",
        "Realistic tattoo": "tattoo",
        "Surrealism": "art",
        "Studio Ghibli Style": "art",
        "Film Grain Style": "photo",
        "Doll Nano Style": "nano",
        "Seedream Test": "other",
        "our_hunyuan_t2i": "other",
        "qa_t2i_test_gpt_image_2_v3": "other",
        "QA_text2image_flux2_turbo": "other",
        "Sports Logo 7": "logo",
        "F3 Ultra": "flux",
        "never heard of": "other",
    }
    assert {name: category_of(name) for name in expected} == expected


def test_every_category_has_styles():
    assert {style.category for style in SHIPPED.styles} == set(styles.CATEGORIES)
