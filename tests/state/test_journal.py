"""The journal's shape: how it comes from 0.1.0's, who lives, who is taken up, what is damaged."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from arta_mcp.errors import Unavailable
from arta_mcp.state import journal
from arta_mcp.state.journal import VERSION
from arta_mcp.state.records import Begun, JournalEntry, Phase
from arta_mcp.state.sqlite import SqliteState
from harness.processes import writing_to_journal
from harness.world import opened_state as opened

pytestmark = pytest.mark.anyio

NOW = 1_000_000.0
OURS = ("a.example", "")
OLD = Path(__file__).with_name("folder_of_0_1_0") / "generations.sqlite3"


def intent(**more: object) -> JournalEntry:
    fields: dict[str, object] = {
        "service": "a.example",
        "key": None,
        "fingerprint": "f1",
        "request": '{"prompt": "a fox"}',
        "style": "Flux",
        "phase": "intended",
        "created_at": NOW,
        "caller": "1",
    }
    return JournalEntry(**(fields | more))  # pyright: ignore[reportArgumentType]  # as in the record


async def begin(state: SqliteState, waiting: str = "", **more: object) -> tuple[JournalEntry, bool]:
    """`waiting` holds the tokens of this process's calls that are still there."""
    begun = await state.begin(intent(**more), is_waiting=lambda token: token in waiting)
    assert isinstance(begun, Begun)
    return begun.entry, begun.is_ours


async def reached(state: SqliteState, phase: Phase, **more: object) -> JournalEntry:
    """A generation whose caller has gone without an answer."""
    entry, is_ours = await begin(state, "", **more)
    assert is_ours
    written = await state.write(replace(entry, phase=phase, record_id=f"r-{entry.id}"))
    assert written is not None
    return written


@pytest.fixture
async def state(tmp_path: Path) -> AsyncGenerator[SqliteState]:
    async with opened(tmp_path / "state") as state:
        yield state


# From the shape of 0.1.0


@pytest.fixture
def old_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    shutil.copy(OLD, folder / "generations.sqlite3")
    return folder


def old_columns(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM generations ORDER BY id").fetchall()


async def test_a_journal_of_0_1_0_is_brought_over_whole_and_once(old_folder: Path) -> None:
    before = old_columns(OLD)
    async with opened(old_folder) as one, opened(old_folder) as two:
        found = await one.latest("local", "", 99)
        assert found == await two.latest("local", "", 99)
    assert len(found) == len(before) == 3
    assert len({entry.id for entry in found}) == 3
    assert all(entry.answered_at == entry.created_at for entry in found)
    # a 0.1.0 that runs beside reads what it wrote, under its own numbers
    assert old_columns(old_folder / "generations.sqlite3") == before


async def test_a_0_1_0_beside_ends_what_it_has_under_way_and_orders_nothing_new(
    old_folder: Path,
) -> None:
    journal = old_folder / "generations.sqlite3"
    with closing(sqlite3.connect(journal, isolation_level=None)) as old:
        old.execute(
            "UPDATE generations SET phase = 'sending', lease_until = ?", (time.time() + 60,)
        )
        async with opened(old_folder) as state:
            assert {entry.phase for entry in await state.latest("local", "", 9)} == {"sending"}
            old.execute("UPDATE generations SET phase = 'submitted', record_id = 'r1' WHERE id = 1")
            assert (await state.find("local", "", "r1")) is not None
            with pytest.raises(sqlite3.OperationalError, match="in use by a newer arta-mcp"):
                old.execute("INSERT INTO generations (service) VALUES ('local')")
            old.execute("UPDATE generations SET lease_until = 1 WHERE id > 1")
            phases = [entry.phase for entry in await state.latest("local", "", 9)]
            assert sorted(phases) == ["submitted", "unknown", "unknown"]


KILLED = """
import sqlite3, sys, os, signal
from arta_mcp.state import journal
from arta_mcp.state.processes import ProcessRegistry
from pathlib import Path

left = int(sys.argv[2])
class Connection(sqlite3.Connection):
    def execute(self, *arguments):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*arguments)

connect = sqlite3.connect
sqlite3.connect = lambda path, **more: connect(path, factory=Connection, **more)
folder = Path(sys.argv[1])
journal.Journal(folder / "generations.sqlite3", ProcessRegistry(folder / "processes"))
"""


async def test_kill_9_at_any_statement_of_the_change_loses_nothing(old_folder: Path) -> None:
    before, was_killed = old_columns(OLD), 0
    for statement in range(1, 40):
        shutil.copy(OLD, old_folder / "generations.sqlite3")
        for suffix in ("-wal", "-shm"):
            (old_folder / f"generations.sqlite3{suffix}").unlink(missing_ok=True)
        command = [sys.executable, "-c", KILLED, str(old_folder), str(statement)]
        ended = await anyio.run_process(command, check=False)
        was_killed += ended.returncode == -9
        async with opened(old_folder) as state:
            assert len(await state.latest("local", "", 99)) == 3
        assert old_columns(old_folder / "generations.sqlite3") == before
        if ended.returncode == 0:
            break
    assert was_killed > 10


async def test_a_journal_of_a_newer_version_is_told_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    async with opened(folder) as running:
        await reached(running, "submitted")
        with closing(sqlite3.connect(folder / "generations.sqlite3")) as db:
            db.execute(f"PRAGMA user_version = {VERSION + 1}")
        before = (folder / "generations.sqlite3").read_bytes()
        async with opened(folder) as started:
            for state in (running, started):
                with pytest.raises(Unavailable, match="belongs to a newer arta-mcp"):
                    await begin(state)
                with pytest.raises(Unavailable, match="belongs to a newer arta-mcp"):
                    await state.latest(*OURS, 9)
        assert (folder / "generations.sqlite3").read_bytes() == before


# Who is taken up


WAITS = """
import sys, anyio
from pathlib import Path
from arta_mcp.state.records import CallNote, JournalEntry
from arta_mcp.state.sqlite import SqliteState

async def main():
    state = SqliteState(Path(sys.argv[1]))
    await state.begin(JournalEntry(service="a.example", key="k", fingerprint="f1",
        request="{}", style="Flux", phase="intended", created_at=1.0), is_waiting=bool)
    print("ready", flush=True)
    await anyio.sleep(60)

anyio.run(main)
"""


async def test_the_intent_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    async with await anyio.open_process([sys.executable, "-c", WAITS, folder]) as other:
        assert other.stdout is not None
        assert (await other.stdout.receive()).startswith(b"ready")
        async with opened(folder) as state:
            assert not (await begin(state, key="k"))[1]
            other.kill()
            await other.wait()
            assert (await begin(state, key="k"))[1]
            assert len(list((folder / "processes").iterdir())) == 2
        async with opened(folder) as state:  # the dead are swept away by the next to open it
            await begin(state)
            assert len(list((folder / "processes").iterdir())) == 1


# Bad days


async def test_one_damaged_row_is_named_and_the_others_are_told(tmp_path: Path) -> None:
    folder, warnings = tmp_path / "state", list[str]()
    async with opened(folder, warnings.append) as state:
        kept = [
            await reached(state, "done", key=f"k{number}", created_at=NOW + number)
            for number in range(4)
        ]
        with closing(sqlite3.connect(folder / "generations.sqlite3")) as db:
            for number, change in enumerate(
                ("images = '{'", "phase = 'odd'", "created_at = 'noon'"), start=1
            ):
                query = f"UPDATE journal SET {change} WHERE number = {number}"  # ours
                db.execute(query)
            db.commit()
        assert await state.latest(*OURS, 9) == (kept[3],)
        assert await state.latest(*OURS, 9) == (kept[3],)
        with pytest.raises(Unavailable, match="row 1 of the journal is damaged"):
            await state.find(*OURS, f"r-{kept[0].id}")
        (check,) = [one for one in (await state.describe("x")).checks if one.name == "journal"]
    assert len(warnings) == 3
    assert (check.status, "row 2" in check.detail) == ("warn", True)


async def test_a_damaged_row_keeps_no_equal_call_from_ordering(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as state:
        await reached(state, "submitted")
        with closing(sqlite3.connect(tmp_path / "state" / "generations.sqlite3")) as db:
            db.execute("UPDATE journal SET images = '{'")
            db.commit()
        assert (await begin(state, caller="2"))[1]


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_folder_that_is_removed_is_noticed_and_nothing_is_ordered_without_a_journal(
    tmp_path: Path, replaced: bool
) -> None:
    folder, warnings = tmp_path / "state", list[str]()
    async with opened(folder, warnings.append) as state:
        running, _ = await begin(state, key="k1")
        folder.rename(tmp_path / "old")
        if replaced:
            async with opened(folder) as other:
                await begin(other)
        # what is under way is written to the new journal
        sent = await state.write(replace(running, phase="submitted", record_id="r1"))
        assert sent is not None
        assert await state.find(*OURS, "r1") == sent
        shutil.rmtree(folder)
        with pytest.raises(Unavailable, match="was removed or replaced while this ran") as caught:
            await begin(state, key="k2")
        assert "call again" in caught.value.hint
        assert (await begin(state, key="k2"))[1]
        assert list((folder / "processes").iterdir())
    assert len(warnings) == 2


async def test_reads_do_not_wait_for_a_writer_in_another_process(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as state:
        done = await reached(state, "done")
        async with writing_to_journal(tmp_path / "state"):
            assert await state.find(*OURS, f"r-{done.id}") == done
            assert await state.latest(*OURS, 9) == (done,)
            assert await state.timings("a.example", "Flux", 9) == ()


async def test_a_folder_that_is_removed_while_its_journal_is_opened_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, shape = tmp_path / "state", journal._shape  # pyright: ignore[reportPrivateUsage]  # a moment in the middle

    def remove(db: sqlite3.Connection) -> None:
        shape(db)
        folder.rename(tmp_path / "old")

    async with opened(folder) as state:
        monkeypatch.setattr(journal, "_shape", remove)
        with pytest.raises(Unavailable, match="was removed or replaced while this ran"):
            await begin(state, key="k")
        monkeypatch.setattr(journal, "_shape", shape)
        assert (await begin(state, key="k"))[1]
    async with opened(folder) as state:
        assert [one.key for one in await state.latest(*OURS, 9)] == ["k"]


async def test_a_log_that_is_taken_from_a_journal_costs_nothing_of_it(tmp_path: Path) -> None:
    """As `rm -r` does it with a journal that is begun while it runs."""
    folder = tmp_path / "state"
    async with opened(folder) as state:
        running, _ = await begin(state, key="k1")
        (folder / "generations.sqlite3-wal").unlink()
        sent = await state.write(replace(running, phase="submitted", record_id="r1"))
        assert sent is not None
    async with opened(folder) as state:
        assert await state.find(*OURS, "r1") == sent
