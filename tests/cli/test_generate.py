"""`generate` and `get`: what is drawn, where it goes, what a person is told."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import pytest

from arta_mcp.cli.console import translate_hint
from arta_mcp.cli.generate import OPTIONS
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.local.faults.catalogue import Fault
from harness.installed import Machine, decode, fetch_picture, remote_settings, run_service
from harness.service import ScriptedServer
from harness.shell import Shell, Terminal

TRUECOLOR = {"COLORTERM": "truecolor"}


def test_help_says_of_each_argument_what_the_tool_says(shell: Shell) -> None:
    told = " ".join(shell("generate", "--help").out.split())
    properties = GenerationRequest.model_json_schema()["properties"]
    for name in OPTIONS:
        described = properties[name]
        words = described.get("description") or described["anyOf"][0]["description"]
        unfolded = re.sub(r"(?<=\w)- (?=\w)", "-", told)
        assert " ".join(translate_hint(words).split()) in unfolded, name


def test_generate_prints_one_path_a_line(shell: Shell) -> None:
    said = shell("generate", "a lake", "-n", "3")
    paths = [shell.machine.elsewhere / line for line in said.out.splitlines()]
    assert said.code == 0, said.err
    assert sorted(paths) == sorted(shell.machine.elsewhere.iterdir())
    assert len(paths) == 3
    assert "record id" in said.err


def test_a_folder_that_cannot_be_one_is_refused_before_anything_is_ordered(
    shell: Shell, service: ScriptedServer
) -> None:
    (shell.machine.elsewhere / "mine").write_bytes(b"a file")
    said = shell("generate", "a lake", "-o", "mine/pictures")
    assert said.code == 2
    assert "--output is" in said.err
    assert "a folder that can be written to" in said.err
    assert not service.service.seen
    assert not shell.machine.state.exists()


def test_get_takes_the_beginning_of_a_record_id(shell: Shell) -> None:
    drawn = [str(shell("generate", "a lake", "--json").json["record_id"]) for _ in range(2)]
    first = drawn[0]
    enough = next(n for n in range(1, 33) if not drawn[1].startswith(first[:n]))
    said = shell("get", first[:enough], "--json")
    assert said.code == 0, said.err
    assert said.json["record_id"] == first
    unknown = shell("get", "zzzz")
    assert unknown.code == 1
    assert "no generation has the record id 'zzzz'" in unknown.err


def test_a_beginning_of_several_record_ids_names_them(shell: Shell) -> None:
    drawn: dict[str, str] = {}
    while True:  # 17 draws at most
        record_id = str(shell("generate", "a lake", "--no-save", "--json").json["record_id"])
        if record_id[0] in drawn:
            break
        drawn[record_id[0]] = record_id
    said = shell("get", record_id[0])
    assert said.code == 2
    assert "error: RECORD_ID is" in said.err
    assert record_id in said.err
    assert drawn[record_id[0]] in said.err


def test_get_saves_again_where_it_is_told_and_draws_nothing(
    shell: Shell, service: ScriptedServer
) -> None:
    drawn = shell("generate", "a lake", "-n", "2", "-o", "first", "--json").json
    said = shell("get", str(drawn["record_id"]), "-o", "second")
    first, second = ((shell.machine.elsewhere / name) for name in ("first", "second"))
    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        f"second/a-lake-{drawn['record_id']}-{i}.png" for i in range(2)
    ]
    assert [f.read_bytes() for f in sorted(second.iterdir())] == [
        f.read_bytes() for f in sorted(first.iterdir())
    ]
    assert service.service.seen["submit"] == 1


def test_get_saves_anew_what_was_deleted(shell: Shell) -> None:
    drawn = shell("generate", "a lake", "--json").json
    (picture,) = shell.machine.elsewhere.iterdir()
    picture.unlink()
    said = shell("get", str(drawn["record_id"]))
    assert said.code == 0, said.err
    assert decode(picture.read_bytes()).size == (8, 8)


def test_get_fetches_what_generate_left_pending(shell: Shell, tmp_path: Path) -> None:
    with run_service(tmp_path / "slow", draw=1) as slow:
        shell.set(**remote_settings(slow))
        pending = shell("generate", "a lake", "--max-wait", "0", "--no-save", "--json")
        record_id = str(pending.json["record_id"])
        done = shell("get", record_id, "-o", "later")
    assert pending.code == 3
    assert pending.json["status"] == "pending"
    assert f"`arta-mcp get {record_id}`" in pending.err
    assert done.code == 0, done.err
    (file,) = (shell.machine.elsewhere / "later").iterdir()
    assert decode(file.read_bytes()).size == (8, 8)
    entry = shell("history", "--json").json
    assert (entry["record_id"], entry["status"]) == (record_id, "done")


def test_without_saving_an_address_is_printed_and_no_file_made(shell: Shell) -> None:
    said = shell("generate", "a lake", "--no-save")
    assert said.code == 0, said.err
    assert list(shell.machine.elsewhere.iterdir()) == []
    assert anyio.run(fetch_picture, said.out.strip()).size == (8, 8)


def test_a_picture_that_cannot_be_fetched_is_said_and_fails_the_command(
    shell: Shell, service: ScriptedServer
) -> None:
    service.service.faults.add(Fault("404", "image", times=None))
    said = shell("generate", "a lake", "-o", "pictures")
    assert said.code == 1
    assert "picture 1 was not saved" in said.err
    assert said.out.startswith("http://127.0.0.1")


def test_open_shows_every_file_in_the_viewer(quick: Machine, tmp_path: Path) -> None:
    viewer = tmp_path / "viewer"
    viewer.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/opened\n', encoding="utf-8")
    viewer.chmod(0o755)
    ended = quick.set(BROWSER=f"{viewer} %s").run("generate", "a lake", "-n", "2", "--open")
    told = (tmp_path / "opened").read_text(encoding="utf-8").splitlines()
    assert ended.returncode == 0, ended.stderr
    assert told == [(quick.elsewhere / line).as_uri() for line in ended.stdout.splitlines()]


def test_the_viewer_inherits_no_setting_of_ours(quick: Machine, tmp_path: Path) -> None:
    viewer = tmp_path / "viewer"
    viewer.write_text(f'#!/bin/sh\nenv > "{tmp_path}/seen"\n', encoding="utf-8")
    viewer.chmod(0o755)
    machine = quick.set(BROWSER=f"{viewer} %s", OTHER="x", ARTA_APIKEY="misspelt-secret")
    ended = machine.run("generate", "a lake", "--open")
    assert ended.returncode == 0, ended.stderr
    seen = (tmp_path / "seen").read_text(encoding="utf-8")
    assert "ARTA_API_KEY" in machine.environ
    assert "OTHER=x\n" in seen
    assert "ARTA_" not in seen


# At a terminal


def test_a_terminal_shows_a_bar_and_then_the_pictures(shell: Shell) -> None:
    said = shell.at_terminal("generate", "a lake", "-n", "2", environ=TRUECOLOR)
    assert said.code == 0, said.err
    assert re.search(r"done +\|█+\| \d", said.err)
    assert "\x1b[0;38;2;" in said.err
    assert "▀" in said.err
    last = re.split(r"[\r\n]+", said.err)
    assert sum(line.endswith("-0.png") for line in last) == 1


def test_the_bar_knows_how_long_it_takes_once_jobs_of_the_model_were_seen(
    shell: Shell, tmp_path: Path
) -> None:
    with run_service(tmp_path / "slow", draw=0.7) as slow:
        shell.set(**remote_settings(slow))
        first = shell.at_terminal("generate", "a lake", "--no-save")
        second = shell.at_terminal("generate", "a lake", "--no-save")
    assert (first.code, second.code) == (0, 0)
    assert "the first of this model, so no forecast" in first.err
    assert re.search(r"\|█*.* *\| \d+ s, (any moment now|about \d+ s left)", second.err)


@pytest.mark.parametrize(
    ("options", "environ"),
    [
        (["--no-picture"], TRUECOLOR),
        (["--json"], TRUECOLOR),
        ([], {**TRUECOLOR, "NO_COLOR": "1"}),
        ([], {"TERM": "vt100"}),
    ],
)
def test_no_picture_is_shown_where_none_is_wanted(
    shell: Shell, options: list[str], environ: dict[str, str]
) -> None:
    said = shell.at_terminal("generate", "a lake", *options, environ=environ)
    assert said.code == 0, said.err
    assert not re.search(r"[▀▄]|\x1b_G|\x1b\]1337", said.err)


def test_stdout_in_a_file_is_data_alone_while_a_terminal_watches(
    shell: Shell, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    said = shell.at_terminal("generate", "a lake", stdout=data, environ=TRUECOLOR)
    assert said.code == 0, said.err
    (line,) = data.read_text(encoding="utf-8").splitlines()
    assert (shell.machine.elsewhere / line).is_file()
    assert "▀" in said.err


def test_stopping_tells_the_record_id_and_the_job_can_be_fetched(
    shell: Shell, tmp_path: Path
) -> None:
    with run_service(tmp_path / "slow", draw=3) as slow:
        shell.set(**remote_settings(slow))
        with Terminal(shell.machine, ("generate", "a lake")) as terminal:
            terminal.until("so no forecast")
            terminal.interrupt()
            code = terminal.end()
        record_id = re.search(r"`arta-mcp get (\w+)` fetches", terminal.screen)
        assert record_id is not None, terminal.screen
        fetched = shell("get", record_id[1])
    assert code == 130
    assert "Traceback" not in terminal.screen
    assert fetched.code == 0, fetched.err
    assert slow.service.seen["submit"] == 1
