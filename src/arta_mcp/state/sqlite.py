"""State under one directory of this machine: token files, lock files and a SQLite journal.

Lock order, for a task that holds two: an account's lock file, the journal's (held only while the
journal is opened), then SQLite's own write lock. No lock is held across a
network exchange but an account's, which is there so that one process asks the identity host.
"""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
from filelock import FileLock, Timeout

from arta_mcp.arta.account import Account
from arta_mcp.arta.protocol import is_record_id
from arta_mcp.errors import ArtaError, ConfigError, ProtocolError, Unavailable
from arta_mcp.files import make_private_folder, write_atomically
from arta_mcp.redaction import sanitize
from arta_mcp.state.checks import (
    check_folder,
    check_journal,
    check_modes,
    explain_folder_error,
)
from arta_mcp.state.contract import IsWaiting
from arta_mcp.state.journal import DamagedRow, Journal
from arta_mcp.state.processes import ProcessRegistry
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
from arta_mcp.state.stored import account_values, to_account, to_styles
from arta_mcp.untrusted_json import is_object, json_or_none

T = TypeVar("T")
Work = Callable[[Journal], T]

log = logging.getLogger(__name__)

BUSY_TIMEOUT = 30.0
"""seconds; what others write takes milliseconds"""

LOCK_TIMEOUT = 90.0
"""seconds; longer than an exchange with the identity host with all its tries"""

MAX_FILE_THREADS = 4
"""token and style files that are read or written at the same time"""


class _Busy(Exception):
    """Another process is writing; worth another try."""


class _Replaced(Exception):
    """Another file, or none, stands where the open journal was."""


class _Damaged(Exception):
    """A page of the journal is no page of SQLite's; the file was closed, and is suspect."""


class SqliteState:
    """See `State`. Every file is 0600 in a 0700 folder, from its first byte."""

    def __init__(
        self,
        directory: Path,
        *,
        warn: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`warn` takes what a person should know: a damaged journal that was moved aside.

        `clock` gives seconds since the epoch: all processes on a folder have that of the machine.
        """
        self._directory, self.now = directory, clock
        self._journal_file = directory / "generations.sqlite3"
        self._warn = warn or log.warning
        self._opened: Journal | None = None
        self._is_suspect = False
        self._processes = ProcessRegistry(directory / "processes")
        self._named_rows = set[str]()
        # One connection, used by one thread at a time; SQLite lets one writer in anyway.
        self._journal_turns = anyio.CapacityLimiter(1)
        # Apart from the journal's, so that a token is read while a long list is.
        self._file_turns = anyio.CapacityLimiter(MAX_FILE_THREADS)

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncGenerator[int]:
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
            yield 0  # the operating system frees no lock early: no fence is needed
        finally:
            lock.release()

    async def account(self, name: str) -> Account | None:
        return await self._run(lambda: to_account(self._read(self._account_file(name))))

    async def keep_account(self, name: str, account: Account | None, *, fence: int) -> bool:
        await self._run(lambda: self._write_account(name, account))
        return True

    async def styles(self, service: str) -> StyleList | None:
        return await self._run(lambda: to_styles(self._read(self._styles_file(service))))

    async def keep_styles(self, service: str, listed: StyleList) -> None:
        content = json.dumps(asdict(listed)).encode()
        await self._run(lambda: self._write(self._styles_file(service), content))

    async def begin(
        self, entry: JournalEntry, *, is_waiting: IsWaiting, quotas: Sequence[Quota] = ()
    ) -> Begun | NoRoom:
        now = self.now()
        answered_at = None if entry.answered_at is None else now
        entry = replace(entry, created_at=now, answered_at=answered_at)
        return await self._write_journal(lambda journal: journal.begin(entry, is_waiting, quotas))

    async def write(self, entry: JournalEntry) -> JournalEntry | None:
        return await self._write_journal(lambda journal: journal.write(entry), is_known=True)

    async def note_call(self, entry_id: str, note: CallNote) -> None:
        await self._write_journal(lambda journal: journal.note_call(entry_id, note), is_known=True)

    async def adopt(self, entry: JournalEntry) -> JournalEntry:
        return await self._write_journal(lambda journal: journal.adopt(entry), is_known=True)

    async def find(self, service: str, owner: str, record_id: str) -> JournalEntry | None:
        if not is_record_id(record_id):  # half a surrogate pair, say, which SQLite cannot take
            return None
        return await self._read_journal(lambda journal: journal.find(service, owner, record_id))

    async def latest(self, service: str, owner: str, limit: int) -> tuple[JournalEntry, ...]:
        return await self._read_journal(
            lambda journal: journal.latest(service, owner, limit, self._warn_of_row)
        )

    async def finish(self, entry: JournalEntry) -> JournalEntry:
        return await self._write_journal(lambda journal: journal.finish(entry), is_known=True)

    async def timings(self, service: str, style: str, limit: int) -> tuple[Timing, ...]:
        return await self._read_journal(lambda journal: journal.timings(service, style, limit))

    async def prune(self, service: str, owner: str, before: float) -> Pruned:
        return await self._write_journal(lambda journal: journal.prune(service, owner, before))

    async def owners(self) -> tuple[tuple[str, str], ...]:
        return await self._read_journal(lambda journal: journal.owners())

    async def counted(self, name: str) -> int:
        return await self._read_journal(lambda journal: journal.counted(name, self.now()))

    async def health(self) -> Health:
        began = time.monotonic()
        try:
            await self._read_journal(lambda journal: None)
        except ArtaError as exc:
            return Health(store="sqlite", answers=False, warnings=(exc.message,))
        took = time.monotonic() - began
        return Health(store="sqlite", answers=True, latency=took, persistence="file")

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
        return explain_folder_error(self._directory, exc)

    async def _read_journal(self, work: Work[T]) -> T:
        """One statement, outside a transaction: no writer in another process delays it."""

        def read() -> T:
            journal = self._require_open()
            with self._explain_errors():
                journal.check_version()
                return work(journal)

        return await self._in_turn(read)

    async def _write_journal(self, work: Work[T], *, is_known: bool = False) -> T:
        """Runs `work` in a transaction.

        `is_known`: it is about a job that exists, so that it goes on in the file that stands there
        now, when the one that was opened is gone. Anything else is told that and writes nothing.
        """

        def write() -> T:
            journal = self._require_open()
            if journal.is_replaced():
                raise _Replaced
            with self._explain_errors():
                # IMMEDIATE: a read that later writes could find its lock taken, its read stale
                journal.db.execute("BEGIN IMMEDIATE")
                with journal.db:
                    journal.check_version()
                    return work(journal)

        try:
            return await self._in_turn(write)
        except _Replaced:
            await self.close()
            gone = f"the state folder {self._directory} was removed or replaced while this ran"
            self._warn(f"{gone}; a new journal is begun, and earlier generations are not in it")
            if not is_known:
                raise Unavailable(
                    f"{gone}; nothing was ordered",
                    hint="call again to begin a new journal; idempotency keys of before are not"
                    " known to it",
                ) from None
        return await self._write_journal(work, is_known=is_known)

    async def _in_turn(self, work: Callable[[], T]) -> T:
        """Runs `work` on the open journal, waiting for other writers.

        The wait is ours, in short steps, because SQLite's own cannot be cancelled. `work` that
        meets damage begins once more, in a new journal.
        """
        damage: _Damaged | None = None
        until = anyio.current_time() + BUSY_TIMEOUT
        while True:
            try:
                await self._open()
                return await self._run(work, limiter=self._journal_turns)
            except _Busy as exc:
                if anyio.current_time() > until:
                    busy = f"writing to the journal for over {BUSY_TIMEOUT:.0f} s"
                    raise Unavailable(f"another process has been {busy}") from exc
                await anyio.sleep(0.02)
            except _Damaged as exc:
                if damage is not None:  # a whole check of the file found nothing
                    raise Unavailable(f"the journal is damaged: {exc}") from exc
                damage = exc

    @contextmanager
    def _explain_errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise _Busy from exc
            raise Unavailable(f"the journal cannot be used: {sanitize(str(exc))}") from exc
        except sqlite3.IntegrityError as exc:
            raise ProtocolError("the service gave the record id of another job") from exc
        except sqlite3.DatabaseError as exc:
            if exc.sqlite_errorcode not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            self._close_journal()
            self._is_suspect = True  # whoever opens it next checks all of it and moves it aside
            raise _Damaged(sanitize(str(exc))) from exc
        except DamagedRow as exc:
            raise Unavailable(str(exc), hint="arta-mcp doctor names damaged rows") from exc

    def _require_open(self) -> Journal:
        if self._opened is None:  # closed while this waited for its turn
            raise Unavailable("the journal was closed meanwhile")
        return self._opened

    def _warn_of_row(self, what: str) -> None:
        if what not in self._named_rows:
            self._named_rows.add(what)
            self._warn(f"{what}; the others are told")

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
        self._write(path, json.dumps(account_values(account), indent=1).encode())

    def _close_journal(self) -> None:
        if self._opened is not None:
            self._opened.db.close()
            self._opened = None
        self._processes.leave()

    async def _open(self) -> None:
        if self._opened is None:
            # Two processes must not both move a damaged file aside, the second a healthy one; and
            # no process is swept away while it registers.
            async with self.lock("generations"):
                if self._opened is None:
                    self._opened = await self._run(self._open_or_move_aside)

    def _open_or_move_aside(self) -> Journal:
        path = self._journal_file
        self._processes.register()
        self._processes.sweep()
        try:
            journal = Journal(path, self._processes, is_suspect=self._is_suspect)
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
            journal = Journal(path, self._processes)
        self._is_suspect = False
        return journal
