"""The installed program and the trouble it can be in: a full disk, a journal that is held."""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import subprocess
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from harness.installed import Machine

HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "a host", "version": "1"},
}


@contextmanager
def running(machine: Machine, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """The program on pipes; it is killed at the end, whatever it does then."""
    with subprocess.Popen(
        [str(machine.program), *arguments],
        env=machine.environ,
        cwd=machine.elsewhere,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hear_signals,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def _hear_signals() -> None:
    """As a host starts us: whatever runs the tests may ignore what a shell or `nohup` ignores."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def call_tool(server: subprocess.Popen[str], number: int, tool: str, **arguments: object) -> None:
    """Calls a tool of a server, after the handshake if it is the first call."""
    call = {"name": tool, "arguments": arguments, "_meta": {"progressToken": number}}
    messages = [
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call},
    ]
    assert server.stdin is not None
    server.stdin.writelines(f"{json.dumps(one)}\n" for one in messages[0 if number == 1 else 2 :])
    server.stdin.flush()


def read_result(server: subprocess.Popen[str], number: int) -> dict[str, Any]:
    """The result of a call; empty when the server has ended without one."""
    assert server.stdout is not None
    for line in server.stdout:
        message = json.loads(line)
        if message.get("id") == number:
            return message["result"]
    return {}


def fill_disk(process: int) -> None:
    """From now on no file takes a byte of this process, as on a full disk."""
    resource.prlimit(process, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def free_disk(process: int) -> None:
    """Undoes `fill_disk`."""
    endless = resource.RLIM_INFINITY
    resource.prlimit(process, resource.RLIMIT_FSIZE, (endless, endless))


@contextmanager
def held_journal(state: Path) -> Generator[None]:
    """Another program writes to the journal of a state folder for as long as this is open."""
    with closing(sqlite3.connect(state / "generations.sqlite3", timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
