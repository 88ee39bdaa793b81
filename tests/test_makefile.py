"""`make` for somebody who has just cloned: an old Python is told, and a demo asks no service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TIMEOUT = 60

OLD = """#!/bin/sh
# As an old Python: it runs what it is given and takes itself for 3.10.
test "$1" = -c || { echo "made an environment of an old Python" >&2; exit 1; }
exec "$REAL" -c "import sys; sys.version_info = (3, 10, 13); exec(sys.argv[1])" "$2"
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(clone: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=clone,
        env={"PATH": os.environ["PATH"], "REAL": sys.executable, **environ},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def test_an_old_python_is_told_and_the_next_make_with_a_right_one_works(clone: Path) -> None:
    write_program(clone / "old", OLD)
    told = make(clone, "demo", "PYTHON=./old")
    assert told.returncode != 0
    assert "arta-mcp needs Python 3.11, this is 3.10" in told.stderr
    assert "Traceback" not in told.stderr
    assert not (clone / ".venv").exists()
    made = make(clone, ".venv/.made", f"PYTHON={sys.executable}")
    assert made.returncode == 0, made.stderr
    assert (clone / ".venv" / "bin" / "python").exists()


def test_an_environment_of_an_old_python_is_made_anew(clone: Path) -> None:
    write_program(clone / ".venv" / "bin" / "python", OLD)
    (clone / ".venv" / ".made").touch()
    told = make(clone, "demo", f"PYTHON={sys.executable}")
    assert told.returncode != 0
    assert "arta-mcp needs Python 3.11, this is 3.10" in told.stderr
    made = make(clone, ".venv/.made", f"PYTHON={sys.executable}")
    assert made.returncode == 0, made.stderr
    assert (clone / ".venv" / "bin" / "python").is_symlink()


def test_a_demo_asks_no_service_whatever_is_set(clone: Path) -> None:
    write_program(clone / ".venv" / "bin" / "arta-mcp", "#!/bin/sh\nenv\n")
    for name in (".made", ".installed"):
        (clone / ".venv" / name).touch()
    shown = make(clone, "demo", ARTA_API_KEY="a-key-of-mine", ARTA_BACKEND="arta").stdout
    assert "ARTA_BACKEND=local" in shown.splitlines()
    assert "ARTA_API_KEY" not in shown
