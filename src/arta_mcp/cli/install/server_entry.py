"""What is written for this server, told from other entries, and shown without secrets.

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

SECRETS = frozenset(setting.name for setting in SETTINGS if setting.secret)
PUBLIC = frozenset(setting.name for setting in SETTINGS) - SECRETS


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """What is written for one server: its value, and the questions (`inputs`) it refers to."""

    name: str
    value: dict[str, object]
    inputs: tuple[dict[str, object], ...] = ()

    @property
    def env(self) -> dict[str, str]:
        """The settings that the host gives to the server."""
        env = self.value.get("env")
        return {name: str(value) for name, value in env.items()} if is_object(env) else {}

    @property
    def is_public(self) -> bool:
        """Whether all of it may be seen by everybody."""
        return all(is_public_value(name, value) for name, value in self.env.items())

    @property
    def bare_secrets(self) -> list[str]:
        """The secret settings whose value itself is written, not a reference to it."""
        secrets = {name: value for name, value in self.env.items() if name in SECRETS}
        return [name for name, value in secrets.items() if value and "${" not in value]

    def difference_from(self, there: object) -> str:
        """How an entry differs, in words; what a host adds to one (`disabled`) does not count."""
        if not is_object(there):
            return "it is no object"
        # What hosts take a key for that is left out, and write when they save the entry anew.
        usual: dict[str, object] = {"type": "stdio", "args": [], "env": {}}
        for key in ("type", "command", "args", "env"):
            if there.get(key, usual.get(key)) != self.value.get(key, usual.get(key)):
                return f"its {key} differs" if key in there else f"it has no {key}"
        return ""


def is_public_value(name: str, value: object) -> bool:
    """Whether a value of `env` may be seen: a setting that is no secret, or a reference.

    What is no setting of ours may be anything, so it counts as a secret.
    """
    is_reference = re.fullmatch(r"\$\{[^{}]+\}", str(value))
    return isinstance(value, str) and (name in PUBLIC or bool(is_reference))


def is_our_program(entry: object) -> bool:
    """Whether an entry starts this server, however it was written."""
    if not is_object(entry):
        return False
    words = [str(entry.get("command", "")), *map(str, list_or_empty(entry.get("args")))]
    return any(re.search(r"(^|[/\\])arta[-_]mcp(\.exe)?($|[=@<>~!\[])", word) for word in words)


def mask_entry(entry: object) -> object:
    """The entry as it may be shown: ours without what `env` hides, of another's only the keys."""
    if not is_object(entry):
        return "…"
    if not is_our_program(entry):
        return {key: mask_entry(value) for key, value in entry.items()}
    if not is_object(env := entry.get("env", {})):
        return entry | {"env": "…"}
    shown = {
        name: value if is_public_value(name, value) else "[redacted]" for name, value in env.items()
    }
    return entry | ({"env": shown} if env else {})


def build_entry(
    host: Host, name: str, command: Sequence[str], *, env: Sequence[str], ask: Sequence[str]
) -> ServerEntry:
    """The entry for one host.

    `env` holds texts `NAME=VALUE`, `ask` the names that the host asks for. Raises InvalidRequest,
    and ConfigError for a value that the server would refuse.
    """
    variables = _parse_env(env)
    inputs: list[dict[str, object]] = []
    if ask and not host.asks:
        raise InvalidRequest("--ask", ask[0], "for VS Code; other hosts cannot ask")
    for variable in ask:
        _check_variable("--ask", variable)
        question = f"{name}-{variable.removeprefix(PREFIX).lower().replace('_', '-')}"
        variables[variable] = f"${{input:{question}}}"
        words = next((s.description for s in SETTINGS if s.name == variable), variable)
        hidden = variable in SECRETS
        inputs.append(
            {"type": "promptString", "id": question, "description": words, "password": hidden}
        )
    value: dict[str, object] = {"type": "stdio"} if host.asks else {}
    value |= {"command": command[0], "args": list(command[1:])}
    if variables:
        value["env"] = variables
    return ServerEntry(name, value, tuple(inputs))


def _parse_env(texts: Sequence[str]) -> dict[str, str]:
    env: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            # A text that is no name may be the secret itself.
            shown = text if re.fullmatch(r"[A-Z][A-Z0-9_]*", text) else "…"
            raise InvalidRequest("--env", shown, "NAME=VALUE")
        _check_variable("--env", name)
        setting = next((s for s in SETTINGS if s.name == name), None)
        if setting and value.strip() and "${" not in value:
            # Parsing makes it a Secret, and from here on it is redacted in all that is printed.
            setting.parse(name, value.strip())
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
