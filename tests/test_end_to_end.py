"""The whole chain, as hosts and people start it: a real process, an empty home, real pictures."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import anyio
import jsonschema
import pytest
from mcp.types import CallToolResult

from arta_mcp import __version__
from arta_mcp.local.service import Event
from arta_mcp.styles import SHIPPED
from harness.installed import (
    PATIENCE,
    Era,
    Machine,
    addresses,
    connected,
    decoded,
    opened,
    paint,
    remote,
    told,
    words,
)
from harness.service import ScriptedServer, ScriptedService

pytestmark = pytest.mark.anyio

FOX = {"prompt": "a red fox in snow", "n": 2, "aspect_ratio": "16:9", "seed": 7}
WIDE = (1368, 768)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine.new(tmp_path)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    """One quick service that stands for the remote one."""
    folder = tmp_path_factory.mktemp("remote")
    with ScriptedServer(ScriptedService(folder, engine=paint, queue=0, draw=0)) as running:
        yield running


@pytest.fixture
def quick(machine: Machine, service: ScriptedServer) -> Machine:
    """A machine that is set to the quick service."""
    return machine.set(**remote(service))


@pytest.fixture(scope="module")
def after_a_lake(service: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a machine on which one picture was drawn."""
    machine = Machine.new(tmp_path_factory.mktemp("used") / "machine").set(**remote(service))
    ended = machine.run("generate", "a lake", "--no-save")
    assert ended.returncode == 0, ended.stderr
    return machine.state


@pytest.fixture
def used(quick: Machine, after_a_lake: Path) -> Machine:
    """A machine that is set to the quick service and has drawn "a lake" with it."""
    shutil.copytree(after_a_lake, quick.state)
    quick.state.chmod(0o700)
    return quick


# The main job


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_two_pictures_are_drawn_reported_and_opened(machine: Machine, era: Era) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with connected(machine, era) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        result = await client.call_tool("generate_image", FOX, progress_callback=hear)
        content = told(result)
        pictures = [await opened(url) for url in addresses(content)]

    assert list(tools) == ["generate_image", "get_generation", "list_models"]
    assert [picture.size for picture in pictures] == [WIDE, WIDE]
    assert pictures[0].tobytes() != pictures[1].tobytes()
    jsonschema.validate(content, tools["generate_image"].output_schema or False)  # pyright: ignore[reportUnknownMemberType]  # its stub is partial
    assert content["status"] == "done"
    assert content["backend"] == "local"
    assert content["seed"] == FOX["seed"]
    assert "not by an AI model" in str(content["notice"])
    seconds = [progress for progress, _, _ in heard]
    assert len(heard) >= 2
    assert all(earlier < later for earlier, later in pairwise(seconds))
    assert {total for _, total, _ in heard} == {None}
    assert all(re.match(r"(queued|drawing|saving the pictures), \d+ s", str(m)) for *_, m in heard)


@pytest.mark.parametrize(("era", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
async def test_the_server_says_who_it_is_in_both_eras(
    machine: Machine, era: Era, version: str
) -> None:
    async with connected(machine, era) as client:
        assert client.protocol_version == version
        server = client.server_info
    assert server is not None
    assert (server.name, server.version) == ("arta-mcp", __version__)
    assert machine.said == ""


async def test_the_text_of_a_result_stands_alone(quick: Machine) -> None:
    async with connected(quick) as client:
        result = await client.call_tool("generate_image", FOX)
    content = told(result)
    lines = words(result).splitlines()
    assert lines[:2] == [f"{i}. {url}" for i, url in enumerate(addresses(content), 1)]
    for fact in ("model flux", "16:9", "seed 7", f"record id {content['record_id']}"):
        assert fact in words(result)


async def test_every_tool_answers_in_the_schema_it_publishes(quick: Machine) -> None:
    async with connected(quick) as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        drawn = await client.call_tool("generate_image", {"prompt": "a hill"})
        arguments = {"record_id": told(drawn)["record_id"]}
        found = await client.call_tool("get_generation", arguments)
        listed = await client.call_tool("list_models", {"search": "van gogh"})
    for name, result in zip(schemas, (drawn, found, listed), strict=True):
        jsonschema.validate(told(result), schemas[name] or False)  # pyright: ignore[reportUnknownMemberType]  # its stub is partial
    assert told(found)["images"] == told(drawn)["images"]
    assert "vincent-van-gogh" in words(listed)


async def test_a_second_process_uses_the_same_account(machine: Machine) -> None:
    for prompt in ("a lake", "a tree"):
        async with connected(machine) as client:
            assert told(await client.call_tool("generate_image", {"prompt": prompt}))
    assert machine.seen("sign_up") == 1
    assert machine.seen("submit") == 2


async def test_two_processes_that_start_at_once_share_one_account(
    quick: Machine, service: ScriptedServer
) -> None:
    before = len(service.service.accounts)

    async def draw(prompt: str) -> None:
        async with connected(quick) as client:
            assert told(await client.call_tool("generate_image", {"prompt": prompt}))

    async with anyio.create_task_group() as group:
        group.start_soon(draw, "a lake")
        group.start_soon(draw, "a tree")
    assert len(service.service.accounts) == before + 1


async def test_nothing_is_written_outside_a_state_folder_for_the_owner_alone(
    machine: Machine,
) -> None:
    async with connected(machine.set(ARTA_MAX_WAIT="0")) as client:
        assert told(await client.call_tool("generate_image", {"prompt": "a lake"}))
    assert list(machine.home.iterdir()) == []
    assert list(machine.elsewhere.iterdir()) == []
    kept = [machine.state, *machine.state.rglob("*")]
    assert machine.state / "generations.sqlite3" in kept
    assert [path for path in kept if path.stat().st_mode & 0o077] == []


# Later, elsewhere, again


async def test_a_generation_of_an_earlier_process_opens_again(machine: Machine) -> None:
    async with connected(machine) as client:
        first = told(await client.call_tool("generate_image", FOX))
    async with connected(machine) as client:
        arguments = {"record_id": first["record_id"]}
        again = told(await client.call_tool("get_generation", arguments))
        pictures = [await opened(url) for url in addresses(again)]
    assert [picture.size for picture in pictures] == [WIDE, WIDE]
    timeless = first.keys() - {"images"}
    assert {name: again[name] for name in timeless} == {name: first[name] for name in timeless}
    assert machine.seen("submit") == 1


async def test_a_call_without_patience_is_pending_and_fetched_later(machine: Machine) -> None:
    async with connected(machine.set(ARTA_MAX_WAIT="0")) as client:
        pending = await client.call_tool("generate_image", FOX)
        record_id = told(pending)["record_id"]
        done = told(pending)
        with anyio.fail_after(60):  # the server's own limit of 0 s goes for every call
            while done["status"] != "done":
                arguments = {"record_id": record_id, "max_wait": 50}
                done = told(await client.call_tool("get_generation", arguments))
                await anyio.sleep(0.1)
        pictures = [await opened(url) for url in addresses(done)]
    assert told(pending)["status"] == "pending"
    assert told(pending)["images"] == []
    assert f'get_generation with record_id "{record_id}"' in words(pending)
    assert done["status"] == "done"
    assert [picture.size for picture in pictures] == [WIDE, WIDE]
    assert machine.seen("submit") == 1


async def test_a_job_outlives_the_process_that_ordered_it(machine: Machine) -> None:
    async with connected(machine.set(ARTA_MAX_WAIT="0")) as client:
        pending = told(await client.call_tool("generate_image", FOX))
    async with connected(machine) as client:
        arguments = {"record_id": pending["record_id"], "max_wait": 50}
        done = told(await client.call_tool("get_generation", arguments))
        pictures = [await opened(url) for url in addresses(done)]
    assert [picture.size for picture in pictures] == [WIDE, WIDE]
    assert machine.seen("submit") == 1


async def test_an_idempotency_key_gives_the_first_job_in_every_process(quick: Machine) -> None:
    order = {"prompt": "a lake", "idempotency_key": "order 17"}
    async with connected(quick) as client:
        first = told(await client.call_tool("generate_image", order))
    async with connected(quick) as client:
        again = told(await client.call_tool("generate_image", order))
        other = await client.call_tool("generate_image", {**order, "prompt": "a tree"})
        keyless = told(await client.call_tool("generate_image", {"prompt": "a lake"}))
    assert again["record_id"] == first["record_id"]
    assert other.is_error
    assert "idempotency_key 'order 17' belongs to another request" in words(other)
    assert keyless["record_id"] != first["record_id"]


async def test_one_key_in_two_processes_at_once_orders_one_job(
    quick: Machine, service: ScriptedServer
) -> None:
    order = {"prompt": "a lake", "idempotency_key": "order 18"}
    found: list[object] = []
    before = service.service.seen["submit"]

    async def draw() -> None:
        async with connected(quick) as client:
            found.append(told(await client.call_tool("generate_image", order))["record_id"])

    async with anyio.create_task_group() as group:
        group.start_soon(draw)
        group.start_soon(draw)
    assert len(found) == 2
    assert len(set(found)) == 1
    assert service.service.seen["submit"] == before + 1


async def test_finished_pictures_are_saved_where_the_setting_says(quick: Machine) -> None:
    folder = quick.folder / "pictures" / "of arta"
    async with connected(quick.set(ARTA_OUTPUT_DIR=str(folder))) as client:
        result = await client.call_tool("generate_image", {"prompt": "a lake", "n": 2})
    content = told(result)
    files = [folder / f"{content['record_id']}-{index}.png" for index in range(2)]
    images = content["images"]
    assert isinstance(images, list)
    assert [image["path"] for image in images] == [str(file) for file in files]  # pyright: ignore[reportUnknownVariableType]  # JSON
    assert [decoded(file.read_bytes()).size for file in files] == [(8, 8), (8, 8)]
    assert sorted(folder.iterdir()) == files
    assert all(f"saved: {file}" in words(result) for file in files)


async def test_a_cancelled_call_keeps_its_job(machine: Machine) -> None:
    async with connected(machine) as client:
        with anyio.move_on_after(PATIENCE) as patience:

            async def leave(progress: float, total: float | None, message: str | None) -> None:
                patience.cancel()

            await client.call_tool("generate_image", FOX, progress_callback=leave)
        assert patience.cancelled_caught
        models = await client.call_tool("list_models", {"search": "flux"})
    (kept,) = history(machine)
    async with connected(machine) as client:
        arguments = {"record_id": kept["record_id"], "max_wait": 50}
        done = told(await client.call_tool("get_generation", arguments))
        pictures = [await opened(url) for url in addresses(done)]
    assert not models.is_error
    assert len(pictures) == 2
    assert machine.seen("submit") == 1


# Bad input

WRONG: dict[str, tuple[dict[str, object], str, str]] = {
    "an empty prompt": ({"prompt": ""}, "prompt is ''", "1..4000 characters"),
    "a blank prompt": ({"prompt": " \n"}, "prompt is ' \\n'", "1..4000 characters"),
    "no prompt": ({}, "prompt is None", "1..4000 characters"),
    "a prompt too long": ({"prompt": "x" * 4001}, "prompt is 'xxx", "1..4000 characters"),
    "no pictures": ({"prompt": "x", "n": 0}, "n is 0", "1..8"),
    "nine pictures": ({"prompt": "x", "n": 9}, "n is 9", "1..8"),
    "half a picture": ({"prompt": "x", "n": 0.5}, "n is 0.5", "1..8"),
    "a strange ratio": (
        {"prompt": "x", "aspect_ratio": "5:7"},
        "aspect_ratio is '5:7'",
        "one of 1:1, 2:3, 3:2, 3:4, 4:3, 9:16, 16:9, 9:21, 21:9",
    ),
    "too many steps": (
        {"prompt": "x", "num_inference_steps": 51},
        "num_inference_steps is 51",
        "1..50",
    ),
    "too little guidance": (
        {"prompt": "x", "guidance_scale": 0},
        "guidance_scale is 0",
        "1..20",
    ),
    "a negative seed": ({"prompt": "x", "seed": -1}, "seed is -1", "0..4294967295"),
    "a seed of 33 bits": (
        {"prompt": "x", "seed": 2**32},
        "seed is 4294967296",
        "0..4294967295",
    ),
    "an unknown argument": (
        {"prompt": "x", "size": "1024x1024"},
        "size is '1024x1024'",
        "only prompt, model, negative_prompt, n, aspect_ratio",
    ),
    "an unknown model": (
        {"prompt": "x", "model": "fluxx"},
        "no model is called 'fluxx'",
        "did you mean flux",
    ),
}


@pytest.fixture(scope="module")
def refused(
    service: ScriptedServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, CallToolResult]:
    """What one server says to everything in `WRONG`; none of it reaches the service."""
    machine = Machine.new(tmp_path_factory.mktemp("wrong") / "machine").set(**remote(service))
    before = _sent(service)

    async def ask() -> dict[str, CallToolResult]:
        async with connected(machine) as client:
            return {
                name: await client.call_tool("generate_image", arguments)
                for name, (arguments, _, _) in WRONG.items()
            }

    answers = anyio.run(ask)
    assert _sent(service) == before
    return answers


def _sent(service: ScriptedServer) -> list[Event]:
    """Every request but those for the list of styles, which an unknown name may be looked up in."""
    return [event for event in service.service.log if event.endpoint != "styles"]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_named_with_its_value_and_what_is_allowed(
    refused: dict[str, CallToolResult], name: str
) -> None:
    _, quoted, allowed = WRONG[name]
    answer = refused[name]
    assert answer.is_error
    assert words(answer).startswith(f"Error executing tool generate_image: {quoted}")
    assert allowed in words(answer)


async def test_an_unknown_record_id_is_an_error_and_the_server_goes_on(quick: Machine) -> None:
    strange = ("0" * 32, "../../etc/passwd", "no such thing", "é")
    async with connected(quick) as client:
        answers = {
            record_id: await client.call_tool("get_generation", {"record_id": record_id})
            for record_id in strange
        }
        after = await client.call_tool("list_models", {})
    for record_id, answer in answers.items():
        assert answer.is_error
        assert f"no generation has the record id {record_id!r}" in words(answer)
    assert told(after)["total"] == len(SHIPPED.styles)


# What the host or the disk has wrong


@pytest.mark.parametrize(
    ("settings", "quoted"),
    [
        ({"ARTA_BACKEND": "arta"}, "ARTA_API_KEY is not set"),
        ({"ARTA_BACKEND": "cloud"}, "ARTA_BACKEND is 'cloud'"),
        ({"ARTA_BASE_URL": "http://example.org"}, "ARTA_BASE_URL is 'http://example.org'"),
        ({"ARTA_MAX_WAIT": "abc"}, "ARTA_MAX_WAIT is 'abc'"),
        (
            {"ARTA_API_KEY": "${user_config.api_key}"},
            "ARTA_API_KEY is the literal ${user_config.api_key}",
        ),
    ],
)
@pytest.mark.parametrize("command", [(), ("generate", "a lake")], ids=["server", "generate"])
def test_a_setting_that_cannot_be_used_stops_the_start(
    machine: Machine, command: tuple[str, ...], settings: dict[str, str], quoted: str
) -> None:
    ended = machine.set(**settings).run(*command)
    error, hint = ended.stderr.splitlines()
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert error.startswith("error: ")
    assert quoted in error
    assert hint.startswith("hint: ")
    assert not machine.state.exists()


def test_a_misspelt_variable_is_told_with_the_nearest_name(machine: Machine) -> None:
    ended = machine.set(ARTA_MAXWAIT="5").run("models", "--search", "flux")
    assert ended.returncode == 0
    warning = "warning: ARTA_MAXWAIT means nothing here; did you mean ARTA_MAX_WAIT?"
    assert warning in ended.stderr.splitlines()


@pytest.mark.parametrize("damage", [b'{"id_token": "eyJ', b"\x00\xff" * 300])
def test_a_damaged_token_file_is_made_anew(
    used: Machine, service: ScriptedServer, damage: bytes
) -> None:
    (tokens,) = used.state.glob("account-*.json")
    tokens.write_bytes(damage)
    before = service.service.seen["sign_up"]
    ended = used.run("generate", "a tree", "--no-save")
    assert ended.returncode == 0, ended.stderr
    assert service.service.seen["sign_up"] == before + 1
    assert json.loads(tokens.read_bytes())["refresh_token"]
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600


def _garbage(journal: Path) -> None:
    journal.write_bytes(b"not a database, " * 500)


def _torn(journal: Path) -> None:
    """The first page, which says that it is a database, and nothing right after it."""
    content = journal.read_bytes()
    journal.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def _cut(journal: Path) -> None:
    journal.write_bytes(journal.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [_garbage, _torn, _cut])
async def test_a_damaged_journal_is_moved_aside_and_never_deleted(
    used: Machine, damage: Callable[[Path], None]
) -> None:
    journal = used.state / "generations.sqlite3"
    damage(journal)
    damaged = journal.read_bytes()
    async with connected(used) as client:
        result = await client.call_tool("generate_image", {"prompt": "a tree"})
    assert told(result)["status"] == "done"
    (aside,) = used.state.glob("generations.sqlite3.damaged-*")
    assert aside.read_bytes() == damaged
    (warning,) = used.said.splitlines()
    assert "the journal was damaged" in warning
    assert warning.endswith(f"it was moved to {aside}")
    assert [entry["prompt"] for entry in history(used)] == ["a tree"]


def test_what_killed_processes_left_behind_is_in_nobodys_way(used: Machine) -> None:
    (tokens,) = used.state.glob("account-*.json")
    (used.state / f".{tokens.name}.123.456").write_bytes(b'{"id_token": "ey')
    (used.state / "account-gone.lock").touch()
    (used.state / "generations.sqlite3-journal").touch()
    (used.state / "a stranger's note.txt").write_text("keep me", encoding="utf-8")
    ended = used.run("generate", "a tree", "--no-save")
    assert ended.returncode == 0, ended.stderr
    assert [entry["prompt"] for entry in history(used)] == ["a tree", "a lake"]
    assert (used.state / "a stranger's note.txt").read_text(encoding="utf-8") == "keep me"


@pytest.mark.parametrize("kind", ["a file", "a link"])
async def test_a_state_folder_that_is_none_is_said_and_left_alone(
    quick: Machine, kind: str
) -> None:
    if kind == "a file":
        quick.state.write_bytes(b"mine")
    else:
        quick.state.symlink_to(quick.home)
    ended = quick.run("generate", "a lake", "--no-save")
    async with connected(quick) as client:
        answer = await client.call_tool("generate_image", {"prompt": "a lake"})
        after = await client.call_tool("list_models", {})
    error, hint = ended.stderr.splitlines()
    assert ended.returncode == 2
    assert error == f"error: the state folder {quick.state} is a link or no folder"
    assert hint == "hint: set ARTA_STATE_DIR elsewhere"
    assert answer.is_error
    assert f"the state folder {quick.state} is a link or no folder" in words(answer)
    assert not after.is_error
    assert list(quick.home.iterdir()) == []


# The wire and the process


def test_the_oldest_hosts_find_nothing_but_json_on_stdout(quick: Machine) -> None:
    hello = {
        "protocolVersion": "2024-11-05",
        "capabilities": {},
        "clientInfo": {"name": "an old host", "version": "1"},
    }
    call = {"name": "generate_image", "arguments": {"prompt": "a lake"}}
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
    ]
    with subprocess.Popen(
        [str(quick.program)],
        env=quick.set(ARTA_LOG_LEVEL="DEBUG").environ,
        cwd=quick.elsewhere,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for message in messages:
            server.stdin.write(json.dumps(message) + "\n")
        server.stdin.flush()
        answers = [json.loads(server.stdout.readline()) for _ in range(2)]
        rest, _ = server.communicate(timeout=PATIENCE)
    assert rest == ""
    assert server.returncode == 0
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[0]["result"]["protocolVersion"] == "2024-11-05"
    assert answers[1]["result"]["content"][0]["type"] == "text"
    assert "isError" not in answers[1]["result"] or not answers[1]["result"]["isError"]


async def test_no_secret_is_logged_even_at_debug(quick: Machine) -> None:
    async with connected(quick.set(ARTA_LOG_LEVEL="DEBUG")) as client:
        assert told(await client.call_tool("generate_image", {"prompt": "a quiet lake"}))
    (tokens,) = quick.state.glob("account-*.json")
    kept = json.loads(tokens.read_bytes())
    assert "DEBUG" in quick.said
    for secret in (kept["id_token"], kept["refresh_token"], quick.settings["ARTA_API_KEY"]):
        assert secret not in quick.said


# The command line


def history(machine: Machine) -> list[dict[str, object]]:
    """What `arta-mcp history --json` tells, newest first."""
    ended = machine.run("history", "--json")
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_generate_saves_where_it_is_told_and_prints_json_alone(machine: Machine) -> None:
    ended = machine.run(
        *("generate", "a red fox in snow", "-n", "2", "-a", "16:9", "-o", "fox", "--json")
    )
    assert ended.returncode == 0, ended.stderr
    drawn = json.loads(ended.stdout)
    files = sorted((machine.elsewhere / "fox").iterdir())
    assert [file.name for file in files] == [f"{drawn['record_id']}-{i}.png" for i in range(2)]
    assert [decoded(file.read_bytes()).size for file in files] == [WIDE, WIDE]
    assert [machine.elsewhere / image["path"] for image in drawn["images"]] == files
    assert [line.partition(",")[0] for line in ended.stderr.splitlines()][:2] == [
        "queued",
        "drawing",
    ]


def test_generate_prints_one_path_a_line(quick: Machine) -> None:
    ended = quick.run("generate", "a lake", "-n", "3")
    paths = [quick.elsewhere / line for line in ended.stdout.splitlines()]
    assert ended.returncode == 0, ended.stderr
    assert sorted(paths) == sorted(quick.elsewhere.iterdir())
    assert len(paths) == 3
    assert "record id" in ended.stderr


def test_get_fetches_what_generate_left_pending(quick: Machine, tmp_path: Path) -> None:
    with ScriptedServer(
        ScriptedService(tmp_path / "slow", engine=paint, queue=0, draw=1.5)
    ) as slow:
        patient = quick.set(**remote(slow))
        pending = patient.run("generate", "a lake", "--max-wait", "0", "--no-save", "--json")
        record_id = json.loads(pending.stdout)["record_id"]
        done = patient.run("get", record_id, "-o", "later")
    assert pending.returncode == 3
    assert json.loads(pending.stdout)["status"] == "pending"
    assert f"`arta-mcp get {record_id}`" in pending.stderr
    assert done.returncode == 0, done.stderr
    (file,) = (patient.elsewhere / "later").iterdir()
    assert decoded(file.read_bytes()).size == (8, 8)
    (entry,) = history(patient)
    assert (entry["record_id"], entry["status"]) == (record_id, "done")


def test_models_prints_every_model_as_json(machine: Machine) -> None:
    ended = machine.run("models", "--json")
    listed = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert {model["name"] for model in listed["models"]} == {s.name for s in SHIPPED.styles}
    assert not machine.state.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "error", "hint"),
    [
        (["genrate", "a lake"], 2, "invalid choice: 'genrate'", "did you mean generate?"),
        (["generate"], 2, "required: PROMPT", "--help"),
        (["generate", ""], 2, "prompt is ''", ""),
        (["generate", "a lake", "-n", "9"], 2, "n is '9'", ""),
        (["generate", "a lake", "-a", "5:7"], 2, "aspect_ratio is '5:7'", ""),
        (["generate", "a lake", "-m", "fluxx"], 1, "'fluxx'", "did you mean flux"),
        (["get", "0" * 32], 1, "no generation has the record id", "arta-mcp history"),
        (["history", "--limit", "few"], 2, "invalid int value: 'few'", "--help"),
        (["models", "--jsn"], 2, "unrecognized arguments: --jsn", "did you mean --json?"),
    ],
)
def test_a_wrong_command_line_is_refused_with_one_error_line(
    quick: Machine, arguments: list[str], code: int, error: str, hint: str
) -> None:
    ended = quick.run(*arguments)
    said = ended.stderr.splitlines()
    assert ended.returncode == code
    assert ended.stdout == ""
    assert said[0].startswith("error: ")
    assert error in said[0]
    assert hint in " ".join(said[1:])
    assert all(line.startswith("hint: ") for line in said[1:])


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_version_and_help_need_no_settings(machine: Machine, flag: str) -> None:
    ended = machine.set(ARTA_MAX_WAIT="abc").run(flag)
    assert ended.returncode == 0
    assert ended.stdout.startswith((f"arta-mcp {__version__}", "usage: arta-mcp"))
    assert ended.stderr == ""


def test_a_reader_that_goes_away_is_no_traceback(machine: Machine) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        ended = subprocess.run(
            [str(machine.program), "models"],
            env=machine.environ,
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
