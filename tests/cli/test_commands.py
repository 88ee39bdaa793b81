"""The commands at a terminal and in a pipe; batches and the doctor have files of their own."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import shtab
from PIL import Image

from arta_mcp.cli.completion import SHELLS
from arta_mcp.cli.console import print_data, translate_hint
from arta_mcp.cli.generate import OPTIONS
from arta_mcp.cli.thumbnails import detect_protocol, render
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.local.loopback import Running
from arta_mcp.local.service import Service
from arta_mcp.redaction import Secret
from harness.installed import PATIENCE, Machine, decoded, opened, paint, remote
from harness.shell import Shell, Terminal


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One quick service that stands for the remote one."""
    folder = tmp_path_factory.mktemp("remote")
    with Running(Service(folder, engine=paint, queue=0, draw=0)) as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path, service: Running) -> Machine:
    return Machine.new(tmp_path / "machine").set(**remote(service))


@pytest.fixture
def shell(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    return Shell.on(machine, monkeypatch, capsys)


# What is drawn, and where it goes


def test_help_says_of_each_argument_what_the_tool_says(shell: Shell) -> None:
    told = " ".join(shell("generate", "--help").out.split())
    properties = GenerationRequest.model_json_schema()["properties"]
    for name in OPTIONS:
        described = properties[name]
        words = described.get("description") or described["anyOf"][0]["description"]
        assert " ".join(translate_hint(words).split()) in re.sub(r"(?<=\w)- (?=\w)", "-", told), (
            name
        )


def test_a_folder_that_cannot_be_one_is_refused_before_anything_is_ordered(
    shell: Shell, service: Running
) -> None:
    (shell.machine.elsewhere / "mine").write_bytes(b"a file")
    before = service.service.seen.copy()
    said = shell("generate", "a lake", "-o", "mine/pictures")
    assert said.code == 2
    assert "--output is" in said.err
    assert "a folder that can be written to" in said.err
    assert service.service.seen == before
    assert not shell.machine.state.exists()


def test_get_saves_again_where_it_is_told_and_draws_nothing(shell: Shell, service: Running) -> None:
    drawn = shell("generate", "a lake", "-n", "2", "-o", "first", "--json").object
    before = service.service.seen["submit"]
    said = shell("get", str(drawn["record_id"]), "-o", "second")
    first, second = ((shell.machine.elsewhere / name) for name in ("first", "second"))
    assert said.code == 0, said.err
    assert said.out.splitlines() == [f"second/{drawn['record_id']}-{i}.png" for i in range(2)]
    assert [f.read_bytes() for f in sorted(second.iterdir())] == [
        f.read_bytes() for f in sorted(first.iterdir())
    ]
    assert service.service.seen["submit"] == before


def test_get_saves_anew_what_was_deleted(shell: Shell) -> None:
    drawn = shell("generate", "a lake", "--json").object
    (picture,) = shell.machine.elsewhere.iterdir()
    picture.unlink()
    said = shell("get", str(drawn["record_id"]))
    assert said.code == 0, said.err
    assert decoded(picture.read_bytes()).size == (8, 8)


def test_without_saving_an_address_is_printed_and_no_file_made(shell: Shell) -> None:
    said = shell("generate", "a lake", "--no-save")
    assert said.code == 0, said.err
    assert list(shell.machine.elsewhere.iterdir()) == []
    assert anyio.run(opened, said.out.strip()).size == (8, 8)


def test_a_picture_that_cannot_be_fetched_is_said_and_fails_the_command(
    shell: Shell, service: Running
) -> None:
    service.service.faults.add(Fault("404", "image", times=None))
    said = shell("generate", "a lake", "-o", "pictures")
    service.service.faults.clear()
    assert said.code == 1
    assert "picture 1 was not saved" in said.err
    assert said.out.startswith("http://127.0.0.1")


def test_open_shows_every_file_in_the_viewer(machine: Machine, tmp_path: Path) -> None:
    viewer = tmp_path / "viewer"
    viewer.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/opened\n', encoding="utf-8")
    viewer.chmod(0o755)
    ended = machine.set(BROWSER=f"{viewer} %s").run("generate", "a lake", "-n", "2", "--open")
    told = (tmp_path / "opened").read_text(encoding="utf-8").splitlines()
    assert ended.returncode == 0, ended.stderr
    assert told == [(machine.elsewhere / line).as_uri() for line in ended.stdout.splitlines()]


# Lists


def test_in_a_pipe_lists_are_tabs_without_a_header(shell: Shell) -> None:
    drawn = shell("generate", "a lake\nat   night", "--json", "--no-save").object
    shown = shell("history").out.splitlines()
    models = shell("models", "--search", "van gogh").out
    assert [line.split("\t")[1:] for line in shown] == [
        ["done", drawn["record_id"], "flux", "a lake at night"]
    ]
    assert models == "vincent-van-gogh\tart\tVincent Van Gogh\n"


def test_models_are_found_by_category(shell: Shell) -> None:
    shown = shell("models", "--search", "tattoo").out.splitlines()
    assert {line.split("\t")[1] for line in shown} == {"tattoo"}
    assert len(shown) > 10


def test_a_search_that_finds_nothing_says_how_to_see_all(shell: Shell) -> None:
    said = shell("models", "--search", "qqqqqq")
    assert (said.code, said.out) == (0, "")
    assert "`arta-mcp models` without --search" in said.err


def test_at_a_terminal_lists_have_a_header_and_no_line_is_too_long(machine: Machine) -> None:
    assert machine.run("generate", "a lake " * 30, "--no-save").returncode == 0
    with Terminal(machine, ("history",), columns=90) as terminal:
        assert terminal.end() == 0
    header, row = terminal.screen.splitlines()
    assert header.split() == ["WHEN", "STATUS", "RECORD", "ID", "MODEL", "PROMPT"]
    assert len(row) == 90
    assert row.endswith("…")
    assert row.index("flux") == header.index("MODEL")


# The account


def test_status_shows_no_token_and_makes_nothing(shell: Shell) -> None:
    said = shell("account")
    assert said.code == 0
    assert "none; the first picture signs up" in said.out
    assert not shell.machine.state.exists()


def test_status_tells_the_stored_account_and_never_a_token(shell: Shell) -> None:
    assert shell("generate", "a lake", "--no-save").code == 0
    (stored,) = shell.machine.state.glob("account-*.json")
    kept = json.loads(stored.read_bytes())
    for said in (shell("account", "status"), shell("account", "status", "--json")):
        assert kept["user_id"] in said.out
        assert str(stored) in said.out
        for secret in ("id_token", "refresh_token"):
            assert kept[secret] not in said.out + said.err
    assert said.object["is_fresh"] is True


@pytest.mark.parametrize("key", ["a-key-of-mine", "a-'key\"of\\mine"])
def test_a_user_id_that_repeats_the_key_or_a_token_is_not_shown(shell: Shell, key: str) -> None:
    shell.set(ARTA_API_KEY=key)
    assert shell("generate", "a lake", "--no-save").code == 0
    (stored,) = shell.machine.state.glob("account-*.json")
    kept = json.loads(stored.read_bytes())
    for secret in (key, kept["refresh_token"]):
        stored.write_text(json.dumps({**kept, "user_id": f"u-{secret}"}), encoding="utf-8")
        for said in (shell("account"), shell("account", "--json")):
            assert "u-[redacted]" in said.out
            assert secret not in said.out + said.err


def test_an_account_that_ends_the_moment_it_began_is_stale_and_not_damaged(shell: Shell) -> None:
    assert shell("generate", "a lake", "--no-save").code == 0
    (stored,) = shell.machine.state.glob("account-*.json")
    kept = json.loads(stored.read_bytes())
    stored.write_text(json.dumps({**kept, "expires_at": kept["issued_at"]}), encoding="utf-8")
    said = shell("account", "--json").object
    assert (said["user_id"], said["is_fresh"]) == (kept["user_id"], False)


def test_reset_drops_the_account_and_nothing_else(shell: Shell, service: Running) -> None:
    assert shell("generate", "a lake", "--no-save").code == 0
    (stored,) = shell.machine.state.glob("account-*.json")
    sign_ups = service.service.seen["sign_up"]
    refused = shell("account", "reset")
    assert stored.exists()
    dropped = shell("account", "reset", "--yes")
    assert (refused.code, dropped.code) == (2, 0)
    assert "hint: add --yes" in refused.err
    assert not stored.exists()
    assert len(shell("history").out.splitlines()) == 1
    assert shell("generate", "a hill", "--no-save").code == 0
    assert service.service.seen["sign_up"] == sign_ups + 1


@pytest.mark.parametrize(("answer", "code", "is_left"), [("y\n", 0, False), ("\n", 1, True)])
def test_reset_asks_at_a_terminal(machine: Machine, answer: str, code: int, is_left: bool) -> None:
    assert machine.run("generate", "a lake", "--no-save").returncode == 0
    (stored,) = machine.state.glob("account-*.json")
    with Terminal(machine, ("account", "reset")) as terminal:
        terminal.until(r"Drop it\? \[y/N\]")
        terminal.type(answer)
        assert terminal.end() == code
    assert stored.exists() == is_left


# While one waits


def test_a_terminal_shows_a_bar_and_then_the_pictures(machine: Machine) -> None:
    with Terminal(
        machine, ("generate", "a lake", "-n", "2"), environ={"COLORTERM": "truecolor"}
    ) as terminal:
        assert terminal.end() == 0, terminal.screen
    assert re.search(r"done +\|█+\| \d", terminal.screen)
    assert "\x1b[0;38;2;" in terminal.screen
    assert "▀" in terminal.screen
    last = re.split(r"[\r\n]+", terminal.screen)
    assert sum(line.endswith("-0.png") for line in last) == 1


def test_the_bar_knows_how_long_it_takes_once_jobs_of_the_model_were_seen(
    machine: Machine, tmp_path: Path
) -> None:
    with Running(Service(tmp_path / "slow", engine=paint, queue=0, draw=0.7)) as slow:
        patient = machine.set(**remote(slow))
        with Terminal(patient, ("generate", "a lake", "--no-save")) as first:
            assert first.end() == 0, first.screen
        with Terminal(patient, ("generate", "a lake", "--no-save")) as second:
            assert second.end() == 0, second.screen
    assert "the first of this model, so no forecast" in first.screen
    assert re.search(r"\|█*.* *\| \d+ s, (any moment now|about \d+ s left)", second.screen)


@pytest.mark.parametrize("columns", [20, 45, 200])
def test_the_bar_fits_the_terminal(machine: Machine, columns: int) -> None:
    command = ("generate", "a lake", "--no-picture", "--no-save")
    with Terminal(machine, command, columns=columns) as terminal:
        assert terminal.end() == 0, terminal.screen
    drawn = [line for line in re.split(r"[\r\n]+", terminal.screen) if "|" in line]
    assert drawn
    assert max(len(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line)) for line in drawn) < columns


@pytest.mark.parametrize(
    ("options", "environ"),
    [
        (["--no-picture"], {"COLORTERM": "truecolor"}),
        (["--json"], {"COLORTERM": "truecolor"}),
        ([], {"COLORTERM": "truecolor", "NO_COLOR": "1"}),
        ([], {"TERM": "dumb"}),
        ([], {"TERM": "vt100"}),
    ],
)
def test_no_picture_is_shown_where_none_is_wanted(
    machine: Machine, options: list[str], environ: dict[str, str]
) -> None:
    with Terminal(machine, ("generate", "a lake", *options), environ=environ) as terminal:
        assert terminal.end() == 0, terminal.screen
    assert not re.search(r"[▀▄]|\x1b_G|\x1b\]1337", terminal.screen)


def test_stdout_in_a_file_is_data_alone_while_a_terminal_watches(
    machine: Machine, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with Terminal(
        machine, ("generate", "a lake"), environ={"COLORTERM": "truecolor"}, data=data
    ) as terminal:
        assert terminal.end() == 0, terminal.screen
    (line,) = data.read_text(encoding="utf-8").splitlines()
    assert (machine.elsewhere / line).is_file()
    assert "▀" in terminal.screen


def test_stopping_tells_the_record_id_and_the_job_can_be_fetched(
    machine: Machine, tmp_path: Path
) -> None:
    with Running(Service(tmp_path / "slow", engine=paint, queue=0, draw=4)) as slow:
        patient = machine.set(**remote(slow))
        with Terminal(patient, ("generate", "a lake")) as terminal:
            terminal.until("so no forecast")
            terminal.interrupt()
            code = terminal.end()
        record_id = re.search(r"`arta-mcp get (\w+)` fetches", terminal.screen)
        assert record_id is not None, terminal.screen
        fetched = patient.run("get", record_id[1])
    assert code == 130
    assert "Traceback" not in terminal.screen
    assert fetched.returncode == 0, fetched.stderr
    assert slow.service.seen["submit"] == 1


# Pictures as text


RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture_of(*colours: tuple[int, int, int], size: int = 1) -> bytes:
    """A picture of horizontal stripes."""
    picture = Image.new("RGB", (size, size * len(colours)))
    for i, colour in enumerate(colours):
        picture.paste(colour, (0, i * size, size, (i + 1) * size))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_half_blocks_hold_two_pixels_each() -> None:
    shown = render([picture_of(RED, BLUE)], "truecolor", columns=1)
    assert shown == "\x1b[0;38;2;255;0;0;48;2;0;0;255m▀\x1b[0m"


def test_a_terminal_of_256_colours_gets_the_nearest() -> None:
    shown = render([picture_of(RED, BLUE)], "256color", columns=1)
    assert shown == "\x1b[0;38;5;196;48;5;21m▀\x1b[0m"


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("columns", [12, 79, 300])
def test_pictures_stand_beside_each_other_and_fit(count: int, columns: int) -> None:
    shown = render([picture_of(RED, size=40)] * count, "truecolor", columns=columns)
    widths = [len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in shown.split("\n")]
    assert 0 < max(widths) <= columns
    assert len(set(widths)) == 1


def test_kitty_and_iterm_get_a_real_picture() -> None:
    picture = picture_of(RED, size=40)
    kitty = render([picture], "kitty", columns=30)
    iterm = render([picture], "iterm2", columns=30)
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", kitty)
    assert "".join(f"\x1b_G{head};{body}\x1b\\" for head, body in chunks) == kitty
    assert chunks[0][0].startswith("a=T,f=100,q=2,c=30,")
    assert max(len(body) for _, body in chunks) <= 4096
    assert [head[-1] for head, _ in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    sizes = {
        decoded(base64.b64decode("".join(body for _, body in chunks))).size,
        decoded(base64.b64decode(iterm.partition(":")[2].rstrip("\x07"))).size,
    }
    assert sizes == {(300, 300)}


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_what_is_no_picture_is_not_shown(content: bytes) -> None:
    assert render([content], "truecolor", columns=40) == ""


@pytest.mark.parametrize(
    ("environ", "way"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "TMUX": "x"}, "256color"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "truecolor"),
        ({"TERM": "xterm-256color"}, "256color"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, None),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, None),
        ({}, None),
    ],
)
def test_a_terminal_gets_what_it_can_show(environ: dict[str, str], way: str | None) -> None:
    assert detect_protocol(environ) == way


# Completion


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
        timeout=PATIENCE,
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


def test_every_shell_that_the_library_knows_is_offered() -> None:
    assert set(SHELLS) == set(shtab.SUPPORTED_SHELLS)


@pytest.mark.parametrize("name", SHELLS)
def test_every_shell_gets_a_script_and_needs_no_settings(shell: Shell, name: str) -> None:
    shell.set(ARTA_MAX_WAIT="abc")
    said = shell("completion", name)
    assert said.code == 0
    assert said.err == ""
    assert all(word in said.out for word in ("generate", "doctor", "history"))


# Wrong words


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        ("genrate", "invalid choice: 'genrate'", "did you mean generate?"),
        ("modles", "invalid choice: 'modles'", "did you mean models?"),
        ("xyzzy", "invalid choice: 'xyzzy'", "arta-mcp --help shows"),
        ("account rest", "invalid choice: 'rest'", "did you mean reset?"),
        ("completion bsh", "invalid choice: 'bsh'", "did you mean bash?"),
        ("models --jsn", "unrecognized arguments: --jsn", "did you mean --json?"),
        ("generate x --aspct-ratio=1:1", "--aspct-ratio=1:1", "did you mean --aspect-ratio?"),
        ("generate a lake", "unrecognized arguments: lake", "put text with blanks in quotes"),
        ("--json history", "unrecognized arguments: --json", "put --json behind the command"),
        ("generate", "required: PROMPT", "arta-mcp generate --help"),
        ("generate x --batch y", "give PROMPT or --batch, not both", "--help"),
        ("generate --batch y --open", "--open goes with one prompt", "--help"),
        ("generate x -m fluxx", "'fluxx'", "`arta-mcp models` shows them all"),
        ("get nonsense!", "no generation has the record id", "arta-mcp history"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(
    shell: Shell, line: str, error: str, hint: str
) -> None:
    said = shell(*line.split())
    first, *rest = said.err.splitlines()
    assert said.code in (1, 2)
    assert said.out == ""
    assert first.startswith("error: ")
    assert error in first
    assert hint in " ".join(rest)


def test_a_prompt_without_a_command_is_answered_with_the_command(shell: Shell) -> None:
    assert 'hint: `arta-mcp generate "a red fox"` draws it' in shell("a red fox").err


# How commands end


class Wrong(io.StringIO):
    """A stream that fails as no stream should."""

    def write(self, _: str, /) -> int:
        raise ZeroDivisionError("nobody thought of this")


def test_a_bug_is_one_sentence_and_says_how_to_see_more(shell: Shell) -> None:
    shell.patch.setattr("sys.stdout", Wrong())
    said = shell("models")
    assert said.code == 1
    assert said.err.splitlines() == [
        "error: ZeroDivisionError: nobody thought of this",
        "hint: this is a bug in arta-mcp; ARTA_LOG_LEVEL=DEBUG shows where it happened",
    ]


def test_the_log_shows_where_a_bug_happened(machine: Machine) -> None:
    code = (
        "import sys; from arta_mcp import cli; from test_commands import Wrong;"
        "sys.stdout = Wrong(); sys.exit(cli.main(['models']))"
    )
    ended = subprocess.run(
        [str(machine.program.with_name("python")), "-c", code],
        env={
            **machine.set(ARTA_LOG_LEVEL="DEBUG").environ,
            "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[:2])),
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "error: ZeroDivisionError: nobody thought of this" in ended.stderr


def test_a_full_disk_is_one_sentence(machine: Machine) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [str(machine.program), "models"],
            env=machine.environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode != 0
    assert "error: No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("models",),
        ("history", "--json"),
        ("account",),
        ("doctor", "--no-picture"),
        ("completion", "bash"),
        ("generate", "a lake"),
        ("generate", "--batch", "prompts"),
    ],
)
def test_a_reader_that_goes_away_ends_a_command_quietly(
    machine: Machine, command: tuple[str, ...]
) -> None:
    (machine.elsewhere / "prompts").write_text("a lake\na hill\n", encoding="utf-8")
    assert machine.run("generate", "a tree", "--no-save").returncode == 0
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        ended = subprocess.run(
            [str(machine.program), *command],
            env=machine.environ,
            cwd=machine.elsewhere,
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode == 1
    assert not re.search("Traceback|Exception ignored|error:", ended.stderr)


def test_an_address_keeps_its_signature_and_loses_our_secret(
    capsys: pytest.CaptureFixture[str],
) -> None:
    signed = "https://images.example/x.png?sig=eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.c2lnbmF0dXJl"
    Secret("our-own-key-123")
    print_data(f"{signed}&key=our-own-key-123")
    assert capsys.readouterr().out == f"{signed}&key=[redacted]\n"
