"""A host's first questions, answered from the standard library while the SDK loads.

The desk answers a prefix of the conversation: requests that have one answer for a given version of
this package, in the forms that hosts send them. The first line outside of that, or the SDK being
ready, closes it; from then on every line goes to the SDK, in order and untouched. Before that the
SDK hears what opened the connection, so that its session is true, and its second answers to that
are dropped. The answers are the SDK's own, from quick_replies.json, which `make quick-replies`
writes; they are used only with the very sources and packages that they were made with.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO, TypeGuard

HERE = Path(__file__).parent
FILE = HERE / "quick_replies.json"

PROTOCOL_VERSION = "io.modelcontextprotocol/protocolVersion"
CLIENT_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
CLIENT_INFO = "io.modelcontextprotocol/clientInfo"

LONGEST_LINE = 16 * 1024
"""characters of a line that the desk reads; openings have some hundred"""

DEEPEST_LINE = 100
"""brackets in such a line; the SDK refuses JSON that is nested some 200 deep"""

MOST_SAID = 32 * 1024
"""characters that the desk says at most. A pipe takes 64 KiB before it blocks the writer, and a
desk that never blocks cannot lock up with a host that writes a flood before it reads."""

SWITCH_INTERVAL = 0.0005
"""seconds until an import lets the desk's thread run; a tenth of Python's default"""

Json = dict[str, object]


class Answers:
    """What quick_replies.json holds: replies by protocol version and method."""

    def __init__(self, file: Json) -> None:
        self._file = file

    def fit(self) -> bool:
        """Whether these sources and these packages gave the answers."""
        packages, sources = _object(self._file["packages"]), _object(self._file["sources"])
        files = [str(name) for name in _list(sources["files"])]
        return fingerprint(files) == sources["crc32"] and all(
            is_installed(name, str(version)) for name, version in packages.items()
        )

    def speaks(self, version: object) -> bool:
        """Whether requests may carry this version in an envelope, without a handshake."""
        return version in _list(self._file["modern"])

    def negotiate(self, version: str) -> str:
        """What `initialize` settles on when a host proposes this version."""
        known = version in _list(self._file["handshake"])
        return version if known else str(self._file["counter_offer"])

    def find(self, version: str, method: str) -> str | None:
        """The reply from behind the id on."""
        number = _object(_object(self._file["answers"])[version]).get(method)
        if not isinstance(number, int):
            return None
        reply = _list(self._file["replies"])[number]
        return json.dumps(reply, ensure_ascii=False, separators=(",", ":"))[1:]


class Clerk:
    """What to say to each line of one connection; knows no descriptor and guesses nothing."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._version = ""
        self._shook = False
        self._said = 0
        self.replay: list[tuple[str, str]] = []
        """lines that the SDK must hear too, each with the reply that the host has already"""

    def answer(self, line: str) -> str | None:
        """The reply, nothing for a notification, or None: from this line on, the SDK's turn.

        Raises ValueError or RecursionError when the line is no JSON.
        """
        message = _parse(line)
        if message is None:
            return None
        if "id" not in message:
            return self._note(line, message)
        method, params = message["method"], message.get("params", {})
        name = _render_id(message["id"])
        if not name or not isinstance(method, str) or not _is_object(params):
            return None
        version = self._settle(method, params)
        found = self._answers.find(version, method) if version else None
        if found is None or self._said + len(found) > MOST_SAID:
            return None
        reply = f'{{"jsonrpc":"2.0","id":{name},{found}\n'
        self._said += len(reply)
        if not self._version:
            self._version, self._shook = version, method == "initialize"
            self.replay.append((line, reply))
        return reply

    def _note(self, line: str, message: Json) -> str | None:
        usual = message["method"] == "notifications/initialized" and message.get("params", {}) == {}
        if not usual or not self._shook or len(self.replay) != 1:
            return None
        self.replay.append((line, ""))
        return ""

    def _settle(self, method: str, params: Json) -> str:
        """The version in which to answer, or nothing when the SDK has to decide."""
        if method == "initialize":
            usual = not self._version and _is_usual_handshake(params)
            return self._answers.negotiate(str(params["protocolVersion"])) if usual else ""
        meta = params.get("_meta", {})
        if not params.keys() <= {"_meta"} or not _is_object(meta):
            return ""
        if not _is_token(meta.get("progressToken", 0)):
            return ""
        if self._shook:
            return self._version if meta.keys() <= {"progressToken"} else ""
        usual = _is_usual_envelope(meta) and self._answers.speaks(meta[PROTOCOL_VERSION])
        return str(meta[PROTOCOL_VERSION]) if usual else ""


class Desk:
    """Both ends of the wire, the clerk's first and then the SDK's, as a text file.

    `readline`, `write` and `flush` block, as those of the file that the SDK would open itself.
    """

    def __init__(self, source: TextIO, sink: int, clerk: Clerk) -> None:
        """`sink` is a descriptor."""
        self._source, self._sink, self._clerk = source, sink, clerk
        self._turn = threading.Condition()
        self._open = True
        self._first: str | None = None
        self._failure: OSError | None = None
        self._second = ""
        self._interval = sys.getswitchinterval()
        # a daemon: it may be reading when the process is told to stop
        self._thread = threading.Thread(target=self._attend, name="front desk", daemon=True)

    def open(self) -> None:
        """Answers in a thread of its own from now on, until the first `readline`."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._thread.start()

    def readline(self) -> str:
        """The SDK's next line: what it must hear again, then what the desk did not answer."""
        with self._turn:
            self._close()
            # a request heard again is alone until it is answered, so no other id can match it
            while self._second:
                self._turn.wait()
            if self._clerk.replay:
                line, self._second = self._clerk.replay.pop(0)
                return line
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        line, self._first = self._first, None
        return self._source.readline() if line is None else line

    def write(self, text: str) -> None:
        """One message of the SDK's, unless it is an answer that the host has already."""
        with self._turn:
            if self._second and _id_of(text) == _id_of(self._second):
                if text != self._second:
                    _tell_difference(self._second, text)
                self._second = ""
                self._turn.notify_all()
                return
        self._send(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def _attend(self) -> None:
        try:
            while line := self._source.readline():
                with self._turn:
                    if not (self._open and self._serve(line)):
                        self._close()
                        self._first = line
                        return
            self._first = ""
        except OSError as exc:
            self._failure = exc

    def _serve(self, line: str) -> bool:
        try:
            reply = self._clerk.answer(line)
        except (ValueError, RecursionError):
            return False
        if reply is None:
            return False
        self._send(reply)
        return True

    def _close(self) -> None:
        if self._open:
            self._open = False
            sys.setswitchinterval(self._interval)

    def _send(self, text: str) -> None:
        rest = memoryview(text.encode())
        while rest:
            rest = rest[os.write(self._sink, rest) :]


def open_desk() -> Desk | None:
    """The desk at this process's stdin and stdout, open; None when the SDK has to answer all.

    As the SDK does: the wire moves to private descriptors, stdout then leads to stderr and stdin to
    nowhere, so no stray print and no child reaches the wire.
    """
    # on Windows a read under way can block the loading of a DLL, and nobody has measured that yet
    if sys.platform == "win32" or not (_stands_at(sys.stdin, 0) and _stands_at(sys.stdout, 1)):
        return None
    try:
        answers = Answers(json.loads(FILE.read_bytes()))
        if not answers.fit():
            return None
        source, sink = _take_wire()
    except (OSError, ValueError, KeyError):  # no answers, or no wire to take
        return None
    reader = open(source, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115  # a descriptor, open for life
    desk = Desk(reader, sink, Clerk(answers))
    desk.open()
    return desk


def _take_wire() -> tuple[int, int]:
    """Private descriptors of stdin and stdout. Raises OSError, and then nothing has changed."""
    source, sink, nowhere = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)
    if min(source, sink, nowhere) <= 2:
        raise OSError("a standard descriptor is closed")
    os.fstat(2)
    os.dup2(2, 1)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    return source, sink


def fingerprint(files: Iterable[str]) -> int:
    """What changes when one of these files of the package changes."""
    crc = 0
    for name in files:
        crc = zlib.crc32((HERE / name).read_bytes(), crc)
    return crc


def is_installed(package: str, version: str) -> bool:
    """Whether `import package` would find this version, told by the folder beside it."""
    for folder in sys.path:
        if Path(folder, package).is_dir():
            return Path(folder, f"{package}-{version}.dist-info").is_dir()
    return False


def _parse(line: str) -> Json | None:
    """A JSON-RPC request or notification; None for what the SDK might read in another way."""
    brackets = line.count("{") + line.count("[")
    if len(line) > LONGEST_LINE or brackets > DEEPEST_LINE or "\\u" in line or "\ufffd" in line:
        return None
    message: object = json.loads(line, parse_constant=_refuse)
    if not _is_object(message) or not message.keys() <= {"jsonrpc", "id", "method", "params"}:
        return None
    return message if message.get("jsonrpc") == "2.0" and "method" in message else None


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


def _render_id(value: object) -> str:
    """The id as the SDK writes it, or nothing for one that it might write in another way."""
    if isinstance(value, str) and value.isascii() and value.isprintable():
        return "" if '"' in value or "\\" in value else f'"{value}"'
    return str(value) if type(value) is int and abs(value) < 2**53 else ""


def _id_of(text: str) -> object:
    """The id of a reply, None for any other message; never None for a text of our own."""
    message = _object(json.loads(text))
    return None if "method" in message else message.get("id")


def _is_usual_handshake(params: Json) -> bool:
    return (
        params.keys() == {"protocolVersion", "capabilities", "clientInfo"}
        and isinstance(params["protocolVersion"], str)
        and _are_usual_capabilities(params["capabilities"])
        and _is_usual_client(params["clientInfo"])
    )


def _is_usual_envelope(meta: Json) -> bool:
    needed, allowed = {PROTOCOL_VERSION, CLIENT_CAPABILITIES}, {CLIENT_INFO, "progressToken"}
    return (
        needed <= meta.keys() <= needed | allowed
        and isinstance(meta[PROTOCOL_VERSION], str)
        and _are_usual_capabilities(meta[CLIENT_CAPABILITIES])
        and (CLIENT_INFO not in meta or _is_usual_client(meta[CLIENT_INFO]))
    )


def _are_usual_capabilities(value: object) -> bool:
    """Whether the SDK surely takes them; names that it does not know it ignores."""
    if not _is_object(value) or "tasks" in value:
        return False
    roots = value.get("roots", {})
    if not _is_object(roots) or not isinstance(roots.get("listChanged", False), bool):
        return False
    nested = (
        value.get(name, {}) for name in ("sampling", "elicitation", "experimental", "extensions")
    )
    return all(
        _is_object(entry) and all(_is_object(inner) for inner in entry.values()) for entry in nested
    )


def _is_usual_client(value: object) -> bool:
    """Name, version and further words about the host; the SDK alone knows what icons may be."""
    if not _is_object(value) or not {"name", "version"} <= value.keys() or "icons" in value:
        return False
    words = ("name", "version", "title", "description", "websiteUrl")
    return all(isinstance(value.get(word, ""), str) for word in words)


def _is_token(value: object) -> bool:
    return isinstance(value, str) or (type(value) is int and abs(value) < 2**53)


def _is_object(value: object) -> TypeGuard[Json]:
    return isinstance(value, dict)


def _object(value: object) -> Json:
    return value if _is_object(value) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]  # JSON


def _stands_at(stream: TextIO | None, descriptor: int) -> bool:
    try:
        return stream is not None and stream.fileno() == descriptor
    except (OSError, ValueError):
        return False


def _tell_difference(said: str, live: str) -> None:
    import logging  # not before somebody needs it

    log = logging.getLogger(__name__)
    log.warning("the front desk opened the connection in other words than the SDK would have")
    log.debug("the front desk said %s where the SDK says %s", said.strip(), live.strip())
