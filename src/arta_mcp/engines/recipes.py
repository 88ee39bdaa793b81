"""Styles as words for a model: the file of ours, and a person's own in the same format.

The format is that of Fooocus and the SDXL stylers: a JSON list of `name`, `prompt` with `{prompt}`
in it, and `negative_prompt`. A style whose recipe is `{prompt}` alone names a model of the remote
service and adds no words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from arta_mcp.engines.base import ImageRequest
from arta_mcp.errors import ConfigError
from arta_mcp.redaction import sanitize
from arta_mcp.styles import AS_OF, MAX_STYLE, SHIPPED, Catalogue, is_style_name
from arta_mcp.untrusted_json import is_object, list_or_empty, text

SLOT = "{prompt}"
SETTING = "ARTA_LOCAL_STYLES"
MAX_FILE = 4 * 1024 * 1024
"""bytes of a file of styles; the large ones that people share have 300 kB"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a style adds to a prompt, and to what is to be kept out."""

    prompt: str = SLOT
    negative_prompt: str = ""


class Recipes:
    """The recipe of each style by its name, in any case; of an unknown one none."""

    def __init__(self, recipes: Mapping[str, Recipe]) -> None:
        self._recipes = {name.lower(): recipe for name, recipe in recipes.items()}
        known = {style.name.lower() for style in SHIPPED.styles}
        own = [name for name in recipes if name.lower() not in known]
        names = [style.name for style in SHIPPED.styles]
        self.catalogue = Catalogue.from_names(
            [*names, *own],
            AS_OF,
            "shipped",
            # Models of the remote service: one that is asked for by its name draws without words.
            hidden=[name for name in names if name != SHIPPED.default.name and self.is_bare(name)],
        )
        """what there is to draw with: looks, and a person's own styles"""

    @classmethod
    def load(cls, own: Path | None = None) -> Recipes:
        """Ours, with those of a person's file before them. Raises ConfigError that names a line."""
        shipped = files("arta_mcp.engines").joinpath("recipes.json").read_text(encoding="utf-8")
        recipes = read_recipes(shipped, "recipes.json")
        return cls(recipes if own is None else recipes | load_own(own))

    def is_bare(self, style: str) -> bool:
        """Whether a style adds no words: it names a model, not a look."""
        return self.of(style).prompt == SLOT

    def of(self, style: str) -> Recipe:
        """The recipe of a style; one without words for a style that has none."""
        return self._recipes.get(style.lower(), Recipe())

    def apply(self, request: ImageRequest) -> ImageRequest:
        """The request with the words of its style: the person's own come first."""
        recipe = self.of(request.style)
        avoided = ", ".join(filter(None, (request.negative_prompt, recipe.negative_prompt)))
        prompt = recipe.prompt.replace(SLOT, request.prompt)
        return replace(request, prompt=prompt, negative_prompt=avoided)

    def explain(self, style: str, model: str | None) -> str:
        """What a person should know of a style that names a model which is not here."""
        if style == SHIPPED.default.name or not self.is_bare(style):
            return ""
        drew = f"{sanitize(model, 120)} drew" if model else "the engine's model drew"
        return f"{style!r} names a model of the remote service; here {drew}"


def load_own(path: Path) -> dict[str, Recipe]:
    """The recipes of a person's own file. Raises ConfigError that names a line."""
    shown = sanitize(str(path), 120)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise ConfigError(f"{SETTING}: {shown} has over {MAX_FILE / 1e6:.0f} MB")
        return read_recipes(content.decode("utf-8-sig"), str(path))
    except OSError as exc:
        why = (exc.strerror or type(exc).__name__).lower()
        raise ConfigError(f"{SETTING}: {shown}: {why}", hint="name a file that is there") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{SETTING}: {shown} is no text in UTF-8") from exc


def read_recipes(content: str, name: str) -> dict[str, Recipe]:
    """The recipes in a file's text, by the name of their style. Raises ConfigError."""
    where = f"{SETTING}: {sanitize(name, 120)}"
    hint = f'each style is {{"name": "...", "prompt": "{SLOT}, ...", "negative_prompt": "..."}}'
    try:
        listed = json.loads(content)
    except (ValueError, RecursionError) as exc:
        line = f", line {exc.lineno}" if isinstance(exc, json.JSONDecodeError) else ""
        why = exc.msg if isinstance(exc, json.JSONDecodeError) else "no JSON"
        raise ConfigError(f"{where}{line}: {why.lower()}", hint=hint) from exc
    entries = list_or_empty(listed)
    if not entries:
        raise ConfigError(f"{where} holds no list of styles", hint=hint)
    recipes: dict[str, Recipe] = {}
    for number, entry in enumerate(entries, 1):
        style = text(entry, "name") if is_object(entry) else ""
        at = content.find(json.dumps(style)) if style else -1
        at = content.find(json.dumps(style, ensure_ascii=False)) if style and at < 0 else at
        line = f", line {content.count(chr(10), 0, at) + 1}" if at >= 0 else ""
        if not is_object(entry) or not style:
            raise ConfigError(f"{where}: style {number} of the list has no name", hint=hint)
        prompt = entry.get("prompt") or SLOT
        if not isinstance(prompt, str) or SLOT not in prompt:
            shown = sanitize(repr(style), 80)
            raise ConfigError(f"{where}{line}: the prompt of {shown} has no {SLOT}", hint=hint)
        if not is_style_name(style):
            shown = sanitize(repr(style), 80)
            why = f"{shown} is no name: at most {MAX_STYLE} printable characters"
            raise ConfigError(f"{where}{line}: {why}", hint=hint)
        recipes[style] = Recipe(prompt, text(entry, "negative_prompt"))
    return recipes
