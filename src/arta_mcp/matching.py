"""Did you mean: what a misspelt word may have meant, by the letters it shares with each choice.

For models, ratios, settings, words of the command line and hosts alike. No I/O happens here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from itertools import islice

MAX_WORD = 64
"""characters of a text that are compared; no name has more than half as many"""

MIN_LIKENESS = 0.65
"""least likeness (0 to 1) of a suggestion: `4:5` resembles `4:3`, `zzzz` resembles no style"""

MIN_WORD_LIKENESS = 0.8
"""least likeness of two words within longer names: `goh` is `gogh`, `x` is not `xl`"""


def suggest(word: str, choices: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """The choices that `word` may have meant, best first; nothing when it resembles none."""
    likely = (choice for likeness, choice in rank(word, choices) if likeness >= MIN_LIKENESS)
    return tuple(islice(likely, limit))


def normalize(text: str) -> str:
    """The spelling in which case and separators no longer differ."""
    return "-".join(re.findall(r"[^\s_.\-]+", text.casefold()))


def rank(word: str, choices: Iterable[str]) -> list[tuple[float, str]]:
    """All choices with their likeness to `word` (0 to 1), the nearest first, ties by alphabet.

    The likeness is that of the whole texts, or the share of the letters of one that stand in a
    word like one of the other, whichever is more: `van goh` is like `vincent-van-gogh`. What is
    alike in several of these ways is nearer: `fluxx` is nearer to `flux` than to `flux-dev`.
    """
    asked = normalize(word[:MAX_WORD]).split("-")
    offered = {choice: normalize(choice[:MAX_WORD]).split("-") for choice in set(choices)}
    # Each pair of words is compared once, in however many choices they stand: comparing letters
    # is what costs, and a caller may ask with 40 words for one of a thousand names.
    vocabulary = {other for words in offered.values() for other in words}
    n = max(1, len(vocabulary))
    close = {w: set(get_close_matches(w, vocabulary, n, MIN_WORD_LIKENESS)) for w in asked}
    known = set[str]().union(*close.values())
    scored: list[tuple[float, str, float]] = []
    matcher = SequenceMatcher(a="".join(asked), autojunk=False)
    for choice, words in offered.items():
        matcher.set_seq2("".join(words))
        ways = (
            matcher.ratio() if any(words) else 0.0,
            _share([one for one in asked if not close[one].isdisjoint(words)], asked),
            _share([other for other in words if other in known], words),
        )
        scored.append((-sum(ways), choice, max(ways)))
    return [(likeness, choice) for _, choice, likeness in sorted(scored)]


def _share(some: list[str], words: list[str]) -> float:
    """The share of the letters of all `words` that stand in `some` of them."""
    return len("".join(some)) / max(1, len("".join(words)))
