"""The embedded service as tests need it: it counts, remembers, takes faults and does as told."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from arta_mcp.engines.base import Engine, ImageRequest
from arta_mcp.engines.sketch.drawing import SketchEngine
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.local.faults.injection import FaultyServer, FaultyService
from arta_mcp.local.loopback import LoopbackServer
from arta_mcp.local.service import Event
from arta_mcp.local.store import ServiceAccount


class ScriptedService(FaultyService):
    """`seen` counts requests by endpoint as they arrive, `log` holds them once answered.

    `strikes` has what happens, once, at the moment when a request to an endpoint arrives.
    """

    def __init__(
        self,
        folder: Path,
        *,
        engine: Callable[[ImageRequest], bytes] | Engine | None = None,
        faults: Iterable[Fault] = (),
        **options: Any,  # the service's own
    ) -> None:
        engine = SketchEngine(engine) if callable(engine) else engine
        super().__init__(folder, engine=engine, **options)
        self.faults.add(*faults)
        self.seen: Counter[str] = Counter()
        self.log: deque[Event] = deque(maxlen=10_000)
        self.strikes: dict[str, Callable[[], object]] = {}

    async def handle(self, endpoint: str, request: Request) -> Response:
        self.seen[endpoint] += 1
        if endpoint == "image" and "authorization" in request.headers:
            self.seen["leaks"] += 1
        if strike := self.strikes.pop(endpoint, None):
            strike()
        return await super().handle(endpoint, request)

    def note(self, event: Event) -> None:
        self.log.append(event)
        super().note(event)

    @property
    def accounts(self) -> tuple[str, ...]:
        """The user ids of every account in this folder."""
        return tuple(sorted(path.stem for path in self.folder.glob("accounts/*.json")))

    def disable(self, user_id: str) -> None:
        """Ban an account: its refresh tokens answer USER_DISABLED, its id tokens run out."""
        self.store.put_account(replace(self._known(user_id), disabled=True))

    def delete(self, user_id: str) -> None:
        """Delete an account: its refresh tokens answer USER_NOT_FOUND."""
        (self.folder / "accounts" / f"{user_id}.json").unlink()

    def expire(self, user_id: str) -> None:
        """Let an account's refresh tokens so far answer TOKEN_EXPIRED."""
        self.store.expire_refresh_tokens(self._known(user_id))

    def finish_drawing(self, timeout: float = 30.0) -> None:
        """Block until every job is drawn, or has failed."""
        until = time.monotonic() + timeout
        while self.workers.is_busy and time.monotonic() < until:
            time.sleep(0.002)

    def refuse_token(self, id_token: str) -> None:
        """Treat this id token as stale from now on."""
        self.refused_tokens.append(id_token)

    def _known(self, user_id: str) -> ServiceAccount:
        account = self.store.account(user_id)
        assert account is not None, user_id
        return account


class ScriptedServer(LoopbackServer):
    """A `ScriptedService` on a port, which can be shut."""

    def __init__(
        self, service: ScriptedService, *, host: str = "127.0.0.1", port: int | None = None
    ) -> None:
        super().__init__(service, host=host, port=port, server_type=FaultyServer)
        self.service = service

    @contextmanager
    def refused(self) -> Generator[None]:
        """While this lasts no connection is accepted; the port stays ours."""
        server = self._server
        assert isinstance(server, FaultyServer)
        loop = server.servers[0].get_loop()

        async def shut() -> None:
            server.shut_listener()

        asyncio.run_coroutine_threadsafe(shut(), loop).result(5)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(server.open_listener(), loop).result(5)
