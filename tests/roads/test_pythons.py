"""Each Python of this machine, with the newest, the pinned and the lowest of what we need.

`make roads` runs them all; CI, whose time is short, the Python that it has, in test_packaging.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from harness.clients import ROOT
from harness.installed import Machine
from harness.roads import BIN, draw_through, run, uv_environ, uv_install

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMED: list[str] = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
"""the Pythons that an index is told of"""

UNTRIED = "3.14"
"""not to be had on our machines; shown is only that wheels of all that we need resolve for it"""

VERSIONS = {
    "newest": ["--resolution", "highest"],
    "pinned": ["--constraint", str(ROOT / "constraints.txt")],
    "lowest": ["--resolution", "lowest-direct"],
}


PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
PYTHONS = [
    path
    for version in NAMED
    for path in (*PYENV.glob(f"{version}.*/bin/python"), Path(f"/usr/bin/python{version}"))
    if path.exists()
]
"""of pyenv and of the system: uv, pip and `make` take either"""


def test_each_python_that_an_index_is_told_of_is_here() -> None:
    for version in NAMED:
        assert [path for path in PYTHONS if f"{version}" in str(path)], version


@pytest.mark.parametrize("versions", VERSIONS)
@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_a_host_draws(python: Path, versions: str, wheel: Path, tmp_path: Path) -> None:
    program = uv_install(tmp_path / "venv", *VERSIONS[versions], wheel, python=str(python))
    draw_through(Machine.new(tmp_path, program=program))


@pytest.mark.parametrize("python", [*NAMED, UNTRIED])
def test_wheels_of_all_that_we_need_resolve(python: str, tmp_path: Path) -> None:
    assert UNTRIED not in NAMED
    resolved = run(
        *(BIN / "uv", "pip", "compile", "--quiet", "--only-binary", ":all:", "--no-annotate"),
        *("--no-header", "--python-version", python, ROOT / "pyproject.toml"),
        environ=uv_environ(tmp_path),
    )
    assert {"mcp", "pydantic-core", "pillow"} <= set(re.findall(r"^([\w-]+)==", resolved, re.M))
