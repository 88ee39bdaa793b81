from __future__ import annotations

import json
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

import anyio
import anyio.lowlevel
import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from arta_mcp.arta.protocol import REFRESH_PATH, SIGN_UP_PATHS, Addresses
from arta_mcp.arta.tokens import TokenSource
from arta_mcp.errors import ArtaError, AuthError, ProtocolError, RateLimited, Unavailable
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.redaction import Secret
from harness.service import ScriptedServer, ScriptedService
from harness.service_calls import Clock, paint
from harness.world import Client

pytestmark = pytest.mark.anyio

KEY = "sentinel/key+7c1e"
HOUR = 3600.0
ORIGIN = "http://127.0.0.1:9"


@dataclass
class World:
    """An identity host, a state folder and a clock; each `source()` is a process of its own."""

    service: ScriptedService
    folder: Path
    clock: Clock
    origin: str = ORIGIN
    app: Callable[[Scope, Receive, Send], Awaitable[None]] | None = None
    slept: list[float] = field(default_factory=list[float])

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await anyio.lowlevel.checkpoint()

    @property
    def seen(self) -> tuple[int, int]:
        """How many sign-ups and refreshes the service saw."""
        return self.service.seen["sign_up"], self.service.seen["refresh"]

    def strike(self, *faults: str) -> None:
        self.service.faults.add(*map(Fault.parse, faults))

    def file(self, name: str = "test") -> Path:
        return self.folder / f"account-{name}.json"

    def stored(self, name: str = "test") -> dict[str, str]:
        return json.loads(self.file(name).read_text(encoding="utf-8"))

    def source(
        self, name: str = "test", key: str = KEY
    ) -> AbstractAsyncContextManager[TokenSource]:
        on_port = self.origin != ORIGIN
        client = Client(
            state_dir=self.folder,
            addresses=Addresses.at_origin(self.origin),
            app=None if on_port else httpx.ASGITransport(app=self.app or self.service),
            account=name,
            key=key,
            clock=self.clock,
            sleep=self.sleep,
        )
        return client.open_tokens()

    async def current(self) -> str:
        """The token that a new process gets."""
        async with self.source() as source:
            return (await source.get_token()).reveal()

    async def refused(self) -> ArtaError:
        async with self.source() as source:
            with pytest.raises(ArtaError) as caught:
                await source.get_token()
        return caught.value


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    clock = Clock()
    service = ScriptedService(tmp_path / "service", engine=paint, clock=clock)
    yield World(service, tmp_path / "state", clock)
    service.close()


@pytest.fixture(params=["in process", "on a port"])
def either(request: pytest.FixtureRequest, world: World) -> Iterator[World]:
    if request.param == "in process":
        yield world
        return
    with ScriptedServer(world.service) as running:
        world.origin = running.base_url
        yield world


async def fifty(ask: Callable[[], Awaitable[Secret]]) -> set[str]:
    """The tokens that fifty tasks get at once."""
    found: list[str] = []

    async def one() -> None:
        found.append((await ask()).reveal())

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(one)
    assert len(found) == 50
    return set(found)


# One sign-up, one refresh


async def test_fifty_first_calls_at_once_make_one_sign_up(either: World) -> None:
    async with either.source() as source:
        (token,) = await fifty(source.get_token)
    assert either.seen == (1, 0)
    assert either.stored()["id_token"] == token


async def test_fifty_calls_with_a_stale_token_make_one_refresh(either: World) -> None:
    async with either.source() as source:
        before = (await source.get_token()).reveal()
        either.clock.now += HOUR
        (after,) = await fifty(source.get_token)
    assert before != after
    assert either.seen == (1, 1)
    assert len(either.service.accounts) == 1


async def test_a_kept_token_is_used_without_asking_anybody(world: World) -> None:
    token = await world.current()
    for _ in range(3):
        assert await world.current() == token
    assert world.seen == (1, 0)


async def test_a_token_is_renewed_five_minutes_ahead_of_its_end(world: World) -> None:
    token = await world.current()
    world.clock.now += HOUR - 301
    assert await world.current() == token
    world.clock.now += 1
    assert await world.current() != token
    assert world.seen == (1, 1)


async def test_a_short_lived_token_is_renewed_a_fifth_of_its_life_ahead(world: World) -> None:
    world.service.token_lifetime = 10.0
    token = await world.current()
    world.clock.now += 7.9
    assert await world.current() == token
    world.clock.now += 0.1
    assert await world.current() != token


async def test_two_processes_that_start_at_once_share_one_sign_up_and_one_refresh(
    either: World,
) -> None:
    async with either.source() as first, either.source() as second:
        for expected in [(1, 0), (1, 1), (1, 2)]:
            found: set[str] = set()

            async def ask(source: TokenSource, found: set[str] = found) -> None:
                found |= await fifty(source.get_token)

            with anyio.fail_after(20):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask, first)
                    tasks.start_soon(ask, second)
            assert len(found) == 1
            assert either.seen == expected
            either.clock.now += HOUR


async def test_a_process_uses_what_another_renewed_meanwhile(world: World) -> None:
    async with world.source() as first, world.source() as second:
        await first.get_token()
        await second.get_token()
        world.clock.now += HOUR
        assert await first.get_token() == await second.get_token()
    assert world.seen == (1, 1)


async def test_months_of_use_are_one_account(world: World) -> None:
    async with world.source() as source:
        for _ in range(60):
            await source.get_token()
            world.clock.now += 36 * HOUR
    assert world.seen == (1, 59)
    assert len(world.service.accounts) == 1


# A token that the image host refuses


async def test_fifty_calls_refused_with_one_token_renew_it_once(either: World) -> None:
    async with either.source() as source:
        refused = await source.get_token()
        either.service.refuse_token(refused.reveal())
        (token,) = await fifty(lambda: source.renew_token(refused))
    assert token != refused.reveal()
    assert either.seen == (1, 1)


async def test_a_refusal_that_comes_late_does_not_renew_again(world: World) -> None:
    async with world.source() as source, world.source() as other:
        refused = await source.get_token()
        renewed = await other.renew_token(refused)
        assert await source.renew_token(refused) == renewed
        assert await source.renew_token(refused) == renewed
    assert world.seen == (1, 1)


async def test_a_refused_token_is_not_given_out_again_after_a_restart(world: World) -> None:
    async with world.source() as source:
        renewed = await source.renew_token(await source.get_token())
    assert await world.current() == renewed.reveal()


# What comes back is kept


async def test_the_refresh_token_that_came_back_is_the_one_kept(world: World) -> None:
    world.service.rotate = True
    seen: set[str] = set()
    for _ in range(4):
        await world.current()
        seen.add(world.stored()["refresh_token"])
        world.clock.now += HOUR
    assert len(seen) == 4
    assert world.seen == (1, 3)


async def test_what_a_refresh_leaves_out_stays_as_it_was(world: World) -> None:
    await world.current()
    before = world.stored()
    world.app = answering(200, {"id_token": "another-id-token", "expires_in": "3600"})
    world.clock.now += HOUR
    assert await world.current() == "another-id-token"
    after = world.stored()
    assert (after["refresh_token"], after["user_id"]) == (
        before["refresh_token"],
        before["user_id"],
    )


def answering(status: int, answer: object) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """A host that says one thing only."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    return app


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"id_token": "a", "refresh_token": "b", "issued_at": 0',
        b'{"error": {"code": 400, "message": "TOKEN_EXPIRED"}}',
        b'{"id_token": null, "refresh_token": null, "issued_at": 1, "expires_at": 2}',
        b'{"id_token": "a", "refresh_token": "b", "issued_at": "1", "expires_at": "2"}',
        b'{"id_token": "a", "refresh_token": "b", "issued_at": NaN, "expires_at": NaN}',
        b'{"id_token": "a", "refresh_token": "b", "issued_at": 0, "expires_at": Infinity}',
        b'{"id_token": "a", "refresh_token": "b", "issued_at": 0, "expires_at": 1%s}'
        % (b"0" * 400),
        b'{"id_token": "a\\nb", "refresh_token": "b", "issued_at": 0, "expires_at": 1e9}',
        b'{"id_token": "\\ud800", "refresh_token": "b", "issued_at": 0, "expires_at": 1e9}',
        b'{"id_token": "", "refresh_token": "b", "issued_at": 0, "expires_at": 1e9}',
        b'{"id_token": "a", "refresh_token": "", "issued_at": 0, "expires_at": 1e9}',
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content[:60]),
)
async def test_a_damaged_token_file_is_the_same_as_none(world: World, content: bytes) -> None:
    await world.current()
    world.file().write_bytes(content)
    token = await world.current()
    assert world.seen == (2, 0)
    assert world.stored()["id_token"] == token
    assert stat.S_IMODE(world.file().stat().st_mode) == 0o600


async def test_any_half_of_a_token_file_is_the_same_as_none(world: World) -> None:
    await world.current()
    whole = world.file().read_bytes()
    for count, length in enumerate(range(0, len(whole) - 2, 60), 2):
        world.file().write_bytes(whole[:length])
        await world.current()
        assert world.seen == (count, 0)


async def test_a_clock_that_goes_back_renews_and_does_not_sign_up(world: World) -> None:
    async with world.source() as source:
        token = await source.get_token()
        world.clock.now -= 30
        assert await source.get_token() == token
        world.clock.now -= 24 * HOUR
        assert await source.get_token() != token
        assert await source.get_token() == await source.get_token()
    assert world.seen == (1, 1)


async def test_a_forgotten_account_is_made_anew(world: World) -> None:
    async with world.source() as source:
        first = await source.get_token()
        await source.forget_account()
        assert not world.file().exists()
        assert await source.get_token() != first
        await source.forget_account()
        await source.forget_account()
    assert world.seen == (2, 0)


async def test_accounts_of_different_names_never_mix(world: World) -> None:
    async with world.source("one") as one, world.source("two", "another-key") as two:
        first, second = await one.get_token(), await two.get_token()
        assert first != second
        world.clock.now += HOUR
        assert await one.get_token() not in (first, second)
        assert world.stored("two")["id_token"] == second.reveal()
        await one.forget_account()
        assert await two.get_token() not in (first, second)
    assert world.seen == (2, 2)


# Refusals


GONE = ("TOKEN_EXPIRED", "USER_NOT_FOUND", "INVALID_REFRESH_TOKEN", "PROJECT_NUMBER_MISMATCH")


@pytest.mark.parametrize("code", GONE)
async def test_a_refresh_that_is_refused_for_good_leads_to_one_new_sign_up(
    either: World, code: str
) -> None:
    async with either.source() as source:
        await source.get_token()
        either.clock.now += HOUR
        either.strike(f"{code}@refresh")
        (token,) = await fifty(source.get_token)
    assert either.seen == (2, 1)
    assert either.stored()["id_token"] == token


@pytest.mark.parametrize("how", ["delete", "expire"])
async def test_an_account_that_is_gone_at_the_service_is_replaced(world: World, how: str) -> None:
    await world.current()
    (user,) = world.service.accounts
    (world.service.delete if how == "delete" else world.service.expire)(user)
    world.clock.now += HOUR
    await world.current()
    assert world.seen == (2, 1)
    assert world.stored()["user_id"] != user


async def test_a_disabled_account_is_an_error_and_no_loop(world: World) -> None:
    await world.current()
    before = world.file().read_bytes()
    world.service.disable(world.service.accounts[0])
    world.clock.now += HOUR
    for count in (1, 2, 3):
        error = await world.refused()
        assert type(error) is AuthError
        assert str(error) == "the identity host refuses with 400: USER_DISABLED"
        assert "account reset" in error.hint
        assert world.seen == (1, count)
    assert world.file().read_bytes() == before


@pytest.mark.parametrize(
    "code", ["INVALID_GRANT_TYPE", "MISSING_GRANT_TYPE", "MISSING_REFRESH_TOKEN"]
)
async def test_a_refresh_that_we_got_wrong_is_an_error_and_keeps_the_account(
    world: World, code: str
) -> None:
    await world.current()
    world.clock.now += HOUR
    world.strike(f"{code}@refresh")
    assert type(await world.refused()) is AuthError
    assert await world.current()
    assert world.seen == (1, 2)


SIGN_UP_ERRORS = {
    "OPERATION_NOT_ALLOWED": (AuthError, "anonymous accounts"),
    "ADMIN_ONLY_OPERATION": (AuthError, "anonymous accounts"),
    "PROJECT_DISABLED": (AuthError, "anonymous accounts"),
    "API_KEY_INVALID": (AuthError, "ARTA_API_KEY"),
    "API_KEY_ANDROID_APP_BLOCKED": (AuthError, "official app"),
    "API_KEY_IOS_APP_BLOCKED": (AuthError, "official app"),
    "API_KEY_HTTP_REFERRER_BLOCKED": (AuthError, "web pages of its owner"),
    "API_KEY_SERVICE_BLOCKED": (AuthError, "allow it the Identity Toolkit API"),
    "SERVICE_DISABLED": (AuthError, "switch it on"),
    "CONFIGURATION_NOT_FOUND": (AuthError, "no Firebase Authentication"),
    "UNAUTHENTICATED": (AuthError, "App Check"),
    "PERMISSION_DENIED": (AuthError, "ARTA_API_KEY"),
    "INVALID_ARGUMENT": (AuthError, "ARTA_API_KEY"),
    "TOO_MANY_ATTEMPTS_TRY_LATER": (RateLimited, "wait some minutes"),
    "QUOTA_EXCEEDED": (RateLimited, "wait some minutes"),
    "429": (RateLimited, "wait some minutes"),
    "500": (Unavailable, "try again later"),
    "502": (Unavailable, "try again later"),
    "503": (Unavailable, "try again later"),
    "504": (Unavailable, "try again later"),
    "403": (AuthError, "ARTA_API_KEY"),
    "redirect-307": (AuthError, "ARTA_API_KEY"),
    "empty-body": (ProtocolError, "report"),
    "html-body": (ProtocolError, "report"),
    "not-object": (ProtocolError, "report"),
    "truncated-json": (ProtocolError, "report"),
    "wrong-types": (AuthError, "ARTA_API_KEY"),
    "echo": (AuthError, "ARTA_API_KEY"),
}


@pytest.mark.parametrize("fault", SIGN_UP_ERRORS)
async def test_a_refused_sign_up_is_one_error_that_says_what_to_do(
    world: World, fault: str
) -> None:
    world.strike(f"{fault}@sign_up*always")
    kind, hint = SIGN_UP_ERRORS[fault]
    error = await world.refused()
    assert type(error) is kind
    assert hint in error.hint
    passes = fault.isdigit() and int(fault) in (408, 429, *range(500, 600))
    assert world.seen == ((4 if passes else 1), 0)
    assert world.slept == ([0.5, 1.0, 2.0] if passes else [])
    assert not world.file().exists()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("Requests from this iOS client application <empty> are blocked.", "official app"),
        ("Requests from referer <empty> are blocked.", "web pages of its owner"),
        ("Requests to this API identitytoolkit method x are blocked.", "Identity Toolkit API"),
        ("The provided API key has an IP address restriction.", "other machines"),
        ("The request is missing a valid API key.", "ARTA_API_KEY"),
    ],
)
async def test_a_refusal_without_a_reason_is_known_by_its_words(
    world: World, words: str, hint: str
) -> None:
    error = {"code": 403, "message": words, "status": "PERMISSION_DENIED"}
    world.app = answering(403, {"error": error})
    assert hint in (await world.refused()).hint


@pytest.mark.parametrize("fault", ["408", "429", "500", "502", "503", "504", "late-502"])
async def test_a_sign_up_that_was_answered_but_not_served_is_tried_again(
    world: World, fault: str
) -> None:
    world.strike(f"{fault}@sign_up*3")
    assert await world.current()
    assert (world.seen, world.slept) == ((4, 0), [0.5, 1.0, 2.0])


@pytest.mark.parametrize("code", GONE)
async def test_a_sign_up_refused_in_the_words_of_a_refresh_is_an_error_too(
    world: World, code: str
) -> None:
    world.app = answering(400, {"error": {"code": 400, "message": code}})
    error = await world.refused()
    assert type(error) is AuthError
    assert str(error) == f"the identity host refuses a sign-up with {code}"


@pytest.mark.parametrize("kind", ["wait", "date", "ahead"])
@pytest.mark.parametrize("endpoint", ["sign_up", "refresh"])
async def test_a_short_retry_after_is_sat_out(world: World, kind: str, endpoint: str) -> None:
    if endpoint == "refresh":
        await world.current()
        world.clock.now += HOUR
    world.strike(f"429-{kind}@{endpoint}*2=3")
    assert await world.current()
    assert world.slept == [3.0, 3.0]
    assert world.seen == ((3, 0) if endpoint == "sign_up" else (1, 3))


async def test_a_long_retry_after_is_told_instead(world: World) -> None:
    world.strike("429-wait@sign_up=60")
    error = await world.refused()
    assert isinstance(error, RateLimited)
    assert (error.retry_after, error.hint) == (60.0, "wait 60 s, then try again")
    assert (world.slept, world.seen) == ([], (1, 0))


async def test_a_limit_that_stays_is_told_after_four_tries(world: World) -> None:
    world.strike("429-wait@sign_up*always=2")
    assert isinstance(await world.refused(), RateLimited)
    assert (world.slept, world.seen) == ([2.0, 2.0, 2.0], (4, 0))


@pytest.mark.parametrize("fault", ["500", "503", "reset-before", "reset-after", "answer-lost"])
async def test_a_refresh_that_fails_is_safe_to_repeat(world: World, fault: str) -> None:
    await world.current()
    world.clock.now += HOUR
    with ScriptedServer(world.service) as running:
        world.origin = running.base_url
        world.strike(f"{fault}@refresh*2")
        assert await world.current()
        assert (world.slept, world.seen) == ([0.5, 1.0], (1, 3))
        world.clock.now += HOUR
        world.strike(f"{fault}@refresh*always")
        assert isinstance(await world.refused(), Unavailable)
    assert world.seen == (1, 7)


@pytest.mark.parametrize("fault", ["reset-before", "reset-after", "answer-lost"])
async def test_a_sign_up_whose_answer_was_lost_is_not_repeated(world: World, fault: str) -> None:
    with ScriptedServer(world.service) as running:
        world.origin = running.base_url
        world.strike(f"{fault}@sign_up")
        assert isinstance(await world.refused(), Unavailable)
    assert (world.slept, world.seen) == ([], (1, 0))


async def test_a_refused_connection_is_tried_again_for_either(world: World) -> None:
    with ScriptedServer(world.service) as running:
        world.origin = running.base_url
        with running.refused():
            assert isinstance(await world.refused(), Unavailable)
        assert (world.slept, world.seen) == ([0.5, 1.0, 2.0], (0, 0))
        assert await world.current()


# Whoever asks may leave


class Gate:
    """The service behind a gate: what was asked is done, and the answer waits."""

    def __init__(self, service: ScriptedService) -> None:
        self._service = service
        self.arrived, self.opened = anyio.Event(), anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._service(scope, receive, keep)
        self.arrived.set()
        await self.opened.wait()
        for message in answer:
            await send(message)


async def test_a_cancelled_caller_does_not_lose_the_sign_up(world: World) -> None:
    gate = Gate(world.service)
    world.app = gate
    with anyio.fail_after(5):
        async with world.source() as source:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(source.get_token)
                await gate.arrived.wait()
                tasks.cancel_scope.cancel()
            assert (world.seen, world.file().exists()) == ((1, 0), False)
            gate.opened.set()
            assert await source.get_token()
        assert await world.current()
    assert world.seen == (1, 0)


async def test_a_process_that_ends_in_the_middle_of_a_sign_up_still_keeps_it(world: World) -> None:
    gate = Gate(world.service)
    world.app = gate
    with anyio.fail_after(5):
        async with world.source() as source:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(source.get_token)
                await gate.arrived.wait()
                tasks.cancel_scope.cancel()
            gate.opened.set()
        assert await world.current()
    assert world.seen == (1, 0)


async def test_one_of_fifty_callers_may_leave_and_the_others_have_their_token(world: World) -> None:
    gate = Gate(world.service)
    world.app = gate
    with anyio.fail_after(5):
        async with world.source() as source, anyio.create_task_group() as tasks:
            leaver = anyio.CancelScope()

            async def leave() -> None:
                with leaver:
                    await source.get_token()

            tasks.start_soon(leave)
            await gate.arrived.wait()
            leaver.cancel()
            gate.opened.set()
            assert len(await fifty(source.get_token)) == 1
    assert world.seen == (1, 0)


async def test_an_error_reaches_every_caller_and_the_next_one_asks_again(world: World) -> None:
    world.strike("500@sign_up*4")
    errors: list[str] = []

    async with world.source() as source:

        async def ask() -> None:
            try:
                await source.get_token()
            except Unavailable as exc:
                errors.append(str(exc))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
        assert await source.get_token()
    assert errors == ["the identity host refuses with 500: INTERNAL Internal Server Error"]
    assert world.seen == (5, 0)


# What is sent, and what is shown


async def test_the_key_is_in_the_address_and_the_fields_are_the_documented_ones(
    world: World,
) -> None:
    asked: list[tuple[str, str, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        asked.append((scope["path"], scope["query_string"].decode(), body))
        await world.service({**scope, "path": scope["path"]}, _once(body), send)

    world.app = app
    await world.current()
    stored = world.stored()
    world.clock.now += HOUR
    await world.current()
    (sign_up_path, sign_up_query, sign_up), (refresh_path, refresh_query, refresh) = asked
    assert (sign_up_path, refresh_path) == (SIGN_UP_PATHS[0], REFRESH_PATH)
    assert sign_up_query == refresh_query == "key=sentinel%2Fkey%2B7c1e"
    assert json.loads(sign_up) == {"clientType": "CLIENT_TYPE_ANDROID", "returnSecureToken": True}
    form = dict(parse_qsl(refresh.decode()))
    assert form["grant_type"] == "refresh_token"
    assert form["refresh_token"] == stored["refresh_token"]


def _once(body: bytes) -> Receive:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def test_no_error_shows_key_or_token_although_the_host_repeats_them(world: World) -> None:
    await world.current()
    stored = world.stored()
    world.clock.now += HOUR
    world.strike("echo@refresh")
    error = await world.refused()
    said = f"{error!r} {error} {error.hint} {error.__context__!r} {error.__cause__!r}"
    assert "[redacted]" in said
    secrets = (KEY, "sentinel%2Fkey", stored["id_token"], stored["refresh_token"])
    assert [secret for secret in secrets if secret in said] == []


async def test_only_the_token_file_holds_a_token(world: World) -> None:
    await world.current()
    token = world.stored()["id_token"].encode()
    holding = [path.name for path in world.folder.iterdir() if token in path.read_bytes()]
    assert holding == ["account-test.json"]
    assert [p.name for p in world.folder.iterdir() if KEY.encode() in p.read_bytes()] == []
