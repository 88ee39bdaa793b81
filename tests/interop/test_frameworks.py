"""What a model reads in each agent framework of our tools, and of the picture that it asked for.

A converter that drops a keyword, or fails on one, shows here. CI runs the four main ones; `make
interop-all` runs all ten. Each has its driver `frameworks/with_NAME.py`, which runs on the pins of
`frameworks/NAME.txt` in an environment of its own, with telemetry off and a dead proxy.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.clients import FRAMEWORKS, MAIN_FRAMEWORKS, OTHER_FRAMEWORKS, Need, framework
from harness.installed import Machine
from harness.service import ScriptedServer

TRIED = MAIN_FRAMEWORKS + (OTHER_FRAMEWORKS if os.environ.get("INTEROP_ALL") == "1" else ())

TIMEOUT = 180
"""seconds; CrewAI's import alone takes 20 on a busy machine"""

NO_WAY_OUT = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
    "OTEL_SDK_DISABLED": "true",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "MCP_USE_ANONYMIZED_TELEMETRY": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}
"""foreign programs reach loopback only"""

SNAPSHOT = Path(__file__).parents[1] / "tools.json"


def ask(command: list[str], machine: Machine) -> Any:
    """What the driver's model was told, after one call of `generate_image`."""
    server = {
        "command": str(machine.program),
        "env": machine.environ,
        "cwd": str(machine.elsewhere),
    }
    ended = subprocess.run(
        [*command, json.dumps(server)],
        env={"PATH": os.environ["PATH"], "HOME": str(machine.home), **NO_WAY_OUT},
        cwd=machine.elsewhere,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    # some print beside it
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", TRIED)
def test_a_model_reads_every_argument_and_gets_its_picture(
    name: str, need: Need, quick: Machine, service: ScriptedServer
) -> None:
    told = ask(framework(name, need), quick)

    read = {tool["name"].rpartition(".")[2]: tool for tool in told["tools"]}
    for ours in json.loads(SNAPSHOT.read_text(encoding="utf-8"))["tools"]:
        theirs = read[ours["name"]]
        schema = ours["inputSchema"]
        assert ours["description"] in theirs["description"]
        arguments = theirs["parameters"]["properties"]
        assert list(arguments) == list(schema["properties"])
        for argument, field in schema["properties"].items():
            assert types_of(arguments[argument]) == {field["type"]}, argument
            assert field["description"] in arguments[argument]["description"], argument
        assert set(schema.get("required", ())) <= set(theirs["parameters"].get("required", ()))

    assert service.service.seen["submit"] == 1
    assert any(job in told["result"] for job in service.service.jobs)
    assert re.search(r"http://127\.0\.0\.1:\d+/images/", told["result"])


def types_of(field: dict[str, Any]) -> set[str]:
    """The types that a field takes beside null, however its schema says so."""
    options: list[dict[str, Any]] = field.get("anyOf", [field])
    return {str(option["type"]).lower() for option in options} - {"null"}


def test_every_framework_has_its_driver_and_its_pins_and_stands_on_the_page() -> None:
    names = sorted(MAIN_FRAMEWORKS + OTHER_FRAMEWORKS)
    assert sorted(file.stem for file in FRAMEWORKS.glob("*.txt")) == names
    assert sorted(file.stem for file in FRAMEWORKS.glob("with_*.py")) == [
        f"with_{name}" for name in names
    ]
    page = (FRAMEWORKS.parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
    for name in names:
        pins = (FRAMEWORKS / f"{name}.txt").read_text(encoding="utf-8")
        for package, version in re.findall(rf"\| `{name}` \| (\S+) (\S+) \|", page):
            assert f"{package}=={version}\n" in pins, name
            break
        else:
            pytest.fail(f"{name} has no row in docs/clients.md")
