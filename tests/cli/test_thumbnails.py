"""Pictures as text: what a terminal can show, and how it is told to."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image

from arta_mcp.cli.thumbnails import detect_protocol, render
from harness.installed import decode

RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture_of(*colours: tuple[int, int, int], size: int = 1) -> bytes:
    """A picture of horizontal stripes."""
    picture = Image.new("RGB", (size, size * len(colours)))
    for i, colour in enumerate(colours):
        picture.paste(colour, (0, i * size, size, (i + 1) * size))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_half_blocks_hold_two_pixels_each() -> None:
    shown = render([picture_of(RED, BLUE)], "truecolor", columns=1)
    assert shown == "\x1b[0;38;2;255;0;0;48;2;0;0;255m▀\x1b[0m"


def test_a_terminal_of_256_colours_gets_the_nearest() -> None:
    shown = render([picture_of(RED, BLUE)], "256color", columns=1)
    assert shown == "\x1b[0;38;5;196;48;5;21m▀\x1b[0m"


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("columns", [12, 79, 300])
def test_pictures_stand_beside_each_other_and_fit(count: int, columns: int) -> None:
    shown = render([picture_of(RED, size=40)] * count, "truecolor", columns=columns)
    widths = [len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in shown.split("\n")]
    assert 0 < max(widths) <= columns
    assert len(set(widths)) == 1


def test_between_pictures_the_terminal_shows_through() -> None:
    first, second = picture_of(RED, size=2), picture_of(BLUE, size=2)
    shown = render([first, second], "truecolor", columns=3)
    assert shown == (
        "\x1b[0;38;2;255;0;0;48;2;255;0;0m▀\x1b[0m \x1b[0;38;2;0;0;255;48;2;0;0;255m▀\x1b[0m"
    )


def test_kitty_and_iterm_get_a_real_picture() -> None:
    picture = picture_of(RED, size=40)
    kitty = render([picture], "kitty", columns=30)
    iterm = render([picture], "iterm2", columns=30)
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", kitty)
    assert "".join(f"\x1b_G{head};{body}\x1b\\" for head, body in chunks) == kitty
    assert chunks[0][0].startswith("a=T,f=100,q=2,c=30,")
    assert max(len(body) for _, body in chunks) <= 4096
    assert [head[-1] for head, _ in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    sizes = {
        decode(base64.b64decode("".join(body for _, body in chunks))).size,
        decode(base64.b64decode(iterm.partition(":")[2].rstrip("\x07"))).size,
    }
    assert sizes == {(300, 300)}


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_what_is_no_picture_is_not_shown(content: bytes) -> None:
    assert render([content], "truecolor", columns=40) == ""


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "TMUX": "x"}, "256color"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "truecolor"),
        ({"TERM": "xterm-256color"}, "256color"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, None),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, None),
        ({"TERM": "vt100"}, None),
        ({}, None),
    ],
)
def test_a_terminal_gets_what_it_can_show(environ: dict[str, str], protocol: str | None) -> None:
    assert detect_protocol(environ) == protocol
