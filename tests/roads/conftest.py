"""What takes minutes runs with `make roads` only."""

from __future__ import annotations

import os

RUNS_ALL = os.environ.get("ROADS_ALL") == "1"

collect_ignore = [] if RUNS_ALL else ["test_container.py", "test_pythons.py"]
