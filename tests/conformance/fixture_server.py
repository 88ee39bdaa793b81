"""A server with what the conformance suite calls, made and served as ours is.

`python fixture_server.py FOLDER PORT`: tools, resources and prompts of the suite's names beside our
own, on `build_server` and `HttpServer`. What they do is what the suite's scenarios ask for.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import anyio
import mcp.types as t
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.tools import Tool
from mcp.types import MISSING_REQUIRED_CLIENT_CAPABILITY
from PIL import Image as Pillow
from pydantic import Field

from arta_mcp.app import open_generations
from arta_mcp.config import Settings
from arta_mcp.local.address import open_socket
from arta_mcp.server.build import build_server
from arta_mcp.server.http import LOCAL_HOSTS, HttpServer, serve
from arta_mcp.server.http_auth import Access
from arta_mcp.server.sdk import lowlevel_server

Ctx = Context[Any, Any]

_buffer = io.BytesIO()
Pillow.new("RGB", (1, 1), "red").save(_buffer, "PNG")
PNG = base64.b64encode(_buffer.getvalue()).decode()

SAMPLES = bytes(64)
WAV = base64.b64encode(
    b"RIFF"
    + (36 + len(SAMPLES)).to_bytes(4, "little")
    + b"WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data"
    + len(SAMPLES).to_bytes(4, "little")
    + SAMPLES
).decode()

PICTURE = t.ImageContent(type="image", data=PNG, mime_type="image/png")

SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
"""as the scenario json-schema-2020-12 spells it out"""


def text(words: str) -> t.TextContent:
    return t.TextContent(type="text", text=words)


def result(words: str) -> t.CallToolResult:
    return t.CallToolResult(content=[text(words)])


def embedded(uri: str, mime_type: str, words: str) -> t.EmbeddedResource:
    contents = t.TextResourceContents(uri=uri, mime_type=mime_type, text=words)
    return t.EmbeddedResource(type="resource", resource=contents)


def add_tools(server: MCPServer[Any]) -> None:
    """Content of every kind, progress, log messages, errors."""

    @server.tool()
    async def test_simple_text() -> str:
        """Text."""
        return "This is a simple text response for testing."

    @server.tool()
    async def test_image_content() -> list[t.ImageContent]:
        """A picture."""
        return [PICTURE]

    @server.tool()
    async def test_audio_content() -> list[t.AudioContent]:
        """Sound."""
        return [t.AudioContent(type="audio", data=WAV, mime_type="audio/wav")]

    @server.tool()
    async def test_embedded_resource() -> list[t.EmbeddedResource]:
        """A resource."""
        words = "This is an embedded resource content."
        return [embedded("test://embedded-resource", "text/plain", words)]

    @server.tool()
    async def test_multiple_content_types() -> list[t.ContentBlock]:
        """Text, a picture and a resource."""
        content = json.dumps({"test": "data", "value": 123})
        resource = embedded("test://mixed-content-resource", "application/json", content)
        return [text("Multiple content types test:"), PICTURE, resource]

    @server.tool()
    async def test_tool_with_logging(ctx: Ctx) -> str:
        """Three log messages."""
        for words in ("started", "processing data", "completed"):
            subject = "Tool" if words == "processing data" else "Tool execution"
            await log(ctx, f"{subject} {words}")
            await anyio.sleep(0.05)
        return "Tool with logging executed successfully"

    @server.tool()
    async def test_tool_with_progress(ctx: Ctx) -> str:
        """Progress in three steps."""
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100)
            await anyio.sleep(0.05)
        return "Tool with progress executed successfully"

    @server.tool()
    async def test_error_handling() -> str:
        """A failure."""
        raise ToolError("This tool intentionally returns an error for testing")

    @server.tool()
    async def test_custom_headers(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "",
    ) -> str:
        """An argument that a header repeats."""
        return f"region {region}"

    async def json_schema_2020_12_tool() -> str:
        return "ok"

    rich = Tool.from_function(json_schema_2020_12_tool, description="A rich schema.")
    rich.parameters = SCHEMA_2020_12
    server._tool_manager._tools[rich.name] = rich  # pyright: ignore[reportPrivateUsage]  # no public way adds a schema


async def log(ctx: Ctx, words: str) -> None:
    """A log message, where the request's level asks for such."""
    params = t.LoggingMessageNotificationParams(level="info", data=words)
    notification = t.LoggingMessageNotification(params=params)
    await ctx.session.send_notification(notification, related_request_id=ctx.request_id)


def add_resources(server: MCPServer[Any]) -> None:
    """Text, bytes, and a template."""

    @server.resource("test://static-text", mime_type="text/plain")
    async def static_text() -> str:
        """Text."""
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    async def static_binary() -> bytes:
        """A picture."""
        return base64.b64decode(PNG)

    @server.resource("test://template/{id}/data", mime_type="application/json")
    async def template(id: str) -> str:
        """A part of the address in the content."""
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


def add_prompts(server: MCPServer[Any]) -> None:
    """Without and with arguments, with a resource and a picture."""

    @server.prompt()
    async def test_simple_prompt() -> str:
        """No argument."""
        return "This is a simple prompt for testing."

    @server.prompt()
    async def test_prompt_with_arguments(
        arg1: Annotated[str, Field(description="the first")],
        arg2: Annotated[str, Field(description="the second")],
    ) -> str:
        """Two arguments."""
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt()
    async def test_prompt_with_embedded_resource(
        resourceUri: Annotated[str, Field(description="an address")],  # the suite's
    ) -> list[UserMessage]:
        """A resource and text."""
        resource = embedded(resourceUri, "text/plain", "Embedded resource content for testing.")
        asked = text("Please process the embedded resource above.")
        return [UserMessage(content=resource), UserMessage(content=asked)]

    @server.prompt()
    async def test_prompt_with_image() -> list[UserMessage]:
        """A picture and text."""
        return [
            UserMessage(content=PICTURE),
            UserMessage(content=text("Please analyze the image above.")),
        ]


# Input that a result asks for (2026-07-28)


def ask(message: str, **properties: str) -> t.ElicitRequest:
    """A form with these required fields and their types."""
    fields: dict[str, Any] = {name: {"type": kind} for name, kind in properties.items()}
    schema: dict[str, Any] = {"type": "object", "properties": fields, "required": [*fields]}
    params = t.ElicitRequestFormParams(message=message, requested_schema=schema)
    return t.ElicitRequest(params=params)


def sample(question: str) -> t.CreateMessageRequest:
    message = t.SamplingMessage(role="user", content=text(question))
    params = t.CreateMessageRequestParams(messages=[message], max_tokens=100)
    return t.CreateMessageRequest(params=params)


ROOTS = t.ListRootsRequest()
NAME = {"user_name": ask("What is your name?", name="string")}
ANSWERED = (t.ElicitResult, t.CreateMessageResult, t.ListRootsResult)

Requests = Mapping[str, Any]
Answer = t.CallToolResult | t.InputRequiredResult


def require(requests: Requests, state: str | None = None) -> t.InputRequiredResult:
    return t.InputRequiredResult(input_requests=dict(requests), request_state=state)


def given(ctx: Ctx, requests: Requests) -> dict[str, Any] | None:
    """The answers to all of these; None when one is missing."""
    answers = ctx.input_responses or {}
    return {name: answers[name] for name in requests} if requests.keys() <= answers.keys() else None


def add_input_tools(server: MCPServer[Any]) -> None:
    """Results that ask the client for something first."""

    @server.tool()
    async def test_input_required_result_elicitation(ctx: Ctx) -> Answer:
        """Asks for a name."""
        answers = given(ctx, NAME)
        content = answers["user_name"].content if answers else None
        return result(f"Hello, {content['name']}!") if content else require(NAME)

    @server.tool()
    async def test_input_required_result_sampling(ctx: Ctx) -> Answer:
        """Asks the client's model."""
        requests = {"capital_question": sample("What is the capital of France?")}
        answers = given(ctx, requests)
        return result(str(answers["capital_question"].content)) if answers else require(requests)

    @server.tool()
    async def test_input_required_result_list_roots(ctx: Ctx) -> Answer:
        """Asks for the client's roots."""
        requests = {"client_roots": ROOTS}
        answers = given(ctx, requests)
        return result(str(answers["client_roots"].roots)) if answers else require(requests)

    @server.tool()
    async def test_input_required_result_request_state(ctx: Ctx) -> Answer:
        """Asks for a confirmation and keeps a state."""
        requests = {"confirm": ask("Please confirm", ok="boolean")}
        is_known = given(ctx, requests) and ctx.request_state == "asked"
        return result("state-ok") if is_known else require(requests, "asked")

    @server.tool()
    async def test_input_required_result_tampered_state(ctx: Ctx) -> Answer:
        """The same; that a state is ours is checked before it comes here."""
        requests = {"confirm": ask("Please confirm", ok="boolean")}
        return result("state-ok") if given(ctx, requests) else require(requests, "asked")

    @server.tool()
    async def test_input_required_result_multiple_inputs(ctx: Ctx) -> Answer:
        """Asks for three things at once."""
        requests = {**NAME, "greeting": sample("Generate a greeting"), "client_roots": ROOTS}
        return result("all there") if given(ctx, requests) else require(requests, "asked")

    @server.tool()
    async def test_input_required_result_multi_round(ctx: Ctx) -> Answer:
        """Asks for one thing after another."""
        first = {"step1": ask("Step 1: What is your name?", name="string")}
        second = {"step2": ask("Step 2: What is your favorite color?", color="string")}
        if ctx.request_state == "second" and given(ctx, second):
            return result("both there")
        if ctx.request_state == "first" and given(ctx, first):
            return require(second, "second")
        return require(first, "first")

    @server.tool()
    async def test_input_required_result_capabilities(ctx: Ctx) -> Answer:
        """Asks for nothing that the client has not declared."""
        can = ctx.client_capabilities
        requests: dict[str, Any] = {}
        if can and can.elicitation:
            requests |= NAME
        if can and can.sampling:
            requests |= {"greeting": sample("Generate a greeting")}
        return result("all there") if given(ctx, requests) else require(requests)

    @server.prompt()
    async def test_input_required_result_prompt(ctx: Ctx) -> Any:
        """Asks for a context."""
        requests = {"user_context": ask("What context should the prompt use?", context="string")}
        answers = given(ctx, requests)
        if not answers:
            return require(requests)
        return f"Use this context: {answers['user_context'].content}"


def add_stateless_tools(server: MCPServer[Any]) -> None:
    """What server-stateless looks for."""

    @server.tool()
    async def test_missing_capability(ctx: Ctx) -> str:
        """Needs sampling."""
        if not (ctx.client_capabilities and ctx.client_capabilities.sampling):
            needed: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "sampling is needed", needed)
        return "ok"

    @server.tool()
    async def test_streaming_elicitation(ctx: Ctx) -> Answer:
        """Asks for a name, in its result alone."""
        return result("Hello") if given(ctx, NAME) else require(NAME)

    @server.tool()
    async def test_logging_tool(ctx: Ctx) -> str:
        """A log message for those who want one."""
        if (ctx.request_context.meta or {}).get("io.modelcontextprotocol/logLevel"):
            await log(ctx, "logged")
        return "ok"

    @server.tool()
    async def test_trigger_tool_change(ctx: Ctx) -> str:
        """Says that the tools have changed."""
        await ctx.notify_tools_changed()
        return "ok"

    @server.tool()
    async def test_trigger_prompt_change(ctx: Ctx) -> str:
        """Says that the prompts have changed."""
        await ctx.notify_prompts_changed()
        return "ok"

    async def set_level(
        _: ServerRequestContext[Any, Any], _params: t.SetLevelRequestParams
    ) -> t.EmptyResult:
        return t.EmptyResult()

    lowlevel_server(server).add_request_handler(
        "logging/setLevel", t.SetLevelRequestParams, set_level
    )


def main(folder: Path, port: int) -> None:
    settings = Settings.from_env({"ARTA_STATE_DIR": str(folder)})
    generations = open_generations(settings)
    server = build_server(generations, over_http=True)
    for add in (add_tools, add_resources, add_prompts, add_input_tools, add_stateless_tools):
        add(server)

    async def run() -> None:
        listening = open_socket("127.0.0.1", port, listening=True)
        served = HttpServer(
            server,
            Access(),
            allowed_hosts=LOCAL_HOSTS,
            own_origins=[f"http://127.0.0.1:{port}"],
            check=generations.health,
            drain=generations.drain,
        )
        async with served.running():
            await serve(served, listening, until=anyio.sleep_forever)

    anyio.run(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
