"""A real nginx with docs/nginx.conf: its very text, with addresses and certificate of a test."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import trustme
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from harness.installed import TIMEOUT, Era

CONFIGURATION = Path(__file__).parents[2] / "docs" / "nginx.conf"
NAME = "mcp.example.com"


def find_nginx(need: Callable[[bool, str], None]) -> str:
    """The program; `sbin` is in nobody's path."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    need(found is not None, "nginx is not installed")
    return found or ""


@dataclass(frozen=True)
class Proxy:
    """A running nginx on a port of loopback, under the name mcp.example.com."""

    port: int
    tls: ssl.SSLContext
    log_file: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def http_client(self, token: str) -> httpx2.AsyncClient:
        """Asks the address for the name, as a resolver would lead there."""
        headers = {"Authorization": f"Bearer {token}", "Host": NAME}
        return httpx2.AsyncClient(
            headers=headers, timeout=TIMEOUT, trust_env=False, verify=self.tls
        )

    @asynccontextmanager
    async def client(self, era: Era, token: str) -> AsyncGenerator[Client]:
        async with self.http_client(token) as sent:
            transport = streamable_http_client(f"{self.url}/mcp", http_client=sent)
            async with Client(transport, mode=era, read_timeout_seconds=TIMEOUT) as client:
                yield client


@contextmanager
def nginx(program: str, folder: Path, replicas: Sequence[int]) -> Generator[Proxy]:
    """nginx before replicas at these ports."""
    authority = trustme.CA()
    certificate = authority.issue_cert(NAME, "127.0.0.1")
    folder.mkdir()
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    text = CONFIGURATION.read_text(encoding="utf-8")
    servers = "".join(f"server 127.0.0.1:{replica};\n" for replica in replicas)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    for pattern, replacement in (
        (r"(\s*server 127\.0\.0\.1:\d+;)+", f"\n{servers}"),
        (r"listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        (r"pid /run/nginx.pid;", f"pid {folder}/pid;" + ("user root;" if is_root() else "")),
        (r"ssl_certificate .*;", f"ssl_certificate {folder}/cert.pem;"),
        (r"ssl_certificate_key .*;", f"ssl_certificate_key {folder}/key.pem;"),
        (r"http \{", f"http {{\n{temporary}"),
    ):
        text, count = re.subn(pattern, replacement, text)
        assert count == 1, pattern
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    tls = ssl.create_default_context()
    authority.configure_trust(tls)  # pyright: ignore[reportUnknownMemberType]  # it takes PyOpenSSL's too
    command = [program, "-p", str(folder), "-c", "nginx.conf", "-g", "daemon off;"]
    log = folder / "stderr.txt"
    with log.open("wb") as errors, subprocess.Popen(command, stderr=errors) as process:
        try:
            until = time.monotonic() + TIMEOUT
            while not is_open(port):
                assert process.poll() is None, log.read_text(encoding="utf-8")
                assert time.monotonic() < until
                time.sleep(0.02)
            yield Proxy(port, tls, log)
        finally:
            process.terminate()


def is_root() -> bool:
    return os.geteuid() == 0


def is_open(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
