"""Command lines as a person types them: in this process, or in one at a real terminal."""

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
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from arta_mcp.cli import main
from harness.installed import PATIENCE, Machine


@dataclass(frozen=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, object]]:
        """Every line of stdout as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def object(self) -> dict[str, object]:
        (only,) = self.objects
        return only


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
        for name in [name for name in os.environ if name.startswith("ARTA_")]:
            patch.delenv(name)
        for name, value in machine.environ.items():
            patch.setenv(name, value)
        patch.chdir(machine.elsewhere)
        return cls(machine, patch, captured)

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Said:
        self.captured.readouterr()
        with self.patch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
            try:
                code = main(arguments)
            except SystemExit as ended:
                code = int(ended.code or 0)
        said = self.captured.readouterr()
        return Said(code, said.out, said.err)

    def set(self, **settings: str) -> None:
        """Settings for the commands to come."""
        self.machine = self.machine.set(**settings)
        for name, value in settings.items():
            self.patch.setenv(name, value)


@dataclass
class Terminal:
    """One command at a terminal of its own; `data` names a file that stdout goes to instead."""

    machine: Machine
    arguments: tuple[str, ...]
    columns: int = 80
    environ: Mapping[str, str] = field(default_factory=dict[str, str])
    data: Path | None = None
    screen: str = ""

    def __enter__(self) -> Self:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, self.columns, 0, 0))
        out = self.data.open("wb") if self.data else None
        self._process = subprocess.Popen(
            [str(self.machine.program), *self.arguments],
            env={"TERM": "xterm-256color", **self.machine.environ, **self.environ},
            cwd=self.machine.elsewhere,
            stdin=slave,
            stdout=out or slave,
            stderr=slave,
            # as at a real terminal: a shell starts its background jobs with SIGINT ignored, and
            # whatever runs the tests in one would hand that down
            preexec_fn=_hear_interrupts,
        )
        os.close(slave)
        if out:
            out.close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def until(self, pattern: str) -> str:
        """Reads on until the screen holds what the pattern says, and gives that."""
        end = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.screen)) is None:
            assert time.monotonic() < end, self.screen
            assert self._read(), self.screen
        return found[0]

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Reads everything and gives the exit code."""
        while self._read():
            pass
        return self._process.wait(PATIENCE)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], PATIENCE)
        assert ready, self.screen
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # so Linux says that nobody holds the other end any more
            return False
        self.screen += piece.decode("utf-8", "replace")
        return bool(piece)


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
