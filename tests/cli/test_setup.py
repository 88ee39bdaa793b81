"""`setup`: three questions, a try, and the lines for a host; or the same by options."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from arta_mcp.cli.setup import ALL_PROGRAMS, PROGRAMS
from arta_mcp.config import SETTINGS, Settings
from harness.image_server import ImageServer
from harness.installed import Machine
from harness.shell import Shell, Terminal

KEY = "sk-sentinel-0123456789"
NOWHERE = "http://127.0.0.1:9"
"""a proxy that is not there, so that nothing leaves this machine"""


@pytest.fixture
def shell(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """Without settings: the answers are all there is."""
    return Shell.on(machine, monkeypatch, capsys)


@pytest.fixture
def server() -> Iterator[ImageServer]:
    made = ImageServer(models=[{"id": "flux-schnell"}, {"id": "other"}])
    with made.running():
        yield made


def number_of(name: str) -> int:
    return 1 + [program.name for program in PROGRAMS].index(name)


def test_the_answers_become_lines_with_which_the_server_draws(
    shell: Shell, server: ImageServer
) -> None:
    typed = f"99\n{number_of('other')}\nnowhere\n{server.url}\n2\ny\n\n"
    said = shell.at_terminal("setup", typed=typed)
    assert said.code == 0, said.err
    assert "error: '99' is no number in 1.." in said.err
    assert "error: ARTA_LOCAL_URL is 'nowhere', no address" in said.err
    assert "1  flux-schnell" in said.err
    assert f"openai at {server.url} has 2 models" in said.err
    assert "512x512 in " in said.err
    lines = [line for line in said.err.splitlines() if line.startswith("ARTA_")]
    assert lines == [
        "ARTA_LOCAL_ENGINE=openai",
        f"ARTA_LOCAL_URL={server.url}",
        "ARTA_LOCAL_MODEL=other",
    ]
    assert [body["model"] for body in server.bodies] == ["other"]
    for line in lines:
        name, _, value = line.partition("=")
        shell.set(**{name: value})
    drawn = shell("generate", "a fox", "--no-save", "--json").json
    assert (drawn["engine"], drawn["engine_model"]) == ("openai", "other")


def test_nothing_is_asked_with_options(shell: Shell, server: ImageServer) -> None:
    said = shell("setup", "--run", "a1111", "--url", server.url, "--json")
    assert said.code == 0, said.err
    assert said.json["env"] == {"ARTA_LOCAL_ENGINE": "sdapi", "ARTA_LOCAL_URL": server.url}
    assert said.json["ok"] is True
    assert len(server.bodies) == 1
    silent = shell("setup", "--run", "localai", "--url", server.url, "--no-picture")
    assert silent.out.splitlines() == [
        "ARTA_LOCAL_ENGINE=openai",
        f"ARTA_LOCAL_URL={server.url}",
        "ARTA_LOCAL_DIALECT=localai",
    ]
    assert len(server.bodies) == 1


def test_what_does_not_answer_is_said_and_its_lines_are_printed_but_not_installed(
    shell: Shell,
) -> None:
    (shell.machine.home / ".cursor").mkdir()
    said = shell("setup", "--run", "other", "--url", "http://127.0.0.1:9", "--install", "cursor")
    assert said.code == 1
    assert said.out.splitlines() == [
        "ARTA_LOCAL_ENGINE=openai",
        "ARTA_LOCAL_URL=http://127.0.0.1:9",
    ]
    assert "-> start the server that ARTA_LOCAL_URL names, then try again" in said.err
    assert list((shell.machine.home / ".cursor").iterdir()) == []


@pytest.mark.parametrize("has_variable", [True, False])
def test_a_hosts_file_gets_the_lines_and_the_key_by_reference_where_it_can(
    shell: Shell, server: ImageServer, has_variable: bool
) -> None:
    for name in (".cursor", ".config/zed"):
        (shell.machine.home / name).mkdir(parents=True)
    if has_variable:
        shell.set(ARTA_LOCAL_KEY=KEY)
    ways = ("setup", "--run", "other", "--url", server.url, "--no-picture", "--install")
    assert shell(*ways, "cursor").code == 0
    assert shell(*ways, "zed").code == 0
    cursor = json.loads((shell.machine.home / ".cursor/mcp.json").read_bytes())
    zed = json.loads((shell.machine.home / ".config/zed/settings.json").read_bytes())
    base = {"ARTA_LOCAL_ENGINE": "openai", "ARTA_LOCAL_URL": server.url}
    reference = {"ARTA_LOCAL_KEY": "${env:ARTA_LOCAL_KEY}"} if has_variable else {}
    bare = {"ARTA_LOCAL_KEY": KEY} if has_variable else {}
    assert cursor["mcpServers"]["arta"]["env"] == base | reference
    assert zed["context_servers"]["arta"]["env"] == base | bare


def test_a_host_without_a_file_of_its_own_is_named_with_the_way_to_write_any(
    shell: Shell, server: ImageServer
) -> None:
    ways = ("setup", "--run", "other", "--url", server.url, "--no-picture", "--model", "mine")
    said = shell(*ways, "--install", "generic")
    assert said.code == 2
    assert "ARTA_LOCAL_MODEL=mine" in said.out
    assert "arta-mcp install --file PATH --env NAME=VALUE" in said.err


def test_a_key_is_asked_for_without_being_shown(machine: Machine) -> None:
    nowhere = machine.set(ARTA_PROXY=NOWHERE)
    with Terminal(nowhere, ("setup",)) as terminal:
        terminal.until("What do you run")
        terminal.type(f"{number_of('openai')}\n")
        terminal.until("Your key")
        terminal.type(f"{KEY}\n")
        terminal.until("Which model")
        terminal.interrupt()
        code = terminal.end()
    assert code == 130
    assert KEY not in terminal.screen


def test_where_a_picture_may_cost_money_none_is_drawn_without_a_word(shell: Shell) -> None:
    shell.set(ARTA_LOCAL_KEY=KEY, ARTA_PROXY=NOWHERE)
    said = shell("setup", "--run", "other", "--url", "https://images.invalid")
    assert "no picture is drawn, as it may cost money; --draw draws one" in said.err
    assert KEY not in said.out + said.err


def test_a_machine_in_the_network_is_asked_by_plain_http_only_after_a_yes(shell: Shell) -> None:
    shell.set(ARTA_PROXY=NOWHERE)
    url = "http://gpu.internal:7860"
    refused = shell("setup", "--run", "a1111", "--url", url)
    assert refused.code == 2
    assert "plain http is for this machine only" in refused.err
    assert "ARTA_LOCAL_HTTP=on" in refused.err
    allowed = shell("setup", "--run", "a1111", "--url", url, "--http", "--no-picture")
    assert "ARTA_LOCAL_HTTP=on" in allowed.out
    said = shell.at_terminal("setup", typed=f"{number_of('a1111')}\n{url}\ny\n\nn\n")
    assert "Allow plain http there? [y/N]" in said.err
    assert "ARTA_LOCAL_HTTP=on" in said.err


def test_ctrl_c_and_a_closed_terminal_change_nothing(machine: Machine, shell: Shell) -> None:
    with Terminal(machine, ("setup",)) as terminal:
        terminal.until("What do you run")
        terminal.interrupt()
        assert terminal.end() == 130
    closed = shell.at_terminal("setup", typed="\x04")
    assert closed.code == 1
    assert "error: no answer came" in closed.err
    assert not machine.state.exists()


def test_without_a_terminal_the_options_are_named(shell: Shell) -> None:
    said = shell("setup")
    assert said.code == 2
    assert "error: setup asks, and nobody is there to answer" in said.err
    assert "hint: give --run PROGRAM" in said.err


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_program_makes_settings_that_are_taken(program: object) -> None:
    from arta_mcp.cli.setup import Program

    assert isinstance(program, Program)
    chosen = {"ARTA_LOCAL_ENGINE": program.engine, "ARTA_LOCAL_MODEL": "m"}
    chosen |= {"ARTA_LOCAL_URL": program.url} if program.url else {"OPENAI_API_KEY": KEY}
    chosen |= {"ARTA_LOCAL_DIALECT": program.dialect} if program.dialect else {}
    assert Settings.from_env(chosen).draws_with_ai


def test_every_engine_is_offered() -> None:
    (engines,) = (one.choices for one in SETTINGS if one.name == "ARTA_LOCAL_ENGINE")
    assert {program.engine for program in PROGRAMS} | {"sketch"} == set(engines)
    assert {program.engine for program in ALL_PROGRAMS} <= {*engines, "diffusers"}
