"""Commands on a shared state: as on a folder; clear words where it is not as it should be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from arta_mcp.app import owner_of
from arta_mcp.config import Settings
from harness.service import ScriptedServer
from harness.shell import Shell
from harness.stores import RedisServer, find_server, running_server


@pytest.fixture
def server(
    need: Callable[[bool, str], None], redis_servers: Callable[[str], RedisServer]
) -> RedisServer:
    need(find_server("redis") is not None, "there is no redis server here")
    return redis_servers("redis")


@pytest.fixture
def shared(shell: Shell, server: RedisServer) -> Shell:
    """A computer that keeps its state on the server."""
    shell.set(ARTA_STATE_URL=server.url, ARTA_OWNER="ada")
    return shell


def prompts(shell: Shell) -> list[object]:
    return [entry["prompt"] for entry in shell("history", "--json").json_lines]


def test_machines_share_an_account_and_owners_share_nothing_else(
    shared: Shell, service: ScriptedServer
) -> None:
    made = shared("generate", "a lake", "--no-save", "--json")
    assert made.code == 0, made.err
    record_id = str(made.json["record_id"])
    assert prompts(shared) == ["a lake"]
    assert shared("get", record_id, "--no-save").code == 0
    shared.set(ARTA_OWNER="bob")
    assert prompts(shared) == []
    assert shared("generate", "a tree", "--no-save").code == 0
    said = shared("get", record_id, "--no-save")
    assert said.code == 1
    assert f"no generation has the record id '{record_id}'" in said.err
    assert service.service.seen["sign_up"] == 1
    assert not list(shared.machine.state.glob("*.sqlite3"))
    assert not list(shared.machine.state.glob("account-*"))


def test_the_operator_removes_what_every_owner_ordered(shared: Shell, server: RedisServer) -> None:
    for owner in ("bob", "ada"):
        shared.set(ARTA_OWNER=owner)
        assert shared("generate", f"a lake of {owner}", "--no-save").code == 0
    for key in server.keys("newest:*"):
        for entry in server.command("ZRANGE", key, 0, -1):
            server.command("ZINCRBY", key, -31 * 86400, entry)
    entries = len(server.keys("entry:*"))
    said = shared("history", "--prune", "90")
    assert "note: other owners' stay; --everybody removes those as well" in said.err
    assert len(server.keys("entry:*")) == entries == 2
    said = shared("history", "--prune", "30", "--everybody", "--yes")
    assert said.code == 0
    assert said.err.startswith("removed 2 generations and 0 pictures kept of sketches\n")
    assert "--everybody" not in said.err
    for kind in ("entry", "record", "newest", "key"):
        assert server.keys(f"{kind}:*") == []


def test_the_account_is_shown_and_dropped_where_it_is(
    shared: Shell, server: RedisServer, service: ScriptedServer
) -> None:
    assert "none; the first picture signs up" in shared("account").out
    assert shared("generate", "a lake", "--no-save").code == 0
    said = shared("account")
    assert f"at 127.0.0.1:{server.port}" in said.out
    assert shared("account", "reset", "--yes").code == 0
    assert "none; the first picture signs up" in shared("account").out
    assert shared("generate", "a lake", "--no-save").code == 0
    assert service.service.seen["sign_up"] == 2


def test_the_doctor_tells_how_the_server_stands(shared: Shell, server: RedisServer) -> None:
    said = shared("doctor")
    assert said.code == 0, said.out
    (line,) = [line for line in said.out.splitlines() if "shared state" in line]
    assert line.startswith("ok")
    for part in (
        f"redis at 127.0.0.1:{server.port} answers in",
        "persistence aof",
        "eviction noeviction",
    ):
        assert part in line
    assert "epoch none yet" in line
    again = shared("doctor", "--no-picture")
    assert "epoch none yet" not in again.out


def test_the_doctor_warns_of_a_server_that_may_forget(
    shell: Shell, need: Callable[[bool, str], None], tmp_path: Path
) -> None:
    need(find_server("redis") is not None, "there is no redis server here")
    with running_server("redis", tmp_path, "--appendonly", "no") as server:
        shell.set(ARTA_STATE_URL=server.url)
        said = shell("doctor", "--no-picture")
    assert said.code == 0, said.out
    assert "warn  shared state" in said.out
    assert "-> set `appendonly yes` in its configuration" in said.out


def test_a_server_that_is_not_there_is_said_with_what_to_do(shell: Shell) -> None:
    shell.set(ARTA_STATE_URL="redis://me:sentinel-pw@127.0.0.1:9/0")
    for command in (("generate", "a lake", "--no-save"), ("history",), ("account",)):
        said = shell(*command)
        assert said.code == 1
        assert "error: the shared state at 127.0.0.1:9 does not answer" in said.err
        assert "hint: see that Redis or Valkey runs there" in said.err
        assert "sentinel-pw" not in said.out + said.err
    said = shell("doctor")
    assert said.code == 1
    assert "fail  shared state" in said.out
    assert "sentinel-pw" not in said.out + said.err


def test_a_wrong_password_is_said_and_not_shown(
    shell: Shell, need: Callable[[bool, str], None], tmp_path: Path
) -> None:
    need(find_server("redis") is not None, "there is no redis server here")
    with running_server("redis", tmp_path, "--requirepass", "right-password") as server:
        url = server.url.replace("//", "//:sentinel-pw@")
        shell.set(ARTA_STATE_URL=url)
        said = shell("generate", "a lake", "--no-save")
    assert said.code in (1, 2)
    assert "refuses the user or password" in said.err
    assert "hint: set ARTA_STATE_URL" in said.err
    assert "sentinel-pw" not in said.out + said.err


def test_a_missing_package_is_said_with_the_extra_that_brings_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("arta_mcp.state.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    shell.set(ARTA_STATE_URL="redis://127.0.0.1:9/0")
    said = shell("history")
    assert said.code in (1, 2)
    assert "error: ARTA_STATE_URL needs the package redis, which is not installed" in said.err
    assert "pip install 'arta-mcp[redis]'" in said.err


def test_an_owner_is_named_with_a_shared_state_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    url = {"ARTA_STATE_URL": "redis://127.0.0.1/0"}
    assert owner_of(Settings.from_env({"ARTA_OWNER": "x"})) == ""
    assert owner_of(Settings.from_env({**url, "ARTA_OWNER": "x"})) == "stdio:x"
    assert owner_of(Settings.from_env(url)).startswith("stdio:ada@")
