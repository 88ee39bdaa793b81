"""What a model reads in each agent framework of our tools, and what becomes of its one request.

The scripted model wants one picture, which takes 15 s; the framework gives calls up as it does by
default. CI runs the four main ones; `make interop-all` runs all, with pictures longer than 30 and
60 s too, and keeps what it saw in `results.json`, from which `tools/write_clients.py` writes
docs/clients.md. Each has its driver `frameworks/with_NAME.py`, which runs on the pins of
`frameworks/NAME.txt` in an environment of its own, with telemetry off and a dead proxy.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.clients import (
    FRAMEWORKS,
    INTEROP,
    MAIN_FRAMEWORKS,
    OTHER_FRAMEWORKS,
    PINS,
    ROOT,
    SDK_CLIENTS,
    Need,
    driver,
)
from harness.foreign import Run, ask_for_picture, run_client
from harness.installed import Machine, decode

RUNS_ALL = os.environ.get("INTEROP_ALL") == "1"

TRIED = MAIN_FRAMEWORKS + (OTHER_FRAMEWORKS + SDK_CLIENTS if RUNS_ALL else ())

DRAW = 15.0
"""seconds; longer than the shortest limits, three times"""

LONG = (("llamaindex", 40.0), ("crewai", 40.0), ("typescript", 70.0))
"""clients, and seconds that are more than their limits"""

CASES = [*((name, DRAW) for name in TRIED), *(LONG if RUNS_ALL else ())]

NEW_USERS = ("langchain", *(("openai_agents", "llamaindex", "crewai") if RUNS_ALL else ()))

RESULTS = INTEROP / "results.json"
SNAPSHOT = Path(__file__).parents[1] / "tools.json"

Start = Callable[..., Run]


@pytest.fixture(scope="module")
def ask(
    request: pytest.FixtureRequest, need: Need, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """`ask(name, draw, **settings)`: the run of a driver, made once.

    They spend their time waiting, so those of the tests to come run beside each other.
    """
    runs: dict[str, Future[Run]] = {}

    def start(name: str, draw: float, **settings: str) -> Future[Run]:
        key = json.dumps([name, draw, settings])
        if key not in runs:
            command = driver(name, need)
            folder = tmp_path_factory.mktemp(f"{name}-{draw:.0f}")
            runs[key] = pool.submit(ask_for_picture, command, folder, draw=draw, **settings)
        return runs[key]

    with ThreadPoolExecutor(4) as pool:
        for item in request.session.items:
            if isinstance(item, pytest.Function) and item.path == request.path:
                for name, draw in CASES:
                    if f"[{name}-{draw:g}]" in item.name:
                        start(name, draw)

        def wait(name: str, draw: float, **settings: str) -> Run:
            return start(name, draw, **settings).result()

        yield wait


@pytest.mark.parametrize(("name", "draw"), CASES, ids=[f"{name}-{draw:g}" for name, draw in CASES])
def test_one_request_is_one_job_and_its_picture_reaches_the_model(
    name: str, draw: float, ask: Start
) -> None:
    run = ask(name, draw)
    assert run.jobs == 1, run.calls
    assert re.search(r"http://127\.0\.0\.1:\d+/images/", run.answer), run.calls
    if not RUNS_ALL:
        return
    if draw == DRAW:
        write_row(name, row_of(run, ask(name, 0.0, ARTA_PREVIEW="on")))
    else:
        write_row(name, {"longer": {"draw": draw, **times_of(run)}})


@pytest.mark.parametrize("name", TRIED)
def test_a_model_reads_every_argument(name: str, ask: Start) -> None:
    read = {ours_of(tool["name"]): tool for tool in ask(name, DRAW).tools}
    for ours in read_json(SNAPSHOT)["tools"]:
        theirs = read[ours["name"]]
        schema = ours["inputSchema"]
        assert ours["description"] in theirs["description"]
        parameters = parameters_of(theirs)
        arguments = parameters["properties"]
        assert list(arguments) == list(schema["properties"])
        for argument, field in schema["properties"].items():
            assert types_of(arguments[argument]) == {field["type"]}, argument
            assert field["description"] in arguments[argument]["description"], argument
        assert set(schema.get("required", ())) <= set(parameters.get("required", ()))


@pytest.mark.parametrize("name", NEW_USERS)
def test_a_quick_start_without_any_setting_leaves_a_picture_that_opens(
    name: str, need: Need, machine: Machine
) -> None:
    told = run_client(driver(name, need), machine, None)
    path = re.search(rf"{machine.home}/[\w./-]+\.png", told["calls"][-1]["result"])
    assert path is not None, told["calls"]
    assert len(told["calls"]) == 1
    assert decode(Path(path[0]).read_bytes()).width > 1000


def ours_of(name: str) -> str:
    """Our name of a tool before which a framework puts the server's."""
    return re.sub(r".*(?=(generate_image|get_generation|list_models)$)", "", name)


def parameters_of(tool: dict[str, Any]) -> dict[str, Any]:
    names = ("parameters", "parametersJsonSchema", "parameters_json_schema")  # the last: ADK
    return next(tool[name] for name in names if name in tool)


def types_of(field: dict[str, Any]) -> set[str]:
    """The types that a field takes beside null, however its schema says so."""
    options: list[dict[str, Any]] = field.get("anyOf", [field])
    return {str(option["type"]).lower() for option in options} - {"null"}


# What docs/clients.md is written from


def row_of(run: Run, with_preview: Run) -> dict[str, Any]:
    """What the runs of a client showed."""
    (draws,) = [tool for tool in run.tools if ours_of(tool["name"]) == "generate_image"]
    schema = json.dumps(parameters_of(draws))
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": git("rev-parse", "--short", "HEAD"),
        "protocol": run.protocol,
        "introduced_as": run.introduced_as,
        "keeps": [word for word in ("enum", "maximum") if f'"{word}"' in schema],
        "strict": len(parameters_of(draws)["required"]) > 1,
        "sees": [
            *(["text"] if "record id " in run.answer else []),
            *(["structured part"] if "num_inference_steps" in run.answer else []),
        ],
        "preview": shape_of_preview(json.loads(with_preview.answer)),
        **times_of(run),
    }


def times_of(run: Run) -> dict[str, Any]:
    return {
        "calls": len(run.calls),
        "orders": len(run.orders),
        "jobs": run.jobs,
        "seconds": round(run.heard[-1].at - run.orders[0].at),
        "cuts": [{"after": round(after, 1), "how": how} for after, how in run.cuts],
    }


def shape_of_preview(value: Any, *, is_picture: bool = False) -> str:
    """What became of an image block: `picture`, `base64 as text`, or `nothing`."""
    if isinstance(value, str) and "UklGR" in value:  # how the base64 of every WebP begins
        return "picture" if is_picture else "base64 as text"
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = [*value.items()]  # pyright: ignore[reportUnknownArgumentType]  # JSON
    elif isinstance(value, list):
        inner = [(None, one) for one in value]  # pyright: ignore[reportUnknownVariableType]  # JSON
    found = {
        shape_of_preview(
            one, is_picture=is_picture or key in ("image_url", "inlineData", "inline_data")
        )
        for key, one in inner
    }
    return next(iter(found - {"nothing"}), "nothing")


def write_row(name: str, row: dict[str, Any]) -> None:
    """Puts a client's facts into `results.json`, beside those that stand there."""
    rows: dict[str, Any] = read_json(RESULTS) if RESULTS.exists() else {}
    rows[name] = {**rows.get(name, {}), **row}
    text = json.dumps(dict(sorted(rows.items())), indent=2, ensure_ascii=False)
    RESULTS.write_text(f"{text}\n", encoding="utf-8")


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_every_framework_has_its_driver_and_its_pins() -> None:
    names = sorted(MAIN_FRAMEWORKS + OTHER_FRAMEWORKS)
    pins = {PINS.get(name, name) for name in names}
    assert {file.stem for file in FRAMEWORKS.glob("*.txt")} == pins
    drivers = [file.stem for file in (*FRAMEWORKS.glob("with_*.py"), *INTEROP.glob("with_*.mjs"))]
    assert sorted(drivers) == sorted(f"with_{name}" for name in (*names, *SDK_CLIENTS))
