"""What is written for this server, how it differs from what is there, shown without secrets.

No I/O happens here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from arta_mcp.cli.install.hosts import Host
from arta_mcp.config import PREFIX, SETTINGS
from arta_mcp.errors import InvalidRequest
from arta_mcp.matching import suggest
from arta_mcp.untrusted_json import is_object, list_or_empty

_SETTINGS = {setting.name: setting for setting in SETTINGS}
_SECRETS = [setting.name for setting in SETTINGS if setting.secret]


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """What is written for one server: its value, and the questions (`inputs`) it refers to."""

    value: dict[str, object]
    inputs: tuple[dict[str, object], ...] = ()

    @property
    def bare_secrets(self) -> list[str]:
        """The secret settings whose value itself is written, not a reference to it."""
        env = self.value.get("env")
        given = env.items() if is_object(env) else ()
        return [k for k, v in given if k in _SECRETS and v and "${" not in str(v)]

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
    """The entry as it may be shown: ours without what `env` hides, of another's only the keys."""
    if not is_object(entry):
        return "…"
    if not is_our_program(entry):
        return {key: mask_entry(value) for key, value in entry.items()}
    if not is_object(env := entry.get("env", {})):
        return entry | {"env": "…"}
    shown: dict[str, object] = {}
    for name, value in env.items():
        # What is no setting of ours may be anything, so it counts as a secret.
        is_public = name in _SETTINGS and name not in _SECRETS
        is_reference = re.fullmatch(r"\$\{[^{}]+\}", str(value))
        may_show = isinstance(value, str) and (is_public or is_reference)
        shown[name] = value if may_show else "[redacted]"
    return entry | ({"env": shown} if env else {})


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
            # A text that is no name may be the secret itself.
            shown = text if re.fullmatch(r"[A-Z][A-Z0-9_]*", text) else "…"
            raise InvalidRequest("--env", shown, "NAME=VALUE")
        _check_variable("--env", variable)
        if variable in _SETTINGS and value.strip() and "${" not in value:
            # Parsing makes it a Secret, and from here on it is redacted in all that is printed.
            _SETTINGS[variable].parse(variable, value.strip())
        if not value.isprintable():
            raise InvalidRequest("--env", variable, "a name with a value of printable characters")
        variables[variable] = value
    if ask and not host.asks:
        raise InvalidRequest("--ask", ask[0], "for VS Code; other hosts cannot ask")
    inputs: list[dict[str, object]] = []
    for variable in ask:
        _check_variable("--ask", variable)
        question = f"{name}-{variable.removeprefix(PREFIX).lower().replace('_', '-')}"
        variables[variable] = f"${{input:{question}}}"
        words = _SETTINGS[variable].description if variable in _SETTINGS else variable
        more = {"description": words, "password": variable in _SECRETS}
        inputs.append({"type": "promptString", "id": question, **more})
    entry: dict[str, object] = {"type": "stdio"} if host.asks else {}
    entry |= {"command": command[0], "args": list(command[1:])}
    if variables:
        entry["env"] = variables
    return ServerEntry(entry, tuple(inputs))


def _check_variable(option: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise InvalidRequest(option, name, "the name of an environment variable")
    if name.startswith(PREFIX) and name not in _SETTINGS:
        meant = suggest(name, _SETTINGS, limit=1)
        hint = f"did you mean {meant[0]}?" if meant else "the README lists the settings"
        raise InvalidRequest(option, name, "a setting of arta-mcp", hint=hint)
