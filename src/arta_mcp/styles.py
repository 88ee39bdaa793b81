"""The catalogue of styles: which exist, what people call them, and which are gone since when.

No I/O happens here: a newer list that was fetched elsewhere becomes a `Catalogue` by its names.
A *style* is the service's exact name (`F Dev`); its *id* is the public name of the model (`f-dev`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from arta_mcp.errors import UnknownStyle
from arta_mcp.matching import MAX_WORD, MAX_WORDS, normalize, rank, suggest
from arta_mcp.redaction import redact_known, sanitize

AS_OF = "2026-05-30"
"""the day on which the service itself listed the shipped styles"""

DEFAULT = "flux"
"""the one id in every list ever seen that suits any prompt"""

MAX_STYLES = 1000
"""styles of one list; the service has had 110 to 150. A longer list is no list of styles"""

MAX_STYLE = 64
"""characters of a style's name; the longest known one has 33"""

CATEGORIES = {
    "flux": "for any prompt; turbo and klein are the fast ones",
    "gpt": "for any prompt, and for text in a picture",
    "nano": "banana for any prompt, the others for dolls, cards and posters",
    "photo": "as if taken with a camera",
    "art": "a manner of painting, drawing or animation",
    "logo": "emblems, marks, icons",
    "tattoo": "designs for tattoos",
    "other": "what fits nowhere else",
}
"""category -> what it is for, in the order in which a catalogue lists them"""


def _names(listed: str) -> tuple[str, ...]:
    """The names in a comma-separated list; no style has a comma."""
    return tuple(" ".join(name.split()) for name in listed.split(","))


# Source of the names and dates: Jakey commit 0f14d03 (fetched from the service on AS_OF), the lists
# of tgpt and Jakey by their dates. Each is compared with tests/wire/styles_by_day.tsv by a test.
_CURRENT = _names("""
    3D Logo, 3D Logo 2, 3d Render Style, Abstract Logo, Abstract Logo 2, Anime tattoo, Arcane Style,
    Biomech, Black Ink, Chicano, Christmas Doll Nano Style, Christmas Postcard Nano Style,
    Christmas Poster Nano Style, Cinematic Filmstill Style, Clay Style, Coloring Book Style,
    Combination Logo, Combination Logo 2, Crochet Amigurumi Style, Cute Cartoon Style, Death metal,
    Devil Maycry Style, Doll Nano Style, Dotwork, Elegant Logo, Elegant Logo 2, Emblem Logo,
    Emblem Logo 2, Embroidery tattoo, Emoji Style, Epic Logo, Epic Logo 2, F Dev, F Pro,
    F2 Analog Style, F2 Klein 4B, F2 Klein 9B, F2 Logos Style, F2 Pro, F2 Turbo, Film Grain Style,
    Flame design, Flux, Futuristic Logo, Futuristic Logo 2, Geometric Logo, Geometric Logo 2,
    Ghost Mannequin Style, GPT4o, GPT4o Ghibli, Gradient Logo, Gradient Logo 2, Graffiti,
    Grunge Logo, Grunge Logo 2, Hand-drawn Logo, Hand-drawn Logo 2, High GPT4o, Hunyuan Style,
    Icons Style, Isometric Flux Style, Japanese_2, Kawaii, Low Poly, Mascots Logo, Mascots Logo 2,
    Medieval, Memes Style, Mikkoph Style, Mini tattoo, Minimalistic Logo, Minimalistic Logo 2,
    Monogram Logo, Monogram Logo 2, Nano Banana 2 Style, Nano Banana Pro Style, Nano Banana Style,
    Neo-traditional, New School, Old School, Old school colored, On limbs black, On limbs color,
    our_hunyuan_t2i, our_hunyuan_t2i_1, our_hunyuan_t2i_2, our_hunyuan_t2i_3, Phone Case Style,
    Polaroid Style, Postcard Nano Style, Poster Nano Style, Professional,
    qa_t2i_test_gpt_image_2_v3, qa_t2i_test_gpt_image_2_v5, qa_t2i_test_gpt_image_2_v6,
    qa_t2i_test_gpt_image_2_v7, Random Text, Realistic tattoo, Red and Black, RevAnimated,
    Seedream Test, Snapchat Style, Stickers Style, Studio Ghibli Style, Surrealism,
    test_qa_t2i_our_flux2_klein_4b_1, test_qa_t2i_our_flux2_klein_9b_1, Trash Polka,
    Vincent Van Gogh, Watercolor
""")

_GONE = {
    "2026-01-27": """
        Anima-pencil-xl, Anything-xl, Cheyenne-xl, Cinematic Art, Cor-epica-xl, Dreamshaper-xl,
        F Anime, F Anime Journey, F Dalle Mix, F Dreamscape, F Epic Realism, F Face Realism,
        F Jojoso, F Koda, F Midjorney, F Miniature, F Pencil, F Pixel, F Real Anime, F Realism,
        F Retro Anime, F Retrocomic, F Softserve, F Super Realism, F Whimscape, Fantasy Art,
        Juggernaut-xl, Katayama-mix-xl, No Style, Photographic, Playground-xl, Pony-xl,
        QA_text2image_flux2_turbo, Realistic-stock-xl, SDXL 1.0, SDXL L, Yamers-realistic-xl""",
    "2025-11-28": "Epicrealism-xl",
    None: "Anime, Cyberpunk, Flux Black Ink, Realistic, tattoo",
}

RETIRED = {name: seen for seen, listed in _GONE.items() for name in _names(listed)}
"""style that the service refuses on AS_OF -> day it was last listed; None: it never was valid"""

_ALIASES = {"flux-dev": "F Dev", "flux-pro": "F Pro", "gpt-image": "GPT4o"}
"""names people use beyond the id; `gpt-image` is one model, others draw it at random among three"""

_LEAKED = re.compile(r"(?i)^(qa|our|test)_|\btest\b")
"""a test name of the service's own staff: it works today, but is suggested to no one"""

_GENERAL = "Flux, F Dev, F Pro, F2 Pro, GPT4o, High GPT4o, Nano Banana Style, Nano Banana Pro Style"
_CAMERA = """Professional, Cinematic Filmstill Style, Film Grain Style, F2 Analog Style,
    Polaroid Style, Snapchat Style"""
_ANIMATED = """Studio Ghibli Style, GPT4o Ghibli, RevAnimated, Kawaii, Arcane Style,
    Devil Maycry Style, Anime tattoo"""
_INKED = "Coloring Book Style, Black Ink, Dotwork, Minimalistic Logo, Hand-drawn Logo, Mini tattoo"
_TAGS = {
    tag: frozenset(_names(listed))
    for tags, listed in {
        # Words that people use for what they want, where no name has them. A general model
        # serves where no style is made for it: it follows the prompt, which says the manner.
        "photorealistic, photo-realistic, photorealism, realistic, realism, photograph": (
            f"{_CAMERA}, F Pro, F2 Pro, Flux, Nano Banana Pro Style, Hunyuan Style"
        ),
        "portrait, portraits, headshot, selfie": f"{_CAMERA}, F Pro, F2 Pro, Nano Banana Pro Style",
        "pixel-art, pixel, pixelart, 8-bit": _GENERAL,
        "oil-painting, oil, painting, painterly": f"Vincent Van Gogh, Surrealism, {_GENERAL}",
        "line-art, lineart, line-drawing, outline": _INKED,
        "comic, comics, cartoon": (
            f"Cute Cartoon Style, Arcane Style, Devil Maycry Style, Kawaii, New School, {_GENERAL}"
        ),
        "anime, manga": _ANIMATED,
        "fast, fastest, quick": "F2 Turbo, F2 Klein 4B, F2 Klein 9B",
        "text, lettering, typography": "GPT4o, High GPT4o, Nano Banana Pro Style, F2 Pro",
        "3d, render": "3d Render Style, Clay Style, Low Poly, Isometric Flux Style",
    }.items()
    for tag in _names(tags)
}
"""a word of people's (or several, joined by -) -> the wire names of the styles that serve it"""

_BY_HAND = {
    name: category
    for category, listed in {
        "photo": "Cinematic Art, Epicrealism-xl, Juggernaut-xl, Professional, Snapchat Style",
        "art": """Cyberpunk, Graffiti, Kawaii, Low Poly, Medieval, RevAnimated, Surrealism,
            Vincent Van Gogh, Watercolor""",
        "tattoo": """Biomech, Chicano, Death metal, Dotwork, Flame design, Flux Black Ink,
            Japanese_2, Neo-traditional, New School, Old School, Old school colored,
            On limbs black, On limbs color, Red and Black, Trash Polka""",
        "other": "Ghost Mannequin Style, Hunyuan Style, No Style, Phone Case Style, Playground-xl",
    }.items()
    for name in _names(listed)
}
"""categories that the words of a name do not show"""

_BY_WORD = (
    ("other", _LEAKED),
    ("logo", re.compile(r"(?i)\b(logo|icon)s?\b")),
    ("tattoo", re.compile(r"(?i)tattoo|\bink\b")),
    ("nano", re.compile(r"(?i)\bnano\b")),
    ("gpt", re.compile(r"(?i)gpt")),
    ("flux", re.compile(r"(?i)\bflux|^f\d? ")),
    ("photo", re.compile(r"(?i)photo|\brealis|cinema|\bfilm|polaroid|portrait")),
    ("art", re.compile(r"(?i)\b(style|art)\b|\banim[ae]|paint|sketch|-xl$")),
)
"""what a word says about a style, the first that applies"""


@dataclass(frozen=True)
class Style:
    """One style: `id` for people, `name` for the wire."""

    id: str
    name: str
    category: str

    @property
    def is_leaked(self) -> bool:
        """Whether it is a test name: shown to who searches for it exactly, suggested to nobody."""
        return _LEAKED.search(self.name) is not None


@dataclass(frozen=True)
class Catalogue:
    """The styles known at one time, by category and then by name.

    `as_of` is the ISO date (or time) of the list; `source` says whether the service gave it.
    `hidden` are names that are taken when somebody gives them, and listed to nobody.
    """

    styles: tuple[Style, ...]
    as_of: str
    source: Literal["live", "shipped"]
    hidden: frozenset[str] = frozenset()

    @classmethod
    def from_names(
        cls,
        names: Iterable[str],
        as_of: str,
        source: Literal["live", "shipped"] = "live",
        *,
        hidden: Iterable[str] = (),
    ) -> Catalogue:
        """The catalogue of a list of wire names in any order; unknown ones get an id and category.

        What can be no name is left out. Without any name left, or with over MAX_STYLES, the answer
        is `SHIPPED`, whose `source` says so.
        """
        listed = set(names)
        if len(listed) > MAX_STYLES:
            return SHIPPED
        shown = filter(is_style_name, listed)
        taken: dict[str, Style] = {}
        # Each slug counts on from where it stood: a thousand names may have the same one.
        numbers: dict[str, int] = {}
        # Sorted, so that the ids are the same in whatever order a service lists its names; first
        # those that are their own slug and so keep it: exact names and ids agree.
        for name in sorted(shown, key=lambda name: (_slug(name) != name, name.casefold(), name)):
            own = slug = _slug(name)
            while own in taken:
                numbers[slug] = numbers.get(slug, 1) + 1
                own = f"{slug}-{numbers[slug]}"
            taken[own] = Style(own, name, category_of(name))
        places = {category: place for place, category in enumerate(CATEGORIES)}
        styles = sorted(
            taken.values(),
            key=lambda s: (places[s.category], s.is_leaked, s.name.casefold(), s.name),
        )
        return cls(tuple(styles), as_of, source, frozenset(hidden)) if styles else SHIPPED

    @property
    def default(self) -> Style:
        """The style for a request that names none; the first one if the service drops `Flux`."""
        return self._by_key.get(DEFAULT) or self.styles[0]

    def resolve(self, model: str) -> Style:
        """The style of a wire name, an id or an alias; raises `UnknownStyle`.

        An exact wire name goes first. Otherwise case does not matter, `-`, `_`, `.` and blanks are
        alike, and a closing `style` may be left out (`nano-banana`).
        """
        if style := self.find(model):
            return style
        raise self._explain_unknown(model)

    def find(self, model: str) -> Style | None:
        """What `resolve` gives; None for an unknown model, and no search for near ones."""
        return self._exact.get(model) or self._by_key.get(normalize(model))

    def search(self, text: str | None) -> tuple[Style, ...]:
        """The styles that all words of `text` occur in, best first; None or blank finds all.

        Words are searched in name, id, aliases and category, as beginnings and as parts too, and
        in what people call such pictures (`portrait`, `pixel art`). A misspelt word counts as the
        nearest one that the catalogue knows. A leaked test name is found by nothing but itself.
        """
        key = normalize((text or "")[:MAX_WORD])
        if not key:
            return tuple(style for style in self.styles if not self._is_hidden(style))
        words = key.split("-")[:MAX_WORDS]
        if found := self._find_all(words):
            return found
        known = {*CATEGORIES, *_TAGS, *(word for words in self._words.values() for word in words)}
        # A word that is known keeps its spelling: only what nothing answers to may be misspelt.
        nearest = [word if word in known else [*suggest(word, known), word][0] for word in words]
        return self._find_all(nearest)

    def _is_hidden(self, style: Style) -> bool:
        return style.is_leaked or style.name in self.hidden

    def _find_all(self, words: list[str]) -> tuple[Style, ...]:
        """The styles that all `words` occur in: the exact name first, what a tag finds last."""
        key = "-".join(words)
        exact = self._by_key.get(key)
        tags = [tag for tag in _TAGS if f"-{tag}-" in f"-{key}-"]
        hits: list[tuple[bool, int, Style]] = []
        for style in self.styles:
            if self._is_hidden(style) and style != exact:
                continue
            mine = [tag for tag in tags if style.name in _TAGS[tag]]
            tagged = {word for tag in mine for word in (tag, *tag.split("-"))}
            ranks = [_match_word(word, self._words[style], style.category) for word in words]
            found = [
                4 if rank is None else rank
                for word, rank in zip(words, ranks, strict=True)
                if rank is not None or word in tagged
            ]
            if len(found) == len(words):
                hits.append((style != exact, sum(found), style))
        return tuple(style for *_, style in sorted(hits, key=lambda hit: hit[:2]))

    def _explain_unknown(self, model: str) -> UnknownStyle:
        """Gone since when, never there, or only misspelt; each with what to ask for instead."""
        if gone := self._retired.get(normalize(model)):
            name, seen = gone
            shown = sanitize(repr(model), 80)
            if seen is None:
                why = "was never valid: other programs list it, the service does not"
            else:
                why = f"is gone: last listed on {seen}, missing on {self.as_of}"
            return UnknownStyle(model, self._nearest_living(name), message=f"model {shown} {why}")
        spelled = {key: style.id for key, style in self._by_key.items() if not style.is_leaked}
        # Without a limit: several spellings of one style are one suggestion.
        found = suggest(model, spelled, limit=len(spelled))
        ids = tuple(dict.fromkeys(spelled[key] for key in found))[:3]
        # `sdxl` and `midjourney` resemble no name, but one that is gone.
        if not ids and (near := suggest(model, RETIRED, limit=1)):
            ids = self._nearest_living(near[0])
        return UnknownStyle(model, ids)

    def _nearest_living(self, name: str) -> tuple[str, ...]:
        """The likeliest ids instead of a gone style; a general one has the default for its heir."""
        category = category_of(name)
        # What is like `SDXL 1.0` by its letters (`3d-logo`) is no heir to a general model.
        kin = [style.id for style in self.styles if style.category == category != "other"]
        return tuple(own for _, own in rank(name, kin)[:3]) or (self.default.id,)

    @cached_property
    def _exact(self) -> dict[str, Style]:
        """By wire name and by id; where one style's id is another's name, the name wins."""
        return {style.id: style for style in self.styles} | {s.name: s for s in self.styles}

    @cached_property
    def _by_key(self) -> dict[str, Style]:
        """Every forgiving spelling; where two styles claim one, the earlier kind of name wins."""
        spellings = [(style.name, style) for style in self.styles]
        spellings += [(style.id, style) for style in self.styles]
        spellings += [(a, self._exact[name]) for a, name in _ALIASES.items() if name in self._exact]
        spellings += [
            (short, style)
            for style in self.styles
            # `anime` is gone: it must say so, and not draw the `Anime Style` of a later list.
            if (short := normalize(style.name).removesuffix("-style")) not in self._retired
        ]
        # Reversed: the last one to claim a key keeps it, and exact names come first above.
        return {key: style for name, style in reversed(spellings) if (key := normalize(name))}

    @cached_property
    def _retired(self) -> dict[str, tuple[str, str | None]]:
        """Forgiving spelling -> wire name and last date of the styles that this catalogue lacks."""
        seen = {**RETIRED, **dict.fromkeys(_CURRENT, AS_OF)}
        names = [*_ALIASES.items(), *((name, name) for name in seen)]
        return {normalize(a): (name, seen[name]) for a, name in names if name not in self._exact}

    @cached_property
    def _words(self) -> dict[Style, frozenset[str]]:
        """The words that each style can be found by."""
        spelled = {style: f"{style.name} {style.id}" for style in self.styles}
        for alias, name in _ALIASES.items():
            if style := self._exact.get(name):
                spelled[style] += f" {alias}"
        return {style: frozenset(normalize(text).split("-")) for style, text in spelled.items()}


def is_style_name(name: str) -> bool:
    """Whether a text from outside can be a style's name: short, printable, no secret of ours."""
    if len(name) > MAX_STYLE or not name.isprintable() or not name.strip():
        return False
    return redact_known(name) == name


def category_of(name: str) -> str:
    """The category of a wire name, also of one never heard of: one of `CATEGORIES`."""
    if name in _BY_HAND:
        return _BY_HAND[name]
    return next((category for category, word in _BY_WORD if word.search(name)), "other")


def _slug(name: str) -> str:
    """The id that a wire name gets by rule: `SDXL 1.0` -> `sdxl-1.0`."""
    return re.sub(r"[\s_\-]+", "-", name.lower()).strip("-") or "style"


def _match_word(word: str, words: frozenset[str], category: str) -> int | None:
    """How well a style answers to one word, 0 the best; None when it does not."""
    if word in words:
        return 0
    if any(other.startswith(word) for other in words):
        return 1
    if len(word) > 1 and any(word in other for other in words):
        return 2
    # A single letter stands in nearly every name and category: only as a beginning it says enough.
    return 3 if len(word) > 1 and category.startswith(word) else None


SHIPPED = Catalogue.from_names(_CURRENT, AS_OF, "shipped")
"""what this version knows without asking the service"""
