"""Smaller copies of a picture."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image as Pillow

from arta_mcp.errors import ProtocolError
from arta_mcp.server.previews import PREVIEW, READABLE, shrink


def noise(width: int, height: int, mode: str = "RGB") -> bytes:
    pixels = random.Random(7).randbytes(width * height * len(mode))
    buffer = io.BytesIO()
    Pillow.frombytes(mode, (width, height), pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("bounds", [PREVIEW, READABLE])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_even_noise_fits_its_bounds(bounds: tuple[int, int], mode: str) -> None:
    small = shrink(noise(1400, 760, mode), *bounds)
    assert len(small) <= bounds[1]
    with Pillow.open(io.BytesIO(small)) as picture:
        assert picture.format == "WEBP"
        assert max(picture.size) <= bounds[0]


def test_a_small_picture_keeps_its_size() -> None:
    with Pillow.open(io.BytesIO(shrink(noise(60, 40), *PREVIEW))) as picture:
        assert picture.size == (60, 40)


@pytest.mark.parametrize("content", [b"", b"<html>", noise(80, 80)[:600], b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_told(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        shrink(content, *PREVIEW)
