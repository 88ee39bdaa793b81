"""Installing into each host's configuration: on copies, for three systems, on this one."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arta_mcp import files
from arta_mcp.cli import console
from arta_mcp.cli.install import command as install
from arta_mcp.cli.install import config_file
from arta_mcp.cli.install.config_file import ConfigFile, check_others_kept
from arta_mcp.cli.install.hosts import HOSTS, NEXT_STEPS, HostEnvironment, find_host
from arta_mcp.cli.install.server_entry import ServerEntry
from arta_mcp.cli.parser import Parser
from arta_mcp.errors import ArtaError, ConfigError, InvalidRequest
from arta_mcp.files import lock_folder
from arta_mcp.untrusted_json import is_object, list_or_empty

SAMPLES = Path(__file__).parents[1] / "hosts"
COMMENTED = SAMPLES / "commented.jsonc"
SECRET = "AIzaSyFakeFakeFakeFakeFakeFakeFakeFake"

LOCATIONS = {
    "darwin": {
        "claude-desktop": "Library/Application Support/Claude/claude_desktop_config.json",
        "claude-code": ".claude.json",
        "cursor": ".cursor/mcp.json",
        "vscode": "Library/Application Support/Code/User/mcp.json",
        "windsurf": ".config/devin/mcp_config.json",
        "zed": ".config/zed/settings.json",
    },
    "win32": {
        "claude-desktop": "AppData/Roaming/Claude/claude_desktop_config.json",
        "claude-code": ".claude.json",
        "cursor": ".cursor/mcp.json",
        "vscode": "AppData/Roaming/Code/User/mcp.json",
        "windsurf": "AppData/Roaming/devin/mcp_config.json",
        "zed": "AppData/Roaming/Zed/settings.json",
    },
    "linux": {
        "claude-desktop": ".config/Claude/claude_desktop_config.json",
        "claude-code": ".claude.json",
        "cursor": ".cursor/mcp.json",
        "vscode": ".config/Code/User/mcp.json",
        "windsurf": ".config/devin/mcp_config.json",
        "zed": ".config/zed/settings.json",
    },
}
PROJECT_FILES = {
    "claude-code": ".mcp.json",
    "cursor": ".cursor/mcp.json",
    "vscode": ".vscode/mcp.json",
    "windsurf": ".devin/mcp_config.json",
}
USER_HOSTS = tuple(host.name for host in HOSTS if host.name != "generic")


class Computer:
    """A home folder with nothing in it, and a program to install."""

    def __init__(self, root: Path, platform: str = "linux") -> None:
        self.home = root / "home"
        self.project = root / "project"
        self.bin = root / "bin"
        for folder in (self.home, self.project, self.bin):
            folder.mkdir(exist_ok=True, parents=True)
        self.program = self.bin / "arta-mcp"
        self.program.touch(mode=0o755)
        self.platform = platform
        self.environ = {"HOME": str(self.home), "PATH": str(self.bin)}
        if platform == "win32":
            self.environ = {"USERPROFILE": str(self.home), "PATH": str(self.bin)}

    @property
    def environment(self) -> HostEnvironment:
        return HostEnvironment(
            environ=self.environ,
            platform=self.platform,
            folder=self.project,
            program=str(self.program),
        )

    def file(self, host: str) -> Path:
        return self.home / LOCATIONS[self.platform][host]

    def put(self, host: str, content: bytes | None = None) -> Path:
        """The sample of a host, or something else, where that host keeps it."""
        path = self.file(host)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((SAMPLES / f"{host}.json").read_bytes() if content is None else content)
        return path

    def put_program(self, name: str, script: str) -> Path:
        """A program on PATH that notes its arguments and then runs a few lines of Python."""
        path = self.bin / name
        noted = f"open({str(self.bin / f'{name}.args')!r}, 'w').write(json.dumps(sys.argv[1:]))"
        path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{noted}\n{script}\n")
        path.chmod(0o755)
        return path

    def arguments_of(self, name: str) -> list[str] | None:
        """What the program was started with; None when it was not started."""
        noted = self.bin / f"{name}.args"
        return json.loads(noted.read_text()) if noted.exists() else None

    def run(self, *arguments: str) -> int:
        parser = Parser()
        words = parser.add_subparsers()
        install.add_install(words)
        install.add_uninstall(words)
        options = parser.parse_args(arguments)
        run = install.install if arguments[0] == "install" else install.uninstall
        return run(options, self.environment)

    def files(self) -> dict[Path, bytes]:
        """All there is, for comparing."""
        return {path: path.read_bytes() for path in self.home.rglob("*") if path.is_file()}


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    return Computer(tmp_path)


def entry_of(path: Path, host: str, name: str = "arta") -> object:
    return ConfigFile.read(path, find_host(host)).servers.get(name)


def parse(host: str, text: str) -> ConfigFile:
    """What the text would say in a file that is not there."""
    path = Path("mcp.json")
    return ConfigFile(path, find_host(host), path, None).with_text(text)


def backups(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.*.bak"))


# Where


@pytest.mark.parametrize("platform", LOCATIONS)
def test_a_host_is_found_where_each_system_keeps_it(platform: str, tmp_path: Path) -> None:
    for host in USER_HOSTS:
        computer = Computer(tmp_path / host, platform)
        path = computer.put(host)
        before = path.read_bytes()
        assert computer.run("install", host) == console.OK
        wanted: dict[str, object] = {"command": str(computer.program), "args": []}
        assert entry_of(path, host) == ({"type": "stdio"} if host == "vscode" else {}) | wanted
        (backup,) = backups(path)
        assert backup.read_bytes() == before


def test_a_packaged_claude_desktop_on_windows_has_its_own_file(tmp_path: Path) -> None:
    computer = Computer(tmp_path, "win32")
    stale = computer.put("claude-desktop")
    package = computer.home / "AppData" / "Local" / "Packages" / "Claude_pzs8sxrjxfjjc"
    package.mkdir(parents=True)
    computer.run("install", "claude-desktop")
    inner = package / "LocalCache" / "Roaming" / "Claude" / "claude_desktop_config.json"
    assert entry_of(inner, "claude-desktop") is not None
    assert stale.read_bytes() == (SAMPLES / "claude-desktop.json").read_bytes()


@pytest.mark.parametrize(
    ("host", "platform", "variable", "inside"),
    [
        ("zed", "linux", "XDG_CONFIG_HOME", "zed/settings.json"),
        ("claude-code", "linux", "CLAUDE_CONFIG_DIR", ".claude.json"),
        ("vscode", "win32", "APPDATA", "Code/User/mcp.json"),
    ],
)
def test_a_folder_that_the_environment_names_is_used(
    host: str, platform: str, variable: str, inside: str, tmp_path: Path
) -> None:
    computer = Computer(tmp_path, platform)
    computer.environ[variable] = str(tmp_path / "elsewhere")
    path = tmp_path / "elsewhere" / inside
    path.parent.mkdir(parents=True)
    computer.run("install", host)
    assert entry_of(path, host) is not None


def test_windsurf_is_served_where_it_is_and_the_other_place_is_named(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    old = computer.home / ".codeium" / "windsurf" / "mcp_config.json"
    old.parent.mkdir(parents=True)
    old.write_bytes((SAMPLES / "windsurf.json").read_bytes())
    computer.run("install", "windsurf")
    assert entry_of(old, "windsurf") is not None
    new = computer.put("windsurf")
    capsys.readouterr()
    computer.run("install", "windsurf")
    assert entry_of(new, "windsurf") is not None
    assert f"note: {old} is another place for it" in capsys.readouterr().err
    computer.run("uninstall", "windsurf")
    assert entry_of(old, "windsurf") is None
    assert entry_of(new, "windsurf") is None
    shutil.rmtree(old.parent)
    old.parent.symlink_to(new.parent)
    computer.run("install", "windsurf")
    assert computer.run("uninstall", "windsurf") == console.OK, "two places, and one file"
    assert entry_of(new, "windsurf") is None


def test_a_host_that_is_not_here_is_said_to_be_missing_and_nothing_is_made(
    computer: Computer,
) -> None:
    for host in USER_HOSTS:
        assert not computer.environment.find_files(find_host(host), file=None, project=False)
        with pytest.raises(ConfigError, match="seems not installed: there is no ") as caught:
            computer.run("install", host)
        assert "--file PATH" in caught.value.hint
        assert computer.run("uninstall", host) == console.OK
    assert list(computer.home.iterdir()) == []


def test_a_user_without_a_home_is_told_so_in_a_sentence(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_uid: int) -> NoReturn:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    del computer.environ["HOME"]
    for word in ("install", "uninstall"):
        for more in (("cursor",), ("--file", "~/mcp.json")):
            with pytest.raises(ConfigError, match="no home folder: HOME is not set, nor known"):
                computer.run(word, *more)
    assert computer.run("install", "cursor", "--project") == console.OK


def test_a_project_has_a_file_of_its_own(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    for host, inside in PROJECT_FILES.items():
        path = computer.project / inside
        assert computer.run("install", host, "--project") == console.OK
        assert entry_of(path, host) is not None
        assert "is a path on this machine" in capsys.readouterr().err
        assert computer.run("uninstall", host, "--project") == console.OK
        assert entry_of(path, host) is None
    assert list(computer.home.iterdir()) == []
    with pytest.raises(InvalidRequest) as caught:
        computer.run("install", "zed", "--project")
    assert str(caught.value) == (
        "--project is 'zed'; allowed is one of claude-code, cursor, vscode, windsurf"
    )


def test_a_named_file_is_made_with_its_folders(computer: Computer) -> None:
    assert computer.run("install", "--file", "~/deep/er/mcp.json") == console.OK
    assert entry_of(computer.home / "deep" / "er" / "mcp.json", "generic") is not None
    assert computer.run("install", "vscode", "--file", "near.json") == console.OK
    assert entry_of(computer.project / "near.json", "vscode") is not None


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("cursr", "did you mean cursor?"),
        ("winsurf", "did you mean windsurf?"),
        ("claud-desktop", "did you mean claude-desktop?"),
        ("emacs", "any other: --file PATH"),
    ],
)
def test_an_unknown_host_is_answered_with_the_nearest_one(
    word: str, hint: str, computer: Computer
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        computer.run("install", word)
    assert str(caught.value).startswith(f"HOST is '{word}'; allowed is one of claude-desktop, ")
    assert caught.value.hint.startswith(hint.removesuffix("?"))


def test_a_host_is_known_in_any_spelling() -> None:
    spellings = {"VS Code": "vscode", "Claude_Code": "claude-code", "devin": "windsurf"}
    for word, name in (spellings | {"ZED": "zed"}).items():
        assert find_host(word).name == name


@pytest.mark.parametrize("word", ["install", "uninstall"])
def test_without_a_host_the_hosts_are_listed_with_what_each_has(
    word: str, computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    computer.put("cursor")
    for host in ("claude-code", "vscode"):
        computer.put(host)
        computer.run("install", host)
    path = computer.file("vscode")
    said = json.loads(path.read_bytes())
    said["servers"]["arta"]["disabled"] = True
    path.write_text(json.dumps(said))
    computer.put("zed", b"\xff")
    before = computer.files()
    capsys.readouterr()
    with pytest.raises(ConfigError, match="no host is named") as caught:
        computer.run(word)
    assert caught.value.hint.startswith("one of claude-desktop, claude-code, cursor, vscode, ")
    listed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert listed == [
        ["claude-desktop", "not found", ""],
        ["claude-code", "installed", str(computer.file("claude-code"))],
        ["cursor", "not installed", str(computer.file("cursor"))],
        ["vscode", "disabled", str(path)],
        ["windsurf", "not found", ""],
        ["zed", "cannot be read", str(computer.file("zed"))],
    ]
    assert computer.files() == before


def test_the_list_of_hosts_is_no_success(
    run_arta: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """A script whose variable is empty has installed nothing."""
    done = run_arta("install")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no host is named\nhint: ")
    assert "cursor\tnot found" in done.stdout


def test_a_generic_host_needs_a_file(computer: Computer) -> None:
    with pytest.raises(InvalidRequest, match="--file is None; allowed is the path of a file"):
        computer.run("install", "generic")


# What is written, and what is not


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_uninstall_gives_back_every_byte_that_install_found(
    newline: bytes, computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    for host in USER_HOSTS:
        path = computer.put(host)
        before = path.read_bytes().replace(b"\n", newline)
        path.write_bytes(before)
        computer.run("install", host)
        lines = path.read_bytes().split(b"\n")[:-1]
        assert all(line.endswith(b"\r") == (newline == b"\r\n") for line in lines)
        assert entry_of(path, host) is not None
        computer.run("uninstall", host)
        assert path.read_bytes() == before
    assert "laid out anew" not in capsys.readouterr().err


BOM = b"\xef\xbb\xbf"


def test_a_byte_order_mark_goes_and_that_is_said(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Claude Desktop drops every server of a file that begins with one."""
    computer.put_program("claude", "")
    for host in USER_HOSTS:
        path = computer.put(host)
        content = path.read_bytes()
        note = f"note: the byte order mark of {path} goes; with one "
        path.write_bytes(BOM + content)
        for more in (("--dry-run",), ()):
            computer.run("install", host, *more)
            assert note in capsys.readouterr().err
            assert path.read_bytes().startswith(BOM) == bool(more)
        installed = path.read_bytes()
        path.write_bytes(BOM + installed)
        assert computer.run("install", host) == console.OK
        out, err = capsys.readouterr()
        assert path.read_bytes() == installed
        assert (out, "already there" in err, note in err) == ("", True, True)
        path.write_bytes(BOM + installed)
        computer.run("uninstall", host)
        assert note in capsys.readouterr().err
        assert path.read_bytes() == content
        computer.run("uninstall", host)
        assert "byte order mark" not in capsys.readouterr().err
    assert computer.arguments_of("claude") is None, "it might keep the mark"


@pytest.mark.parametrize(
    ("host", "said", "key"),
    [
        ("vscode", {"mcp": {"servers": {"a": {}}}, "editor.fontSize": 12}, "mcp.servers"),
        ("vscode", {"mcpServers": {"a": {}}}, "mcpServers"),
        ("cursor", {"servers": {"a": {}}}, "servers"),
        ("cursor", {"servers": {}, "context_servers": 1, "mcp": True}, None),
    ],
)
def test_servers_where_the_host_does_not_look_are_warned_about(
    host: str,
    said: dict[str, object],
    key: str | None,
    computer: Computer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = computer.put(host, json.dumps(said).encode())
    assert computer.run("install", host) == console.OK
    warning = f"warning: {path} has servers under {key}; "
    err = capsys.readouterr().err
    assert (warning in err, "warning: " in err) == (key is not None,) * 2
    assert entry_of(path, host) is not None


@pytest.mark.parametrize("word", [{"disabled": True}, {"enabled": False}])
def test_a_disabled_entry_is_said_to_be_disabled(
    word: dict[str, bool], computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    entry: dict[str, object] = {"command": str(computer.program), "args": []}
    text = json.dumps({"mcpServers": {"arta": entry | word}})
    path = computer.put("cursor", text.encode())
    assert computer.run("install", "cursor") == console.OK
    err = capsys.readouterr().err
    assert "already there" in err
    assert "warning: it is disabled there, so Cursor does not start it\n" in err
    assert path.read_text() == text
    assert computer.run("install", "cursor", "--force") == console.OK
    assert entry_of(path, "cursor") == entry
    capsys.readouterr()
    computer.run("install", "cursor")
    assert "warning: " not in capsys.readouterr().err


def test_a_file_laid_out_by_hand_keeps_its_order_indentation_and_meaning(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        '{\n   "z": [1, 2.50],\n   "mcpServers": { "b": {"command": "x"}, "a": {} },\n   "é": ""\n}'
    )
    path = computer.put("cursor", text.encode())
    computer.run("install", "cursor")
    after = path.read_text(encoding="utf-8")
    said = json.loads(after)
    assert list(said) == ["z", "mcpServers", "é"]
    assert list(said["mcpServers"]) == ["b", "a", "arta"]
    assert after.startswith('{\n   "z": [1, 2.5],\n   "mcpServers": {\n      "b": {')
    assert after.endswith('"é": ""\n}')
    assert f"note: {path} is laid out anew; it says what it said\n" in capsys.readouterr().err


def test_a_file_of_one_line_is_kept_in_one_line(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ((SAMPLES / "generic.json").read_text(), '{"mcpServers": {"a": {"args": [1, 2]}}}'):
        path = computer.home / "mcp.json"
        path.write_text(text, encoding="utf-8")
        computer.run("install", "--file", str(path))
        assert '+  "arta": {' in capsys.readouterr().out
        assert path.read_text(encoding="utf-8").startswith(text.rstrip("}]\n")[:40])
        assert "\n" not in path.read_text(encoding="utf-8").rstrip("\n")
        assert entry_of(path, "generic") == {"command": str(computer.program), "args": []}
        computer.run("uninstall", "--file", str(path))
        assert path.read_text(encoding="utf-8") == text


def test_a_second_install_touches_nothing(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    for host in USER_HOSTS:
        computer.put(host)
        computer.run("install", host)
        before = computer.files()
        capsys.readouterr()
        assert computer.run("install", host) == console.OK
        out, err = capsys.readouterr()
        assert computer.files() == before
        assert out == ""
        assert err == f"already there: {computer.file(host)} has this server as 'arta'\n"


def test_an_entry_that_the_host_has_added_words_to_is_still_the_same(computer: Computer) -> None:
    there: dict[str, object] = {"type": "stdio", "command": str(computer.program)}
    there |= {"args": [], "env": {}, "disabled": True}
    computer.put("claude-code", json.dumps({"mcpServers": {"arta": there}}).encode())
    before = computer.files()
    assert computer.run("install", "claude-code") == console.OK
    assert computer.files() == before


def test_a_new_file_is_made_when_the_host_is_there(computer: Computer) -> None:
    (computer.home / ".config" / "Code").mkdir(parents=True)
    assert computer.run("install", "vscode") == console.OK
    path = computer.file("vscode")
    assert json.loads(path.read_bytes()) == {
        "servers": {"arta": {"type": "stdio", "command": str(computer.program), "args": []}}
    }
    assert path.read_bytes().endswith(b"}\n")
    assert backups(path) == []


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf", b"{}"])
def test_an_empty_file_is_filled_and_backed_up(content: bytes, computer: Computer) -> None:
    path = computer.put("cursor", content)
    assert computer.run("install", "cursor") == console.OK
    assert path.read_bytes().startswith(b'{\n  "mcpServers": {\n    "arta": {')
    assert entry_of(path, "cursor") == {"command": str(computer.program), "args": []}
    assert [backup.read_bytes() for backup in backups(path)] == [content]


def test_another_server_of_the_same_name_is_left_alone_without_force(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = computer.put("cursor")
    with pytest.raises(ConfigError) as caught:
        computer.run("install", "cursor", "--name", "tickets")
    assert str(caught.value) == (
        f"{path} has a different entry called 'tickets': its command differs"
    )
    with pytest.raises(ConfigError, match="has another program called 'tickets'"):
        computer.run("uninstall", "cursor", "--name", "tickets")
    assert path.read_bytes() == (SAMPLES / "cursor.json").read_bytes()
    assert computer.run("install", "cursor", "--name", "tickets", "--force") == console.OK
    assert entry_of(path, "cursor", "tickets") == {"command": str(computer.program), "args": []}
    assert "t0p-s3cret" not in capsys.readouterr().out


def test_a_name_that_hosts_may_not_take_is_refused(computer: Computer) -> None:
    computer.put("cursor")
    with pytest.raises(InvalidRequest, match="--name is 'my server'; allowed is 1 to 64 letters"):
        computer.run("install", "cursor", "--name", "my server")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{\n  "mcpServers": {\n}', "does not parse: line 3, column 2: expecting ',' delimiter"),
        (b'{"a": 1 /* x\n */ "b": 2}', "does not parse: line 2, column 5: expecting ',' delimiter"),
        (b'{"mcpServers": {"a": 1, "a": 2}}', "parse: the key 'a' stands twice in one object"),
        (b'{"a": 1e400}', "does not parse: Out of range float"),
        (b'{"a": ' + b"[" * 100_000, "does not parse: "),
        (b"[]", "the whole file is an array, not an object"),
        (b'{"mcpServers": 1.5}', "mcpServers is a number, not an object"),
        (b'{"a": 1,\n"b": "\xff"}', "is not UTF-8: line 2 holds byte 0xff"),
        (b"\xef\xbb\xbf{\n\xfe\n}", "is not UTF-8: line 2 holds byte 0xfe"),
        (b"\xff\xfe{\x00}\x00", "is not UTF-8: line 1 holds byte 0xff"),
    ],
)
@pytest.mark.parametrize("word", ["install", "uninstall"])
def test_a_file_that_cannot_be_understood_is_left_alone(
    word: str, content: bytes, sentence: str, computer: Computer
) -> None:
    path = computer.put("cursor", content)
    with pytest.raises(ConfigError) as caught:
        computer.run(word, "cursor", "--force")
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "it was left as it is" in caught.value.hint
    assert computer.files() == {path: content}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    said=st.dictionaries(st.text(), JSON_VALUES, min_size=1, max_size=4),
    servers=st.dictionaries(st.text(), JSON_VALUES, max_size=3),
    indent=st.sampled_from([None, 1, 2, 4, "\t"]),
    end=st.sampled_from(["", "\n"]),
)
def test_what_json_itself_laid_out_is_given_back_whatever_it_says(
    said: dict[str, object], servers: dict[str, object], indent: int | str | None, end: str
) -> None:
    entry = ServerEntry({"command": "/opt/arta-mcp", "args": ["-m", "é"]})
    others = {name: value for name, value in servers.items() if name != "arta"}
    before: dict[str, object] = said | {"mcpServers": others}
    text = json.dumps(before, indent=indent, ensure_ascii=False) + end
    added = parse("generic", text).with_entry("arta", entry)
    assert json.loads(added.text) == before | {"mcpServers": others | {"arta": entry.value}}
    assert added.with_entry("arta", None).text == text


# Files with comments


@pytest.mark.parametrize("host", ["cursor", "claude-desktop", "zed", "vscode"])
def test_a_file_with_comments_keeps_every_byte_and_what_to_paste_is_shown(
    host: str, computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    key = find_host(host).key
    content = COMMENTED.read_bytes().replace(b"mcpServers", key.encode())
    path = computer.put(host, content)
    secret = ("--env", f"ARTA_API_KEY={SECRET}")
    for more in ((), ("--dry-run",), secret):
        with pytest.raises(ArtaError) as caught:
            computer.run("install", host, *more)
        assert str(caught.value) == (
            f"{path} has a comment or trailing comma in line 2; it was left as it is"
        )
        assert not isinstance(caught.value, ConfigError), "no wrong usage: exit code 1"
        assert caught.value.hint.startswith("paste what is shown into it by hand")
        assert ("in place of [redacted]" in caught.value.hint) == (more == secret)
        out = capsys.readouterr().out
        assert SECRET not in out
        entry = json.loads(out)[key]["arta"]
        assert entry["command"] == str(computer.program)
        assert (
            entry.get("env") == ({"ARTA_API_KEY": "[redacted]"} if more else None) or not more[1:]
        )
    assert computer.files() == {path: content}


def test_a_file_with_comments_is_read(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = computer.put("cursor", COMMENTED.read_bytes())
    assert computer.run("uninstall", "cursor") == console.OK
    assert "nothing to remove" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="has a different entry called 'tickets'"):
        computer.run("install", "cursor", "--name", "tickets")
    entry = json.dumps({"command": str(computer.program), "args": ["// no comment, }"]})
    pasted = COMMENTED.read_text(encoding="utf-8").replace('// "draft": {}', f'"arta": {entry}')
    path.write_text(pasted, encoding="utf-8")
    with pytest.raises(ConfigError, match="called 'arta': its args differs"):
        computer.run("install", "cursor")
    path.write_text(pasted.replace("// no comment, }", ""), encoding="utf-8")
    with pytest.raises(ArtaError) as caught:
        computer.run("uninstall", "cursor")
    assert caught.value.hint == "remove 'arta' from its mcpServers by hand"
    path.write_text(pasted.replace('"// no comment, }"', ""), encoding="utf-8")
    before = computer.files()
    assert computer.run("install", "cursor") == console.OK
    assert "already there" in capsys.readouterr().err
    assert computer.files() == before


def test_an_entry_that_windows_wrote_in_capitals_is_ours(computer: Computer) -> None:
    entry: dict[str, object] = {"command": "C:\\bin\\arta-mcp.EXE", "args": []}
    path = computer.put("cursor", json.dumps({"mcpServers": {"arta": entry}}).encode())
    assert computer.run("uninstall", "cursor") == console.OK
    assert entry_of(path, "cursor") is None


# What is shown


def test_a_dry_run_shows_the_change_and_writes_nothing(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    for host in USER_HOSTS:
        path = computer.put(host)
        before = computer.files()
        assert computer.run("install", host, "--dry-run") == console.OK
        out, err = capsys.readouterr()
        assert computer.files() == before
        assert out.startswith(f"--- {path}\n+++ {path}\n@@ {find_host(host).key} @@\n")
        assert re.search(r'^\+\s*"arta": \{$', out, re.MULTILINE)
        assert f'"command": "{computer.program}"' in out
        assert "nothing was written (--dry-run)" in err


@pytest.mark.parametrize("host", ["claude-desktop", "cursor", "generic", "claude-code"])
def test_the_shown_change_tells_nothing_of_other_servers_and_people(
    host: str, computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = computer.home / "mcp.json"
    path.write_bytes((SAMPLES / f"{host}.json").read_bytes())
    computer.run("install", host, "--file", str(path))
    computer.run("uninstall", host, "--file", str(path))
    out, err = capsys.readouterr()
    for private in ("ghp_not_a_real_token", "t0p-s3cret", "k0123456789", "ada@example", "npx"):
        assert private not in out + err
    assert out.count('"arta"') >= 2


@pytest.mark.parametrize("secret", [SECRET, "k1k1k1"])
def test_a_secret_is_written_but_never_shown_and_warned_about(
    secret: str, computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    for host in USER_HOSTS:
        path = computer.put(host)
        given = ("--env", f"ARTA_API_KEY={secret}", "--env", f"OTHER_TOKEN=x{secret}")
        computer.run("install", host, *given, "--env", "ARTA_MAX_WAIT=20")
        assert f'"{secret}"'.encode() in path.read_bytes()
        computer.run("install", host, "--force", "--env", f"ARTA_API_KEY={secret}2")
        computer.run("uninstall", host)
        out, err = capsys.readouterr()
        assert secret not in (out + err).replace(str(path), "")
        assert '"ARTA_API_KEY": "[redacted]"' in out
        assert '"ARTA_MAX_WAIT": "20"' in out
        assert f"warning: ARTA_API_KEY lies in {path} as plain text" in err


@pytest.mark.parametrize(
    "given",
    [
        "ARTA_PROXY=http://me:hunter2@${HOST}",
        "ARTA_API_KEY=hunter2${X}",
        "ARTA_API_KEY=${ARTA_API_KEY:-hunter2}",
        "ARTA_BASE_URL=https://me:hunter2@${HOST}",
    ],
)
def test_a_secret_beside_a_reference_is_a_secret(
    given: str, computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    computer.put_program("claude", "")
    path = computer.put("claude-code")
    for more in (("--dry-run",), (), ("--force", "--env", "ARTA_MAX_WAIT=20")):
        computer.run("install", "claude-code", "--env", given, *more)
    assert computer.arguments_of("claude") is None, "every user sees a command line"
    computer.run("uninstall", "claude-code")
    out, err = capsys.readouterr()
    assert "hunter2" not in out + err
    name = given.partition("=")[0]
    assert f'"{name}": "[redacted]"' in out
    is_secret_setting = name != "ARTA_BASE_URL"
    assert (f"{name} lies in {path} as plain text" in err) == is_secret_setting


def test_what_people_added_to_our_entry_is_not_shown_when_it_is_replaced_or_removed(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    ours: dict[str, object] = {
        "command": str(computer.program),
        "args": ["--token=hunter2", "hunter2", "-m", "arta_mcp", 7, "git+https://hunter2@x/y"],
        "env": {
            "ARTA_BASE_URL": "https://me:hunter2@x",
            "ARTA_MAX_WAIT": "20",
            "TOKEN": ["hunter2"],
        },
        "headers": {"Authorization": "Bearer hunter2"},
        "url": "https://me:hunter2@x",
    }
    prefixed = {"command": "ARTA_API_KEY=hunter2 /opt/arta-mcp", "env": "A=hunter2"}
    question = {"type": "promptString", "id": "arta-x", "default": "hunter2"}
    for entry in (ours, prefixed):
        said = {"servers": {"arta": entry}, "inputs": [question]}
        for words in (("install", "vscode", "--force"), ("uninstall", "vscode")):
            computer.put("vscode", json.dumps(said).encode())
            assert computer.run(*words) == console.OK
            out, err = capsys.readouterr()
            assert "hunter2" not in out + err
            assert '"command"' in out
    assert '"id": "arta-x"' in out


@pytest.mark.parametrize(
    "words",
    [
        ("cursor", "--ask", "ARTA_API_KEY=hunter2"),
        ("vscode", "--ask", "hunter-2"),
        ("cursor", "--env", "HUNTER2"),
        ("cursor", "--env", "http://me:hunter2@host?a=1"),
        ("ARTA_API_KEY=hunter2",),
        ("cursor", "--evn", "ARTA_API_KEY=hunter2"),
        ("cursor", "--evn=ARTA_API_KEY=hunter2"),
        ("cursor", "--env=ARTA_MAX_WAIT=1", "hunter2"),
    ],
)
def test_a_secret_in_a_wrong_place_is_not_quoted(
    words: tuple[str, ...], run_arta: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = run_arta("install", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert not re.search("hunter.?2", done.stdout + done.stderr, re.IGNORECASE)


def test_a_changed_secret_is_a_change_that_is_not_shown(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = computer.put("cursor")
    computer.run("install", "cursor", "--env", f"ARTA_API_KEY={SECRET}")
    capsys.readouterr()
    computer.run("install", "cursor", "--force", "--env", f"ARTA_API_KEY={SECRET}2")
    assert capsys.readouterr().out == f"{path}: a value changes that is not shown here\n"


def test_the_safer_way_is_told_where_the_host_has_one(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    hints = {
        "vscode": "hint: `--ask ARTA_API_KEY` lets VS Code ask for it and keep it safely",
        "cursor": "hint: --env 'ARTA_API_KEY=${env:ARTA_API_KEY}' takes it from Cursor's",
        "claude-code": "hint: --env 'ARTA_API_KEY=${ARTA_API_KEY}' takes it from Claude Code's",
    }
    for host, hint in hints.items():
        computer.run("install", host, "--project", "--env", f"ARTA_API_KEY={SECRET}", "--dry-run")
        err = capsys.readouterr().err
        assert hint in err
        assert "as plain text and is shared with the project" in err


def test_a_reference_to_the_environment_is_no_secret(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    computer.put("cursor")
    computer.run("install", "cursor", "--env", "ARTA_API_KEY=${env:ARTA_API_KEY}")
    out, err = capsys.readouterr()
    assert '"ARTA_API_KEY": "${env:ARTA_API_KEY}"' in out
    assert "plain text" not in err


def test_each_host_is_told_what_makes_it_see_the_change(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    for host in USER_HOSTS:
        path = computer.put(host)
        computer.run("install", host)
        err = capsys.readouterr().err
        assert f"wrote {path}; as it was: {backups(path)[0]}\n" in err
        assert f"next: {NEXT_STEPS[host]}\n" in err


# Settings, questions, and the command that starts the server


def test_settings_are_written_only_when_given(computer: Computer) -> None:
    computer.environ |= {"ARTA_API_KEY": SECRET, "ARTA_BACKEND": "arta"}
    path = computer.put("cursor")
    computer.run("install", "cursor")
    assert SECRET.encode() not in path.read_bytes()
    computer.run("uninstall", "cursor")
    given = ("--env", "ARTA_MAX_WAIT=20", "--env", "HTTPS_PROXY=http://p:1")
    computer.run("install", "cursor", *given)
    assert entry_of(path, "cursor") == {
        "command": str(computer.program),
        "args": [],
        "env": {"ARTA_MAX_WAIT": "20", "HTTPS_PROXY": "http://p:1"},
    }


def test_vs_code_can_ask_for_a_secret_and_forgets_the_question_with_the_server(
    computer: Computer,
) -> None:
    text = (SAMPLES / "vscode.json").read_bytes()
    before = text.replace(b'"inputs": [', b'"inputs": [\n        "odd",')
    path = computer.put("vscode", before)
    computer.run("install", "vscode", "--ask", "ARTA_API_KEY")
    assert json.loads(path.read_bytes())["inputs"][0] == "odd"
    assert json.loads(path.read_bytes())["inputs"][2:] == [
        {
            "type": "promptString",
            "id": "arta-api-key",
            "description": "Firebase Web API key of the service's project; yours to bring",
            "password": True,
        }
    ]
    assert entry_of(path, "vscode") == {
        "type": "stdio",
        "command": str(computer.program),
        "args": [],
        "env": {"ARTA_API_KEY": "${input:arta-api-key}"},
    }
    assert computer.run("install", "vscode", "--ask", "ARTA_API_KEY") == console.OK
    assert len(backups(path)) == 1
    computer.run("uninstall", "vscode")
    assert path.read_bytes() == before


def test_a_question_that_another_server_asks_too_stays(computer: Computer) -> None:
    path = computer.put("vscode")
    for name in ("arta", "arta-2"):
        computer.run("install", "vscode", "--ask", "ARTA_API_KEY", "--name", name)
    text = path.read_text(encoding="utf-8").replace(
        "${input:arta-2-api-key}", "${input:arta-api-key}"
    )
    path.write_text(text, encoding="utf-8")
    computer.run("uninstall", "vscode")
    assert '"id": "arta-api-key"' in path.read_text(encoding="utf-8")


def test_only_vs_code_is_told_to_ask(computer: Computer) -> None:
    computer.put("cursor")
    with pytest.raises(InvalidRequest, match="allowed is for VS Code; other hosts cannot ask"):
        computer.run("install", "cursor", "--ask", "ARTA_API_KEY")


@pytest.mark.parametrize(
    ("given", "sentence", "hint"),
    [
        ("ARTA_API_KEY", "--env is 'ARTA_API_KEY'; allowed is NAME=VALUE", ""),
        (SECRET, "--env is '…'; allowed is NAME=VALUE", ""),
        (
            "ARTA_API_KY=x",
            "--env is 'ARTA_API_KY'; allowed is a setting of arta-mcp",
            "ARTA_API_KEY",
        ),
        ("A B=x", "--env is '…'; allowed is the name of an environment variable", ""),
        ("ARTA_MAX_WAIT=soon", "ARTA_MAX_WAIT is 'soon', not a number of seconds", ""),
        ("A=b\x1bc", "--env is 'A'; allowed is a name with a value of printable characters", ""),
    ],
)
def test_a_setting_that_the_server_would_refuse_is_refused_at_once(
    given: str, sentence: str, hint: str, computer: Computer
) -> None:
    computer.put("cursor")
    before = computer.files()
    with pytest.raises(ArtaError) as caught:
        computer.run("install", "cursor", "--env", given)
    assert str(caught.value).startswith(sentence)
    assert hint in caught.value.hint
    assert computer.files() == before


def test_the_command_is_the_script_that_runs_or_the_interpreter(computer: Computer) -> None:
    path = computer.put("cursor")

    def start_command(program: str) -> object:
        computer.program = Path(program)
        computer.run("install", "cursor", "--force")
        entry = entry_of(path, "cursor")
        assert is_object(entry)
        return entry["command"], entry["args"]

    script = computer.bin / "arta-mcp"
    assert start_command(str(script)) == (str(script), [])
    relative = "../bin/../bin/arta-mcp"
    assert start_command(relative) == (f"{computer.project}/{relative}", [])
    assert start_command("/somewhere/pytest") == (str(script), []), "the one on PATH"
    script.rename(computer.bin / "arta-mcp.exe")
    assert start_command(str(script)) == (f"{script}.exe", [])
    (computer.bin / "arta-mcp.exe").unlink()
    assert start_command("/x/arta_mcp/__main__.py") == (sys.executable, ["-P", "-m", "arta_mcp"])


def test_the_entry_runs_no_file_of_the_folder_that_a_host_starts_it_in(computer: Computer) -> None:
    path = computer.put("cursor")
    computer.program.unlink()
    computer.run("install", "cursor")
    entry = entry_of(path, "cursor")
    assert is_object(entry)
    for name in (*sys.stdlib_module_names, "arta_mcp", "mcp", "anyio", "httpx", "pydantic"):
        (computer.project / f"{name}.py").write_text("raise SystemExit('not ours')")
    command = [str(entry["command"]), *map(str, list_or_empty(entry["args"]))]
    for more, said in ((["--version"], "arta-mcp "), (["models", "--search", "flux"], "flux")):
        done = subprocess.run(
            [*command, *more],
            cwd=computer.project,
            env=computer.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout[: len(said)]) == (0, said), done.stderr


def test_a_program_of_the_current_folder_is_not_written(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows looks there before PATH, and so does a PATH that says so."""
    monkeypatch.chdir(computer.project)
    computer.program.unlink()
    for name in ("arta-mcp", "uvx"):
        (computer.project / name).touch(mode=0o755)
    computer.environ["PATH"] = "../project"
    path = computer.put("cursor")
    computer.run("install", "cursor")
    entry = entry_of(path, "cursor")
    assert is_object(entry)
    assert entry["command"] == sys.executable
    with pytest.raises(ConfigError, match="uvx is not on PATH"):
        computer.run("install", "cursor", "--uvx")


def test_uvx_is_written_when_asked_for_or_when_the_script_will_not_last(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = computer.put("cursor")
    with pytest.raises(ConfigError, match="uvx is not on PATH"):
        computer.run("install", "cursor", "--uvx")
    (computer.bin / "uvx").touch(mode=0o755)
    computer.run("install", "cursor", "--uvx")
    wanted = {"command": str(computer.bin / "uvx"), "args": ["arta-mcp"]}
    assert entry_of(path, "cursor") == wanted
    computer.run("uninstall", "cursor")
    capsys.readouterr()
    computer.program = Path("/home/ada/.cache/uv/archive-v0/Zx1/bin/arta-mcp")
    computer.run("install", "cursor")
    assert entry_of(path, "cursor") == wanted
    assert "lies in uv's cache" in capsys.readouterr().err


# The file


def test_a_link_stays_a_link_and_its_backup_lies_beside_the_link(computer: Computer) -> None:
    real = computer.project / "dotfiles" / "zed.json"
    real.parent.mkdir()
    real.write_bytes((SAMPLES / "zed.json").read_bytes())
    link = computer.file("zed")
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    computer.run("install", "zed")
    assert link.is_symlink()
    assert link.resolve() == real
    assert entry_of(real, "zed") is not None
    assert len(backups(link)) == 1
    assert list(real.parent.iterdir()) == [real]


def test_a_link_to_a_file_that_is_not_there_yet_makes_that_file(computer: Computer) -> None:
    link = computer.file("cursor")
    link.parent.mkdir()
    link.symlink_to(computer.project / "cursor.json")
    computer.run("install", "cursor")
    assert link.is_symlink()
    assert entry_of(computer.project / "cursor.json", "cursor") is not None


def test_a_link_to_itself_is_refused(computer: Computer) -> None:
    link = computer.file("cursor")
    link.parent.mkdir()
    link.symlink_to(link)
    with pytest.raises(ConfigError):
        computer.run("install", "cursor")
    assert link.is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664])
def test_a_file_keeps_its_mode_and_its_backup_is_its_owners_alone(
    mode: int, computer: Computer
) -> None:
    path = computer.put("cursor")
    path.chmod(mode)
    computer.run("install", "cursor")
    assert [mode_of(p) for p in (path, *backups(path))] == [mode, 0o600]
    assert sorted(path.parent.iterdir()) == sorted([path, *backups(path)])


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("given", [f"ARTA_API_KEY={SECRET}", "OTHER_TOKEN=could be one"])
def test_a_file_that_gets_a_key_becomes_its_owners_alone_and_that_is_said(
    given: str, computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = computer.put("cursor")
    path.chmod(0o644)
    computer.run("install", "cursor", "--env", given, "--dry-run")
    assert "mode 600" not in capsys.readouterr().err
    computer.run("install", "cursor", "--env", given)
    assert mode_of(path) == 0o600
    assert f"note: {path} is yours alone now (mode 600)" in capsys.readouterr().err


def test_no_key_stays_in_a_backup_that_others_can_read(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = computer.put("cursor")
    computer.run("install", "cursor", "--env", f"ARTA_API_KEY={SECRET}")
    older = path.with_name(f"{path.name}.20260101-000000.bak")
    older.write_bytes(path.read_bytes())
    for made_by_0_1_0 in (path, older):
        made_by_0_1_0.chmod(0o644)
    capsys.readouterr()
    computer.run("uninstall", "cursor")
    assert [mode_of(backup) for backup in backups(path)] == [0o600] * 3
    newest = max(backups(path), key=lambda backup: backup.stat().st_mtime_ns)
    assert f"note: {newest} still holds ARTA_API_KEY, for your eyes only" in capsys.readouterr().err


def test_three_backups_of_a_file_are_kept_and_nothing_else_goes(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = computer.put("cursor")
    others = [
        path.with_name(name)
        for name in ("mcp.json.bak", "mcp.json.mine.bak", "other.json.20200101-000000.bak")
    ]
    for other in others:
        other.touch()
    contents: list[bytes] = []
    for number in range(12):
        contents.append(path.read_bytes())
        computer.run("install", "cursor", "--name", f"arta-{number}")
    assert all(other.exists() for other in others)
    others[1].unlink()
    assert sorted(backup.read_bytes() for backup in backups(path)) == sorted(contents[-3:])
    assert "note: 1 older backup removed; the newest three stay\n" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["install", "uninstall"])
@pytest.mark.parametrize("kind", ["device", "pipe", "socket", "a link to a pipe"])
def test_what_is_no_regular_file_is_left_as_it_is(
    kind: str, word: str, computer: Computer, tmp_path: Path
) -> None:
    path = tmp_path / "node"
    if kind == "device":
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root can make a device node")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        os.mkfifo(path)
    node = path
    if kind.startswith("a link"):
        path = tmp_path / "link"
        path.symlink_to(node)
    before = node.lstat()
    with pytest.raises(ConfigError, match="cannot be read: it is no regular file"):
        computer.run(word, "--file", str(path))
    assert (node.lstat().st_ino, node.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert {one.name for one in tmp_path.iterdir()} >= {"node"}
    assert backups(path) == []


def test_of_many_installs_at_once_none_is_lost(computer: Computer) -> None:
    path = computer.project / "new" / "mcp.json"
    command = [sys.executable, "-m", "arta_mcp", "install", "--file", str(path), "--name"]
    names = [f"arta-{number}" for number in range(24)]
    started = [
        subprocess.Popen(
            [*command, name], env=computer.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for name in names
    ]
    said = [done.communicate(timeout=120)[1] for done in started]
    assert [done.returncode for done in started] == [0] * len(names), said
    assert set(json.loads(path.read_bytes())["mcpServers"]) == set(names)
    assert {one.name for one in path.parent.iterdir()} == {
        path.name,
        *(backup.name for backup in backups(path)),
    }


def test_an_install_that_hangs_does_not_hold_others_for_ever(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_file, "LOCK_TIMEOUT", 0.1)
    path = computer.put("cursor")
    with lock_folder(path.parent, timeout=0):
        with pytest.raises(ConfigError, match="another install has been at work in "):
            computer.run("install", "cursor")
        assert computer.run("install", "cursor", "--dry-run") == console.OK
    assert computer.run("install", "cursor") == console.OK


@pytest.mark.parametrize("word", ["install", "uninstall"])
def test_what_another_program_has_overwritten_at_once_is_no_success(
    word: str, computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = computer.put("cursor")
    if word == "uninstall":
        computer.run("install", "cursor")
    write = files.write_atomically

    def write_and_lose(target: Path, content: bytes, *, mode: int) -> None:
        write(target, content, mode=mode)
        write(target, b"{}", mode=mode)

    monkeypatch.setattr(config_file, "write_atomically", write_and_lose)
    with pytest.raises(ConfigError, match="has changed while it was edited"):
        computer.run(word, "cursor")
    assert path.read_bytes() == b"{}"


def test_a_new_file_with_a_secret_is_its_owners_alone(computer: Computer) -> None:
    (computer.home / ".cursor").mkdir()
    umask = os.umask(0o022)
    try:
        computer.run("install", "cursor", "--env", f"ARTA_API_KEY={SECRET}")
        computer.run("install", "--file", "plain.json")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(computer.file("cursor").stat().st_mode) == 0o600
    assert stat.S_IMODE((computer.project / "plain.json").stat().st_mode) == 0o644


def test_a_file_that_changes_meanwhile_is_not_overwritten(computer: Computer) -> None:
    path = computer.put("claude-code")
    file = ConfigFile.read(path, find_host("claude-code"))
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="has changed while it was edited"):
        file.with_text("{ }").write(datetime.now(), is_private=False)
    assert computer.files() == {path: b"{}"}


def test_two_changes_in_one_second_have_two_backups(computer: Computer) -> None:
    path = computer.put("cursor")
    moment = datetime(2026, 11, 20, 9, 30, 0)
    for text in ("{}", "{ }"):
        file = ConfigFile.read(path, find_host("cursor"))
        file.with_text(text).write(moment, is_private=False)
    names = [backup.name for backup in backups(path)]
    assert names == ["mcp.json.20261120-093000-2.bak", "mcp.json.20261120-093000.bak"]
    assert path.read_bytes() == b"{ }"


def test_a_file_that_is_read_only_is_left_alone(computer: Computer) -> None:
    path = computer.put("cursor")
    path.chmod(0o444)
    with pytest.raises(ConfigError, match="is read-only"):
        computer.run("install", "cursor")
    assert path.read_bytes() == (SAMPLES / "cursor.json").read_bytes()


def test_a_folder_in_place_of_the_file_is_told(computer: Computer) -> None:
    computer.file("cursor").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        computer.run("install", "cursor")


# The guard

BEFORE = '{"mcpServers": {"other": {"command": "x"}}, "a": true}'


@pytest.mark.parametrize(
    "after",
    [
        '{"mcpServers": {"other": {"command": "y"}, "arta": {}}, "a": true}',
        '{"mcpServers": {"arta": {}}, "a": true}',
        '{"mcpServers": {"other": {"command": "x"}, "arta": {}}, "a": 1}',
        '{"a": true, "mcpServers": {"other": {"command": "x"}, "arta": {}}}',
    ],
)
def test_an_edit_that_would_change_anything_else_is_refused_also_without_assertions(
    after: str,
) -> None:
    config = parse("cursor", BEFORE)
    with pytest.raises(RuntimeError, match="nothing was written"):
        check_others_kept(config, after, "arta")
    lines = (
        "from pathlib import Path",
        "from arta_mcp.cli.install.config_file import ConfigFile, check_others_kept",
        "from arta_mcp.cli.install.hosts import find_host",
        "file = ConfigFile(Path('mcp.json'), find_host('cursor'), Path('mcp.json'), None)",
        f"config = file.with_text({BEFORE!r})",
        f"check_others_kept(config, {after!r}, 'arta')",
    )
    done = subprocess.run(
        [sys.executable, "-O", "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "RuntimeError: more than the entry of 'arta' would change" in done.stderr


@pytest.mark.parametrize("word", ["install", "uninstall"])
def test_neither_command_writes_past_the_guard(
    word: str, computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = computer.put("cursor", b'{"mcpServers": {"arta": {"command": "arta-mcp"}}, "a": 1}')
    before = computer.files()

    def lose_everything(_config: ConfigFile, _said: dict[str, object]) -> str:
        return "{}"

    monkeypatch.setattr(ConfigFile, "render", lose_everything)
    with pytest.raises(RuntimeError, match="nothing was written"):
        computer.run(word, "cursor", "--force")
    assert computer.files() == before
    assert not backups(path)


# A host's own command

ADD_TO_CLAUDE = """
path = os.path.join(os.environ["HOME"], ".claude.json")
said = json.load(open(path))
said["numStartups"] += 1
said["mcpServers"][sys.argv[-2]] = json.loads(sys.argv[-1])
json.dump(said, open(path, "w"), indent=2)
"""
ADD_TO_CODE = """
assert not [name for name in os.environ if name.startswith("ARTA_")]
path = os.path.join(os.environ["HOME"], ".config/Code/User/mcp.json")
entry = json.loads(sys.argv[-1])
name = entry.pop("name")
os.makedirs(os.path.dirname(path), exist_ok=True)
json.dump({"servers": {name: entry}}, open(path, "w"), indent="\\t")
"""


def test_claude_code_adds_an_entry_through_its_own_command(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    computer.put_program("claude", ADD_TO_CLAUDE)
    path = computer.put("claude-code")
    before = path.read_bytes()
    given = ("--env", "ARTA_MAX_WAIT=20", "--env", "ARTA_API_KEY=${ARTA_API_KEY}")
    computer.run("install", "claude-code", *given, "--dry-run")
    assert computer.arguments_of("claude") is None
    assert "by its own command: claude mcp add-json" in capsys.readouterr().err
    assert computer.run("install", "claude-code", *given) == console.OK
    arguments = computer.arguments_of("claude")
    assert arguments is not None
    assert arguments[:5] == ["mcp", "add-json", "--scope", "user", "arta"]
    assert json.loads(arguments[5]) == entry_of(path, "claude-code")
    assert json.loads(path.read_bytes())["numStartups"] == 43, "the command wrote it, not we"
    out, err = capsys.readouterr()
    assert out.startswith(f"--- {path}\n+++ {path}\n@@ mcpServers @@\n")
    assert "by its own command: claude mcp add-json --scope user arta '{" in err
    assert f"wrote {path}; as it was: {backups(path)[0]}\n" in err
    assert backups(path)[0].read_bytes() == before
    assert computer.run("install", "claude-code", *given) == console.OK
    assert "already there" in capsys.readouterr().err
    assert computer.run("uninstall", "claude-code") == console.OK
    assert entry_of(path, "claude-code") is None


def test_vs_code_adds_an_entry_through_its_own_command(computer: Computer) -> None:
    computer.put_program("code", ADD_TO_CODE)
    computer.environ["ARTA_API_KEY"] = SECRET
    (computer.home / ".config" / "Code").mkdir(parents=True)
    assert computer.run("install", "vscode") == console.OK
    arguments = computer.arguments_of("code")
    assert arguments is not None
    assert arguments[0] == "--add-mcp"
    wanted = {"type": "stdio", "command": str(computer.program), "args": list[str]()}
    assert json.loads(arguments[1]) == {"name": "arta"} | wanted
    assert entry_of(computer.file("vscode"), "vscode") == wanted


@pytest.mark.parametrize(
    "more",
    [
        ("--env", f"ARTA_API_KEY={SECRET}"),
        ("--env", "OTHER_TOKEN=could be one"),
        ("--ask", "ARTA_API_KEY"),
        ("--name", "perplexity", "--force"),
        ("--file", "some.json"),
        ("--project",),
        (),
    ],
)
def test_the_file_is_edited_where_the_command_would_lose_something(
    more: tuple[str, ...], computer: Computer
) -> None:
    """Secrets to `ps`; questions, other entries and, in a file that people wrote, the layout."""
    computer.put_program("code", "sys.exit('never')")
    if not more or more[0] == "--file":
        computer.put("vscode")
    else:
        said = json.loads((SAMPLES / "vscode.json").read_bytes())
        computer.put("vscode", json.dumps(said, indent="\t").encode())
    assert computer.run("install", "vscode", *more) == console.OK
    assert computer.arguments_of("code") is None


def test_a_file_with_comments_is_never_given_to_vs_code(computer: Computer) -> None:
    computer.put_program("code", ADD_TO_CODE)
    computer.put("vscode", COMMENTED.read_bytes().replace(b"mcpServers", b"servers"))
    with pytest.raises(ArtaError, match="has a comment"):
        computer.run("install", "vscode")
    assert computer.arguments_of("code") is None


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (
            "sys.exit(f'no \\x1b[1mroom\\nfor eyJhbGciOiJIUzI1NiJ9.e30.c2ln')",
            "code 1: no \\x1b[1mroom for [redacted]",
        ),
        ("print('odd'); sys.exit(7)", "claude ended with exit code 7: odd"),
        ("time.sleep(60)", "claude gave no answer in "),
        ("", "claude ended well, but PATH has no entry called 'arta'"),
    ],
)
def test_a_command_that_fails_is_told_in_its_own_words_with_another_way(
    script: str, sentence: str, computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in script:
        monkeypatch.setattr(install, "COMMAND_TIMEOUT", 0.5)
    computer.put_program("claude", script)
    path = computer.put("claude-code")
    before = path.read_bytes()
    with pytest.raises(ConfigError) as caught:
        computer.run("install", "claude-code")
    assert sentence.replace("PATH", str(path)) in str(caught.value)
    assert "eyJ" not in str(caught.value)
    assert caught.value.message.isprintable()
    assert caught.value.hint == f"--file {path} writes the file without it"
    assert path.read_bytes() == before
    assert computer.run("install", "claude-code", "--file", str(path)) == console.OK


def test_no_batch_file_and_nothing_from_the_current_folder_gets_our_json(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> list[str]:
        config, entry = parse("claude-code", ""), ServerEntry({})
        return install.find_add_command(config, "arta", entry, computer.environment)

    computer.put_program("claude", "")
    assert command()[:2] == [str(computer.bin / "claude"), "mcp"]
    computer.environ["PATH"] = os.path.relpath(computer.bin)
    assert command() == []
    for found_on_windows in ("/bin/claude.cmd", "/bin/claude.BAT"):

        def which(_program: str, path: str, found: str = found_on_windows) -> str:
            return found

        monkeypatch.setattr(shutil, "which", which)
        assert command() == []


# The whole program


@pytest.fixture
def run_arta(computer: Computer) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "arta_mcp", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=computer.project,
            env=computer.environ | {"ARTA_BACKEND": "nonsense"},
        )

    return run


def test_python_with_m_runs_no_file_of_the_current_folder_in_place_of_a_library(
    computer: Computer, run_arta: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for name in ("json", "typing", "argparse", "logging", "re", "mcp", "anyio", "httpx"):
        (computer.project / f"{name}.py").write_text("raise SystemExit('not ours')")
    done = run_arta("install", "--file", "mcp.json")
    assert (done.returncode, (computer.project / "mcp.json").exists()) == (0, True), done.stderr


def test_the_command_line_installs_even_with_settings_that_are_wrong(
    computer: Computer, run_arta: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    computer.program.unlink()
    path = computer.put("cursor")
    done = run_arta("install", "cursor", "--env", f"ARTA_API_KEY={SECRET}")
    assert (done.returncode, SECRET in done.stdout + done.stderr) == (0, False), done.stderr
    entry = entry_of(path, "cursor")
    env = {"ARTA_API_KEY": SECRET}
    assert entry == {"command": sys.executable, "args": ["-P", "-m", "arta_mcp"], "env": env}
    refused = run_arta("install", "cursr")
    assert refused.returncode == 2
    assert "error: HOST is 'cursr'" in refused.stderr
    assert run_arta("uninstall", "cursor").returncode == 0
    assert path.read_bytes() == (SAMPLES / "cursor.json").read_bytes()
    path.write_bytes(COMMENTED.read_bytes())
    left_alone = run_arta("install", "cursor")
    assert left_alone.returncode == 1
    assert "error: " in left_alone.stderr
    assert json.loads(left_alone.stdout)["mcpServers"]["arta"]["command"] == sys.executable
