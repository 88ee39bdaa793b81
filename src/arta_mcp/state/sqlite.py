"""State under one directory of this machine: token files, lock files and a SQLite journal."""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import stat
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from filelock import FileLock, Timeout

from arta_mcp.arta.protocol import Image, is_record_id, is_token
from arta_mcp.errors import ConfigError, ProtocolError, Unavailable
from arta_mcp.redaction import Secret, sanitize
from arta_mcp.state.contract import Account, Entry, StyleList, Timing
from arta_mcp.untrusted_json import entries, is_object, json_or_none, text

T = TypeVar("T")

log = logging.getLogger(__name__)

BUSY_TIMEOUT = 30.0
"""seconds; what others write takes milliseconds"""

LOCK_TIMEOUT = 90.0
"""seconds; longer than an exchange with the identity host with all its tries"""

_LAST_SECOND = 1e12
"""seconds since the epoch; a token file that names a later time is damaged"""

_COLUMNS = tuple(field.name for field in fields(Entry) if field.name != "id")

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


class _Busy(Unavailable):
    """Another process is writing; worth another try."""


class LocalState:
    """See `State`. Every file is 0600 in a 0700 folder, from its first byte."""

    def __init__(self, directory: Path, *, warn: Callable[[str], None] | None = None) -> None:
        self._directory = directory
        self._warn = warn or log.warning
        self._db: sqlite3.Connection | None = None
        self._turns = anyio.CapacityLimiter(1)

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncGenerator[None]:
        await self._run(self._prepare)
        lock = FileLock(self._directory / f"{name}.lock", mode=0o600, thread_local=False)
        try:
            with anyio.fail_after(LOCK_TIMEOUT):
                await _take(lock)
        except TimeoutError as exc:
            raise Unavailable(
                f"another process has held {name}.lock for over {LOCK_TIMEOUT:.0f} s",
                hint="end the arta-mcp process that hangs, then try again",
            ) from exc
        except OSError as exc:
            raise self._unusable(exc) from exc
        try:
            yield
        finally:
            lock.release()

    async def account(self, name: str) -> Account | None:
        return await self._run(lambda: _read_account(self._account_file(name)))

    async def keep_account(self, name: str, account: Account | None) -> None:
        await self._run(lambda: self._write_account(name, account))

    async def styles(self, service: str) -> StyleList | None:
        return await self._run(lambda: _read_styles(self._styles_file(service)))

    async def keep_styles(self, service: str, listed: StyleList) -> None:
        content = json.dumps({"names": listed.names, "listed_at": listed.listed_at})
        await self._run(lambda: write_private(self._styles_file(service), content.encode()))

    async def begin(
        self,
        *,
        service: str,
        key: str | None,
        fingerprint: str,
        request: str,
        style: str,
        now: float,
        lease: float,
    ) -> tuple[Entry, bool]:
        fresh = Entry(
            id=0,
            service=service,
            key=key,
            fingerprint=fingerprint,
            request=request,
            style=style,
            phase="intended",
            created_at=now,
            lease_until=now + lease,
        )

        def work(db: sqlite3.Connection) -> tuple[Entry, bool]:
            first = _select_one(db, "service = ? AND key = ?", (service, key)) if key else None
            if first is None:
                return _insert(db, fresh), True
            if not first.is_free(now):
                return first, False
            again = replace(fresh, id=first.id)
            _write(db, again)
            return again, True

        return await self._journal(work)

    async def claim(self, entry: Entry, *, lease_before: float) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            where = "id = ? AND phase = 'intended' AND lease_until = ?"
            if _select_one(db, where, (entry.id, lease_before)) is None:
                return False
            _write(db, entry)
            return True

        return await self._journal(work)

    async def update(self, entry: Entry) -> None:
        await self._journal(lambda db: _write(db, entry))

    async def adopt(self, entry: Entry) -> Entry:
        def work(db: sqlite3.Connection) -> Entry:
            where = "service = ? AND record_id = ?"
            return _select_one(db, where, (entry.service, entry.record_id)) or _insert(db, entry)

        return await self._journal(work)

    async def find(self, service: str, record_id: str) -> Entry | None:
        if not is_record_id(record_id):  # half a surrogate pair, say, which SQLite cannot take
            return None
        where = "service = ? AND record_id = ?"
        return await self._journal(lambda db: _select_one(db, where, (service, record_id)))

    async def get(self, entry_id: int) -> Entry | None:
        return await self._journal(lambda db: _select_one(db, "id = ?", (entry_id,)))

    async def latest(self, service: str | None, limit: int) -> tuple[Entry, ...]:
        where, values = ("service = ?", (service,)) if service else ("1", ())
        query = f"{where} ORDER BY created_at DESC, id DESC LIMIT ?"
        return await self._journal(lambda db: _select(db, query, (*values, limit)))

    async def finish(self, entry: Entry) -> Entry:
        def work(db: sqlite3.Connection) -> Entry:
            stands = _select_one(db, "id = ? AND phase = 'done'", (entry.id,))
            if stands is None:
                _write(db, entry)
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

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._run(self._shut)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._turns)
        except OSError as exc:
            raise self._unusable(exc) from exc

    def _unusable(self, exc: OSError) -> Unavailable:
        why = exc.strerror or type(exc).__name__
        return Unavailable(
            f"the state folder {self._directory} cannot be used: {sanitize(why)}",
            hint="make room or set the permissions, or set ARTA_STATE_DIR elsewhere",
        )

    async def _journal(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Waits for other writers in short steps, each of which can be cancelled."""
        db = await self._open()
        with anyio.move_on_after(BUSY_TIMEOUT):
            while True:
                try:
                    return await self._run(partial(self._transaction, db, work))
                except _Busy:
                    await anyio.sleep(0.02)
        raise Unavailable(
            f"another process has been writing to the journal for over {BUSY_TIMEOUT:.0f} s"
        )

    def _transaction(self, db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            db.execute("BEGIN IMMEDIATE")
            with db:
                return work(db)
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise _Busy("the journal is busy") from exc
            raise Unavailable(f"the journal cannot be used: {sanitize(str(exc))}") from exc
        except sqlite3.ProgrammingError as exc:  # somebody left the server in the middle of a call
            raise Unavailable("the journal was closed meanwhile") from exc
        except sqlite3.IntegrityError as exc:
            raise ProtocolError("the service gave the record id of another job") from exc
        except sqlite3.DatabaseError as exc:
            if exc.sqlite_errorcode not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            self._shut()  # the next call moves the damaged file aside
            raise Unavailable(f"the journal is damaged: {sanitize(str(exc))}") from exc

    def _prepare(self) -> None:
        make_private(self._directory)

    def _styles_file(self, service: str) -> Path:
        self._prepare()
        return self._directory / f"styles-{re.sub('[^a-z0-9.-]', '_', service.lower())}.json"

    def _account_file(self, name: str) -> Path:
        self._prepare()
        return self._directory / f"account-{name}.json"

    def _write_account(self, name: str, account: Account | None) -> None:
        path = self._account_file(name)
        # whoever writes an account holds its lock, so a draft is what a killed process left
        for draft in path.parent.glob(f".{path.name}.*"):
            draft.unlink(missing_ok=True)
        if account is None:
            path.unlink(missing_ok=True)
            return
        content = asdict(account) | {
            "id_token": account.id_token.reveal(),
            "refresh_token": account.refresh_token.reveal(),
        }
        write_private(path, json.dumps(content, indent=1).encode())

    def _shut(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    async def _open(self) -> sqlite3.Connection:
        """Two processes must not both move a damaged file aside, the second a healthy one."""
        if self._db is None:
            async with self.lock("generations"):
                if self._db is None:
                    path = self._directory / "generations.sqlite3"
                    self._db = await self._run(partial(self._open_or_move_aside, path))
        return self._db

    def _open_or_move_aside(self, path: Path) -> sqlite3.Connection:
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


def make_private(directory: Path) -> None:
    """Makes a folder that only its owner can enter; refuses somebody else's and a link."""
    for path in (*reversed(directory.parents), directory):  # mkdir gives its mode to one only
        if not path.exists():
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
    found = directory.lstat()
    where = f"the state folder {directory}"
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{where} is a link or no folder", hint="set ARTA_STATE_DIR elsewhere")
    if hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise ConfigError(f"{where} belongs to another user", hint="set ARTA_STATE_DIR elsewhere")
    if os.name == "posix" and found.st_mode & 0o077:
        directory.chmod(0o700)


def write_private(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, 0600 from its first byte."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


async def _take(lock: FileLock) -> None:
    pause = 0.005
    while True:
        try:
            lock.acquire(timeout=0)
            return
        except Timeout:
            await anyio.sleep(pause)
            pause = min(pause * 1.5, 0.1)


def _read_account(path: Path) -> Account | None:
    try:
        stored = json_or_none(path.read_bytes())
    except FileNotFoundError:
        return None
    if not is_object(stored):
        return None
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


def _read_styles(path: Path) -> StyleList | None:
    try:
        stored = json_or_none(path.read_bytes())
    except FileNotFoundError:
        return None
    listed_at = stored.get("listed_at") if is_object(stored) else None
    names = entries(stored.get("names")) if is_object(stored) else []
    if not isinstance(listed_at, int | float) or not 0 <= listed_at < _LAST_SECOND or not names:
        return None
    return StyleList(tuple(name for name in names if isinstance(name, str)), float(listed_at))


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, timeout=0.1, check_same_thread=False, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")  # survives our death; FULL is for power cuts
        db.executescript(_SCHEMA)
        _add_new_columns(db)
        if (found := db.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
            raise sqlite3.DatabaseError(str(found))
    except BaseException:
        db.close()
        raise
    return db


def _add_new_columns(db: sqlite3.Connection) -> None:
    """A journal of an earlier version gets the columns that came since; they may be null."""
    there = {row[1] for row in db.execute("PRAGMA table_info(generations)")}
    for name in _COLUMNS:
        if name not in there:
            db.execute(f"ALTER TABLE generations ADD COLUMN {name} REAL")


def _insert(db: sqlite3.Connection, entry: Entry) -> Entry:
    marks = ", ".join("?" * len(_COLUMNS))
    query = f"INSERT INTO generations ({', '.join(_COLUMNS)}) VALUES ({marks})"  # noqa: S608  # constants only
    cursor = db.execute(query, _row(entry))
    return replace(entry, id=cursor.lastrowid or 0)


def _write(db: sqlite3.Connection, entry: Entry) -> None:
    assignments = ", ".join(f"{name} = ?" for name in _COLUMNS)
    query = f"UPDATE generations SET {assignments} WHERE id = ?"  # noqa: S608  # constants only
    db.execute(query, (*_row(entry), entry.id))


def _select(db: sqlite3.Connection, where: str, values: tuple[object, ...]) -> tuple[Entry, ...]:
    query = f"SELECT id, {', '.join(_COLUMNS)} FROM generations WHERE {where}"  # noqa: S608  # constants only
    return tuple(_entry(row) for row in db.execute(query, values))


def _select_one(db: sqlite3.Connection, where: str, values: tuple[object, ...]) -> Entry | None:
    found = _select(db, f"{where} LIMIT 1", values)
    return found[0] if found else None


def _row(entry: Entry) -> tuple[object, ...]:
    values: dict[str, object] = {name: getattr(entry, name) for name in _COLUMNS}
    values["images"] = json.dumps([image.render() for image in entry.images])
    values["paths"] = json.dumps(entry.paths)
    return tuple(values.values())


def _entry(row: tuple[object, ...]) -> Entry:
    values: dict[str, Any] = dict(zip(("id", *_COLUMNS), row, strict=True))
    values["images"] = tuple(_image(item) for item in json.loads(values["images"]))
    values["paths"] = tuple(json.loads(values["paths"]))
    return Entry(**values)


def _image(item: object) -> Image:
    stored = item if is_object(item) else {}
    return Image(
        url=text(stored, "url"),
        name=text(stored, "name"),
        blurred=stored.get("isBlur") is True,
        mime_type=text(stored, "MIME"),
    )
