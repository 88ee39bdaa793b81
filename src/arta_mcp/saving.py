"""Saving pictures: names of our own, inside one folder, written whole, nothing overwritten."""

from __future__ import annotations

import os
import re
from itertools import count
from pathlib import Path
from secrets import token_hex

from arta_mcp.client import Picture


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
            try:
                os.link(beside, path)  # unlike a rename, this refuses to overwrite
            except FileExistsError:
                if path.read_bytes() != picture.content:
                    continue
            return path
    finally:
        beside.unlink(missing_ok=True)
    raise AssertionError("there is always another number")
