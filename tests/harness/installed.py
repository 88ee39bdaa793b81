"""A computer as a host or a person has it: the installed program, a home, a state folder."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

import anyio
import httpx
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.types import CallToolResult, TextContent
from PIL import Image as Picture

from arta_mcp.arta.protocol import STYLES_PATH
from harness.service import ScriptedServer, ScriptedService
from harness.world import tiny_picture

PROGRAM = Path(sys.executable).with_name("arta-mcp")

TIMEOUT = 60.0
"""seconds that anything here may take; far more than it does on a busy machine"""

MEASURED = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
"""by this a process knows that `make coverage` counts its branches, too"""

Era = Literal["auto", "legacy"]


@dataclass(frozen=True)
class Machine:
    """An empty home, a state folder, and the settings that a host would give."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    program: Path = PROGRAM

    @classmethod
    def new(cls, folder: Path, *, program: Path = PROGRAM) -> Self:
        (folder / "home").mkdir(parents=True)
        (folder / "elsewhere").mkdir()
        return cls(folder, program=program)

    def set(self, **settings: str) -> Machine:
        return replace(self, settings={**self.settings, **settings})

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def elsewhere(self) -> Path:
        """The folder in which programs are started: none of ours."""
        return self.folder / "elsewhere"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def environ(self) -> dict[str, str]:
        """Nothing of the test runner's environment but where programs are, and what measures."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "ARTA_STATE_DIR": str(self.state),
            **MEASURED,
            **self.settings,
        }

    @property
    def log(self) -> str:
        """What the servers of this machine wrote to stderr."""
        return (self.folder / "stderr.txt").read_text(encoding="utf-8")

    @property
    def parameters(self) -> StdioServerParameters:
        return StdioServerParameters(
            command=str(self.program), env=self.environ, cwd=self.elsewhere
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of ours at a terminal that is none."""
        return subprocess.run(
            [str(self.program), *arguments],
            env=self.environ,
            cwd=self.elsewhere,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def count_requests(self, endpoint: str) -> int:
        """How many such requests the embedded service of this machine ever answered."""
        log = self.state / "local" / "service.log"
        lines = log.read_text(encoding="utf-8").splitlines()
        return sum(json.loads(line)["endpoint"] == endpoint for line in lines)


@asynccontextmanager
async def connect(machine: Machine, era: Era = "auto") -> AsyncGenerator[Client]:
    """The SDK's client on a new process of the machine's server."""
    with (machine.folder / "stderr.txt").open("a", encoding="utf-8") as errors:
        server = stdio_client(machine.parameters, errlog=errors)
        with anyio.fail_after(TIMEOUT):
            async with Client(server, mode=era, read_timeout_seconds=TIMEOUT) as client:
                yield client


def text_of(result: CallToolResult) -> str:
    """The one text block of a result."""
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


def content_of(result: CallToolResult) -> dict[str, object]:
    """The structured content of a result that is no error."""
    assert not result.is_error, text_of(result)
    content: dict[str, object] = result.structured_content or {}
    return content


def image_urls(content: Mapping[str, object]) -> list[str]:
    images = content["images"]
    assert isinstance(images, list)
    return [image["url"] for image in images]  # pyright: ignore[reportUnknownVariableType]  # JSON


async def fetch_picture(url: str) -> Picture.Image:
    """The picture behind an address, every pixel decoded."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return decode(answer.content)


def decode(content: bytes) -> Picture.Image:
    picture = Picture.open(io.BytesIO(content))
    picture.load()
    return picture


def run_service(folder: Path, *, draw: float = 0.0) -> ScriptedServer:
    """A service for `with` whose jobs are drawn in `draw` seconds, tiny pictures of one colour."""
    return ScriptedServer(ScriptedService(folder, engine=tiny_picture, queue=0, draw=draw))


def remote_settings(running: ScriptedServer) -> dict[str, str]:
    """The settings under which a service is the remote one, at the addresses of the real hosts."""
    url = running.base_url
    return {
        "ARTA_API_KEY": "a-key-of-mine",
        "ARTA_BASE_URL": f"{url}/img-gen-prod.ai-arta.com",
        "ARTA_AUTH_URL": f"{url}/www.googleapis.com/identitytoolkit/v3/relyingparty/signupNewUser",
        "ARTA_TOKEN_REFRESH_URL": f"{url}/securetoken.googleapis.com/v1/token",
        "ARTA_STYLES_URL": url + STYLES_PATH,
        "ARTA_MIN_POLL_INTERVAL": "0.05",
    }
