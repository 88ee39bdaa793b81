"""Whatever lies in the state folder: a command goes on, or says what is wrong with it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable

import pytest

from harness.installed import TIMEOUT, Machine, connect, text_of
from harness.service import ScriptedServer
from harness.shell import Shell


def prompts(shell: Shell) -> list[object]:
    return [entry["prompt"] for entry in shell("history", "--json").json_lines]


@pytest.mark.parametrize("damage", [b'{"id_token": "eyJ', b"\x00\xff" * 300])
def test_a_damaged_token_file_is_made_anew(
    shell: Shell, used: Machine, service: ScriptedServer, damage: bytes
) -> None:
    (tokens,) = used.state.glob("account-*.json")
    tokens.write_bytes(damage)
    said = shell("generate", "a tree", "--no-save")
    assert said.code == 0, said.err
    assert service.service.seen["sign_up"] == 1
    assert json.loads(tokens.read_bytes())["refresh_token"]
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600


def test_a_damaged_journal_is_moved_aside_and_said(shell: Shell, used: Machine) -> None:
    (used.state / "generations.sqlite3").write_bytes(b"not a database, " * 500)
    said = shell("generate", "a tree", "--no-save")
    (aside,) = used.state.glob("generations.sqlite3.damaged-*")
    assert said.code == 0, said.err
    assert "the journal was damaged" in said.err
    assert f"it was moved to {aside}" in said.err
    assert aside.read_bytes() == b"not a database, " * 500
    assert prompts(shell) == ["a tree"]


def test_what_killed_processes_left_behind_is_in_nobodys_way(shell: Shell, used: Machine) -> None:
    (tokens,) = used.state.glob("account-*.json")
    (used.state / f".{tokens.name}.123.456").write_bytes(b'{"id_token": "ey')
    (used.state / "account-gone.lock").touch()
    (used.state / "generations.sqlite3-journal").touch()
    (used.state / "a stranger's note.txt").write_text("keep me", encoding="utf-8")
    said = shell("generate", "a tree", "--no-save")
    assert said.code == 0, said.err
    assert prompts(shell) == ["a tree", "a lake"]
    assert (used.state / "a stranger's note.txt").read_text(encoding="utf-8") == "keep me"


@pytest.mark.parametrize("kind", ["a file", "a link"])
def test_a_state_folder_that_is_none_is_said_and_left_alone(shell: Shell, kind: str) -> None:
    state, home = shell.machine.state, shell.machine.home
    if kind == "a file":
        state.write_bytes(b"mine")
    else:
        state.symlink_to(home)
    said = shell("generate", "a lake", "--no-save")
    assert said.code == 2
    assert said.err.splitlines() == [
        f"error: the state folder {state} is a link or no folder",
        "hint: set ARTA_STATE_DIR elsewhere",
    ]
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("command", [("generate", "a lake", "--no-save"), ("local",)], ids=" ".join)
@pytest.mark.parametrize("key", ["", "a-key-of-mine"])
def test_a_folder_that_others_share_is_refused_and_nothing_is_made_in_it(
    shell: Shell, key: str, command: tuple[str, ...]
) -> None:
    shell.set(ARTA_API_KEY=key)
    state = shell.machine.state
    state.mkdir(mode=0o755)
    state.chmod(0o755)
    (state / "mine.txt").write_text("mine", encoding="utf-8")
    said = shell(*command)
    assert (said.code, said.out) == (2, "")
    assert f"error: the state folder {state} is open to others" in said.err
    assert [one.name for one in state.iterdir()] == ["mine.txt"]
    assert state.stat().st_mode & 0o777 == 0o755


UNUSABLE = {
    "in the kernel's": {"ARTA_STATE_DIR": "/proc/x"},
    "a home in the kernel's": {"ARTA_STATE_DIR": "", "HOME": "/proc"},
}
"""where nobody can make a folder, root among them"""

COMMANDS = [
    ("generate", "a lake", "--no-save"),
    ("history",),
    ("get", "0" * 32),
    ("local",),
]


@pytest.mark.parametrize("settings", UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_state_folder_that_cannot_be_made_is_said_alike_by_both_backends(
    shell: Shell, settings: dict[str, str], command: tuple[str, ...]
) -> None:
    shell.set(**settings)
    remote = shell(*command)
    shell.set(ARTA_API_KEY="")
    local = shell(*command)
    assert local.err.splitlines() == remote.err.splitlines()
    error, hint = local.err.splitlines()
    assert (local.code, local.out) == (1, "")
    assert error.startswith("error: the state folder /proc/")
    assert error.endswith("cannot be used: No such file or directory")
    assert hint == "hint: make room or set the permissions, or set ARTA_STATE_DIR elsewhere"


@pytest.mark.anyio
async def test_a_state_folder_that_cannot_be_made_is_said_by_the_tools(machine: Machine) -> None:
    async with connect(machine.set(ARTA_STATE_DIR="/proc/x")) as client:
        drawn = await client.call_tool("generate_image", {"prompt": "a lake"})
        looked = await client.call_tool("get_generation", {"record_id": "0" * 32})
    for result in (drawn, looked):
        assert result.is_error
        assert "the state folder /proc/x cannot be used" in text_of(result)
        assert "set ARTA_STATE_DIR elsewhere" in text_of(result)
    assert "Traceback" not in machine.log


def test_the_part_of_the_embedded_service_is_said_as_the_whole(shell: Shell) -> None:
    shell.set(ARTA_API_KEY="")
    state = shell.machine.state
    state.mkdir(mode=0o700)
    (state / "local").write_bytes(b"mine")
    said = shell("generate", "a lake", "--no-save")
    assert said.code in (1, 2)
    assert f"error: the state folder {state}" in said.err
    assert "hint: " in said.err
    assert (state / "local").read_bytes() == b"mine"


NAMELESS = """
import os, sys
import platformdirs, arta_mcp.app
from arta_mcp.config import Settings
from arta_mcp.errors import ConfigError
platformdirs.user_state_path("x")  # which loads what its next call needs
os.environ.clear()
os.setuid(54321)
try:
    arta_mcp.app.state_dir(Settings.from_env({}))
except ConfigError as exc:
    print(exc.message, exc.hint, sep="\\n")
"""


def test_a_user_without_a_home_is_told_to_name_a_folder(need: Callable[[bool, str], None]) -> None:
    need(os.name == "posix" and os.getuid() == 0, "only root can become nobody")
    ended = subprocess.run(
        [sys.executable, "-c", NAMELESS],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT,
    )
    assert ended.stdout.splitlines() == [
        "this user has no home folder to keep tokens and generations in",
        "set ARTA_STATE_DIR to an absolute path, or HOME",
    ]
