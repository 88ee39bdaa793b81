"""What a store keeps, as plain values by name, and back from whatever it holds.

No I/O happens here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import get_args

from arta_mcp.arta.account import Account
from arta_mcp.arta.protocol import Image, is_record_id, is_token
from arta_mcp.redaction import Secret
from arta_mcp.state.records import JournalEntry, Phase, StyleList, Timing
from arta_mcp.untrusted_json import list_or_empty, text

COLUMNS = tuple(field.name for field in fields(JournalEntry))

NOTED = frozenset({"caller", "answered_at", "cut_after"})
"""columns that `note_call` has"""

FIXED = frozenset({"id", "owner", "key", "created_at"})
"""columns that never change, whatever is written"""

WRITTEN = tuple(name for name in COLUMNS if name not in NOTED | FIXED)
"""columns that `write` sets"""

_LAST_SECOND = 1e12
"""seconds since the epoch; an account or a list that names a later time is damaged"""

_TYPES: dict[object, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (float, int),
    "float | None": (float, int, type(None)),
}


class DamagedEntry(Exception):
    """Values that no version of ours wrote; its text names what is wrong with them."""


def to_values(entry: JournalEntry, names: Iterable[str]) -> dict[str, object]:
    """These columns of an entry; pictures and paths as JSON."""
    values: dict[str, object] = {name: getattr(entry, name) for name in names}
    if "images" in values:
        values["images"] = json.dumps([image.render() for image in entry.images])
    if "paths" in values:
        values["paths"] = json.dumps(entry.paths)
    return values


def to_entry(stored: Mapping[str, object]) -> JournalEntry:
    """The entry that was kept with all its columns; raises DamagedEntry."""
    values = dict(stored)
    try:
        for field in fields(JournalEntry):
            if not isinstance(values[field.name], _TYPES.get(field.type, (str,))):
                raise TypeError(field.name)
        if values["phase"] not in get_args(Phase):
            raise ValueError("phase")
        values["images"] = tuple(map(_image, json.loads(text(values, "images"))))
        values["paths"] = tuple(path and str(path) for path in json.loads(text(values, "paths")))
        # 0.1.0 took any printable text of a service for an id.
        if not is_record_id(text(values, "record_id")):
            values["record_id"] = None
        return JournalEntry(**values)  # pyright: ignore[reportArgumentType]  # looked at above
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as exc:
        raise DamagedEntry(str(exc)) from exc


def _image(stored: dict[str, object]) -> Image:
    return Image(
        text(stored, "url"),
        text(stored, "name"),
        stored.get("isBlur") is True,
        text(stored, "MIME"),
    )


def account_values(account: Account) -> Mapping[str, object]:
    """An account with its tokens in clear."""
    return asdict(account) | {
        "id_token": account.id_token.reveal(),
        "refresh_token": account.refresh_token.reveal(),
    }


def to_account(stored: Mapping[str, object]) -> Account | None:
    """The account that was kept; None for one that is damaged, which can be had anew."""
    id_token, refresh_token = text(stored, "id_token"), text(stored, "refresh_token")
    issued_at, expires_at = stored.get("issued_at"), stored.get("expires_at")
    if not isinstance(issued_at, int | float) or not isinstance(expires_at, int | float):
        return None
    if not is_token(id_token) or not is_token(refresh_token):
        return None
    if not 0 <= issued_at <= expires_at < _LAST_SECOND:
        return None
    return Account(
        id_token=Secret(id_token),
        refresh_token=Secret(refresh_token),
        issued_at=float(issued_at),
        expires_at=float(expires_at),
        user_id=text(stored, "user_id"),
    )


def to_styles(stored: Mapping[str, object]) -> StyleList | None:
    """The style list that was kept; None for one that is damaged."""
    listed_at, names = stored.get("listed_at"), list_or_empty(stored.get("names"))
    if not isinstance(listed_at, int | float) or not 0 <= listed_at < _LAST_SECOND or not names:
        return None
    return StyleList(tuple(name for name in names if isinstance(name, str)), float(listed_at))


def timing_line(entry: JournalEntry) -> str:
    """The times of a finished job in some forty bytes, those after the submit relative to it.

    Empty for one that teaches nothing. Fifty of them are read for every job.
    """
    began = entry.submitted_at
    if entry.phase != "done" or began is None:
        return ""
    times = (entry.seen_waiting, entry.finished_at, entry.seen_queued, entry.seen_drawing)
    later = ("" if at is None else f"{at - began:.2f}" for at in times)
    return ",".join((f"{began:.2f}", *later))


def to_timing(line: str) -> Timing | None:
    """The times that were kept; None for a damaged line."""
    try:
        began, *later = (float(part) if part else None for part in line.split(","))
        waiting, finished, queued, drawing = (
            None if at is None or began is None else began + at for at in later
        )
    except ValueError:
        return None
    if began is None or finished is None:
        return None
    return Timing(began, waiting, finished, queued, drawing)
