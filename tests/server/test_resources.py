"""What can be read, picked and completed, and what subscribers are told, in both eras."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import anyio
import mcp
import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp.shared.subscriptions import ResourceUpdated, ServerEvent
from mcp.types import PromptReference, ResourceTemplateReference
from PIL import Image as Pillow

from arta_mcp.engines.sketch.engine import draw
from arta_mcp.errors import ArtaError, UnknownRecord
from arta_mcp.generations.values import GenerationRequest
from arta_mcp.server.build import build_server
from arta_mcp.server.completions import MAX_COMPLETIONS
from arta_mcp.server.notifications import MAX_SUBSCRIPTIONS, OwnersBus, add_notifications
from arta_mcp.styles import SHIPPED
from harness.errors import WORDS, every_error
from harness.processes import writing_to_journal
from harness.world import World, new_world

pytestmark = pytest.mark.anyio

BOTH_ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


def client(world: World, mode: str = "auto") -> Client:
    return Client(build_server(world.generations()), mode=mode)  # pyright: ignore[reportArgumentType]  # one of both


def content(read: mcp.types.ReadResourceResult) -> str:
    found = read.contents[0]
    return found.text if isinstance(found, mcp.types.TextResourceContents) else found.blob


async def drawn(asked: Client, **arguments: object) -> str:
    result = await asked.call_tool("generate_image", {"prompt": "a fox", **arguments})
    assert result.structured_content is not None
    return result.structured_content["record_id"]


@BOTH_ERAS
async def test_generations_are_resources(world: World, mode: str) -> None:
    async with client(world, mode) as asked:
        record_id = await drawn(asked, n=2)
        latest = json.loads(content(await asked.read_resource("arta://generations")))
        one = json.loads(content(await asked.read_resource(f"arta://generations/{record_id}")))
    assert [entry["record_id"] for entry in latest] == [record_id]
    assert one["status"] == "done"
    assert (one["prompt"], len(one["images"])) == ("a fox", 2)


@BOTH_ERAS
async def test_models_are_a_resource(world: World, mode: str) -> None:
    async with client(world, mode) as asked:
        listed = json.loads(content(await asked.read_resource("arta://models")))
    assert len(listed["models"]) == len(SHIPPED.search(None)) == 99  # no test names
    assert listed["source"] == "shipped"


async def test_a_picture_is_a_resource_small_enough_for_every_host(tmp_path: Path) -> None:
    world = new_world(tmp_path, engine=draw)
    async with client(world) as asked:
        record_id = await drawn(asked, aspect_ratio="16:9")
        read = await asked.read_resource(f"arta://generations/{record_id}/images/0")
    blob = base64.b64decode(content(read))
    with Pillow.open(io.BytesIO(blob)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (1368, 768))
    assert len(blob) <= 700_000


@pytest.mark.parametrize(
    "path",
    ["nope", "nope/images/0", "{}/images/7", "{}/images/x", "{}/images/" + "9" * 5000],
    ids=["record id", "its picture", "index", "letter", "more digits than Python reads"],
)
async def test_what_is_not_there_is_told_as_such(world: World, path: str) -> None:
    async with client(world) as asked:
        record_id = await drawn(asked)
        with pytest.raises(mcp.MCPError) as caught:
            await asked.read_resource(f"arta://generations/{path.format(record_id)}")
    assert caught.value.code == -32602


async def test_every_error_of_ours_is_told_and_only_an_unknown_record_is_not_found(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    generations = world.generations()
    raised: list[ArtaError] = []

    async def fail(*_: object, **__: object) -> object:
        raise raised[-1]

    for name in ("get", "catalogue", "history", "picture"):
        monkeypatch.setattr(generations, name, fail)
    async with Client(build_server(generations)) as asked:
        for error in every_error():
            raised.append(error)
            code = -32602 if isinstance(error, UnknownRecord) else -32603
            for path in ("models", "generations", "generations/r", "generations/r/images/0"):
                with pytest.raises(mcp.MCPError) as caught:
                    await asked.read_resource(f"arta://{path}")
                assert (caught.value.code, caught.value.message) == (code, WORDS), repr(error)
    assert len(raised) > 14
    assert "Traceback" not in caplog.text


@BOTH_ERAS
async def test_the_gallery_is_an_app_that_two_tools_name(world: World, mode: str) -> None:
    async with client(world, mode) as asked:
        tools = (await asked.list_tools()).tools
        read = await asked.read_resource("ui://arta/gallery")
    named = {tool.name: (tool.meta or {}).get("ui", {}).get("resourceUri") for tool in tools}
    assert named == {
        "generate_image": "ui://arta/gallery",
        "get_generation": "ui://arta/gallery",
        "list_models": None,
    }
    assert read.contents[0].mime_type == "text/html;profile=mcp-app"
    assert content(read).startswith("<!doctype html>")


@BOTH_ERAS
async def test_models_ratios_and_record_ids_are_completed(world: World, mode: str) -> None:
    draw_prompt = PromptReference(type="ref/prompt", name="draw")
    async with client(world, mode) as asked:
        record_id = await drawn(asked)
        template = ResourceTemplateReference(
            type="ref/resource", uri="arta://generations/{record_id}"
        )
        model = await asked.complete(draw_prompt, {"name": "model", "value": "van"})
        ratio = await asked.complete(draw_prompt, {"name": "aspect_ratio", "value": "16"})
        record = await asked.complete(template, {"name": "record_id", "value": record_id[:4]})
    assert model.completion.values == ["vincent-van-gogh", "revanimated"]
    assert ratio.completion.values[0] == "16:9"
    assert record.completion.values == [record_id]


async def test_what_reads_is_answered_while_another_process_writes(world: World) -> None:
    template = ResourceTemplateReference(type="ref/resource", uri="arta://generations/{record_id}")
    async with client(world) as asked:
        record_id = await drawn(asked)
        async with writing_to_journal(world.folder / "state"):
            latest = json.loads(content(await asked.read_resource("arta://generations")))
            one = await asked.call_tool("get_generation", {"record_id": record_id})
            record = await asked.complete(template, {"name": "record_id", "value": ""})
    assert [entry["record_id"] for entry in latest] == record.completion.values == [record_id]
    assert one.structured_content is not None
    assert one.structured_content["status"] == "done"


async def test_an_answer_holds_as_many_completions_as_it_may(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_COMPLETIONS == 100  # by the specification; there are fewer models
    monkeypatch.setattr("arta_mcp.server.completions.MAX_COMPLETIONS", 50)
    draw_prompt = PromptReference(type="ref/prompt", name="draw")
    async with client(world) as asked:
        every = (await asked.complete(draw_prompt, {"name": "model", "value": ""})).completion
        some = (await asked.complete(draw_prompt, {"name": "model", "value": "flux"})).completion
        none = (await asked.complete(draw_prompt, {"name": "idea", "value": "a"})).completion
    assert (len(every.values), every.total, every.has_more) == (50, 99, True)
    assert (len(some.values), some.has_more) == (some.total, False)
    assert none.values == []


async def test_listeners_of_the_new_era_are_told_when_a_generation_ends(world: World) -> None:
    told: list[str] = []
    async with (
        client(world) as asked,
        asked.listen(resource_subscriptions=["arta://generations"]) as events,
        anyio.create_task_group() as group,
    ):
        group.start_soon(drawn, asked)
        with anyio.fail_after(10):
            while len(told) < 2:
                event = await anext(events)
                assert isinstance(event, ResourceUpdated)
                told.append(event.uri)
    assert set(told) == {"arta://generations"}


async def test_subscribers_of_the_old_era_are_told_when_a_generation_ends(world: World) -> None:
    send, told = anyio.create_memory_object_stream[str](100)

    async def handler(message: object) -> None:
        if isinstance(message, mcp.types.ResourceUpdatedNotification):
            await send.send(str(message.params.uri))

    server = build_server(world.generations())
    async with Client(server, mode="legacy", message_handler=handler) as asked:
        for uri in ("arta://generations", "arta://generations/other"):
            with pytest.warns(mcp.MCPDeprecationWarning):
                await asked.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]  # the old era
        await drawn(asked)
        with anyio.fail_after(10):
            assert [await told.receive() for _ in range(2)] == ["arta://generations"] * 2
        with pytest.warns(mcp.MCPDeprecationWarning):
            await asked.unsubscribe_resource("arta://generations")  # pyright: ignore[reportDeprecated]  # the old era
        await drawn(asked)
    with pytest.raises(anyio.WouldBlock):
        told.receive_nowait()
    send.close()
    told.close()


async def test_subscriptions_of_a_connection_are_bounded(world: World) -> None:
    def uri(number: int) -> str:
        return f"arta://generations/{number}"

    async def subscribe(asked: Client, uri: str) -> None:
        with pytest.warns(mcp.MCPDeprecationWarning):
            await asked.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]  # the old era

    async with client(world, "legacy") as asked:
        # what never changes is nothing to remember
        for other in ("arta://models", "x" * 5000, f"{uri(1)}/images/0", uri(10**400)):
            await subscribe(asked, other)
        for number in [*range(MAX_SUBSCRIPTIONS), 7]:
            await subscribe(asked, uri(number))
        with pytest.raises(mcp.MCPError, match="there are 201 subscriptions; allowed are 200"):
            await subscribe(asked, uri(1000))


async def test_the_resources_of_a_stream_are_bounded(world: World) -> None:
    wanted = [f"arta://generations/{number}" for number in range(MAX_SUBSCRIPTIONS + 1)]
    async with client(world) as asked:
        async with asked.listen(resource_subscriptions=wanted[1:]) as events:
            assert events.honored.resource_subscriptions == wanted[1:]
        with pytest.raises(mcp.MCPError, match="allowed are 200"):
            async with asked.listen(resource_subscriptions=wanted):
                pass


async def test_two_servers_over_the_same_generations_are_both_told_until_they_unsubscribe(
    world: World,
) -> None:
    buses = Bus(), Bus()
    async with world.generations() as generations:
        first, _ = [
            generations.subscribe(
                add_notifications(MCPServer("x"), generations, bus, over_http=False)
            )
            for bus in buses
        ]
        await generations.generate(GenerationRequest(prompt="a fox"))
        with anyio.fail_after(10):
            for bus in buses:
                await bus.holds(6)
        first()
        await generations.generate(GenerationRequest(prompt="a crow"))
        with anyio.fail_after(10):
            await buses[1].holds(12)
    assert len(buses[0].events) == 6


class Bus(OwnersBus):
    """A bus that keeps what is published: three events for a change, of which a job has two."""

    def __init__(self) -> None:
        super().__init__("")
        self.events: list[ServerEvent] = []
        self._published = anyio.Condition()

    async def publish(self, event: ServerEvent, *, owner: str | None = None) -> None:
        assert owner == ""
        async with self._published:
            self.events.append(event)
            self._published.notify_all()

    async def holds(self, count: int) -> None:
        async with self._published:
            while len(self.events) < count:
                await self._published.wait()
