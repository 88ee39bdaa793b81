"""The `install` and `uninstall` commands: an entry for this server in a host's configuration."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from arta_mcp.cli.console import OK, print_data, print_message
from arta_mcp.cli.install.config_file import ConfigFile, describe_change
from arta_mcp.cli.install.hosts import NAMES, NEXT_STEPS, Host, HostEnvironment, find_host
from arta_mcp.cli.install.server_entry import (
    ServerEntry,
    build_entry,
    find_bare_secrets,
    is_our_program,
    mask_entry,
)
from arta_mcp.cli.parser import Parser, Subparsers
from arta_mcp.errors import ArtaError, ConfigError, InvalidRequest
from arta_mcp.redaction import sanitize

COMMAND_TIMEOUT = 60.0
"""seconds; `claude` and `code` start a whole runtime, and a cold disk makes that slow"""


def add_install(commands: Subparsers) -> None:
    """Declares `install` and its options."""
    parser = _add_command(commands, install, "add this server to a host's configuration")
    for option, value, meaning in (
        ("--env", "NAME=VALUE", "a setting for the server; it lies in the file as plain text"),
        ("--ask", "NAME", "a setting that the host asks for and keeps (VS Code)"),
    ):
        parser.add_argument(option, action="append", default=[], metavar=value, help=meaning)
    parser.add_argument("--uvx", action="store_true", help="start it with uvx, not from here")
    parser.add_argument("--force", action="store_true", help="replace a different entry")


def add_uninstall(commands: Subparsers) -> None:
    """Declares `uninstall` and its options."""
    parser = _add_command(commands, uninstall, "remove this server from a host's configuration")
    parser.add_argument("--force", action="store_true", help="remove what is not this server, too")


def _add_command(commands: Subparsers, run: Callable[..., int], meaning: str) -> Parser:
    parser = commands.add_parser(run.__name__, help=meaning)
    parser.set_defaults(run_without_settings=run)
    parser.hides_values = True
    names = f"{', '.join(NAMES)}; generic needs --file"
    parser.add_argument("host", nargs="?", metavar="HOST", help=names)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--project", action="store_true", help="for the project in this folder only")
    where.add_argument("--file", metavar="PATH", help="this file, wherever the host keeps its own")
    called = "what the host calls the server; default arta"
    parser.add_argument("--name", default="arta", help=called)
    parser.add_argument("--dry-run", action="store_true", help="show the change, write nothing")
    return parser


def install(options: argparse.Namespace, environment: HostEnvironment | None = None) -> int:
    """Shows the change, then makes it; without `environment`, in that of this process.

    Raises ArtaError; then we have changed nothing.
    """
    environment = environment or HostEnvironment(options.environ)
    host, name = _read_target(options)
    start, is_uvx = environment.find_start_command(with_uvx=options.uvx)
    if is_uvx and not options.uvx:
        cache = "lies in uv's cache, which may be emptied"
        print_message(f"note: this arta-mcp {cache}; uvx is written")
    entry = build_entry(host, name, start, env=options.env, ask=options.ask)
    paths = environment.find_files(host, file=options.file, project=options.project)
    if not paths:
        folders = " or ".join(str(folder) for folder, _ in environment.find_locations(host))
        hint = f"start {host.title} once, or name its file with --file PATH"
        raise ConfigError(f"{host.title} seems not installed: there is no {folders}", hint=hint)
    # Read first, whatever writes it then: what is there decides, and --force is ours to ask for.
    path = paths[0]
    config = ConfigFile.read(path, host)
    differs = entry.difference_from(config.servers.get(name))
    if not differs:
        print_message(f"already there: {path} has this server as {name!r}")
        return OK
    if name in config.servers and not options.force:
        hint = "--force replaces it, --name NAME adds one beside it"
        raise ConfigError(f"{path} has a different entry called {name!r}: {differs}", hint=hint)
    if config.extra_line:
        shown = mask_entry(entry.value)
        snippet = {host.key: {name: shown}} | ({"inputs": entry.inputs} if entry.inputs else {})
        print_data(json.dumps(snippet, ensure_ascii=False, indent=2))
        secrets = "" if shown == entry.value else "; your own values go in place of [redacted]"
        raise _leave_alone(config, f"paste what is shown into it by hand{secrets}")
    after = config.with_entry(name, entry)
    _show_change(config, after, name)
    _warn(path, host, options, entry)
    for other in paths[1:]:
        print_message(f"note: {other} is another place for it; --file {other} writes there")
    # A command adds for the user alone, and what is there it may refuse or overwrite.
    is_new_for_user = not (options.file or options.project or name in config.servers)
    command = find_add_command(config, name, entry, environment) if is_new_for_user else []
    if command:
        print_message(f"by its own command: {shlex.join([Path(command[0]).name, *command[1:]])}")
    if options.dry_run:
        print_message("nothing was written (--dry-run)")
        return OK
    if command:
        backup = add_by_command(command, config, name, environment)
    else:
        # People's own clock names the backup, so it is not UTC.
        backup = after.write(datetime.now(), is_private=bool(find_bare_secrets(entry.value)))
    print_message(f"wrote {path}" + (f"; as it was: {backup}" if backup else ""))
    print_message(f"next: {NEXT_STEPS[host.name]}")
    return OK


def uninstall(options: argparse.Namespace, environment: HostEnvironment | None = None) -> int:
    """Removes the entry from every file where the host may find it. Raises as `install` does."""
    environment = environment or HostEnvironment(options.environ)
    host, name = _read_target(options)
    paths = environment.find_files(host, file=options.file, project=options.project)
    changes: list[tuple[ConfigFile, ConfigFile]] = []
    # Every file is understood, and its change checked, before the first one is written.
    for path in paths:
        config = ConfigFile.read(path, host)
        if name not in config.servers:
            continue
        if not options.force and not is_our_program(config.servers[name]):
            hint = "--force removes it all the same; --name NAME names ours"
            raise ConfigError(f"{path} has another program called {name!r}", hint=hint)
        if config.extra_line:
            raise _leave_alone(config, f"remove {name!r} from its {host.key} by hand")
        changes.append((config, config.with_entry(name, None)))
    if not changes:
        where = f" in {' or '.join(map(str, paths))}" if paths else ""
        print_message(f"nothing to remove: {host.title} has no server called {name!r}{where}")
    for config, after in changes:
        _show_change(config, after, name)
        if options.dry_run:
            print_message("nothing was written (--dry-run)")
        else:
            backup = after.write(datetime.now(), is_private=False)
            print_message(f"wrote {config.path}; as it was: {backup}")
    return OK


def find_add_command(
    config: ConfigFile, name: str, entry: ServerEntry, env: HostEnvironment
) -> list[str]:
    """The host's own command that adds a new entry for the user; [] where the file is better.

    A host that runs may write its file at any time, and knows then what it added itself.
    """
    # Every user of the machine sees a command line (`ps`): a possible secret goes by the file.
    if mask_entry(entry.value) != entry.value:
        return []
    # `code` writes its file anew, in tabs and without comments: only one that it wrote itself loses
    # nothing (microsoft/vscode src/vs/platform/mcp/common/mcpResourceScannerService.ts). Questions
    # may be there already, so they go by the file, too.
    own_layout = json.dumps(config.said, ensure_ascii=False, indent="\t")
    value = {"type": "stdio"} | entry.value
    match config.host.name:
        case "vscode" if not entry.inputs and config.text in ("", own_layout):
            command = ["code", "--add-mcp", json.dumps({"name": name} | value)]
        case "claude-code":
            # Without a scope it would add to the project in the current folder.
            command = ["claude", "mcp", "add-json", "--scope", "user", name, json.dumps(value)]
        case _:
            return []
    program = env.find_program(command[0])
    # Windows runs a batch file through cmd.exe, which takes the quotes of our JSON for its own.
    if not program or program.lower().endswith((".bat", ".cmd")):
        return []
    return [program, *command[1:]]


def add_by_command(
    command: list[str], config: ConfigFile, name: str, environment: HostEnvironment
) -> Path | None:
    """Runs what `find_add_command` gave and gives the path of the backup, if there was a file.

    Raises ConfigError: with the words of a command that failed, or when no entry of this name is
    in the file then.
    """
    path, backup = config.path, config.back_up(datetime.now())
    try:
        done = subprocess.run(  # noqa: S603  # no shell; the user's own program and our JSON
            command,
            env=dict(environment.environ),
            # A question would wait for an answer that cannot come.
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT,
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


def _read_target(options: argparse.Namespace) -> tuple[Host, str]:
    """The host and the server's name in it. Raises InvalidRequest."""
    if not options.host and not options.file:
        raise InvalidRequest("HOST", None, f"one of {', '.join(NAMES)}")
    host = find_host(options.host or "generic")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", options.name):
        raise InvalidRequest("--name", options.name, "1 to 64 letters, digits, - and _")
    return host, options.name


def _warn(path: Path, host: Host, options: argparse.Namespace, entry: ServerEntry) -> None:
    for name in find_bare_secrets(entry.value):
        shared = " and is shared with the project" if options.project else ""
        print_message(f"warning: {name} lies in {path} as plain text{shared}")
        if host.asks:
            print_message(f"hint: `--ask {name}` lets {host.title} ask for it and keep it safely")
        elif host.reference:
            option = f"--env '{name}={host.reference.replace('NAME', name)}'"
            print_message(f"hint: {option} takes it from {host.title}'s environment")
    if options.project:
        command = entry.value["command"]
        print_message(f"note: {command} is a path on this machine; others need their own")


def _leave_alone(config: ConfigFile, hint: str) -> ArtaError:
    # Written anew, the file would lose what its owner has noted in it.
    what = f"a comment or trailing comma in line {config.extra_line}"
    return ArtaError(f"{config.path} has {what}; it was left as it is", hint=hint)


def _show_change(config: ConfigFile, after: ConfigFile, name: str) -> None:
    for line in describe_change(config, after, name):
        print_data(line)
    if config.text.strip() and config.render(config.said) != config.text:
        print_message(f"note: {config.path} is laid out anew; it says what it said")
