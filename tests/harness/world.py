"""The one place where tests wire our client to a service: in process, or on a port."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
from PIL import Image as Pillow

from arta_mcp.app import connect
from arta_mcp.arta.protocol import Addresses
from arta_mcp.arta.tokens import Identity, TokenSource
from arta_mcp.arta.transport import DOWNLOAD_TIMEOUT, EXCHANGE_TIMEOUT, Transport
from arta_mcp.background import BackgroundTasks, open_background
from arta_mcp.engines.base import ImageRequest
from arta_mcp.generations.results import FindFile
from arta_mcp.generations.schedule import PollSchedule
from arta_mcp.generations.service import Backend, Generations, Limits
from arta_mcp.generations.values import Update
from arta_mcp.redaction import Secret
from arta_mcp.state.contract import State
from arta_mcp.state.sqlite import SqliteState
from harness.service import ScriptedService
from harness.stores import Store

ORIGIN = "http://127.0.0.1:9"
"""of a service in process: nothing listens there"""

KEY = "test-api-key"
LIMITS = Limits(max_wait=20, min_poll_interval=0.01)


class EagerSchedule(PollSchedule):
    """Polls as often as the floor allows, so that tests need not wait for the first poll."""

    def delay(self, waited: float, phase: str | None = None) -> float:
        return self._floor


@dataclass(frozen=True, kw_only=True)
class Client:
    """How one process of ours reaches a service: everything that tests vary."""

    state_dir: Path
    addresses: Addresses
    app: httpx.AsyncBaseTransport | None = None
    account: str = "test"
    key: str = field(default=KEY, repr=False)
    clock: Callable[[], float] = time.time
    store: Store | None = None
    """where the state is; None: a folder"""
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    exchange_timeout: float = EXCHANGE_TIMEOUT
    download_timeout: float = DOWNLOAD_TIMEOUT
    embedded: bool = False

    @property
    def identity(self) -> Identity:
        return Identity(
            name=self.account, client_type="CLIENT_TYPE_ANDROID", api_key=Secret(self.key)
        )

    @asynccontextmanager
    async def open_backend(self, background: BackgroundTasks) -> AsyncGenerator[Backend]:
        async with self._open(background) as (state, transport):
            yield connect(
                self.identity,
                self.addresses,
                state=state,
                transport=transport,
                background=background,
                embedded=self.embedded,
                clock=self.clock,
                sleep=self.sleep,
            )

    @asynccontextmanager
    async def open_tokens(self) -> AsyncGenerator[TokenSource]:
        async with open_background() as background, self._open(background) as (state, transport):
            yield TokenSource(
                self.identity,
                self.addresses,
                store=state,
                transport=transport,
                background=background,
                clock=self.clock,
                sleep=self.sleep,
            )

    @asynccontextmanager
    async def _open(self, background: BackgroundTasks) -> AsyncGenerator[tuple[State, Transport]]:
        if self.store is not None:
            state = self.store.open(background)
        else:
            state = SqliteState(self.state_dir, clock=self.clock)
        transport = Transport(
            user_agent="arta-mcp tests",
            direct=True,
            app=self.app,
            exchange_timeout=self.exchange_timeout,
            download_timeout=self.download_timeout,
        )
        try:
            async with transport:
                yield state, transport
        finally:
            await state.close()


@asynccontextmanager
async def opened_state(
    folder: Path, warn: Callable[[str], None] | None = None
) -> AsyncGenerator[SqliteState]:
    """One process's state, closed at the end as its death would."""
    state = SqliteState(folder, warn=warn)
    try:
        yield state
    finally:
        await state.close()


def tiny_picture(request: ImageRequest) -> bytes:
    """A real PNG, quick to draw."""
    buffer = io.BytesIO()
    Pillow.new("RGB", (8, 8), (request.seed % 256, request.index, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class World:
    """One service and one state folder; `generations()` is one process of ours."""

    folder: Path
    service: ScriptedService
    updates: list[Update] = field(default_factory=list[Update])
    app: httpx.AsyncBaseTransport | None = None
    styles_url: str | None = None
    store: Store | None = None

    async def on_update(self, update: Update) -> None:
        self.updates.append(update)

    def generations(
        self,
        limits: Limits = LIMITS,
        *,
        owner: str = "",
        output_dir: Path | None = None,
        find_file: FindFile | None = None,
        schedule: type[PollSchedule] = EagerSchedule,
        embedded: bool = False,
    ) -> Generations:
        client = Client(
            embedded=embedded,
            state_dir=self.folder / "state",
            addresses=Addresses.at_origin(ORIGIN, styles_url=self.styles_url),
            app=self.app or httpx.ASGITransport(app=self.service),
            store=self.store,
        )
        return Generations(
            client.open_backend,
            backend="arta",
            service="test",
            owner=owner,
            limits=limits,
            output_dir=output_dir,
            find_file=find_file,
            schedule=schedule,
        )


def new_world(
    folder: Path,
    *,
    queue: float = 0.0,
    draw: float = 0.0,
    engine: Callable[[ImageRequest], bytes] = tiny_picture,
) -> World:
    """Jobs take no time unless told so; pictures are tiny but real."""
    return World(folder, ScriptedService(folder / "service", engine=engine, queue=queue, draw=draw))
