"""The server on HTTP as a process: both eras, who may call, what belongs to whom, and its end."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import mcp
import pytest
from mcp import Client
from mcp.shared.subscriptions import ResourceUpdated
from mcp.types import (
    ReadResourceResult,
    ResourceTemplateReference,
    TextResourceContents,
)

from arta_mcp.local.faults.catalogue import Fault
from harness.http_server import RunningServer, http_client, http_server
from harness.installed import (
    TIMEOUT,
    Era,
    Machine,
    content_of,
    fetch_picture,
    image_urls,
    remote_settings,
    run_service,
    text_of,
)
from harness.service import ScriptedServer, ScriptedService
from harness.world import tiny_picture

pytestmark = pytest.mark.anyio

BOTH_ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])

ALICE, ALICES_NEXT = "alice-token-0123456789", "alice-token-of-tomorrow"
BOB = "bob-token-0123456789"
TOKENS = f"alice={ALICE},alice={ALICES_NEXT},bob={BOB}"


@pytest.fixture(scope="module")
def quick_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    """A service whose jobs take no time."""
    with run_service(tmp_path_factory.mktemp("quick")) as running:
        yield running


@pytest.fixture(scope="module")
def slow_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    """A service whose jobs never end."""
    folder = tmp_path_factory.mktemp("slow")
    made = ScriptedService(folder, engine=tiny_picture, queue=3600, draw=0)
    with ScriptedServer(made) as running:
        yield running


@pytest.fixture(scope="module")
def team(
    quick_service: ScriptedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server with two callers, reached by a name and from every address."""
    machine = Machine.new(tmp_path_factory.mktemp("team") / "machine").set(
        **remote_settings(quick_service),
        ARTA_HTTP_HOST="0.0.0.0",
        ARTA_HTTP_TOKENS=TOKENS,
        ARTA_HTTP_ALLOWED_HOSTS="127.0.0.1, mcp.example.com",
        ARTA_HTTP_ALLOWED_ORIGINS="https://app.example.com",
        ARTA_OUTPUT_DIR=str(tmp_path_factory.mktemp("saved")),
    )
    with http_server(machine) as running:
        yield running


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with nothing set: on loopback, for everybody there, with the embedded service."""
    machine = Machine.new(tmp_path_factory.mktemp("alone") / "machine")
    with http_server(machine) as running:
        yield running


async def draw(client: Client, prompt: str = "a fox", **arguments: object) -> dict[str, Any]:
    result = await client.call_tool("generate_image", {"prompt": prompt, **arguments})
    return content_of(result)


async def wait_until(is_so: Callable[[], bool]) -> None:
    with anyio.fail_after(TIMEOUT):
        while not is_so():
            await anyio.sleep(0.01)


def in_text(read: ReadResourceResult) -> str:
    (found,) = read.contents
    assert isinstance(found, TextResourceContents)
    return found.text


def post(
    server: RunningServer, content: object = None, token: str = ALICE, **headers: str
) -> httpx.Response:
    """A `tools/list` of the old era, or other content, by hand."""
    request: dict[str, object] = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    sent: dict[str, str] = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": "2025-11-25",
        **({"Authorization": f"Bearer {token}"} if token else {}),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    body = content if isinstance(content, bytes) else json.dumps(content or request)
    with httpx.Client(trust_env=False, timeout=TIMEOUT) as client:
        as_bytes = [(name.encode(), value.encode()) for name, value in sent.items()]
        return client.post(f"{server.url}/mcp", content=body, headers=as_bytes)


# Both eras


@BOTH_ERAS
async def test_a_picture_is_drawn_with_progress_and_opens_by_its_address(
    alone: RunningServer, era: Era
) -> None:
    told: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        assert total is None
        told.append((progress, message))

    async with alone.client(era) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == [
            *("generate_image", "get_generation", "list_models"),
        ]
        result = await client.call_tool(
            "generate_image", {"prompt": "a fox", "n": 2}, progress_callback=on_progress
        )
        done: dict[str, Any] = content_of(result)
        again = content_of(
            await client.call_tool("get_generation", {"record_id": done["record_id"]})
        )
        listed = in_text(await client.read_resource("arta://generations"))
        models = content_of(await client.call_tool("list_models", {"search": "flux"}))
    assert [seconds for seconds, _ in told] == sorted({seconds for seconds, _ in told})
    assert any("queued" in (message or "") or "drawing" in (message or "") for _, message in told)
    assert len(image_urls(done)) == len(image_urls(again)) == 2
    for url in [*image_urls(done), *image_urls(again)]:
        assert url.startswith(f"{alone.url}/pictures/{done['record_id']}/")
        assert (await fetch_picture(url)).width > 100
    assert [image["path"] for image in done["images"]] == [None, None]
    assert str(alone.log_file.parent) not in text_of(result) + listed
    assert done["record_id"] in listed
    assert models["total"]


async def test_a_link_that_was_changed_opens_nothing(alone: RunningServer) -> None:
    async with alone.client() as client:
        (url,) = image_urls(await draw(client))
    later = url.replace("until=1", "until=2")
    async with http_client() as asked:
        for changed in (f"{url}0", url.replace("/0?", "/1?"), url.partition("?")[0], later):
            assert (await asked.get(changed)).status_code == 404


async def test_who_cannot_be_told_from_others_has_no_newest_generation(
    alone: RunningServer,
) -> None:
    async with alone.client() as client:
        await draw(client)
        result = await client.call_tool("get_generation", {})
    assert result.is_error
    assert "record_id is missing: this server cannot tell its callers apart" in text_of(result)


async def test_equal_orders_of_callers_that_cannot_be_told_apart_are_two_jobs(
    slow_service: ScriptedServer, tmp_path: Path
) -> None:
    settings = remote_settings(slow_service)
    machine = Machine.new(tmp_path / "machine").set(**settings, ARTA_MAX_WAIT="0")
    before = len(slow_service.service.jobs)
    with http_server(machine) as running:

        async def leave_in_the_middle() -> None:
            async with running.client() as client:
                with anyio.move_on_after(0.5):
                    await draw(client, "an equal order")

        await leave_in_the_middle()
        async with running.client() as client:
            await draw(client, "an equal order")
    assert len(slow_service.service.jobs) - before == 2


@BOTH_ERAS
async def test_a_known_caller_that_left_gets_its_job_with_the_next_equal_call(
    slow_service: ScriptedServer, tmp_path: Path, era: Era
) -> None:
    machine = Machine.new(tmp_path / "machine").set(
        **remote_settings(slow_service), ARTA_HTTP_TOKENS=TOKENS
    )
    before = len(slow_service.service.jobs)
    results: list[dict[str, Any]] = []
    with http_server(machine) as running:
        polls = slow_service.service.seen["status"]
        with anyio.move_on_after(TIMEOUT):
            async with anyio.create_task_group() as group, running.client(era, ALICE) as client:
                group.start_soon(draw, client, "a lake")
                while slow_service.service.seen["status"] == polls:
                    await anyio.sleep(0.02)
                group.cancel_scope.cancel()
        await anyio.sleep(1)
        polls = slow_service.service.seen["status"]
        await anyio.sleep(1)
        assert slow_service.service.seen["status"] <= polls + 1  # nobody waits, nobody looks
        async with running.client(era, ALICE) as client, anyio.create_task_group() as group:

            async def draw_again() -> None:
                results.append(await draw(client, "a lake"))

            group.start_soon(draw_again)
            await anyio.sleep(1)
            running.process.send_signal(signal.SIGTERM)
        assert "nothing new was ordered" in results[0]["notice"]
    assert len(slow_service.service.jobs) - before == 1


def test_half_an_emoji_is_repaired_in_both_eras(team: RunningServer) -> None:
    for era in ("2025-11-25", "2026-07-28"):
        params: dict[str, object] = {
            "name": "generate_image",
            "arguments": {"prompt": "half \ud83d of a fox"},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": era,
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        }
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        named = {"Mcp_Method": "tools/call", "Mcp_Name": "generate_image"}
        answer = post(team, request, MCP_Protocol_Version=era, **named)
        assert answer.status_code == 200, answer.text
        assert "half \ufffd of a fox" in answer.text.replace("\\ufffd", "\ufffd")


# Who may call


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {ALICE}x"},
        {"Authorization": f"Basic {ALICE}"},
        {"Authorization": ALICE},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {ALICE} {BOB}"},
        {"Authorization": "Bearer \u00e9"},
    ],
    ids=["none", "wrong", "Basic", "bare", "empty", "two", "no ASCII"],
)
def test_nobody_without_a_token_of_the_list_is_let_in(
    team: RunningServer, headers: dict[str, str]
) -> None:
    answer = post(team, token="", **headers)
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith('Bearer realm="arta-mcp"')
    # RFC 6750: without a token no error is named, and without an issuer there is nothing to find
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    assert ("error=" in challenge) == (scheme == "Bearer" and token != "")
    assert "resource_metadata" not in challenge
    assert answer.json()["error"]["code"] == -32600


def test_a_token_in_the_address_counts_for_nothing(team: RunningServer) -> None:
    with httpx.Client(trust_env=False) as client:
        answer = client.post(f"{team.url}/mcp?access_token={ALICE}", json={})
        found = client.get(f"{team.url}/.well-known/oauth-protected-resource")
    assert (answer.status_code, found.status_code) == (401, 404)


async def test_two_tokens_of_one_name_are_one_person(team: RunningServer) -> None:
    async with team.client("auto", ALICE) as old, team.client("auto", ALICES_NEXT) as new:
        record_id = (await draw(old))["record_id"]
        found = content_of(await new.call_tool("get_generation", {"record_id": record_id}))
    assert found["status"] == "done"


def test_no_token_is_shown_in_the_log_or_in_an_answer(team: RunningServer) -> None:
    answer = post(team, token=f"{ALICE}x")
    for token in (ALICE, ALICES_NEXT, BOB):
        assert token not in answer.text + team.log


# Whose is what


@asynccontextmanager
async def heard_by(client: Client, uri: str) -> AsyncGenerator[list[str]]:
    """What a stream of the new era is told while the block lasts."""
    told: list[str] = []
    async with (
        client.listen(resource_subscriptions=[uri]) as events,
        anyio.create_task_group() as group,
    ):

        async def listen() -> None:
            async for event in events:
                assert isinstance(event, ResourceUpdated)
                told.append(event.uri)

        group.start_soon(listen)
        yield told
        group.cancel_scope.cancel()


@BOTH_ERAS
async def test_what_one_caller_made_is_nowhere_shown_to_another(
    team: RunningServer, era: Era
) -> None:
    template = ResourceTemplateReference(type="ref/resource", uri="arta://generations/{record_id}")
    unknown = "0" * 32
    async with team.client(era, ALICE) as alice, team.client(era, BOB) as bob:
        hers = await draw(alice, f"a secret of Alice's in {era}", idempotency_key=f"key {era}")
        record_id = hers["record_id"]
        assert (await draw(alice, "a crow"))["record_id"] != record_id

        async def told(client: Client, record: str, ask: Callable[[Client, str], Any]) -> str:
            try:
                result = await ask(client, record)
            except mcp.MCPError as exc:
                return f"{exc.error.code} {exc.error.message}".replace(record, "ID")
            assert result.is_error, result
            return text_of(result).replace(record, "ID")

        async def get(client: Client, record: str) -> object:
            return await client.call_tool("get_generation", {"record_id": record})

        async def read(client: Client, record: str) -> object:
            return await client.read_resource(f"arta://generations/{record}")

        async def see(client: Client, record: str) -> object:
            return await client.read_resource(f"arta://generations/{record}/images/0")

        async def vary(client: Client, record: str) -> object:
            return await client.get_prompt("vary", {"record_id": record, "change": "bluer"})

        for ask in (get, read, see, vary):  # by its id: 1, 2, 3, 4
            await ask(alice, record_id)
            of_hers, of_none = await told(bob, record_id, ask), await told(bob, unknown, ask)
            assert of_hers == of_none
            assert "no generation has the record id" in of_hers
        # in lists: 5, 6
        assert record_id in in_text(await alice.read_resource("arta://generations"))
        assert record_id not in in_text(await bob.read_resource("arta://generations"))
        given = {"name": "record_id", "value": record_id[:6]}
        assert record_id in (await alice.complete(template, given)).completion.values
        assert record_id not in (await bob.complete(template, given)).completion.values
        # the newest: 7; by an idempotency key: 8
        his = await draw(bob, f"a secret of Alice's in {era}", idempotency_key=f"key {era}")
        assert his["record_id"] != record_id
        newest = content_of(await bob.call_tool("get_generation", {}))
        assert newest["record_id"] == his["record_id"]
        assert record_id not in json.dumps(newest["earlier"])
        again = await draw(alice, f"a secret of Alice's in {era}", idempotency_key=f"key {era}")
        assert again["record_id"] == record_id


async def test_notifications_go_to_the_owner_alone(team: RunningServer) -> None:
    async with (
        team.client("auto", ALICE) as alice,
        team.client("auto", BOB) as bob,
        heard_by(alice, "arta://generations") as to_alice,
        heard_by(bob, "arta://generations") as to_bob,
    ):
        await draw(alice, "heard by Alice")
        await wait_until(lambda: len(to_alice) >= 2)
        assert to_bob == []
        await draw(bob, "heard by Bob")
        await wait_until(lambda: len(to_bob) >= 2)
        assert len(to_alice) == 2


async def test_a_record_id_that_only_the_shared_account_knows_is_adopted_for_nobody(
    quick_service: ScriptedServer, tmp_path: Path
) -> None:
    machine = Machine.new(tmp_path / "machine").set(**remote_settings(quick_service))
    made = json.loads(machine.run("generate", "a lake", "--no-save", "--json").stdout)
    with http_server(machine.set(ARTA_HTTP_TOKENS=TOKENS)) as running:
        async with running.client("auto", ALICE) as alice:
            result = await alice.call_tool("get_generation", {"record_id": made["record_id"]})
    assert result.is_error
    assert "no generation has the record id" in text_of(result)
    assert machine.run("get", made["record_id"], "--no-save").returncode == 0


async def test_a_caller_with_all_of_its_slots_is_told_when_and_another_is_served(
    slow_service: ScriptedServer, tmp_path: Path
) -> None:
    machine = Machine.new(tmp_path / "machine").set(
        **remote_settings(slow_service), ARTA_HTTP_TOKENS=TOKENS, ARTA_MAX_WAIT="0"
    )
    with http_server(machine, "--caller-concurrency", "2") as running:
        async with running.client("auto", ALICE) as alice, running.client("auto", BOB) as bob:
            for number in range(2):
                assert (await draw(alice, f"{number}"))["status"] == "pending"
            result = await alice.call_tool("generate_image", {"prompt": "one more"})
            assert result.is_error  # of the tool: of an HTTP status a model is told nothing
            assert "2 generations of yours are under way" in text_of(result)
            assert "wait 30 s" in text_of(result)
            assert (await draw(bob))["status"] == "pending"


async def test_a_caller_that_has_ordered_all_of_an_hour_is_told_when_and_its_keys_still_count(
    quick_service: ScriptedServer, tmp_path: Path
) -> None:
    machine = Machine.new(tmp_path / "machine").set(
        **remote_settings(quick_service), ARTA_HTTP_TOKENS=TOKENS
    )

    with http_server(machine, "--caller-rate", "2") as running:
        async with running.client("auto", ALICE) as alice, running.client("auto", BOB) as bob:
            first = await draw(alice, "first", idempotency_key="k")
            await draw(alice, "second")
            said = text_of(await alice.call_tool("generate_image", {"prompt": "third"}))
            again = await draw(alice, "first", idempotency_key="k")
            assert (await draw(bob))["status"] == "done"
    assert again["record_id"] == first["record_id"]
    assert "2 generations are what you may order in an hour" in said
    found = re.search(r"wait (\d+) s, then try again", said)
    assert found is not None
    assert 0 < int(found[1]) <= 3600


async def test_what_one_limit_of_an_hour_has_no_room_for_uses_up_nothing_of_the_other(
    quick_service: ScriptedServer, tmp_path: Path
) -> None:
    machine = Machine.new(tmp_path / "machine").set(
        **remote_settings(quick_service), ARTA_HTTP_TOKENS=TOKENS, ARTA_HOURLY_LIMIT="5"
    )
    before = quick_service.service.seen["submit"]
    with http_server(machine, "--caller-rate", "2") as running:
        async with running.client("auto", ALICE) as alice, running.client("auto", BOB) as bob:

            async def ask(prompt: str, n: int) -> str:
                arguments = {"prompt": prompt, "n": n}
                return text_of(await alice.call_tool("generate_image", arguments))

            await draw(alice, "first", n=2)
            said = await ask("second", 4)
            assert "2 were asked for and this call wants 4; nothing was ordered" in said
            assert "4 of the 5 pictures of an hour are used" in await ask("third", 2)
            assert "2 generations are what you may order in an hour" in await ask("fourth", 1)
            assert (await draw(bob, n=5))["status"] == "done"
    assert quick_service.service.seen["submit"] == before + 3


# Where from


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "mcp.example.com"}, 200),
        ({"Host": "mcp.example.com:443"}, 200),
        ({"Host": "MCP.example.com.evil.example"}, 421),
        ({"Host": "localhost"}, 421),
        ({"Origin": "https://app.example.com"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content_Type": "text/plain"}, 400),
    ],
)
def test_a_request_names_a_host_and_an_origin_that_are_allowed(
    team: RunningServer, headers: dict[str, str], status: int
) -> None:
    assert post(team, **headers).status_code == status


def test_a_page_of_the_server_itself_may_call_it(alone: RunningServer) -> None:
    for host in ("127.0.0.1", "localhost"):
        named = f"{host}:{alone.port}"
        assert post(alone, Host=named, Origin=f"http://{named}").status_code == 200
    assert post(alone, Origin=f"http://127.0.0.1:{alone.port + 1}").status_code == 403


def test_a_page_that_is_allowed_may_ask_first_and_read_the_answer(
    team: RunningServer, alone: RunningServer
) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,mcp-param-x,mcp-protocol-version",
    }
    with httpx.Client(trust_env=False) as client:
        for origin, status in (("https://app.example.com", 200), ("https://evil.example", 400)):
            answer = client.options(f"{team.url}/mcp", headers={"Origin": origin, **asked})
            assert answer.status_code == status
            assert ("access-control-allow-origin" in answer.headers) == (status == 200)
        assert client.options(f"{alone.url}/mcp", headers={"Origin": "null"}).status_code == 403
        assert client.options(f"{alone.url}/mcp").status_code == 405
    read = post(team, Origin="https://app.example.com")
    assert read.headers["access-control-allow-origin"] == "https://app.example.com"


def test_a_stream_that_would_stay_silent_is_refused(team: RunningServer) -> None:
    with httpx.Client(trust_env=False) as client:
        headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {ALICE}"}
        for method in ("GET", "DELETE", "PUT"):
            answer = client.request(method, f"{team.url}/mcp", headers=headers)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_probes_need_no_token_and_no_name(team: RunningServer) -> None:
    with httpx.Client(trust_env=False) as client:
        for path, status in (("healthz", "alive"), ("readyz", "ready")):
            answer = client.get(f"{team.url}/{path}", headers={"Host": "10.0.0.7"})
            assert (answer.status_code, answer.json()["status"]) == (200, status)


# The end


@BOTH_ERAS
async def test_every_open_call_is_answered_before_the_process_ends(
    slow_service: ScriptedServer, tmp_path: Path, era: Era
) -> None:
    machine = Machine.new(tmp_path / "machine").set(**remote_settings(slow_service))
    before, seen = set(slow_service.service.jobs), slow_service.service.seen
    results: list[dict[str, Any]] = []
    ended: list[float] = []
    told_at = 0.0
    with http_server(machine) as running:
        async with running.client(era) as client, anyio.create_task_group() as group:

            async def draw_one(number: int) -> None:
                results.append(await draw(client, f"{era} {number}"))
                ended.append(time.monotonic())

            for number in range(10):
                group.start_soon(draw_one, number)
            await wait_until(lambda: len(slow_service.service.jobs) == len(before) + 10)
            submits = seen["submit"]
            slow_service.service.faults.add(Fault.parse("slow-headers@submit=2"))
            group.start_soon(draw_one, 10)  # its submit is under way when the signal comes
            await wait_until(lambda: seen["submit"] > submits)
            told_at = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
        assert await anyio.to_thread.run_sync(running.process.wait, TIMEOUT) == 0
        assert time.monotonic() - told_at < 12
        log = running.log
    slow_service.service.faults.clear()
    assert [one["status"] for one in results] == ["pending"] * 11
    assert {one["record_id"] for one in results} == set(slow_service.service.jobs) - before
    assert sorted(ended)[9] - told_at < 3
    assert "Traceback" not in log
    with http_server(machine) as running:
        async with running.client(era) as client:
            for one in results:
                given = {"record_id": one["record_id"], "max_wait": 0}
                found = content_of(await client.call_tool("get_generation", given))
                assert found["status"] == "pending"


async def is_listening(port: int) -> bool:
    """Whether a connection is taken."""
    try:
        await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
    except OSError:
        return False
    return True


async def test_a_process_that_is_told_to_end_says_so_and_is_soon_left_by_proxies(
    slow_service: ScriptedServer, tmp_path: Path
) -> None:
    machine = Machine.new(tmp_path / "machine").set(**remote_settings(slow_service))
    slow_service.service.faults.add(Fault.parse("slow-headers@submit=6"))
    with http_server(machine) as running:
        async with running.client() as client, http_client() as probe:
            await client.list_tools()  # a client asks for them behind its first result
            async with anyio.create_task_group() as group:
                # Each has a connection that stands already.
                async with (
                    running.client() as late,
                    running.client() as asking,
                    heard_by(asking, "arta://generations"),
                ):
                    submits = slow_service.service.seen["submit"]
                    group.start_soon(draw, client, "under way")
                    await wait_until(lambda: slow_service.service.seen["submit"] > submits)
                    running.process.send_signal(signal.SIGTERM)
                    with anyio.fail_after(TIMEOUT):
                        while (ready := await probe.get(f"{running.url}/readyz")).is_success:
                            await anyio.sleep(0.02)
                    assert (ready.status_code, ready.json()["status"]) == (503, "draining")
                    result = await late.call_tool("generate_image", {"prompt": "too late"})
                    assert result.is_error
                    assert "this server is ending; nothing was ordered" in text_of(result)
                    models = await asking.call_tool("list_models", {"search": "flux"})
                    assert content_of(models)["total"]
                # A proxy is refused before it has sent anything, so it may go to another replica.
                with anyio.fail_after(TIMEOUT):
                    while await is_listening(running.port):
                        await anyio.sleep(0.02)
                assert running.process.poll() is None
        assert await anyio.to_thread.run_sync(running.process.wait, TIMEOUT) == 0
        assert "Traceback" not in running.log
    slow_service.service.faults.clear()


async def test_an_idle_server_ends_at_once_with_either_signal(alone: RunningServer) -> None:
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        with http_server(Machine.new(alone.log_file.parent / f"idle-{code}")) as running:
            with running.connect():  # one that is kept alive is no reason to wait
                began = time.monotonic()
                assert await anyio.to_thread.run_sync(partial(running.end, number)) == code
                assert time.monotonic() - began < 5
            assert running.log.count("\n") == 1, running.log
