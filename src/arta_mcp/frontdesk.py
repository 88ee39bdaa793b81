"""A host's first questions, answered from the standard library while the SDK loads.

The desk answers a prefix of the conversation: requests that have one answer for a given version of
this package, in the forms that hosts send them. The first line outside of that, or the SDK being
ready, closes it; from then on every line goes to the SDK, in order and untouched. Before that the
SDK hears what opened the connection, so that its session is true, and its second answers to that
are dropped. The answers are the SDK's own, from frontdesk.json, which `make frontdesk` writes;
they are used only with the very sources and packages that they were made with.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import zlib
from pathlib import Path
from typing import TextIO, TypeGuard

HERE = Path(__file__).parent
FILE = HERE / "frontdesk.json"

PROTOCOL_VERSION = "io.modelcontextprotocol/protocolVersion"
CLIENT_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
CLIENT_INFO = "io.modelcontextprotocol/clientInfo"

LONGEST_LINE = 16 * 1024
"""characters of a line that the desk looks at; openings have some hundred"""

DEEPEST_LINE = 100
"""brackets in such a line; the SDK refuses JSON that is nested some 200 deep"""

MOST_SAID = 32 * 1024
"""bytes that the desk writes at most. A pipe takes 64 KiB before it blocks the writer, and only a
desk that never blocks cannot lock up with a host that writes a flood before it reads."""

SWITCH_INTERVAL = 0.0005
"""seconds until an import lets the desk's thread run, a tenth of Python's default"""

Json = dict[str, object]


class Answers:
    """What frontdesk.json holds: replies by protocol version and method."""

    def __init__(self, file: Json) -> None:
        self._file = file

    def fit(self) -> bool:
        """Whether these sources and these packages gave the answers."""
        packages, sources = self._file["packages"], self._file["sources"]
        if not _is_object(packages) or not _is_object(sources):
            return False
        return fingerprint(sources["files"]) == sources["crc32"] and all(
            _is_installed(name, str(version)) for name, version in packages.items()
        )

    def speaks(self, version: object) -> bool:
        """Whether requests may carry this version in their envelope, without a handshake."""
        return version in self._list("modern")

    def negotiate(self, version: str) -> str:
        """What `initialize` settles on when a host proposes this version."""
        return version if version in self._list("handshake") else str(self._file["counter_offer"])

    def find(self, version: str, method: str) -> str | None:
        """The reply without the opening brace, where the id belongs."""
        table, replies = self._file["answers"], self._list("replies")
        row = table.get(version) if _is_object(table) else None
        number = row.get(method) if _is_object(row) else None
        if not isinstance(number, int):
            return None
        return json.dumps(replies[number], ensure_ascii=False, separators=(",", ":"))[1:]

    def _list(self, name: str) -> list[object]:
        found = self._file[name]
        return found if isinstance(found, list) else []  # pyright: ignore[reportUnknownVariableType]  # JSON


class Clerk:
    """What to say to each line of one connection; knows no descriptor."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._version = ""
        self._shook = False
        self.replay: list[tuple[str, str]] = []
        """what the SDK must hear, each with the reply that the host has already, or nothing"""

    def answer(self, line: str) -> str | None:
        """The whole reply, nothing for a notification, or None: a line for the SDK.

        After None this clerk must not be asked again.
        """
        message = _parse(line)
        if message is None:
            return None
        if "id" not in message:
            return self._note(message, line)
        method, params, name = message["method"], message.get("params", {}), _name(message["id"])
        if name is None or not isinstance(method, str) or not _is_object(params):
            return None
        version = self._settle(method, params)
        found = self._answers.find(version, method) if version else None
        if found is None:
            return None
        reply = f'{{"jsonrpc":"2.0","id":{name},{found}\n'
        if not self._version:
            self._version = version
            self.replay.append((line, reply))
        return reply

    def _note(self, message: Json, line: str) -> str | None:
        usual = message == {"jsonrpc": "2.0", "method": "notifications/initialized"}
        if not usual or not self._shook or len(self.replay) != 1:
            return None
        self.replay.append((line, ""))
        return ""

    def _settle(self, method: str, params: Json) -> str:
        """The version in which to answer, or nothing when the SDK has to decide."""
        if method == "initialize":
            if self._version or not _is_usual_handshake(params):
                return ""
            self._shook = True
            return self._answers.negotiate(str(params["protocolVersion"]))
        meta = params.get("_meta", {})
        if not params.keys() <= {"_meta"} or not _is_object(meta):
            return ""
        if not _is_progress_token(meta.get("progressToken", 0)):
            return ""
        if self._shook:
            return self._version if meta.keys() <= {"progressToken"} else ""
        return str(meta[PROTOCOL_VERSION]) if self._is_usual_envelope(meta) else ""

    def _is_usual_envelope(self, meta: Json) -> bool:
        return (
            {PROTOCOL_VERSION, CLIENT_CAPABILITIES} <= meta.keys()
            and meta.keys()
            <= {PROTOCOL_VERSION, CLIENT_CAPABILITIES, CLIENT_INFO, "progressToken"}
            and self._answers.speaks(meta[PROTOCOL_VERSION])
            and _are_usual_capabilities(meta[CLIENT_CAPABILITIES])
            and (CLIENT_INFO not in meta or _is_usual_client(meta[CLIENT_INFO]))
        )


class Desk:
    """Both ends of the wire: first the clerk's, then the SDK's, as a file that `anyio` can wrap."""

    def __init__(self, source: TextIO, sink: int, clerk: Clerk) -> None:
        """`sink` is a descriptor; both are the desk's own from now on."""
        self._source, self._sink, self._clerk = source, sink, clerk
        self._turn = threading.Condition()
        self._open, self._said = True, 0
        self._first: str | None = None
        self._failure: OSError | None = None
        self._replay: list[tuple[str, str]] = []
        self._second = ""
        self._thread = threading.Thread(target=self._attend, name="front desk", daemon=True)

    def start(self) -> None:
        """Answers from now on, in a thread of its own, until `readline` is called."""
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._thread.start()

    def readline(self) -> str:
        """The SDK's next line; the first call closes the desk."""
        with self._turn:
            if self._open:
                self._close()
            # a request heard again is alone until it is answered, so no id can be mistaken
            while self._second:
                self._turn.wait()
            if self._replay:
                line, self._second = self._replay.pop(0)
                return line
        self._thread.join()
        line, self._first = self._first, None
        if self._failure is not None:
            raise self._failure
        return self._source.readline() if line is None else line

    def write(self, text: str) -> None:
        """One message of the SDK's, unless the host has that answer already."""
        with self._turn:
            if self._second and _is_answer(text, self._second):
                if text != self._second:
                    _warn(self._second, text)
                self._second = ""
                self._turn.notify_all()
                return
        self._put(text)

    def flush(self) -> None:
        """Nothing waits here."""

    def _attend(self) -> None:
        try:
            while line := self._source.readline():
                with self._turn:
                    if self._open and self._serve(line):
                        continue
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
        ...

    def _close(self) -> None: ...

    def _put(self, text: str) -> None:
        data = memoryview(text.encode())
        while data:
            data = data[os.write(self._sink, data) :]


def _is_object(value: object) -> TypeGuard[Json]:
    return isinstance(value, dict)
