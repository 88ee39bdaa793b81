"""Styles as words: ours for every name of the catalogue, and a person's own before them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arta_mcp.engines import recipes
from arta_mcp.engines.base import ImageRequest
from arta_mcp.engines.recipes import MAX_FILE, SLOT, Recipes, read_recipes
from arta_mcp.errors import ConfigError
from arta_mcp.styles import SHIPPED

OURS = Path(recipes.__file__).with_name("recipes.json").read_text(encoding="utf-8")
MODELS = {
    *("F Dev", "F Pro", "F2 Klein 4B", "F2 Klein 9B", "F2 Pro", "F2 Turbo", "Flux", "GPT4o"),
    *("High GPT4o", "Nano Banana 2 Style", "Nano Banana Pro Style", "Nano Banana Style"),
    *("Hunyuan Style", "Seedream Test"),
}
"""names that say which model of the remote service draws, not how it looks"""

FOX = ImageRequest("a fox", "fog", "Watercolor", "art", 1, 0, "1:1")


def test_every_style_has_words_or_is_a_model_without_any() -> None:
    found = read_recipes(OURS, "ours")
    names = {style.name for style in SHIPPED.styles}
    assert found.keys() == names
    without = {name for name, recipe in found.items() if recipe.prompt == SLOT}
    assert without == MODELS | {n for n in names if n.startswith(("our_", "qa_", "test_"))}
    for name, recipe in found.items():
        assert recipe.prompt.startswith(SLOT), name  # models cut a long prompt at its end
        assert len(recipe.prompt.split()) <= 20, name


def test_the_persons_own_words_come_first() -> None:
    made = Recipes.load().apply(FOX)
    assert made.prompt == "a fox, watercolour painting, soft washes, paper texture"
    assert made.negative_prompt == "fog, photo"


def test_a_style_that_names_a_model_adds_nothing_and_says_what_drew() -> None:
    found = Recipes.load()
    assert found.explain("F2 Pro", "m") == (
        "'F2 Pro' names a model of the remote service; here m drew"
    )
    assert found.explain("Watercolor", "m") == found.explain("Flux", "m") == ""


def test_a_file_of_ones_own_goes_before_ours_by_name_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "sdxl_styles.json"
    own = [
        {"name": "watercolor", "prompt": "inky {prompt} . wet", "negative_prompt": "oil"},
        {"name": "Mine", "negative_prompt": "red"},
    ]
    path.write_text("\ufeff" + json.dumps(own), encoding="utf-8")
    found = Recipes.load(path)
    assert found.apply(FOX).prompt == "inky a fox . wet"
    assert found.of("mine").negative_prompt == "red"
    assert found.of("Low Poly").prompt != SLOT


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[\n{"name": "a",\n"prompt": }]', "line 3"),
        ('[{"name": "a"},\n\n{"name": "b", "prompt": "no slot"}]', "line 3: the prompt of 'b'"),
        ('[{"prompt": "{prompt}"}]', "style 1 of the list has no name"),
        ('{"name": "a"}', "holds no list of styles"),
        ("", "line 1"),
        ("[" * 100000, "no json"),
        (json.dumps([{"name": "long " * 20}]), "is no name: at most 64 printable characters"),
        (json.dumps([{"name": "two\nlines"}]), r"'two\nlines' is no name"),
        (" " * (MAX_FILE + 1), "has over 4 MB"),
        (b"\xff\xfe[]", "no text in UTF-8"),
        (None, "no such file"),
    ],
)
def test_a_mistake_in_it_is_told_with_its_line_and_the_setting(
    tmp_path: Path, content: str | bytes | None, words: str
) -> None:
    path = tmp_path / "styles.json"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as caught:
        Recipes.load(path)
    assert caught.value.message.startswith("ARTA_LOCAL_STYLES: ")
    assert words in caught.value.message
    assert caught.value.hint
