"""`completion`: shells complete commands, options and their values."""

from __future__ import annotations

import subprocess

import pytest
import shtab

from arta_mcp.cli.completion import SHELLS
from harness.installed import TIMEOUT, Machine
from harness.shell import Shell


def completed(script: str, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    typed = " ".join(f"'{word}'" for word in words)
    asked = (
        f"{script}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}\n"
        "$(complete -p arta-mcp | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    ended = subprocess.run(
        ["bash", "--norc", "-c", asked],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    return ended.stdout.split()


def test_bash_completes_commands_options_and_their_values(shell: Shell) -> None:
    script = shell("completion", "bash").out
    assert completed(script, "arta-mcp", "gen") == ["generate"]
    assert completed(script, "arta-mcp", "generate", "--asp") == ["--aspect-ratio"]
    assert "vincent-van-gogh" in completed(script, "arta-mcp", "generate", "-m", "vin")
    assert completed(script, "arta-mcp", "account", "re") == ["reset"]
    assert "3:2" in completed(script, "arta-mcp", "generate", "-a", "")


def test_bash_completes_hosts_and_record_ids(
    used: Machine, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = shell("completion", "bash").out
    assert completed(script, "arta-mcp", "install", "cur") == ["cursor"]
    assert "vscode" in completed(script, "arta-mcp", "uninstall", "")
    monkeypatch.setenv("PATH", f"{used.program.parent}:{used.environ['PATH']}")
    known = str(shell("history", "--json").json["record_id"])
    assert completed(script, "arta-mcp", "get", known[:3]) == [known]
    assert completed(script, "arta-mcp", "cancel", known[:3]) == [known]
    assert completed(script, "arta-mcp", "setup", "--install", "cur") == ["cursor"]
    assert completed(script, "arta-mcp", "setup", "--run", "sd") == ["sd-server"]
    assert completed(script, "arta-mcp", "local", "--host", "") == []


def test_every_shell_that_the_library_knows_is_offered() -> None:
    assert set(SHELLS) == set(shtab.SUPPORTED_SHELLS)


@pytest.mark.parametrize("name", SHELLS)
def test_every_shell_gets_a_script_and_needs_no_settings(shell: Shell, name: str) -> None:
    shell.set(ARTA_MAX_WAIT="abc")
    said = shell("completion", name)
    assert said.code == 0
    assert said.err == ""
    assert all(word in said.out for word in ("generate", "doctor", "history"))
