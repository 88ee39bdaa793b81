"""Aquiles-Image, a picture server that nobody here wrote, without a model: it answers at once."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

PROGRAM = Path(__file__).parents[2] / ".cache/aquiles/bin/aquiles-image"
KEY = "sk-aquiles-0123456789"
START_TIMEOUT = 90.0
"""seconds; it imports torch"""


@dataclass(frozen=True)
class Aquiles:
    """A running one; `url` with the key KEY."""

    url: str
    log: Path


@contextmanager
def running_aquiles(folder: Path) -> Generator[Aquiles]:
    """Serves on a loopback port until the block ends; nothing that it does leaves the machine."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    home, log = folder / "home", folder / "aquiles.log"
    home.mkdir(parents=True)
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        # Without a model it looks for a placeholder on the web, and makes one where it finds none.
        **nowhere,
    }
    options = ("--no-load-model", "--host", "127.0.0.1", "--port", str(port), "--api-key", KEY)
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(PROGRAM), "serve", *options], env=environ, stdout=output, stderr=output, cwd=home
        )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", server, log)
        yield Aquiles(f"http://127.0.0.1:{port}", log)
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)


def wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once it answers."""
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until and server.poll() is None:
        try:
            if httpx.get(f"{url}/v1/models", trust_env=False).status_code == 401:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(log.read_text(encoding="utf-8", errors="replace")[-4000:])
