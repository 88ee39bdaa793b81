"""The `install` and `uninstall` commands: an entry for this server in a host's configuration."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from arta_mcp.cli import console
from arta_mcp.cli.install import jsonc
from arta_mcp.cli.install import jsonc_edit as splice
from arta_mcp.cli.install.config_file import HostFile
from arta_mcp.cli.install.diff import difference
from arta_mcp.cli.install.hosts import NAMES, Host, Machine, find_files, find_host, not_here
from arta_mcp.cli.parser import Parser, Subparsers
from arta_mcp.config import PREFIX, SETTINGS
from arta_mcp.errors import ConfigError, InvalidRequest
from arta_mcp.matching import suggest
from arta_mcp.untrusted_json import entries, is_object

DEFAULT_NAME = "arta"
SECRETS = frozenset(setting.name for setting in SETTINGS if setting.secret)

_PASSING = re.compile(r"[/\\](archive|environments|builds)-v\d+[/\\]")
"""a folder of uv's cache: what `uvx` started lies there until the cache is emptied"""


def add_install(words: Subparsers) -> None:
    parser = words.add_parser("install", help="add this server to a host's configuration")
    _add_place(parser)
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting for the server; it lies in the file as plain text",
    )
    parser.add_argument(
        "--ask",
        action="append",
        default=[],
        metavar="NAME",
        help="a setting that the host asks for and keeps (VS Code)",
    )
    parser.add_argument("--uvx", action="store_true", help="start it with uvx, not from here")
    parser.add_argument("--force", action="store_true", help="replace a different entry")
    parser.set_defaults(run_without_settings=run_install)


def add_uninstall(words: Subparsers) -> None:
    parser = words.add_parser("uninstall", help="remove this server from a host's configuration")
    _add_place(parser)
    parser.add_argument("--force", action="store_true", help="remove what is not this server, too")
    parser.set_defaults(run_without_settings=run_uninstall)


def _add_place(parser: Parser) -> None:
    parser.add_argument(
        "host", nargs="?", metavar="HOST", help=f"{', '.join(NAMES)}; generic needs --file"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--project", action="store_true", help="for the project in this folder only")
    where.add_argument("--file", metavar="PATH", help="this file, wherever the host keeps its own")
    parser.add_argument(
        "--name",
        default=DEFAULT_NAME,
        help=f"what the host calls the server; default {DEFAULT_NAME}",
    )
    parser.add_argument("--dry-run", action="store_true", help="show the change, write nothing")


def run_install(options: argparse.Namespace) -> int:
    return install(options, _here(options))


def run_uninstall(options: argparse.Namespace) -> int:
    return uninstall(options, _here(options))


def _here(options: argparse.Namespace) -> Machine:
    return Machine(
        environ=options.environ,
        platform=sys.platform,
        folder=Path.cwd(),
        program=sys.argv[0],
        python=sys.executable,
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """What is written for one server: its value, and the inputs that it refers to."""

    name: str
    value: dict[str, object]
    inputs: tuple[dict[str, object], ...]


def install(options: argparse.Namespace, machine: Machine) -> int:
    """Shows the change, then makes it. Raises ConfigError, InvalidRequest: nothing changed."""
    host = _host(options)
    entry = _entry(host, options, machine)
    paths = find_files(host, machine, file=options.file, project=options.project)
    if not paths:
        raise not_here(host, machine)
    file = HostFile.read(paths[0])
    with _left_alone(file.path):
        is_there = _is_there(file, host, entry, force=options.force)
        after = file.text if is_there else _with_entry(file.text, host, entry)
    if is_there:
        console.print_message(f"already there: {file.path} has this server as {entry.name!r}")
        return console.OK
    _check_others(file.text, after, host, entry.name)
    secret = [name for name, value in _env(entry.value).items() if _is_bare_secret(name, value)]
    _show(file, after, host, entry.name)
    _warn(file, host, options, entry, secret, paths[1:])
    if _write(file, after, options, is_private=bool(secret)):
        console.print_message(f"next: {host.then}")
    return console.OK


def uninstall(options: argparse.Namespace, machine: Machine) -> int:
    """Removes the entry from every file where the host may find it. Raises as `install` does."""
    host, name = _host(options), _name(options.name)
    paths = find_files(host, machine, file=options.file, project=options.project)
    files = [HostFile.read(path) for path in paths]
    changes: list[tuple[HostFile, str]] = []
    for file in files:
        with _left_alone(file.path):
            after = _without_entry(file, host, name, force=options.force)
        if after != file.text:
            _check_others(file.text, after, host, name)
            changes.append((file, after))
    if not changes:
        where = f" in {' or '.join(map(str, paths))}" if paths else ""
        console.print_message(
            f"nothing to remove: {host.title} has no server called {name!r}{where}"
        )
    for file, after in changes:
        _show(file, after, host, name)
        _write(file, after, options, is_private=False)
    return console.OK


def _host(options: argparse.Namespace) -> Host:
    if not options.host and not options.file:
        raise InvalidRequest("HOST", None, f"one of {', '.join(NAMES)}")
    return find_host(options.host or "generic")


def _name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise InvalidRequest("--name", name, "1 to 64 letters, digits, - and _")
    return name


def _entry(host: Host, options: argparse.Namespace, machine: Machine) -> Entry:
    name = _name(options.name)
    env = _given_env(options.env)
    inputs: list[dict[str, object]] = []
    if options.ask and not host.asks:
        raise InvalidRequest("--ask", options.ask[0], "for VS Code; other hosts cannot ask")
    for asked in options.ask:
        _check_variable("--ask", asked)
        identity = f"{name}-{asked.removeprefix(PREFIX).lower().replace('_', '-')}"
        env[asked] = f"${{input:{identity}}}"
        words = next((s.description for s in SETTINGS if s.name == asked), asked)
        secret = asked in SECRETS
        inputs.append(
            {"type": "promptString", "id": identity, "description": words, "password": secret}
        )
    command, arguments = _command(machine, with_uvx=options.uvx)
    value: dict[str, object] = {"type": "stdio"} if host.has_type else {}
    value |= {"command": command, "args": arguments}
    if env:
        value["env"] = env
    return Entry(name, value, tuple(inputs))


def _given_env(given: Sequence[str]) -> dict[str, str]:
    env: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:  # a text that is no name may be the secret itself
            shown = text if re.fullmatch(r"[A-Z][A-Z0-9_]*", text) else "…"
            raise InvalidRequest("--env", shown, "NAME=VALUE")
        _check_variable("--env", name)
        setting = next((s for s in SETTINGS if s.name == name), None)
        if setting and value.strip() and "${" not in value:
            setting.parse(name, value.strip())  # raises ConfigError; a secret is redacted from here
        if not value.isprintable():
            raise InvalidRequest("--env", name, "a name with a value of printable characters")
        env[name] = value
    return env


def _check_variable(option: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise InvalidRequest(option, name, "the name of an environment variable")
    names = [setting.name for setting in SETTINGS]
    if name.startswith(PREFIX) and name not in names:
        meant = suggest(name, names, limit=1)
        hint = f"did you mean {meant[0]}?" if meant else "the README lists the settings"
        raise InvalidRequest(option, name, "a setting of arta-mcp", hint=hint)


def _command(machine: Machine, *, with_uvx: bool) -> tuple[str, list[str]]:
    """An absolute path and arguments: hosts start servers with a PATH of their own."""
    search = machine.environ.get("PATH", "")
    program = machine.absolute(machine.program)
    if not with_uvx and _PASSING.search(str(program)):
        console.print_message(
            "note: this arta-mcp lies in uv's cache, which may be emptied; uvx is written"
        )
        with_uvx = True
    if with_uvx:
        uvx = shutil.which("uvx", path=search)
        if uvx is None:
            raise ConfigError("uvx is not on PATH", hint="install uv, or leave out --uvx")
        return str(machine.absolute(uvx)), ["arta-mcp"]
    script = program.with_name(f"{program.name.removesuffix('.exe')}.exe")
    for path in (program, script):
        if path.name.startswith("arta-mcp") and path.is_file():
            return str(path), []
    if found := shutil.which("arta-mcp", path=search):
        return str(machine.absolute(found)), []
    return machine.python, ["-m", "arta_mcp"]


def _is_there(file: HostFile, host: Host, entry: Entry, *, force: bool) -> bool:
    """Whether the file has this entry already. Raises ConfigError when it has another one."""
    there = _entry_in(file.text, host, entry.name)
    if there is None:
        return False
    differs = _difference(there.data(), entry.value)
    if not differs:
        return True
    if not force:
        raise ConfigError(
            f"{file.path} has a different entry called {entry.name!r}: {differs}",
            hint="--force replaces it, --name NAME adds one beside it",
        )
    return False


def _difference(there: object, wanted: dict[str, object]) -> str:
    """What differs, in words; what only the host keeps in an entry (`disabled`) does not count."""
    if not is_object(there):
        return "it is no object"
    usual: dict[str, object] = {"type": "stdio", "args": [], "env": {}}
    for key in ("type", "command", "args", "env"):
        before, after = there.get(key, usual.get(key)), wanted.get(key, usual.get(key))
        if before != after:
            return f"its {key} differs" if key in there else f"it has no {key}"
    return ""


def _entry_in(text: str, host: Host, name: str) -> jsonc.Node | None:
    document = jsonc.parse(text)
    for path in ((), (host.key,)):
        node = document.at(path)
        if node is not None and node.kind != "object":
            raise jsonc.WrongKind(path, node.described(), "an object")
    return document.at((host.key, name))


def _with_entry(text: str, host: Host, entry: Entry) -> str:
    known = [item.get("id") for item in _inputs(text)]
    for new in entry.inputs:
        if new["id"] not in known:
            text = splice.append_in(text, ("inputs",), new)
    return splice.set_in(text, (host.key, entry.name), entry.value)


def _without_entry(file: HostFile, host: Host, name: str, *, force: bool) -> str:
    text = file.text
    there = _entry_in(text, host, name)
    if there is None:
        return text
    if not force and not _is_ours(there.data()):
        raise ConfigError(
            f"{file.path} has another program called {name!r}",
            hint="--force removes it all the same; --name NAME names ours",
        )
    text = splice.delete_in(text, (host.key, name))
    for reference in set(re.findall(r"\$\{input:([^}]+)\}", " ".join(_env(there.data()).values()))):
        if reference.startswith(f"{name}-") and f"${{input:{reference}}}" not in text:
            for index in reversed(range(len(_inputs(text)))):
                if _inputs(text)[index].get("id") == reference:
                    text = splice.delete_item(text, ("inputs",), index)
    return text


def _inputs(text: str) -> list[dict[str, object]]:
    node = jsonc.parse(text).at(("inputs",))
    return [item if is_object(item) else {} for item in entries(node.data() if node else None)]


def _is_ours(there: object) -> bool:
    """Whether an entry starts this server, however it was written."""
    if not is_object(there):
        return False
    words = [str(there.get("command", "")), *map(str, entries(there.get("args")))]
    return any(re.search(r"(^|[/\\])arta[-_]mcp(\.exe)?($|[=@<>~!\[])", word) for word in words)


def _env(there: object) -> dict[str, str]:
    env = there.get("env") if is_object(there) else None
    return {name: str(value) for name, value in env.items()} if is_object(env) else {}


def _is_bare_secret(name: str, value: str) -> bool:
    return name in SECRETS and bool(value) and "${" not in value


def _check_others(before: str, after: str, host: Host, name: str) -> None:
    """Reads the result again: apart from our entry it must say what it said."""

    def others(text: str) -> object:
        root = jsonc.parse(text).root
        said = root.data() if root else dict[str, object]()
        assert is_object(said), "it was an object before"
        servers = said.pop(host.key, dict[str, object]())
        ours = [item for item in _inputs(text) if not str(item.get("id")).startswith(f"{name}-")]
        said.pop("inputs", None)
        assert is_object(servers), "it was an object before"
        return said, {key: servers[key] for key in servers if key != name}, ours

    assert others(before) == others(after), "an edit must not change anything else"


def _show(file: HostFile, after: str, host: Host, name: str) -> None:
    public = {setting.name for setting in SETTINGS if not setting.secret}
    for line in difference(file.text, after, str(file.path), (host.key, name), public, _is_ours):
        console.print_data(line)


def _warn(
    file: HostFile,
    host: Host,
    options: argparse.Namespace,
    entry: Entry,
    secret: Sequence[str],
    others: Sequence[Path],
) -> None:
    for name in secret:
        shared = " and is shared with the project" if options.project else ""
        console.print_message(f"warning: {name} lies in {file.path} as plain text{shared}")
        if host.asks:
            console.print_message(
                f"hint: `--ask {name}` lets {host.title} ask for it and keep it safely"
            )
        elif host.reference:
            reference = host.reference.replace("NAME", name)
            console.print_message(
                f"hint: --env '{name}={reference}' takes it from {host.title}'s environment"
            )
    if options.project:
        console.print_message(
            f"note: {entry.value['command']} is a path on this machine; others need their own"
        )
    if host.is_strict and (extras := jsonc.parse(file.text).extras):
        line, _ = jsonc.position(file.text, extras[0])
        console.print_message(
            f"warning: {host.title} reads plain JSON; a comment or trailing comma in line {line}"
            " may keep it from reading this file"
        )
    for other in others:
        console.print_message(f"note: {other} is another place for it; --file {other} writes there")


def _write(file: HostFile, after: str, options: argparse.Namespace, *, is_private: bool) -> bool:
    """Whether it was written; tells either way."""
    if options.dry_run:
        console.print_message("nothing was written (--dry-run)")
        return False
    now = datetime.now()  # by people's own clock: it names the backup
    backup = file.replace(after, now=now, is_private=is_private)
    console.print_message(f"wrote {file.path}" + (f"; as it was: {backup}" if backup else ""))
    return True


@contextmanager
def _left_alone(path: Path) -> Generator[None]:
    """Says where a file cannot be understood; nothing was written by then."""
    try:
        yield
    except jsonc.NotJson as exc:
        raise ConfigError(
            f"{path} does not parse: {exc}", hint="correct it first; it was left as it is"
        ) from exc
    except jsonc.WrongKind as exc:
        raise ConfigError(f"{path}: {exc}", hint="it was left as it is") from exc
