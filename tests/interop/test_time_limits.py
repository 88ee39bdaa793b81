"""Hosts with short time limits: one request is one job, and its picture reaches the model."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.clients import INTEROP, Need, python_v1
from harness.installed import Machine, remote_settings
from harness.service import ScriptedServer, ScriptedService
from harness.world import tiny_picture

LIMIT = 5
"""seconds; what AutoGen gives a call"""


def asked(
    need: Need, folder: Path, *, draw: float, wanted: int = 1, at_once: bool = False
) -> tuple[list[Any], int]:
    """What the client saw, and how many jobs its calls made."""
    service = ScriptedService(folder / "service", engine=tiny_picture, queue=0, draw=draw)
    with ScriptedServer(service) as running:
        machine = Machine.new(folder / "machine").set(**remote_settings(running))
        task = {
            "command": str(machine.program),
            "env": machine.environ,
            "cwd": str(machine.elsewhere),
            "limit": LIMIT,
            "wanted": wanted,
            "at_once": at_once,
        }
        ended = subprocess.run(
            [str(python_v1(need)), str(INTEROP / "patient_v1.py"), json.dumps(task)],
            env=machine.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.stdout, ended.stderr
        return json.loads(ended.stdout), len(service.jobs)


@pytest.mark.parametrize("draw", [4, 6, 9, 15])
def test_a_host_that_drops_late_answers_in_silence_has_one_job_and_its_picture(
    draw: float, need: Need, tmp_path: Path
) -> None:
    seen, jobs = asked(need, tmp_path, draw=draw)
    assert (seen[-1]["status"], jobs) == ("done", 1), seen
    assert [one["status"] for one in seen].count("timed out") <= 1


@pytest.mark.parametrize("at_once", [False, True])
def test_two_deliberate_calls_are_two_pictures(at_once: bool, need: Need, tmp_path: Path) -> None:
    seen, jobs = asked(need, tmp_path, draw=1, wanted=2, at_once=at_once)
    assert ([one["status"] for one in seen], jobs) == (["done", "done"], 2)
