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

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from arta_mcp.errors import ConfigError, InvalidRequest
from arta_mcp.matching import normalize, suggest


@dataclass(frozen=True, slots=True)
class Host:
    """One program that starts MCP servers."""

    name: str
    title: str
    key: str = "mcpServers"
    """what the servers stand under"""
    project: str = ""
    """the file of one project, if it has any, seen from the project's folder"""
    reference: str = ""
    """how an entry refers to a variable of the host's environment"""
    asks: bool = False
    """it can ask for a value and keep it (`inputs`), and wants `"type": "stdio"`: VS Code"""


HOSTS = (
    Host("claude-desktop", "Claude Desktop"),
    Host("claude-code", "Claude Code", project=".mcp.json", reference="${NAME}"),
    Host("cursor", "Cursor", project=".cursor/mcp.json", reference="${env:NAME}"),
    Host("vscode", "VS Code", key="servers", project=".vscode/mcp.json", asks=True),
    Host("windsurf", "Windsurf", project=".devin/mcp_config.json", reference="${env:NAME}"),
    Host("zed", "Zed", key="context_servers"),
    # Whatever reads `mcpServers` from a file that `--file` names.
    Host("generic", "the host"),
)

ALIASES = {
    "vscode": ("code", "visual-studio-code"),
    "windsurf": ("devin", "devin-desktop"),
    "generic": ("mcpservers", "mcp-servers", "file"),
}

NEXT_STEPS = {
    "claude-desktop": "quit Claude Desktop fully and open it again",
    "claude-code": "start a new session; /mcp lists the server",
    "cursor": "restart Cursor",
    "vscode": "run `MCP: List Servers` in VS Code and start it",
    "windsurf": "refresh the list of MCP servers in Windsurf",
    "zed": "Zed sees it at once; the agent panel's settings list the server",
    "generic": "restart the program that reads the file",
}
"""what makes a host see the change"""

NAMES = tuple(host.name for host in HOSTS)


def find_host(word: str) -> Host:
    """The host of this name, in any spelling of it. Raises InvalidRequest."""
    spellings = {a: host for host in HOSTS for a in (host.name, *ALIASES.get(host.name, ()))}
    for alias, host in spellings.items():
        if normalize(alias).replace("-", "") == normalize(word).replace("-", ""):
            return host
    meant = dict.fromkeys(spellings[alias].name for alias in suggest(word, spellings))
    hint = f"did you mean {' or '.join(meant)}?" if meant else "any other: --file PATH"
    # `install ARTA_API_KEY=secret` comes here, too.
    shown = word if "=" not in word else "…"
    raise InvalidRequest("HOST", shown, f"one of {', '.join(NAMES)}", hint=hint)


@dataclass(frozen=True, slots=True)
class HostEnvironment:
    """What finding a host's file depends on; that of this process where nothing else is given."""

    environ: Mapping[str, str]
    platform: str = sys.platform
    program: str = sys.argv[0]
    """what this process was started as"""
    folder: Path = field(default_factory=Path.cwd)
    """the current one, absolute"""

    @property
    def home(self) -> Path:
        """The user's own folder. Raises ConfigError when nothing says which that is."""
        name = "USERPROFILE" if self.platform == "win32" else "HOME"
        try:
            return Path(self.environ[name]) if self.environ.get(name) else Path.home()
        except RuntimeError as exc:
            sentence = f"there is no home folder: {name} is not set, nor known for this user"
            raise ConfigError(sentence, hint=f"set {name}") from exc

    def folder_from(self, variable: str, default: Path) -> Path:
        """The absolute path that a variable holds, or the default."""
        value = Path(self.environ.get(variable, ""))
        return value if value.is_absolute() else default

    def absolute(self, path: str) -> Path:
        """A path as this process would read it; `~` is the home folder."""
        in_home = re.match(r"~($|[/\\])", path)
        return self.home / path[2:] if in_home else self.folder / path

    def find_locations(self, host: Host) -> list[tuple[Path, Path]]:
        """A folder that is there when the host is, and the user's file there; likeliest first."""
        home, on_windows = self.home, self.platform == "win32"
        # Where desktop programs keep their settings, and where those of Unix descent do.
        if on_windows:
            desktop = dotted = self.folder_from("APPDATA", home / "AppData" / "Roaming")
        elif self.platform == "darwin":
            desktop, dotted = home / "Library" / "Application Support", home / ".config"
        else:
            desktop = dotted = self.folder_from("XDG_CONFIG_HOME", home / ".config")
        claude, local = "claude_desktop_config.json", home / "AppData" / "Local"
        packages = self.folder_from("LOCALAPPDATA", local) / "Packages"
        found = sorted(packages.glob("Claude_*")) if on_windows else []
        packaged = [(folder, f"LocalCache/Roaming/Claude/{claude}") for folder in found]
        config_dir = self.environ.get("CLAUDE_CONFIG_DIR")
        chosen = self.absolute(config_dir) if config_dir else None
        windsurf = home / ".codeium" / "windsurf"
        locations = {
            # A packaged app never sees the plain folder, whatever an older one left there.
            "claude-desktop": packaged or [(desktop / "Claude", claude)],
            # Inside of a folder that was chosen, but beside the one that it has by default.
            "claude-code": [(chosen or home / ".claude", (chosen or home) / ".claude.json")],
            "cursor": [(home / ".cursor", "mcp.json")],
            "vscode": [(desktop / "Code", "User/mcp.json")],
            # Its name since June 2026, and the one before.
            "windsurf": [(dotted / "devin", "mcp_config.json"), (windsurf, "mcp_config.json")],
            "zed": [(dotted / ("Zed" if on_windows else "zed"), "settings.json")],
        }
        return [(folder, folder / file) for folder, file in locations.get(host.name, [])]

    def find_files(
        self, host: Host, *, file: str | None = None, project: bool = False
    ) -> list[Path]:
        """The files that the host may read, those that exist first; none when it is not here.

        Raises InvalidRequest.
        """
        if file:
            return [self.absolute(file)]
        if host.name == "generic":
            raise InvalidRequest("--file", None, "the path of a file with `mcpServers`")
        if project and not host.project:
            able = ", ".join(host.name for host in HOSTS if host.project)
            raise InvalidRequest("--project", host.name, f"one of {able}")
        if project:
            return [self.folder / host.project]
        # A link counts as a file wherever it leads: people keep their settings elsewhere.
        locations = self.find_locations(host)
        there = [file for _, file in locations if os.path.lexists(file)]
        return there + [file for folder, file in locations if file not in there and folder.is_dir()]

    def find_start_command(self, *, with_uvx: bool) -> tuple[list[str], bool]:
        """Absolute path and arguments, as hosts have a PATH of their own; and whether by uvx.

        A program in uv's cache will not last, so uvx takes its place. Raises ConfigError when it
        is not there.
        """
        program = self.absolute(self.program)
        # What `uvx` started lies in a folder of uv's cache, until that is emptied.
        in_cache = re.search(r"[/\\](archive|environments|builds)-v\d+[/\\]", str(program))
        if with_uvx or in_cache:
            if uvx := self.find_program("uvx"):
                return [uvx, "arta-mcp"], True
            raise ConfigError("uvx is not on PATH", hint="install uv, or leave out --uvx")
        # pip's script for Windows is `arta-mcp.exe`, and argv names it with or without the suffix.
        for path in (program, program.with_name(f"{program.name.removesuffix('.exe')}.exe")):
            if path.name.startswith("arta-mcp") and path.is_file():
                return [str(path)], False
        if found := self.find_program("arta-mcp"):
            return [found], False
        # Started as `python -m arta_mcp`, with no script: the interpreter finds the package. Hosts
        # start servers in folders that others fill: without -P a `json.py` there would be run.
        return [sys.executable, "-P", "-m", "arta_mcp"], False

    def find_program(self, name: str) -> str:
        """The absolute path of a program on PATH; "" when it is not there."""
        found = shutil.which(name, path=self.environ.get("PATH", "")) or ""
        # Windows searches the current folder first, where a stranger may have put a `claude`.
        return found if Path(found).is_absolute() else ""
