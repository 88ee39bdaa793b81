"""Every row of docs/reference-provider.md that no other file shows."""

from __future__ import annotations

import stat
from pathlib import Path

import anyio
import httpx
import pytest

from arta_mcp.arta.protocol import (
    REFRESH_PATH,
    SIGN_UP_PATHS,
    SUBMIT_PATH,
    Addresses,
    Tokens,
    status_path,
)
from arta_mcp.arta.transport import Transport
from arta_mcp.config import Settings
from arta_mcp.errors import AuthError, UnknownStyle
from arta_mcp.generations.values import Generation, GenerationRequest, Update
from arta_mcp.redaction import Secret
from arta_mcp.state.sqlite import SqliteState
from arta_mcp.styles import DEFAULT, SHIPPED
from harness.service import ScriptedService
from harness.world import ORIGIN, Client, World, new_world, tiny_picture


def test_addresses_are_settings_and_the_rest_derives() -> None:
    settings = Settings.from_env({"ARTA_BASE_URL": "https://images.example/"})
    assert settings.base_url + SUBMIT_PATH == "https://images.example/api/v1/text2image"
    assert status_path("abc") == "/api/v1/text2image/abc/status"
    assert settings.auth_url.endswith(SIGN_UP_PATHS[0])
    assert settings.token_refresh_url.endswith(REFRESH_PATH)


def test_the_default_model_is_flux() -> None:
    assert DEFAULT == GenerationRequest(prompt="x").model == "flux"
    assert SHIPPED.resolve(DEFAULT).name == "Flux"


@pytest.mark.parametrize("alias", ["flux", "flux-dev", "f_pro", "gpt-image", "vincent_van_gogh"])
def test_every_alias_of_the_document_is_known(alias: str) -> None:
    try:
        assert SHIPPED.resolve(alias).name
    except UnknownStyle as gone:
        pytest.fail(str(gone))


@pytest.mark.anyio
async def test_authentication_lies_in_one_private_file_a_service(tmp_path: Path) -> None:
    service = ScriptedService(tmp_path / "service", engine=tiny_picture)
    folder = tmp_path / "missing" / "state"
    await current(service, folder)
    files = [path for path in folder.iterdir() if path.suffix == ".json"]
    assert [path.name for path in files] == ["account-reference.json"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_a_sign_up_without_an_id_token_is_an_error() -> None:
    with pytest.raises(AuthError):
        Tokens.parse(b'{"kind": "identitytoolkit#SignupNewUserResponse", "expiresIn": "3600"}')


@pytest.mark.anyio
async def test_a_refresh_keeps_the_token_that_came_back(tmp_path: Path) -> None:
    service = ScriptedService(tmp_path / "service", engine=tiny_picture, rotate=True)
    state = SqliteState(tmp_path / "state")
    await current(service, tmp_path / "state")
    first = await state.account("reference")
    await current(service, tmp_path / "state", later=4000)
    second = await state.account("reference")
    assert first is not None
    assert second is not None
    assert first.refresh_token != second.refresh_token
    await current(service, tmp_path / "state", later=8000)
    assert service.seen["sign_up"] == 1
    assert service.seen["refresh"] == 2


@pytest.mark.anyio
async def test_current_creates_then_keeps_then_refreshes(tmp_path: Path) -> None:
    service = ScriptedService(tmp_path / "service", engine=tiny_picture)
    seen: list[tuple[int, int]] = []
    for later in (0, 10, 3400, 3500):
        await current(service, tmp_path / "state", later=later)
        seen.append((service.seen["sign_up"], service.seen["refresh"]))
    assert seen == [(1, 0), (1, 0), (1, 1), (1, 1)]


async def current(service: ScriptedService, folder: Path, *, later: float = 0) -> Secret:
    """One process that asks for the current token, `later` seconds after the epoch of the test."""
    clock = lambda: 1_800_000_000 + later  # noqa: E731  # a name for one expression
    service.clock = clock
    client = Client(
        state_dir=folder,
        addresses=Addresses.at_origin(ORIGIN),
        app=httpx.ASGITransport(app=service),
        account="reference",
        clock=clock,
    )
    async with client.open_tokens() as tokens:
        return await tokens.get_token()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


@pytest.mark.anyio
async def test_the_stream_is_the_whole_flow(world: World) -> None:
    request = GenerationRequest.from_messages(
        [{"role": "user", "content": "a red fox"}], aspect_ratio="16:9", n=2, seed=7
    )
    async with world.generations() as generations:
        items = [item async for item in generations.stream(request)]
    assert isinstance(items[0], Update)
    assert isinstance(items[-1], Generation)
    assert (items[-1].request.prompt, len(items[-1].images)) == ("a red fox", 2)
    for endpoint in ("sign_up", "submit"):
        assert world.service.seen[endpoint] == 1


def test_the_prompt_or_else_the_last_user_message() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": [{"type": "text", "text": "last"}, {"type": "image"}]},
        {"role": "assistant", "content": "no"},
    ]
    assert GenerationRequest.from_messages(messages).prompt == "last"
    assert GenerationRequest.from_messages(messages, prompt="given").prompt == "given"


@pytest.mark.anyio
async def test_the_form_and_the_bare_token(world: World) -> None:
    sent: list[httpx.Request] = []

    class Recorder(httpx.ASGITransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await request.aread()
            sent.append(request)
            return await super().handle_async_request(request)

    world.app = Recorder(app=world.service)
    async with world.generations() as generations:
        await generations.generate(GenerationRequest(prompt="a fox", seed=7))
    submit = next(request for request in sent if request.url.path == SUBMIT_PATH)
    form = dict(httpx.QueryParams(submit.content.decode()))
    assert form == {
        "prompt": "a fox",
        "negative_prompt": "blurry, deformed hands, ugly",
        "style": "Flux",
        "images_num": "1",
        "cfg_scale": "7",
        "steps": "30",
        "aspect_ratio": "1:1",
        "seed": "7",
    }
    assert not submit.headers["authorization"].lower().startswith("bearer")
    assert {request.headers["user-agent"] for request in sent} == {"arta-mcp tests"}


@pytest.mark.anyio
async def test_every_call_goes_through_the_proxy() -> None:
    asked: list[bytes] = []

    async def proxy(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            asked.append((await stream.receive()).split(b"\r\n")[0])
            await stream.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    transport = Transport(user_agent="test", proxy=f"http://127.0.0.1:{port}")
    async with listener, transport, anyio.create_task_group() as group:
        group.start_soon(listener.serve, proxy)
        answer = await transport.exchange("GET", "http://images.example/x")
        assert answer.status == 503
        group.cancel_scope.cancel()
    assert asked == [b"GET http://images.example/x HTTP/1.1"]
