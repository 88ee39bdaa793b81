"""State under one directory of this machine: token files, lock files and a SQLite journal.

Lock order, for a task that holds two: an account's lock file, the journal's (held only while the
journal is opened), then SQLite's own write lock. No lock is held across a network exchange but an
account's, which is there so that one process asks the identity host.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from filelock import FileLock, Timeout

from arta_mcp.arta.account import Account
from arta_mcp.arta.protocol import Image, is_record_id, is_token
from arta_mcp.errors import ConfigError, ProtocolError, Unavailable
from arta_mcp.files import UnsafeFolder, make_private_folder, write_atomically
from arta_mcp.redaction import Secret, sanitize
from arta_mcp.state.checks import check_folder, check_journal, check_modes
from arta_mcp.state.records import JournalEntry, StateDescription, StyleList, Timing
from arta_mcp.untrusted_json import is_object, json_or_none, list_or_empty, text

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

log = logging.getLogger(__name__)

BUSY_TIMEOUT = 30.0
"""seconds; what others write takes milliseconds"""

LOCK_TIMEOUT = 90.0
"""seconds; longer than an exchange with the identity host with all its tries"""

MAX_FILE_THREADS = 4
"""token and style files that are read or written at the same time"""

_LAST_SECOND = 1e12
"""seconds since the epoch; a token file that names a later time is damaged"""

_COLUMNS = tuple(field.name for field in fields(JournalEntry) if field.name != "id")

_BY_RECORD = "service = ? AND record_id = ?"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS generations (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL, key TEXT, fingerprint TEXT NOT NULL, request TEXT NOT NULL,
    style TEXT NOT NULL, phase TEXT NOT NULL, created_at REAL NOT NULL, lease_until REAL NOT NULL,
    record_id TEXT, seed INTEGER, submitted_at REAL, seen_waiting REAL,
    seen_queued REAL, seen_drawing REAL, finished_at REAL,
    images TEXT NOT NULL, paths TEXT NOT NULL, error TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS by_key ON generations (service, key) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX IF NOT EXISTS by_record ON generations (service, record_id)
    WHERE record_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_style ON generations (service, style, phase, finished_at);
"""


class _Busy(Exception):
    """Another process is writing; worth another try."""


class SqliteState:
    """See `State`. Every file is 0600 in a 0700 folder, from its first byte."""

    def __init__(self, directory: Path, *, warn: Callable[[str], None] | None = None) -> None:
        """`warn` takes what a person should know: a damaged journal that was moved aside."""
        self._directory = directory
        self._journal_file = directory / "generations.sqlite3"
        self._warn = warn or log.warning
        self._db: sqlite3.Connection | None = None
        # One connection, used by one thread at a time; SQLite lets one writer in anyway.
        self._journal_turns = anyio.CapacityLimiter(1)
        # Apart from the journal's, so that a token is read while a long list is.
        self._file_turns = anyio.CapacityLimiter(MAX_FILE_THREADS)

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncGenerator[None]:
        await self._run(lambda: make_private_folder(self._directory))
        # thread_local: taken in one thread, released perhaps in another
        lock = FileLock(self._directory / f"{name}.lock", mode=0o600, thread_local=False)
        pause = 0.005
        try:
            with anyio.fail_after(LOCK_TIMEOUT):
                while not lock.is_locked:  # in short steps: a wait of its own cannot be cancelled
                    try:
                        lock.acquire(timeout=0)
                    except Timeout:
                        await anyio.sleep(pause)
                        pause = min(pause * 1.5, 0.1)
        except TimeoutError as exc:
            raise Unavailable(
                f"another process has held {name}.lock for over {LOCK_TIMEOUT:.0f} s",
                hint="end the arta-mcp process that hangs, then try again",
            ) from exc
        except OSError as exc:
            raise self._explain(exc) from exc
        try:
            yield
        finally:
            lock.release()

    async def account(self, name: str) -> Account | None:
        return await self._run(lambda: _read_account(self._read(self._account_file(name))))

    async def keep_account(self, name: str, account: Account | None) -> None:
        await self._run(lambda: self._write_account(name, account))

    async def styles(self, service: str) -> StyleList | None:
        return await self._run(lambda: _read_styles(self._read(self._styles_file(service))))

    async def keep_styles(self, service: str, listed: StyleList) -> None:
        content = json.dumps({"names": listed.names, "listed_at": listed.listed_at}).encode()
        await self._run(lambda: self._write(self._styles_file(service), content))

    async def begin(self, entry: JournalEntry) -> tuple[JournalEntry, bool]:
        def work(db: sqlite3.Connection) -> tuple[JournalEntry, bool]:
            first = None
            if entry.key:
                first = _select_one(db, "service = ? AND key = ?", entry.service, entry.key)
            if first is None:
                return _insert(db, entry), True
            if not first.is_free(entry.created_at):
                return first, False
            again = replace(entry, id=first.id)
            _update(db, again)
            return again, True

        return await self._journal(work)

    async def claim(self, entry: JournalEntry, *, lease_before: float) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            where = "id = ? AND phase = 'intended' AND lease_until = ?"
            is_ours = _select_one(db, where, entry.id, lease_before) is not None
            if is_ours:
                _update(db, entry)
            return is_ours

        return await self._journal(work)

    async def update(self, entry: JournalEntry) -> None:
        await self._journal(lambda db: _update(db, entry))

    async def adopt(self, entry: JournalEntry) -> JournalEntry:
        def work(db: sqlite3.Connection) -> JournalEntry:
            stands = _select_one(db, _BY_RECORD, entry.service, entry.record_id)
            return stands or _insert(db, entry)

        return await self._journal(work)

    async def find(self, service: str, record_id: str) -> JournalEntry | None:
        if not is_record_id(record_id):  # half a surrogate pair, say, which SQLite cannot take
            return None
        return await self._journal(lambda db: _select_one(db, _BY_RECORD, service, record_id))

    async def latest(self, service: str | None, limit: int) -> tuple[JournalEntry, ...]:
        where, values = ("service = ?", (service,)) if service else ("1", ())
        query = f"{where} ORDER BY created_at DESC, id DESC LIMIT ?"
        return await self._journal(lambda db: _select(db, query, *values, limit))

    async def finish(self, entry: JournalEntry) -> JournalEntry:
        def work(db: sqlite3.Connection) -> JournalEntry:
            stands = _select_one(db, "id = ? AND phase = 'done'", entry.id)
            if stands is None:
                _update(db, entry)
            return stands or entry

        return await self._journal(work)

    async def timings(self, service: str, style: str, limit: int) -> tuple[Timing, ...]:
        query = (
            "SELECT submitted_at, seen_waiting, finished_at, seen_queued, seen_drawing"
            " FROM generations"
            " WHERE service = ? AND style = ? AND phase = 'done'"
            " AND submitted_at IS NOT NULL AND finished_at IS NOT NULL"
            " ORDER BY finished_at DESC LIMIT ?"
        )
        rows = await self._journal(lambda db: db.execute(query, (service, style, limit)).fetchall())
        return tuple(Timing(*row) for row in reversed(rows))

    async def describe(self, account_name: str) -> StateDescription:
        folder, account = self._directory, self._account_file(account_name)

        def work() -> StateDescription:
            checks = [check_folder("state folder", "ARTA_STATE_DIR", folder, private=True)]
            if folder.is_dir():
                checks += check_modes(folder.glob("account-*.json"))
                if self._journal_file.exists():
                    checks.append(check_journal(self._journal_file))
            stored = str(account) if account.exists() else None
            return StateDescription(str(folder), stored, tuple(checks))

        return await anyio.to_thread.run_sync(work)

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._run(self._close_journal, limiter=self._journal_turns)

    # Threads and transactions

    async def _run(
        self, work: Callable[[], T], *, limiter: anyio.CapacityLimiter | None = None
    ) -> T:
        try:
            return await anyio.to_thread.run_sync(work, limiter=limiter or self._file_turns)
        except OSError as exc:
            raise self._explain(exc) from exc

    def _explain(self, exc: OSError) -> ConfigError | Unavailable:
        where = f"the state folder {self._directory}"
        if isinstance(exc, UnsafeFolder):
            return ConfigError(f"{where} {exc}", hint="set ARTA_STATE_DIR elsewhere")
        why = exc.strerror or type(exc).__name__
        return Unavailable(
            f"{where} cannot be used: {sanitize(why)}",
            hint="make room or set the permissions, or set ARTA_STATE_DIR elsewhere",
        )

    async def _journal(self, work: Work[T]) -> T:
        """Runs `work` in a transaction, waiting for other writers.

        The wait is ours, in short steps, because SQLite's own cannot be cancelled.
        """
        db = await self._open()
        with anyio.move_on_after(BUSY_TIMEOUT):
            while True:
                try:
                    transaction = partial(self._transact, db, work)
                    return await self._run(transaction, limiter=self._journal_turns)
                except _Busy:
                    await anyio.sleep(0.02)
        busy = f"another process has been writing to the journal for over {BUSY_TIMEOUT:.0f} s"
        raise Unavailable(busy)

    def _transact(self, db: sqlite3.Connection, work: Work[T]) -> T:
        try:
            # IMMEDIATE: a read that later writes could find its lock taken and its read stale
            db.execute("BEGIN IMMEDIATE")
            with db:
                return work(db)
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise _Busy from exc
            raise Unavailable(f"the journal cannot be used: {sanitize(str(exc))}") from exc
        except sqlite3.ProgrammingError as exc:  # closed while this waited for its turn
            raise Unavailable("the journal was closed meanwhile") from exc
        except sqlite3.IntegrityError as exc:
            raise ProtocolError("the service gave the record id of another job") from exc
        except sqlite3.DatabaseError as exc:
            if exc.sqlite_errorcode not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            self._close_journal()  # the next call moves the damaged file aside
            raise Unavailable(f"the journal is damaged: {sanitize(str(exc))}") from exc

    # Files

    def _account_file(self, name: str) -> Path:
        return self._directory / f"account-{name}.json"

    def _styles_file(self, service: str) -> Path:
        return self._directory / f"styles-{re.sub('[^a-z0-9.-]', '_', service.lower())}.json"

    def _read(self, path: Path) -> Mapping[str, object]:
        """What a file says; a damaged one is the same as none, since both can be had anew."""
        make_private_folder(self._directory)
        try:
            stored = json_or_none(path.read_bytes())
        except FileNotFoundError:
            return {}
        return stored if is_object(stored) else {}

    def _write(self, path: Path, content: bytes) -> None:
        make_private_folder(self._directory)
        write_atomically(path, content)

    def _write_account(self, name: str, account: Account | None) -> None:
        make_private_folder(self._directory)
        path = self._account_file(name)
        # Who writes an account holds its lock, so a draft is what a killed process left.
        for draft in path.parent.glob(f".{path.name}.*"):
            draft.unlink(missing_ok=True)
        if account is None:
            path.unlink(missing_ok=True)
            return
        content = asdict(account) | {
            "id_token": account.id_token.reveal(),
            "refresh_token": account.refresh_token.reveal(),
        }
        self._write(path, json.dumps(content, indent=1).encode())

    def _close_journal(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    async def _open(self) -> sqlite3.Connection:
        if self._db is None:
            # Two processes must not both move a damaged file aside, the second a healthy one.
            async with self.lock("generations"):
                if self._db is None:
                    self._db = await self._run(self._open_or_move_aside)
        return self._db

    def _open_or_move_aside(self) -> sqlite3.Connection:
        path = self._journal_file
        try:
            return _connect(path)
        except sqlite3.OperationalError as exc:
            raise Unavailable(
                f"the journal cannot be opened: {sanitize(str(exc))}",
                hint=f"look at {path}; nothing was changed",
            ) from exc
        except sqlite3.DatabaseError as exc:
            now = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns()}"
            aside = path.with_name(f"{path.name}.damaged-{now}")
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{path}{suffix}").replace(f"{aside}{suffix}")
            self._warn(f"the journal was damaged ({exc}); it was moved to {aside}")
            return _connect(path)


def _read_account(stored: Mapping[str, object]) -> Account | None:
    id_token, refresh_token = text(stored, "id_token"), text(stored, "refresh_token")
    issued_at, expires_at = stored.get("issued_at"), stored.get("expires_at")
    if not isinstance(issued_at, int | float) or not isinstance(expires_at, int | float):
        return None
    if not is_token(id_token) or not is_token(refresh_token):
        return None
    if not 0 <= issued_at <= expires_at < _LAST_SECOND:
        return None
    return Account(
        id_token=Secret(id_token),
        refresh_token=Secret(refresh_token),
        issued_at=float(issued_at),
        expires_at=float(expires_at),
        user_id=text(stored, "user_id"),
    )


def _read_styles(stored: Mapping[str, object]) -> StyleList | None:
    listed_at, names = stored.get("listed_at"), list_or_empty(stored.get("names"))
    if not isinstance(listed_at, int | float) or not 0 <= listed_at < _LAST_SECOND or not names:
        return None
    return StyleList(tuple(name for name in names if isinstance(name, str)), float(listed_at))


# The journal as rows


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite's own mode is the umask's
    # timeout 0.1 s: `_journal` waits for other writers itself, in steps that can be cancelled
    db = sqlite3.connect(path, timeout=0.1, check_same_thread=False, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")  # survives our death; FULL is for power cuts
        db.executescript(_SCHEMA)
        # A journal of an earlier version gets the columns that came since; they may be null.
        there = {row[1] for row in db.execute("PRAGMA table_info(generations)")}
        for name in _COLUMNS:
            if name not in there:
                db.execute(f"ALTER TABLE generations ADD COLUMN {name} REAL")
        if (found := db.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
            raise sqlite3.DatabaseError(str(found))
    except BaseException:
        db.close()
        raise
    return db


def _insert(db: sqlite3.Connection, entry: JournalEntry) -> JournalEntry:
    marks = ", ".join("?" * len(_COLUMNS))
    query = f"INSERT INTO generations ({', '.join(_COLUMNS)}) VALUES ({marks})"  # noqa: S608  # constants only
    cursor = db.execute(query, _row(entry))
    return replace(entry, id=cursor.lastrowid or 0)


def _update(db: sqlite3.Connection, entry: JournalEntry) -> None:
    assignments = ", ".join(f"{name} = ?" for name in _COLUMNS)
    query = f"UPDATE generations SET {assignments} WHERE id = ?"  # noqa: S608  # constants only
    db.execute(query, (*_row(entry), entry.id))


def _select(db: sqlite3.Connection, where: str, *values: object) -> tuple[JournalEntry, ...]:
    query = f"SELECT id, {', '.join(_COLUMNS)} FROM generations WHERE {where}"  # noqa: S608  # constants only
    return tuple(_entry(row) for row in db.execute(query, values))


def _select_one(db: sqlite3.Connection, where: str, *values: object) -> JournalEntry | None:
    return next(iter(_select(db, f"{where} LIMIT 1", *values)), None)


def _row(entry: JournalEntry) -> tuple[object, ...]:
    values: dict[str, object] = {name: getattr(entry, name) for name in _COLUMNS}
    values["images"] = json.dumps([image.render() for image in entry.images])
    values["paths"] = json.dumps(entry.paths)
    return tuple(values.values())


def _entry(row: tuple[object, ...]) -> JournalEntry:
    values: dict[str, Any] = dict(zip(("id", *_COLUMNS), row, strict=True))
    stored: list[dict[str, object]] = json.loads(values["images"])
    values["images"] = tuple(
        Image(text(one, "url"), text(one, "name"), one.get("isBlur") is True, text(one, "MIME"))
        for one in stored
    )
    values["paths"] = tuple(json.loads(values["paths"]))
    # 0.1.0 took any printable text of a service for an id.
    if values["record_id"] is not None and not is_record_id(values["record_id"]):
        values["record_id"] = None
    return JournalEntry(**values)
