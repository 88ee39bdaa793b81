"""`serve --http`: what it refuses to serve, and what it says instead."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

import anyio
import pytest

from arta_mcp.cli import serve_http
from arta_mcp.cli.serve_http import HTTP_SETTINGS
from arta_mcp.config import SETTINGS
from arta_mcp.errors import Unavailable
from arta_mcp.state.records import Health
from harness.installed import TIMEOUT, Machine
from harness.programs import hear_signals

TOKENS = {"ARTA_HTTP_TOKENS": "alice=alice-token-0123456789"}
REMOTE = {"ARTA_API_KEY": "a-key-of-mine"}
ISSUER = {"ARTA_HTTP_ISSUER": "https://id.example.com"}
HOSTS = {"ARTA_HTTP_ALLOWED_HOSTS": "mcp.example.com"}
EVERYWHERE = {"ARTA_HTTP_HOST": "0.0.0.0"}

REFUSED: dict[str, tuple[dict[str, str], str, str]] = {
    "no tokens": (EVERYWHERE, "nothing says who may call", "ARTA_HTTP_TOKENS"),
    "no hosts": (EVERYWHERE | TOKENS | REMOTE, "under which name", "ARTA_HTTP_ALLOWED_HOSTS"),
    "no address for pictures": (
        EVERYWHERE | TOKENS | HOSTS,
        "whose pictures callers elsewhere are to open",
        "ARTA_HTTP_PUBLIC_URL",
    ),
    "no address for an issuer": (
        EVERYWHERE | ISSUER | HOSTS | REMOTE,
        "whose issuer's tokens must name it",
        "ARTA_HTTP_PUBLIC_URL",
    ),
    "malformed tokens": ({"ARTA_HTTP_TOKENS": "alice"}, "ARTA_HTTP_TOKENS", "openssl rand"),
    "an issuer without https": (
        {"ARTA_HTTP_ISSUER": "http://id.example.com"},
        "ARTA_HTTP_ISSUER is 'http://id.example.com'; plain http",
        "https",
    ),
    "too many jobs": ({"ARTA_MAX_CONCURRENCY": "401"}, "400 jobs at most", "more processes"),
    "pictures of one process in a shared state": (
        {"ARTA_STATE_URL": "redis://127.0.0.1:1"},
        "ARTA_STATE_URL shares generations that the local backend draws",
        "ARTA_STATE_URL",
    ),
    "an address of another machine": (
        {"ARTA_HTTP_HOST": "192.0.2.1", **TOKENS, **HOSTS, **REMOTE},
        "cannot be listened at",
        "ARTA_HTTP_PORT",
    ),
}


@pytest.mark.parametrize(("settings", "why", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_must_not_be_served_is_refused_and_says_what_to_set(
    tmp_path: Path, settings: dict[str, str], why: str, hint: str
) -> None:
    ended = Machine.new(tmp_path / "machine").set(**settings).run("serve", "--http")
    assert ended.returncode == 2, ended.stderr
    error, told = ended.stderr.splitlines()
    assert error.startswith("error: ")
    assert why in error
    assert told.startswith("hint: ")
    assert hint in told
    assert "alice-token" not in ended.stderr


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = Machine.new(tmp_path / "machine").run("serve", "--http", "--port", port)
    assert ended.returncode == 2
    assert f"ARTA_HTTP_PORT {port} cannot be listened at: address already in use" in ended.stderr


def test_every_setting_of_http_but_a_secret_is_an_option(tmp_path: Path) -> None:
    machine = Machine.new(tmp_path / "machine")
    help_text = machine.run("serve", "--help").stdout
    named = [one for one in SETTINGS if one.name.startswith("ARTA_HTTP_")]
    for setting in named:
        option = f"--{setting.name.removeprefix('ARTA_HTTP_').lower().replace('_', '-')} "
        assert (option in help_text) == (not setting.secret)
    assert [one.name for one in named if one.secret] == ["ARTA_HTTP_TOKENS"]
    assert len(HTTP_SETTINGS) == len(named) - 1


def test_an_option_goes_before_its_variable_and_is_checked_as_it(tmp_path: Path) -> None:
    machine = Machine.new(tmp_path / "machine").set(ARTA_HTTP_PORT="0")
    ended = machine.run("serve", "--http", "--port", "70000")
    assert ended.returncode == 2
    assert "ARTA_HTTP_PORT is '70000', not a port in 0..65535" in ended.stderr


def test_an_option_of_http_without_http_is_refused(tmp_path: Path) -> None:
    ended = Machine.new(tmp_path / "machine").run("serve", "--port", "8000")
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "error: these options are for --http",
        "hint: add --http",
    ]


# The start


class Store:
    """Generations whose store answers from the so-many-th look on."""

    def __init__(self, silent: int, *warnings: str) -> None:
        self.silent, self.warnings, self.looks = silent, warnings, 0

    async def health(self) -> Health:
        self.looks += 1
        if self.looks <= self.silent:
            return Health(store="redis", answers=False, warnings=("no connection",))
        return Health(store="redis", answers=True, warnings=self.warnings)


@pytest.mark.anyio
async def test_a_store_that_comes_late_is_waited_for_and_its_warnings_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve_http, "START_PAUSE", 0.01)
    store = Store(3, "it keeps nothing on disk")
    await serve_http.wait_for_store(store)  # pyright: ignore[reportArgumentType]  # all that is asked
    assert capsys.readouterr().err.splitlines() == [
        *["waiting for the store: no connection"] * 3,
        "warning: it keeps nothing on disk",
    ]


@pytest.mark.anyio
async def test_a_store_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_http, "START_PAUSE", 0.01)
    monkeypatch.setattr(serve_http, "START_TIMEOUT", 0.1)
    with anyio.fail_after(TIMEOUT), pytest.raises(Unavailable, match="has not answered in 0 s"):
        await serve_http.wait_for_store(Store(10**6))  # pyright: ignore[reportArgumentType]  # all that is asked


def test_a_server_that_waits_for_its_store_ends_at_once_with_a_signal(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, so that nothing else listens there
        machine = Machine.new(tmp_path / "machine").set(
            **REMOTE, ARTA_STATE_URL=f"redis://127.0.0.1:{free.getsockname()[1]}"
        )
        with subprocess.Popen(
            [str(machine.program), "serve", "--http", "--port", "0"],
            env=machine.environ,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hear_signals,
        ) as process:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert said.startswith("waiting for the store: "), said
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
            assert time.monotonic() - began < 5


def test_a_store_that_is_not_there_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    """The whole half minute, once."""
    (tmp_path / "machine").mkdir()
    machine = Machine.new(tmp_path / "machine" / "a").set(
        **REMOTE, ARTA_STATE_URL="redis://127.0.0.1:1"
    )
    began = time.monotonic()
    ended = machine.run("serve", "--http", "--port", "0")
    assert ended.returncode == 1
    assert 30 <= time.monotonic() - began < 50
    *_, error, hint = ended.stderr.splitlines()
    assert error.startswith("error: the store has not answered in 30 s: ")
    assert hint == "hint: start it, or set ARTA_STATE_URL or ARTA_STATE_DIR to where it is"
    assert "Traceback" not in ended.stderr
