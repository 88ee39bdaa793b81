"""A state folder that 0.1.0 wrote (`folder_of_0_1_0`, on 2026-11-25) serves this version as it is.

It holds an account of the embedded service, two generations that were drawn, and one whose answer
was lost; pictures and lock files are left out.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.installed import Machine

FOLDER = Path(__file__).with_name("folder_of_0_1_0")
FOX, OWL = "e96ec700ff9841e2bb8475908823d0a6", "055e8c206f904861b9960549ebd51838"
USER = "8385719878314aac8376f2d0d8faa2a8"


@pytest.fixture
def moved_in(machine: Machine) -> Machine:
    shutil.copytree(FOLDER, machine.state)
    for path in machine.state.rglob("*"):  # a checkout does not keep these modes
        path.chmod(0o700 if path.is_dir() else 0o600)
    return machine


def test_the_history_lists_what_was_drawn_and_what_was_lost(moved_in: Machine) -> None:
    listed = [json.loads(line) for line in moved_in.run("history", "--json").stdout.splitlines()]
    by_id = {one["record_id"]: one for one in listed}
    assert [one["status"] for one in listed].count("unknown") == 1
    fox = by_id[FOX]
    assert [fox[name] for name in ("prompt", "n", "seed", "aspect_ratio")] == [
        *("a red fox in snow", 2, 7, "16:9")
    ]
    assert fox["idempotency_key"] == "first"
    assert by_id[OWL]["model"] == "watercolor"


def test_its_account_serves_on_and_no_other_is_made(moved_in: Machine) -> None:
    done = moved_in.run("generate", "a fox", "--no-save", "--json")
    assert json.loads(done.stdout)["status"] == "done"
    assert json.loads(moved_in.run("account", "--json").stdout)["user_id"] == USER
    accounts = moved_in.state / "local" / "accounts"
    assert [path.stem for path in accounts.iterdir()] == [USER]


def test_an_earlier_record_id_opens_and_its_missing_pictures_are_drawn_again(
    moved_in: Machine,
) -> None:
    folder = moved_in.folder / "out"
    for _ in range(20):  # each process draws as much as it has time for
        found = moved_in.run("get", FOX, "-o", str(folder), "--json")
        assert json.loads(found.stdout)["status"] == "done"
        if found.returncode == 0:
            break
    assert len(list(folder.iterdir())) == 2


def test_a_key_of_then_finds_its_job_and_a_lost_one_is_not_sent_again(moved_in: Machine) -> None:
    again = moved_in.run(
        *("generate", "a red fox in snow", "-n", "2", "--seed", "7", "-a", "16:9", "--no-save"),
        *("--idempotency-key", "first", "--json"),
    )
    assert json.loads(again.stdout)["record_id"] == FOX
    lost = moved_in.run(
        *("generate", "an owl at night", "--model", "watercolor", "--no-save"),
        *("--idempotency-key", "lost-one"),
    )
    assert lost.returncode == 1
    assert "belongs to another request" in lost.stderr or "unknown outcome" in lost.stderr
