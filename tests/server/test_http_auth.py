"""Tokens of an OpenID Connect issuer: what is taken, what is refused, when it is away."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from arta_mcp.arta.transport import Transport
from arta_mcp.errors import Unavailable
from arta_mcp.server import http_auth
from arta_mcp.server.http_auth import KEYS_TTL, MAX_STALE, UNKNOWN_KEY_PAUSE, TokenRefused
from harness.http_server import RunningServer, http_server
from harness.installed import TIMEOUT, Machine, content_of, remote_settings, run_service, text_of
from harness.issuer import AUDIENCE, SCOPE, Issuer

pytestmark = pytest.mark.anyio

METADATA = "/.well-known/oauth-protected-resource"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as running:
        yield running


@pytest.fixture(scope="module")
def server(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with run_service(tmp_path_factory.mktemp("service")) as service:
        machine = Machine.new(tmp_path_factory.mktemp("issued") / "machine").set(
            **remote_settings(service),
            ARTA_HTTP_ISSUER=issuer.url,
            ARTA_HTTP_PUBLIC_URL="http://mcp.example.com",
            ARTA_HTTP_TOKENS="robot=robot-token-0123456789",
        )
        with http_server(machine) as running:
            yield running


def ask(server: RunningServer, token: str) -> httpx.Response:
    headers = {
        **({"Authorization": f"Bearer {token}"} if token else {}),
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-11-25",
    }
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    with httpx.Client(trust_env=False, timeout=TIMEOUT) as client:
        return client.post(f"{server.url}/mcp", json=request, headers=headers)


def test_where_tokens_come_from_is_told_at_both_paths(
    server: RunningServer, issuer: Issuer
) -> None:
    with httpx.Client(trust_env=False) as client:
        for path in (METADATA, f"{METADATA}/mcp"):
            answer = client.get(server.url + path, headers={"Origin": "https://any.example"})
            assert answer.json() == {
                "resource": AUDIENCE,
                "authorization_servers": [issuer.url],
                "bearer_methods_supported": ["header"],
                "resource_name": "ARTA image generation",
                "scopes_supported": [SCOPE],
            }
            assert answer.headers["access-control-allow-origin"] == "*"
    challenge = ask(server, "").headers["www-authenticate"]
    assert challenge == (
        'Bearer realm="arta-mcp", scope="arta:draw",'
        f' resource_metadata="http://mcp.example.com{METADATA}/mcp"'
    )


TAKEN: dict[str, dict[str, Any]] = {
    "RS256": {},
    "ES256": {"kid": "ec"},
    "audiences": {"aud": [AUDIENCE, "another"]},
    "without /mcp": {"aud": "http://mcp.example.com"},
    "scp, a list": {"scope": None, "scp": ["other", SCOPE]},
    "scp, a text": {"scope": None, "scp": f"other {SCOPE}"},
    "exp within the leeway": {"exp": -30},
    "nbf within the leeway": {"nbf": 30},
}


@pytest.mark.parametrize("changed", TAKEN.values(), ids=TAKEN)
def test_a_token_of_the_issuer_for_this_server_is_taken(
    server: RunningServer, issuer: Issuer, changed: dict[str, Any]
) -> None:
    answer = ask(server, issuer.sign(**changed))
    assert answer.status_code == 200, answer.headers


SOMEBODYS_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SOMEBODYS_EC = ec.generate_private_key(ec.SECP256R1())

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "aud": ({"aud": "https://elsewhere.example/mcp"}, "Audience"),
    "no aud": ({"aud": None}, "aud"),
    "iss": ({"iss": "https://elsewhere.example"}, "issuer"),
    "no iss": ({"iss": None}, "iss"),
    "exp": ({"exp": -90}, "expired"),
    "no exp": ({"exp": None}, "exp"),
    "nbf": ({"nbf": 90}, "not yet valid"),
    "no sub": ({"sub": None}, "sub"),
    "somebody's RSA key": ({"key": SOMEBODYS_RSA}, "Signature"),
    "somebody's EC key": ({"kid": "ec", "key": SOMEBODYS_EC}, "Signature"),
    "unknown kid": ({"kid": "other", "key": SOMEBODYS_RSA}, "does not list"),
    "no kid": ({"kid": None}, "does not list"),
    "another kind of key": ({"kid": "ec", "key": SOMEBODYS_RSA}, "does not list"),
    "RS384": ({"alg": "RS384"}, "RS256, ES256"),
    "HS256": ({"key": "x" * 64, "alg": "HS256"}, "RS256, ES256"),
}


@pytest.mark.parametrize(("changed", "why"), REFUSED.values(), ids=REFUSED)
def test_every_other_token_is_refused_and_told_why(
    server: RunningServer, issuer: Issuer, changed: dict[str, Any], why: str
) -> None:
    assert_refused(ask(server, issuer.sign(**changed)), why)


UNSIGNED = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9."
"""`{"alg":"none"}` and `{"sub":"alice"}`"""


@pytest.mark.parametrize(
    ("token", "why"),
    [(UNSIGNED, "RS256, ES256"), ("not.a.token", "no signed JWT"), ("a" * 4000, "no signed JWT")],
    ids=["none", "no JWT", "no dots"],
)
def test_what_is_not_signed_is_refused(server: RunningServer, token: str, why: str) -> None:
    assert_refused(ask(server, token), why)


def assert_refused(answer: httpx.Response, why: str) -> None:
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    assert 'error="invalid_token"' in challenge
    assert f"{METADATA}/mcp" in challenge
    assert why in challenge


def test_a_token_without_the_scope_is_told_which(server: RunningServer, issuer: Issuer) -> None:
    answer = ask(server, issuer.sign(scope="openid arta:drawn"))
    assert answer.status_code == 403
    challenge = answer.headers["www-authenticate"]
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="arta:draw"' in challenge


async def test_a_person_is_the_subject_of_the_issuer_and_a_token_of_the_list_is_another(
    server: RunningServer, issuer: Issuer
) -> None:
    async with server.client("auto", issuer.sign()) as alice:
        made = content_of(await alice.call_tool("generate_image", {"prompt": "a fox"}))
    given = {"record_id": made["record_id"]}
    async with server.client("legacy", issuer.sign("ec")) as alice_later:
        found = content_of(await alice_later.call_tool("get_generation", given))
        assert found["status"] == "done"
    for token in (issuer.sign(sub="bob"), "robot-token-0123456789"):
        async with server.client("auto", token) as other:
            result = await other.call_tool("get_generation", given)
            assert "no generation has the record id" in text_of(result)


def test_an_issuer_that_is_away_is_no_fault_of_the_caller(issuer: Issuer, tmp_path: Path) -> None:
    machine = Machine.new(tmp_path / "machine").set(ARTA_HTTP_ISSUER=issuer.url)
    issuer.is_away = True
    try:
        with http_server(machine, "--audience", AUDIENCE) as running:
            answer = ask(running, issuer.sign())
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
            assert "the token issuer does not answer" in answer.text
            issuer.is_away = False
            until = time.monotonic() + TIMEOUT
            while ask(running, issuer.sign()).status_code != 200:
                assert time.monotonic() < until
                time.sleep(0.5)
            assert "Traceback" not in running.log
    finally:
        issuer.is_away = False


# The keys


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def keys_of(issuer: Issuer, clock: Clock) -> AsyncGenerator[http_auth.Issuer]:
    issuer.asked.clear()
    async with Transport(user_agent="tests", direct=True) as transport:
        yield http_auth.Issuer(issuer.url, audiences=(AUDIENCE,), transport=transport, clock=clock)


async def test_keys_are_read_once_in_ten_minutes_and_serve_an_hour_while_it_is_away() -> None:
    clock = Clock()
    with Issuer() as issuer:
        token = issuer.sign()
        async with keys_of(issuer, clock) as known:
            for _ in range(20):
                assert (await known.verify(token))["sub"] == "alice"
            assert set(issuer.asked.values()) == {1}
            clock.now += KEYS_TTL + 1
            await known.verify(token)
            assert set(issuer.asked.values()) == {2}
            issuer.is_away = True
            clock.now += MAX_STALE - 1
            await known.verify(token)
            await known.verify(token)  # it is not asked again for each
            assert issuer.asked["/realms/team/.well-known/openid-configuration"] == 3
            clock.now += 2
            with pytest.raises(Unavailable):
                await known.verify(token)


async def test_a_new_key_is_found_and_unknown_ones_do_not_have_the_issuer_asked_each_time() -> None:
    clock = Clock()
    with Issuer() as issuer:
        async with keys_of(issuer, clock) as known:
            await known.verify(issuer.sign())
            issuer.add_key("new", SOMEBODYS_RSA)
            for _ in range(20):
                with pytest.raises(TokenRefused):
                    await known.verify(issuer.sign("new"))
            assert set(issuer.asked.values()) == {1}
            clock.now += UNKNOWN_KEY_PAUSE + 1
            assert (await known.verify(issuer.sign("new")))["sub"] == "alice"
            assert set(issuer.asked.values()) == {2}


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://elsewhere.example"},
        {"jwks_uri": "http://keys.example/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": ""},
    ],
)
async def test_an_issuer_that_points_elsewhere_is_not_believed(
    document: dict[str, object],
) -> None:
    with Issuer() as issuer:
        issuer.document = document
        async with keys_of(issuer, Clock()) as known:
            with pytest.raises(Unavailable):
                await known.verify(issuer.sign())


async def test_a_single_key_needs_no_name() -> None:
    with Issuer() as issuer:
        del issuer.keys["ec"]
        async with keys_of(issuer, Clock()) as known:
            assert (await known.verify(issuer.sign(None)))["sub"] == "alice"
