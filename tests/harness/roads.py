"""What is released, built once, and what a host makes of one that is installed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio

from harness.clients import ROOT
from harness.installed import Machine, connect, content_of, decode

INSTALL_TIMEOUT = 300
"""seconds; it takes 10 on two cores"""

BIN = Path(sys.executable).parent
"""uv, uvx, pipx and twine lie beside the interpreter of the tests"""

TOOLS = ["generate_image", "get_generation", "list_models"]


def run(
    *command: str | Path,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    timeout: float = INSTALL_TIMEOUT,
) -> str:
    """What a program prints; one that fails fails the test, with all that it said."""
    ended = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def build_dist(folder: Path, source: Path = ROOT) -> tuple[Path, Path]:
    """The sdist, and the wheel made from it, so that the sdist is shown to be whole as well."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def uv_environ(home: Path) -> dict[str, str]:
    """An empty home for uv, with one cache that all tests share and this machine's certificates."""
    network = {name: value for name, value in os.environ.items() if name.startswith("SSL_CERT_")}
    cache = str(ROOT / ".cache" / "uv")
    return {"HOME": str(home), "UV_CACHE_DIR": cache, "UV_NO_PROGRESS": "1", **network}


def uv_install(folder: Path, *what: str | Path, python: str = sys.executable) -> Path:
    """The `arta-mcp` of a new environment with what uv makes of these arguments."""
    environ = uv_environ(folder.parent)
    run(BIN / "uv", "venv", "--quiet", "--python", python, folder, environ=environ)
    run(BIN / "uv", "pip", "install", "--quiet", "--python", folder, *what, environ=environ)
    return folder / "bin" / "arta-mcp"


def write_launcher(path: Path, *command: str | Path) -> Path:
    """A program that is this command with whatever arguments it gets."""
    words = shlex.join(str(word) for word in command)
    path.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def draw_through(machine: Machine) -> None:
    """A host starts the machine's program, lists the tools and gets a picture; it hears no talk."""

    async def ask() -> Path:
        async with connect(machine) as client:
            listed = await client.list_tools()
            assert [tool.name for tool in listed.tools] == TOOLS
            call = await client.call_tool("generate_image", {"prompt": "a red fox in snow"})
            images = content_of(call)["images"]
            assert isinstance(images, list)
            return Path(str(images[0]["path"]))  # pyright: ignore[reportUnknownArgumentType]  # JSON

    assert decode(anyio.run(ask).read_bytes()).size == (1024, 1024)
    assert machine.log == ""
