"""Whatever is typed, set or broken: one sentence, a hint, and an exit code that says which."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from arta_mcp import __version__
from arta_mcp.cli.console import print_data
from arta_mcp.redaction import Secret
from harness.installed import TIMEOUT, Machine
from harness.shell import Shell

# Wrong words


@pytest.mark.parametrize(
    ("line", "code", "error", "hint"),
    [
        ("genrate", 2, "invalid choice: 'genrate'", "did you mean generate?"),
        ("modles", 2, "invalid choice: 'modles'", "did you mean models?"),
        ("xyzzy", 2, "invalid choice: 'xyzzy'", "arta-mcp --help shows"),
        ("account rest", 2, "invalid choice: 'rest'", "did you mean reset?"),
        ("completion bsh", 2, "invalid choice: 'bsh'", "did you mean bash?"),
        ("models --jsn", 2, "unrecognized arguments: --jsn", "did you mean --json?"),
        ("generate x --aspct-ratio=1:1", 2, "--aspct-ratio=1:1", "did you mean --aspect-ratio?"),
        ("generate a lake", 2, "unrecognized arguments: lake", "put text with blanks in quotes"),
        ("--json history", 2, "unrecognized arguments: --json", "put --json behind the command"),
        ("generate", 2, "required: PROMPT", "arta-mcp generate --help"),
        ("generate x --batch y", 2, "give PROMPT or --batch, not both", "--help"),
        ("generate --batch y --open", 2, "--open goes with one prompt", "--help"),
        ("generate x -n 9", 2, "n is '9'", ""),
        ("generate x -a 5:7", 2, "aspect_ratio is '5:7'", ""),
        ("history --limit few", 2, "invalid int value: 'few'", "--help"),
        ("generate x -m fluxx", 1, "'fluxx'", "`arta-mcp models` shows them all"),
        ("get nonsense!", 1, "no generation has the record id", "arta-mcp history"),
        (f"get {'0' * 32}", 1, "no generation has the record id", "arta-mcp history"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(
    shell: Shell, line: str, code: int, error: str, hint: str
) -> None:
    said = shell(*line.split())
    first, *rest = said.err.splitlines()
    assert said.code == code
    assert said.out == ""
    assert first.startswith("error: ")
    assert error in first
    assert all(line.startswith("hint: ") for line in rest)
    assert hint in " ".join(rest)


def test_a_prompt_without_a_command_is_answered_with_the_command(shell: Shell) -> None:
    assert 'hint: `arta-mcp generate "a red fox"` draws it' in shell("a red fox").err


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_version_and_help_need_no_settings(shell: Shell, flag: str) -> None:
    shell.set(ARTA_MAX_WAIT="abc")
    said = shell(flag)
    assert said.code == 0
    assert said.out.startswith((f"arta-mcp {__version__}", "usage: arta-mcp"))
    assert said.err == ""


# Wrong settings


@pytest.mark.parametrize(
    ("settings", "quoted"),
    [
        ({"ARTA_BACKEND": "arta", "ARTA_API_KEY": ""}, "ARTA_API_KEY is not set"),
        ({"ARTA_BACKEND": "cloud"}, "ARTA_BACKEND is 'cloud'"),
        ({"ARTA_BASE_URL": "http://example.org"}, "ARTA_BASE_URL is 'http://example.org'"),
        ({"ARTA_MAX_WAIT": "abc"}, "ARTA_MAX_WAIT is 'abc'"),
        (
            {"ARTA_API_KEY": "${user_config.api_key}"},
            "ARTA_API_KEY is the literal ${user_config.api_key}",
        ),
    ],
)
@pytest.mark.parametrize("command", [(), ("generate", "a lake")], ids=["server", "generate"])
def test_a_setting_that_cannot_be_used_stops_the_start(
    shell: Shell, command: tuple[str, ...], settings: dict[str, str], quoted: str
) -> None:
    shell.set(**settings)
    said = shell(*command)
    error, hint = said.err.splitlines()
    assert said.code == 2
    assert said.out == ""
    assert error.startswith("error: ")
    assert quoted in error
    assert hint.startswith("hint: ")
    assert not shell.machine.state.exists()


def test_a_misspelt_variable_is_told_with_the_nearest_name(shell: Shell) -> None:
    shell.set(ARTA_MAXWAIT="5")
    said = shell("models", "--search", "flux")
    warning = "warning: ARTA_MAXWAIT means nothing here; did you mean ARTA_MAX_WAIT?"
    assert said.code == 0
    assert warning in said.err.splitlines()


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
        "import sys; from arta_mcp import cli; from arta_mcp.cli import tables;"
        "tables.print_data = lambda line: 1 / 0; sys.exit(cli.main(['models']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=machine.set(ARTA_LOG_LEVEL="DEBUG").environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "error: ZeroDivisionError: division by zero" in ended.stderr


def test_a_full_disk_is_one_sentence(machine: Machine) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [str(machine.program), "models"],
            env=machine.environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert ended.returncode != 0
    assert "error: No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("models",),
        ("doctor", "--no-picture"),
        ("generate", "a lake"),
        ("generate", "--batch", "prompts"),
    ],
)
def test_a_reader_that_goes_away_ends_a_command_quietly(
    used: Machine, command: tuple[str, ...]
) -> None:
    (used.elsewhere / "prompts").write_text("a lake\na hill\n", encoding="utf-8")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        ended = subprocess.run(
            [str(used.program), *command],
            env=used.environ,
            cwd=used.elsewhere,
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT,
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
