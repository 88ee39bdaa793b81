"""Where each host keeps its list of MCP servers, and in which shape.

Sources, looked up in November 2026:
Claude Desktop  modelcontextprotocol.io/quickstart/user; on Windows the packaged app (all
                installers since February 2026) reads its own copy of %APPDATA%:
                github.com/taiste/harvest-mcp-server/pull/12, hannesill/m4/pull/54
Claude Code     code.claude.com/docs/en/mcp: user scope is `mcpServers` in ~/.claude.json, project
                scope .mcp.json; with CLAUDE_CONFIG_DIR it lies there: anthropics/claude-code#48448
Cursor          cursor.com/docs/mcp: ~/.cursor/mcp.json, .cursor/mcp.json
VS Code         code.visualstudio.com/docs/copilot/reference/mcp-configuration: `servers`, `inputs`,
                .vscode/mcp.json and mcp.json in the user profile
Windsurf        Devin Desktop since June 2026: docs.sevalla.com/ai-agents/windsurf and
                upstash/context7#3090: ~/.config/devin/mcp_config.json, .devin/mcp_config.json;
                before: docs.windsurf.com/windsurf/cascade/mcp. Its schema refuses unknown keys
                such as `type`: colbymchenry/codegraph#1860
Zed             zed.dev/docs/ai/mcp: `context_servers` in settings.json, command and args side by
                side; `source` is no longer part of it: zed-industries/zed#62818. The folder:
                zed-industries/zed crates/paths/src/paths.rs
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from arta_mcp.errors import ConfigError, InvalidRequest
from arta_mcp.matching import normalize, suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What finding a host's file depends on; `platform` as `sys.platform` says it."""

    environ: Mapping[str, str]
    platform: str
    folder: Path
    """the current one, absolute"""
    program: str
    """what this process was started as: `sys.argv[0]`"""
    python: str
    """the interpreter that runs it"""

    @property
    def home(self) -> Path:
        name = "USERPROFILE" if self.platform == "win32" else "HOME"
        return Path(self.environ[name]) if self.environ.get(name) else Path.home()

    @property
    def config(self) -> Path:
        """Where desktop programs keep their settings."""
        match self.platform:
            case "win32":
                return self._given("APPDATA", self.home / "AppData" / "Roaming")
            case "darwin":
                return self.home / "Library" / "Application Support"
            case _:
                return self.dot_config

    @property
    def dot_config(self) -> Path:
        """Where programs of Unix descent keep them: ~/.config, on a Mac too."""
        if self.platform == "win32":
            return self.config
        default = self.home / ".config"
        return default if self.platform == "darwin" else self._given("XDG_CONFIG_HOME", default)

    @property
    def local_data(self) -> Path:
        return self._given("LOCALAPPDATA", self.home / "AppData" / "Local")

    def _given(self, name: str, default: Path) -> Path:
        value = Path(self.environ.get(name, ""))
        return value if value.is_absolute() else default

    def absolute(self, path: str | Path) -> Path:
        text = str(path)
        if text == "~" or text.startswith(("~/", "~\\")):
            return self.home / text[2:]
        return self.folder / text


@dataclass(frozen=True, slots=True)
class Place:
    """A file that a host reads, and a folder that is there when the host is."""

    file: Path
    sign: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One program that starts MCP servers."""

    name: str
    title: str
    places: Callable[[Machine], tuple[Place, ...]]
    """for the user, the likeliest first"""
    key: str = "mcpServers"
    project: str = ""
    """the file of one project, if it has any, seen from the project's folder"""
    has_type: bool = False
    """an entry says `"type": "stdio"`"""
    asks: bool = False
    """it can ask for a value and keep it (`inputs`)"""
    reference: str = ""
    """how an entry refers to a variable of the host's environment"""
    is_strict: bool = False
    """it reads plain JSON: no comments, no trailing commas"""
    aliases: tuple[str, ...] = ()
    then: str
    """what makes it see the change"""


def _claude_desktop(machine: Machine) -> tuple[Place, ...]:
    name = "claude_desktop_config.json"
    plain = machine.config / "Claude"
    if machine.platform == "win32":
        packages = sorted((machine.local_data / "Packages").glob("Claude_*"))
        # A packaged app never sees the plain folder, whatever an older one left there.
        if packages:
            inner = Path("LocalCache", "Roaming", "Claude", name)
            return tuple(Place(package / inner, package) for package in packages)
    return (Place(plain / name, plain),)


def _claude_code(machine: Machine) -> tuple[Place, ...]:
    if chosen := machine.environ.get("CLAUDE_CONFIG_DIR"):
        folder = machine.absolute(chosen)
        return (Place(folder / ".claude.json", folder),)
    return (Place(machine.home / ".claude.json", machine.home / ".claude"),)


def _cursor(machine: Machine) -> tuple[Place, ...]:
    folder = machine.home / ".cursor"
    return (Place(folder / "mcp.json", folder),)


def _vscode(machine: Machine) -> tuple[Place, ...]:
    folder = machine.config / "Code"
    return (Place(folder / "User" / "mcp.json", folder),)


def _windsurf(machine: Machine) -> tuple[Place, ...]:
    now = machine.dot_config / "devin"
    before = machine.home / ".codeium" / "windsurf"
    return (Place(now / "mcp_config.json", now), Place(before / "mcp_config.json", before))


def _zed(machine: Machine) -> tuple[Place, ...]:
    folder = machine.dot_config / ("Zed" if machine.platform == "win32" else "zed")
    return (Place(folder / "settings.json", folder),)


def _nowhere(_: Machine) -> tuple[Place, ...]:
    return ()


HOSTS = (
    Host(
        name="claude-desktop",
        title="Claude Desktop",
        places=_claude_desktop,
        is_strict=True,
        then="quit Claude Desktop fully and open it again",
    ),
    Host(
        name="claude-code",
        title="Claude Code",
        places=_claude_code,
        project=".mcp.json",
        reference="${NAME}",
        is_strict=True,
        then="start a new session; /mcp lists the server",
    ),
    Host(
        name="cursor",
        title="Cursor",
        places=_cursor,
        project=".cursor/mcp.json",
        reference="${env:NAME}",
        then="restart Cursor",
    ),
    Host(
        name="vscode",
        title="VS Code",
        places=_vscode,
        key="servers",
        project=".vscode/mcp.json",
        has_type=True,
        asks=True,
        aliases=("code", "visual-studio-code"),
        then="run `MCP: List Servers` in VS Code and start it",
    ),
    Host(
        name="windsurf",
        title="Windsurf",
        places=_windsurf,
        project=".devin/mcp_config.json",
        reference="${env:NAME}",
        aliases=("devin", "devin-desktop"),
        then="refresh the list of MCP servers in Windsurf",
    ),
    Host(
        name="zed",
        title="Zed",
        places=_zed,
        key="context_servers",
        then="Zed sees it at once; the agent panel's settings list the server",
    ),
    Host(
        name="generic",
        title="the host",
        places=_nowhere,
        aliases=("mcpservers", "mcp-servers", "file"),
        then="restart the program that reads the file",
    ),
)
"""the last one is whatever reads `mcpServers` from a file that `--file` names"""

NAMES = tuple(host.name for host in HOSTS)


def find_host(word: str) -> Host:
    """The host of this name, in any spelling of it. Raises InvalidRequest."""
    asked = _letters(word)
    for host in HOSTS:
        if asked in (_letters(host.name), *map(_letters, host.aliases)):
            return host
    spellings = {alias: host.name for host in HOSTS for alias in (host.name, *host.aliases)}
    meant = dict.fromkeys(spellings[found] for found in suggest(word, spellings))
    hint = f"did you mean {' or '.join(meant)}?" if meant else "any other: --file PATH"
    raise InvalidRequest("HOST", word, f"one of {', '.join(NAMES)}", hint=hint)


def _letters(word: str) -> str:
    return normalize(word).replace("-", "")


def find_files(host: Host, machine: Machine, *, file: str | None, project: bool) -> list[Path]:
    """The files that the host may read, the one to change first; none when it is not here.

    A file that exists goes before one that could. Raises InvalidRequest.
    """
    if file:
        return [machine.absolute(file)]
    if host.name == "generic":
        raise InvalidRequest("--file", None, "the path of a file with `mcpServers`")
    if project:
        return [machine.folder / _project_file(host)]
    places = host.places(machine)
    there = [place.file for place in places if place.file.is_file() or place.file.is_symlink()]
    could = [place.file for place in places if place.sign.is_dir() and place.file not in there]
    return there + could


def not_here(host: Host, machine: Machine) -> ConfigError:
    """What to say when no file was found."""
    signs = " or ".join(str(place.sign) for place in host.places(machine))
    return ConfigError(
        f"{host.title} seems not installed: there is no {signs}",
        hint=f"start {host.title} once, or name its file with --file PATH",
    )


def _project_file(host: Host) -> str:
    if not host.project:
        have = ", ".join(host.name for host in HOSTS if host.project)
        raise InvalidRequest("--project", host.name, f"one of {have}")
    return host.project
