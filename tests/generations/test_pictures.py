"""Pictures that somebody else made: whatever is wrong with one is told as one thing."""

from __future__ import annotations

import io
import threading

import anyio
import pytest
from PIL import Image

from arta_mcp.errors import ProtocolError
from arta_mcp.generations.pictures import FORMATS, MAX_PIXELS, decode, run_in_turn
from arta_mcp.local.faults.catalogue import make_bomb


def picture(kind: str, size: tuple[int, int] = (24, 16)) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").crop((0, 0, *size)).convert("RGB").save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_of_each_kind_is_read(kind: str) -> None:
    found = decode(picture(kind))
    assert (found.size, found.mode) == ((24, 16), "RGB")


@pytest.mark.parametrize("kind", FORMATS)
def test_whatever_is_broken_about_a_picture_it_is_no_picture(kind: str) -> None:
    whole = picture(kind)
    refused = 0
    for index in range(len(whole)):
        for broken in (whole[:index], whole[:index] + b"\xff" + whole[index + 1 :]):
            try:
                decode(broken)
            except ProtocolError:
                refused += 1
    assert refused > 20


def test_a_codec_s_own_error_is_no_picture() -> None:
    whole = picture("AVIF")
    frame = whole.rindex(b"mdat") + len(b"mdat")
    broken = whole[:frame] + bytes(len(whole) - frame)
    with Image.open(io.BytesIO(broken)) as opened, pytest.raises(RuntimeError):
        opened.load()
    with pytest.raises(ProtocolError, match="cannot be read as one"):
        decode(broken)


def test_pixels_are_counted_before_any_is_decoded() -> None:
    bomb = make_bomb()
    assert len(bomb) < 30_000
    # cut behind its header: who begins to decode it finds it truncated
    with pytest.raises(ProtocolError, match="a picture of 13300 x 13300 pixels is too large"):
        decode(bomb[:200])


def test_a_picture_just_over_the_bound_is_told_with_its_size() -> None:
    side = int(MAX_PIXELS**0.5)
    file = io.BytesIO()
    Image.new("1", (side, side + 1)).save(file, "PNG")
    with pytest.raises(ProtocolError, match=f"a picture of {side} x {side + 1} pixels"):
        decode(file.getvalue())


def test_no_other_program_is_started_for_a_picture() -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "EPS")
    with pytest.raises(ProtocolError):
        decode(file.getvalue())


def test_a_palette_with_a_hole_keeps_it() -> None:
    file = io.BytesIO()
    Image.new("P", (4, 4)).save(file, "PNG", transparency=0)
    assert decode(file.getvalue()).mode == "RGBA"


@pytest.mark.anyio
async def test_pictures_are_decoded_one_at_a_time() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        decode(picture("PNG", (600, 400)))
        with lock:
            running -= 1

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(run_in_turn, work)
    assert (running, most) == (0, 1)
