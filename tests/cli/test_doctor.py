"""The doctor: what is wrong is said with a remedy, and nothing is changed."""

from __future__ import annotations

import json
import platform
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pytest

from arta_mcp import __version__, quick_replies
from arta_mcp.cli.doctor import check_quick_start
from arta_mcp.config import Settings
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.quick_replies import MARK_NAME, RecordedReplies, keep_off
from harness.installed import Machine, remote_settings
from harness.service import ScriptedServer
from harness.shell import CommandResult, Shell


@pytest.fixture
def shell(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """Without settings: each test says what it has to do with the remote service."""
    return Shell.on(machine, monkeypatch, capsys)


def lines(said: CommandResult, name: str) -> list[str]:
    """What the doctor said of one thing, remedies among it."""
    found = said.out.splitlines()
    at = [i for i, line in enumerate(found) if line[6:].startswith(name)]
    return [
        line
        for i in at
        for line in (found[i], *found[i + 1 : i + 2])
        if line == found[i] or not line[:6].strip()
    ]


def test_without_a_key_everything_is_well_and_a_sketch_is_drawn(shell: Shell) -> None:
    said = shell("doctor")
    assert said.code == 0, said.out
    assert {line[:4] for line in said.out.splitlines()} == {"ok  "}
    assert "backend local (no ARTA_API_KEY): sketches" in said.out
    assert "1024x1024, drawn in" in said.out
    assert ": 0 fail, 0 warn" in said.err
    assert lines(said, "sketches")[0].startswith("ok    sketches")
    assert "0 jobs, 0 MB; beyond 1000 jobs or 2147 MB the oldest go" in said.out


def test_a_picture_that_made_room_is_told_as_removed_and_fails_the_command(shell: Shell) -> None:
    shell.set(ARTA_SKETCH_LIMIT="1MB")
    drawn = shell("generate", "a lake", "--no-save", "--json").json
    folder = shell.machine.state / "local"
    for path in folder.glob("images/*.png"):
        path.unlink()
    record_id = str(drawn["record_id"])
    (folder / "records" / f"{record_id}.json").unlink()
    (folder / "removed").write_text(f"{record_id}\n", encoding="utf-8")
    said = shell("get", record_id)
    assert said.code == 1
    assert said.out == ""
    assert "note: the pictures are gone: this sketch was removed to make room" in said.err
    assert "draw them again: the same arguments with the same seed" in said.err
    assert "later" not in said.err


@pytest.mark.skipif(find_spec("torch") is not None, reason="the extra is installed")
def test_an_engine_whose_packages_are_not_there_is_told_with_the_line_that_installs_them(
    shell: Shell,
) -> None:
    shell.set(ARTA_LOCAL_ENGINE="diffusers", ARTA_LOCAL_MODEL="stabilityai/sd-turbo")
    said = shell("doctor")
    assert said.code == 1
    assert "AI pictures on this machine by stabilityai/sd-turbo" in said.out
    found = " ".join(lines(said, "engine"))
    assert "torch, diffusers, transformers cannot be imported" in found
    assert "pip install 'arta-mcp[diffusers]'" in found
    assert "not tried" in lines(said, "picture")[0]


def test_with_a_key_every_address_is_asked_and_a_picture_drawn(
    shell: Shell, service: ScriptedServer
) -> None:
    shell.set(**remote_settings(service))
    said = shell("doctor")
    assert said.code == 0, said.out
    assert "backend arta (ARTA_API_KEY is set): the remote service" in said.out
    assert len(lines(said, "address")) == 1  # all on one host here
    assert "answers GET / with" in lines(said, "address")[0]
    assert lines(said, "clock") == ["ok    clock         agrees with the services to the minute"]
    assert "8x8, drawn in" in said.out


def test_no_secret_is_shown(shell: Shell, service: ScriptedServer) -> None:
    shell.set(**remote_settings(service))
    assert shell("generate", "a lake", "--no-save").code == 0
    (stored,) = shell.machine.state.glob("account-*.json")
    kept = json.loads(stored.read_bytes())
    said = shell("doctor", "--json")
    for secret in (kept["id_token"], kept["refresh_token"], shell.machine.settings["ARTA_API_KEY"]):
        assert secret not in said.out + said.err


def test_without_a_picture_nothing_is_ordered_and_nothing_made(
    shell: Shell, service: ScriptedServer
) -> None:
    local = shell("doctor", "--no-picture")
    assert local.code == 0
    assert not shell.machine.state.exists()
    shell.set(**remote_settings(service))
    before = service.service.seen["submit"], service.service.seen["sign_up"]
    assert shell("doctor", "--no-picture").code == 0
    assert (service.service.seen["submit"], service.service.seen["sign_up"]) == before


def test_json_is_one_object(shell: Shell) -> None:
    said = shell("doctor", "--json", "--no-picture")
    findings = said.json["findings"]
    assert said.json["ok"] is True
    assert said.err == ""
    assert isinstance(findings, list)
    assert {tuple(finding) for finding in findings} == {("name", "status", "detail", "remedy")}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # JSON


def test_whether_a_start_is_quick_is_said_and_why_not(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lines(shell("doctor", "--no-picture"), "quick start") == ["ok    quick start   on"]
    shell.set(ARTA_QUICK_REPLIES="off")
    [said] = lines(shell("doctor", "--no-picture"), "quick start")
    assert said == "ok    quick start   off (ARTA_QUICK_REPLIES=off)"
    shell.set(ARTA_QUICK_REPLIES="on")
    mark = shell.machine.state / MARK_NAME
    keep_off(RecordedReplies.read("sketch", None), mark)
    said, remedy = lines(shell("doctor", "--no-picture"), "quick start")
    assert said.startswith("warn  quick start   off: mcp 2.")
    assert f"delete {mark} to try again" in remedy
    mark.unlink()
    monkeypatch.setattr(quick_replies, "REPLIES_FILE", shell.machine.home / "gone.json")
    said, remedy = lines(shell("doctor", "--no-picture"), "quick start")
    assert said == "warn  quick start   off: gone.json is missing or damaged"
    assert "install arta-mcp anew" in remedy


def test_windows_has_no_quick_start_and_nothing_to_do_about_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.from_env({})
    monkeypatch.setattr(sys, "platform", "win32")
    found = check_quick_start(settings, shell.machine.environ)
    assert (found.status, found.detail) == ("ok", "off: not there yet on Windows")


# What is wrong with settings and folders


def test_a_setting_that_cannot_be_used_is_a_finding(shell: Shell) -> None:
    shell.set(ARTA_MAX_WAIT="abc")
    said = shell("doctor")
    assert said.code == 1
    assert lines(said, "settings") == [
        "fail  settings      ARTA_MAX_WAIT is 'abc', not a number of seconds in 0..3600",
        "                    -> set ARTA_MAX_WAIT to a number, or leave it out",
    ]


def test_a_misspelt_setting_is_a_warning_with_the_nearest(shell: Shell) -> None:
    shell.set(ARTA_MAXWAIT="5")
    said = shell("doctor", "--no-picture")
    assert said.code == 0
    assert lines(said, "settings")[1:] == [
        "warn  settings      ARTA_MAXWAIT means nothing here",
        "                    -> did you mean ARTA_MAX_WAIT?",
    ]


@pytest.mark.parametrize("kind", ["a file", "a link", "in a file"])
def test_a_state_folder_that_is_none_fails_and_is_left_alone(shell: Shell, kind: str) -> None:
    state, home = shell.machine.state, shell.machine.home
    match kind:
        case "a link":
            state.symlink_to(home)
        case "a file":
            state.write_bytes(b"mine")
        case _:
            state.write_bytes(b"mine")
            shell.set(ARTA_STATE_DIR=str(state / "below"))
    said = shell("doctor")
    assert said.code == 1
    first, remedy = lines(said, "state folder")
    assert first.startswith("fail  state folder")
    assert "set ARTA_STATE_DIR elsewhere" in remedy
    assert lines(said, "picture") == [
        "warn  picture       not tried: it would fail for the reason above",
        "                    -> mend that first",
    ]
    assert list(home.iterdir()) == []


def test_what_others_can_read_is_said_and_left_as_it_is(shell: Shell) -> None:
    state = shell.machine.state
    state.mkdir(mode=0o755)
    tokens = state / "account-local.json"
    tokens.write_text("{}", encoding="utf-8")
    tokens.chmod(0o600)
    said = shell("doctor", "--no-picture")
    assert "has mode 755: others can look inside" in said.out
    assert f"{tokens} is damaged" in said.out
    state.chmod(0o755)
    tokens.chmod(0o644)
    said = shell("doctor", "--no-picture")
    assert said.code == 1
    assert f"fail  state folder  {state} is open to others, and so is '{tokens.name}'" in said.out
    assert f"chmod -R go= {state}" in said.out
    assert f"others can read {tokens}" in said.out
    assert f"-> chmod 600 {tokens}" in said.out
    assert tokens.stat().st_mode & 0o777 == 0o644


def test_a_damaged_journal_is_said_and_left_as_it_is(shell: Shell) -> None:
    shell.machine.state.mkdir(mode=0o700)
    journal = shell.machine.state / "generations.sqlite3"
    journal.write_bytes(b"no database at all" * 100)
    said = shell("doctor", "--no-picture")
    first, remedy = lines(said, "journal")
    assert said.code == 0
    assert first.startswith(f"warn  journal       {journal} is damaged")
    assert "moves it aside" in remedy
    assert journal.read_bytes() == b"no database at all" * 100
    assert [path.name for path in shell.machine.state.iterdir()] == [journal.name]


def test_an_output_folder_that_is_none_fails(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"")
    shell.set(ARTA_OUTPUT_DIR=str(tmp_path / "mine"))
    said = shell("doctor", "--no-picture")
    assert said.code == 1
    assert lines(said, "output folder")[0].endswith("mine is no folder")


# What is wrong out there


def test_an_address_that_refuses_fails_with_a_remedy(shell: Shell, service: ScriptedServer) -> None:
    with socket.socket() as nobody:  # bound and not listening: the port is ours and refuses
        nobody.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        shell.set(**remote_settings(service))
        shell.set(ARTA_BASE_URL=dead)
        said = shell("doctor")
    assert said.code == 1
    refused, remedy = lines(said, "address")[:2]
    assert refused.startswith(f"fail  address       {dead} (ARTA_BASE_URL): no connection to")
    assert "check the network and its proxy (ARTA_PROXY), then ARTA_BASE_URL" in remedy
    assert "not tried" in lines(said, "picture")[0]


def test_a_style_list_out_of_reach_is_only_a_warning(shell: Shell, service: ScriptedServer) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        shell.set(**remote_settings(service))
        shell.set(ARTA_STYLES_URL=f"http://127.0.0.1:{nobody.getsockname()[1]}/styles.json")
        said = shell("doctor")
    assert said.code == 0
    assert [line[:4] for line in lines(said, "address")] == ["ok  ", "warn", "    "]
    assert lines(said, "picture")[0].startswith("ok")


class Clockwork(BaseHTTPRequestHandler):
    """A host whose clock is an hour behind; it remembers what it was told."""

    told: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def do_GET(self) -> None:
        self.told.append((self.path, dict(self.headers.items())))
        self.send_response_only(404)
        self.send_header("Date", formatdate(time.time() - 3600, usegmt=True))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def clockwork() -> Iterator[str]:
    Clockwork.told.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Clockwork) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_wrong_clock_is_a_warning(shell: Shell, clockwork: str) -> None:
    shell.set(
        ARTA_API_KEY="a-key-of-mine",
        ARTA_BASE_URL=clockwork,
        ARTA_AUTH_URL=f"{clockwork}/sign-up",
        ARTA_TOKEN_REFRESH_URL=f"{clockwork}/refresh",
        ARTA_STYLES_URL="",
    )
    said = shell("doctor", "--no-picture")
    first, remedy = lines(said, "clock")
    assert said.code == 0
    assert first.startswith("warn  clock         36")
    assert "s ahead of the services" in first
    assert "-> set it" in remedy


def test_an_address_is_asked_for_nothing_and_told_nothing(shell: Shell, clockwork: str) -> None:
    shell.set(
        ARTA_API_KEY="a-key-of-mine",
        ARTA_BASE_URL=clockwork,
        ARTA_AUTH_URL=f"{clockwork}/sign-up",
        ARTA_TOKEN_REFRESH_URL=f"{clockwork}/refresh",
        ARTA_STYLES_URL="",
    )
    shell("doctor", "--no-picture")
    ((path, headers),) = Clockwork.told
    assert path == "/"
    assert "authorization" not in {name.lower() for name in headers}
    assert "a-key-of-mine" not in str(headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks://me:sentinel-pw@127.0.0.1:9"),
        ("NO_PROXY", "::1,[::1]"),
        ("SSL_CERT_FILE", "/nonexistent.pem"),
    ],
)
def test_variables_that_the_network_cannot_use_fail_and_are_named(
    shell: Shell, service: ScriptedServer, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    # one https address, since certificates are nothing to the others
    shell.set(**{**remote_settings(service), "ARTA_STYLES_URL": "https://127.0.0.1:9/styles.json"})
    monkeypatch.setenv(name, value)
    said = shell("doctor", "--json")
    findings: list[dict[str, str]] = json.loads(said.out)["findings"]
    (found,) = [finding for finding in findings if finding["name"] == "network"]
    assert (said.code, found["status"]) == (1, "fail")
    assert name in found["detail"] + found["remedy"]
    assert value not in said.out + said.err
    assert findings[-1]["detail"].startswith("not tried")


def test_a_service_that_draws_nothing_fails_with_its_words(
    shell: Shell, service: ScriptedServer
) -> None:
    shell.set(**remote_settings(service))
    service.service.faults.add(Fault("error-code", "status", times=None))
    said = shell("doctor")
    first, remedy = lines(said, "picture")
    assert said.code == 1
    assert "the service gave the job up: status DONE, GENERATION_ERROR" in first
    assert "-> ask again" in remedy


def test_a_key_that_is_refused_fails_with_what_to_do(shell: Shell, service: ScriptedServer) -> None:
    shell.set(**remote_settings(service))
    service.service.faults.add(Fault("API_KEY_INVALID", "sign_up", times=None))
    said = shell("doctor")
    first, remedy = lines(said, "picture")
    assert said.code == 1
    assert "API key not valid" in first
    assert "-> check ARTA_API_KEY" in remedy


# Whatever is there, the doctor comes to its end

ODD = ("generations.sqlite3", "local", "local/secret", "local/port", "account-local.json", "")
"""places of the state folder at which something of another kind lies"""


@pytest.mark.parametrize("place", ODD)
def test_a_file_of_another_kind_ends_in_a_finding_with_a_remedy(shell: Shell, place: str) -> None:
    odd = shell.machine.state / place
    odd.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if place in ("local", ""):
        odd.write_bytes(b"no folder")
    else:
        odd.mkdir()
    assert_well_ended(shell("doctor"))


@pytest.mark.parametrize("folder", ["/proc/x", "/proc/self/x"])
def test_a_folder_that_cannot_be_made_is_not_ok(shell: Shell, folder: str) -> None:
    shell.set(ARTA_STATE_DIR=folder, ARTA_OUTPUT_DIR=folder)
    said = shell("doctor")
    assert said.code == 1
    for name, setting in (("state folder", "ARTA_STATE_DIR"), ("output folder", "ARTA_OUTPUT_DIR")):
        first, remedy = lines(said, name)
        assert first.startswith(f"fail  {name}")
        assert "cannot be written to (no such file or directory)" in first
        assert f"set {setting} elsewhere" in remedy
    assert_well_ended(said)


@pytest.mark.parametrize(
    "fault",
    [
        "image-not-one@image*always",
        "image-cut@image*always",
        "reset-after@image*always",
        "html-body@status*always",
    ],
)
def test_whatever_the_service_does_ends_in_a_finding_with_a_remedy(
    shell: Shell, service: ScriptedServer, fault: str
) -> None:
    shell.set(**remote_settings(service), ARTA_JOB_TIMEOUT="2")
    service.service.faults.add(Fault.parse(fault))
    said = shell("doctor")
    assert not lines(said, "picture")[0].startswith("ok")
    assert_well_ended(said)


def test_a_bug_in_a_check_is_a_finding_and_the_others_are_made(shell: Shell) -> None:
    async def fail(_: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    shell.patch.setattr("arta_mcp.cli.doctor.read_account", fail)
    said = shell("doctor")
    assert said.code == 1
    assert lines(said, "account") == [
        "fail  account       ZeroDivisionError: nobody thought of this",
        "                    -> this is a bug in arta-mcp; please report it",
    ]
    assert_well_ended(said)


def assert_well_ended(said: CommandResult) -> None:
    """Everything that is not ok has a remedy, and the last words are the count."""
    found = said.out.splitlines()
    for line, after in zip(found, [*found[1:], ""], strict=True):
        assert line[:4] in ("ok  ", "warn", "fail", "    ")
        assert line[:4] in ("ok  ", "    ") or after.strip().startswith("->"), line
    assert re.search(r"lines?: \d+ fail, \d+ warn$", said.err.strip())
    assert "Traceback" not in said.err


def test_a_report_has_what_a_bug_needs_and_nothing_that_is_a_secret(
    shell: Shell, service: ScriptedServer
) -> None:
    secrets = {
        "ARTA_API_KEY": "a-key-that-nobody-may-see",
        "ARTA_LOCAL_KEY": "another-key-of-mine",
        "ARTA_PROXY": "",
    }
    pictures = f"{Path.home()}/pictures-of-mine"
    shell.set(**remote_settings(service) | secrets | {"ARTA_LOG_LEVEL": "INFO"})
    shell.set(ARTA_OUTPUT_DIR=pictures)
    drawn = shell("generate", "a lighthouse", "--no-save", "--json").json
    said = shell("doctor", "--report", "--no-picture")
    assert said.code == 0, said.out
    assert f"| arta-mcp | {__version__}, started as" in said.out
    assert f"Python {platform.python_version()}" in said.out
    assert f"pillow {version('pillow')}" in said.out
    assert "ARTA_API_KEY (set)" in said.out
    assert "ARTA_LOG_LEVEL=INFO" in said.out
    assert f"ARTA_OUTPUT_DIR=~{pictures.removeprefix(str(Path.home()))}" in said.out
    assert "| state folder | ok: " in said.out
    for secret in (*filter(None, secrets.values()), "a lighthouse", str(Path.home())):
        assert secret not in said.out
    assert str(drawn["record_id"]) not in said.out
    tokens = (shell.machine.state).glob("account-*.json")
    for account in map(json.loads, (path.read_text(encoding="utf-8") for path in tokens)):
        assert str(account["id_token"]) not in said.out


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ARTA_BASE_URL", "https://me:a-password-of-mine@example.com"),
        ("ARTA_MAX_WAIT", "a-password-of-mine"),
    ],
)
def test_a_report_of_wrong_settings_says_that_they_are_and_shows_none(
    shell: Shell, name: str, value: str
) -> None:
    shell.set(**{name: value})
    said = shell("doctor", "--report")
    assert said.code == 1
    assert f"{name} (wrong)" in said.out
    assert ("a-password-of-mine" in said.out) is (name == "ARTA_MAX_WAIT")  # quoted by its error
