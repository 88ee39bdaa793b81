"""What is loaded before the first replies, and what is not."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import arta_mcp
from arta_mcp.config import without_settings
from test_quick_replies import INITIALIZED, GatedServer, initialize, rpc

BY_A_CALL = {
    "PIL",
    "arta_mcp.cli.account",
    "arta_mcp.cli.batch",
    "arta_mcp.cli.doctor",
    "arta_mcp.cli.generate",
    "arta_mcp.cli.install",
    "arta_mcp.cli.serve_http",
    "arta_mcp.bounded_http",
    "arta_mcp.engines.diffusers",
    "arta_mcp.engines.sketch.engine",
    "arta_mcp.engines.worker",
    "arta_mcp.local",
    "arta_mcp.server.http",
    "arta_mcp.server.http_auth",
    "arta_mcp.server.http_calls",
    "arta_mcp.server.remote_view",
    "arta_mcp.state.redis",
    "arta_mcp.state.sqlite",
    "filelock",
    "h2",
    "httpcore",
    "httpx",
    "jwt",
    "platformdirs",
    "redis",
    "shtab",
    "socksio",
    "sqlite3",
    "tqdm",
}
"""loaded by a call at the earliest; a package stands for all that is in it"""

WITH_THE_SDK = {
    "anyio",
    "argparse",
    "arta_mcp.app",
    "arta_mcp.arta.client",
    "arta_mcp.arta.protocol",
    "arta_mcp.arta.transport",
    "arta_mcp.cli.parser",
    "arta_mcp.generations",
    "arta_mcp.server",
    "arta_mcp.state",
    "arta_mcp.styles",
    "asyncio",
    "mcp",
    "pydantic",
    "socket",
    "ssl",
    "starlette",
    "subprocess",
    "uvicorn",
}
"""of no use to the settings and to quick replies, and dearer than both"""

PROCESS_TIMEOUT = 60.0
"""seconds that a server process gets on a machine under load"""


def loaded(program: str, *lines: str, **environ: str) -> tuple[list[str], dict[str, object]]:
    """The replies to these lines, and what the program prints on stderr in the end, as JSON."""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=without_settings(os.environ) | environ,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(f"{line}\n" for line in lines))
        process.stdin.flush()
        count = sum('"id"' in line for line in lines)
        replies = [process.stdout.readline() for _ in range(count)]
        _, errors = process.communicate(timeout=PROCESS_TIMEOUT)
    return replies, json.loads(errors.splitlines()[-1])


SERVER = """
import gc, json, sys
from arta_mcp.cli import main
code = main([])
report = {"code": code, "gc": gc.isenabled(), "frozen": gc.get_freeze_count()}
print(json.dumps({**report, "modules": list(sys.modules)}), file=sys.stderr)
"""

UNTIL_THE_SDK = """
import json, os, sys
class Gate:
    def find_spec(self, name, path=None, target=None):
        if name in ("arta_mcp.app", "arta_mcp.server"):
            # past the thread that else passes on what is written to stderr
            print(json.dumps({"modules": list(sys.modules)}), file=sys.__stderr__, flush=True)
            os._exit(0)
sys.meta_path.insert(0, Gate())
from arta_mcp.cli import main
main([])
"""


def test_every_module_that_must_not_be_loaded_is_one_that_could_be() -> None:
    guarded = sorted(BY_A_CALL | WITH_THE_SDK)
    assert [name for name in guarded if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize("quick", ["on", "off"])
def test_the_first_tools_list_loads_nothing_that_only_a_call_needs(quick: str) -> None:
    lines = initialize(1), INITIALIZED, rpc("tools/list", 2), rpc("prompts/list", 3)
    replies, report = loaded(SERVER, *lines, ARTA_QUICK_REPLIES=quick)
    assert [json.loads(reply)["id"] for reply in replies] == [1, 2, 3]
    assert report["code"] == 0
    assert_none(report["modules"], BY_A_CALL)
    assert "mcp.server.mcpserver" in str(report["modules"])


def test_garbage_is_not_looked_for_among_what_the_imports_made() -> None:
    _, report = loaded(SERVER, initialize(1))
    assert report["gc"] is True
    assert isinstance(report["frozen"], int)
    assert report["frozen"] > 50_000


def test_quick_replies_start_before_anything_dear_is_loaded() -> None:
    _, report = loaded(UNTIL_THE_SDK)
    assert_none(report["modules"], BY_A_CALL | WITH_THE_SDK)
    assert "arta_mcp.quick_replies" in str(report["modules"])


LOADED_SDK = """
import json, sys
from pydantic import BaseModel
from arta_mcp.server.loading import load_sdk
load_sdk()
class Ours(BaseModel):
    x: int
from mcp.types import ListToolsResult, Prompt
lazy = [Prompt.__pydantic_complete__, Ours.__pydantic_complete__]
used = Prompt(name="a").model_dump(exclude_unset=True)
report = {"lazy": lazy, "used": used, "built": Prompt.__pydantic_complete__}
print(json.dumps({**report, "config": dict(BaseModel.model_config)}), file=sys.stderr)
"""


def test_models_of_the_sdk_are_built_at_their_first_use_and_all_others_at_once() -> None:
    _, report = loaded(LOADED_SDK)
    assert report == {"lazy": [False, True], "used": {"name": "a"}, "built": True, "config": {}}


def test_a_first_start_in_a_home_that_nobody_can_write_to_is_quick(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.touch()  # no folder: in one that may only be read, root would write all the same
    with GatedServer(HOME=str(home), PYTHONPYCACHEPREFIX=str(home)) as server:
        server.write(initialize(1), INITIALIZED, rpc("tools/list", 2))
        assert [json.loads(line)["id"] for line in server.read(2)] == [1, 2]
    assert home.read_bytes() == b""


def assert_none(modules: object, unwanted: set[str]) -> None:
    assert isinstance(modules, list)
    names = {str(name) for name in modules}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # JSON
    assert {name for name in unwanted if name in names} == set()


SHADOWED = ("__future__", "json", "typing", "enum", "re", "signal", "threading", "argparse", "mcp")
"""modules that we load, and that Python itself has not loaded before us"""


@pytest.mark.parametrize("arguments", [[], ["models", "--search", "flux"]])
def test_a_file_of_the_current_folder_is_not_run_in_place_of_a_module(
    tmp_path: Path, arguments: list[str]
) -> None:
    for name in SHADOWED:
        code = f"import os; os.write(2, b'{name} was run'); os._exit(7)"
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "arta_mcp", *arguments],
        input=f"{initialize(1)}\n",
        cwd=tmp_path,
        env=without_settings(os.environ) | {"ARTA_STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        encoding="utf-8",
        timeout=PROCESS_TIMEOUT,
        check=False,
    )
    assert "was run" not in ended.stderr
    assert ended.returncode == 0
    assert ended.stdout


def test_a_checkout_is_run_from_its_own_folder() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "arta_mcp", "--version"],
        cwd=Path(arta_mcp.__file__).parent.parent,
        capture_output=True,
        encoding="utf-8",
        timeout=PROCESS_TIMEOUT,
        check=False,
    )
    assert ended.stdout == f"arta-mcp {arta_mcp.__version__}\n"


PUBLIC = """
import json, sys
import arta_mcp
before = [name for name in sys.modules if name.startswith("arta_mcp.")]
found = {name: getattr(arta_mcp, name).__name__ for name in arta_mcp.__all__}
print(json.dumps({"modules": before, "found": found}), file=sys.stderr)
"""


def test_the_public_names_load_on_first_use() -> None:
    _, printed = loaded(PUBLIC)
    assert printed["modules"] == []
    assert printed["found"] == {name: name for name in arta_mcp.__all__}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Generator'"):
        _ = arta_mcp.Generator  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]  # the point
