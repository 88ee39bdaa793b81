"""A small world for tests: our client rooms and the embedded service in one process, no port."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from PIL import Image as Pillow

from arta_mcp.arta.client import ArtaClient
from arta_mcp.arta.protocol import REFRESH_PATH, SIGN_UP_PATHS
from arta_mcp.arta.tokens import Identity, TokenSource
from arta_mcp.arta.transport import Transport
from arta_mcp.background import Errands
from arta_mcp.engines.sketch.engine import Order
from arta_mcp.generations.schedule import PollSchedule
from arta_mcp.generations.service import Generations, Limits, Remote
from arta_mcp.generations.values import Update
from arta_mcp.local.service import Service
from arta_mcp.local.workers import Engine
from arta_mcp.redaction import Secret
from arta_mcp.state.contract import open_state

ORIGIN = "http://127.0.0.1:9"
LIMITS = Limits(max_wait=20, min_poll_interval=0.01)


class Eager(PollSchedule):
    """Looks as often as the floor allows, so that tests need not wait for the first look."""

    def delay(self, waited: float, phase: str | None = None) -> float:
        return self._floor


def tiny_picture(order: Order) -> bytes:
    """A real PNG, quick to draw."""
    buffer = io.BytesIO()
    Pillow.new("RGB", (8, 8), (order.seed % 256, order.index, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class World:
    """One service and one state folder; `generations()` is one process of ours."""

    folder: Path
    service: Service
    updates: list[Update] = field(default_factory=list[Update])
    app: httpx.AsyncBaseTransport | None = None
    styles_url: str | None = None

    async def on_update(self, update: Update) -> None:
        self.updates.append(update)

    def generations(
        self,
        limits: Limits = LIMITS,
        *,
        output_dir: Path | None = None,
        pace: type[PollSchedule] = Eager,
    ) -> Generations:
        @asynccontextmanager
        async def connect(errands: Errands) -> AsyncGenerator[Remote]:
            state = open_state(self.folder / "state")
            app = self.app or httpx.ASGITransport(app=self.service)
            async with Transport(user_agent="test", app=app) as transport:
                identity = Identity(
                    name="test",
                    auth_url=ORIGIN + SIGN_UP_PATHS[0],
                    token_refresh_url=ORIGIN + REFRESH_PATH,
                    client_type="CLIENT_TYPE_ANDROID",
                    api_key=Secret("test-api-key"),
                )
                tokens = TokenSource(identity, state=state, transport=transport, errands=errands)
                client = ArtaClient(
                    ORIGIN, tokens=tokens, transport=transport, styles_url=self.styles_url
                )
                yield Remote(client, state)
            await state.close()

        return Generations(
            connect,
            backend="arta",
            service="test",
            limits=limits,
            output_dir=output_dir,
            pace=pace,
        )


def new_world(
    folder: Path, *, queue: float = 0.0, draw: float = 0.0, engine: Engine = tiny_picture
) -> World:
    """Jobs take no time unless told so; pictures are tiny but real."""
    return World(folder, Service(folder / "service", engine=engine, queue=queue, draw=draw))
