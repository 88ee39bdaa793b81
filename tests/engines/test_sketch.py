from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat
from PIL.PngImagePlugin import PngImageFile

from arta_mcp.engines.sketch.engine import CAPTION, SIZES, Order, draw

FOX = Order("a red fox in snow", "", "Flux", "flux", 42, 0, "16:9")
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
CATEGORIES = ("flux", "gpt", "logo", "tattoo", "art", "photo", "nano", "other")
GOLDEN = (
    ("Flux", "flux", "a red fox in snow", "16:9", "32d7ca2cfd7d9877717cd6d647dcf6a3"),
    ("GPT4o", "gpt", "a black cat in a city at night", "1:1", "2d901720a7d340db3a8a931750531a39"),
    (
        "Emblem Logo",
        "logo",
        "Northern Bear coffee, forest",
        "2:3",
        "57b9e071b48922a1f6479d6cc8653c29",
    ),
    (
        "Neo Traditional",
        "tattoo",
        "a wolf in the mountains",
        "3:4",
        "d2f3f185dc39c7eb4165dd533451b351",
    ),
    (
        "Film Grain Style",
        "photo",
        "a sailboat on a lake at sunset",
        "21:9",
        "42b013afd2b26f88ca3b17efd51b56e1",
    ),
    (
        "Nano Banana Style",
        "nano",
        "greetings from the desert",
        "4:3",
        "a6e2e1c22a64f8f1a5bb70a090544df1",
    ),
    ("Aurora", "other", "", "9:16", "93244fd778e67811518dd84131642dbf"),
    (
        "Vincent Van Gogh",
        "art",
        "a cottage under a starry night sky",
        "3:2",
        "a8a893caab9346c2813125c08a313800",
    ),
    (
        "Watercolor",
        "art",
        "a rabbit in a flower meadow",
        "9:21",
        "a9fe35e8e3f0911a2225470f1e5fd5e7",
    ),
    (
        "Low Poly",
        "art",
        "portrait of a lady in the rain",
        "1:1",
        "2cb3226bb81c6c313a8cae6dbce803bd",
    ),
    (
        "Japanese_2",
        "art",
        "a blue bird before the mountains",
        "16:9",
        "3ddae6aca18d3d54b992dce43e24cde0",
    ),
    ("Oil Painting", "art", "fog over the sea", "3:2", "9e06a10d698392e29b3478e57dcbd94d"),
)
"""what was drawn before the engine had its own room: style, category, prompt, ratio, checksum"""

HOSTILE = {
    "empty": "",
    "blank": " \t\r\n",
    "NUL": "a\0red\0fox\0",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "4000 characters": "fox in snow " * 333 + "fox.",
    "4000 spaceless emoji": "\N{FOX FACE}" * 4000,
    "right-to-left marks": "\u202e\u200fsnow \u2067fox\u2069",
    "half a surrogate pair": "fox \ud83d in snow",
    "combining marks": "f\u0301\u0302\u0303o\u0489x" * 50,
    "every weather at once": "snow night rain fog stars cloud moon sun dusk",
    "every place at once": "sea mountain forest desert city field house boat flower",
    "every colour at once": "red orange yellow green teal blue purple pink black white",
}


def opened(png: bytes) -> PngImageFile:
    image = Image.open(io.BytesIO(png))
    assert isinstance(image, PngImageFile)
    image.load()
    return image


def texts(png: bytes) -> Mapping[str, str]:
    return opened(png).text


def distance(one: bytes, other: bytes) -> float:
    """Mean difference of two pictures, 0..255."""
    difference = ImageChops.difference(opened(one), opened(other)).convert("L")
    return ImageStat.Stat(difference).mean[0]


def share_of_red(png: bytes) -> float:
    """How much of a picture has the colour of a fox."""
    red, green, blue = opened(png).split()
    table = [255 * (v > 90) for v in range(256)]
    fiery = ImageChops.subtract(red, ImageChops.lighter(green, blue)).point(table)  # pyright: ignore[reportUnknownMemberType]  # names numpy
    return ImageStat.Stat(fiery).mean[0] / 255


@pytest.mark.parametrize(
    ("style", "category", "prompt", "ratio", "checksum"), GOLDEN, ids=[row[0] for row in GOLDEN]
)
def test_pictures_are_the_same_as_in_the_first_version(
    need: Callable[[bool, str], None],
    style: str,
    category: str,
    prompt: str,
    ratio: str,
    checksum: str,
) -> None:
    pinned = f"\npillow=={PIL.__version__}\n" in CONSTRAINTS.read_text(encoding="utf-8").lower()
    need(pinned, "another Pillow is installed than the one in constraints.txt")
    image = opened(draw(Order(prompt, "blurry", style, category, 42, 1, ratio)))
    # Pixels and texts, not the file: how well zlib packs them depends on the processor.
    found = hashlib.sha256(image.tobytes() + repr(sorted(image.text.items())).encode())
    assert found.hexdigest()[:32] == checksum


def test_there_is_a_size_for_each_of_the_nine_ratios() -> None:
    expected = ["1:1", "2:3", "3:2", "3:4", "4:3", "9:16", "16:9", "9:21", "21:9"]
    assert expected == list(SIZES)


@pytest.mark.parametrize("ratio", SIZES)
def test_a_picture_has_its_ratio_and_about_a_megapixel(ratio: str) -> None:
    image = opened(draw(replace(FOX, aspect_ratio=ratio)))
    across, down = map(int, ratio.split(":"))
    assert SIZES[ratio] == image.size
    assert pytest.approx(across / down, rel=0.005) == image.width / image.height
    assert pytest.approx(1024 * 1024, rel=0.02) == image.width * image.height
    assert (image.width % 8, image.height % 8) == (0, 0)
    assert image.mode == "RGB"


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_same_order_gives_the_same_bytes(category: str) -> None:
    order = replace(FOX, category=category)
    assert draw(order) == draw(order)


def test_what_is_drawn_does_not_depend_on_the_process() -> None:
    # A checksum in this file would pin Pillow's version; this shows that no hash seed leaks in.
    script = """
import sys, zlib
from arta_mcp.engines.sketch.engine import Order, draw
for style, category in (("Low Poly", "art"), ("Flux", "flux")):
    order = Order("a red fox in snow", "", style, category, 42, 0, "1:1")
    sys.stdout.write(f"{zlib.crc32(draw(order))} ")
"""
    ours = [
        zlib.crc32(draw(replace(FOX, style=style, category=category, aspect_ratio="1:1")))
        for style, category in (("Low Poly", "art"), ("Flux", "flux"))
    ]
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    theirs = [int(word) for word in run.stdout.split()]
    assert ours == theirs


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("change", [{"seed": 43}, {"index": 1}], ids=["seed", "index"])
def test_another_seed_or_index_is_visibly_another_picture(
    category: str, change: dict[str, int]
) -> None:
    order = replace(FOX, category=category)
    assert distance(draw(order), draw(replace(order, **change))) > 4


def test_another_style_is_visibly_another_picture() -> None:
    styles = ("Vincent Van Gogh", "Watercolor", "Low Poly", "Japanese_2")
    pictures = [draw(replace(FOX, style=style, category="art")) for style in styles]
    pairs = [(a, b) for i, a in enumerate(pictures) for b in pictures[i + 1 :]]
    assert min(distance(a, b) for a, b in pairs) > 4


def test_a_red_fox_in_snow_is_red_in_a_bright_picture() -> None:
    png = draw(FOX)
    assert share_of_red(png) > 0.03
    assert share_of_red(draw(replace(FOX, prompt="snow"))) < 0.01
    assert ImageStat.Stat(opened(png).convert("L")).mean[0] > 140


def test_what_the_negative_prompt_names_is_left_out() -> None:
    refused = draw(replace(FOX, negative_prompt="foxes"))
    assert share_of_red(draw(FOX)) > 0.03
    assert share_of_red(refused) < 0.01


def test_a_negative_prompt_about_other_things_leaves_every_pixel_alone() -> None:
    other = draw(replace(FOX, negative_prompt="blurry, deformed hands, ugly"))
    assert distance(draw(FOX), other) == 0


def test_a_colour_said_of_the_animal_is_its_coat() -> None:
    white = draw(replace(FOX, prompt="a white fox in snow"))
    assert share_of_red(white) < 0.01
    assert distance(draw(FOX), white) > 4


def test_a_colour_said_of_nothing_in_particular_tints_the_picture() -> None:
    plain = opened(draw(replace(FOX, prompt="sea at noon")))
    green = opened(draw(replace(FOX, prompt="sea at noon, green")))

    def greenness(image: Image.Image) -> float:
        red, green_, blue = ImageStat.Stat(image).mean
        return green_ - (red + blue) / 2

    assert greenness(green) > greenness(plain) + 5


def test_the_texts_in_the_file_say_what_was_asked_and_what_drew_it() -> None:
    order = replace(FOX, negative_prompt="blurry", seed=4294967295, index=7)
    found = texts(draw(order))
    assert found["prompt"] == "a red fox in snow"
    assert found["negative_prompt"] == "blurry"
    assert found["seed"] == "4294967295"
    assert found["style"] == "Flux"
    assert found["index"] == "7"
    assert found["Software"] == "arta-mcp sketch"
    assert "not made by an AI model" in found["Comment"]


def test_texts_in_any_script_come_back_as_they_went_in() -> None:
    prompt = "лиса в снегу, 雪の中の狐, ثعلب أحمر, \N{FOX FACE}\nnaïve café"
    assert prompt == texts(draw(replace(FOX, prompt=prompt)))["prompt"]


def test_a_nul_in_a_text_is_shown_as_its_symbol() -> None:
    assert texts(draw(replace(FOX, prompt="a\0b")))["prompt"] == "a\u2400b"


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_caption_reads_on_any_picture(category: str) -> None:
    image = opened(draw(replace(FOX, category=category))).convert("L")
    unit = min(image.size)
    left, bottom = unit // 70 + 2, image.height - unit // 70 - 2
    darkest, brightest = image.crop((left, bottom - 18, left + unit // 3, bottom)).getextrema()
    assert "not made by an AI model" in CAPTION
    assert isinstance(darkest, (int, float))
    assert isinstance(brightest, (int, float))
    assert brightest - darkest > 120


@pytest.mark.parametrize("category", ["gpt", "logo", "nano"])  # the last two write words
@pytest.mark.parametrize("prompt", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_prompt_keeps_a_picture_from_being_drawn(category: str, prompt: str) -> None:
    order = Order(prompt, "", prompt[:50], category, 0, 0, "9:21")
    assert opened(draw(order)).size == (672, 1568)


def test_a_negative_prompt_may_be_as_wild_as_a_prompt() -> None:
    for prompt in HOSTILE.values():
        order = Order(prompt, prompt, "Flux", "gpt", 0, 0, "1:1")
        assert opened(draw(order)).size == (1024, 1024)


@pytest.mark.parametrize("category", [*CATEGORIES, "of which nobody has heard"])
def test_every_category_draws_even_nothing(category: str) -> None:
    assert opened(draw(Order("", "", "", category, 0, 0, "9:21"))).size == (672, 1568)


@settings(max_examples=15, deadline=None)
@given(
    prompt=st.text(st.characters(), max_size=80),
    category=st.sampled_from(["gpt", "logo", "nano"]),
    seed=st.integers(0, 2**32 - 1),
    ratio=st.sampled_from(sorted(SIZES)),
)
def test_any_text_draws_and_is_found_again_in_the_file(
    prompt: str, category: str, seed: int, ratio: str
) -> None:
    found = texts(draw(Order(prompt, "", "Flux", category, seed, 0, ratio)))
    seen = prompt.replace("\0", "\u2400").encode("utf-8", "replace").decode("utf-8")
    assert seen == found["prompt"]


@pytest.mark.parametrize(
    "thing", ["fox", "wolf", "cat", "dog", "rabbit", "bear", "bird", "portrait", "boat", "house"]
)
@pytest.mark.parametrize("place", ["snow", "night sea"])
def test_every_subject_is_drawn_in_every_place(thing: str, place: str) -> None:
    with_it = draw(replace(FOX, prompt=f"{thing} {place}", category="gpt"))
    without = draw(replace(FOX, prompt=f"{thing} {place}", category="gpt", negative_prompt=thing))
    assert distance(with_it, without) > 0.5
