"""`make replicas` with few callers: what runs and what it keeps die, and each is told the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.replicas import FAULTS, play_round
from harness.stores import Kind

CALLERS = 40


@pytest.mark.parametrize(("kind", "seed"), [("redis", 1), ("valkey", 2)])
def test_whatever_dies_each_caller_has_its_one_picture_or_is_told_that_nobody_knows(
    kind: Kind, seed: int, tmp_path: Path, need: Callable[[bool, str], None]
) -> None:
    found = play_round(tmp_path / "round", kind, seed, need, callers=CALLERS)
    assert found.broken_promises == []
    assert sorted(found.faults) == sorted(FAULTS)
    assert found.broken > 0  # something was cut off
    assert found.done + found.own_up == CALLERS
    assert found.jobs >= found.done > 0
