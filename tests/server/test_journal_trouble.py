"""A journal that cannot be written while a job exists: what the host and its model are told.

The error that says whether a job may exist is never replaced by a lesser one.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import mcp
import pytest
from mcp import Client

from arta_mcp.generations import recorder
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.server.build import build_server
from arta_mcp.state import sqlite as sqlite_state
from harness.installed import Machine, remote_settings
from harness.programs import call_tool, fill_disk, free_disk, held_journal, read_result, running
from harness.service import ScriptedServer, ScriptedService
from harness.world import World, new_world, tiny_picture

LAKE = {"prompt": "a lake", "seed": 7}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ScriptedServer]:
    made = ScriptedService(tmp_path / "service", engine=tiny_picture, queue=0, draw=0)
    with ScriptedServer(made) as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path, service: ScriptedServer) -> Machine:
    return Machine.new(tmp_path / "machine").set(**remote_settings(service))


def text_of(result: dict[str, Any]) -> str:
    return result["content"][0]["text"]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait for a journal that does not come."""
    monkeypatch.setattr(recorder, "WRITE_TIMEOUT", 0.2)
    monkeypatch.setattr(recorder, "RETRY_FOR", 0.0)
    monkeypatch.setattr(recorder, "SHUTDOWN_TIMEOUT", 0.2)
    monkeypatch.setattr(sqlite_state, "BUSY_TIMEOUT", 0.5)


# A full disk, in a process of its own


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit of another process is Linux's own")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("answer-lost@submit", "a picture may have been ordered, and nothing was sent again"),
        (None, "the journal could not be written"),
    ],
)
def test_a_disk_that_is_full_from_the_submit_on_replaces_no_word_about_the_job(
    machine: Machine, service: ScriptedServer, fault: str | None, words: str
) -> None:
    with running(machine) as server:
        service.service.strikes["submit"] = lambda: fill_disk(server.pid)
        if fault:
            service.service.faults.add(Fault.parse(fault))
        call_tool(server, 1, "generate_image", **LAKE)
        first = read_result(server, 1)
        assert words in text_of(first)
        assert first.get("isError", False) == (fault is not None)
        if not fault:  # the record id that was told serves, also while the disk is full
            (record_id,) = service.service.jobs
            assert first["structuredContent"]["record_id"] == record_id
            call_tool(server, 2, "get_generation", record_id=record_id)
            assert read_result(server, 2)["structuredContent"]["status"] == "done"
        call_tool(server, 3, "generate_image", prompt="another lake")
        assert "the journal cannot be used" in text_of(read_result(server, 3))
        assert service.service.seen["submit"] == 1
        free_disk(server.pid)
        call_tool(server, 4, "generate_image", prompt="another lake")
        assert read_result(server, 4)["structuredContent"]["status"] == "done"
    assert service.service.seen["submit"] == 2


# A journal that another process holds or has changed


async def draw(world: World, **more: str) -> tuple[mcp.types.CallToolResult, list[float]]:
    """A call's result, and when a sign of life came: its progress, and its end."""
    signs = [time.monotonic()]

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        signs.append(time.monotonic())

    async with Client(build_server(world.generations())) as host:
        with anyio.fail_after(60):
            result = await host.call_tool(
                "generate_image", {**LAKE, **more}, progress_callback=on_progress
            )
            signs.append(time.monotonic())
    return result, signs


def longest_silence(signs: list[float]) -> float:
    return max(later - sooner for sooner, later in pairwise(signs))


def words_of(result: mcp.types.CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, mcp.types.TextContent)
    return block.text


@pytest.mark.anyio
@pytest.mark.parametrize("endpoint", ["submit", "status"])
async def test_a_journal_that_is_held_from_then_on_costs_neither_record_id_nor_progress(
    world: World, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setattr(sqlite_state, "BUSY_TIMEOUT", 1.0)
    monkeypatch.setattr(recorder, "RETRY_FOR", 1.0)
    monkeypatch.setattr(recorder, "SHUTDOWN_TIMEOUT", 0.0)
    world.service.draw = 4.0
    with ExitStack() as held:
        holding = held_journal(world.folder / "state")
        world.service.strikes[endpoint] = lambda: held.enter_context(holding)
        result, signs = await draw(world)
    assert longest_silence(signs) < 3.5
    assert result.structured_content is not None, words_of(result)
    assert result.structured_content["record_id"] == world.service.jobs[0]
    assert result.structured_content["status"] == "done"
    assert "the journal could not be written" in result.structured_content["notice"]


@pytest.mark.anyio
@pytest.mark.usefixtures("hasty")
async def test_a_lost_answer_is_told_as_such_while_the_journal_is_held(world: World) -> None:
    world.service.faults.add(Fault.parse("502@submit"))
    with ExitStack() as held:
        holding = held_journal(world.folder / "state")
        world.service.strikes["submit"] = lambda: held.enter_context(holding)
        result, _ = await draw(world)
    assert result.is_error
    assert "a picture may have been ordered" in words_of(result)
    assert "another process keeps the journal busy" in words_of(result)
    assert world.service.seen["submit"] == 1


@pytest.mark.anyio
async def test_a_journal_that_is_held_before_the_order_is_waited_for_and_then_nothing_is_ordered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_state, "BUSY_TIMEOUT", 3.5)
    async with world.generations() as generations:
        await generations.history()
    with held_journal(world.folder / "state"):
        result, signs = await draw(world)
    assert result.is_error
    assert "another process has been writing to the journal" in words_of(result)
    assert longest_silence(signs) < 3.5
    assert not world.service.seen["submit"]
    result, _ = await draw(world)
    assert not result.is_error


@pytest.mark.anyio
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("change", ["PRAGMA user_version = 99", "ALTER TABLE journal DROP seed"])
@pytest.mark.parametrize("endpoint", ["submit", "status"])
async def test_a_journal_that_a_newer_version_changes_meanwhile_loses_no_picture(
    world: World, endpoint: str, change: str
) -> None:
    def strike() -> None:
        with closing(sqlite3.connect(world.folder / "state" / "generations.sqlite3")) as newer:
            newer.execute("DROP VIEW generations")
            newer.execute(change)
            newer.commit()

    world.service.strikes[endpoint] = strike
    result, _ = await draw(world)
    assert result.structured_content is not None, words_of(result)
    assert result.structured_content["record_id"] == world.service.jobs[0]
    assert result.structured_content["status"] == "done"
    assert result.structured_content["images"]
    assert "the journal could not be written" in result.structured_content["notice"]


@pytest.mark.anyio
@pytest.mark.usefixtures("hasty")
async def test_a_job_that_fails_while_the_journal_is_held_is_told_with_its_record_id(
    world: World,
) -> None:
    world.service.faults.add(Fault.parse("error-code@status"))
    with ExitStack() as held:
        holding = held_journal(world.folder / "state")
        world.service.strikes["submit"] = lambda: held.enter_context(holding)
        result, _ = await draw(world)
    assert result.is_error
    assert world.service.jobs[0] in words_of(result)


# What this process knows and the journal does not


@pytest.mark.anyio
@pytest.mark.usefixtures("hasty")
async def test_a_job_that_could_not_be_written_down_is_known_to_its_process(world: World) -> None:
    """Neither its key nor its record id leads to `try again later`, however long it takes."""
    async with Client(build_server(world.generations())) as host:
        with ExitStack() as held:
            holding = held_journal(world.folder / "state")
            world.service.strikes["submit"] = lambda: held.enter_context(holding)
            first = await host.call_tool("generate_image", {**LAKE, "idempotency_key": "k"})
        assert first.structured_content is not None
        record_id = first.structured_content["record_id"]
        for tool, arguments in {
            "generate_image": {**LAKE, "idempotency_key": "k"},
            "get_generation": {"record_id": record_id},
        }.items():
            again = await host.call_tool(tool, arguments)
            assert again.structured_content is not None, words_of(again)
            assert again.structured_content["record_id"] == record_id
            assert again.structured_content["status"] == "done"
    assert world.service.seen["submit"] == 1
