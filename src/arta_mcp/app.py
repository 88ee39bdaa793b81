"""The composition root: from Settings to Generations, the one place that joins the rooms."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from arta_mcp.arta.client import ArtaClient
from arta_mcp.arta.protocol import Addresses
from arta_mcp.arta.tokens import Identity, TokenSource
from arta_mcp.arta.transport import Transport
from arta_mcp.arta.url_guard import is_inside
from arta_mcp.background import BackgroundTasks, open_background
from arta_mcp.config import Settings
from arta_mcp.engines.base import Engine, EngineInfo, ListsModels
from arta_mcp.engines.open import open_engine
from arta_mcp.engines.sketch.info import describe
from arta_mcp.errors import ArtaError, ConfigError, NotCancellable, Unavailable
from arta_mcp.files import make_private_folder, write_atomically
from arta_mcp.generations.hourly_limit import PictureLimit
from arta_mcp.generations.schedule import PollSchedule
from arta_mcp.generations.service import DEFAULT_MAX_WAIT, Backend, Generations, Limits
from arta_mcp.generations.values import Cancellation, EngineUsed
from arta_mcp.redaction import Secret, sanitize
from arta_mcp.state.contract import State

if TYPE_CHECKING:
    from arta_mcp.engines.recipes import Recipes
    from arta_mcp.local.service import Service

LOCAL_KEY = "arta-mcp-local"
"""the key for the embedded service, which takes any"""


def open_generations(
    settings: Settings,
    *,
    output_dir: Path | None = None,
    warn: Callable[[str], None] | None = None,
    owner_concurrency: int | None = None,
    owner_hourly: int | None = None,
    schedule: type[PollSchedule] = PollSchedule,
    resume: bool = True,
) -> Generations:
    """The Generations that the settings describe; nothing is opened before its first call.

    `output_dir` goes before the setting; `warn` takes what a person should know;
    `owner_concurrency` bounds the jobs of one owner, `owner_hourly` what it orders in an hour;
    `schedule` decides when to poll. With `resume` the embedded service draws what processes that
    died have left; a process that ends at once must not begin a picture, which would be lost.
    """

    is_local = settings.backend == "local"
    engine = open_engine(settings, open_engine_transport(settings)) if is_local else None
    drawn_by = engine.describe() if engine else None

    @asynccontextmanager
    async def open_backend(background: BackgroundTasks) -> AsyncGenerator[Backend]:
        state = open_state(settings, background=background, warn=warn)
        try:
            async with (
                _addresses(settings, engine, resume=resume) as addresses,
                open_transport(settings) as transport,
            ):
                yield connect(
                    _identity(settings),
                    addresses,
                    state=state,
                    transport=transport,
                    background=background,
                    embedded=is_local,
                )
        finally:
            await state.close()

    return Generations(
        open_backend,
        backend=settings.backend,
        service=settings.service,
        owner=owner_of(settings),
        limits=Limits(
            max_wait=DEFAULT_MAX_WAIT if settings.max_wait is None else settings.max_wait,
            adapts_wait=settings.max_wait is None,
            job_timeout=settings.job_timeout,
            max_concurrency=settings.slots,
            owner_concurrency=owner_concurrency,
            owner_hourly=owner_hourly,
            min_poll_interval=settings.min_poll_interval,
            hourly=settings.hourly_limit if settings.has_key else None,
        ),
        output_dir=output_dir or settings.output_dir or pictures_dir(settings),
        engine=EngineUsed(drawn_by.engine, drawn_by.model) if drawn_by else None,
        engine_notice=_explain_engine,
        engine_summary=_summarize(settings, drawn_by),
        list_engine_models=(
            partial(list_engine_models, settings) if settings.draws_with_ai else None
        ),
        styles=load_recipes(settings).catalogue if settings.draws_with_ai else None,
        find_file=partial(find_picture, settings) if drawn_by else None,
        remove_files=partial(_remove_files, settings),
        cancel_job=partial(cancel_job, settings),
        schedule=schedule,
    )


def _explain_engine(used: EngineUsed) -> str | None:
    """What is said of a picture by what drew it; its settings of then may be gone."""
    match used.name:
        case "arta":
            return None
        case "sketch":
            return describe().notice
        case _:
            return f"drawn by {used.model or 'a model that it does not name'} through {used.name}"


def _summarize(settings: Settings, drawn_by: EngineInfo | None) -> str | None:
    """What a model is told of the engine before it asks, and how often it may."""
    parts = [drawn_by.summary] if drawn_by else []
    if settings.has_key and settings.hourly_limit:
        parts.append(f"At most {settings.hourly_limit} pictures an hour (ARTA_HOURLY_LIMIT).")
    return " ".join(parts) or None


def connect(
    identity: Identity,
    addresses: Addresses,
    *,
    state: State,
    transport: Transport,
    background: BackgroundTasks,
    embedded: bool = False,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> Backend:
    """The backend that answers at these addresses, with the tokens of one account.

    `embedded` is our own service on this machine, which says more of a job than the wire does.
    """
    tokens = TokenSource(
        identity,
        addresses,
        store=state,
        transport=transport,
        background=background,
        clock=clock,
        sleep=sleep,
    )
    client = ArtaClient(
        addresses,
        tokens=tokens,
        transport=transport,
        embedded=embedded,
        clock=clock,
        sleep=sleep,
    )
    return Backend(client, state)


def open_state(
    settings: Settings,
    *,
    background: BackgroundTasks | None = None,
    warn: Callable[[str], None] | None = None,
) -> State:
    """The state that the settings name; nothing is touched before the first call.

    Without `background` it can be read only. Raises ConfigError for a package that is missing.
    """
    if settings.state_url is None:
        from arta_mcp.state.sqlite import SqliteState  # sqlite3 and filelock are for the first call

        return SqliteState(state_dir(settings), warn=warn)
    try:
        from arta_mcp.state.redis import RedisState
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"ARTA_STATE_URL needs the package {exc.name}, which is not installed",
            hint="install arta-mcp with its extra: pip install 'arta-mcp[redis]'",
        ) from exc
    return RedisState(settings.state_url, background=background, warn=warn)


def owner_of(settings: Settings) -> str:
    """Whose generations stdio and the command line make: a state folder has one person only."""
    if settings.state_url is None:
        return ""
    if settings.owner is not None:
        return f"stdio:{settings.owner}"
    import getpass
    import platform

    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a user that the table of users does not have
        user = "unknown"
    return f"stdio:{user}@{platform.node()}"


async def forget_account(settings: Settings, *, warn: Callable[[str], None] | None = None) -> None:
    """Drops the stored account under its lock; the next picture signs up anew."""
    async with open_background() as background, open_transport(settings) as transport:
        state = open_state(settings, background=background, warn=warn)
        try:
            tokens = TokenSource(
                _identity(settings),
                _remote_addresses(settings),
                store=state,
                transport=transport,
                background=background,
            )
            await tokens.forget_account()
        finally:
            await state.close()


def state_dir(settings: Settings) -> Path:
    """The folder of tokens and journal. Raises ConfigError for a user without a home."""
    if settings.state_dir is not None:
        return settings.state_dir
    from platformdirs import user_state_path

    try:
        folder = user_state_path("arta-mcp", appauthor=False)
    except RuntimeError:  # neither HOME nor an entry in the table of users
        folder = Path()
    # Earlier versions of platformdirs leave the `~`: a folder of that name wherever we are started.
    if not folder.is_absolute():
        raise ConfigError(
            "this user has no home folder to keep tokens and generations in",
            hint="set ARTA_STATE_DIR to an absolute path, or HOME",
        )
    return folder


async def count_hour(settings: Settings) -> int:
    """The pictures that hosts have asked for in the last hour; see `PictureLimit`."""
    engine = settings.local_engine if settings.backend == "local" else "arta"
    state = open_state(settings)
    try:
        name = PictureLimit.name_of(settings.service, engine, owner_of(settings))
        return await state.counted(name)
    finally:
        await state.close()


def service_dir(settings: Settings) -> Path:
    """The folder of the embedded service: its accounts, jobs and pictures."""
    return state_dir(settings) / "local"


def make_service_dir(settings: Settings) -> Path:
    """The folder of the embedded service, in a state folder that is ours; raises OSError."""
    # Before the service makes anything in it: a folder that is refused stays as it is.
    make_private_folder(state_dir(settings))
    return service_dir(settings)


def pictures_dir(settings: Settings) -> Path | None:
    """Where pictures go that were drawn by an engine of the person's own: they are kept.

    None for others, and for a user without a folder of pictures.
    """
    if not settings.draws_with_ai:
        return None
    from platformdirs import user_pictures_path

    try:
        folder = user_pictures_path()
    except RuntimeError:
        return None
    return folder / "arta-mcp" if folder.is_absolute() else None


def load_recipes(settings: Settings) -> Recipes:
    """The styles of an engine that draws with a model. Raises ConfigError for a person's file."""
    from arta_mcp.engines.recipes import Recipes

    return Recipes.load(settings.local_styles)


def open_service(
    settings: Settings,
    engine: Engine | None,
    service: type[Service],
    *,
    queue: float | None = None,
    draw: float | None = None,
    latency: float = 0.0,
) -> Service:
    """The embedded service with that engine. Raises ConfigError, OSError.

    `queue`, `draw` and `latency` as `Service` says; a job of an engine takes only its own time.
    """
    is_ai = engine is not None and engine.describe().is_ai
    return service(
        make_service_dir(settings),
        engine=engine,
        recipes=load_recipes(settings) if is_ai else None,
        # A person who watches sees a sketch queue and be drawn.
        queue=0.0 if is_ai and queue is None else queue,
        draw=0.0 if is_ai and draw is None else draw,
        latency=latency,
        keep_bytes=settings.sketch_limit,
    )


def open_engine_transport(settings: Settings) -> Transport:
    """The HTTP client for the engine's server: no proxy stands between us and our own network."""
    host = urlsplit(settings.local_url or "").hostname or ""
    proxy = settings.proxy.reveal() if settings.proxy else None
    is_direct = is_inside(host)
    return Transport(
        user_agent=settings.user_agent,
        proxy=None if is_direct else proxy,
        direct=is_direct,
        # A server says nothing while it draws.
        download_timeout=settings.job_timeout,
    )


@asynccontextmanager
async def opened_engine(settings: Settings) -> AsyncGenerator[Engine]:
    """Another engine of these settings, for this event loop: the one that draws has its own."""
    engine = open_engine(settings, open_engine_transport(settings))
    try:
        yield engine
    finally:
        await engine.aclose()


async def list_engine_models(settings: Settings) -> tuple[str, ...]:
    """The models that the engine says it has; () where it has no list. Raises EngineError."""
    async with opened_engine(settings) as engine:
        return await engine.list_models() if isinstance(engine, ListsModels) else ()


def explain_service_error(settings: Settings, exc: OSError) -> ArtaError:
    """Why the embedded service cannot start, in the words of the state whose folder it shares."""
    from arta_mcp.state.checks import explain_folder_error

    if exc.filename is None and exc.errno is not None:  # no file: a socket
        why = sanitize(exc.strerror or str(exc))
        return Unavailable(f"the embedded service cannot start: {why}")
    return explain_folder_error(state_dir(settings), exc)


def find_picture(settings: Settings, record_id: str, index: int) -> str | None:
    """The path of a picture that the embedded service drew and still keeps."""
    from arta_mcp.local.store import picture_path

    path = picture_path(service_dir(settings), record_id, index)
    return str(path) if path is not None and path.is_file() else None


def make_link_key(settings: Settings) -> bytes:
    """What addresses of pictures are signed with: made once, for they open after a restart too.

    Raises ConfigError, Unavailable for a state folder that cannot be used.
    """
    path = state_dir(settings) / "picture-links.key"
    try:
        make_private_folder(path.parent)
        if not path.exists():
            write_atomically(path, secrets.token_hex(32).encode())
        return path.read_bytes()
    except OSError as exc:
        raise explain_service_error(settings, exc) from exc


def _remove_files(
    settings: Settings, record_ids: tuple[str, ...], pictures: Literal["sketches", "all"]
) -> int:
    """Removes what the embedded service keeps of these jobs; how many pictures."""
    if not service_dir(settings).is_dir():
        return 0
    from arta_mcp.local.store import KEEP_RECORDS, Store

    try:
        store = Store(service_dir(settings), keep=KEEP_RECORDS, keep_bytes=settings.sketch_limit)
        return store.remove(record_ids, pictures=pictures)
    except OSError as exc:
        raise explain_service_error(settings, exc) from exc


def cancel_job(settings: Settings, record_id: str) -> Cancellation | None:
    """Cancels a job of the embedded service's folder, whatever draws now. Raises NotCancellable."""
    if not service_dir(settings).is_dir():
        return None
    from arta_mcp.local import workers
    from arta_mcp.local.store import KEEP_RECORDS, Store

    try:
        store = Store(service_dir(settings), keep=KEEP_RECORDS, keep_bytes=settings.sketch_limit)
        if (record := store.record(record_id)) is None:
            return None
        count, failure = record.submission.n, store.progress(record_id).failure
        if store.is_over(record):
            why = f": {failure}" if failure else ", all of its pictures are drawn"
            raise NotCancellable(f"the job has ended{why}", record_id=record_id)
        is_drawing = workers.cancel_job(store, record)
        drawn = count - len(store.missing_pictures(record))
    except OSError as exc:
        raise explain_service_error(settings, exc) from exc
    return Cancellation(record_id, drawn, count, is_drawing)


def open_transport(settings: Settings) -> Transport:
    """The HTTP client that the settings describe; the embedded service is asked directly."""
    if settings.backend == "local":
        return Transport(user_agent=settings.user_agent, direct=True)
    proxy = settings.proxy.reveal() if settings.proxy else None
    return Transport(user_agent=settings.user_agent, proxy=proxy)


def open_issuer_transport(settings: Settings) -> Transport:
    """The HTTP client for an issuer of tokens, which may stand in our own network."""
    host = urlsplit(settings.http_issuer or "").hostname or ""
    proxy = settings.proxy.reveal() if settings.proxy else None
    return Transport(user_agent=settings.user_agent, proxy=proxy, direct=is_inside(host))


def _identity(settings: Settings) -> Identity:
    return Identity(
        name=settings.account_name,
        client_type=settings.client_type,
        api_key=settings.api_key or Secret(LOCAL_KEY),
    )


def _remote_addresses(settings: Settings) -> Addresses:
    return Addresses(
        settings.base_url, settings.auth_url, settings.token_refresh_url, settings.styles_url
    )


@asynccontextmanager
async def _addresses(
    settings: Settings, engine: Engine | None, *, resume: bool
) -> AsyncGenerator[Addresses]:
    """The remote addresses, or those of an embedded service that runs as long."""
    if settings.backend == "arta":
        yield _remote_addresses(settings)
        return
    from arta_mcp.local.loopback import LoopbackServer
    from arta_mcp.local.service import Service

    def start() -> LoopbackServer:
        service = open_service(settings, engine, Service)
        server = LoopbackServer(service).__enter__()
        if resume:
            service.workers.resume()
        return server

    try:
        server = await anyio.to_thread.run_sync(start)
    except OSError as exc:
        raise explain_service_error(settings, exc) from exc
    try:
        yield Addresses.at_origin(server.base_url)
    finally:
        # Shielded: a cancelled server must still free the port for the next one.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.close)
