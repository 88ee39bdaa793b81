"""Servers on HTTP that share a store: what one made another shows, and a store that goes away."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path

import anyio
import httpx
import pytest

from harness.http_server import RunningServer, http_server
from harness.installed import TIMEOUT, Machine, content_of, remote_settings, run_service, text_of
from harness.service import ScriptedServer
from harness.stores import RedisServer, find_server, running_server

pytestmark = pytest.mark.anyio

ALICE, BOB = "alice-token-0123456789", "bob-token-0123456789"


@pytest.fixture
def store(tmp_path: Path, need: Callable[[bool, str], None]) -> Generator[RedisServer]:
    need(find_server("redis") is not None, "redis-server is not installed")
    (tmp_path / "redis").mkdir()
    with running_server("redis", tmp_path / "redis") as running:
        yield running


@pytest.fixture
def service(tmp_path: Path) -> Generator[ScriptedServer]:
    with run_service(tmp_path / "service") as running:
        yield running


def new_machine(folder: Path, service: ScriptedServer, store: RedisServer) -> Machine:
    return Machine.new(folder).set(
        **remote_settings(service),
        ARTA_STATE_URL=store.url,
        ARTA_HTTP_TOKENS=f"alice={ALICE},bob={BOB}",
    )


async def test_two_machines_on_one_store_show_each_caller_its_own(
    tmp_path: Path, service: ScriptedServer, store: RedisServer
) -> None:
    with (
        http_server(new_machine(tmp_path / "one", service, store)) as one,
        http_server(new_machine(tmp_path / "two", service, store)) as two,
    ):
        given: dict[str, object] = {"prompt": "a fox", "idempotency_key": "k"}
        async with one.client("auto", ALICE) as alice, two.client("legacy", ALICE) as again:
            made = content_of(await alice.call_tool("generate_image", given))
            same = content_of(await again.call_tool("generate_image", given))
            newest = content_of(await again.call_tool("get_generation", {}))
        assert made["record_id"] == same["record_id"] == newest["record_id"]
        async with two.client("auto", BOB) as bob:
            by_id = await bob.call_tool("get_generation", {"record_id": made["record_id"]})
            assert "no generation has the record id" in text_of(by_id)
            his = content_of(await bob.call_tool("generate_image", given))
        assert his["record_id"] != made["record_id"]
    assert len(service.service.jobs) == 2
    assert len(service.service.accounts) == 1


def wait_for_status(server: RunningServer, status: int) -> float:
    """Seconds until `/readyz` answers so."""
    began = time.monotonic()
    while httpx.get(f"{server.url}/readyz", trust_env=False, timeout=TIMEOUT).status_code != status:
        assert time.monotonic() - began < TIMEOUT
        time.sleep(0.05)
    return time.monotonic() - began


async def test_a_store_that_is_away_is_told_and_comes_back(
    tmp_path: Path, service: ScriptedServer, store: RedisServer
) -> None:
    with http_server(new_machine(tmp_path / "one", service, store)) as running:
        async with running.client("auto", ALICE) as alice:
            made = content_of(await alice.call_tool("generate_image", {"prompt": "a fox"}))
            submits = service.service.seen["submit"]
            store.kill()
            assert await anyio.to_thread.run_sync(wait_for_status, running, 503) < 10
            for name, given in (
                ("generate_image", {"prompt": "a crow"}),
                ("get_generation", {"record_id": made["record_id"]}),
            ):
                began = anyio.current_time()
                failed = await alice.call_tool(name, given)
                assert failed.is_error, failed
                assert anyio.current_time() - began < 15
            assert service.service.seen["submit"] == submits  # nothing is sent unwritten
            models = await alice.call_tool("list_models", {"search": "flux"})
            assert content_of(models)["total"]  # what needs no store
            await anyio.to_thread.run_sync(store.start)
            assert await anyio.to_thread.run_sync(wait_for_status, running, 200) < 10
            done = content_of(await alice.call_tool("generate_image", {"prompt": "a crow"}))
            assert done["status"] == "done"
            found = await alice.call_tool("get_generation", {"record_id": made["record_id"]})
            assert content_of(found)["status"] == "done"
        assert running.end() == 0
        assert "Traceback" not in running.log
