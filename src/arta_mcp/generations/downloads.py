"""Saving pictures: names of our own, inside one folder, written whole, nothing overwritten."""

from __future__ import annotations

import os
import re
from itertools import count
from pathlib import Path
from secrets import token_hex

import anyio

from arta_mcp.arta.client import Picture


def save_picture(folder: Path, name: str, picture: Picture) -> Path:
    """Writes `<name>.<suffix>` and gives its path; a name that is taken gets `-2`, `-3`.

    The same picture under the same name is not written again. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:120]
    beside = folder / f".{plain}.{token_hex(8)}.part"
    try:
        beside.write_bytes(picture.content)
        for number in count(1):
            path = folder / f"{plain}{'' if number == 1 else f'-{number}'}.{picture.suffix}"
            if _put(beside, path, picture.content) or _holds(path, picture.content):
                return path
    finally:
        beside.unlink(missing_ok=True)
    raise AssertionError("there is always another number")


async def read_saved(path: Path) -> Picture | None:
    """A picture as it was saved; None when it is not there any more."""
    try:
        return Picture(await anyio.Path(path).read_bytes(), path.suffix.lstrip("."))
    except OSError:
        return None


def _put(beside: Path, path: Path, content: bytes) -> bool:
    """Gives a written file its name unless that is taken; a rename would overwrite."""
    try:
        os.link(beside, path)
    except FileExistsError:
        return False
    except OSError:  # exFAT, SMB and others have no hard links
        try:
            with path.open("xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return True


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.is_file() and path.read_bytes() == content
    except OSError:
        return False
