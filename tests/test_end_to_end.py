"""The whole chain, as hosts and people start it: a real process, an empty home, real pictures."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import pairwise

import anyio
import jsonschema
import pytest
from mcp.types import CallToolResult

from arta_mcp import __version__
from arta_mcp.local.service import Event
from arta_mcp.styles import SHIPPED
from harness.installed import (
    TIMEOUT,
    Era,
    Machine,
    connect,
    content_of,
    decode,
    fetch_picture,
    image_urls,
    remote_settings,
    text_of,
)
from harness.service import ScriptedServer

pytestmark = pytest.mark.anyio

FOX = {"prompt": "a red fox in snow", "n": 2, "aspect_ratio": "16:9", "seed": 7}
WIDE = (1368, 768)


# The main job


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_two_pictures_are_drawn_reported_and_opened(machine: Machine, era: Era) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with connect(machine, era) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        result = await client.call_tool("generate_image", FOX, progress_callback=hear)
        content = content_of(result)
        pictures = [await fetch_picture(url) for url in image_urls(content)]

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
    async with connect(machine, era) as client:
        assert client.protocol_version == version
        server = client.server_info
    assert server is not None
    assert (server.name, server.version) == ("arta-mcp", __version__)
    assert machine.log == ""


async def test_the_text_of_a_result_stands_alone(quick: Machine) -> None:
    async with connect(quick) as client:
        result = await client.call_tool("generate_image", FOX)
    content = content_of(result)
    lines = text_of(result).splitlines()
    assert lines[:2] == [f"{i}. {url}" for i, url in enumerate(image_urls(content), 1)]
    for fact in ("model flux", "16:9", "seed 7", f"record id {content['record_id']}"):
        assert fact in text_of(result)


async def test_every_tool_answers_in_the_schema_it_publishes(quick: Machine) -> None:
    async with connect(quick) as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        drawn = await client.call_tool("generate_image", {"prompt": "a hill"})
        arguments = {"record_id": content_of(drawn)["record_id"]}
        found = await client.call_tool("get_generation", arguments)
        listed = await client.call_tool("list_models", {"search": "van gogh"})
    for name, result in zip(schemas, (drawn, found, listed), strict=True):
        jsonschema.validate(content_of(result), schemas[name] or False)  # pyright: ignore[reportUnknownMemberType]  # its stub is partial
    assert content_of(found)["images"] == content_of(drawn)["images"]
    assert "vincent-van-gogh" in text_of(listed)


async def test_a_second_process_uses_the_same_account(machine: Machine) -> None:
    for prompt in ("a lake", "a tree"):
        async with connect(machine) as client:
            assert content_of(await client.call_tool("generate_image", {"prompt": prompt}))
    assert machine.count_requests("sign_up") == 1
    assert machine.count_requests("submit") == 2


async def test_two_processes_that_start_at_once_share_one_account(
    quick: Machine, service: ScriptedServer
) -> None:
    before = len(service.service.accounts)

    async def draw(prompt: str) -> None:
        async with connect(quick) as client:
            assert content_of(await client.call_tool("generate_image", {"prompt": prompt}))

    async with anyio.create_task_group() as group:
        group.start_soon(draw, "a lake")
        group.start_soon(draw, "a tree")
    assert len(service.service.accounts) == before + 1


async def test_nothing_is_written_outside_a_state_folder_for_the_owner_alone(
    machine: Machine,
) -> None:
    async with connect(machine.set(ARTA_MAX_WAIT="0")) as client:
        assert content_of(await client.call_tool("generate_image", {"prompt": "a lake"}))
    assert list(machine.home.iterdir()) == []
    assert list(machine.elsewhere.iterdir()) == []
    kept = [machine.state, *machine.state.rglob("*")]
    assert machine.state / "generations.sqlite3" in kept
    assert [path for path in kept if path.stat().st_mode & 0o077] == []


# Later, elsewhere, again


async def test_a_generation_of_an_earlier_process_opens_again(machine: Machine) -> None:
    async with connect(machine) as client:
        first = content_of(await client.call_tool("generate_image", FOX))
    async with connect(machine) as client:
        arguments = {"record_id": first["record_id"]}
        again = content_of(await client.call_tool("get_generation", arguments))
        pictures = [await fetch_picture(url) for url in image_urls(again)]
    assert [picture.size for picture in pictures] == [WIDE, WIDE]
    timeless = first.keys() - {"images"}
    assert {name: again[name] for name in timeless} == {name: first[name] for name in timeless}
    assert machine.count_requests("submit") == 1


async def test_a_call_without_patience_is_pending_and_fetched_later(machine: Machine) -> None:
    async with connect(machine.set(ARTA_MAX_WAIT="0")) as client:
        pending = await client.call_tool("generate_image", FOX)
        record_id = content_of(pending)["record_id"]
        done = content_of(pending)
        with anyio.fail_after(60):  # the server's own limit of 0 s goes for every call
            while done["status"] != "done":
                arguments = {"record_id": record_id, "max_wait": 50}
                done = content_of(await client.call_tool("get_generation", arguments))
                await anyio.sleep(0.1)
        pictures = [await fetch_picture(url) for url in image_urls(done)]
    assert content_of(pending)["status"] == "pending"
    assert content_of(pending)["images"] == []
    assert f'get_generation with record_id "{record_id}"' in text_of(pending)
    assert done["status"] == "done"
    assert [picture.size for picture in pictures] == [WIDE, WIDE]
    assert machine.count_requests("submit") == 1


async def test_a_job_outlives_the_process_that_ordered_it(machine: Machine) -> None:
    async with connect(machine.set(ARTA_MAX_WAIT="0")) as client:
        pending = content_of(await client.call_tool("generate_image", FOX))
    async with connect(machine) as client:
        arguments = {"record_id": pending["record_id"], "max_wait": 50}
        done = content_of(await client.call_tool("get_generation", arguments))
        pictures = [await fetch_picture(url) for url in image_urls(done)]
    assert [picture.size for picture in pictures] == [WIDE, WIDE]
    assert machine.count_requests("submit") == 1


async def test_an_idempotency_key_gives_the_first_job_in_every_process(quick: Machine) -> None:
    order = {"prompt": "a lake", "idempotency_key": "order 17"}
    async with connect(quick) as client:
        first = content_of(await client.call_tool("generate_image", order))
    async with connect(quick) as client:
        again = content_of(await client.call_tool("generate_image", order))
        other = await client.call_tool("generate_image", {**order, "prompt": "a tree"})
        keyless = content_of(await client.call_tool("generate_image", {"prompt": "a lake"}))
    assert again["record_id"] == first["record_id"]
    assert other.is_error
    assert "idempotency_key 'order 17' belongs to another request" in text_of(other)
    assert keyless["record_id"] != first["record_id"]


async def test_one_key_in_two_processes_at_once_orders_one_job(
    quick: Machine, service: ScriptedServer
) -> None:
    order = {"prompt": "a lake", "idempotency_key": "order 18"}
    found: list[object] = []
    before = service.service.seen["submit"]

    async def draw() -> None:
        async with connect(quick) as client:
            found.append(content_of(await client.call_tool("generate_image", order))["record_id"])

    async with anyio.create_task_group() as group:
        group.start_soon(draw)
        group.start_soon(draw)
    assert len(found) == 2
    assert len(set(found)) == 1
    assert service.service.seen["submit"] == before + 1


async def test_finished_pictures_are_saved_where_the_setting_says(quick: Machine) -> None:
    folder = quick.folder / "pictures" / "of arta"
    async with connect(quick.set(ARTA_OUTPUT_DIR=str(folder))) as client:
        result = await client.call_tool("generate_image", {"prompt": "a lake", "n": 2})
    content = content_of(result)
    files = [folder / f"a-lake-{content['record_id']}-{index}.png" for index in range(2)]
    images = content["images"]
    assert isinstance(images, list)
    assert [image["path"] for image in images] == [str(file) for file in files]  # pyright: ignore[reportUnknownVariableType]  # JSON
    assert [decode(file.read_bytes()).size for file in files] == [(8, 8), (8, 8)]
    assert sorted(folder.iterdir()) == files
    lines = [f"{number}. {file}\n   http" for number, file in enumerate(files, 1)]
    assert all(line in text_of(result) for line in lines)


async def test_a_picture_still_opens_when_the_process_that_drew_it_has_ended(
    machine: Machine,
) -> None:
    async with connect(machine) as client:
        result = await client.call_tool("generate_image", {"prompt": "a lake"})
    first, second = text_of(result).splitlines()[:2]
    path, url = anyio.Path(first.removeprefix("1. ")), second.strip()
    drawn = decode(await path.read_bytes())
    assert drawn.format == "PNG"
    assert f"'path': '{path}'" in str(content_of(result)["images"])
    async with connect(machine) as client:
        await client.call_tool("get_generation", {"record_id": content_of(result)["record_id"]})
        assert (await fetch_picture(url)).size == drawn.size


async def test_a_sketch_says_what_it_is_before_and_after_and_what_it_cannot_draw(
    machine: Machine,
) -> None:
    async with connect(machine) as client:
        assert "sketches by rules (backend `local`), not AI pictures" in str(client.instructions)
        models = text_of(await client.call_tool("list_models", {}))
        result = await client.call_tool("generate_image", {"prompt": "a dragon in snow"})
    assert "sketches by rules, from the words that it knows, and not AI pictures" in models
    async with connect(machine) as client:
        record_id = content_of(result)["record_id"]
        again = await client.call_tool("get_generation", {"record_id": record_id})
    for told in (result, again):
        notice = str(content_of(told)["notice"])
        assert notice.startswith("the sketch cannot draw: dragon; a sketch by the embedded service")
        assert "you answer for having the right to use it" in notice
        assert notice in text_of(told)


async def test_a_cancelled_call_keeps_its_job(machine: Machine) -> None:
    async with connect(machine) as client:
        with anyio.move_on_after(TIMEOUT) as patience:

            async def leave(progress: float, total: float | None, message: str | None) -> None:
                patience.cancel()

            await client.call_tool("generate_image", FOX, progress_callback=leave)
        assert patience.cancelled_caught
        models = await client.call_tool("list_models", {"search": "flux"})
    (kept,) = history(machine)
    async with connect(machine) as client:
        arguments = {"record_id": kept["record_id"], "max_wait": 50}
        done = content_of(await client.call_tool("get_generation", arguments))
        pictures = [await fetch_picture(url) for url in image_urls(done)]
    assert not models.is_error
    assert len(pictures) == 2
    assert machine.count_requests("submit") == 1


# Bad input

WRONG: dict[str, tuple[dict[str, object], str, str]] = {
    "an empty prompt": ({"prompt": ""}, "prompt is ''", "1..4000 characters"),
    "a blank prompt": ({"prompt": " \n"}, "prompt is ' \\n'", "1..4000 characters"),
    "no prompt": ({}, "prompt is missing", "1..4000 characters"),
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
        "no argument is called 'size'",
        "there are prompt, model, negative_prompt, n, aspect_ratio",
    ),
    "an unknown model": (
        {"prompt": "x", "model": "fluxx"},
        "no model is called 'fluxx'",
        "did you mean flux",
    ),
}


@pytest.fixture(scope="module")
def refused(
    remote_service: ScriptedServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, CallToolResult]:
    """What one server says to everything in `WRONG`; none of it reaches the service."""
    machine = Machine.new(tmp_path_factory.mktemp("wrong") / "machine")
    machine = machine.set(**remote_settings(remote_service))
    before = _sent(remote_service)

    async def ask() -> dict[str, CallToolResult]:
        async with connect(machine) as client:
            return {
                name: await client.call_tool("generate_image", arguments)
                for name, (arguments, _, _) in WRONG.items()
            }

    answers = anyio.run(ask)
    assert _sent(remote_service) == before
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
    assert text_of(answer).startswith(f"Error executing tool generate_image: {quoted}")
    assert allowed in text_of(answer)


async def test_an_unknown_record_id_is_an_error_and_the_server_goes_on(quick: Machine) -> None:
    strange = ("0" * 32, "../../etc/passwd", "no such thing", "é")
    async with connect(quick) as client:
        answers = {
            record_id: await client.call_tool("get_generation", {"record_id": record_id})
            for record_id in strange
        }
        after = await client.call_tool("list_models", {})
    for record_id, answer in answers.items():
        assert answer.is_error
        assert f"no generation has the record id {record_id!r}" in text_of(answer)
    assert content_of(after)["total"] == len(SHIPPED.search(None))


# What the host or the disk has wrong


async def test_a_damaged_journal_is_moved_aside_and_never_deleted(used: Machine) -> None:
    journal = used.state / "generations.sqlite3"
    journal.write_bytes(journal.read_bytes()[:5000])
    damaged = journal.read_bytes()
    async with connect(used) as client:
        result = await client.call_tool("generate_image", {"prompt": "a tree"})
    assert content_of(result)["status"] == "done"
    (aside,) = used.state.glob("generations.sqlite3.damaged-*")
    assert aside.read_bytes() == damaged
    (warning,) = used.log.splitlines()
    assert "the journal was damaged" in warning
    assert warning.endswith(f"it was moved to {aside}")
    assert [entry["prompt"] for entry in history(used)] == ["a tree"]


async def test_a_state_folder_that_is_none_is_said_and_left_alone(quick: Machine) -> None:
    quick.state.symlink_to(quick.home)
    async with connect(quick) as client:
        answer = await client.call_tool("generate_image", {"prompt": "a lake"})
        after = await client.call_tool("list_models", {})
    assert answer.is_error
    assert f"the state folder {quick.state} is a link or no folder" in text_of(answer)
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
        rest, _ = server.communicate(timeout=TIMEOUT)
    assert rest == ""
    assert server.returncode == 0
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[0]["result"]["protocolVersion"] == "2024-11-05"
    assert answers[1]["result"]["content"][0]["type"] == "text"
    assert "isError" not in answers[1]["result"] or not answers[1]["result"]["isError"]


async def test_no_secret_is_logged_even_at_debug(quick: Machine) -> None:
    async with connect(quick.set(ARTA_LOG_LEVEL="DEBUG")) as client:
        assert content_of(await client.call_tool("generate_image", {"prompt": "a quiet lake"}))
    (tokens,) = quick.state.glob("account-*.json")
    kept = json.loads(tokens.read_bytes())
    assert "DEBUG" in quick.log
    for secret in (kept["id_token"], kept["refresh_token"], quick.settings["ARTA_API_KEY"]):
        assert secret not in quick.log


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
    assert [file.name for file in files] == [
        f"a-red-fox-in-snow-{drawn['record_id']}-{i}.png" for i in range(2)
    ]
    assert [decode(file.read_bytes()).size for file in files] == [WIDE, WIDE]
    assert [machine.elsewhere / image["path"] for image in drawn["images"]] == files
    assert [line.partition(",")[0] for line in ended.stderr.splitlines()][:2] == [
        "queued",
        "drawing",
    ]
