"""From Settings to Generations: the one place that joins the rooms."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from arta_mcp.arta.client import ArtaClient
from arta_mcp.arta.protocol import REFRESH_PATH, SIGN_UP_PATHS
from arta_mcp.arta.tokens import Identity, TokenSource
from arta_mcp.arta.transport import Transport
from arta_mcp.background import Errands
from arta_mcp.config import Settings
from arta_mcp.generations.schedule import PollSchedule
from arta_mcp.generations.service import Generations, Limits, Remote
from arta_mcp.redaction import Secret
from arta_mcp.state.contract import State, open_state

LOCAL_KEY = "arta-mcp-local"
"""what the embedded service is told as a key; it takes any"""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where one backend answers."""

    base_url: str
    auth_url: str
    token_refresh_url: str
    styles_url: str | None = None
    """none for the embedded service: what it draws is what is shipped"""


def open_generations(
    settings: Settings,
    *,
    output_dir: Path | None = None,
    warn: Callable[[str], None] | None = None,
    pace: type[PollSchedule] = PollSchedule,
) -> Generations:
    """The Generations that the settings describe; nothing is opened before its first call.

    `output_dir` goes before the setting; `warn` is told what a person should know;
    `pace` decides when to look.
    """

    @asynccontextmanager
    async def connect(errands: Errands) -> AsyncGenerator[Remote]:
        state = open_state(state_dir(settings), warn=warn)
        try:
            async with _addresses(settings) as addresses, open_transport(settings) as transport:
                tokens = token_source(settings, addresses, state, transport, errands)
                client = ArtaClient(
                    addresses.base_url,
                    tokens=tokens,
                    transport=transport,
                    styles_url=addresses.styles_url,
                )
                yield Remote(client, state)
        finally:
            await state.close()

    return Generations(
        connect,
        backend=settings.backend,
        service=settings.service,
        limits=Limits(
            max_wait=settings.max_wait,
            job_timeout=settings.job_timeout,
            max_concurrency=settings.max_concurrency,
            min_poll_interval=settings.min_poll_interval,
        ),
        output_dir=output_dir or settings.output_dir,
        pace=pace,
    )


def token_source(
    settings: Settings,
    addresses: Addresses,
    state: State,
    transport: Transport,
    errands: Errands,
) -> TokenSource:
    """The tokens of the account that the settings name."""
    identity = Identity(
        name=settings.account_name,
        auth_url=addresses.auth_url,
        token_refresh_url=addresses.token_refresh_url,
        client_type=settings.client_type,
        api_key=settings.api_key or Secret(LOCAL_KEY),
    )
    return TokenSource(identity, state=state, transport=transport, errands=errands)


def state_dir(settings: Settings) -> Path:
    """The folder of tokens and journal."""
    if settings.state_dir is not None:
        return settings.state_dir
    from platformdirs import user_state_path

    return user_state_path("arta-mcp", appauthor=False)


def open_transport(settings: Settings) -> Transport:
    """The HTTP client that the settings describe; the embedded service is asked directly."""
    if settings.backend == "local":
        return Transport(user_agent=settings.user_agent, direct=True)
    proxy = settings.proxy.reveal() if settings.proxy else None
    return Transport(user_agent=settings.user_agent, proxy=proxy)


@asynccontextmanager
async def _addresses(settings: Settings) -> AsyncGenerator[Addresses]:
    """The remote addresses, or those of an embedded service that runs meanwhile."""
    if settings.backend == "arta":
        yield Addresses(
            settings.base_url, settings.auth_url, settings.token_refresh_url, settings.styles_url
        )
        return
    from arta_mcp.local.loopback import Running
    from arta_mcp.local.service import Service

    service = Service(state_dir(settings) / "local")
    running = Running(service)
    await anyio.to_thread.run_sync(running.__enter__)
    try:
        url = running.base_url
        yield Addresses(url, url + SIGN_UP_PATHS[0], url + REFRESH_PATH)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(running.close)
