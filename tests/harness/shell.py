"""Command lines as a person types them: in this process, or in one of their own at a terminal."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from arta_mcp import app
from arta_mcp.cli import main
from harness.installed import TIMEOUT, Machine
from harness.world import EagerSchedule

TERM = "xterm-256color"
"""what a terminal here says that it is, unless a test says otherwise"""


@dataclass(frozen=True)
class CommandResult:
    """How a command ended and what it said; at a terminal both streams are in `err`."""

    code: int
    out: str
    err: str

    @property
    def json_lines(self) -> list[dict[str, object]]:
        """Every line of stdout as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def json(self) -> dict[str, object]:
        """The one line of stdout as JSON."""
        (only,) = self.json_lines
        return only


@dataclass
class Screen:
    """A terminal: `device` is its end for programs, `text` what was read from them so far."""

    columns: int = 80
    text: str = ""

    def __enter__(self) -> Self:
        self._master, self.device = pty.openpty()
        fcntl.ioctl(self.device, termios.TIOCSWINSZ, struct.pack("HHHH", 40, self.columns, 0, 0))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read(self) -> bool:
        """Waits for more; False once no program holds the device any more."""
        ready, _, _ = select.select([self._master], [], [], TIMEOUT)
        assert ready, self.text
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # so Linux says that nobody holds the other end any more
            return False
        self.text += piece.decode("utf-8", "replace")
        return bool(piece)

    def read_all(self) -> None:
        while self.read():
            pass


@dataclass
class Shell:
    """Runs command lines in this process, which takes no second to start."""

    machine: Machine
    patch: pytest.MonkeyPatch
    captured: pytest.CaptureFixture[str]

    @classmethod
    def on(
        cls,
        machine: Machine,
        patch: pytest.MonkeyPatch,
        captured: pytest.CaptureFixture[str],
    ) -> Self:
        for name in os.environ.keys() - machine.environ.keys():
            if not name.startswith("PYTEST_"):  # pytest keeps its own there, and would miss it
                patch.delenv(name)
        for name, value in machine.environ.items():
            patch.setenv(name, value)
        patch.chdir(machine.elsewhere)
        # Else a job of a model that is new here is first polled after a second.
        patch.setattr(
            app, "open_generations", partial(app.open_generations, schedule=EagerSchedule)
        )
        return cls(machine, patch, captured)

    def set(self, **settings: str) -> None:
        """Settings for the commands to come."""
        self.machine = self.machine.set(**settings)
        for name, value in settings.items():
            self.patch.setenv(name, value)

    def __call__(self, *arguments: str, stdin: bytes = b"") -> CommandResult:
        """Runs a command whose streams are pipes."""
        self.captured.readouterr()
        with self.patch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
            code = _run(arguments)
        said = self.captured.readouterr()
        return CommandResult(code, said.out, said.err)

    def at_terminal(
        self,
        *arguments: str,
        columns: int = 80,
        typed: str = "",
        stdout: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Runs a command at a terminal, where `typed` was typed ahead.

        `stdout` names a file that stdout goes to instead; `environ` is what the terminal says of
        itself.
        """
        with self.patch.context() as patch, Screen(columns) as screen, ExitStack() as files:
            screen.type(typed)
            reader = threading.Thread(target=screen.read_all)
            reader.start()
            for name, value in {"TERM": TERM, **(environ or {})}.items():
                patch.setenv(name, value)
            with (
                os.fdopen(os.dup(screen.device), encoding="utf-8") as keyboard,
                os.fdopen(screen.device, "w", encoding="utf-8") as display,
            ):
                out = files.enter_context(stdout.open("w", encoding="utf-8")) if stdout else display
                patch.setattr(sys, "stdin", keyboard)
                patch.setattr(sys, "stdout", out)
                patch.setattr(sys, "stderr", display)
                code = _run(arguments)
            reader.join()
        return CommandResult(code, "", screen.text)


def _run(arguments: Sequence[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


@dataclass
class Terminal:
    """One command as a process at a terminal of its own: for what needs signals."""

    machine: Machine
    arguments: tuple[str, ...]

    def __enter__(self) -> Self:
        self._screen = Screen().__enter__()
        self._process = subprocess.Popen(
            [str(self.machine.program), *self.arguments],
            env={"TERM": TERM, **self.machine.environ},
            cwd=self.machine.elsewhere,
            stdin=self._screen.device,
            stdout=self._screen.device,
            stderr=self._screen.device,
            # as at a real terminal: a shell starts its background jobs with SIGINT ignored, and
            # whatever runs the tests in one would hand that down
            preexec_fn=_hear_interrupts,
        )
        os.close(self._screen.device)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._screen.__exit__(kind, error, trace)

    @property
    def screen(self) -> str:
        return self._screen.text

    def until(self, pattern: str) -> str:
        """Reads on until the screen holds what the pattern says, and gives that."""
        end = time.monotonic() + TIMEOUT
        while (found := re.search(pattern, self.screen)) is None:
            assert time.monotonic() < end, self.screen
            assert self._screen.read(), self.screen
        return found[0]

    def type(self, text: str) -> None:
        self._screen.type(text)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Reads everything and gives the exit code."""
        self._screen.read_all()
        return self._process.wait(TIMEOUT)


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
