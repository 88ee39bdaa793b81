"""What a host's configuration says, and the same text with our entry in it or out of it.

Plain JSON goes through `json`: order, indentation and line ends stay. JSON with comments is read
only: no package edits it here (jsonc-document wants Python 3.12, json-five takes the import name of
json5, jsonc-edit starts Node), and an editor of our own is hundreds of lines. No I/O happens here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

from arta_mcp.cli.install.config_file import ConfigFile
from arta_mcp.cli.install.hosts import Host
from arta_mcp.cli.install.server_entry import ServerEntry, mask_entry
from arta_mcp.errors import ConfigError
from arta_mcp.untrusted_json import is_object, list_or_empty

# Each takes a string whole first, so that nothing is found inside of one.
_STRING = r'"(?:[^"\\]|\\.)*+"'
_COMMENT = re.compile(_STRING + r"|(//[^\r\n]*+|/\*.*?\*/)", re.DOTALL)
_TRAILING_COMMA = re.compile(_STRING + r"|(,)(?=\s*+[}\]])", re.DOTALL)
_LIST_IN_LINE = re.compile(_STRING + r"|(\[[^\s\]\[{])")
_PLAIN_LIST = re.compile(_STRING + rf"|\[\s+((?:(?:{_STRING}|[\w.+-]+),?\s+)++)\]")

_KINDS = {"{": "an object", "[": "an array", '"': "a text", "n": "null", "t": "true", "f": "false"}
"""what a value is called, by the first character of its JSON"""


@dataclass(frozen=True, slots=True)
class ConfigText:
    """A host's configuration as it was read; an empty text says as much as `{}`."""

    path: Path
    host: Host
    text: str
    said: dict[str, object]
    extra_line: int | None
    """the first line with a comment or trailing comma: such a text is never written anew"""

    @classmethod
    def read(cls, file: ConfigFile, host: Host) -> ConfigText:
        """What a file says. Raises ConfigError when it cannot be understood."""
        return cls.parse(file.path, host, file.text)

    @classmethod
    def parse(cls, path: Path, host: Host, text: str) -> ConfigText:
        """The same for the text of the file at `path`."""
        # Blanked at equal length: an error names the line and column that people see.
        bare = re.sub(r"\A\ufeff", " ", text)
        plain = _TRAILING_COMMA.sub(_blank_out, _COMMENT.sub(_blank_out, bare))
        said: object = {}
        try:
            if plain.strip():
                said = json.loads(plain, object_pairs_hook=_refuse_twins)
                json.dumps(said, allow_nan=False)  # NaN, and 1e400, would come back as no JSON
        except (ValueError, RecursionError) as exc:
            reason = str(exc)
            if isinstance(exc, json.JSONDecodeError):
                reason = f"line {exc.lineno}, column {exc.colno}: {exc.msg.lower()}"
            raise ConfigError(
                f"{path} does not parse: {reason}", hint="correct it first; it was left as it is"
            ) from exc
        lines = zip(bare.split("\n"), plain.split("\n"), strict=True)
        extra_line = next((n for n, (line, kept) in enumerate(lines, 1) if line != kept), None)
        config = cls(path, host, text, said if is_object(said) else {}, extra_line)
        config._check_kind("the whole file", said, "an object")
        config._check_kind(host.key, config.said.get(host.key, {}), "an object")
        if host.asks:
            config._check_kind("inputs", config.said.get("inputs", []), "an array")
        return config

    def _check_kind(self, where: str, value: object, needed: str) -> None:
        kind = _KINDS.get(json.dumps(value)[0], "a number")
        if kind != needed:
            raise ConfigError(
                f"{self.path}: {where} is {kind}, not {needed}", hint="it was left as it is"
            )

    @property
    def servers(self) -> dict[str, object]:
        """The entries of all servers, by name."""
        servers = self.said.get(self.host.key)
        return servers if is_object(servers) else {}

    @property
    def questions(self) -> list[object]:
        """What the host asks for and entries refer to (`inputs`)."""
        return list_or_empty(self.said.get("inputs")) if self.host.asks else []

    def with_entry(self, entry: ServerEntry) -> ConfigText:
        """The same with the entry, in place of one of its name, and with its questions."""
        said = self.said | {self.host.key: self.servers | {entry.name: entry.value}}
        known = [_id_of(question) for question in self.questions]
        if new := [question for question in entry.inputs if question["id"] not in known]:
            said["inputs"] = [*self.questions, *new]
        return check_others_kept(self, self.render(said), entry.name)

    def without_entry(self, name: str) -> ConfigText:
        """The same without the entry of this name and the questions that only it asked."""
        servers = {key: entry for key, entry in self.servers.items() if key != name}
        said = self.said | {self.host.key: servers}
        if self.questions:
            asked = json.dumps(servers)
            said["inputs"] = [
                question
                for question in self.questions
                if f"${{input:{_id_of(question)}}}" in asked or not _is_of(name, question)
            ]
        return check_others_kept(self, self.render(said), name)

    def render(self, said: dict[str, object]) -> str:
        """`said` laid out as this text is; of what stands in one line, lists alone stay there."""
        indent = re.search(r"\n([ \t]+)\S", self.text)
        new = json.dumps(
            said,
            ensure_ascii=False,
            indent=indent[1] if indent else None if self.said else "  ",
            separators=(",", ":") if self.said and '": ' not in self.text else None,
        )
        if indent and any(found[1] for found in _LIST_IN_LINE.finditer(self.text)):
            new = _PLAIN_LIST.sub(_put_in_one_line, new)
        # Half a pair, as JavaScript cuts texts, is no character that UTF-8 could hold.
        new = re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", new)
        end = self.text[len(self.text.rstrip()) :] if self.said else "\n"
        bom = "\ufeff" if self.text.startswith("\ufeff") else ""
        return bom + new.replace("\n", "\r\n" if "\r\n" in self.text else "\n") + end

    def split(self, name: str) -> tuple[dict[str, object], dict[str, object]]:
        """Our entry, as it may be shown, and its questions, by key; and all the rest."""
        others = dict(self.servers)
        ours: dict[str, object] = {
            self.host.key: {name: mask_entry(others.pop(name))} if name in others else {},
            "inputs": [question for question in self.questions if _is_of(name, question)],
        }
        rest = self.said | {self.host.key: others}
        if self.host.asks:
            rest["inputs"] = [item for item in self.questions if not _is_of(name, item)]
        return ours, rest


def check_others_kept(before: ConfigText, text: str, name: str) -> ConfigText:
    """The new text, read again: apart from what is ours it must say what was said before.

    The last guard over people's files. Raises RuntimeError, and does not `assert`, because it must
    hold under `python -O` too.
    """
    after = ConfigText.parse(before.path, before.host, text)
    # Compared as texts: for Python `1 == True`, and two objects are equal in any order.
    if json.dumps(before.split(name)[1]) != json.dumps(after.split(name)[1]):
        raise RuntimeError(f"more than the entry of {name!r} would change; nothing was written")
    return after


def describe_change(before: ConfigText, after: ConfigText, name: str) -> list[str]:
    """A unified diff of our entry and its questions; no line of another server is shown.

    Who reads it may be an assistant that ran the command: other keys are none of its business.
    """
    (old, _), (new, _) = before.split(name), after.split(name)
    lines = [f"--- {before.path}", f"+++ {before.path}"]
    for key in old:
        texts = (json.dumps(part[key], ensure_ascii=False, indent=2) for part in (old, new))
        was, now = (text.splitlines()[1:-1] for text in texts)
        # Without line numbers, which would be those of the entry and not of the file.
        changes = [*unified_diff(was, now, n=len(was) + len(now), lineterm="")][3:]
        lines += [f"@@ {key} @@", *changes] if changes else []
    if len(lines) == 2:
        return [f"{before.path}: a value changes that is not shown here"]
    return ["".join(char if char.isprintable() else "\ufffd" for char in line) for line in lines]


def _id_of(question: object) -> object:
    return question.get("id") if is_object(question) else None


def _is_of(name: str, question: object) -> bool:
    return str(_id_of(question)).startswith(f"{name}-")


def _blank_out(found: re.Match[str]) -> str:
    return re.sub(r"[^\r\n]", " ", found[1]) if found[1] else found[0]


def _put_in_one_line(found: re.Match[str]) -> str:
    return "[" + re.sub(r",\n\s+", ", ", found[1]).strip() + "]" if found[1] else found[0]


def _refuse_twins(members: list[tuple[str, object]]) -> dict[str, object]:
    # Of two `json` would keep the last without a word, and a host perhaps the first.
    said: dict[str, object] = {}
    for key, value in members:
        if key in said:
            raise ValueError(f"the key {key!r} stands twice in one object")
        said[key] = value
    return said
