"""A host's configuration file: what it says, the same with our entry in it or out of it, on disk.

Plain JSON goes through `json`: order, indentation and line ends stay. JSON with comments is read
only: no package edits it here (jsonc-document wants Python 3.12, json-five takes the import name of
json5, jsonc-edit starts Node), and an editor of our own is hundreds of lines.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from difflib import unified_diff
from pathlib import Path

from arta_mcp.cli.install.hosts import Host
from arta_mcp.cli.install.server_entry import ServerEntry, mask_entry
from arta_mcp.errors import ConfigError
from arta_mcp.files import lock_folder, write_atomically, write_new
from arta_mcp.untrusted_json import is_object, list_or_empty

# Each takes a string whole first, so that nothing is found inside of one.
_STRING = r'"(?:[^"\\]|\\.)*+"'
_COMMENT = r"//[^\r\n]*+|/\*.*?\*/"
_EXTRA = re.compile(rf"{_STRING}|({_COMMENT}|,(?=(?:\s|{_COMMENT})*+[}}\]]))", re.DOTALL)
"""a comment or a trailing comma, where group 1 matches"""
_LIST_IN_LINE = re.compile(_STRING + r"|(\[[^\s\]\[{])")
_PLAIN_LIST = re.compile(_STRING + rf"|\[\s+((?:(?:{_STRING}|[\w.+-]+),?\s+)++)\]")

LOCK_TIMEOUT = 120.0
"""seconds; who has the lock may be waiting for `claude`, which takes up to 60"""

MAX_BACKUPS = 3
"""of one file; each may hold a key that has long been replaced"""

_KINDS = {"{": "an object", "[": "an array", '"': "a text", "n": "null", "t": "true", "f": "false"}
"""what a value is called, by the first character of its JSON"""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration: what its file held when it was read, and what it says or is to say."""

    path: Path
    """as people know it"""
    host: Host
    target: Path
    """the path with links followed: what is replaced"""
    content: bytes | None
    """what the file held; None when there was none"""
    text: str = ""
    """an empty one says as much as `{}`"""
    said: dict[str, object] = field(default_factory=dict[str, object])
    extra_line: int | None = None
    """the first line with a comment or trailing comma: such a text is never written anew"""

    @classmethod
    def read(cls, path: Path, host: Host) -> ConfigFile:
        """Raises ConfigError when the file cannot be read or understood."""
        with _name_file_in_errors(path, "cannot be read"):
            target = path.resolve()
            # What `resolve` gives up on, from Python 3.13 without a word.
            if target.is_symlink():
                raise ConfigError(f"{path} is a link that leads in a circle")
            content = _read_file(target)
        try:
            text = (content or b"").decode("utf-8-sig")  # a mark is no part of what it says
            return cls(path, host, target, content).with_text(text)
        except UnicodeDecodeError as exc:
            line = exc.object.count(b"\n", 0, exc.start) + 1
            sentence = f"{path} is not UTF-8: line {line} holds byte 0x{exc.object[exc.start]:02x}"
            raise ConfigError(sentence, hint="save it as UTF-8; it was left as it is") from exc

    def with_text(self, text: str) -> ConfigFile:
        """The same where it says `text`. Raises ConfigError when that cannot be understood."""
        # Blanked at equal length: an error names the line and column that people see.
        plain = _EXTRA.sub(lambda m: re.sub(r"[^\r\n]", " ", m[1]) if m[1] else m[0], text)
        said: object = {}
        try:
            if plain.strip():
                said = json.loads(plain, object_pairs_hook=_refuse_repeated_keys)
                json.dumps(said, allow_nan=False)  # NaN, and 1e400, would come back as no JSON
        except (ValueError, RecursionError) as exc:
            reason = str(exc)
            if isinstance(exc, json.JSONDecodeError):
                reason = f"line {exc.lineno}, column {exc.colno}: {exc.msg.lower()}"
            hint = "correct it first; it was left as it is"
            raise ConfigError(f"{self.path} does not parse: {reason}", hint=hint) from exc
        members = said if is_object(said) else {}
        key = self.host.key
        parts = [("the whole file", said, "an object"), (key, members.get(key, {}), "an object")]
        parts += [("inputs", members.get("inputs", []), "an array")] if self.host.asks else []
        for where, value, needed in parts:
            kind = _KINDS.get(json.dumps(value)[0], "a number")
            if kind != needed:
                sentence = f"{self.path}: {where} is {kind}, not {needed}"
                raise ConfigError(sentence, hint="it was left as it is")
        at = next((found.start() for found in _EXTRA.finditer(text) if found[1]), None)
        extra_line = None if at is None else text.count("\n", 0, at) + 1
        return replace(self, text=text, said=members, extra_line=extra_line)

    @property
    def has_mark(self) -> bool:
        """Whether the file began with a byte order mark, which is no part of its text."""
        return (self.content or b"").startswith(codecs.BOM_UTF8)

    @property
    def servers(self) -> dict[str, object]:
        """The entries of all servers, by name."""
        servers = self.said.get(self.host.key)
        return servers if is_object(servers) else {}

    @property
    def questions(self) -> list[object]:
        """What the host asks for and entries refer to (`inputs`)."""
        return list_or_empty(self.said.get("inputs")) if self.host.asks else []

    def find_misplaced(self) -> list[str]:
        """Keys under which servers stand that this host does not read: of another, or of old."""
        old = self.said.get("mcp")
        shapes = {key: self.said.get(key) for key in ("mcpServers", "servers", "context_servers")}
        shapes["mcp.servers"] = old.get("servers") if is_object(old) else None
        return [
            k for k, found in shapes.items() if k != self.host.key and found and is_object(found)
        ]

    def with_entry(self, name: str, entry: ServerEntry | None) -> ConfigFile:
        """The same with this entry of the name, or with none, and the questions asked then."""
        servers = {k: value for k, value in self.servers.items() if entry or k != name}
        servers |= {name: entry.value} if entry else {}
        said, asked = self.said | {self.host.key: servers}, json.dumps(servers)
        known = [_id_of(one) for one in self.questions]
        new = [one for one in entry.inputs if one["id"] not in known] if entry else []
        if questions := [*self.questions, *new]:
            said["inputs"] = [
                one
                for one in questions
                if f"${{input:{_id_of(one)}}}" in asked or not _is_of(name, one)
            ]
        return check_others_kept(self, self.render(said), name)

    def render(self, said: dict[str, object]) -> str:
        """`said` laid out as this text is; of what stands in one line, lists alone stay there."""
        found = re.search(r"\n([ \t]+)\S", self.text)
        indent = found[1] if found else None if self.said else "  "
        compact = (",", ":") if self.said and '": ' not in self.text else None
        new = json.dumps(said, ensure_ascii=False, indent=indent, separators=compact)
        if found and any(one[1] for one in _LIST_IN_LINE.finditer(self.text)):
            # What `indent` has laid out in lines, back in one.
            new = _PLAIN_LIST.sub(
                lambda m: "[" + re.sub(r",\n\s+", ", ", m[1]).strip() + "]" if m[1] else m[0], new
            )
        # Half a pair, as JavaScript cuts texts, is no character that UTF-8 could hold.
        new = re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", new)
        end = self.text[len(self.text.rstrip()) :] if self.said else "\n"
        return new.replace("\n", "\r\n" if "\r\n" in self.text else "\n") + end

    def split(self, name: str) -> tuple[dict[str, object], dict[str, object]]:
        """Our entry, as it may be shown, and its questions, by key; and all the rest."""
        others = dict(self.servers)
        ours: dict[str, object] = {
            self.host.key: {name: mask_entry(others.pop(name))} if name in others else {},
            "inputs": [_mask_question(one) for one in self.questions if _is_of(name, one)],
        }
        rest = self.said | {self.host.key: others}
        if self.host.asks:
            rest["inputs"] = [item for item in self.questions if not _is_of(name, item)]
        return ours, rest

    def write(self, now: datetime, *, is_private: bool) -> Path | None:
        """Writes `text` and gives the path of the backup, None for a new file.

        The file is its owner's alone when `is_private`; else one that was there keeps its mode.
        Raises ConfigError; then we have changed nothing, or another program has at once.
        """
        with _name_file_in_errors(self.path, "cannot be written"):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            if self.content is not None:
                mode = stat.S_IMODE(self.target.stat().st_mode)
                # Replacing asks the folder, not the file, and root is never refused.
                if not mode & 0o222 or not os.access(self.target, os.W_OK):
                    hint = "change it where it is made"
                    raise ConfigError(f"{self.path} is read-only", hint=hint)
            else:
                # The one way to read the umask is to set it; no other thread makes files here.
                umask = os.umask(0o077)
                os.umask(umask)
                mode = 0o666 & ~umask
            mode = 0o600 if is_private else mode
            backup = self.back_up(now)
            try:
                # A host that runs may write its file at any time, and its words would be lost.
                self._check_content(self.content)
                write_atomically(self.target, self.text.encode(), mode=mode)
            except BaseException:
                if backup:
                    backup.unlink(missing_ok=True)
                raise
            self._check_content(self.text.encode())
        return backup

    def _check_content(self, content: bytes | None) -> None:
        if _read_file(self.target) != content:
            hint = "quit the program that writes it, then run this again"
            raise ConfigError(f"{self.path} has changed while it was edited", hint=hint)

    def back_up(self, now: datetime) -> Path | None:
        """Writes what was read beside the path, its owner's alone; None when there was no file.

        Raises OSError.
        """
        if self.content is None:
            return None
        moment = f"{now:%Y%m%d-%H%M%S}"
        number = max((n for when, n, _ in _find_backups(self.path) if when == moment), default=0)
        while True:
            number += 1
            again = f"-{number}" if number > 1 else ""
            # Beside the link, not its target: that may be a folder under version control.
            backup = self.path.with_name(f"{self.path.name}.{moment}{again}.bak")
            with suppress(FileExistsError):
                write_new(backup, self.content)
                return backup


def prune_backups(path: Path) -> int:
    """Removes all but the newest `MAX_BACKUPS` of a file, closes those to others; gives how many.

    What belongs to another user stays as it is.
    """
    backups = [backup for _, _, backup in _find_backups(path)]
    for backup in backups[-MAX_BACKUPS:]:
        with suppress(OSError):
            backup.chmod(0o600)  # 0.1.0 gave them the mode of the file
    removed = 0
    for backup in backups[:-MAX_BACKUPS]:
        with suppress(OSError):
            backup.unlink()
            removed += 1
    return removed


@contextmanager
def lock_files(paths: Iterable[Path]) -> Generator[None]:
    """Makes the folders of files and keeps other installs out of them. Raises ConfigError.

    No two may stand in one folder: a process waits for its own lock as for any other.
    """
    with ExitStack() as held:
        for path in paths:
            with _name_file_in_errors(path, "cannot be written"):
                folder = path.resolve().parent
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    held.enter_context(lock_folder(folder, timeout=LOCK_TIMEOUT))
                except TimeoutError as exc:
                    sentence = f"another install has been at work in {folder} for too long"
                    raise ConfigError(sentence, hint="end it, then run this again") from exc
        yield


def check_others_kept(before: ConfigFile, text: str, name: str) -> ConfigFile:
    """The new text, read again: the last guard over people's files.

    Raises RuntimeError when more changes than what is ours; no `assert`, for `python -O`.
    """
    after = before.with_text(text)
    # Compared as texts: for Python `1 == True`, and two objects are equal in any order.
    if json.dumps(before.split(name)[1]) != json.dumps(after.split(name)[1]):
        raise RuntimeError(f"more than the entry of {name!r} would change; nothing was written")
    return after


def describe_change(before: ConfigFile, after: ConfigFile, name: str) -> list[str]:
    """A unified diff of our entry and its questions; no line of another server is shown.

    Who reads it may be an assistant that ran the command: other keys are none of its business.
    """
    (old, _), (new, _) = before.split(name), after.split(name)
    path, lines = before.path, list[str]()
    for key in old:
        texts = (json.dumps(part[key], ensure_ascii=False, indent=2) for part in (old, new))
        was, now = (text.splitlines()[1:-1] for text in texts)
        # Without line numbers, which would be those of the entry and not of the file.
        changes = [*unified_diff(was, now, n=len(was) + len(now), lineterm="")][3:]
        lines += [f"@@ {key} @@", *changes] if changes else []
    if not lines:
        same = json.dumps(before.said) == json.dumps(after.said)
        return [] if same else [f"{path}: a value changes that is not shown here"]
    lines = [f"--- {path}", f"+++ {path}", *lines]
    return ["".join(char if char.isprintable() else "\ufffd" for char in line) for line in lines]


def _find_backups(path: Path) -> list[tuple[str, int, Path]]:
    """Of each the second it was made in and the number within that, oldest first."""
    shape = re.compile(re.escape(path.name) + r"\.(\d{8}-\d{6})(?:-(\d+))?\.bak")
    found = [(shape.fullmatch(one.name), one) for one in path.parent.iterdir()]
    return sorted((match[1], int(match[2] or 1), one) for match, one in found if match)


def _id_of(question: object) -> object:
    return question.get("id") if is_object(question) else None


def _is_of(name: str, question: object) -> bool:
    return str(_id_of(question)).startswith(f"{name}-")


def _mask_question(question: object) -> object:
    # `default` may hold what somebody did not want to type again.
    shown = ("type", "id", "description", "password")
    given = question.items() if is_object(question) else ()
    return {key: value if key in shown else "…" for key, value in given}


def _refuse_repeated_keys(members: list[tuple[str, object]]) -> dict[str, object]:
    # Of two `json` would keep the last without a word, and a host perhaps the first.
    said: dict[str, object] = {}
    for key, value in members:
        if key in said:
            raise ValueError(f"the key {key!r} stands twice in one object")
        said[key] = value
    return said


def _read_file(target: Path) -> bytes | None:
    """None where there is none. Raises OSError, also for a device or pipe: it may never end."""
    if not target.exists():
        return None
    if not target.is_file() and not target.is_dir():  # reading a folder says what it is
        raise OSError("it is no regular file")
    return target.read_bytes()


@contextmanager
def _name_file_in_errors(path: Path, what: str) -> Generator[None]:
    try:
        yield
    except (OSError, RuntimeError) as exc:  # RuntimeError: links that lead in a circle
        reason = (isinstance(exc, OSError) and exc.strerror) or str(exc)
        raise ConfigError(f"{path} {what}: {reason}", hint="it was left as it is") from exc
