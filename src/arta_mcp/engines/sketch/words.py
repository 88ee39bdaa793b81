"""What the words of a prompt ask for: things, colours and a mood. No I/O happens here."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from arta_mcp.engines.sketch.colours import Rgb, mix, rgb

_LEXICON = """
snow: snow snowy winter ice icy frost frozen blizzard arctic christmas polar
night: night midnight nocturnal dark nebula galaxy space
stars: star starry cosmos constellation galaxy space nebula
moon: moon moonlight moonlit lunar
sun: sun sunny sunlight
dusk: sunset sunrise dusk dawn twilight evening golden
rain: rain rainy storm stormy thunderstorm drizzle
cloud: cloud cloudy overcast sky
fog: fog foggy mist misty haze hazy
sea: sea ocean beach coast lake river water island wave harbour harbor ship boat yacht sailboat
boat: boat ship sailboat yacht sail sailing
mountain: mountain peak alps hill summit cliff volcano valley
forest: forest wood tree pine jungle woodland
desert: desert dune sand sahara savanna cactus
city: city town skyline street skyscraper tokyo cyberpunk urban building york
field: field meadow grass garden prairie farm
flower: flower rose tulip blossom daisy poppy lotus bouquet garden
house: house cabin cottage hut castle home barn village
fox: fox
wolf: wolf husky
cat: cat kitten kitty tiger lion panther
dog: dog puppy corgi retriever hound
rabbit: rabbit bunny hare
bear: bear panda
bird: bird raven crow owl eagle sparrow robin parrot hummingbird phoenix
portrait: portrait woman man girl boy face person lady queen king princess knight wizard human
"""
_THINGS = {
    word: tuple(thing for thing, words in _rows if word in words.split())
    for _rows in [[line.split(":") for line in _LEXICON.strip().splitlines()]]
    for _, words in _rows
    for word in words.split()
}

SUBJECTS = (
    "fox",
    "wolf",
    "cat",
    "dog",
    "rabbit",
    "bear",
    "bird",
    "portrait",
    "boat",
    "house",
    "flower",
)
"""what stands in front, the most telling first"""

_COLOURS = {
    "red": "c93a28",
    "crimson": "a8182f",
    "orange": "e8761f",
    "golden": "e8b23a",
    "gold": "e0a92e",
    "yellow": "f0cb3c",
    "green": "3f9150",
    "emerald": "1f8f62",
    "teal": "1f8a8c",
    "turquoise": "35b5b0",
    "blue": "2f62b5",
    "azure": "3b8fd9",
    "navy": "1c2c5e",
    "indigo": "3b3590",
    "purple": "7040a0",
    "violet": "7a4fc0",
    "pink": "ec8fb0",
    "magenta": "c23a8e",
    "brown": "7a4c2c",
    "black": "2b2a33",
    "white": "f3f1ec",
    "grey": "858b94",
    "gray": "858b94",
    "silver": "b4bcc6",
    "ginger": "d97b32",
    "neon": "e23ad0",
}
_COATS = {"red": "d9501c", "golden": "d9a441", "white": "ece9e4", "brown": "7d5030"}
"""the colours that mean another hue when they are said of fur"""

_MOODS = {
    "snow": "477fbd fadcc4 ffe8bd a3b9d2 2b4866 f3f7fb",
    "snow dusk": "41508f f4b596 ffe4b8 9a94b8 2c345e e6e4f0",
    "snow night": "081130 3c6796 e6f0ff 3a5884 0d1a33 a9bedb",
    "night": "070b26 34488c f6f1d6 2a3a70 080d20 18244a",
    "dusk": "2d2358 f58d58 ffdc9e 94598a 281a3a 4a2d4a",
    "rain": "3e4c5c 9fb2ba e4ecee 71848e 1e282f 3d4d50",
    "fog": "9fb0b4 e6e8e0 ffffff a8b6b8 3e4f54 7a8a7c",
    "desert": "4f9cc4 fbdcae fff4d4 d99f78 8a442a e3a565",
    "forest": "5f988c e4eecb fffce0 82aa97 12302a 3a6238",
    "sea": "2c7cb6 d8f1ec fff7de 84b2c6 1b4860 2f8a9c",
    "city": "2a2f66 f39a7a ffdfae 7a6a9c 191a38 2a2a48",
    "noon": "3a8bd8 d2ebf6 fffbe6 8cb4cc 28594c 6da850",
    "dawn": "6589c4 fcd3b4 fff1d6 a7a4c6 45466c 7a8c66",
    "rose": "5c4a90 f9b9c2 ffe9dc b48cb6 44305e 74557a",
    "copper": "1f5f6b f3c98a fff0c8 8aa08c 4a2c22 9a6c3c",
}


_FAITHFUL = ("dusk", "rain", "desert")
"""what would not be known in other colours"""


@dataclass(frozen=True)
class Mood:
    """The six colours of a picture."""

    top: Rgb
    low: Rgb
    light: Rgb
    far: Rgb
    near: Rgb
    ground: Rgb


@dataclass(frozen=True)
class Scene:
    """What a prompt asks for; `rng` settles the rest."""

    things: frozenset[str]
    mood: Mood
    refused: frozenset[str]
    """what the negative prompt names"""
    coat: Rgb | None
    """the colour said right before the subject: a *red* fox"""
    key: str

    @property
    def dark(self) -> bool:
        """Whether it is night in the picture."""
        return self.has("night", "moon", "stars")

    @property
    def subject(self) -> str | None:
        """What stands in front, if anything does."""
        return next((thing for thing in SUBJECTS if thing in self.things), None)

    def rng(self, element: str) -> random.Random:
        """The random numbers of one element, the same for each picture with this key."""
        # One generator for all would let a cloud that is left out move every tree behind it.
        return random.Random(f"{self.key}/{element}")

    def has(self, *things: str) -> bool:
        """Whether any of these is in the scene."""
        return not self.things.isdisjoint(things)


def read_scene(prompt: str, negative_prompt: str, key: str) -> Scene:
    """Find the things and colours in a prompt; what the negative prompt names is left out."""
    words = re.findall(r"[a-z]+", prompt.lower())
    refused = set(_things(re.findall(r"[a-z]+", negative_prompt.lower())))
    things = set(_things(words)) - refused
    coat, tints = None, list[Rgb]()
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word not in _COLOURS:
            continue
        # A *red* fox is about the fox, "red" before anything else about the whole picture.
        if not set(_things([following])).isdisjoint(SUBJECTS):
            coat = rgb(_COATS.get(word, _COLOURS[word]))
        else:
            tints.append(rgb(_COLOURS[word]))
    digest = hashlib.sha256(f"{prompt}\0{key}".encode()).hexdigest()
    rng = random.Random(f"{digest}/mood")
    # A subject or a sky alone would stand in nothing: the seed picks where.
    if not things - {"cloud", "fog", "sun", "moon", "stars", "dusk", "night"} - set(SUBJECTS):
        scenes = {"mountain", "forest", "sea", "field", "desert", "city"} - refused
        things.update(rng.sample(sorted(scenes), k=min(1 + (rng.random() < 0.4), len(scenes))))
    mood = _mood(things, tints, rng)
    return Scene(frozenset(things), mood, frozenset(refused), coat, digest)


def is_known(word: str) -> bool:
    """Whether a word, in lower case, changes what is drawn: a thing or a colour."""
    return word in _COLOURS or any(_things([word]))


def _things(words: Iterable[str]) -> Iterable[str]:
    for word in words:
        # Enough of English plurals: dogs, foxes, wolves.
        stems = (word, word.removesuffix("s"), word.removesuffix("es"), word[:-3] + "f")
        yield from next((_THINGS[stem] for stem in stems if stem in _THINGS), ())


def _mood(things: set[str], tints: list[Rgb], rng: random.Random) -> Mood:
    dark = bool(things & {"night", "moon", "stars"})
    match things:
        case _ if "snow" in things and dark:
            name = "snow night"
        case _ if dark:
            name = "night"
        case _ if "snow" in things:
            name = "snow dusk" if "dusk" in things or rng.random() < 0.3 else "snow"
        case _:
            moods = ("dusk", "rain", "fog", "desert", "city", "sea", "forest")
            listed = [mood for mood in moods if mood in things]
            free = rng.choice(("noon", "dawn", "rose", "copper", "dusk"))
            faithful = bool(listed) and (listed[0] in _FAITHFUL or rng.random() < 0.7)
            name = listed[0] if faithful else free
    colours = [rgb(code) for code in _MOODS[name].split()]
    # Three colours at most: more would always end in grey.
    for tint in tints[:3]:
        shares = zip(colours, (0.5, 0.3, 0.1, 0.4, 0.3, 0.35), strict=True)
        colours = [mix(colour, tint, share) for colour, share in shares]
    own = {"desert": "e3a565", "snow": "f0f4f8", "field": "6da850", "forest": "4a7040"}
    ground = next((rgb(code) for thing, code in own.items() if thing in things), colours[5])
    colours[5] = mix(colours[5], ground, 0.0 if dark else 0.6)
    # A breath of some other hue keeps two pictures of one mood apart.
    stray = rgb(rng.choice(("ff9a6b", "6bb8ff", "b98cff", "7be0c0", "ffd76b")))
    return Mood(*(mix(colour, stray, rng.uniform(0, 0.13)) for colour in colours))
