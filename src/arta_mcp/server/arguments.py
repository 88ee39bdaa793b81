"""Arguments as hosts send them and as schemas tell them to hosts. No I/O happens here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from arta_mcp.generations.values import describe_bounds, explain_arguments

ADDED_BY_HOSTS = frozenset(
    {
        # n8n's MCP Client Tool: n8n-io/n8n issues 21500, 21716, 22787, 17264
        *("toolCallId", "sessionId", "action", "chatInput", "tool"),
        "security_context",  # CrewAI: crewAIInc/crewAI issue 4796
    }
)
"""names that no model wrote: a host puts them beside every tool's arguments (read 2026-11-25)"""


def parse_arguments(model: type[BaseModel], given: Mapping[str, object]) -> BaseModel:
    """The arguments as `model`; an optional one that is null or empty counts as not given.

    Models that must fill in every argument (OpenAI's strict mode) write so what they leave out.
    Raises InvalidRequest that tells everything that is wrong, from pydantic's error.
    """
    fields = model.model_fields
    kept = {
        name: value
        for name, value in given.items()
        if not (name in ADDED_BY_HOSTS and name not in fields)
        and not (value in (None, "") and name in fields and not fields[name].is_required())
    }
    try:
        return model.model_validate(kept)
    except ValidationError as exc:
        raise explain_arguments(exc, model) from exc


def input_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of arguments in the few words that every host and framework keeps.

    Each of these breaks somebody's converter: `anyOf` and `$ref` (Google's SDK), a list of types
    (AutoGen), `additionalProperties` (Google's API). Without `nullable` smolagents demands every
    argument. Bounds and choices stand in the description too, for hosts that drop keywords.
    """
    schema = model.model_json_schema()
    required: list[str] = schema.get("required", [])
    properties = {
        name: _flatten(field, is_optional=name not in required)
        for name, field in schema["properties"].items()
    }
    listed = {"required": required} if required else {}
    return {"type": "object", "properties": properties, **listed}


def _flatten(field: dict[str, Any], *, is_optional: bool) -> dict[str, Any]:
    """One argument with its type, description and bounds side by side."""
    options: list[dict[str, Any]] = [o for o in field.get("anyOf", ()) if o["type"] != "null"]
    # an empty text is allowed where it means that nothing was given
    dropped = {"title", "anyOf", *({"minLength"} if is_optional else ())}
    merged: dict[str, Any] = {**field, **(options[0] if options else {})}
    flat = {key: value for key, value in merged.items() if key not in dropped and value is not None}
    words = f"{flat['description']}; {describe_bounds(flat)}"
    nullable = {"nullable": True} if is_optional else {}
    return {"type": flat["type"], "description": words} | flat | {"description": words} | nullable


def without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without pydantic's titles, which repeat the names and cost every host bytes."""
    return {
        key: without_titles(value) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownArgumentType]  # JSON
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
