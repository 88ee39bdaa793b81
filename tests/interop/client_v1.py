# type: ignore  # runs on mcp 1.x in an environment of its own, which the checker does not see
"""The client of the SDK's 1.x line on a server of ours: `python client_v1.py '{"command", ...}'`.

Prints what it was told and what it found at the addresses, as one JSON object.
"""

import base64
import json
import sys

import anyio
import httpx
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def main(task):
    server = StdioServerParameters(command=task["command"], env=task["env"], cwd=task["cwd"])
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        hello = await session.initialize()
        tools = await session.list_tools()
        results = [await call(session, one) for one in task["calls"]]
        pictures = [await picture(url) for url in addresses(results)]
    told = {
        "server": hello.serverInfo.model_dump(),
        "tools": [tool.model_dump() for tool in tools.tools],
        "results": results,
        "pictures": pictures,
    }
    print(json.dumps(told))  # noqa: T201  # what it was started for


async def call(session, one):
    heard = []

    async def hear(progress, total, message):
        heard.append({"progress": progress, "message": message})

    result = await session.call_tool(one["name"], one["arguments"], progress_callback=hear)
    return {"result": result.model_dump(mode="json"), "heard": heard}


def addresses(results):
    contents = [one["result"]["structuredContent"] or {} for one in results]
    return [image["url"] for content in contents for image in content.get("images", ())]


async def picture(url):
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url)
    return {"status": answer.status_code, "body": base64.b64encode(answer.content).decode()}


anyio.run(main, json.loads(sys.argv[1]))
