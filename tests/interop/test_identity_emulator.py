"""Our tokens at Google's own Firebase Auth emulator, which knows nothing of us.

It cannot show what it does not do: id tokens are unsigned and never expire, refresh tokens come
back unchanged, and nothing is rate-limited.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest

from arta_mcp.arta.account import Account
from arta_mcp.arta.protocol import Addresses, SignUp
from arta_mcp.arta.tokens import TokenSource
from arta_mcp.errors import AuthError
from arta_mcp.redaction import Secret
from arta_mcp.state.contract import State
from arta_mcp.state.sqlite import SqliteState
from arta_mcp.untrusted_json import is_object, list_or_empty
from harness.clients import Need, node, node_folder
from harness.service import ScriptedServer, ScriptedService
from harness.world import Client

pytestmark = pytest.mark.anyio

PROJECT = "demo-arta"
START_TIMEOUT = 90.0
"""seconds; it takes 5 on an idle machine"""

OLD_SIGN_UP = "/www.googleapis.com/identitytoolkit/v3/relyingparty/signupNewUser"
SIGN_UP = "/identitytoolkit.googleapis.com/v1/accounts:signUp"
REFRESH = "/securetoken.googleapis.com/v1/token"
ADMIN = f"/identitytoolkit.googleapis.com/v1/projects/{PROJECT}"

LATER = 4000.0
"""seconds after which an id token of one hour is stale"""


@dataclass(frozen=True)
class Emulator:
    """A running emulator and what an administrator does to it."""

    url: str

    def ask(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        answer = self._request("POST", ADMIN + path, json=body)
        return answer.json()

    def accounts(self) -> set[str]:
        found = self.ask("/accounts:query", {}).get("userInfo", [])
        assert isinstance(found, list)
        return {str(user["localId"]) for user in found}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # JSON

    def disable(self, user_id: str) -> None:
        self.ask("/accounts:update", {"localId": user_id, "disableUser": True})

    def clear(self) -> None:
        self._request("DELETE", f"/emulator/v1/projects/{PROJECT}/accounts")

    def _request(self, method: str, path: str, **more: object) -> httpx.Response:
        headers = {"Authorization": "Bearer owner"}
        with httpx.Client(trust_env=False, base_url=self.url, headers=headers) as client:
            answer = client.request(method, path, **more)  # pyright: ignore[reportArgumentType]  # `json` or nothing
        assert answer.status_code == 200, answer.text
        return answer


@pytest.fixture(scope="session")
def emulator(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One emulator for all tests; stopped by its own process group."""
    program = node_folder(need) / "node_modules" / "firebase-tools" / "lib" / "bin" / "firebase.js"
    folder = tmp_path_factory.mktemp("firebase")
    auth, hub, logging = _free_ports(3)
    settings = {
        name: {"host": "127.0.0.1", "port": port}
        for name, port in (("auth", auth), ("hub", hub), ("logging", logging))
    }
    config = {"emulators": {**settings, "ui": {"enabled": False}, "singleProjectMode": True}}
    (folder / "firebase.json").write_text(json.dumps(config), encoding="utf-8")
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "NO_UPDATE_NOTIFIER": "1"}
    arguments = ["emulators:start", "--only", "auth", "--project", PROJECT]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [node(need), str(program), *arguments],
            cwd=folder,
            env=environ | {"CI": "1"},  # asks for no news and sends none
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{auth}"
        anyio.run(_until_it_answers, url, process)
        assert process.poll() is None, (folder / "log.txt").read_text(encoding="utf-8")
        yield Emulator(url)
    finally:
        _stop(process)


async def _until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    """Ends with the emulator, too: then its log tells more than a time-out would."""
    with anyio.fail_after(START_TIMEOUT):
        async with httpx.AsyncClient(trust_env=False) as client:
            while process.poll() is None:
                try:
                    answer = await client.get(url)
                except httpx.TransportError:
                    await anyio.sleep(0.1)
                    continue
                assert answer.json()["authEmulator"]["ready"] is True
                return


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def _free_ports(count: int) -> list[int]:
    """Ports that were free together a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Witness(httpx.AsyncHTTPTransport):
    """The network, and what went over it."""

    def __init__(self) -> None:
        super().__init__(trust_env=False)
        self.seen: list[tuple[str, int]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        self.seen.append((request.url.path, response.status_code))
        return response


@dataclass(frozen=True)
class Desk:
    """A token source as one process has it; `seen` are the requests it sent."""

    tokens: TokenSource
    state: State
    seen: list[tuple[str, int]]

    async def account(self) -> Account:
        found = await self.state.account("emulated")
        assert found is not None
        return found


@asynccontextmanager
async def opened(
    emulator: Emulator,
    folder: Path,
    *,
    sign_up: str = OLD_SIGN_UP,
    key: str = "any-key",
    later: float = 0.0,
) -> AsyncGenerator[Desk]:
    """What a process that starts `later` seconds from now would use."""
    witness = Witness()
    client = Client(
        state_dir=folder,
        addresses=Addresses(emulator.url, emulator.url + sign_up, emulator.url + REFRESH),
        app=witness,
        account="emulated",
        key=key,
        clock=lambda: time.time() + later,
    )
    state = SqliteState(folder)
    try:
        with anyio.fail_after(60):
            async with client.open_tokens() as tokens:
                yield Desk(tokens, state, witness.seen)
    finally:
        await state.close()


# Our client at Google's side


@pytest.mark.parametrize("path", [OLD_SIGN_UP, SIGN_UP])
async def test_an_account_is_opened_at_both_addresses(
    emulator: Emulator, tmp_path: Path, path: str
) -> None:
    before = emulator.accounts()
    async with opened(emulator, tmp_path, sign_up=path) as desk:
        token = await desk.tokens.get_token()
        again = await desk.tokens.get_token()
        account = await desk.account()
    assert desk.seen == [(path, 200)]
    assert again == token == account.id_token
    assert emulator.accounts() - before == {account.user_id}
    assert account.expires_at - account.issued_at == 3600


async def test_many_tasks_and_two_processes_at_once_open_one_account(
    emulator: Emulator, tmp_path: Path
) -> None:
    before = emulator.accounts()
    async with (
        opened(emulator, tmp_path) as one,
        opened(emulator, tmp_path) as other,
        anyio.create_task_group() as group,
    ):
        for desk in [one, other] * 20:
            group.start_soon(desk.tokens.get_token)
    assert one.seen + other.seen == [(OLD_SIGN_UP, 200)]
    assert len(emulator.accounts() - before) == 1


async def test_a_stale_token_is_renewed_for_the_same_account(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with opened(emulator, tmp_path) as desk:
        await desk.tokens.get_token()
        first = await desk.account()
    before = emulator.accounts()
    async with opened(emulator, tmp_path, later=LATER) as desk:
        await desk.tokens.get_token()
        renewed = await desk.account()
    assert desk.seen == [(REFRESH, 200)]
    assert emulator.accounts() == before
    assert renewed.user_id == first.user_id
    assert renewed.expires_at > first.expires_at + LATER - 60


async def test_a_token_that_the_image_host_refused_is_renewed_once(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with opened(emulator, tmp_path) as desk:
        refused = await desk.tokens.get_token()
        await desk.tokens.renew_token(refused)
    assert desk.seen == [(OLD_SIGN_UP, 200), (REFRESH, 200)]


async def _spoil(emulator: Emulator, desk: Desk) -> None:
    account = replace(await desk.account(), refresh_token=Secret("garbage"))
    await desk.state.keep_account("emulated", account, fence=0)


async def _clear(emulator: Emulator, desk: Desk) -> None:
    await anyio.to_thread.run_sync(emulator.clear)


@pytest.mark.parametrize("trouble", [_spoil, _clear])
async def test_a_refused_refresh_token_leads_to_one_new_account(
    emulator: Emulator, tmp_path: Path, trouble: Callable[[Emulator, Desk], Awaitable[None]]
) -> None:
    async with opened(emulator, tmp_path) as desk:
        await desk.tokens.get_token()
        first = await desk.account()
        await trouble(emulator, desk)
    async with opened(emulator, tmp_path, later=LATER) as desk:
        token = await desk.tokens.get_token()
        again = await desk.tokens.get_token()
        second = await desk.account()
    assert desk.seen == [(REFRESH, 400), (OLD_SIGN_UP, 200)]
    assert again == token == second.id_token
    assert second.user_id != first.user_id
    assert second.user_id in emulator.accounts()


async def test_a_disabled_account_is_an_error_and_no_new_account(
    emulator: Emulator, tmp_path: Path
) -> None:
    async with opened(emulator, tmp_path) as desk:
        await desk.tokens.get_token()
        account = await desk.account()
    emulator.disable(account.user_id)
    before = emulator.accounts()
    async with opened(emulator, tmp_path, later=LATER) as desk:
        with pytest.raises(AuthError, match="USER_DISABLED"):
            await desk.tokens.get_token()
    assert desk.seen == [(REFRESH, 400)]
    assert emulator.accounts() == before


async def test_a_missing_key_is_told_in_the_hosts_words(emulator: Emulator, tmp_path: Path) -> None:
    async with opened(emulator, tmp_path, key="") as desk:
        with pytest.raises(AuthError, match="missing a valid API key") as caught:
            await desk.tokens.get_token()
    assert desk.seen == [(OLD_SIGN_UP, 403)]
    assert "ARTA_API_KEY" in caught.value.hint


# Our embedded service beside Google's


@dataclass(frozen=True)
class Ask:
    """One request that both sides are asked."""

    path: str
    json: Mapping[str, object] | None = None
    form: Mapping[str, str] | None = None
    body: bytes | None = None
    key: str = "any-key"


OURS = SignUp("CLIENT_TYPE_ANDROID").body()
GRANT = {"grant_type": "refresh_token"}
SAME: dict[str, Ask] = {
    "sign-up, old address": Ask(OLD_SIGN_UP, json=OURS),
    "sign-up, new address": Ask(SIGN_UP, json=OURS),
    "sign-up of other clients": Ask(SIGN_UP, json={"clientType": "CLIENT_TYPE_ANDROID"}),
    "sign-up as documented": Ask(SIGN_UP, json={"returnSecureToken": True}),
    "sign-up, empty": Ask(SIGN_UP, json={}),
    "sign-up without a key": Ask(SIGN_UP, json={}, key=""),
    "sign-up, no JSON": Ask(SIGN_UP, body=b"{no"),
    "refresh": Ask(REFRESH, form={**GRANT, "refresh_token": "TOKEN"}),
    "refresh, JSON": Ask(REFRESH, json={**GRANT, "refresh_token": "TOKEN"}),
    "refresh, JSON in camel case": Ask(
        REFRESH, json={"grantType": "refresh_token", "refreshToken": "TOKEN"}
    ),
    "refresh without a key": Ask(REFRESH, form={**GRANT, "refresh_token": "TOKEN"}, key=""),
    "refresh with garbage": Ask(REFRESH, form={**GRANT, "refresh_token": "garbage"}),
    "refresh without a token": Ask(REFRESH, form=GRANT),
    "refresh without a grant": Ask(REFRESH, form={"refresh_token": "TOKEN"}),
    "refresh with another grant": Ask(
        REFRESH, form={"grant_type": "password", "refresh_token": "TOKEN"}
    ),
}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    with ScriptedServer(ScriptedService(tmp_path_factory.mktemp("embedded"))) as running:
        yield running


@pytest.mark.parametrize("name", SAME)
def test_the_embedded_service_answers_in_googles_shape(
    emulator: Emulator, embedded: ScriptedServer, name: str
) -> None:
    google, ours = _answer(emulator.url, SAME[name]), _answer(embedded.base_url, SAME[name])
    expected = _shape(google.json())
    if google.status_code == 200 and SAME[name].path != REFRESH:
        assert isinstance(expected, dict)
        expected["email"] = "str"  # documented for anonymous accounts; the emulator leaves it out
    assert ours.status_code == google.status_code
    assert _shape(ours.json()) == expected
    if google.status_code != 200 and SAME[name].body is None:  # parsers word their complaints
        assert ours.json() == google.json()


def _answer(url: str, ask: Ask) -> httpx.Response:
    """The answer, with `TOKEN` filled in by a refresh token of a new account."""
    with httpx.Client(trust_env=False, base_url=url, params={"key": "any-key"}) as client:
        tokens = client.post(SIGN_UP, json={}).json()
    body, headers = ask.body, {"content-type": "application/json"}
    if ask.json is not None:
        body = json.dumps(ask.json).replace("TOKEN", tokens["refreshToken"]).encode()
    if ask.form is not None:
        fields = {k: v.replace("TOKEN", tokens["refreshToken"]) for k, v in ask.form.items()}
        body = str(httpx.QueryParams(fields)).encode()
        headers = {"content-type": "application/x-www-form-urlencoded"}
    parameters = {"key": ask.key} if ask.key else {}
    with httpx.Client(trust_env=False, base_url=url) as client:
        return client.post(ask.path, content=body, headers=headers, params=parameters)


def _shape(value: object) -> object:
    """Names and types without what is said."""
    if is_object(value):
        return {name: _shape(field) for name, field in value.items()}
    if found := list_or_empty(value):
        return [_shape(entry) for entry in found]
    return type(value).__name__
