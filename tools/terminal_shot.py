"""Type commands into a terminal and take a picture of it: terminal_shot.py OUTPUT COMMAND...

Needs tmux and the DejaVu fonts. Everything happens in an empty home.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COLUMNS, LINES = 84, 60
WIDE, HIGH, SIZE, MARGIN = 9, 18, 15, 14
PAPER, INK = (24, 26, 31), (214, 217, 224)
NAMED = {31: (224, 108, 117), 32: (152, 195, 121), 33: (229, 192, 123)}
FONT = "DejaVuSansMono.ttf"

Colour = tuple[int, int, int]


def main(target: str, *commands: str) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # tmux ends later
        screen = _played(Path(folder), commands)
    lines = [list(_cells(line)) for line in screen.rstrip().split("\n")[:-1]]
    _painted(lines).save(target, quality=80, method=6)


def _played(folder: Path, commands: tuple[str, ...]) -> str:
    """What the terminal shows at the end, with its colours."""
    tmux = ["tmux", "-S", str(folder / "socket"), "-f", os.devnull]
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "ARTA_STATE_DIR": str(folder / "state"),
        "COLORTERM": "truecolor",
        "LANG": "C.UTF-8",
        "PS1": "$ ",
    }
    given = [f"{name}={value}" for name, value in environ.items()]
    shell = ["env", "-i", *given, "TERM=tmux-256color", "bash", "--norc", "--noprofile"]
    (folder / "home").mkdir()
    place = ["-c", str(folder / "home"), "-x", str(COLUMNS), "-y", str(LINES)]
    subprocess.run([*tmux, "new-session", "-d", *place, *shell], check=True)
    try:
        for number, command in enumerate(commands):
            _wait_for_prompt(tmux, number + 1)
            subprocess.run([*tmux, "send-keys", command, "Enter"], check=True)
        _wait_for_prompt(tmux, len(commands) + 1)
        return _captured(tmux, "-e")
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)


def _captured(tmux: list[str], *options: str) -> str:
    shown = subprocess.run([*tmux, "capture-pane", "-p", *options], check=True, capture_output=True)
    return shown.stdout.decode()


def _wait_for_prompt(tmux: list[str], count: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        prompts = [line for line in _captured(tmux).splitlines() if line.startswith("$")]
        if len(prompts) == count and prompts[-1].strip() == "$":
            return
        time.sleep(0.1)
    raise TimeoutError("the command did not end")


def _cells(line: str) -> Iterator[tuple[str, Colour, Colour]]:
    """Each character with its colour and the one behind it."""
    ink, paper = INK, PAPER
    for code, char in re.findall(r"\x1b\[([0-9;]*)m|([^\x1b])", line):
        if char:
            yield char, ink, paper
            continue
        numbers = [int(number or 0) for number in code.split(";")]
        while numbers:
            match numbers.pop(0):
                case 0:
                    ink, paper = INK, PAPER
                case 38:
                    ink = (numbers[1], numbers[2], numbers[3])
                    del numbers[:4]
                case 48:
                    paper = (numbers[1], numbers[2], numbers[3])
                    del numbers[:4]
                case 39:
                    ink = INK
                case 49:
                    paper = PAPER
                case number:
                    ink = NAMED.get(number, ink)


def _painted(lines: list[list[tuple[str, Colour, Colour]]]) -> Image.Image:
    font = ImageFont.truetype(FONT, SIZE)
    size = (COLUMNS * WIDE + 2 * MARGIN, len(lines) * HIGH + 2 * MARGIN)
    picture = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(picture)
    for row, line in enumerate(lines):
        for column, (char, ink, paper) in enumerate(line):
            x, y = MARGIN + column * WIDE, MARGIN + row * HIGH
            pen.rectangle((x, y, x + WIDE - 1, y + HIGH - 1), fill=paper)
            match char:
                case "▀":
                    pen.rectangle((x, y, x + WIDE - 1, y + HIGH // 2 - 1), fill=ink)
                case "▄":
                    pen.rectangle((x, y + HIGH // 2, x + WIDE - 1, y + HIGH - 1), fill=ink)
                case _ if "█" <= char <= "▏":  # from eight eighths down to one
                    part = WIDE * (0x2590 - ord(char)) // 8
                    pen.rectangle((x, y + 3, x + max(0, part - 1), y + HIGH - 4), fill=ink)
                case _:
                    pen.text((x, y), char, font=font, fill=ink)
    return picture


if __name__ == "__main__":
    main(*sys.argv[1:])
