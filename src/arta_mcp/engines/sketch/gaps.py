"""What a prompt asks for and the sketch cannot draw. No I/O happens here."""

from __future__ import annotations

import re
import unicodedata

from arta_mcp.engines.sketch.words import is_known

MAX_NAMED = 5
"""words that are named; the rest is counted"""

MIN_LETTERS = 3
MAX_LETTERS = 30
"""of a word as it is shown"""

_NOT_THINGS = """
the and but for nor yet with without from into onto over under above below between behind beside
near upon within through across around against along among after before during while until since
about that this these those there here where when which who whose what why how his her hers its
their them they she him you your our ours are was were been being has have had does did can could
may might must shall should will would not all any both each every few more most much many other
some such only own same than too very just also still again once ever never one two three four
five six seven eight nine ten eleven twelve twenty hundred thousand dozen pair first second third
single double several

draw drawn drawing paint painted painting picture photo photograph photography photographic
photoreal photorealistic image illustration illustrated sketch sketched render rendered rendering
art artwork artistic artist style styled stylized scene view shot closeup close wide angle lens
camera portrait watercolor watercolour oil acrylic gouache ink pencil charcoal pastel crayon
lineart line pixel vector poster comic comics manga anime cartoon logo tattoo emblem icon sticker
minimalist minimalistic abstract surreal surrealist impressionist impressionism expressionist
cubist baroque renaissance retro vintage modern contemporary realistic realism hyperrealistic
cinematic film movie concept digital unreal engine octane raytracing background foreground
composition lighting light lit bokeh depth field

best quality high low resolution highres detailed detail details intricate ultra uhd hdr
masterpiece award winning professional beautiful pretty stunning gorgeous amazing awesome epic
perfect sharp focus crisp clean clear smooth soft vivid vibrant colorful colourful color colour
colors colours tone tones dramatic trending artstation nice good great fine please make create
generate show like
"""
_IGNORED = frozenset(_NOT_THINGS.split())
"""function words, numbers, and words of style and quality: to leave them out is no loss to tell"""


def name_gaps(prompt: str) -> str | None:
    """A clause that names the words which the picture will lack; None when it lacks none."""
    if not any(unicodedata.name(char, "").startswith("LATIN") for char in prompt):
        return "this sketch reads English words only"
    # Letters alone: what could steer a terminal or close a quote is in no word.
    words = re.findall(r"[^\W\d_]+", prompt.lower())
    wanted = [word for word in words if len(word) >= MIN_LETTERS and word not in _IGNORED]
    missing = list(dict.fromkeys(word[:MAX_LETTERS] for word in wanted if not is_known(word)))
    if not missing:
        return None
    more = len(missing) - MAX_NAMED
    named = ", ".join(missing[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"the sketch cannot draw: {named}"
