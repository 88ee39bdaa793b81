"""Saving pictures: names of our own, inside one folder, written whole, nothing overwritten.

A name is some words of the prompt, for people, then record id and index, which make it unique.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

import anyio
import anyio.to_thread

from arta_mcp.arta.client import Picture
from arta_mcp.errors import ArtaError

MAX_DOWNLOADS = 4
"""pictures of one generation that are in memory at once, each of up to 32 MiB"""


MAX_PROMPT, MAX_WORDS, MAX_WORDS_BYTES = 400, 6, 60
"""what of a prompt is looked at, in characters, and what of it a name has; a file system takes 255
bytes, of which the record id needs some"""


async def save_pictures(
    fetch: Callable[[int], Awaitable[Picture]],
    indexes: Collection[int],
    *,
    folder: Path,
    record_id: str,
    prompt: str = "",
    on_failure: Callable[[int, str], None],
) -> dict[int, str]:
    """Fetches and saves the pictures of these indexes; gives the path of each that was saved.

    `on_failure` gets what cannot be fetched or written, with the reason; it stops no other.
    """
    paths: dict[int, str] = {}
    turns = anyio.CapacityLimiter(MAX_DOWNLOADS)

    async def save(index: int) -> None:
        async with turns:
            try:
                picture = await fetch(index)
                name = f"{record_id}-{index}"
                path = await anyio.to_thread.run_sync(save_picture, folder, name, picture, prompt)
            except (ArtaError, OSError) as exc:
                why = exc.message if isinstance(exc, ArtaError) else exc.strerror or str(exc)
                on_failure(index, why)
            else:
                paths[index] = str(path)

    async with anyio.create_task_group() as group:
        for index in indexes:
            group.start_soon(save, index)
    return paths


def name_words(prompt: str) -> str:
    """The first words of a prompt as a file's name may have them; nothing where it has none."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", prompt[:MAX_PROMPT]).lower())
    name = "-".join(words[:MAX_WORDS])
    cut = name.encode()[:MAX_WORDS_BYTES].decode(errors="ignore")
    # Whole words, but for a first one that is too long by itself: Chinese has no blanks.
    is_whole = name[len(cut) : len(cut) + 1] in ("", "-")
    return cut if is_whole or "-" not in cut else cut.rpartition("-")[0]


def save_picture(folder: Path, name: str, picture: Picture, prompt: str = "") -> Path:
    """Writes `<words of the prompt>-<name>.<suffix>` and gives its path.

    A name that is taken gets `-2`, `-3`.

    The same picture under the same name is not written again. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A record id is the service's; the words are letters and digits of any script.
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:120]
    plain = f"{words}-{plain}" if (words := name_words(prompt)) else plain
    draft = folder / f".{plain}.{token_hex(8)}.part"
    number = 1
    try:
        draft.write_bytes(picture.content)
        while True:
            path = folder / f"{plain}{'' if number == 1 else f'-{number}'}.{picture.suffix}"
            if _publish(draft, path, picture.content):
                return path
            with suppress(OSError):
                if path.is_file() and path.read_bytes() == picture.content:
                    return path
            number += 1
    finally:
        draft.unlink(missing_ok=True)


async def read_saved(path: Path) -> Picture | None:
    """A picture as it was saved; None when it is not there any more."""
    try:
        return Picture(await anyio.Path(path).read_bytes(), path.suffix.lstrip("."))
    except OSError:
        return None


def _publish(draft: Path, path: Path, content: bytes) -> bool:
    """Gives a draft its name, False when that is taken."""
    try:
        os.link(draft, path)  # unlike a rename, a link never replaces what is there
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
