"""A host's own command that adds a server: when it is used, and using it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from arta_mcp.cli.install.config_file import ConfigFile
from arta_mcp.cli.install.server_entry import ServerEntry
from arta_mcp.errors import ConfigError
from arta_mcp.redaction import sanitize

ADD_COMMANDS = {
    # Without a scope it would add to the project in the current folder.
    "claude-code": ("claude", "mcp", "add-json", "--scope", "user"),
    "vscode": ("code", "--add-mcp"),
}
"""host -> its command line that adds an entry for the user; the entry follows as JSON"""

COMMAND_TIMEOUT = 60.0
"""seconds; `claude` and `code` start a whole runtime, and a cold disk makes that slow"""


def find_add_command(
    config: ConfigFile, entry: ServerEntry, environ: Mapping[str, str]
) -> list[str] | None:
    """The command line that adds a new entry for the user; None: the file is the better way.

    A host that runs may write its file at any time, and knows then what it added itself.
    """
    # Everybody on the machine sees a command line (`ps`): what may be a secret goes by the file.
    if not entry.is_public:
        return None
    # `code` writes its file anew, in tabs and without comments: only one that it wrote itself loses
    # nothing (microsoft/vscode src/vs/platform/mcp/common/mcpResourceScannerService.ts). Questions
    # may be there already, so they go by the file, too.
    own_layout = json.dumps(config.said, ensure_ascii=False, indent="\t")
    is_vs_code = config.host.name == "vscode"
    if is_vs_code and (entry.inputs or config.text not in ("", own_layout)):
        return None
    program, *arguments = ADD_COMMANDS.get(config.host.name, ("",))
    value = {"type": "stdio"} | entry.value
    if is_vs_code:
        arguments.append(json.dumps({"name": entry.name} | value))
    else:
        arguments += [entry.name, json.dumps(value)]
    path = Path(shutil.which(program, path=environ.get("PATH", "")) or "")
    # Windows looks in the current folder first, where anybody may have put a `claude`; and it runs
    # a batch file through cmd.exe, which takes the quotes of our JSON for its own.
    if not path.is_absolute() or path.suffix.lower() in (".bat", ".cmd"):
        return None
    return [str(path), *arguments]


def add_by_command(
    command: list[str], config: ConfigFile, name: str, environ: Mapping[str, str]
) -> Path | None:
    """Runs what `find_add_command` gave and gives the path of the backup, if there was a file.

    Raises ConfigError: with the words of a command that failed, or when no entry of this name is
    in the file then.
    """
    path, backup = config.path, config.back_up(datetime.now())
    try:
        done = subprocess.run(  # noqa: S603  # no shell; the user's own program and our JSON
            command,
            env=dict(environ),
            # A question would wait for an answer that cannot come.
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        failure = f"gave no answer in {COMMAND_TIMEOUT:.0f} s"
    except OSError as exc:
        failure = f"cannot be run: {exc.strerror}"
    else:
        words = sanitize((done.stderr or done.stdout).decode("utf-8", "replace"))
        failure = f"ended with exit code {done.returncode}: {words}" if done.returncode else ""
    # A `code` of another edition, or one inside a container, writes somewhere else.
    if not failure and name not in ConfigFile.read(path, config.host).servers:
        failure = f"ended well, but {path} has no entry called {name!r}"
    if failure:
        hint = f"--file {path} writes the file without it"
        raise ConfigError(f"{Path(command[0]).name} {failure}", hint=hint)
    return backup
