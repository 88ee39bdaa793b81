"""What people install: the wheel, in an environment that has nothing else of ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

from arta_mcp import __version__
from harness.installed import Machine, connect, content_of, decode
from harness.roads import BIN, build_dist, run
from test_quick_replies import INITIALIZED, GatedServer, initialize, rpc

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of a clean environment with the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    return install(folder, "--constraint", str(ROOT / "constraints.txt"), str(wheel))


def install(folder: Path, *what: str) -> Path:
    """The `bin` folder of a new environment with what pip makes of these arguments."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    pip = (sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"))
    run(*pip, "install", "--quiet", *what)
    run(*pip, "check")
    return folder / "bin"


@pytest.fixture
def machine(installed: Path, tmp_path: Path) -> Machine:
    return Machine.new(tmp_path, program=installed / "arta-mcp")


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name) for name in archive.namelist()}
    source = ROOT / "src"
    shipped = {
        path.relative_to(source)
        for path in (source / "arta_mcp").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    information = Path(f"arta_mcp-{__version__}.dist-info")
    assert {name for name in names if information not in name.parents} == shipped
    assert Path("arta_mcp/py.typed") in shipped
    assert information / "licenses" / "LICENSE" in names


def read_metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"arta_mcp-{__version__}.dist-info/METADATA").decode()
    return HeaderParser().parsestr(text)


def test_the_wheel_says_what_it_is_to_an_index(wheel: Path) -> None:
    metadata = read_metadata(wheel)
    assert (metadata["Name"], metadata["Version"]) == ("arta-mcp", __version__)
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Author"] == "The arta-mcp authors"
    links = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))
    assert links.keys() == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    # how the registry of servers knows that the package is ours
    assert "mcp-name: " in metadata.get_payload()


def test_what_is_released_passes_the_check_of_an_index(sdist: Path, wheel: Path) -> None:
    assert run(BIN / "twine", "--no-color", "check", "--strict", sdist, wheel).count("PASSED") == 2


def test_every_picture_and_link_of_the_readme_works_on_an_index(wheel: Path) -> None:
    text = str(read_metadata(wheel).get_payload())
    ours = "https://(?:raw.githubusercontent|github).com/arta-mcp/arta-mcp/(?:blob/)?"
    targets = re.findall(r"\]\(([^)]+)\)", text)
    relative = [one for one in targets if not one.startswith(("https://", "#"))]
    inside = [
        re.sub(ours + f"v{__version__}/", "", one) for one in targets if f"/v{__version__}/" in one
    ]
    assert relative == []
    assert len(inside) > 5
    assert [name for name in inside if not (ROOT / name.split("#")[0]).exists()] == []


def test_the_wheel_is_the_same_bytes_wherever_and_whenever_it_is_built(
    sdist: Path, wheel: Path, tmp_path: Path
) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / f"arta_mcp-{__version__}"
    for path in source.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    (source / "README.md").chmod(0o600)
    again = build_dist(tmp_path / "dist", source)
    assert [path.read_bytes() for path in again] == [sdist.read_bytes(), wheel.read_bytes()]


@pytest.mark.parametrize("module", [True, False], ids=["python -m arta_mcp", "arta-mcp"])
def test_the_installed_program_says_its_version(machine: Machine, module: bool) -> None:
    program = [str(machine.program.with_name("python")), "-m", "arta_mcp"]
    ended = subprocess.run(
        [*(program if module else [str(machine.program)]), "--version"],
        env=machine.environ,
        cwd=machine.elsewhere,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == (f"arta-mcp {__version__}\n", "")


def test_the_installed_program_helps(machine: Machine) -> None:
    ended = machine.run("--help")
    assert ended.returncode == 0
    assert "generate" in ended.stdout
    assert ended.stderr == ""


def test_the_installed_program_draws_from_an_empty_home(machine: Machine) -> None:
    ended = machine.run("generate", "a red fox in snow", "-o", "fox", "--json")
    assert ended.returncode == 0, ended.stderr
    (image,) = json.loads(ended.stdout)["images"]
    picture = decode((machine.elsewhere / image["path"]).read_bytes())
    assert picture.size == (1024, 1024)


@pytest.mark.anyio
async def test_the_installed_program_serves_a_host(machine: Machine) -> None:
    async with connect(machine) as client:
        models = content_of(await client.call_tool("list_models", {"search": "flux"}))
    assert models["backend"] == "local"
    assert machine.log == ""


def lowest_dependencies() -> list[str]:
    """What we depend on directly, each in the lowest version that we allow."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted: list[str] = tomllib.loads(text)["project"]["dependencies"]
    return [re.sub(r">=([\d.]+).*", r"==\1", each) for each in wanted]


INSTALLATIONS = {
    "the newest of everything": [],
    "pydantic 2.12.0": ["pydantic==2.12.0", "mcp==2.3.0"],
    "the lowest of what we ask for": lowest_dependencies(),
}


@pytest.mark.skipif(sys.platform == "win32", reason="no quick replies on Windows")
@pytest.mark.parametrize("name", INSTALLATIONS)
def test_a_start_is_quick_with_whatever_pip_chooses(name: str, wheel: Path, tmp_path: Path) -> None:
    """No constraints: they once hid that replies were kept back from everybody but us."""
    wanted = INSTALLATIONS[name]
    python = str(install(tmp_path / "venv", str(wheel), *wanted) / "python")
    environ = {"ARTA_STATE_DIR": str(tmp_path / "state"), "ARTA_LOG_LEVEL": "DEBUG"}
    with GatedServer(python=python, **environ) as server:
        server.write(initialize(1), INITIALIZED, rpc("tools/list", 2))
        listed = server.read(2)
        assert [line and json.loads(line)["id"] for line in listed] == [1, 2]  # `mcp` is held back
        server.let_sdk_in()
        server.write(rpc("tools/call", 3, name="list_models"))
        assert json.loads(server.read()[0])["result"]["isError"] is False
        errors = server.finish()[1]
    assert "ERROR" not in errors
    if wanted:
        # The tool of this checkout, with the packages of that installation.
        run(python, str(ROOT / "tools" / "write_quick_replies.py"), "--check-all")
