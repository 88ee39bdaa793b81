"""Each installer that the README names, with the wheel or a checkout: a host draws through it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from arta_mcp import __version__
from harness.installed import Machine
from harness.roads import BIN, INSTALL_TIMEOUT, draw_through, run, uv_environ, write_launcher

Install = Callable[[Path, Path, Path], Path]
"""takes a wheel, a checkout and an empty home; gives the program"""


def by_uvx(_: Path, checkout: Path, home: Path) -> Path:
    launcher = write_launcher(home / "uvx", BIN / "uvx", "--from", checkout, "arta-mcp")
    run(launcher, "--version", environ=uv_environ(home))  # the first start says what it installed
    return launcher


def by_uv_tool(_: Path, checkout: Path, home: Path) -> Path:
    run(BIN / "uv", "tool", "install", "--quiet", checkout, environ=uv_environ(home))
    return home / ".local" / "bin" / "arta-mcp"


def by_pipx(wheel: Path, _: Path, home: Path) -> Path:
    command = (BIN / "pipx", "install", "--python", sys.executable, wheel)
    run(*command, environ=uv_environ(home) | {"PIPX_DEFAULT_BACKEND": "pip"})
    return home / ".local" / "bin" / "arta-mcp"


def by_uv_run(_: Path, checkout: Path, home: Path) -> Path:
    command = (BIN / "uv", "run", "--quiet", "--python", sys.executable, "--project", checkout)
    launcher = write_launcher(home / "uv-run", *command, "arta-mcp")
    run(launcher, "--version", environ=uv_environ(home))
    return launcher


def by_module(_: Path, checkout: Path, home: Path) -> Path:
    program = by_uv_tool(checkout, checkout, home)
    return write_launcher(
        home / "module", program.resolve().parent / "python", "-P", "-m", "arta_mcp"
    )


ROADS: dict[str, Install] = {
    "uvx --from": by_uvx,
    "uv tool install": by_uv_tool,
    "uv run": by_uv_run,
    "pipx install": by_pipx,
    "python -P -m arta_mcp": by_module,
}


@pytest.mark.parametrize("road", ROADS)
def test_a_host_draws_through_what_this_installs(
    road: str, wheel: Path, checkout: Path, tmp_path: Path
) -> None:
    machine = Machine.new(tmp_path)
    program = ROADS[road](wheel, checkout, machine.home)
    assert (
        run(program, "--version", environ=uv_environ(machine.home)) == f"arta-mcp {__version__}\n"
    )
    draw_through(Machine(machine.folder, uv_environ(machine.home), program=program))


def test_uv_run_in_a_checkout_brings_no_development_tools(checkout: Path, tmp_path: Path) -> None:
    by_uv_run(checkout, checkout, tmp_path)
    installed = {path.name for path in (checkout / ".venv" / "bin").iterdir()}
    assert "arta-mcp" in installed
    assert not installed & {"pytest", "ruff", "pyright", "twine", "mkdocs", "uv"}


def test_an_sdist_runs_its_own_tests(checkout: Path) -> None:
    every = os.environ.get("ROADS_ALL") == "1"
    tests = ("-m", "not slow") if every else ("tests/test_documents.py", "tests/test_config.py")
    told = run(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests),
        cwd=checkout,
        environ={"PYTHONPATH": str(checkout / "src")},
        timeout=1800 if every else INSTALL_TIMEOUT,
    )
    assert " passed" in told
