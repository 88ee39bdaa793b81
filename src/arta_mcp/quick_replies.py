"""Replies to a host's first questions, sent from the standard library while the SDK loads.

They are sent for a prefix of the conversation: requests that have one reply for a given version of
this package, in the forms that hosts send them. The first line outside of that, or the SDK being
ready, ends it; from then on every line goes to the SDK, in order and untouched. Before that the
SDK reads what opened the connection, so that its session is true, and its second replies to that
are dropped. The replies are the SDK's own, from quick_replies.json, which `make quick-replies`
writes. They fit the very sources that they were recorded with, and any `mcp` 2 of that minor
version or a later one: what is said in a known version of the protocol is fixed by the protocol and
by our sources. What a later SDK might say otherwise is left to it, and its second reply is the
proof: one that settles something else ends the connection's use, and quick replies with it.
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
#   NEW          server/discover in such an envelope     recorded   DISCOVERED   yes
#   DISCOVERED   initialize                              recorded   HANDSHAKE    it alone
#   DISCOVERED   request in the envelope of a version    recorded   STATELESS    no
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
#
# A host that knows both eras asks `server/discover` first; when no reply comes in its time it takes
# the server for an old one and sends `initialize` on the same connection. Revision 2026-07-28 wants
# that of hosts ("stdio: probe with server/discover and fall back") and lets a server serve both
# eras in one process ("Versioning and Compatibility": a request with the envelope by itself,
# `initialize` for the process from then on). mcp 2.3 gives a connection the era of its first
# request and refuses `initialize` after a discover. So the discover is held back from it until the
# next line shows the era, and dropped if that is `initialize`: a discover leaves no trace.
#
# Windows has none of this yet. A thread that stands in ReadFile on the pipe of stdin makes any
# other call on that pipe wait, and the start-up of a DLL makes one (GetFileType): an import may
# hang until the host writes. It takes: reading only what `_winapi.PeekNamedPipe` says is there,
# every 5 to 10 ms; a proof that `os.dup2` moves GetStdHandle(STD_INPUT_HANDLE) too; writes in
# binary mode (`msvcrt.setmode`); and a run of tests/test_quick_replies.py there.

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from enum import Enum, auto
from pathlib import Path
from typing import TextIO, TypeGuard

from arta_mcp import __version__

log = logging.getLogger(__name__)

PACKAGE_DIR = Path(__file__).parent
REPLIES_FILE = PACKAGE_DIR / "quick_replies.json"

MARK_NAME = "quick-replies-off"
"""file in the state folder that names the `mcp` which quick replies turned out not to fit"""

INTERNAL_ERROR = -32603
"""JSON-RPC 2.0, section 5.1"""

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
    DISCOVERED = auto()
    HANDSHAKE = auto()
    INITIALIZED = auto()
    STATELESS = auto()
    CLOSED = auto()


class NoQuickReplies(Exception):
    """Why there are none; `hint` is the way out, if there is one."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.hint = hint


class RecordedReplies:
    """One of the sets of quick_replies.json: replies by protocol version and method."""

    def __init__(self, file: Json, drawn_by: str, *, mcp: str) -> None:
        """`drawn_by` names the set, as `Settings.drawn_by`; `mcp` is the installed version."""
        self._file, self._index = file, _object(_object(file["index"])[drawn_by])
        self._is_later = _minor(mcp) != _minor(str(file["mcp"]))
        self.mcp = mcp

    @classmethod
    def read(cls, drawn_by: str, mark: Path | None) -> RecordedReplies:
        """The set that fits what is installed. Raises NoQuickReplies.

        `mark` is where `keep_off` may have written that they do not.
        """
        if sys.platform == "win32":
            raise NoQuickReplies("not there yet on Windows")
        try:
            file = _object(json.loads(REPLIES_FILE.read_bytes()))
            changed = find_changes(file)
            if changed:
                why = f"recorded before a change of {', '.join(changed)}"
                raise NoQuickReplies(why, "run `make quick-replies`, or install arta-mcp anew")
            mcp, recorded = find_version("mcp"), str(file["mcp"])
            if not _minor(mcp or "") >= _minor(recorded):
                why = (
                    f"recorded with mcp {recorded}, and {mcp or 'none that is known'} is installed"
                )
                raise NoQuickReplies(why, f"install mcp {recorded} or a later 2")
            replies = cls(file, drawn_by, mcp=str(mcp))
        except (OSError, ValueError, KeyError) as exc:
            hint = "install arta-mcp anew"
            raise NoQuickReplies(f"{REPLIES_FILE.name} is missing or damaged", hint) from exc
        try:
            is_off = mark is not None and mark.read_text(encoding="utf-8") == replies.mark_text
        except (OSError, ValueError):
            is_off = False
        if is_off:
            why = f"mcp {mcp} turned out to open a connection otherwise"
            raise NoQuickReplies(why, f"get a newer arta-mcp, or delete {mark} to try again")
        return replies

    @property
    def mark_text(self) -> str:
        """What stands in the mark, so that another version of either gets its try."""
        return f"mcp {self.mcp}, arta-mcp {__version__}\n"

    def is_stateless(self, version: str) -> bool:
        """Whether requests may carry this version in an envelope, without a handshake."""
        return version in _list(self._file["modern"])

    def negotiate_version(self, proposed: str) -> str | None:
        """The version of a session whose host proposes this one in `initialize`.

        None for one that only a later SDK may know.
        """
        if proposed in _list(self._file["handshake"]):
            return proposed
        return None if self._is_later else str(self._file["counter_offer"])

    def find_reply(self, version: str, method: str) -> str | None:
        """The reply from behind its id on."""
        number = _object(self._index.get(version)).get(method)
        if not isinstance(number, int):
            return None
        reply = _list(self._file["replies"])[number]
        return json.dumps(reply, ensure_ascii=False, separators=(",", ":"))[1:]


class Responder:
    """Maps each line of one connection to its recorded reply; no I/O."""

    def __init__(self, recorded: RecordedReplies | None) -> None:
        """Without replies every line is the SDK's."""
        self.state = ConnectionState.CLOSED if recorded is None else ConnectionState.NEW
        self.replay: list[tuple[str, str]] = []
        """lines that the SDK has to read too, each with the reply that the host has already"""
        self.is_undecided = False
        """closed behind a discover: the next line says whether that is replayed or dropped"""
        self._recorded = recorded
        self._version = ""
        self._sent = 0

    def close(self) -> None:
        """Leaves every line from now on to the SDK."""
        self.is_undecided |= self.state is ConnectionState.DISCOVERED
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

    def refuse(self, line: str, why: str) -> str:
        """The reply where the SDK has settled something else; nothing to what is no request.

        A call says why, and so does all that has no recorded reply; lists and pings are as before.
        """
        try:
            message = _object(json.loads(line))
        except (ValueError, RecursionError):
            return ""
        method, request_id = message.get("method"), message.get("id")
        if self._recorded is None or not isinstance(method, str) or request_id is None:
            return ""
        found = self._recorded.find_reply(self._version, method)
        if found is None and method == "tools/call":
            result: Json = {"content": [{"type": "text", "text": why}], "isError": True}
            if self._recorded.is_stateless(self._version):
                result["resultType"] = "complete"
            found = json.dumps({"result": result})[1:]
        found = found or json.dumps({"error": {"code": INTERNAL_ERROR, "message": why}})[1:]
        return f'{{"jsonrpc":"2.0","id":{json.dumps(request_id)},{found}\n'

    def _take_row(self, line: str, message: Json) -> str | None:
        """Takes the row of the table that admits this line; None when there is none."""
        method, params, recorded = message["method"], message.get("params", {}), self._recorded
        if recorded is None or not isinstance(method, str) or not _is_object(params):
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
            case ConnectionState.NEW | ConnectionState.DISCOVERED, "initialize" if _is_handshake(
                params
            ):
                version = recorded.negotiate_version(str(params["protocolVersion"]))
                state = ConnectionState.HANDSHAKE
            case _, "initialize":
                return None
            case (
                ConnectionState.NEW | ConnectionState.DISCOVERED | ConnectionState.STATELESS,
                _,
            ) if _is_envelope(meta):
                version, state = str(meta[PROTOCOL_VERSION]), ConnectionState.STATELESS
                if not recorded.is_stateless(version):
                    return None
                if method == "server/discover" and self.state is not ConnectionState.STATELESS:
                    state = ConnectionState.DISCOVERED
            case ConnectionState.HANDSHAKE | ConnectionState.INITIALIZED, _ if meta is not None:
                version, state = self._version, self.state
                if not meta.keys() <= {"progressToken"}:
                    return None
            case _:
                return None
        request_id = _render_id(message["id"])
        found = None if version is None else recorded.find_reply(version, method)
        if found is None or request_id is None or self._sent + len(found) > MAX_SENT:
            return None
        reply = f'{{"jsonrpc":"2.0","id":{request_id},{found}\n'
        if state is ConnectionState.HANDSHAKE is not self.state:
            self.replay.clear()
        if not self.replay:
            self.replay.append((line, reply))
        self._sent += len(reply)
        self.state, self._version = state, version or ""
        return reply


class Handoff:
    """Both ends of the wire, the responder's first and then the SDK's, as a text file.

    `readline` and `write` block. `read_at` is when the last line came, by `time.monotonic()`: a
    call that came while the SDK was loading has waited since then.
    """

    def __init__(
        self,
        source: TextIO,
        sink: int,
        responder: Responder,
        *,
        keep_off: Callable[[], str] = lambda: "",
    ) -> None:
        """`sink` is a descriptor.

        `keep_off` is called when the SDK settles something else than was replied, so that it does
        not happen again; it gives the sentence that every later call gets.
        """
        self.read_at = time.monotonic()
        self._keep_off = keep_off
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
        self._refusal: str | None = None
        """what calls get once the SDK has settled something else: it reads and writes no more"""
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
            is_ready = self._refusal is None and not self._responder.is_undecided
            if is_ready and self._responder.replay:
                line, self._repeated = self._responder.replay.pop(0)
                return line
        # Without the lock, which the thread needs to leave its line behind.
        if self._thread.ident is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        line, self._unanswered = self._unanswered, None
        if line is None:
            line = self._read_line()
        if self._responder.is_undecided:
            self._responder.is_undecided = False
            if not _is_initialize(line):
                self._unanswered = line
                return self.readline()
            self._responder.replay.clear()
        while line and self._refusal is not None:
            self._send(self._responder.refuse(line, self._refusal))
            line = self._read_line()
        return line

    def write(self, text: str) -> None:
        """One message of the SDK's, unless it is a reply that the host has already."""
        with self._turn:
            if self._repeated and _reply_id(text) == _reply_id(self._repeated):
                if text != self._repeated:
                    self._report_difference(self._repeated, text)
                self._repeated = ""
                self._turn.notify_all()
                return
            if self._refusal is not None:
                return
        self._send(text)

    def _report_difference(self, reply: str, sdks: str) -> None:
        """Gives up the connection when the SDK has settled something else than was replied."""
        if _settled(reply) != _settled(sdks):
            self._refusal = self._keep_off()
            log.error("%s", self._refusal)
        # Of a later SDK that is no surprise, and of no use to a host.
        log.debug("quick replies opened the connection in other words than the SDK would have")
        log.debug("the host has %s, and the SDK says %s", reply.strip(), sdks.strip())

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


def take_wire(*, drawn_by: str | None, mark: Path | None = None) -> Handoff | None:
    """The wire of this process's stdin and stdout, with quick replies being given already.

    It moves to private descriptors, stdout then leads to stderr and stdin to nowhere. None when
    stdin or stdout is something else, and then nothing has changed. `drawn_by` is the set of
    replies, as in `Settings`, or None for none; `mark` is where `keep_off` writes.
    """
    if not (_has_descriptor(sys.stdin, 0) and _has_descriptor(sys.stdout, 1)):
        return None
    try:
        recorded = RecordedReplies.read(drawn_by, mark) if drawn_by else None
    except NoQuickReplies as exc:
        log.debug("no quick replies: %s", exc)
        recorded = None
    try:
        source, sink = _take_descriptors()
    except OSError:
        return None
    reader = open(source, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115  # a descriptor, open for life
    if recorded is None:
        return Handoff(reader, sink, Responder(None))
    handoff = Handoff(reader, sink, Responder(recorded), keep_off=lambda: keep_off(recorded, mark))
    handoff.start()
    return handoff


def keep_off(recorded: RecordedReplies, mark: Path | None) -> str:
    """Marks this `mcp` as one that they do not fit, where there is a place; gives the sentence."""
    # Here, where they have failed already: no start waits for it.
    from arta_mcp.files import make_private_folder, write_atomically

    try:
        if mark is not None:
            make_private_folder(mark.parent)
            write_atomically(mark, recorded.mark_text.encode())
    except OSError as exc:
        log.debug("quick replies are tried again at the next start", exc_info=exc)
    return (
        f"mcp {recorded.mcp} opened this connection otherwise than arta-mcp {__version__} had"
        " replied for it: set ARTA_QUICK_REPLIES=off and restart the server"
    )


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


def fingerprint(name: str) -> int:
    """What changes when this file of the package changes."""
    return zlib.crc32((PACKAGE_DIR / name).read_bytes())


def find_changes(file: Mapping[str, object]) -> list[str]:
    """The sources that are not those with which quick_replies.json was recorded."""
    return [name for name, crc in _object(file["sources"]).items() if fingerprint(name) != crc]


def find_version(package: str) -> str | None:
    """The version of what `import package` would find; None when the metadata do not show it."""
    # importlib.metadata knows better, but it loads email, csv and zipfile before it answers.
    for folder in sys.path:
        if Path(folder, package).is_dir():
            found = [path.stem for path in Path(folder).glob(f"{package}-[0-9]*.dist-info")]
            return found[0].removeprefix(f"{package}-") if len(found) == 1 else None
    return None


def _minor(version: str) -> int:
    """The minor version of an `mcp` 2; -1 for any other."""
    found = re.match(r"2\.(\d+)(?!\d)", version)
    return int(found[1]) if found else -1


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


def _is_initialize(line: str) -> bool:
    """Whether a line is that request, in any form."""
    try:
        return _object(json.loads(line)).get("method") == "initialize"
    except (ValueError, RecursionError):
        return False


def _render_id(value: object) -> str | None:
    """The id as the SDK writes it; None for one that it might write in another way."""
    if isinstance(value, str) and value.isascii() and value.isprintable():
        return None if '"' in value or "\\" in value else f'"{value}"'
    return str(value) if _is_small_int(value) else None


def _reply_id(text: str) -> object:
    """The id of a reply, None for any other message; never None for a text of our own."""
    message = _object(json.loads(text))
    return None if "method" in message else message.get("id")


def _settled(text: str) -> tuple[object, ...]:
    """What a reply settles for its connection: whether it is served, and in which version."""
    message = _object(json.loads(text))
    return "error" in message, _object(message.get("result")).get("protocolVersion")


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
