"""What is written for this server, how it differs from what is there, shown without secrets.

No I/O happens here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from arta_mcp.cli.install.hosts import Host
from arta_mcp.config import PREFIX, SETTINGS
from arta_mcp.errors import ConfigError, InvalidRequest
from arta_mcp.matching import suggest
from arta_mcp.untrusted_json import is_object, list_or_empty

_SETTINGS = {setting.name: setting for setting in SETTINGS}
_REFERENCE = re.compile(r"\$\{((env|input):)?[\w-]+\}")
"""what a host fills in; `${NAME:-default}` is none of these: the default may be the secret"""

_OWN_ARGUMENTS = re.compile(r"-[Pm]|arta[-_]mcp([=@<>~!]=?[\w.*]+)?")
_ASSIGNMENT = re.compile(r"[\w-]+=|.*://")
"""the beginning of what is more than a path: `NAME=value`, `--option=value`, an address"""


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """What is written for one server: its value, and the questions (`inputs`) it refers to."""

    value: dict[str, object]
    inputs: tuple[dict[str, object], ...] = ()

    def difference_from(self, there: object) -> str:
        """How an entry differs, in words; what a host adds to one (`disabled`) does not count."""
        if not is_object(there):
            return "it is no object"
        # What hosts take a key for that is left out, and write when they save the entry anew.
        usual: dict[str, object] = {"type": "stdio", "command": None, "args": [], "env": {}}
        for key, value in usual.items():
            if there.get(key, value) != self.value.get(key, value):
                return f"its {key} differs" if key in there else f"it has no {key}"
        return ""


def find_bare_secrets(entry: object) -> list[str]:
    """The secret settings whose value itself stands in an entry, not a reference to it."""
    env = entry.get("env") if is_object(entry) else None
    given = env.items() if is_object(env) else ()
    secret = [(k, str(v)) for k, v in given if k in _SETTINGS and _SETTINGS[k].secret and v]
    return [name for name, value in secret if not _REFERENCE.fullmatch(value)]


def is_disabled(entry: object) -> bool:
    """Whether an entry says that the host is not to start its server."""
    return is_object(entry) and (entry.get("disabled") is True or entry.get("enabled") is False)


def is_our_program(entry: object) -> bool:
    """Whether an entry starts this server, however it was written."""
    if not is_object(entry):
        return False
    words = [str(entry.get("command", "")), *map(str, list_or_empty(entry.get("args")))]
    # Windows takes the suffix in any case, and `shutil.which` gives it in capitals.
    return any(
        re.search(r"(^|[/\\])arta[-_]mcp(\.(?i:exe))?($|[=@<>~!\[])", word) for word in words
    )


def mask_entry(entry: object) -> object:
    """The entry as it may be shown: of ours what `build_entry` may have written and is no secret.

    Of what people have added to it, and of another program's, only the keys.
    """
    if not is_object(entry):
        return "…"
    shown: dict[str, object] = {key: mask_entry(value) for key, value in entry.items()}
    if not is_our_program(entry):
        return shown
    command, args, env = (entry.get(key) for key in ("command", "args", "env"))
    if entry.get("type") == "stdio":
        shown["type"] = "stdio"
    if isinstance(command, str) and not _ASSIGNMENT.match(command):
        shown["command"] = command
    if "args" in entry:
        shown["args"] = [
            word if _OWN_ARGUMENTS.fullmatch(str(word)) else "…" for word in list_or_empty(args)
        ]
    if is_object(env):
        shown["env"] = {k: v if _is_public(k, v) else "[redacted]" for k, v in env.items()}
    return shown


def build_entry(
    host: Host, name: str, command: Sequence[str], *, env: Sequence[str], ask: Sequence[str]
) -> ServerEntry:
    """The entry for one host.

    `env` holds texts `NAME=VALUE`, `ask` the names that the host asks for. Raises InvalidRequest,
    and ConfigError for a value that the server would refuse.
    """
    variables: dict[str, str] = {}
    for text in env:
        variable, equals, value = text.partition("=")
        if not equals:
            # A text that is no name of ours may be the secret itself.
            raise InvalidRequest("--env", text if text in _SETTINGS else "…", "NAME=VALUE")
        _check_variable("--env", variable)
        if variable in _SETTINGS and value.strip() and "${" not in value:
            # Parsing makes it a Secret, and from here on it is redacted in all that is printed.
            _SETTINGS[variable].parse(variable, value.strip())
        if not value.isprintable():
            raise InvalidRequest("--env", variable, "a name with a value of printable characters")
        variables[variable] = value
    inputs: list[dict[str, object]] = []
    for variable in ask:
        _check_variable("--ask", variable)
        if not host.asks:
            raise InvalidRequest("--ask", variable, "for VS Code; other hosts cannot ask")
        question = f"{name}-{variable.removeprefix(PREFIX).lower().replace('_', '-')}"
        variables[variable] = f"${{input:{question}}}"
        setting = _SETTINGS.get(variable)
        words, is_secret = (setting.description, setting.secret) if setting else (variable, False)
        more = {"description": words, "password": is_secret}
        inputs.append({"type": "promptString", "id": question, **more})
    entry: dict[str, object] = {"type": "stdio"} if host.asks else {}
    entry |= {"command": command[0], "args": list(command[1:])}
    if variables:
        entry["env"] = variables
    return ServerEntry(entry, tuple(inputs))


def _is_public(name: str, value: object) -> bool:
    setting = _SETTINGS.get(name)
    if not isinstance(value, str):
        return False
    if not value or _REFERENCE.fullmatch(value):
        return True
    # What is no setting of ours may be anything, so it counts as a secret; and so does what the
    # setting would refuse, as it does a password in an address.
    if setting and not setting.secret:
        with suppress(ConfigError):
            setting.parse(name, value)
            return True
    return False


def _check_variable(option: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        # Not quoted: `--ask NAME=secret`, or the secret alone, has come here, too.
        raise InvalidRequest(option, "…", "the name of an environment variable")
    if name.startswith(PREFIX) and name not in _SETTINGS:
        meant = suggest(name, _SETTINGS, limit=1)
        hint = f"did you mean {meant[0]}?" if meant else "the README lists the settings"
        raise InvalidRequest(option, name, "a setting of arta-mcp", hint=hint)
