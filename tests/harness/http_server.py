"""The installed program on HTTP: started as a process, asked by the SDK's client or by hand."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from harness.installed import TIMEOUT, Era, Machine
from harness.programs import hear_signals

READY = re.compile(r"serving MCP at (http://\S+)/mcp")


@dataclass
class RunningServer:
    """A server process; `url` is without `/mcp`."""

    process: subprocess.Popen[bytes]
    url: str
    log_file: Path

    @property
    def log(self) -> str:
        """What it wrote to stderr."""
        return self.log_file.read_text(encoding="utf-8")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @asynccontextmanager
    async def client(self, era: Era = "auto", token: str = "") -> AsyncGenerator[Client]:
        """The SDK's client, with a bearer token if there is one."""
        async with http_client(token) as sent:
            transport = streamable_http_client(f"{self.url}/mcp", http_client=sent)
            async with Client(transport, mode=era, read_timeout_seconds=TIMEOUT) as client:
                yield client

    def connect(self) -> socket.socket:
        """A raw connection."""
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)
        opened.settimeout(TIMEOUT)
        return opened

    def say(self, *parts: bytes) -> bytes:
        """What it answers to these bytes on a connection of their own, until it hangs up."""
        with self.connect() as opened:
            for part in parts:
                opened.sendall(part)
            return read_all(opened)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it with a signal; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT)


def http_client(token: str = "") -> httpx2.AsyncClient:
    """An HTTP client that asks no proxy; of an SDK's client or by itself."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx2.AsyncClient(headers=headers, timeout=TIMEOUT, trust_env=False)


def read_all(opened: socket.socket) -> bytes:
    """Everything until the other side hangs up, or resets the connection."""
    found = b""
    try:
        while part := opened.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


@contextmanager
def http_server(machine: Machine, *options: str) -> Generator[RunningServer]:
    """`serve --http` on a free port of loopback, unless the options say else."""
    log = machine.folder / f"http-{time.monotonic_ns()}.txt"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [str(machine.program), "serve", "--http", "--port", "0", *options],
            env=machine.environ,
            cwd=machine.elsewhere,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            preexec_fn=hear_signals,
        ) as process,
    ):
        try:
            until = time.monotonic() + TIMEOUT
            while not (ready := READY.search(log.read_text(encoding="utf-8"))):
                assert process.poll() is None, log.read_text(encoding="utf-8")
                assert time.monotonic() < until, log.read_text(encoding="utf-8")
                time.sleep(0.02)
            yield RunningServer(process, ready[1].replace("0.0.0.0", "127.0.0.1"), log)
        finally:
            process.kill()
