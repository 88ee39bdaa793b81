"""Replies to a host's first questions, sent from the standard library while the SDK loads.

They are sent for a prefix of the conversation: requests that have one reply for a given version of
this package, in the forms that hosts send them. The first line outside of that, or the SDK being
ready, ends it; from then on every line goes to the SDK, in order and untouched. Before that the
SDK reads what opened the connection, so that its session is true, and its second replies to that
are dropped. The replies are the SDK's own, from quick_replies.json, which `make quick-replies`
writes; they are used only with the very sources and packages that they were recorded with.
"""

# The protocol machine
# ====================
#
# A connection starts as NEW and takes one row of this table for each line that it reads. A line
# that no row admits closes it: that line and all after it are the SDK's. Only `initialize` and
# methods that were recorded for the version are admitted, and only in forms of which it is sure
# what the SDK makes of them (the functions `_is_...`): being strict costs time, being wrong a
# session.
#
#   state        line                                    reply      next         replayed
#   -----------  --------------------------------------  ---------  -----------  --------
#   NEW          initialize                              recorded   HANDSHAKE    yes
#   NEW          request in the envelope of a version    recorded   STATELESS    yes
#   HANDSHAKE    notifications/initialized               none       INITIALIZED  yes
#   HANDSHAKE    request without envelope                recorded   HANDSHAKE    no
#   INITIALIZED  request without envelope                recorded   INITIALIZED  no
#   STATELESS    request in the envelope of a version    recorded   STATELESS    no
#   any          any other, or past MAX_SENT             the SDK's  CLOSED       no
#   any          none: the SDK reads its first line      -          CLOSED       no
#
# Replayed is what the SDK has to read although the host has its reply. It, too, is a machine: the
# first line decides its era, its version and what it knows of the client, and `initialized` lets
# calls in. Pings and lists leave no trace in it, so it never learns of them.

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import zlib
from collections.abc import Iterable
from enum import Enum, auto
from pathlib import Path
from typing import TextIO, TypeGuard

log = logging.getLogger(__name__)

PACKAGE_DIR = Path(__file__).parent
REPLIES_FILE = PACKAGE_DIR / "quick_replies.json"

PROTOCOL_VERSION = "io.modelcontextprotocol/protocolVersion"
CLIENT_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
CLIENT_INFO = "io.modelcontextprotocol/clientInfo"

MAX_LINE_LENGTH = 16 * 1024
"""characters of a line that is parsed here; openings have some hundred"""

MAX_LINE_BRACKETS = 100
"""brackets in such a line; the SDK refuses JSON that is nested some 200 deep"""

MAX_SENT = 32 * 1024
"""characters of all replies of a connection. A pipe takes 64 KiB before it blocks the writer, and
who never blocks cannot lock up with a host that writes a flood before it reads."""

SWITCH_INTERVAL = 0.0005
"""seconds until an import lets the replying thread run; a tenth of Python's default"""

Json = dict[str, object]


class ConnectionState(Enum):
    """Where a connection stands in the table above."""

    NEW = auto()
    HANDSHAKE = auto()
    INITIALIZED = auto()
    STATELESS = auto()
    CLOSED = auto()


class RecordedReplies:
    """What quick_replies.json holds: replies by protocol version and method."""

    def __init__(self, file: Json) -> None:
        self._file = file

    def fits_installation(self) -> bool:
        """Whether these sources and these packages gave the replies."""
        packages, sources = _object(self._file["packages"]), _object(self._file["sources"])
        files = [str(name) for name in _list(sources["files"])]
        return fingerprint(files) == sources["crc32"] and all(
            is_installed(name, str(version)) for name, version in packages.items()
        )

    def is_stateless(self, version: str) -> bool:
        """Whether requests may carry this version in an envelope, without a handshake."""
        return version in _list(self._file["modern"])

    def negotiate_version(self, proposed: str) -> str:
        """The version of a session whose host proposes this one in `initialize`."""
        known = proposed in _list(self._file["handshake"])
        return proposed if known else str(self._file["counter_offer"])

    def find_reply(self, version: str, method: str) -> str | None:
        """The reply from behind its id on."""
        number = _object(_object(self._file["index"])[version]).get(method)
        if not isinstance(number, int):
            return None
        reply = _list(self._file["replies"])[number]
        return json.dumps(reply, ensure_ascii=False, separators=(",", ":"))[1:]


class Responder:
    """Maps each line of one connection to its recorded reply; no I/O."""

    def __init__(self, recorded: RecordedReplies) -> None:
        self.state = ConnectionState.NEW
        self.replay: list[tuple[str, str]] = []
        """lines that the SDK has to read too, each with the reply that the host has already"""
        self._recorded = recorded
        self._version = ""
        self._sent = 0

    def close(self) -> None:
        """Leaves every line from now on to the SDK."""
        self.state = ConnectionState.CLOSED

    def reply_to(self, line: str) -> str | None:
        """The reply; nothing to a notification; None when this line and all after are the SDK's."""
        try:
            message = _parse_message(line)
        except (ValueError, RecursionError):  # no JSON, to which the SDK has a reply, too
            message = None
        reply = None if message is None else self._take_row(line, message)
        if reply is None:
            self.close()
        return reply

    def _take_row(self, line: str, message: Json) -> str | None:
        """Takes the row of the table that admits this line; None when there is none."""
        method, params = message["method"], message.get("params", {})
        if not isinstance(method, str) or not _is_object(params):
            return None
        is_notification, meta = "id" not in message, _meta_alone(params)
        match self.state, method:
            case ConnectionState.HANDSHAKE, "notifications/initialized" if is_notification:
                if params:
                    return None
                self.state = ConnectionState.INITIALIZED
                self.replay.append((line, ""))
                return ""
            case _ if is_notification:
                return None
            case ConnectionState.NEW, "initialize" if _is_handshake(params):
                version = self._recorded.negotiate_version(str(params["protocolVersion"]))
                state = ConnectionState.HANDSHAKE
            case _, "initialize":
                return None
            case ConnectionState.NEW | ConnectionState.STATELESS, _ if _is_envelope(meta):
                version, state = str(meta[PROTOCOL_VERSION]), ConnectionState.STATELESS
                if not self._recorded.is_stateless(version):
                    return None
            case ConnectionState.HANDSHAKE | ConnectionState.INITIALIZED, _ if meta is not None:
                version, state = self._version, self.state
                if not meta.keys() <= {"progressToken"}:
                    return None
            case _:
                return None
        found, request_id = self._recorded.find_reply(version, method), _render_id(message["id"])
        if found is None or request_id is None or self._sent + len(found) > MAX_SENT:
            return None
        reply = f'{{"jsonrpc":"2.0","id":{request_id},{found}\n'
        if self.state is ConnectionState.NEW:
            self.replay.append((line, reply))
        self._sent += len(reply)
        self.state, self._version = state, version
        return reply


class Handoff:
    """Both ends of the wire, the responder's first and then the SDK's, as a text file.

    `readline` and `write` block. `read_at` is when the last line came, by `time.monotonic()`: a
    call that came while the SDK was loading has waited since then.
    """

    def __init__(self, source: TextIO, sink: int, responder: Responder) -> None:
        """`sink` is a descriptor."""
        self.read_at = time.monotonic()
        self._source, self._sink, self._responder = source, sink, responder
        # Guards the responder and `_repeated`. A quick reply is written while it is held, so the
        # SDK reads no line, and has nothing to write, before that reply is whole on the wire.
        # Logging's lock and that of the secrets are taken inside it, and never the other way.
        self._turn = threading.Condition()
        self._unanswered: str | None = None
        """the line that the thread has read and left to the SDK; nothing is the end of all lines"""
        self._failure: OSError | None = None
        self._repeated = ""
        """the reply that the SDK is about to give once more"""
        self._switch_interval = sys.getswitchinterval()
        # A daemon: it may stand in a read that ends with the host's next line only, and the
        # process must not wait for that when it is told to stop.
        self._thread = threading.Thread(
            target=self._reply_to_lines, name="quick replies", daemon=True
        )

    def start(self) -> None:
        """Replies in a thread of its own from now on, until the first `readline`.

        Without it, and with a closed responder, all lines are the SDK's.
        """
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._thread.start()

    def readline(self) -> str:
        """The SDK's next line: what is replayed, then what had no quick reply.

        Raises the OSError that a read or write before the first `readline` met.
        """
        with self._turn:
            if self._responder.state is not ConnectionState.CLOSED:
                self._responder.close()
                sys.setswitchinterval(self._switch_interval)
            # A request that is replayed is alone until the SDK has replied, so no other request
            # with the same id can have its reply dropped.
            while self._repeated:
                self._turn.wait()
            if self._responder.replay:
                line, self._repeated = self._responder.replay.pop(0)
                return line
        # Without the lock, which the thread needs to leave its line behind.
        if self._thread.ident is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        line, self._unanswered = self._unanswered, None
        return self._read_line() if line is None else line

    def write(self, text: str) -> None:
        """One message of the SDK's, unless it is a reply that the host has already."""
        with self._turn:
            if self._repeated and _reply_id(text) == _reply_id(self._repeated):
                if text != self._repeated:
                    log.warning(
                        "quick replies opened the connection in other words than the SDK would have"
                    )
                    log.debug(
                        "the host has %s, and the SDK says %s", self._repeated.strip(), text.strip()
                    )
                self._repeated = ""
                self._turn.notify_all()
                return
        self._send(text)

    def _reply_to_lines(self) -> None:
        try:
            while line := self._read_line():
                with self._turn:
                    reply = self._responder.reply_to(line)
                    if reply is None:
                        sys.setswitchinterval(self._switch_interval)
                        break
                    self._send(reply)
            self._unanswered = line
        except OSError as exc:
            self._failure = exc

    def _read_line(self) -> str:
        # Some programs write a byte order mark first, which JSON must not have.
        line = self._source.readline().removeprefix("\ufeff")
        self.read_at = time.monotonic()
        return line

    def _send(self, text: str) -> None:
        rest = memoryview(text.encode())
        while rest:
            rest = rest[os.write(self._sink, rest) :]


def take_wire(*, replying: bool) -> Handoff | None:
    """The wire of this process's stdin and stdout, with `replying` giving quick replies already.

    It moves to private descriptors, stdout then leads to stderr and stdin to nowhere. None when
    stdin or stdout is something else, and then nothing has changed.
    """
    if not (_has_descriptor(sys.stdin, 0) and _has_descriptor(sys.stdout, 1)):
        return None
    # On Windows a read under way can block the loading of a DLL, and nobody has measured that yet.
    recorded = _read_replies() if replying and sys.platform != "win32" else None
    try:
        source, sink = _take_descriptors()
    except OSError:
        return None
    reader = open(source, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115  # a descriptor, open for life
    responder = Responder(recorded or RecordedReplies({}))
    handoff = Handoff(reader, sink, responder)
    if recorded is None:
        responder.close()
    else:
        handoff.start()
    return handoff


def _read_replies() -> RecordedReplies | None:
    """The recorded replies; None when there are none, or none for this installation."""
    try:
        recorded = RecordedReplies(json.loads(REPLIES_FILE.read_bytes()))
        return recorded if recorded.fits_installation() else None
    except (OSError, ValueError, KeyError):
        return None


def _take_descriptors() -> tuple[int, int]:
    """Private descriptors of stdin and stdout. Raises OSError, and then nothing has changed."""
    source, sink, nowhere = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)
    if min(source, sink, nowhere) <= 2:
        raise OSError("a standard descriptor is closed")
    os.fstat(2)
    # A stray print would break the protocol, and a child that inherits stdin would eat requests.
    os.dup2(2, 1)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    return source, sink


def fingerprint(files: Iterable[str]) -> int:
    """What changes when one of these files of the package changes."""
    crc = 0
    for name in files:
        crc = zlib.crc32((PACKAGE_DIR / name).read_bytes(), crc)
    return crc


def is_installed(package: str, version: str) -> bool:
    """Whether `import package` would find this version, by the folder of metadata beside it."""
    # importlib.metadata knows better, but it loads email, csv and zipfile before it answers.
    for folder in sys.path:
        if Path(folder, package).is_dir():
            return Path(folder, f"{package}-{version}.dist-info").is_dir()
    return False


def _parse_message(line: str) -> Json | None:
    """A JSON-RPC request or notification; None for what the SDK might read in another way."""
    brackets = line.count("{") + line.count("[")
    if len(line) > MAX_LINE_LENGTH or brackets > MAX_LINE_BRACKETS:
        return None
    # An escape may be half of a surrogate pair; U+FFFD stands where the bytes were no UTF-8.
    if "\\u" in line or "\ufffd" in line:
        return None
    # NaN and Infinity are no JSON: int() refuses them with a ValueError.
    message: object = json.loads(line, parse_constant=int)
    if not _is_object(message) or not message.keys() <= {"jsonrpc", "id", "method", "params"}:
        return None
    return message if message.get("jsonrpc") == "2.0" and "method" in message else None


def _render_id(value: object) -> str | None:
    """The id as the SDK writes it; None for one that it might write in another way."""
    if isinstance(value, str) and value.isascii() and value.isprintable():
        return None if '"' in value or "\\" in value else f'"{value}"'
    return str(value) if _is_small_int(value) else None


def _reply_id(text: str) -> object:
    """The id of a reply, None for any other message; never None for a text of our own."""
    message = _object(json.loads(text))
    return None if "method" in message else message.get("id")


def _meta_alone(params: Json) -> Json | None:
    """`_meta`, when there are no other params and its progress token is one."""
    meta = params.get("_meta", {})
    if not params.keys() <= {"_meta"} or not _is_object(meta):
        return None
    token = meta.get("progressToken", 0)
    return meta if isinstance(token, str) or _is_small_int(token) else None


def _is_handshake(params: Json) -> bool:
    return (
        params.keys() == {"protocolVersion", "capabilities", "clientInfo"}
        and isinstance(params["protocolVersion"], str)
        and _is_capabilities(params["capabilities"])
        and _is_client_info(params["clientInfo"])
    )


def _is_envelope(meta: Json | None) -> TypeGuard[Json]:
    needed, allowed = {PROTOCOL_VERSION, CLIENT_CAPABILITIES}, {CLIENT_INFO, "progressToken"}
    return (
        meta is not None
        and needed <= meta.keys() <= needed | allowed
        and isinstance(meta[PROTOCOL_VERSION], str)
        and _is_capabilities(meta[CLIENT_CAPABILITIES])
        and (CLIENT_INFO not in meta or _is_client_info(meta[CLIENT_INFO]))
    )


def _is_capabilities(value: object) -> bool:
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


def _is_client_info(value: object) -> bool:
    """Name, version and further words about the host; the SDK alone knows what icons may be."""
    if not _is_object(value) or not {"name", "version"} <= value.keys() or "icons" in value:
        return False
    words = ("name", "version", "title", "description", "websiteUrl")
    return all(isinstance(value.get(word, ""), str) for word in words)


def _is_small_int(value: object) -> bool:
    """Whether it is a number that every JSON parser reads exactly; `true` is none."""
    return type(value) is int and abs(value) < 2**53


def _is_object(value: object) -> TypeGuard[Json]:
    return isinstance(value, dict)


def _object(value: object) -> Json:
    return value if _is_object(value) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]  # JSON


def _has_descriptor(stream: TextIO | None, descriptor: int) -> bool:
    try:
        return stream is not None and stream.fileno() == descriptor
    except (OSError, ValueError):
        return False
