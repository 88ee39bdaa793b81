"""Near names: what a misspelt word may have meant, by the likeness of letters.

For models, ratios, settings, words of the command line and hosts alike. No I/O happens here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

MAX_WORD = 80
"""characters of a misspelt word that are compared; no name is as long"""

_ALIKE = 0.65
"""least likeness (0 to 1) of a near name: `4:5` resembles `4:3`, `dall-e-3` resembles no style"""

_ALIKE_WORD = 0.6
"""least likeness of two single words within longer names"""


def suggest(word: str, choices: Iterable[str], limit: int = 3) -> tuple[str, ...]:
    """The choices that `word` may have meant, best first; nothing when it resembles none.

    Whole texts and single words are compared, so that `van goh` finds `vincent-van-gogh`.
    """
    likely = (choice for likeness, choice in rank(word, choices) if likeness >= _ALIKE)
    return tuple(islice(likely, limit))


def normalize(text: str) -> str:
    """The spelling in which case and separators no longer differ."""
    return "-".join(re.findall(r"[^\s_.\-]+", text.casefold()))


def rank(word: str, choices: Iterable[str]) -> list[tuple[float, str]]:
    """All choices with their likeness to `word` (0 to 1), the likest first, ties by alphabet."""
    asked = normalize(word[:MAX_WORD]).split("-")
    scored = ((_likeness(asked, normalize(choice).split("-")), choice) for choice in set(choices))
    return sorted(scored, key=lambda pair: (-pair[0], pair[1]))


def _likeness(asked: list[str], offered: list[str]) -> float:
    # Here and not at the top: only a wrong word needs it, and it costs 30 ms of every start.
    from rapidfuzz.distance import DamerauLevenshtein

    alike = DamerauLevenshtein.normalized_similarity

    def covered(these: list[str], those: list[str]) -> float:
        """The share of `these` letters that stand in a word like one of `those`."""
        best = (
            len(word) * max(alike(word, other, score_cutoff=_ALIKE_WORD) for other in those)
            for word in these
        )
        return sum(best) / max(1, sum(map(len, these)))

    if not any(asked) or not any(offered):
        return 0.0
    whole = alike("".join(asked), "".join(offered))
    # The whole decides among choices that share the word: `fluxx` is `flux` before `flux-dev`.
    return 0.8 * max(whole, covered(asked, offered), covered(offered, asked)) + 0.2 * whole
