"""The journal: generations as rows of one SQLite file, its shape and how it came to that shape.

Blocking; `sqlite.py` calls it from threads, one at a time, with every write in a transaction.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from arta_mcp.errors import Unavailable
from arta_mcp.redaction import sanitize
from arta_mcp.state.contract import CUT_SHARE, UNANSWERED_TTL, IsWaiting
from arta_mcp.state.processes import ProcessRegistry
from arta_mcp.state.records import (
    Begun,
    CallNote,
    JournalEntry,
    NoRoom,
    Pruned,
    Quota,
    Timing,
)
from arta_mcp.state.stored import COLUMNS, WRITTEN, DamagedEntry, to_entry, to_values

VERSION = 2
"""of the shape; 0 is that of arta-mcp 0.1.0"""

MAX_OLD_LEASE = 2 * 3600.0
"""seconds; a later lease of 0.1.0 is from a clock that ran ahead, and over"""

HOUR = 3600.0
"""seconds"""

_STORED = ", ".join(COLUMNS)

_SELECT = f"SELECT {_STORED}, process, lease_until, number FROM"  # constants only

_TABLE = """
CREATE TABLE journal (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL,
    service TEXT NOT NULL, owner TEXT NOT NULL, key TEXT, fingerprint TEXT NOT NULL,
    request TEXT NOT NULL, style TEXT NOT NULL,
    engine TEXT NOT NULL, engine_model TEXT, details TEXT NOT NULL,
    phase TEXT NOT NULL, process TEXT, lease_until REAL, created_at REAL NOT NULL,
    caller TEXT, answered_at REAL, cut_after REAL,
    record_id TEXT, seed INTEGER, submitted_at REAL, seen_waiting REAL,
    seen_queued REAL, seen_drawing REAL, finished_at REAL,
    images TEXT NOT NULL, paths TEXT NOT NULL, error TEXT
)
"""
# process: whose an `intended` or `sending` row is; lease_until stands there for a 0.1.0's own

_INDEXES = (
    "CREATE UNIQUE INDEX by_key ON journal (service, owner, key) WHERE key IS NOT NULL",
    "CREATE UNIQUE INDEX by_record ON journal (service, record_id) WHERE record_id IS NOT NULL",
    "CREATE INDEX by_style ON journal (service, style, phase, finished_at)",
    "CREATE INDEX by_owner ON journal (service, owner, created_at)",
    "CREATE INDEX unanswered ON journal (service, owner, fingerprint) WHERE answered_at IS NULL",
)

_OLD_COLUMNS = (
    "service, key, fingerprint, request, style, phase, created_at, lease_until, record_id, seed,"
    " submitted_at, seen_waiting, seen_queued, seen_drawing, finished_at, images, paths, error"
)

_OLD_CHANGES = ", ".join(
    f"{name} = NEW.{name}"
    for name in _OLD_COLUMNS.split(", ")
    if name not in ("service", "key", "fingerprint", "request", "style", "created_at")
)

_REFUSAL = "this journal is in use by a newer arta-mcp; end this program and start that one"

_FOR_0_1_0 = (
    # A 0.1.0 that is running, or is started once more, meets a view in place of its table. What it
    # has under way still ends; a new order fails before anything is sent, with these words. The
    # index names by_key, by_record and by_style are its own: it finds them and makes none.
    f"CREATE VIEW generations AS SELECT number AS id, {_OLD_COLUMNS} FROM journal",  # noqa: S608  # constants only
    "CREATE TRIGGER old_update INSTEAD OF UPDATE ON generations BEGIN"  # noqa: S608  # constants only
    f" UPDATE journal SET {_OLD_CHANGES}, version = version + 1"
    " WHERE number = OLD.id AND phase <> 'done'; END",
    "CREATE TRIGGER old_insert INSTEAD OF INSERT ON generations BEGIN"  # noqa: S608  # constants only
    f' SELECT * FROM "{_REFUSAL}"; END',
)


class DamagedRow(Exception):
    """A row that no version of ours wrote; its text names it."""


class Journal:
    """One open journal file. Raises sqlite3.Error, and Unavailable for a file of a newer shape."""

    def __init__(self, path: Path, processes: ProcessRegistry, *, is_suspect: bool = False) -> None:
        """Opens the file, or makes it; brings one of 0.1.0 to this shape in one transaction.

        Only one that is suspect is read as a whole, and damage anywhere in it raises: at 100,000
        generations that takes a tenth of a second, and damage shows when its page is read.
        """
        made = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # SQLite's own mode is the umask's
        self._file = _identity(os.fstat(made))  # from the file: its name may lead elsewhere by now
        os.close(made)
        self._path, self._log, self._processes = path, Path(f"{path}-wal"), processes
        # timeout 0.1 s: the caller waits for other writers itself, in steps that can be cancelled
        self.db = sqlite3.connect(path, timeout=0.1, check_same_thread=False, isolation_level=None)
        try:
            self.check_version()  # before anything is written to it
            self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute("PRAGMA synchronous = NORMAL")  # survives our death; FULL: power cuts
            self.db.execute("PRAGMA cell_size_check = ON")  # a damaged page is told, not believed
            if is_suspect:  # its indexes too, which a quick_check leaves out
                found = self.db.execute("PRAGMA integrity_check(1)").fetchone()
                if found != ("ok",):
                    raise sqlite3.DatabaseError(sanitize(str(found[0])))
            _shape(self.db)
            self._log_file = _find_identity(self._log)
        except BaseException:
            self.db.close()
            raise

    def is_replaced(self) -> bool:
        """Whether another file, or none, stands where this one was opened."""
        # The log too: whoever removes a folder may take it from a journal that was begun meanwhile.
        found = _find_identity(self._path), _find_identity(self._log)
        return found != (self._file, self._log_file)

    def check_version(self) -> None:
        """Raises Unavailable when a newer version of ours has changed the shape."""
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise Unavailable(
                f"the journal {self._path} belongs to a newer arta-mcp (its shape is {version},"
                f" this version knows {VERSION}); nothing was changed",
                hint="start the newer version, or set ARTA_STATE_DIR elsewhere",
            )

    def begin(
        self, entry: JournalEntry, is_waiting: IsWaiting, quotas: Sequence[Quota]
    ) -> Begun | NoRoom:
        """See `State.begin`; the hour of the quotas ends when the entry was made."""
        first: JournalEntry | None = None
        if entry.key is not None:
            where = "service = ? AND owner = ? AND key = ?"
            for first in self._select(where, entry.service, entry.owner, entry.key):
                if first.phase != "refused":
                    return Begun(entry=first, is_ours=False)
        elif entry.caller is not None and (equal := self._find_unanswered(entry, is_waiting)):
            self.note_call(equal.id, CallNote(caller=entry.caller, cut_after=equal.cut_after))
            return Begun(entry=replace(equal, caller=entry.caller), is_ours=False)
        entry = replace(entry, id=first.id if first else entry.id or secrets.token_hex(16))
        used = self._count(entry.id, quotas, entry.created_at)
        if isinstance(used, NoRoom):
            return used
        if first:  # once more from the start, in the same row: the key is unique
            entry = replace(entry, version=first.version + 1)
            self._update(entry, COLUMNS, "id = ?", first.id)
        else:
            self._insert(entry)
        return Begun(entry=entry, is_ours=True, used=used)

    def write(self, entry: JournalEntry) -> JournalEntry | None:
        """See `State.write`."""
        written = replace(entry, version=entry.version + 1)
        where = "id = ? AND version = ?"
        if self._update(written, WRITTEN, where, entry.id, entry.version):
            if entry.phase == "refused" and self._has_counts():
                self.db.execute("DELETE FROM counted WHERE entry = ?", (entry.id,))
            return written
        known = self.db.execute("SELECT 1 FROM journal WHERE id = ?", (entry.id,)).fetchone()
        return None if known else self._insert(written)

    def note_call(self, entry_id: str, note: CallNote) -> None:
        """See `State.note_call`."""
        self.db.execute(
            "UPDATE journal SET caller = :caller, answered_at = coalesce(answered_at, :answered),"
            " cut_after = min(coalesce(cut_after, :cut), coalesce(:cut, cut_after)) WHERE id = :id",
            {
                "caller": self._caller(note.caller),
                "answered": note.answered_at,
                "cut": note.cut_after,
                "id": entry_id,
            },
        )

    def adopt(self, entry: JournalEntry) -> JournalEntry:
        """See `State.adopt`."""
        where = "service = ? AND record_id = ?"
        for stands in self._select(where, entry.service, entry.record_id):
            return stands
        return self._insert(entry)

    def finish(self, entry: JournalEntry) -> JournalEntry:
        """See `State.finish`."""
        for stands in self._select("id = ?", entry.id):
            if stands.phase == "done":
                return stands
            entry = replace(entry, version=stands.version)
        return self.write(entry) or entry

    def find(self, service: str, owner: str, record_id: str) -> JournalEntry | None:
        """See `State.find`."""
        where = "service = ? AND owner = ? AND record_id = ?"
        return next(self._select(where, service, owner, record_id), None)

    def latest(
        self, service: str, owner: str, limit: int, on_damage: Callable[[str], None]
    ) -> tuple[JournalEntry, ...]:
        """See `State.latest`; damaged rows are left out and named to `on_damage`."""
        where = "service = ? AND owner = ? ORDER BY created_at DESC, number DESC LIMIT ?"
        found: list[JournalEntry] = []
        for row in self._rows(where, service, owner, limit):
            try:
                found.append(self._entry(row))
            except DamagedRow as exc:
                on_damage(str(exc))
        return tuple(found)

    def timings(self, service: str, style: str, limit: int) -> tuple[Timing, ...]:
        """See `State.timings`."""
        query = (
            "SELECT submitted_at, seen_waiting, finished_at, seen_queued, seen_drawing"
            " FROM journal WHERE service = ? AND style = ? AND phase = 'done'"
            " AND submitted_at IS NOT NULL AND finished_at IS NOT NULL"
            " ORDER BY finished_at DESC LIMIT ?"
        )
        rows = self.db.execute(query, (service, style, limit)).fetchall()
        return tuple(
            Timing(*row)
            for row in reversed(rows)
            if not any(isinstance(value, str | bytes) for value in row)
        )

    def prune(self, service: str, owner: str, before: float) -> Pruned:
        """See `State.prune`."""
        where = "FROM journal WHERE service = ? AND owner = ? AND created_at < ?"
        ended = f"{where} AND phase IN ('done', 'failed', 'refused')"
        scope = (service, owner, before)
        # Else the words of what is removed stay readable in free pages of the file.
        self.db.execute("PRAGMA secure_delete = ON")
        found = self.db.execute(f"SELECT record_id {ended}", scope).fetchall()
        self.db.execute(f"DELETE {ended}", scope)
        (kept,) = self.db.execute(f"SELECT count(*) {where}", scope).fetchone()
        record_ids = tuple(record_id for (record_id,) in found if record_id)
        return Pruned(len(found), record_ids, kept)

    def owners(self) -> tuple[tuple[str, str], ...]:
        """See `State.owners`."""
        query = "SELECT DISTINCT service, owner FROM journal ORDER BY service, owner"
        return tuple(self.db.execute(query).fetchall())

    def counted(self, name: str, now: float) -> int:
        """See `State.counted`."""
        if not self._has_counts():
            return 0
        query = "SELECT count(*) FROM counted WHERE name = ? AND at > ?"
        return self.db.execute(query, (name, now - HOUR)).fetchone()[0]

    # Counts: a row for each picture, so that when there is room needs no sum

    def _count(
        self, entry_id: str, quotas: Sequence[Quota], now: float
    ) -> tuple[int, ...] | NoRoom:
        """How much the hour of each quota has with the entry, which is counted once."""
        if not quotas:
            return ()
        # Made here, not with the others: most folders count nothing. Few rows need no index.
        self.db.execute("CREATE TABLE IF NOT EXISTS counted (name TEXT, entry TEXT, at REAL)")
        used: list[int] = []
        full: list[NoRoom] = []
        for quota in quotas:
            # What is from the future is of a clock that ran ahead.
            query = (
                "SELECT at FROM counted"
                " WHERE name = ? AND entry <> ? AND at > ? AND at < ? ORDER BY at"
            )
            values = (quota.name, entry_id, now - HOUR, now + 60)
            times = [at for (at,) in self.db.execute(query, values)]
            if (over := len(times) + quota.amount - quota.hourly) > 0:
                # the oldest have to leave, as many as there are too many; none stays over an hour
                leaves = times[over - 1] if over <= len(times) else now
                full.append(
                    NoRoom(quota=quota, used=len(times), wait=min(HOUR, leaves + HOUR - now))
                )
            used.append(len(times) + quota.amount)
        if full:
            return max(full, key=lambda one: one.wait)
        # Its own from before too: a process that was killed had begun the entry of the same key.
        self.db.execute("DELETE FROM counted WHERE at <= ? OR entry = ?", (now - HOUR, entry_id))
        new = [(quota.name, entry_id, now) for quota in quotas for _ in range(quota.amount)]
        self.db.executemany("INSERT INTO counted VALUES (?, ?, ?)", new)
        return tuple(used)

    def _has_counts(self) -> bool:
        query = "SELECT 1 FROM sqlite_master WHERE name = 'counted'"
        return self.db.execute(query).fetchone() is not None

    # Rows

    def _find_unanswered(self, entry: JournalEntry, is_waiting: IsWaiting) -> JournalEntry | None:
        # `sending` too: a caller can be cut while the service takes its time to accept the job
        where = (
            "service = ? AND owner = ? AND fingerprint = ? AND answered_at IS NULL AND key IS NULL"
            " AND created_at > ? AND phase IN ('sending', 'submitted', 'done')"
            " ORDER BY created_at DESC, number DESC"
        )
        after = entry.created_at - UNANSWERED_TTL
        for row in self._rows(where, entry.service, entry.owner, entry.fingerprint, after):
            process, _, token = (row[COLUMNS.index("caller")] or "").partition("/")
            if process == self._processes.id:
                has_caller = is_waiting(token) and token != entry.caller
            else:
                has_caller = bool(process) and self._processes.is_alive(process)
            if has_caller:
                continue
            try:
                equal = self._entry(row)
            except DamagedRow:  # `latest` names it; it must keep no one from ordering
                continue
            if equal.phase == "unknown":
                continue
            if process and process != self._processes.id:
                # Killed, for else it had written down how its call ended. It was to answer at its
                # share of what was known then, so it was cut before that.
                age = max(0.0, entry.created_at - equal.created_at)
                known = equal.cut_after
                equal = replace(equal, cut_after=age if known is None else CUT_SHARE * known)
            return equal
        return None

    def _insert(self, entry: JournalEntry) -> JournalEntry:
        entry = replace(entry, id=entry.id or secrets.token_hex(16))
        marks = ", ".join("?" * (len(COLUMNS) + 1))
        query = f"INSERT INTO journal ({_STORED}, process) VALUES ({marks})"  # noqa: S608  # constants only
        self.db.execute(query, (*self._values(entry, COLUMNS), self._worker(entry)))
        return entry

    def _update(
        self, entry: JournalEntry, names: tuple[str, ...], where: str, *values: object
    ) -> int:
        assignments = ", ".join(f"{name} = ?" for name in names)
        query = f"UPDATE journal SET {assignments}, process = ? WHERE {where}"  # noqa: S608  # constants only
        row = (*self._values(entry, names), self._worker(entry), *values)
        return self.db.execute(query, row).rowcount

    def _select(self, where: str, *values: object) -> Iterator[JournalEntry]:
        return (self._entry(row) for row in self._rows(where, *values))

    def _rows(self, where: str, *values: object) -> list[tuple[Any, ...]]:
        return self.db.execute(f"{_SELECT} journal WHERE {where}", values).fetchall()

    def _worker(self, entry: JournalEntry) -> str | None:
        return self._processes.id if entry.phase in ("intended", "sending") else None

    def _values(self, entry: JournalEntry, names: tuple[str, ...]) -> tuple[object, ...]:
        values = to_values(entry, names)
        if "caller" in values:
            values["caller"] = self._caller(entry.caller)
        return tuple(values.values())

    def _caller(self, token: str | None) -> str | None:
        return token and f"{self._processes.id}/{token}"

    def _entry(self, row: tuple[Any, ...]) -> JournalEntry:
        """The entry that a row holds, its phase as it is now; raises DamagedRow."""
        *_, process, lease_until, _ = row
        entry = _parse(row)
        if entry.phase not in ("intended", "sending"):
            return entry
        if process is not None:
            is_alive = self._processes.is_alive(process)
        else:
            is_alive = 0 < (lease_until or 0) - time.time() <= MAX_OLD_LEASE
        if is_alive:
            return entry
        if entry.phase == "sending":
            return replace(entry, phase="unknown")
        return replace(entry, phase="refused", error="its process ended before it was sent")


def name_damaged_rows(db: sqlite3.Connection) -> Iterator[str]:
    """A sentence for each damaged row of an open journal."""
    for row in db.execute(f"{_SELECT} journal"):
        try:
            _parse(row)
        except DamagedRow as exc:
            yield str(exc)


def _parse(row: tuple[Any, ...]) -> JournalEntry:
    *stored, _, _, number = row
    values = dict(zip(COLUMNS, stored, strict=True))
    values["caller"] = str(values["caller"] or "").partition("/")[2] or None
    try:
        return to_entry(values)
    except DamagedEntry as exc:
        what = f"row {number} of the journal is damaged ({sanitize(str(exc), 80)})"
        raise DamagedRow(what) from exc


def _shape(db: sqlite3.Connection) -> None:
    """Brings the file to VERSION at once or not at all: kill -9 leaves one shape or the other."""
    if db.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return
    # 0.1.0 may be writing; nobody answers yet who could wait in smaller steps
    db.execute("PRAGMA busy_timeout = 10000")
    db.execute("BEGIN IMMEDIATE")
    with db:
        if db.execute("PRAGMA user_version").fetchone()[0] == VERSION:  # another was first
            return
        old = {row[1] for row in db.execute("PRAGMA table_info(generations)")}
        if old and not {"fingerprint", "phase", "record_id"} <= old:
            raise sqlite3.OperationalError("it has a table of another program")
        db.execute(_TABLE)
        if old:
            # the first 0.1.0 lacked some columns, which its next release added
            there = ", ".join(name if name in old else "NULL" for name in _OLD_COLUMNS.split(", "))
            # answered: a generation of an older version is never taken up by an equal call
            new = (
                "id, lower(hex(randomblob(16))), 0, '', '{}', created_at,"
                " CASE service WHEN 'local' THEN 'sketch' ELSE 'arta' END,"
                " CASE service WHEN 'local' THEN 'arta-mcp sketch' END"
            )
            db.execute(
                "INSERT INTO journal (number, id, version, owner, details, answered_at, engine,"  # noqa: S608  # constants only
                f" engine_model, {_OLD_COLUMNS}) SELECT {new}, {there} FROM generations"
            )
            db.execute("DROP TABLE generations")
        for statement in (*_INDEXES, *_FOR_0_1_0):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("PRAGMA busy_timeout = 100")


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _find_identity(path: Path) -> tuple[int, int] | None:
    try:
        return _identity(path.stat())
    except OSError:
        return None
