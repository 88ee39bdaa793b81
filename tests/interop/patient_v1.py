# type: ignore  # runs on mcp 1.x in an environment of its own, which the checker does not see
"""A model behind a host on the SDK's 1.x line that gives a call up after some seconds, in silence.

`python patient_v1.py '{"command", "env", "cwd", "limit", "wanted", "at_once"}'` asks for that many
pictures, repeats a call that timed out word for word, and follows what `next` says. Prints the
calls as it saw them, as one JSON object.
"""

import json
import sys
from datetime import timedelta

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import McpError

DRAW = {"prompt": "a red fox in snow"}
MAX_CALLS = 12


async def main(task):
    server = StdioServerParameters(command=task["command"], env=task["env"], cwd=task["cwd"])
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        seen = []
        if task.get("at_once"):
            async with anyio.create_task_group() as group:
                for _ in range(task["wanted"]):
                    group.start_soon(one_picture, session, task["limit"], seen)
        else:
            for _ in range(task["wanted"]):
                await one_picture(session, task["limit"], seen)
        # before it leaves: the SDK's 1.x client raises when a late answer meets its closed stream
        print(json.dumps(seen), flush=True)  # noqa: T201  # what it was started for


async def one_picture(session, limit, seen):
    name, arguments = "generate_image", DRAW
    for _ in range(MAX_CALLS):
        try:
            result = await session.call_tool(
                name, arguments, read_timeout_seconds=timedelta(seconds=limit)
            )
        except McpError as exc:
            seen.append({"name": name, "status": "timed out", "why": str(exc)})
            continue
        content = result.structuredContent or {}
        text = result.content[0].text
        seen.append({"name": name, "status": content.get("status", "error"), "text": text})
        if content.get("status") != "pending":
            return
        name, arguments = "get_generation", {"record_id": content["record_id"]}


anyio.run(main, json.loads(sys.argv[1]))
