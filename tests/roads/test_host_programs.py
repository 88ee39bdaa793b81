"""What docs/hosts.md tells to write is read by the hosts' own programs, and they connect.

No host is asked to speak to its model: none has an account here.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from test_pages import HOSTS, fill_in

from harness.clients import Need, install_node_packages, node
from harness.installed import PROGRAM, Machine

PINS = Path(__file__).parent / "hosts" / "package.json"
TIMEOUT = 120.0


class Host:
    """One program, in an empty home and an empty project."""

    def __init__(self, name: str, need: Need, machine: Machine) -> None:
        packages = install_node_packages("hosts", PINS, need) / "node_modules"
        self._command = [str(packages / ".bin" / name)]
        if name == "claude":  # its own way for an installation that ran no script
            wrapper = packages / "@anthropic-ai" / "claude-code" / "cli-wrapper.cjs"
            self._command = [node(need), str(wrapper)]
        self.machine = machine

    def run(self, *arguments: str) -> str:
        ended = subprocess.run(
            [*self._command, *arguments],
            env=self.machine.environ,
            cwd=self.machine.elsewhere,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr


def section(title: str) -> str:
    """What the page says of a host, with this machine's paths."""
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## )", HOSTS, re.DOTALL | re.MULTILINE)
    return fill_in(found)


def block(title: str, language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)
    return found


def test_claude_code_connects_after_the_command_of_the_page(need: Need, machine: Machine) -> None:
    claude = Host("claude", need, machine)
    command = shlex.split(block("Claude Code", "sh"))
    claude.run(*command[1:])
    assert re.search(r"arta: .*arta-mcp.*Connected", claude.run("mcp", "list"))


def test_claude_code_reads_what_it_shares_with_claude_desktop(need: Need, machine: Machine) -> None:
    claude = Host("claude", need, machine)
    entry = json.loads(block("Claude Desktop", "json"))["mcpServers"]["arta"]
    claude.run("mcp", "add-json", "arta", json.dumps(entry))
    assert re.search(r"arta: .*arta-mcp.*Connected", claude.run("mcp", "list"))


def test_codex_reads_the_file_of_the_page(need: Need, machine: Machine) -> None:
    codex = Host("codex", need, machine)
    file = machine.home / ".codex" / "config.toml"
    file.parent.mkdir()
    file.write_text(block("Codex", "toml"), encoding="utf-8")
    read = json.loads(codex.run("mcp", "get", "arta", "--json").partition("\nWARNING")[0])
    assert read["transport"]["command"] == str(PROGRAM)
    assert read["tool_timeout_sec"] == 300
    assert read["enabled"] is True
    # Its own command writes what the page does, but for the time limit.
    file.unlink()
    codex.run("mcp", "add", "arta", "--", str(PROGRAM))
    written = tomllib.loads(file.read_text(encoding="utf-8"))["mcp_servers"]["arta"]
    assert written == {"command": str(PROGRAM)}


def test_gemini_connects_with_the_file_of_the_page(need: Need, machine: Machine) -> None:
    gemini = Host("gemini", need, machine)
    file = machine.home / ".gemini" / "settings.json"
    file.parent.mkdir()
    settings = json.loads(block("Gemini CLI", "json"))
    # It starts no server in a folder that nobody has trusted, and asks on a terminal only.
    settings["security"] = {"folderTrust": {"enabled": False}}
    file.write_text(json.dumps(settings), encoding="utf-8")
    assert re.search(r"arta: .*arta-mcp.*Connected", gemini.run("mcp", "list"))


@pytest.mark.parametrize("name", ["claude", "codex", "gemini"])
def test_a_host_tells_of_a_server_that_is_not_there(
    name: str, need: Need, machine: Machine
) -> None:
    """So that what the others saw is not what a host says of every entry."""
    host = Host(name, need, machine)
    if name == "codex":
        with pytest.raises(AssertionError, match="arta"):
            host.run("mcp", "get", "arta", "--json")
        return
    if name == "claude":
        host.run("mcp", "add", "arta", "--", f"{PROGRAM}-of-nobody")
    else:
        settings = {"mcpServers": {"arta": {"command": f"{PROGRAM}-of-nobody"}}}
        settings |= {"security": {"folderTrust": {"enabled": False}}}
        file = machine.home / ".gemini" / "settings.json"
        file.parent.mkdir()
        file.write_text(json.dumps(settings), encoding="utf-8")
    told = host.run("mcp", "list")
    assert "arta" in told
    assert not re.search(r"arta: .*Connected", told.replace("Disconnected", ""))
