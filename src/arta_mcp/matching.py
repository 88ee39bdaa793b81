"""Did you mean: what a misspelt word may have meant, by the letters it shares with each choice.

For models, ratios, settings, words of the command line and hosts alike. No I/O happens here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

MAX_WORD = 64
"""characters of a text that are compared; no name has more than half as many"""

MAX_WORDS = 8
"""words of a text that are compared one by one"""

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
    asked = normalize(word[:MAX_WORD]).split("-")[:MAX_WORDS]
    offered = {choice: normalize(choice[:MAX_WORD]).split("-") for choice in set(choices)}
    # Each pair of words is compared once, in however many choices they stand.
    vocabulary = {other for words in offered.values() for other in words}
    close = {one: _find_close(one, vocabulary) for one in asked}
    known = set[str]().union(*close.values())
    whole = _Letters("".join(asked))
    scored: list[tuple[float, str, float]] = []
    for choice, words in offered.items():
        ways = (
            whole.likeness("".join(words)),
            _share([one for one in asked if not close[one].isdisjoint(words)], asked),
            _share([other for other in words if other in known], words),
        )
        scored.append((-sum(ways), choice, max(ways)))
    return [(likeness, choice) for _, choice, likeness in sorted(scored)]


class _Letters:
    """A text that others are compared to, by their longest common subsequence.

    Not difflib: on texts of few different letters, as somebody may list a thousand of, it takes
    some milliseconds a pair. This takes one step a letter, whatever they are: a row of the table
    of common subsequences is one number (Hyyrö, "Bit-parallel LCS-length computation revisited").
    """

    def __init__(self, text: str) -> None:
        self._length = len(text)
        self._places: dict[str, int] = {}
        """letter -> where it stands, a bit each"""
        for place, letter in enumerate(text):
            self._places[letter] = self._places.get(letter, 0) | 1 << place

    def likeness(self, other: str) -> float:
        """The share of letters (0 to 1) that both texts have in one order; 0 for an empty one."""
        if not self._length or not other:
            return 0.0
        row = every = (1 << self._length) - 1
        for letter in other:
            matched = row & self._places.get(letter, 0)
            row = ((row + matched) | (row - matched)) & every
        common = self._length - row.bit_count()
        return 2 * common / (self._length + len(other))


def _find_close(word: str, vocabulary: set[str]) -> set[str]:
    """The words of a vocabulary that are nearly `word`."""
    letters, length = _Letters(word), len(word)
    return {
        other
        for other in vocabulary
        # The first part is cheap, and true of few: it bounds what the letters can have in common.
        if 2 * min(length, len(other)) >= MIN_WORD_LIKENESS * (length + len(other))
        and letters.likeness(other) >= MIN_WORD_LIKENESS
    }


def _share(some: list[str], words: list[str]) -> float:
    """The share of the letters of all `words` that stand in `some` of them."""
    return len("".join(some)) / max(1, len("".join(words)))
