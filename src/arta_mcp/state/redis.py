"""State on a Redis or Valkey server, shared by processes on any number of machines.

Every transition is one Lua script, so that it happens at once or not at all and costs one round
trip. The server's clock decides. A process says each second that it lives; what is said here of one
that no longer does (`scripts/common.lua`) stands in place of the locks of files that SQLite has.

    calls                        what may be lost, and what becomes of it
    ---------------------------  ---------------------------------------------------------------
    a script's answer            the same script once more, which finds that it has run
    `begin`, or a write before   given up by the call; freed with the next beat that the server
      the POST                     answers, since nothing was sent
    a write after the POST       tried again by the recorder
    the server's memory          told to the next call by another epoch
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any
from urllib.parse import quote, unquote

import anyio

from arta_mcp.arta.account import Account
from arta_mcp.arta.protocol import is_record_id
from arta_mcp.background import BackgroundTasks
from arta_mcp.errors import ArtaError, ProtocolError, Unavailable
from arta_mcp.redaction import Secret, sanitize
from arta_mcp.state.contract import CUT_SHARE, UNANSWERED_TTL, IsWaiting
from arta_mcp.state.records import (
    Begun,
    CallNote,
    Health,
    JournalEntry,
    NoRoom,
    Pruned,
    Quota,
    StateDescription,
    StyleList,
    Timing,
)
from arta_mcp.state.redis_checks import check_server, describe_server
from arta_mcp.state.redis_client import RedisClient
from arta_mcp.state.stored import (
    COLUMNS,
    WRITTEN,
    DamagedEntry,
    account_values,
    timing_line,
    to_account,
    to_entry,
    to_styles,
    to_timing,
    to_values,
)
from arta_mcp.untrusted_json import is_object, json_or_none

log = logging.getLogger(__name__)

BEAT_INTERVAL = 1.0
"""seconds between two signs of life; after four (LEASE in common.lua) a process counts as dead"""

LEASE = 4.0
"""seconds; LEASE of common.lua"""

SHUTDOWN_LEASE = 15.0
"""seconds that the last sign of life is good for: a submit under way has eight, then its id"""

LOCK_LEASE = 10.0
"""seconds after which a lock that is not renewed is another's"""

LOCK_TIMEOUT = 90.0
"""seconds; longer than an exchange with the identity host with all its tries"""

DOUBT_PAUSE = 0.25
"""seconds until `begin` asks again whether the process of a caller lives"""

GOODBYE_TTL = 60.0
"""seconds in which it is remembered that a process has said that it ends"""

GOODBYE_TIMEOUT = 1.0
"""seconds that a process has to say that it is gone, or gives a lock back"""

MAX_GIVEN_UP = 1000
"""calls whose outcome is not known that are remembered; the oldest are forgotten first"""

PAGE = 500
"""entries in one answer"""

MAX_TIMINGS = 100
"""finished jobs of a style that are kept for poll schedules"""

_ORDERED = ("service", "owner", "key", "fingerprint", "request", "style")
_MADE = tuple(name for name in WRITTEN if name not in {*_ORDERED, "version", "phase"})

_NEVER_SENT = "its process ended before it was sent"


class RedisState:
    """See `State`. Nothing is opened before the first call."""

    def __init__(
        self,
        url: Secret,
        *,
        background: BackgroundTasks | None = None,
        warn: Callable[[str], None] | None = None,
        ahead: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`warn` takes what a person should know of the server.

        What holds a lock or begins an entry needs `background`, where this process says that it
        lives. `ahead` puts the time of entries forward, in seconds; tests need not wait then.
        """
        self._client = RedisClient(url)
        self._background, self._warn, self._ahead = background, warn or log.warning, ahead
        self._process = secrets.token_hex(8)
        self._epoch: str | None = None
        self._has_lost_memory = False
        self._offset = time.time() - time.monotonic()
        self._starting = anyio.Lock()
        self._beating: anyio.CancelScope | None = None
        self._is_known = False
        self._locks: dict[str, str] = {}
        self._sending: dict[str, list[anyio.Event]] = {}
        self._given_up: dict[tuple[str, str, str], None] = {}
        self._named = set[str]()

    def now(self) -> float:
        return time.monotonic() + self._offset + self._ahead()

    # Locks and accounts

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncGenerator[int]:
        await self._start()
        key, token = _key("lock", name), secrets.token_hex(8)
        try:
            fence = await self._acquire(name, key, token)
            self._locks[key] = token
            yield fence
        finally:
            self._locks.pop(key, None)
            # Whatever interrupted this may have come after the lock was taken.
            with anyio.move_on_after(GOODBYE_TIMEOUT, shield=True), suppress(ArtaError):
                await self._run("unlock", [key], token)

    async def _acquire(self, name: str, key: str, token: str) -> int:
        pause = 0.01
        with anyio.move_on_after(LOCK_TIMEOUT):
            while True:
                fence = await self._run("lock", [key, _key("fence")], token, _ms(LOCK_LEASE))
                if fence is not None:
                    return int(fence)
                await anyio.sleep(pause)
                pause = min(pause * 1.5, 0.25)
        raise Unavailable(
            f"another process has held the lock {name} for over {LOCK_TIMEOUT:.0f} s",
            hint="end the arta-mcp process that hangs, then try again",
        )

    async def account(self, name: str) -> Account | None:
        stored = await self._client.command("HGET", _key("account", name), "account")
        return to_account(_object(stored))

    async def keep_account(self, name: str, account: Account | None, *, fence: int) -> bool:
        content = json.dumps(account_values(account)) if account else ""
        return await self._run("keep_account", [_key("account", name)], fence, content) == 1

    async def styles(self, service: str) -> StyleList | None:
        return to_styles(_object(await self._client.command("GET", _key("styles", service))))

    async def keep_styles(self, service: str, listed: StyleList) -> None:
        await self._client.command("SET", _key("styles", service), json.dumps(asdict(listed)))

    # The journal

    async def begin(
        self, entry: JournalEntry, *, is_waiting: IsWaiting, quotas: Sequence[Quota] = ()
    ) -> Begun | NoRoom:
        await self._start()
        self._tell_lost_memory()
        entry = replace(entry, id=entry.id or secrets.token_hex(16))
        kind, index = _kind(entry)
        # An equal call that was just cut may be on its way to its POST: found once it says so.
        for sent in tuple(self._sending.get(index, ())):
            await sent.wait()
        try:
            return await self._begin(entry, is_waiting, quotas)
        except BaseException:
            self._give_up("", index if kind == "key" else _key("entry", entry.id), entry.id)
            raise

    async def _begin(
        self, entry: JournalEntry, is_waiting: IsWaiting, quotas: Sequence[Quota]
    ) -> Begun | NoRoom:
        """Runs `begin.lua` until it has an answer: the server knows no tasks of ours."""
        kind, index = _kind(entry)
        counts = (_key("counted", quota.name) for quota in quotas)
        keys = [_key("entry", entry.id), _newest(entry), _key("epoch"), index, *counts]
        draft = (
            *(self._process, entry.id, kind, self._caller(entry.caller)),
            *(_json(entry, _ORDERED), _json(entry, _MADE), _flag(entry.answered_at is not None)),
            *(UNANSWERED_TTL, CUT_SHARE, round(self._ahead() * 1e6)),
        )
        bounds = [bound for quota in quotas for bound in (quota.hourly, quota.amount)]
        came, asked = "", dict[str, bool]()
        while True:
            told = (word for token in asked for word in (token, _flag(asked[token])))
            sent = (*draft, self._epoch or "", came, *bounds, *told)
            match await self._run("begin", keys, *sent):
                case ["ours", str(found), version, begun_at, *used]:
                    at, answered = float(begun_at), entry.answered_at is not None
                    begun = replace(entry, id=found, version=int(version), created_at=at)
                    begun = replace(begun, answered_at=at) if answered else begun
                    return Begun(entry=begun, is_ours=True, used=tuple(used))
                case ["theirs", stored]:
                    if kind == "caller":  # a first run, whose answer was lost, may have begun one
                        self._give_up("", keys[0], entry.id)
                    return Begun(entry=self._entry(stored), is_ours=False)
                case ["full", which, used, wait]:
                    return NoRoom(quota=quotas[int(which)], used=int(used), wait=int(wait) / 1e6)
                # It asks who of the callers of this process still waits.
                case ["ask", *tokens]:
                    asked |= dict.fromkeys(tokens, False)
                # A lease says that a process lived, not that it lives: until its next beat, or
                # until the lease is over, nobody knows whether its call has gone.
                case ["doubt", came]:
                    await anyio.sleep(DOUBT_PAUSE)
                case _:  # another epoch
                    await self._beat()
                    self._tell_lost_memory()
            asked = {token: is_waiting(token) and token != entry.caller for token in asked}

    async def write(self, entry: JournalEntry) -> JournalEntry | None:
        written = replace(entry, version=entry.version + 1)
        key = _key("entry", entry.id)
        with self._noting_send(entry):
            try:
                reply = await self._run(
                    "write",
                    [key, _record(entry)],
                    self._process,
                    entry.id,
                    entry.version,
                    entry.phase,
                    _json(entry, _MADE),
                    entry.record_id or "",
                )
            except BaseException:
                if entry.phase in ("intended", "sending"):
                    self._give_up(str(written.version), key, "")
                raise
        match reply:
            case "written":
                return written
            case "late":
                return None
            case "gone":
                return await self._add(written)
            case _:
                raise ProtocolError("the service gave the record id of another job")

    async def note_call(self, entry_id: str, note: CallNote) -> None:
        noted = (self._caller(note.caller), _text(note.answered_at), _text(note.cut_after))
        await self._run("note_call", [_key("entry", entry_id)], *noted)

    async def adopt(self, entry: JournalEntry) -> JournalEntry:
        return await self._add(replace(entry, id=entry.id or secrets.token_hex(16)), adopts=True)

    async def find(self, service: str, owner: str, record_id: str) -> JournalEntry | None:
        if not is_record_id(record_id):
            return None
        reply = await self._run("find", [_key("record", service, record_id)], self._process)
        if reply is None:
            return None
        entry = self._entry(reply)
        return entry if (entry.service, entry.owner) == (service, owner) else None

    async def latest(self, service: str, owner: str, limit: int) -> tuple[JournalEntry, ...]:
        found: list[JournalEntry] = []
        for start in range(0, limit, PAGE):
            count = min(PAGE, limit - start)
            page = await self._run(
                "latest", [_key("newest", service, owner)], self._process, start, count
            )
            for stored in page:
                try:
                    found.append(self._entry(stored))
                except Unavailable as exc:
                    self._warn_once(f"{exc.message}; the others are told")
            if len(page) < count:
                break
        return tuple(found)

    async def finish(self, entry: JournalEntry) -> JournalEntry:
        reply = await self._run(
            "finish",
            [_key("entry", entry.id), _key("timings", entry.service, entry.style)],
            self._process,
            entry.id,
            entry.phase,
            _json(entry, _MADE),
            timing_line(entry),
            MAX_TIMINGS,
        )
        match reply:
            case ["written", version]:
                return replace(entry, version=int(version))
            case ["stands", stored]:
                return self._entry(stored)
            case _:
                return await self._add(replace(entry, version=entry.version + 1))

    async def timings(self, service: str, style: str, limit: int) -> tuple[Timing, ...]:
        key = _key("timings", service, style)
        stored = await self._client.command("LRANGE", key, 0, limit - 1)
        found = (to_timing(line) for line in reversed(stored))
        return tuple(timing for timing in found if timing is not None)

    async def prune(self, service: str, owner: str, before: float) -> Pruned:
        count = kept = 0
        record_ids: list[str] = []
        while True:
            looked_at, stay, *removed = await self._run(
                "prune",
                [_key("newest", service, owner)],
                before,
                kept,
                PAGE,
                _key("record", service, ""),
            )
            count, kept = count + len(removed), kept + int(stay)
            record_ids += filter(None, removed)
            if looked_at < PAGE:
                return Pruned(count, tuple(record_ids), kept)

    async def owners(self) -> tuple[tuple[str, str], ...]:
        found, cursor = set[tuple[str, str]](), "0"
        while True:
            # Not KEYS, which holds up every other call until it has seen all.
            cursor, keys = await self._client.command(
                "SCAN", cursor, "MATCH", f"{_key('newest')}:*", "COUNT", PAGE
            )
            for key in keys:
                service, owner = key.split(":")[-2:]
                found.add((unquote(service), unquote(owner)))
            if int(cursor) == 0:
                return tuple(sorted(found))

    async def counted(self, name: str) -> int:
        return await self._run("counted", [_key("counted", name)], round(self._ahead() * 1e6))

    # The server

    async def health(self) -> Health:
        return await check_server(self._client, _key("epoch"))

    async def describe(self, account_name: str) -> StateDescription:
        health, where = await self.health(), self._client.location
        stored, key = None, _key("account", account_name)
        if health.answers and await self._client.command("HGET", key, "account"):
            stored = f"{key} at {where}"
        return StateDescription(where, stored, describe_server(health, where))

    async def close(self) -> None:
        beating, self._beating = self._beating, None
        if beating is not None:
            beating.cancel()
        if self._is_known:
            self._is_known = False
            with anyio.move_on_after(GOODBYE_TIMEOUT, shield=True), suppress(ArtaError):
                alive = _key("alive", self._process)
                await self._client.command("SET", alive, 0, "PX", _ms(GOODBYE_TTL))
        with anyio.CancelScope(shield=True):
            await self._client.close()

    # Signs of life

    async def _start(self) -> None:
        """Says that this process lives, and from now on each second."""
        if self._epoch is not None and self._beating is not None:
            return
        async with self._starting:
            if self._beating is not None:  # by whoever was first
                return
            if self._background is None:
                raise RuntimeError("this state was opened to be read only")
            scope = anyio.CancelScope()
            self._background.spawn(lambda: self._keep_beating(scope))
            self._beating = scope
            try:
                await self._beat()
            except BaseException:
                self._beating = None
                scope.cancel()
                raise
            for warning in (await self.health()).warnings:
                self._warn_once(f"the shared state at {self._client.location}: {warning}")

    async def _keep_beating(self, scope: anyio.CancelScope) -> None:
        with scope:
            try:
                while True:
                    await anyio.sleep(BEAT_INTERVAL)
                    try:
                        await self._beat()
                    except ArtaError as exc:
                        log.info("%s", exc.message)
            finally:
                # The block ends, and this before what it still has under way: until `close`.
                if self._beating is scope:
                    self._beating = None
                    with anyio.move_on_after(GOODBYE_TIMEOUT, shield=True), suppress(ArtaError):
                        await self._beat(SHUTDOWN_LEASE)

    async def _beat(self, lease: float = LEASE) -> None:
        locks, given_up = dict(self._locks), tuple(self._given_up)
        names = ("grace", "epoch")
        keys = [_key("alive", self._process), _key("beat"), *map(_key, names), *locks]
        epoch, clock = await self._run(
            "beat",
            keys,
            self._process,
            secrets.token_hex(8),
            _ms(lease),
            _ms(LOCK_LEASE),
            len(locks),
            *locks.values(),
            *(word for one in given_up for word in one),
        )
        # From the clock that only goes forward: a step of the wall clock moves no entry.
        self._offset = int(clock) / 1e6 - time.monotonic()
        # Now that the beat was answered: what was given up since is for the next one.
        for one in given_up:
            self._given_up.pop(one, None)
        if self._epoch is not None and epoch != self._epoch:
            self._has_lost_memory = True
            self._warn(f"{self._lost_memory}; earlier generations are not in it")
        self._epoch, self._is_known = epoch, True

    def _give_up(self, version: str, at: str, mark: str) -> None:
        """Lets the next beat free what may have been written before the POST: see `beat.lua`."""
        self._given_up[version, at, mark] = None
        if len(self._given_up) > MAX_GIVEN_UP:
            del self._given_up[next(iter(self._given_up))]

    @property
    def _lost_memory(self) -> str:
        return f"the shared state at {self._client.location} has lost its memory while this ran"

    def _tell_lost_memory(self) -> None:
        if self._has_lost_memory:
            self._has_lost_memory = False
            raise Unavailable(
                f"{self._lost_memory}; nothing was ordered",
                hint="call again to begin anew; idempotency keys of before are not known to it",
            )

    # Entries

    @contextmanager
    def _noting_send(self, entry: JournalEntry) -> Generator[None]:
        """Lets equal calls of this process wait for a write that comes right before a POST."""
        if entry.phase != "sending":
            yield
            return
        index, sent = _kind(entry)[1], anyio.Event()
        self._sending.setdefault(index, []).append(sent)
        try:
            yield
        finally:
            sent.set()
            self._sending[index].remove(sent)
            if not self._sending[index]:
                del self._sending[index]

    async def _add(self, entry: JournalEntry, *, adopts: bool = False) -> JournalEntry:
        _, index = _kind(entry)
        reply = await self._run(
            "add",
            [_key("entry", entry.id), _newest(entry), _record(entry), index],
            self._process,
            entry.id,
            entry.version,
            entry.phase,
            f"{entry.created_at:.6f}",
            self._caller(entry.caller),
            _text(entry.answered_at),
            _text(entry.cut_after),
            _json(entry, _ORDERED),
            _json(entry, _MADE),
            entry.record_id or "",
            _flag(entry.key is not None),
        )
        stands = self._entry(reply)
        if stands.id != entry.id and not adopts:
            raise ProtocolError("the service gave the record id of another job")
        return stands

    def _entry(self, stored: list[str]) -> JournalEntry:
        version, phase, created_at, caller, answered_at, cut_after, ordered, made, entry_id = stored
        try:
            values = {
                **dict.fromkeys(COLUMNS),
                **_object(ordered),
                **_object(made),
                "id": entry_id,
                "version": int(version),
                "phase": phase,
                "created_at": float(created_at),
                "caller": caller.partition("/")[2] or None,
                "answered_at": float(answered_at) if answered_at else None,
                "cut_after": float(cut_after) if cut_after else None,
            }
            entry = to_entry(values)
        except (DamagedEntry, ValueError) as exc:
            raise Unavailable(
                f"the entry {sanitize(entry_id, 40)} of the shared state is damaged"
                f" ({sanitize(str(exc), 80)})"
            ) from exc
        if entry.phase == "refused" and entry.error is None:  # by the store itself
            return replace(entry, error=_NEVER_SENT)
        return entry

    def _caller(self, token: str | None) -> str:
        return f"{self._process}/{token}" if token else ""

    def _warn_once(self, what: str) -> None:
        if what not in self._named:
            self._named.add(what)
            self._warn(what)

    async def _run(self, script: str, keys: list[str], *arguments: str | float) -> Any:
        return await self._client.run(script, keys, *arguments)


def _key(*parts: str) -> str:
    # Quoted: an owner with a colon in it must not be the key of another one.
    return ":".join(("{arta}", *(quote(part, safe="") for part in parts)))


def _newest(entry: JournalEntry) -> str:
    return _key("newest", entry.service, entry.owner)


def _record(entry: JournalEntry) -> str:
    return _key("record", entry.service, entry.record_id or "")


def _kind(entry: JournalEntry) -> tuple[str, str]:
    """What an entry is found by when it is begun, and the index of that."""
    if entry.key is not None:
        digest = sha256(entry.key.encode("utf-8", "surrogatepass")).hexdigest()
        return "key", _key("key", entry.service, entry.owner, digest)
    if entry.caller is not None:
        return "caller", _key("unanswered", entry.service, entry.owner, entry.fingerprint)
    return "plain", _key("unanswered")


def _json(entry: JournalEntry, names: tuple[str, ...]) -> str:
    values = to_values(entry, names)
    return json.dumps({name: value for name, value in values.items() if value is not None})


def _object(stored: object) -> Mapping[str, object]:
    found = json_or_none(stored.encode()) if isinstance(stored, str) else None
    return found if is_object(found) else {}


def _text(number: float | None) -> str:
    return "" if number is None else f"{number:.6f}"


def _flag(holds: bool) -> str:
    return "1" if holds else ""


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
