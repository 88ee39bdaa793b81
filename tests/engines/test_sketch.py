from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat
from PIL.PngImagePlugin import PngImageFile

from arta_mcp.arta.protocol import RATIOS
from arta_mcp.engines.base import ImageRequest
from arta_mcp.engines.sketch.engine import SIZES, draw
from arta_mcp.engines.sketch.gaps import name_gaps
from arta_mcp.engines.sketch.info import CAPTION, describe

FOX = ImageRequest("a red fox in snow", "", "Flux", "flux", 42, 0, "16:9")
CATEGORIES = ("flux", "gpt", "logo", "tattoo", "art", "photo", "nano", "other")
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
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
)
"""what was drawn before the engine had a room of its own: each ratio and each category, as
style, category, prompt, ratio, checksum"""

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


def small(request: ImageRequest, **changes: object) -> bytes:
    """The picture at a quarter of its width and height, where the size is not the point."""
    return draw(replace(request, **changes), scale=0.25)  # pyright: ignore[reportArgumentType]  # of its fields


def opened(png: bytes) -> PngImageFile:
    image = Image.open(io.BytesIO(png))
    assert isinstance(image, PngImageFile)
    image.load()
    return image


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


# What it says about itself


def test_it_says_that_it_is_no_model_before_pillow_loads() -> None:
    script = """
import sys
from arta_mcp.engines.sketch.gaps import name_gaps
from arta_mcp.engines.sketch.gaps import name_gaps
from arta_mcp.engines.sketch.info import describe
print(describe().notice, name_gaps("a dragon"), "PIL" in sys.modules, sep="|")
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    notice, gaps, has_pillow = run.stdout.strip().split("|")
    assert notice == describe().notice
    assert notice.startswith("a sketch by the embedded service, not by an AI model; ")
    assert (gaps, has_pillow) == ("the sketch cannot draw: dragon", "False")
    assert (describe().engine, describe().is_ai) == ("sketch", False)


def test_how_real_pictures_are_had_comes_with_the_warning_of_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for words in ("unofficial client", "another", "to stop", "having the right to use"):
        assert words in readme
        assert words in describe().notice


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red fox in snow", None),
        ("two wolves and three foxes at night, oil painting, masterpiece, 8k", None),
        ("a sailing boat at night", None),
        ("A DRAGON over a cathedral", "the sketch cannot draw: dragon, cathedral"),
        ("a dragon, a Dragon; an ox and a fox", "the sketch cannot draw: dragon"),
        (
            "zebra yak xerus walrus viper urchin toad",
            "the sketch cannot draw: zebra, yak, xerus, walrus, viper and 2 more",
        ),
        ("ein Märchenschloss", "the sketch cannot draw: ein, märchenschloss"),
        ("雪の中の赤い狐", "this sketch reads English words only"),
        ("лиса в снегу", "this sketch reads English words only"),
        ("🦊 42", "this sketch reads English words only"),
        ("", "this sketch reads English words only"),
        ('a `rm -rf`; \u202e\x1b[31m "fox"', None),
        ("q" * 4000, "the sketch cannot draw: " + "q" * 30),
    ],
)
def test_it_names_what_a_prompt_asks_for_and_it_cannot_draw(
    prompt: str, expected: str | None
) -> None:
    assert name_gaps(prompt) == expected


def test_the_texts_in_the_file_say_what_was_asked_and_what_drew_it() -> None:
    found = opened(small(FOX, negative_prompt="blurry", seed=4294967295, index=7)).text
    assert found["prompt"] == found["Title"] == "a red fox in snow"
    assert found["negative_prompt"] == "blurry"
    assert found["seed"] == "4294967295"
    assert found["style"] == "Flux"
    assert found["index"] == "7"
    assert found["Software"] == "arta-mcp sketch"
    assert "not made by an AI model" in found["Comment"]


def test_the_caption_reads_on_any_picture() -> None:
    assert "not made by an AI model" in CAPTION
    for category in CATEGORIES:
        image = opened(draw(replace(FOX, category=category), scale=0.5)).convert("L")
        unit = min(image.size)
        left, bottom = unit // 70 + 2, image.height - unit // 70 - 2
        darkest, brightest = image.crop((left, bottom - 12, left + unit // 3, bottom)).getextrema()
        assert isinstance(darkest, (int, float))
        assert isinstance(brightest, (int, float))
        assert brightest - darkest > 120, category


# The same request, the same picture


def test_pictures_are_the_same_as_in_the_first_version(need: Callable[[bool, str], None]) -> None:
    pinned = f"\npillow=={PIL.__version__}\n" in CONSTRAINTS.read_text(encoding="utf-8").lower()
    need(pinned, "another Pillow is installed than the one in constraints.txt")
    changed: list[str] = []
    for style, category, prompt, ratio, checksum in GOLDEN:
        image = opened(draw(ImageRequest(prompt, "blurry", style, category, 42, 1, ratio)))
        # Pixels and texts, not the file: how well zlib packs them depends on the processor.
        found = hashlib.sha256(image.tobytes() + repr(sorted(image.text.items())).encode())
        changed += [style] if found.hexdigest()[:32] != checksum else []
    assert changed == []


def test_the_same_request_gives_the_same_bytes_and_another_seed_or_index_another_picture() -> None:
    for category in CATEGORIES:
        picture = small(FOX, category=category)
        assert picture == small(FOX, category=category), category
        assert distance(picture, small(FOX, category=category, seed=43)) > 4, category
        assert distance(picture, small(FOX, category=category, index=1)) > 4, category


def test_what_is_drawn_does_not_depend_on_the_process() -> None:
    # Hash seeds differ between processes; the checksums above are skipped with another Pillow.
    script = """
import sys, zlib
from arta_mcp.arta.protocol import RATIOS
from arta_mcp.engines.base import ImageRequest
from arta_mcp.engines.sketch.engine import draw
for style, category in (("Low Poly", "art"), ("Flux", "flux")):
    request = ImageRequest("a red fox in snow", "", style, category, 42, 0, "16:9")
    sys.stdout.write(f"{zlib.crc32(draw(request, scale=0.25))} ")
"""
    ours = [
        zlib.crc32(small(FOX, style=style, category=category))
        for style, category in (("Low Poly", "art"), ("Flux", "flux"))
    ]
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    theirs = [int(word) for word in run.stdout.split()]
    assert ours == theirs


def test_another_category_or_style_is_visibly_another_picture() -> None:
    styles = ("Vincent Van Gogh", "Watercolor", "Low Poly", "Japanese_2")
    pictures = [small(FOX, style=style, category="art") for style in styles]
    pictures += [small(FOX, category=category) for category in CATEGORIES if category != "art"]
    assert min(distance(one, other) for one, other in combinations(pictures, 2)) > 4


# What is in the picture


def test_a_picture_has_its_ratio_and_about_a_megapixel() -> None:
    expected = ["1:1", "2:3", "3:2", "3:4", "4:3", "9:16", "16:9", "9:21", "21:9"]
    assert expected == list(SIZES)
    for ratio in SIZES:
        image = opened(draw(replace(FOX, category="other", aspect_ratio=ratio)))
        across, down = map(int, ratio.split(":"))
        assert SIZES[ratio] == image.size
        assert pytest.approx(across / down, rel=0.005) == image.width / image.height
        assert pytest.approx(1024 * 1024, rel=0.02) == image.width * image.height
        assert (image.width % 8, image.height % 8) == (0, 0)
        assert image.mode == "RGB"


def test_a_red_fox_in_snow_is_red_in_a_bright_picture() -> None:
    png = small(FOX)
    assert share_of_red(png) > 0.03
    assert share_of_red(small(FOX, prompt="snow")) < 0.01
    assert ImageStat.Stat(opened(png).convert("L")).mean[0] > 140


def test_what_the_negative_prompt_names_is_left_out() -> None:
    assert share_of_red(small(FOX)) > 0.03
    assert share_of_red(small(FOX, negative_prompt="foxes")) < 0.01


def test_a_negative_prompt_about_other_things_leaves_every_pixel_alone() -> None:
    other = small(FOX, negative_prompt="blurry, deformed hands, ugly")
    assert distance(small(FOX), other) == 0


def test_a_colour_said_of_the_animal_is_its_coat() -> None:
    white = small(FOX, prompt="a white fox in snow")
    assert share_of_red(white) < 0.01
    assert distance(small(FOX), white) > 4


def test_a_colour_said_of_nothing_in_particular_tints_the_picture() -> None:
    plain = opened(small(FOX, prompt="sea at noon"))
    green = opened(small(FOX, prompt="sea at noon, green"))

    def greenness(image: Image.Image) -> float:
        red, green_, blue = ImageStat.Stat(image).mean
        return green_ - (red + blue) / 2

    assert greenness(green) > greenness(plain) + 5


def test_every_subject_is_drawn_in_every_place() -> None:
    animals = ("fox", "wolf", "cat", "dog", "rabbit", "bear", "bird")
    for thing in (*animals, "portrait", "boat", "house"):
        for place in ("snow", "night sea"):
            asked = replace(FOX, prompt=f"{thing} {place}", category="gpt")
            assert distance(small(asked), small(asked, negative_prompt=thing)) > 0.5, asked.prompt


# Whatever is asked


@pytest.mark.parametrize("prompt", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_prompt_keeps_a_picture_from_being_drawn(prompt: str) -> None:
    for category in ("gpt", "logo", "nano"):  # the last two write words
        request = ImageRequest(prompt, prompt[:20], prompt[:50], category, 0, 0, "9:21")
        assert opened(small(request)).size == (168, 392)
    assert opened(small(FOX, negative_prompt=prompt)).size == (342, 192)


def test_every_category_draws_even_nothing() -> None:
    for category in (*CATEGORIES, "of which nobody has heard"):
        nothing = ImageRequest("", "", "", category, 0, 0, "9:21")
        assert opened(small(nothing)).size == (168, 392)


def test_texts_in_any_script_come_back_as_they_went_in() -> None:
    prompt = "лиса в снегу, 雪の中の狐, ثعلب أحمر, \N{FOX FACE}\nnaïve café"
    assert prompt == opened(small(FOX, prompt=prompt)).text["prompt"]
    assert opened(small(FOX, prompt="a\0b")).text["prompt"] == "a\u2400b"


@settings(max_examples=30, deadline=None)
@given(
    prompt=st.text(st.characters(), max_size=80),
    category=st.sampled_from(["gpt", "logo", "nano"]),
    seed=st.integers(0, 2**32 - 1),
    ratio=st.sampled_from(sorted(SIZES)),
)
def test_any_text_draws_and_is_found_again_in_the_file(
    prompt: str, category: str, seed: int, ratio: str
) -> None:
    request = ImageRequest(prompt, "", "Flux", category, seed, 0, ratio)
    seen = prompt.replace("\0", "\u2400").encode("utf-8", "replace").decode("utf-8")
    assert seen == opened(small(request)).text["prompt"]


def test_every_ratio_of_the_protocol_has_a_size() -> None:
    assert tuple(SIZES) == RATIOS
