"""What is loaded before the first answers, and what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from test_quick_replies import INITIALIZED, initialize, rpc
from write_quick_replies import without_settings

LATER = {
    "arta_mcp.cli.generate",
    "arta_mcp.local",
    "arta_mcp.state.sqlite",
    "arta_mcp.state.contract.redis",
    "arta_mcp.web",
    "PIL",
    "filelock",
    "h2",
    "httpcore",
    "httpx",
    "jwt",
    "platformdirs",
    "redis",
    "socksio",
    "sqlite3",
    "tqdm",
}
"""needed by a call at the earliest"""

AFTER_THE_DESK = {
    "anyio",
    "argparse",
    "arta_mcp.app",
    "arta_mcp.cli.parser",
    "arta_mcp.server.tools",
    "asyncio",
    "mcp",
    "pydantic",
    "socket",
    "ssl",
    "subprocess",
}
"""of no use to the settings and the front desk, and dearer than both"""

PATIENCE = 60.0


def loaded(program: str, *lines: str, **environ: str) -> tuple[list[str], dict[str, object]]:
    """The answers to these lines, and what the program tells on stderr in the end, as JSON."""
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
        asked = sum('"id"' in line for line in lines)
        answers = [process.stdout.readline() for _ in range(asked)]
        _, told = process.communicate(timeout=PATIENCE)
    return answers, json.loads(told.splitlines()[-1])


SERVER = """
import gc, json, sys
from arta_mcp.cli import main
code = main([])
told = {"code": code, "gc": gc.isenabled(), "kept": gc.get_freeze_count()}
print(json.dumps({**told, "modules": list(sys.modules)}), file=sys.stderr)
"""

UNTIL_THE_SDK = """
import json, os, sys
class Gate:
    def find_spec(self, name, path=None, target=None):
        if name == "arta_mcp.app":
            print(json.dumps({"modules": list(sys.modules)}), file=sys.stderr, flush=True)
            os._exit(0)
sys.meta_path.insert(0, Gate())
from arta_mcp.cli import main
main([])
"""


@pytest.mark.parametrize("desk", ["on", "off"])
def test_the_first_tools_list_loads_nothing_that_only_a_call_needs(desk: str) -> None:
    lines = initialize(1), INITIALIZED, rpc("tools/list", 2), rpc("prompts/list", 3)
    answers, told = loaded(SERVER, *lines, ARTA_FRONT_DESK=desk)
    assert [json.loads(answer)["id"] for answer in answers] == [1, 2, 3]
    assert told["code"] == 0
    assert_none(told["modules"], LATER)
    assert "mcp.server.mcpserver" in str(told["modules"])


def test_garbage_is_not_looked_for_among_what_the_imports_made() -> None:
    _, told = loaded(SERVER, initialize(1))
    assert told["gc"] is True
    assert isinstance(told["kept"], int)
    assert told["kept"] > 50_000


def test_the_desk_is_open_before_anything_dear_is_loaded() -> None:
    _, told = loaded(UNTIL_THE_SDK)
    assert_none(told["modules"], LATER | AFTER_THE_DESK)


def assert_none(modules: object, unwanted: set[str]) -> None:
    assert isinstance(modules, list)
    names = {str(name) for name in modules}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # JSON
    assert {name for name in unwanted if name in names} == set()
