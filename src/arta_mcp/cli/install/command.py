"""The `install` and `uninstall` commands: an entry for this server in a host's configuration."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from arta_mcp.cli.console import OK, print_data, print_message
from arta_mcp.cli.install.config_file import ConfigFile, describe_change, lock_files, prune_backups
from arta_mcp.cli.install.hosts import HOSTS, NAMES, NEXT_STEPS, Host, HostEnvironment, find_host
from arta_mcp.cli.install.server_entry import (
    ServerEntry,
    build_entry,
    find_bare_secrets,
    is_disabled,
    is_our_program,
    mask_entry,
)
from arta_mcp.cli.parser import Parser, Subparsers
from arta_mcp.cli.tables import count_of, print_table
from arta_mcp.config import without_settings
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
    host, name = _read_target(options, environment)
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
    path = paths[0]
    with lock_files([] if options.dry_run else [path]):
        # Read first, whatever writes it then: what is there decides, and --force is our word.
        config = ConfigFile.read(path, host)
        after = _plan_entry(config, name, entry, is_forced=options.force)
        if after is None:
            return OK
        _show_change(config, after, name)
        _warn(config, entry, options)
        for other in paths[1:]:
            print_message(f"note: {other} is another place for it; --file {other} writes there")
        _add_entry(config, after, name, entry, options=options, environment=environment)
    return OK


def uninstall(options: argparse.Namespace, environment: HostEnvironment | None = None) -> int:
    """Removes the entry from every file where the host may find it. Raises as `install` does."""
    environment = environment or HostEnvironment(options.environ)
    host, name = _read_target(options, environment)
    paths = environment.find_files(host, file=options.file, project=options.project)
    changes: list[tuple[ConfigFile, ConfigFile]] = []
    # By what they lead to: a link may make one file of two places.
    there = {os.path.realpath(path): path for path in paths if os.path.lexists(path)}.values()
    with lock_files([] if options.dry_run else there):
        # Every file is understood, and its change checked, before the first one is written.
        for path in there:
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
                continue
            backup = after.write(datetime.now(), is_private=False)
            _report_written(config, backup)
            for secret in find_bare_secrets(config.servers[name]):
                print_message(f"note: {backup} still holds {secret}, for your eyes only")
    return OK


def list_hosts(environment: HostEnvironment, name: str) -> None:
    """Prints each host, whether a server of this name is there, and where that stands."""
    rows: list[tuple[str, str, str]] = []
    for host in HOSTS[:-1]:  # all but the generic one, which has no place of its own
        files = environment.find_files(host)
        for path in files:
            state = "not installed"
            try:
                servers = ConfigFile.read(path, host).servers
                if name in servers:
                    state = "disabled" if is_disabled(servers[name]) else "installed"
            except ConfigError:
                state = "cannot be read"
            rows.append((host.name, state, str(path)))
        rows += [] if files else [(host.name, "not found", "")]
    print_table(("HOST", "STATE", "FILE"), rows)


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
            env=without_settings(environment.environ),
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


def _read_target(options: argparse.Namespace, environment: HostEnvironment) -> tuple[Host, str]:
    """The host and the server's name in it. Raises InvalidRequest, and lists the hosts for none."""
    if not options.host and not options.file:
        list_hosts(environment, options.name)
        # Not exit code 0: a script whose variable is empty has installed nothing.
        raise ConfigError("no host is named", hint=f"one of {', '.join(NAMES)}, or --file PATH")
    host = find_host(options.host or "generic")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", options.name):
        raise InvalidRequest("--name", options.name, "1 to 64 letters, digits, - and _")
    return host, options.name


def _plan_entry(
    config: ConfigFile, name: str, entry: ServerEntry, *, is_forced: bool
) -> ConfigFile | None:
    """The file as it is to be, None when it is so already. Raises ArtaError."""
    path, host, there = config.path, config.host, config.servers.get(name)
    differs = entry.difference_from(there)
    if differs and name in config.servers and not is_forced:
        hint = "--force replaces it, --name NAME adds one beside it"
        raise ConfigError(f"{path} has a different entry called {name!r}: {differs}", hint=hint)
    is_replaced = differs or (is_disabled(there) and is_forced)
    if not is_replaced:
        print_message(f"already there: {path} has this server as {name!r}")
        if is_disabled(there):
            print_message(f"warning: it is disabled there, so {host.title} does not start it")
            print_message(f"hint: enable it in {host.title}; --force writes it anew")
        if not config.has_mark:
            return None
    if config.extra_line:
        shown = mask_entry(entry.value)
        snippet = {host.key: {name: shown}} | ({"inputs": entry.inputs} if entry.inputs else {})
        print_data(json.dumps(snippet, ensure_ascii=False, indent=2))
        secrets = "" if shown == entry.value else "; your own values go in place of [redacted]"
        raise _leave_alone(config, f"paste what is shown into it by hand{secrets}")
    return config.with_entry(name, entry) if is_replaced else config


def _add_entry(
    config: ConfigFile,
    after: ConfigFile,
    name: str,
    entry: ServerEntry,
    *,
    options: argparse.Namespace,
    environment: HostEnvironment,
) -> None:
    # A command adds for the user alone, and what is there it may refuse or overwrite.
    by_file = options.file or options.project or name in config.servers or config.has_mark
    command = [] if by_file else find_add_command(config, name, entry, environment)
    if command:
        shown = shlex.join([Path(command[0]).name, *command[1:]])
        print_message(f"by its own command: {shown}")
    if options.dry_run:
        print_message("nothing was written (--dry-run)")
        return
    is_private = mask_entry(entry.value) != entry.value
    if command:
        _report_written(config, add_by_command(command, config, name, environment))
    else:
        # People's own clock names the backup, so it is not UTC.
        _report_written(config, after.write(datetime.now(), is_private=is_private))
    if is_private and os.name == "posix":
        print_message(f"note: {config.path} is yours alone now (mode 600): it may hold a secret")
    print_message(f"next: {NEXT_STEPS[config.host.name]}")


def _warn(config: ConfigFile, entry: ServerEntry, options: argparse.Namespace) -> None:
    path, host = config.path, config.host
    for key in config.find_misplaced():
        where = f"{host.title} reads {host.key} alone, and ours goes there"
        print_message(f"warning: {path} has servers under {key}; {where}")
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


def _report_written(config: ConfigFile, backup: Path | None) -> None:
    print_message(f"wrote {config.path}" + (f"; as it was: {backup}" if backup else ""))
    if removed := prune_backups(config.path):
        print_message(f"note: {count_of(removed, 'older backup')} removed; the newest three stay")


def _show_change(config: ConfigFile, after: ConfigFile, name: str) -> None:
    if config.has_mark:
        why = f"with one {config.host.title} may read no server at all"
        print_message(f"note: the byte order mark of {config.path} goes; {why}")
    for line in describe_change(config, after, name):
        print_data(line)
    if config.text.strip() and config.render(config.said) != config.text:
        print_message(f"note: {config.path} is laid out anew; it says what it said")
