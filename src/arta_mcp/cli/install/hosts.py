"""Where each host keeps its list of MCP servers, and in which shape.

Sources, looked up in November 2026:
Claude Desktop  modelcontextprotocol.io/quickstart/user; the packaged app for Windows reads its own
                copy of %APPDATA%: taiste/harvest-mcp-server#12, hannesill/m4#54
Claude Code     code.claude.com/docs/en/mcp; CLAUDE_CONFIG_DIR: anthropics/claude-code#48448
Cursor          cursor.com/docs/mcp
VS Code         code.visualstudio.com/docs/copilot/reference/mcp-configuration
Windsurf        Devin Desktop since June 2026: docs.sevalla.com/ai-agents/windsurf and
                upstash/context7#3090; before: docs.windsurf.com/windsurf/cascade/mcp. It refuses
                unknown keys such as `type`: colbymchenry/codegraph#1860
Zed             zed.dev/docs/ai/mcp; no `source` any more: zed-industries/zed#62818. The folder:
                zed-industries/zed crates/paths/src/paths.rs
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from arta_mcp.errors import ConfigError, InvalidRequest
from arta_mcp.matching import normalize, suggest

_UV_CACHE = re.compile(r"[/\\](archive|environments|builds)-v\d+[/\\]")
"""a folder of uv's cache: what `uvx` started lies there until the cache is emptied"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEnvironment:
    """What finding a host's file depends on; `platform` as `sys.platform` says it."""

    environ: Mapping[str, str]
    platform: str
    folder: Path
    """the current one, absolute"""
    program: str
    """what this process was started as: `sys.argv[0]`"""
    python: str
    """the interpreter that runs it"""

    @classmethod
    def of_process(cls, environ: Mapping[str, str]) -> HostEnvironment:
        """That of this process, with the variables that it was given."""
        return cls(
            environ=environ,
            platform=sys.platform,
            folder=Path.cwd(),
            program=sys.argv[0],
            python=sys.executable,
        )

    @property
    def home(self) -> Path:
        """The user's own folder."""
        name = "USERPROFILE" if self.platform == "win32" else "HOME"
        return Path(self.environ[name]) if self.environ.get(name) else Path.home()

    @property
    def app_config(self) -> Path:
        """Where desktop programs keep their settings."""
        on_mac = self.home / "Library" / "Application Support"
        return on_mac if self.platform == "darwin" else self.dot_config

    @property
    def dot_config(self) -> Path:
        """Where programs of Unix descent keep them: ~/.config, on a Mac too."""
        match self.platform:
            case "win32":
                return self.folder_from("APPDATA", self.home / "AppData" / "Roaming")
            case "darwin":
                return self.home / ".config"
            case _:
                return self.folder_from("XDG_CONFIG_HOME", self.home / ".config")

    def folder_from(self, variable: str, default: Path) -> Path:
        """The absolute path that a variable holds, or the default."""
        value = Path(self.environ.get(variable, ""))
        return value if value.is_absolute() else default

    def absolute(self, path: str | Path) -> Path:
        """A path as this process would read it; `~` is the home folder."""
        text = str(path)
        if text == "~" or text.startswith(("~/", "~\\")):
            return self.home / text[2:]
        return self.folder / text

    def find_start_command(self, *, with_uvx: bool) -> tuple[list[str], bool]:
        """Absolute path and arguments, as hosts have a PATH of their own; and whether by uvx.

        A program in uv's cache will not last, so uvx takes its place. Raises ConfigError when it
        is not there.
        """
        search = self.environ.get("PATH", "")
        program = self.absolute(self.program)
        if with_uvx or _UV_CACHE.search(str(program)):
            uvx = shutil.which("uvx", path=search)
            if uvx is None:
                raise ConfigError("uvx is not on PATH", hint="install uv, or leave out --uvx")
            return [str(self.absolute(uvx)), "arta-mcp"], True
        # pip's script for Windows is `arta-mcp.exe`, and argv names it with or without the suffix.
        script = program.with_name(f"{program.name.removesuffix('.exe')}.exe")
        for path in (program, script):
            if path.name.startswith("arta-mcp") and path.is_file():
                return [str(path)], False
        if found := shutil.which("arta-mcp", path=search):
            return [str(self.absolute(found))], False
        # Started as `python -m arta_mcp`, with no script: the interpreter finds the package.
        return [self.python, "-m", "arta_mcp"], False


@dataclass(frozen=True, slots=True)
class ConfigLocation:
    """A folder that is there when the host is, and the file that the host reads then."""

    folder: Path
    file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One program that starts MCP servers."""

    name: str
    title: str
    locations: Callable[[HostEnvironment], list[ConfigLocation]]
    """for the user, the likeliest first"""
    key: str = "mcpServers"
    """what the servers stand under"""
    project: str = ""
    """the file of one project, if it has any, seen from the project's folder"""
    asks: bool = False
    """it can ask for a value and keep it (`inputs`), and wants `"type": "stdio"`: VS Code"""
    reference: str = ""
    """how an entry refers to a variable of the host's environment"""
    add_command: Callable[[str, dict[str, object]], list[str]] = lambda _name, _value: []
    """its own command line that adds an entry for the user; empty when it has none"""
    aliases: tuple[str, ...] = ()
    next_step: str
    """what makes it see the change"""


def _inside(folder: Path, *file: str) -> list[ConfigLocation]:
    return [ConfigLocation(folder, folder.joinpath(*file))]


def _find_claude_desktop(env: HostEnvironment) -> list[ConfigLocation]:
    name = "claude_desktop_config.json"
    if env.platform == "win32":
        local = env.folder_from("LOCALAPPDATA", env.home / "AppData" / "Local")
        # A packaged app never sees the plain folder, whatever an older one left there.
        if packages := sorted((local / "Packages").glob("Claude_*")):
            inner = ("LocalCache", "Roaming", "Claude", name)
            return [location for package in packages for location in _inside(package, *inner)]
    return _inside(env.app_config / "Claude", name)


def _find_claude_code(env: HostEnvironment) -> list[ConfigLocation]:
    # Inside of a folder that was chosen, but beside the one that it has by default.
    if chosen := env.environ.get("CLAUDE_CONFIG_DIR"):
        return _inside(env.absolute(chosen), ".claude.json")
    return [ConfigLocation(env.home / ".claude", env.home / ".claude.json")]


HOSTS = (
    Host(
        name="claude-desktop",
        title="Claude Desktop",
        locations=_find_claude_desktop,
        next_step="quit Claude Desktop fully and open it again",
    ),
    Host(
        name="claude-code",
        title="Claude Code",
        locations=_find_claude_code,
        project=".mcp.json",
        reference="${NAME}",
        # Without a scope it would add to the project in the current folder.
        add_command=lambda name, value: (
            ["claude", "mcp", "add-json", "--scope", "user", name, json.dumps(value)]
        ),
        next_step="start a new session; /mcp lists the server",
    ),
    Host(
        name="cursor",
        title="Cursor",
        locations=lambda env: _inside(env.home / ".cursor", "mcp.json"),
        project=".cursor/mcp.json",
        reference="${env:NAME}",
        next_step="restart Cursor",
    ),
    Host(
        name="vscode",
        title="VS Code",
        locations=lambda env: _inside(env.app_config / "Code", "User", "mcp.json"),
        key="servers",
        project=".vscode/mcp.json",
        asks=True,
        add_command=lambda name, value: ["code", "--add-mcp", json.dumps({"name": name} | value)],
        aliases=("code", "visual-studio-code"),
        next_step="run `MCP: List Servers` in VS Code and start it",
    ),
    Host(
        name="windsurf",
        title="Windsurf",
        # Its name since June 2026, and the one before.
        locations=lambda env: [
            *_inside(env.dot_config / "devin", "mcp_config.json"),
            *_inside(env.home / ".codeium" / "windsurf", "mcp_config.json"),
        ],
        project=".devin/mcp_config.json",
        reference="${env:NAME}",
        aliases=("devin", "devin-desktop"),
        next_step="refresh the list of MCP servers in Windsurf",
    ),
    Host(
        name="zed",
        title="Zed",
        locations=lambda env: _inside(
            env.dot_config / ("Zed" if env.platform == "win32" else "zed"), "settings.json"
        ),
        key="context_servers",
        next_step="Zed sees it at once; the agent panel's settings list the server",
    ),
    Host(
        name="generic",
        title="the host",
        locations=lambda _: [],
        aliases=("mcpservers", "mcp-servers", "file"),
        next_step="restart the program that reads the file",
    ),
)
"""the last one is whatever reads `mcpServers` from a file that `--file` names"""

NAMES = tuple(host.name for host in HOSTS)


def find_host(word: str) -> Host:
    """The host of this name, in any spelling of it. Raises InvalidRequest."""
    spellings = {alias: host for host in HOSTS for alias in (host.name, *host.aliases)}
    for alias, host in spellings.items():
        if normalize(alias).replace("-", "") == normalize(word).replace("-", ""):
            return host
    meant = dict.fromkeys(spellings[found].name for found in suggest(word, spellings))
    hint = f"did you mean {' or '.join(meant)}?" if meant else "any other: --file PATH"
    raise InvalidRequest("HOST", word, f"one of {', '.join(NAMES)}", hint=hint)


def find_files(host: Host, env: HostEnvironment, *, file: str | None, project: bool) -> list[Path]:
    """The files that the host may read, the one to change first; none when it is not here.

    A file that exists goes before one that could. Raises InvalidRequest.
    """
    if file:
        return [env.absolute(file)]
    if host.name == "generic":
        raise InvalidRequest("--file", None, "the path of a file with `mcpServers`")
    if project and not host.project:
        able = ", ".join(host.name for host in HOSTS if host.project)
        raise InvalidRequest("--project", host.name, f"one of {able}")
    if project:
        return [env.folder / host.project]
    # A link counts as a file wherever it leads: people keep their settings elsewhere.
    places = [p for p in host.locations(env) if os.path.lexists(p.file) or p.folder.is_dir()]
    return [p.file for p in sorted(places, key=lambda p: not os.path.lexists(p.file))]
