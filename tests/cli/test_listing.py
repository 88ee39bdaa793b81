"""`history` and `models`: tables for people, tabs and JSON for programs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from arta_mcp.cli import listing
from arta_mcp.styles import SHIPPED
from harness.installed import Machine
from harness.service import ScriptedServer
from harness.shell import Shell


def test_in_a_pipe_lists_are_tabs_without_a_header(shell: Shell) -> None:
    drawn = shell("generate", "a lake\nat   night", "--json", "--no-save").json
    shown = shell("history").out.splitlines()
    models = shell("models", "--search", "van gogh").out
    assert [line.split("\t")[1:] for line in shown] == [
        ["done", drawn["record_id"], "flux", "arta", "a lake at night"]
    ]
    assert models == "vincent-van-gogh\tart\tVincent Van Gogh\n"


def test_the_newest_come_first_and_at_least_one(shell: Shell, used: Machine) -> None:
    assert shell("generate", "a hill", "--no-save").code == 0
    prompts = [line.split("\t")[-1] for line in shell("history").out.splitlines()]
    assert prompts == ["a hill", "a lake"]
    assert len(shell("history", "--limit", "-1").out.splitlines()) == 1


def test_at_a_terminal_lists_have_a_header_and_no_line_is_too_long(shell: Shell) -> None:
    assert shell("generate", "a lake " * 30, "--no-save").code == 0
    said = shell.at_terminal("history", columns=110)
    header, row = said.err.splitlines()
    assert said.code == 0
    assert header.split() == ["WHEN", "STATUS", "RECORD", "ID", "MODEL", "DRAWN", "BY", "PROMPT"]
    assert len(row) == 110
    assert row.endswith("…")
    assert row.index("flux") == header.index("MODEL")


def test_a_prompt_is_listed_in_its_own_letters_and_acts_on_nothing(shell: Shell) -> None:
    joined = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f680"
    assert shell("generate", f"{joined} \x9b31m \u202e", "--no-save").code == 0
    prompt = shell("history").out.rstrip("\n").split("\t")[-1]
    assert prompt == f"{joined} \\x9b31m \\u202e"


@pytest.mark.parametrize("columns", [20, 50, 80])
def test_no_terminal_is_too_narrow_for_a_whole_record_id_and_for_the_prompt(
    shell: Shell, columns: int
) -> None:
    drawn = shell("generate", "a lake " * 30, "--no-save", "--json").json
    said = shell.at_terminal("history", columns=columns)
    _, header, row, prompt = said.err.splitlines()
    assert str(drawn["record_id"]) in row.split()
    assert header == "  PROMPT"
    assert prompt.startswith("  a lake a lake")
    assert prompt.endswith("…")
    assert len(prompt) == columns


def test_models_are_found_by_category(shell: Shell) -> None:
    shown = shell("models", "--search", "tattoo").out.splitlines()
    assert {line.split("\t")[1] for line in shown} == {"tattoo"}
    assert len(shown) > 10


def test_every_model_is_listed_as_json_and_nothing_made(shell: Shell) -> None:
    said = shell("models", "--json")
    listed = said.json["models"]
    assert said.code == 0
    assert isinstance(listed, list)
    assert {model["name"] for model in listed} == {style.name for style in SHIPPED.search(None)}  # pyright: ignore[reportUnknownVariableType]  # JSON


def test_a_search_that_finds_nothing_says_how_to_see_all(shell: Shell) -> None:
    said = shell("models", "--search", "qqqqqq")
    assert (said.code, said.out) == (0, "")
    assert "`arta-mcp models` without --search" in said.err


def make_older(machine: Machine, days: float, *, phase: str | None = None) -> None:
    """Everything so far was begun so much earlier, and stands as `phase` says."""
    with closing(sqlite3.connect(machine.state / "generations.sqlite3")) as db:
        db.execute("UPDATE journal SET created_at = created_at - ?", (days * 86400,))
        db.execute("UPDATE journal SET phase = coalesce(?, phase)", (phase,))
        db.commit()


def test_what_is_old_and_has_ended_is_pruned_and_its_key_orders_again(shell: Shell) -> None:
    asked = ("generate", "a hill", "--no-save", "--idempotency-key", "k1", "--json")
    first = shell(*asked).json["record_id"]
    make_older(shell.machine, 31)
    second = shell("generate", "a lake", "--no-save", "--json").json["record_id"]
    assert shell(*asked).json["record_id"] == first
    said = shell("history", "--prune", "30")
    assert (said.code, said.out) == (0, "")
    assert said.err.splitlines()[0] == "removed 1 generation and 0 pictures kept of sketches"
    assert "idempotency keys and batches order anew" in said.err
    assert [row["record_id"] for row in shell("history", "--json").json_lines] == [second]
    assert shell(*asked).json["record_id"] != first
    assert shell("history", "--prune", "30", "--json").json == {
        "pruned": 0,
        "pictures": 0,
        "kept": 0,
    }


@pytest.mark.parametrize("phase", ["intended", "sending", "submitted", "unknown"])
def test_what_is_not_known_to_have_ended_is_never_pruned(
    shell: Shell, used: Machine, phase: str
) -> None:
    make_older(used, 400, phase=phase)
    said = shell("history", "--prune", "0")
    assert "1 generation as old stay" in said.err
    assert len(shell("history").out.splitlines()) == 1


def test_what_an_equal_call_could_take_up_is_not_pruned(shell: Shell, used: Machine) -> None:
    assert shell("history", "--prune", "0", "--json").json["pruned"] == 0
    make_older(used, 0.01)
    assert shell("history", "--prune", "0", "--json").json["pruned"] == 1


def test_sketches_go_with_their_generations_and_are_told_as_removed(shell: Shell) -> None:
    shell.set(ARTA_BACKEND="local", ARTA_OUTPUT_DIR=str(shell.machine.elsewhere / "saved"))
    kept = shell.machine.state / "local" / "images"
    old = str(shell("generate", "a hill", "-n", "2", "--json").json["record_id"])
    make_older(shell.machine, 31)
    new = str(shell("generate", "a lake", "--json").json["record_id"])
    assert shell("history", "--prune", "30", "--json").json == {
        "pruned": 1,
        "pictures": 2,
        "kept": 0,
    }
    assert {path.name.partition("-")[0] for path in kept.iterdir()} == {new}
    assert len(list((shell.machine.elsewhere / "saved").iterdir())) == 3
    said = shell("get", old)
    assert said.code == 1
    assert "error: the pictures are gone" in said.err
    assert "hint: draw them again: the same arguments with the same seed" in said.err
    assert "later" not in said.err


def test_to_forget_leaves_no_word_and_no_picture_in_the_state_folder(machine: Machine) -> None:
    secret = "a lighthouse for nobody else"
    assert machine.run("generate", secret, "-o", "mine").returncode == 0
    assert files_with(machine.state, secret)
    said = machine.run("history", "--forget", "--yes")
    assert said.returncode == 0, said.stderr
    assert said.stderr.startswith("forgot 1 generation and 1 picture kept of them\n")
    assert files_with(machine.state, secret) == []
    assert list(machine.state.glob("local/images/*")) == []
    assert len(list((machine.elsewhere / "mine").iterdir())) == 1  # a folder of the person's own
    assert machine.run("history").stdout == ""


def files_with(folder: Path, words: str) -> list[Path]:
    """Every file below that holds these words as they are, in JSON or in SQLite's pages."""
    return [
        path for path in folder.rglob("*") if path.is_file() and words.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize("phase", ["intended", "sending", "submitted", "unknown"])
def test_what_is_not_known_to_have_ended_is_not_forgotten_and_told(
    shell: Shell, used: Machine, phase: str
) -> None:
    shell("generate", "a hill", "--no-save")
    with closing(sqlite3.connect(used.state / "generations.sqlite3")) as db:
        db.execute("UPDATE journal SET phase = ? WHERE request LIKE '%a lake%'", (phase,))
        db.commit()
    said = shell("history", "--forget", "--yes")
    assert (said.code, said.out) == (0, "")
    assert said.err.startswith("forgot 1 generation and 0 pictures kept of them\n")
    assert "note: kept 1 generation: the end is not known" in said.err
    assert [row["prompt"] for row in shell("history", "--json").json_lines] == ["a lake"]


@pytest.mark.usefixtures("used")
def test_to_forget_asks_first(shell: Shell) -> None:
    said = shell("history", "--forget")
    assert said.code == 2
    assert "error: history --forget asks first, and nobody is there\nhint: add --yes" in said.err
    assert len(shell("history").out.splitlines()) == 1


@pytest.mark.usefixtures("used")
def test_what_was_forgotten_is_ordered_anew(shell: Shell, service: ScriptedServer) -> None:
    before = service.service.seen["submit"]
    assert shell("history", "--forget", "--yes", "--json").json == {
        "forgotten": 1,
        "pictures": 0,
        "kept": 0,
    }
    assert shell("generate", "a lake", "--no-save").code == 0
    assert service.service.seen["submit"] == before + 1


def give_away(machine: Machine, owner: str, service: str = "") -> None:
    """Everything of the folder's own owner is another's from now on."""
    with closing(sqlite3.connect(machine.state / "generations.sqlite3")) as db:
        db.execute("UPDATE journal SET owner = ? WHERE owner = ''", (owner,))
        db.execute("UPDATE journal SET service = coalesce(nullif(?, ''), service)", (service,))
        db.commit()


def test_what_everybody_ordered_is_pruned_with_sketches_whatever_draws_now(shell: Shell) -> None:
    shell.set(ARTA_BACKEND="local")
    old = str(shell("generate", "a hill", "-n", "2", "--no-save", "--json").json["record_id"])
    give_away(shell.machine, "token:alice")
    make_older(shell.machine, 31)
    shell.set(ARTA_BACKEND="arta")
    assert shell("generate", "a lake", "--no-save").code == 0
    give_away(shell.machine, "token:bob")
    make_older(shell.machine, 31)
    assert shell("generate", "a tree", "--no-save").code == 0
    assert shell("history", "--prune", "30", "--json").json["pruned"] == 0
    assert list(shell.machine.state.glob(f"local/images/{old}-*"))
    said = shell("history", "--prune", "30", "--everybody", "--yes", "--json")
    assert said.json == {"pruned": 2, "pictures": 2, "kept": 0}
    assert not list(shell.machine.state.glob(f"local/images/{old}-*"))
    assert [row["prompt"] for row in shell("history", "--json").json_lines] == ["a tree"]


def test_what_may_still_run_stays_whoever_ordered_it(shell: Shell, used: Machine) -> None:
    give_away(used, "token:alice", "b.example")
    make_older(used, 400, phase="unknown")
    said = shell("history", "--prune", "0", "--everybody", "--yes")
    assert said.err.splitlines() == [
        "removed 0 generations and 0 pictures kept of sketches",
        "note: 1 generation as old stay, since their end is not known",
    ]


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_what_others_ordered_is_removed_after_a_yes(
    shell: Shell, used: Machine, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    monkeypatch.setattr(listing, "REPORT_INTERVAL", -1.0)
    make_older(used, 31)
    said = shell.at_terminal("history", "--prune", "30", "--everybody", typed=answer)
    assert "This removes what everybody in this state ordered over 30 days ago." in said.err
    assert said.code == (1 if left else 0)
    assert ("1 of 1 owner" in said.err) == (left == 0)
    assert len(shell("history").out.splitlines()) == left


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--prune", "30", "--everybody"), "history --prune --everybody asks first, and nobody"),
        (("--everybody",), "--everybody is for --prune alone"),
        (("--forget", "--everybody", "--yes"), "--everybody is for --prune alone"),
    ],
)
def test_nothing_of_others_is_removed_by_mistake(
    shell: Shell, used: Machine, options: tuple[str, ...], expected: str
) -> None:
    make_older(used, 31)
    said = shell("history", *options)
    assert said.code == 2
    assert f"error: {expected}" in said.err
    assert "hint: " in said.err
    assert len(shell("history").out.splitlines()) == 1


@pytest.mark.parametrize("days", ["-1", "99999"])
def test_days_that_cannot_be_are_refused(shell: Shell, used: Machine, days: str) -> None:
    assert shell("history", f"--prune={days}").code == 2
    assert len(shell("history").out.splitlines()) == 1
