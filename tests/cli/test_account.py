"""`account`: what is told of the anonymous account, and dropping it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.installed import Machine
from harness.service import ScriptedServer
from harness.shell import Shell


def account_file(machine: Machine) -> Path:
    (stored,) = machine.state.glob("account-*.json")
    return stored


def test_status_shows_no_token_and_makes_nothing(shell: Shell) -> None:
    said = shell("account")
    assert said.code == 0
    assert "none; the first picture signs up" in said.out
    assert not shell.machine.state.exists()


def test_status_tells_the_stored_account_and_never_a_token(shell: Shell, used: Machine) -> None:
    stored = account_file(used)
    kept = json.loads(stored.read_bytes())
    for said in (shell("account", "status"), shell("account", "status", "--json")):
        assert kept["user_id"] in said.out
        assert str(stored) in said.out
        for secret in ("id_token", "refresh_token"):
            assert kept[secret] not in said.out + said.err
    assert said.json["is_fresh"] is True


@pytest.mark.parametrize("key", ["a-key-of-mine", "a-'key\"of\\mine"])
def test_a_user_id_that_repeats_the_key_or_a_token_is_not_shown(shell: Shell, key: str) -> None:
    shell.set(ARTA_API_KEY=key)
    assert shell("generate", "a lake", "--no-save").code == 0
    stored = account_file(shell.machine)
    kept = json.loads(stored.read_bytes())
    for secret in (key, kept["refresh_token"]):
        stored.write_text(json.dumps({**kept, "user_id": f"u-{secret}"}), encoding="utf-8")
        for said in (shell("account"), shell("account", "--json")):
            assert "u-[redacted]" in said.out
            assert secret not in said.out + said.err


def test_an_account_that_ends_the_moment_it_began_is_stale_and_not_damaged(
    shell: Shell, used: Machine
) -> None:
    stored = account_file(used)
    kept = json.loads(stored.read_bytes())
    stored.write_text(json.dumps({**kept, "expires_at": kept["issued_at"]}), encoding="utf-8")
    said = shell("account", "--json").json
    assert (said["user_id"], said["is_fresh"]) == (kept["user_id"], False)


def test_reset_drops_the_account_and_nothing_else(
    shell: Shell, used: Machine, service: ScriptedServer
) -> None:
    stored = account_file(used)
    refused = shell("account", "reset")
    assert stored.exists()
    dropped = shell("account", "reset", "--yes")
    again = shell("account", "reset")
    assert (refused.code, dropped.code, again.code) == (2, 0, 0)
    assert "hint: add --yes" in refused.err
    assert "nothing to drop" in again.err
    assert not stored.exists()
    assert len(shell("history").out.splitlines()) == 1
    assert shell("generate", "a hill", "--no-save").code == 0
    assert service.service.seen["sign_up"] == 1


@pytest.mark.parametrize(("answer", "code", "is_left"), [("y\n", 0, False), ("\n", 1, True)])
def test_reset_asks_at_a_terminal(
    shell: Shell, used: Machine, answer: str, code: int, is_left: bool
) -> None:
    stored = account_file(used)
    said = shell.at_terminal("account", "reset", typed=answer)
    assert "Drop it? [y/N]" in said.err
    assert said.code == code
    assert stored.exists() == is_left
