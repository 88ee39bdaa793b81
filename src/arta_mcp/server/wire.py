"""One connection over lines of text: what is a message, what is none, and when it ends.

In place of `mcp.server.stdio` (mcp 2.3), which is silent about what it cannot parse and reads in
threads that a cancelled server waits for. Ends when the SDK does neither.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol, TextIO, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.server.mcpserver import MCPServer
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from arta_mcp.server.sdk import lowlevel_server

T = TypeVar("T")

log = logging.getLogger(__name__)

WRITE_TIMEOUT = 2.0
"""seconds that the last message has to leave once the host has closed"""


MAX_TOGETHER = 50
"""messages that are written in one go"""

MAX_AHEAD = 1000
"""messages that are read before they can be served"""


class Wire(Protocol):
    """Both ends of a connection, as blocking text file methods.

    `read_at` is when the last line came, by `time.monotonic()`.
    """

    read_at: float

    def readline(self) -> str:
        """One line with its end; nothing when the other side has closed."""
        ...

    def write(self, text: str, /) -> None:
        """One message with its line end, sent at once."""


class TextWire:
    """A wire of two text files, for a process whose stdin and stdout are no descriptors."""

    def __init__(self, source: TextIO, sink: TextIO) -> None:
        self.read_at = time.monotonic()
        self._source, self._sink = source, sink

    def readline(self) -> str:
        """The source's next line."""
        line = self._source.readline()
        self.read_at = time.monotonic()
        return line

    def write(self, text: str) -> None:
        """Writes to the sink and flushes it."""
        self._sink.write(text)
        self._sink.flush()


class DaemonCalls:
    """Blocking calls in one thread that neither a cancelled caller nor the process waits for."""

    def __init__(self, name: str) -> None:
        self._calls = SimpleQueue[Callable[[], None]]()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises, when the calls before it have ended."""
        future = Future[T]()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = call()
            except BaseException as exc:
                future.set_exception(exc)
            else:
                future.set_result(result)

        self._calls.put(work)
        return await asyncio.wrap_future(future)

    def _run(self) -> None:
        while True:
            self._calls.get()()


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a message came, by `time.monotonic()`."""

    at: float


class NoMessage(ValueError):
    """A line that is no message; `code` is JSON-RPC's for it, and the id that of a request."""

    def __init__(self, code: int, why: str, *, request_id: str | int | None = None) -> None:
        self.reply = JSONRPCError(
            jsonrpc="2.0", id=request_id, error=ErrorData(code=code, message=why)
        )
        super().__init__(why)


class NoReply(NoMessage):
    """A reply that is none; two programs that reply to each other's replies would never end."""


def parse_message(line: str) -> JSONRPCMessage:
    """The message of a line. Raises NoMessage."""
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError:
        message = _parse_slowly(line)
    # With an id that is none, pydantic takes a request for a notification, to which nobody replies.
    if isinstance(message, JSONRPCNotification) and "id" in json.loads(line):
        raise NoMessage(INVALID_REQUEST, "the id of a request is a text or a whole number")
    return message


def _parse_slowly(line: str) -> JSONRPCMessage:
    """The message of a line that pydantic refuses. Raises NoMessage."""
    try:
        value: object = json.loads(line)
        whole = render_whole(value)
    except (ValueError, RecursionError) as exc:
        raise NoMessage(PARSE_ERROR, "the line is no JSON") from exc
    try:
        return jsonrpc_message_adapter.validate_json(whole, by_name=False)
    except ValidationError as exc:
        why = "the line is no JSON-RPC 2.0 message"
        match value:
            case list():
                why = "this is a batch: send one message a line"
                raise NoMessage(INVALID_REQUEST, why) from exc
            case {"method": object(), "id": str() | int() as found} if not isinstance(found, bool):
                raise NoMessage(INVALID_REQUEST, why, request_id=found) from exc
            case {"result": object()} | {"error": object()}:
                raise NoReply(INVALID_REQUEST, why) from exc
            case _:
                raise NoMessage(INVALID_REQUEST, why) from exc


def render_whole(value: object) -> str:
    """A value as JSON without half surrogate pairs; each is U+FFFD. Raises RecursionError.

    `JSON.stringify` of a string that was cut within an emoji writes half of a pair as an escape,
    which RFC 8259 leaves open (section 8.2) and pydantic's parser refuses.
    """
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_Arrived = tuple[JSONRPCMessage | NoMessage, float]


class MessagesAhead:
    """The messages on a wire and when each came, read in a daemon thread ahead of who takes them.

    A ping goes before all that still waits: a host that asks whether we live has no patience for
    the 200 calls that it wrote before.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire, self._loop = wire, asyncio.get_running_loop()
        self._pings, self._others = deque[_Arrived](), deque[_Arrived]()
        self._came, self._has_begun, self._is_over = asyncio.Event(), False, False
        self._failure: BaseException | None = None
        self._room = threading.Semaphore(MAX_AHEAD)
        threading.Thread(target=self._run, name="stdin", daemon=True).start()

    async def __aiter__(self) -> AsyncGenerator[_Arrived]:
        while True:
            while not (waiting := self._pings or self._others):
                if self._failure is not None:
                    raise self._failure
                if self._is_over:
                    return
                self._came.clear()
                await self._came.wait()
            self._room.release()
            message, at = waiting.popleft()
            self._has_begun |= isinstance(message, JSONRPCRequest)
            yield message, at

    def _run(self) -> None:
        with suppress(RuntimeError):  # the loop has ended before the host did
            try:
                while self._room.acquire() and (line := self._wire.readline()):
                    self._loop.call_soon_threadsafe(self._add, line, self._wire.read_at)
            except BaseException as exc:
                self._loop.call_soon_threadsafe(self._end, exc)
            else:
                self._loop.call_soon_threadsafe(self._end, None)

    def _add(self, line: str, at: float) -> None:
        if line.isspace():
            self._room.release()
            return
        found: JSONRPCMessage | NoMessage
        try:
            found = parse_message(line)
        except NoMessage as exc:
            # Not the line itself: it may hold a prompt.
            log.warning("a line of %d characters from the host: %s", len(line), exc)
            found = exc
        # The opening comes first whatever follows it: by that the SDK settles what is spoken.
        is_urgent = self._has_begun and isinstance(found, JSONRPCRequest) and found.method == "ping"
        (self._pings if is_urgent else self._others).append((found, at))
        self._came.set()

    def _end(self, failure: BaseException | None) -> None:
        self._failure, self._is_over = failure, True
        self._came.set()


async def serve_connection(server: MCPServer[Any], wire: Wire) -> None:
    """Serves one connection until it ends."""
    core = lowlevel_server(server)
    arrived, incoming = anyio.create_memory_object_stream[SessionMessage | Exception]()
    outgoing, leaving = anyio.create_memory_object_stream[SessionMessage]()
    async with anyio.create_task_group() as writing:
        writing.start_soon(_write_messages, wire, leaving)
        async with anyio.create_task_group() as reading, outgoing:
            reading.start_soon(_read_messages, wire, arrived, outgoing.clone())
            await core.run(incoming, outgoing, core.create_initialization_options())
            reading.cancel_scope.cancel()
        writing.cancel_scope.deadline = anyio.current_time() + WRITE_TIMEOUT


async def _read_messages(
    wire: Wire,
    arrived: MemoryObjectSendStream[SessionMessage | Exception],
    outgoing: MemoryObjectSendStream[SessionMessage],
) -> None:
    async with arrived, outgoing:
        async for found, at in MessagesAhead(wire):
            if not isinstance(found, NoMessage):
                # the SDK hands a handler what a transport puts here, as `ctx.request`
                came = ServerMessageMetadata(request_context=Arrival(at))
                await arrived.send(SessionMessage(found, came))
            elif not isinstance(found, NoReply):
                await outgoing.send(SessionMessage(found.reply))


async def _write_messages(wire: Wire, leaving: MemoryObjectReceiveStream[SessionMessage]) -> None:
    thread = DaemonCalls("stdout")
    async with leaving:
        async for sent in leaving:
            lines = [_to_line(sent)]
            with suppress(anyio.WouldBlock, anyio.EndOfStream):  # what waits leaves with it
                while len(lines) < MAX_TOGETHER:
                    lines.append(_to_line(leaving.receive_nowait()))
            await thread.run(partial(_write_each, wire, lines))


def _write_each(wire: Wire, lines: Sequence[str]) -> None:
    for line in lines:
        wire.write(line)


def _to_line(sent: SessionMessage) -> str:
    return sent.message.model_dump_json(by_alias=True, exclude_unset=True) + "\n"
