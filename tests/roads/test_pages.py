"""The site: it builds, not with what is dead or stale, and what its pages tell to type works."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.clients import ROOT, Need, node, node_folder
from harness.installed import PROGRAM, Machine, decode
from harness.roads import BIN, TOOLS, run, uv_environ

HOSTS = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
PLACES = {
    "/absolute/path/to/arta-mcp": str(PROGRAM),
    "/absolute/path/to/uvx": str(BIN / "uvx"),
    "/absolute/path/to/checkout": str(ROOT),
}


def build_site(checkout: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, checkout / "tools" / "build_site.py", out)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def clone(checkout: Path, tmp_path: Path) -> Path:
    """A checkout to spoil."""
    return shutil.copytree(checkout, tmp_path / "clone", ignore=shutil.ignore_patterns(".venv"))


@pytest.mark.parametrize(
    ("page", "added", "told"),
    [
        ("docs/hosts.md", "[x](no-such-page.md)", "page does not exist"),
        ("docs/hosts.md", "[x](cli.md#no-such-part)", "anchor does not exist"),
        ("SECURITY.md", "[x](no-such-file.md)", "security.md leads to no-such-file.md"),
        ("docs/a-new-page.md", "# Not in the navigation", "differ in a-new-page.md"),
    ],
)
def test_a_page_that_leads_nowhere_ends_the_build(
    clone: Path, page: str, added: str, told: str
) -> None:
    with (clone / page).open("a", encoding="utf-8") as file:
        file.write(f"\n{added}\n")
    ended = build_site(clone, clone / "site")
    assert ended.returncode != 0
    assert told in re.sub(r"\x1b\[[0-9;]*m", "", ended.stdout + ended.stderr)


def test_a_table_that_differs_from_the_code_ends_the_build(clone: Path) -> None:
    readme = clone / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text.replace("| `ARTA_MAX_WAIT` | `auto` |", "| `ARTA_MAX_WAIT` | `9` |"))
    ended = build_site(clone, clone / "site")
    assert (ended.returncode, ended.stderr) == (
        1,
        "error: a table of README.md is not what the code says\n",
    )


# What a page tells to type


class Page(HTMLParser):
    """What a page of the site tells to type."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.blocks: list[str] = []
        self.words: list[str] = []
        """the code inside its sentences"""
        self._open: list[str] | None = None
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._open is None and tag in ("pre", "code"):
            self._open = self.blocks if tag == "pre" else self.words
            self._open.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == ("pre" if self._open is self.blocks else "code"):
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open[-1] += data

    def word(self, begin: str) -> str:
        (found,) = {word for word in self.words if word.startswith(begin)}
        return found


class Person:
    """Somebody with uv, git and Node.js, an empty home and an empty folder, who types in bash."""

    def __init__(self, machine: Machine, node_program: Path) -> None:
        bare = machine.folder / "bin"
        bare.mkdir()
        (bare / "uv").symlink_to(BIN / "uv")  # and not the `arta-mcp` that lies beside it
        self.machine = machine
        self._environ = uv_environ(machine.home) | {
            "PATH": f"{bare}:{node_program.parent}:/usr/bin:/bin",
            "SHELL": "/bin/bash",
        }

    def type_in(self, command: str, **settings: str) -> str:
        """What the command says on stdout, in a new terminal."""
        given = {**self._environ, **settings}.items()
        pairs = [f"{name}={value}" for name, value in given]
        shell = ("bash", "--noprofile", "-ic", command)
        return run("env", "-i", *pairs, *shell, cwd=self.machine.elsewhere)


def test_who_has_only_the_first_page_of_the_site_gets_three_pictures(
    checkout: Path, need: Need, tmp_path: Path
) -> None:
    need(shutil.which("git") is not None, "git is not installed")
    ended = build_site(ROOT, tmp_path / "site")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    page = Page(tmp_path / "site" / "index.html")
    install, draw, entry, inspect = page.blocks
    machine = Machine.new(tmp_path / "machine")
    person = Person(machine, Path(node(need)))

    # The address is not to be had here: git is told where else it lies.
    (address,) = re.findall(r"git clone (https://\S+)", install)
    published = publish(checkout, tmp_path / "published")
    redirect = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{published}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
    }
    person.type_in(install, **redirect)
    person.type_in(page.word("uv tool"))

    drawn = machine.elsewhere / person.type_in(draw).split()[-1]
    assert decode(drawn.read_bytes()).size == (1024, 1024)

    # npx takes what a folder has installed, and asks a registry for nothing.
    (machine.elsewhere / "node_modules").symlink_to(node_folder(need) / "node_modules")
    assert draws(json.loads(person.type_in(f"{inspect.strip()} --format json")))

    file = machine.home / ".config" / "Claude" / page.word("claude_desktop")
    file.parent.mkdir(parents=True)  # the app has been started
    person.type_in(page.word("arta-mcp install"))
    written = json.loads(file.read_text(encoding="utf-8"))
    place = person.type_in(page.word("which ")).strip()
    by_hand = json.loads(entry.replace("/absolute/path/to/arta-mcp", place))
    by_hand["mcpServers"]["arta"]["args"] = []
    assert written == by_hand
    # As the app does, which knows the file and nothing that a terminal knows.
    (machine.home / ".bashrc").unlink()
    typed = inspect.replace("--cli arta-mcp", f"--cli --config {file} --server arta").strip()
    assert draws(json.loads(person.type_in(f"{typed} --format json")))


def publish(checkout: Path, folder: Path) -> Path:
    """A repository with these files."""
    shutil.copytree(checkout, folder)
    for words in (
        ("init", "--quiet"),
        ("add", "--all"),
        (*("-c", "user.name=a", "-c", "user.email=a@example"), *("commit", "--quiet", "-m", "all")),
    ):
        run("git", *words, cwd=folder)
    return folder


def draws(answer: dict[str, Any]) -> bool:
    """Whether an answer of the Inspector has a picture, in a file of this machine."""
    (image,) = answer["result"]["structuredContent"]["images"]
    return decode(Path(image["path"]).read_bytes()).size == (1024, 1024)


def blocks_of(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", HOSTS, re.DOTALL | re.MULTILINE)
    assert found, f"hosts.md has no {language}"
    return found


def fill_in(text: str) -> str:
    for place, path in PLACES.items():
        text = text.replace(place, path)
    assert "/absolute/path" not in text
    return text


def as_mcp_servers(block: str, language: str) -> dict[str, Any]:
    """What the Inspector reads, of a snippet in the shape of its host."""
    read: dict[str, Any] = tomllib.loads(block) if language == "toml" else json.loads(block)
    (key,) = read.keys() & {"mcpServers", "servers", "context_servers", "mcp_servers"}
    questions = {f"${{input:{one['id']}}}": "" for one in read.get("inputs", [])}
    for entry in read[key].values():
        entry["env"] = {k: questions.get(v, v) for k, v in entry.get("env", {}).items()}
    return {"mcpServers": read[key]}


SNIPPETS = [(language, block) for language in ("json", "toml") for block in blocks_of(language)]


@pytest.mark.parametrize(("language", "block"), SNIPPETS, ids=range(len(SNIPPETS)))
def test_each_snippet_for_a_host_starts_the_server(
    language: str, block: str, need: Need, tmp_path: Path
) -> None:
    machine = Machine.new(tmp_path / "machine")
    config = tmp_path / "config.json"
    environ = uv_environ(machine.home) | {"ARTA_STATE_DIR": str(machine.state)}
    servers = as_mcp_servers(fill_in(block), language)
    servers["mcpServers"]["arta"]["env"] |= environ  # the Inspector hands on little of its own
    config.write_text(json.dumps(servers), encoding="utf-8")
    inspector = node_folder(need) / "node_modules" / ".bin" / "mcp-inspector"
    ask = ("--cli", "--config", config, "--server", "arta", "--method", "tools/list")
    listed = run(node(need), inspector, *ask, "--format", "json", environ=environ)
    assert [tool["name"] for tool in json.loads(listed)["result"]["tools"]] == TOOLS


def test_the_command_for_claude_code_names_the_program_behind_two_dashes() -> None:
    (block,) = [block for block in blocks_of("sh") if block.startswith("claude ")]
    words = shlex.split(fill_in(block))
    assert words == ["claude", "mcp", "add", "arta", "--", str(PROGRAM)]


def test_the_program_of_the_embedded_service_page_draws_on_the_embedded_service(
    tmp_path: Path,
) -> None:
    page = (ROOT / "docs" / "embedded.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "client.py").write_text(program, encoding="utf-8")
    machine = Machine.new(tmp_path / "machine")
    command = (str(machine.program), "local")
    with subprocess.Popen(
        command, env=machine.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as service:
        assert service.stdout is not None
        address = service.stdout.readline().split()[-1]
        told = run(sys.executable, tmp_path / "client.py", address)
        service.terminate()
    assert re.fullmatch(r"DONE image/png \d{4,}\n", told)


def test_the_program_of_the_architecture_page_draws(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "library.py").write_text(program, encoding="utf-8")
    told = run(sys.executable, tmp_path / "library.py", environ={"HOME": str(tmp_path)})
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/images/\S+\.png\n", told)
