"""Whatever lies in the state folder: a command goes on, or says what is wrong with it."""

from __future__ import annotations

import json
import stat

import pytest

from harness.installed import Machine
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
