"""Installing into each host's configuration: on copies, for three systems, on this one."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from arta_mcp.cli import console
from arta_mcp.cli.install import command as install
from arta_mcp.cli.install import jsonc
from arta_mcp.cli.install.config_file import HostFile
from arta_mcp.cli.install.hosts import HOSTS, Machine, find_files, find_host
from arta_mcp.cli.parser import Parser
from arta_mcp.errors import ArtaError, ConfigError, InvalidRequest

SAMPLES = Path(__file__).parents[1] / "hosts"
SECRET = "AIzaSyFakeFakeFakeFakeFakeFakeFakeFake"

LOCATIONS = {
    ("claude-desktop", "darwin"): "Library/Application Support/Claude/claude_desktop_config.json",
    ("claude-desktop", "win32"): "AppData/Roaming/Claude/claude_desktop_config.json",
    ("claude-desktop", "linux"): ".config/Claude/claude_desktop_config.json",
    ("claude-code", "darwin"): ".claude.json",
    ("claude-code", "win32"): ".claude.json",
    ("claude-code", "linux"): ".claude.json",
    ("cursor", "darwin"): ".cursor/mcp.json",
    ("cursor", "win32"): ".cursor/mcp.json",
    ("cursor", "linux"): ".cursor/mcp.json",
    ("vscode", "darwin"): "Library/Application Support/Code/User/mcp.json",
    ("vscode", "win32"): "AppData/Roaming/Code/User/mcp.json",
    ("vscode", "linux"): ".config/Code/User/mcp.json",
    ("windsurf", "darwin"): ".config/devin/mcp_config.json",
    ("windsurf", "win32"): "AppData/Roaming/devin/mcp_config.json",
    ("windsurf", "linux"): ".config/devin/mcp_config.json",
    ("zed", "darwin"): ".config/zed/settings.json",
    ("zed", "win32"): "AppData/Roaming/Zed/settings.json",
    ("zed", "linux"): ".config/zed/settings.json",
}
PROJECT_FILES = {
    "claude-code": ".mcp.json",
    "cursor": ".cursor/mcp.json",
    "vscode": ".vscode/mcp.json",
    "windsurf": ".devin/mcp_config.json",
}
USER_HOSTS = tuple(host.name for host in HOSTS if host.name != "generic")


class Desk:
    """A home folder with nothing in it, and a program to install."""

    def __init__(self, root: Path, platform: str = "linux") -> None:
        self.home = root / "home"
        self.project = root / "project"
        self.bin = root / "bin"
        for folder in (self.home, self.project, self.bin):
            folder.mkdir(exist_ok=True)
        self.program = self.bin / "arta-mcp"
        self.program.touch(mode=0o755)
        self.platform = platform
        self.environ = {"HOME": str(self.home), "PATH": str(self.bin)}
        if platform == "win32":
            self.environ = {"USERPROFILE": str(self.home), "PATH": str(self.bin)}

    @property
    def machine(self) -> Machine:
        return Machine(
            environ=self.environ,
            platform=self.platform,
            folder=self.project,
            program=str(self.program),
            python=sys.executable,
        )

    def file(self, host: str) -> Path:
        return self.home / LOCATIONS[host, self.platform]

    def put(self, host: str) -> Path:
        """The sample of a host where that host keeps it."""
        path = self.file(host)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((SAMPLES / f"{host}.json").read_bytes())
        return path

    def run(self, *arguments: str) -> int:
        parser = Parser()
        words = parser.add_subparsers()
        install.add_install(words)
        install.add_uninstall(words)
        options = parser.parse_args(arguments)
        run = install.install if arguments[0] == "install" else install.uninstall
        return run(options, self.machine)

    def files(self) -> dict[Path, bytes]:
        """All there is, for comparing."""
        return {path: path.read_bytes() for path in self.home.rglob("*") if path.is_file()}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def entry_of(path: Path, host: str, name: str = "arta") -> object:
    key = find_host(host).key
    node = jsonc.parse(path.read_bytes().decode()).at((key, name))
    return node.data() if node else None


def backups(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.*.bak"))


@pytest.mark.parametrize(("host", "platform"), LOCATIONS)
def test_a_host_is_found_where_each_system_keeps_it(
    host: str, platform: str, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, platform)
    path = desk.put(host)
    before = path.read_bytes()
    assert desk.run("install", host) == console.OK
    wanted: dict[str, object] = {"command": str(desk.program), "args": []}
    assert entry_of(path, host) == ({"type": "stdio"} if host == "vscode" else {}) | wanted
    (backup,) = backups(path)
    assert backup.read_bytes() == before


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("host", USER_HOSTS)
def test_uninstall_gives_back_every_byte_that_install_found(
    host: str, newline: bytes, desk: Desk
) -> None:
    path = desk.put(host)
    before = path.read_bytes().replace(b"\n", newline)
    path.write_bytes(before)
    desk.run("install", host)
    assert all(line.endswith(b"\r") for line in path.read_bytes().split(b"\n")[:-1]) == (
        newline == b"\r\n"
    )
    desk.run("uninstall", host)
    left = {"claude-code": b'"mcpServers": {}', "zed": b'"context_servers": {}'}.get(host, b"")
    after = path.read_bytes()
    if left:  # the object that was made for the entry stays, empty
        assert left in after
        after = re.sub(rb",\r?\n  " + left, b"", after)
        after = re.sub(rb"\r?\n  " + left + b",", b"", after)
    assert after == before


@pytest.mark.parametrize("host", USER_HOSTS)
def test_a_second_install_touches_nothing(
    host: str, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.put(host)
    desk.run("install", host)
    before = desk.files()
    capsys.readouterr()
    assert desk.run("install", host) == console.OK
    out, err = capsys.readouterr()
    assert desk.files() == before
    assert out == ""
    assert err == f"already there: {desk.file(host)} has this server as 'arta'\n"


def test_an_entry_that_the_host_has_added_words_to_is_still_the_same(desk: Desk) -> None:
    path = desk.file("claude-code")
    there: dict[str, object] = {"type": "stdio", "command": str(desk.program)}
    there |= {"args": [], "env": {}, "disabled": True}
    path.write_text(json.dumps({"mcpServers": {"arta": there}}), encoding="utf-8")
    before = desk.files()
    assert desk.run("install", "claude-code") == console.OK
    assert desk.files() == before


@pytest.mark.parametrize("host", USER_HOSTS)
def test_a_dry_run_shows_the_change_and_writes_nothing(
    host: str, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    path = desk.put(host)
    before = desk.files()
    assert desk.run("install", host, "--dry-run") == console.OK
    out, err = capsys.readouterr()
    assert desk.files() == before
    assert out.startswith(f"--- {path}\n+++ {path}\n@@ ")
    assert re.search(r'^\+\s*"arta": \{$', out, re.MULTILINE)
    assert f'"command": "{desk.program}"' in out
    assert "nothing was written (--dry-run)" in err


@pytest.mark.parametrize("host", ["claude-desktop", "cursor", "generic", "claude-code"])
def test_the_shown_change_tells_nothing_of_other_servers_and_people(
    host: str, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    path = desk.home / "mcp.json"
    path.write_bytes((SAMPLES / f"{host}.json").read_bytes())
    desk.run("install", host, "--file", str(path))
    desk.run("uninstall", host, "--file", str(path))
    out, err = capsys.readouterr()
    for private in ("ghp_not_a_real_token", "t0p-s3cret", "k0123456789", "ada@example", "npx"):
        assert private not in out + err
    assert out.count('"arta"') >= 2


def test_a_file_of_one_long_line_is_shown_indented_and_kept_in_one_line(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    path = desk.home / "mcp.json"
    servers = {f"server-{number}": {"command": "x"} for number in range(40)}
    path.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    desk.run("install", "--file", str(path))
    out, _ = capsys.readouterr()
    assert '+    "arta": {' in out
    assert max(map(len, out.splitlines())) < 400
    assert "\n" not in path.read_text(encoding="utf-8")
    assert entry_of(path, "generic") == {"command": str(desk.program), "args": []}


def test_a_new_file_is_made_when_the_host_is_there(desk: Desk) -> None:
    (desk.home / ".config" / "Code").mkdir(parents=True)
    assert desk.run("install", "vscode") == console.OK
    path = desk.file("vscode")
    assert json.loads(path.read_bytes()) == {
        "servers": {"arta": {"type": "stdio", "command": str(desk.program), "args": []}}
    }
    assert path.read_bytes().endswith(b"}\n")
    assert backups(path) == []


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf", b"// nothing yet\n"])
def test_an_empty_file_is_filled_and_backed_up(content: bytes, desk: Desk) -> None:
    path = desk.file("cursor")
    path.parent.mkdir()
    path.write_bytes(content)
    assert desk.run("install", "cursor") == console.OK
    assert path.read_bytes().startswith(content.rstrip())
    assert entry_of(path, "cursor") == {"command": str(desk.program), "args": []}
    assert [backup.read_bytes() for backup in backups(path)] == [content]


@pytest.mark.parametrize("host", USER_HOSTS)
def test_a_host_that_is_not_here_is_said_to_be_missing_and_nothing_is_made(
    host: str, desk: Desk
) -> None:
    with pytest.raises(ConfigError, match="seems not installed: there is no ") as caught:
        desk.run("install", host)
    assert "--file PATH" in caught.value.hint
    assert list(desk.home.iterdir()) == []
    assert desk.run("uninstall", host) == console.OK


@pytest.mark.parametrize("host", PROJECT_FILES)
def test_a_project_has_a_file_of_its_own(
    host: str, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    path = desk.project / PROJECT_FILES[host]
    assert desk.run("install", host, "--project") == console.OK
    assert entry_of(path, host) is not None
    assert "is a path on this machine" in capsys.readouterr().err
    assert list(desk.home.iterdir()) == []
    assert desk.run("uninstall", host, "--project") == console.OK
    assert entry_of(path, host) is None


@pytest.mark.parametrize("host", ["claude-desktop", "zed"])
def test_a_host_without_project_files_refuses_project(host: str, desk: Desk) -> None:
    with pytest.raises(InvalidRequest) as caught:
        desk.run("install", host, "--project")
    assert str(caught.value) == (
        f"--project is '{host}'; allowed is one of claude-code, cursor, vscode, windsurf"
    )


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("cursr", "did you mean cursor?"),
        ("winsurf", "did you mean windsurf?"),
        ("claud-desktop", "did you mean claude-desktop?"),
        ("emacs", "any other: --file PATH"),
    ],
)
def test_an_unknown_host_is_answered_with_the_nearest_one(word: str, hint: str, desk: Desk) -> None:
    with pytest.raises(InvalidRequest) as caught:
        desk.run("install", word)
    assert str(caught.value).startswith(f"HOST is '{word}'; allowed is one of claude-desktop, ")
    assert caught.value.hint.startswith(hint.removesuffix("?"))
    assert list(desk.home.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "name"),
    [("VS Code", "vscode"), ("Claude_Code", "claude-code"), ("devin", "windsurf"), ("ZED", "zed")],
)
def test_a_host_is_known_in_any_spelling(word: str, name: str) -> None:
    assert find_host(word).name == name


def test_without_a_host_or_a_file_the_hosts_are_told(desk: Desk) -> None:
    with pytest.raises(InvalidRequest, match="HOST is None; allowed is one of claude-desktop"):
        desk.run("install")
    with pytest.raises(InvalidRequest, match="--file is None; allowed is the path of a file"):
        desk.run("install", "generic")


def test_a_named_file_is_made_with_its_folders(desk: Desk) -> None:
    assert desk.run("install", "--file", "~/deep/er/mcp.json") == console.OK
    assert entry_of(desk.home / "deep" / "er" / "mcp.json", "generic") is not None
    assert desk.run("install", "vscode", "--file", "near.json") == console.OK
    assert entry_of(desk.project / "near.json", "vscode") is not None


def test_another_server_of_the_same_name_is_left_alone_without_force(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    path = desk.put("cursor")
    with pytest.raises(ConfigError) as caught:
        desk.run("install", "cursor", "--name", "tickets")
    assert str(caught.value) == (
        f"{path} has a different entry called 'tickets': its command differs"
    )
    with pytest.raises(ConfigError, match="has another program called 'tickets'"):
        desk.run("uninstall", "cursor", "--name", "tickets")
    assert path.read_bytes() == (SAMPLES / "cursor.json").read_bytes()
    assert desk.run("install", "cursor", "--name", "tickets", "--force") == console.OK
    assert entry_of(path, "cursor", "tickets") == {"command": str(desk.program), "args": []}
    assert b"], // trailing" not in path.read_bytes()
    assert b'// "draft": {},' in path.read_bytes()
    assert "t0p-s3cret" not in capsys.readouterr().out


def test_a_name_that_hosts_may_not_take_is_refused(desk: Desk) -> None:
    desk.put("cursor")
    with pytest.raises(InvalidRequest, match="--name is 'my server'; allowed is 1 to 64 letters"):
        desk.run("install", "cursor", "--name", "my server")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{\n  "mcpServers": {\n}', "does not parse: line 3, column 2: the file ends"),
        (b'{"a": 1 "b": 2}', "does not parse: line 1, column 9: a string stands here"),
        (b"[]", "the whole file is an array, not an object"),
        (b'{"mcpServers": []}', "mcpServers is an array, not an object"),
        (b'{"a": 1,\n"b": "\xff"}', "is not UTF-8: line 2 holds byte 0xff"),
        (b"\xff\xfe{\x00}\x00", "is not UTF-8: line 1 holds byte 0xff"),
    ],
)
@pytest.mark.parametrize("word", ["install", "uninstall"])
def test_a_file_that_cannot_be_understood_is_left_alone(
    word: str, content: bytes, sentence: str, desk: Desk
) -> None:
    path = desk.file("cursor")
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        desk.run(word, "cursor", "--force")
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "it was left as it is" in caught.value.hint
    assert desk.files() == {path: content}


def test_settings_are_written_only_when_given(desk: Desk) -> None:
    desk.environ |= {"ARTA_API_KEY": SECRET, "ARTA_BACKEND": "arta"}
    path = desk.put("cursor")
    desk.run("install", "cursor")
    assert SECRET.encode() not in path.read_bytes()
    desk.run("uninstall", "cursor")
    desk.run("install", "cursor", "--env", "ARTA_MAX_WAIT=20", "--env", "HTTPS_PROXY=http://p:1")
    assert entry_of(path, "cursor") == {
        "command": str(desk.program),
        "args": [],
        "env": {"ARTA_MAX_WAIT": "20", "HTTPS_PROXY": "http://p:1"},
    }


@pytest.mark.parametrize("secret", [SECRET, "k1k1k1"])
@pytest.mark.parametrize("host", USER_HOSTS)
def test_a_secret_is_written_but_never_shown_and_warned_about(
    host: str, secret: str, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    path = desk.put(host)
    desk.run("install", host, "--env", f"ARTA_API_KEY={secret}", "--env", "ARTA_MAX_WAIT=20")
    assert f'"{secret}"'.encode() in path.read_bytes()
    desk.run("install", host, "--force", "--env", f"ARTA_API_KEY={secret}2")
    desk.run("uninstall", host)
    out, err = capsys.readouterr()
    assert secret not in (out + err).replace(str(path), "")
    assert '"ARTA_API_KEY": "[redacted]"' in out
    assert '"ARTA_MAX_WAIT": "20"' in out
    assert f"warning: ARTA_API_KEY lies in {path} as plain text" in err


def test_the_safer_way_is_told_where_the_host_has_one(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    hints = {
        "vscode": "hint: `--ask ARTA_API_KEY` lets VS Code ask for it and keep it safely",
        "cursor": "hint: --env 'ARTA_API_KEY=${env:ARTA_API_KEY}' takes it from Cursor's",
        "claude-code": "hint: --env 'ARTA_API_KEY=${ARTA_API_KEY}' takes it from Claude Code's",
    }
    for host, hint in hints.items():
        desk.run("install", host, "--project", "--env", f"ARTA_API_KEY={SECRET}", "--dry-run")
        err = capsys.readouterr().err
        assert hint in err
        assert "as plain text and is shared with the project" in err


def test_a_reference_to_the_environment_is_no_secret(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.put("cursor")
    desk.run("install", "cursor", "--env", "ARTA_API_KEY=${env:ARTA_API_KEY}")
    out, err = capsys.readouterr()
    assert '"ARTA_API_KEY": "${env:ARTA_API_KEY}"' in out
    assert "plain text" not in err


def test_vs_code_can_ask_for_a_secret_and_forgets_the_question_with_the_server(
    desk: Desk,
) -> None:
    path = desk.put("vscode")
    before = path.read_bytes()
    desk.run("install", "vscode", "--ask", "ARTA_API_KEY")
    said = jsonc.parse(path.read_text(encoding="utf-8"))
    question = said.at(("inputs",))
    assert question is not None
    assert question.children[1].value.data() == {
        "type": "promptString",
        "id": "arta-api-key",
        "description": "Firebase Web API key of the service's project; yours to bring",
        "password": True,
    }
    assert entry_of(path, "vscode") == {
        "type": "stdio",
        "command": str(desk.program),
        "args": [],
        "env": {"ARTA_API_KEY": "${input:arta-api-key}"},
    }
    assert desk.run("install", "vscode", "--ask", "ARTA_API_KEY") == console.OK
    assert len(backups(path)) == 1
    desk.run("uninstall", "vscode")
    assert path.read_bytes() == before


def test_only_vs_code_is_told_to_ask(desk: Desk) -> None:
    desk.put("cursor")
    with pytest.raises(InvalidRequest, match="allowed is for VS Code; other hosts cannot ask"):
        desk.run("install", "cursor", "--ask", "ARTA_API_KEY")


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
        ("A B=x", "--env is 'A B'; allowed is the name of an environment variable", ""),
        ("ARTA_MAX_WAIT=soon", "ARTA_MAX_WAIT is 'soon', not a number of seconds", ""),
        ("A=b\x1bc", "--env is 'A'; allowed is a name with a value of printable characters", ""),
    ],
)
def test_a_setting_that_the_server_would_refuse_is_refused_at_once(
    given: str, sentence: str, hint: str, desk: Desk
) -> None:
    desk.put("cursor")
    before = desk.files()
    with pytest.raises(ArtaError) as caught:
        desk.run("install", "cursor", "--env", given)
    assert str(caught.value).startswith(sentence)
    assert hint in caught.value.hint
    assert desk.files() == before


def test_a_link_stays_a_link_and_its_backup_lies_beside_the_link(desk: Desk) -> None:
    real = desk.project / "dotfiles" / "zed.json"
    real.parent.mkdir()
    real.write_bytes((SAMPLES / "zed.json").read_bytes())
    link = desk.file("zed")
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    desk.run("install", "zed")
    assert link.is_symlink()
    assert link.resolve() == real
    assert entry_of(real, "zed") is not None
    assert len(backups(link)) == 1
    assert list(real.parent.iterdir()) == [real]


def test_a_link_to_a_file_that_is_not_there_yet_makes_that_file(desk: Desk) -> None:
    link = desk.file("cursor")
    link.parent.mkdir()
    link.symlink_to(desk.project / "cursor.json")
    desk.run("install", "cursor")
    assert link.is_symlink()
    assert entry_of(desk.project / "cursor.json", "cursor") is not None


def test_a_link_to_itself_is_refused(desk: Desk) -> None:
    link = desk.file("cursor")
    link.parent.mkdir()
    link.symlink_to(link)
    with pytest.raises(ConfigError):
        desk.run("install", "cursor")
    assert link.is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664])
def test_a_file_and_its_backup_keep_the_mode(mode: int, desk: Desk) -> None:
    path = desk.put("cursor")
    path.chmod(mode)
    desk.run("install", "cursor")
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path, *backups(path))] == [mode, mode]
    assert not list(path.parent.glob("*.part"))


def test_a_new_file_with_a_secret_is_its_owners_alone(desk: Desk) -> None:
    (desk.home / ".cursor").mkdir()
    desk.run("install", "cursor", "--env", f"ARTA_API_KEY={SECRET}")
    assert stat.S_IMODE(desk.file("cursor").stat().st_mode) == 0o600


def test_a_file_that_changes_meanwhile_is_not_overwritten(desk: Desk) -> None:
    path = desk.put("claude-code")
    file = HostFile.read(path)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="has changed while it was edited"):
        file.replace("{ }", now=datetime.now(), is_private=False)
    assert desk.files() == {path: b"{}"}


def test_two_changes_in_one_second_have_two_backups(desk: Desk) -> None:
    path = desk.put("cursor")
    moment = datetime(2026, 11, 20, 9, 30, 0)
    for text in ("{}", "{ }"):
        HostFile.read(path).replace(text, now=moment, is_private=False)
    names = [backup.name for backup in backups(path)]
    assert names == ["mcp.json.20261120-093000-2.bak", "mcp.json.20261120-093000.bak"]
    assert path.read_bytes() == b"{ }"


def test_a_file_that_is_read_only_is_left_alone(desk: Desk) -> None:
    path = desk.put("cursor")
    path.chmod(0o444)
    with pytest.raises(ConfigError, match="is read-only"):
        desk.run("install", "cursor")
    assert path.read_bytes() == (SAMPLES / "cursor.json").read_bytes()


def test_a_folder_in_place_of_the_file_is_told(desk: Desk) -> None:
    desk.file("cursor").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        desk.run("install", "cursor")


def test_a_host_of_plain_json_is_warned_of_comments(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    path = desk.file("claude-desktop")
    path.parent.mkdir(parents=True)
    path.write_text('{\n  // mine\n  "mcpServers": {}\n}\n', encoding="utf-8")
    desk.run("install", "claude-desktop")
    assert "reads plain JSON; a comment or trailing comma in line 2" in capsys.readouterr().err


def test_a_packaged_claude_desktop_on_windows_has_its_own_file(tmp_path: Path) -> None:
    desk = Desk(tmp_path, "win32")
    stale = desk.put("claude-desktop")
    package = desk.home / "AppData" / "Local" / "Packages" / "Claude_pzs8sxrjxfjjc"
    package.mkdir(parents=True)
    desk.run("install", "claude-desktop")
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
    desk = Desk(tmp_path, platform)
    desk.environ[variable] = str(tmp_path / "elsewhere")
    path = tmp_path / "elsewhere" / inside
    path.parent.mkdir(parents=True)
    desk.run("install", host)
    assert entry_of(path, host) is not None


def test_windsurf_is_served_where_it_is_and_the_other_place_is_named(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    old = desk.home / ".codeium" / "windsurf" / "mcp_config.json"
    old.parent.mkdir(parents=True)
    old.write_bytes((SAMPLES / "windsurf.json").read_bytes())
    desk.run("install", "windsurf")
    assert entry_of(old, "windsurf") is not None
    new = desk.put("windsurf")
    capsys.readouterr()
    desk.run("install", "windsurf")
    assert entry_of(new, "windsurf") is not None
    assert f"note: {old} is another place for it" in capsys.readouterr().err
    desk.run("uninstall", "windsurf")
    assert entry_of(old, "windsurf") is None
    assert entry_of(new, "windsurf") is None


def test_the_command_is_the_script_that_runs_or_the_interpreter(desk: Desk) -> None:
    path = desk.put("cursor")

    def command(program: str, *more: str) -> object:
        desk.program = Path(program)
        desk.run("install", "cursor", "--force", *more)
        entry = entry_of(path, "cursor")
        assert isinstance(entry, dict)
        return entry["command"], entry["args"]  # pyright: ignore[reportUnknownVariableType]  # as it was read

    script = desk.bin / "arta-mcp"
    assert command(str(script)) == (str(script), [])
    assert command("../bin/../bin/arta-mcp") == (f"{desk.project}/../bin/../bin/arta-mcp", [])
    assert command("/somewhere/pytest") == (str(script), []), "the one on PATH"
    script.rename(desk.bin / "arta-mcp.exe")
    assert command(str(script)) == (f"{script}.exe", [])
    (desk.bin / "arta-mcp.exe").unlink()
    assert command("/x/arta_mcp/__main__.py") == (sys.executable, ["-m", "arta_mcp"])


def test_uvx_is_written_when_asked_for_or_when_the_script_will_not_last(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    path = desk.put("cursor")
    with pytest.raises(ConfigError, match="uvx is not on PATH"):
        desk.run("install", "cursor", "--uvx")
    (desk.bin / "uvx").touch(mode=0o755)
    desk.run("install", "cursor", "--uvx")
    wanted = {"command": str(desk.bin / "uvx"), "args": ["arta-mcp"]}
    assert entry_of(path, "cursor") == wanted
    desk.run("uninstall", "cursor")
    capsys.readouterr()
    desk.program = Path("/home/ada/.cache/uv/archive-v0/Zx1/bin/arta-mcp")
    desk.run("install", "cursor")
    assert entry_of(path, "cursor") == wanted
    assert "lies in uv's cache" in capsys.readouterr().err


def test_each_host_is_told_what_makes_it_see_the_change(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    for host in USER_HOSTS:
        path = desk.put(host)
        desk.run("install", host)
        err = capsys.readouterr().err
        assert f"wrote {path}; as it was: {backups(path)[0]}\n" in err
        assert f"next: {find_host(host).then}\n" in err


def test_a_place_is_looked_for_without_making_anything(desk: Desk) -> None:
    for host in HOSTS[:-1]:
        assert find_files(host, desk.machine, file=None, project=False) == []
    assert list(desk.home.iterdir()) == []


@pytest.fixture
def run_arta(desk: Desk) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "arta_mcp", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=desk.project,
            env=desk.environ | {"ARTA_BACKEND": "nonsense"},
        )

    return run


def test_the_command_line_installs_even_with_settings_that_are_wrong(
    desk: Desk, run_arta: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    desk.program.unlink()
    path = desk.put("cursor")
    done = run_arta("install", "cursor", "--env", f"ARTA_API_KEY={SECRET}")
    assert (done.returncode, SECRET in done.stdout + done.stderr) == (0, False), done.stderr
    entry = entry_of(path, "cursor")
    env = {"ARTA_API_KEY": SECRET}
    assert entry == {"command": sys.executable, "args": ["-m", "arta_mcp"], "env": env}
    refused = run_arta("install", "cursr")
    assert refused.returncode == 2
    assert "error: HOST is 'cursr'" in refused.stderr
    assert run_arta("uninstall", "cursor").returncode == 0
    assert path.read_bytes() == (SAMPLES / "cursor.json").read_bytes()
