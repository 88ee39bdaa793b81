"""What takes minutes runs with `make roads` only."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from arta_mcp import __version__

RUNS_ALL = os.environ.get("ROADS_ALL") == "1"

collect_ignore = (
    [] if RUNS_ALL else ["test_container.py", "test_host_programs.py", "test_pythons.py"]
)


@pytest.fixture(scope="session")
def checkout(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as somebody has it who has just cloned: the sdist is one."""
    folder = tmp_path_factory.mktemp("checkout")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"arta_mcp-{__version__}"
