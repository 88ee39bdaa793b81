# type: ignore  # runs in an environment of its own, which the checker does not see
"""google-genai with an MCP session as its tool, as its documentation shows it."""

import asyncio

from google import genai
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from scripted_model import ScriptedModel, read_task


async def main(model):
    task = read_task()
    server = StdioServerParameters(command=task["command"], env=task["env"], cwd=task["cwd"])
    client = genai.Client(api_key="none", http_options={"base_url": model.base_url})
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        await client.aio.models.generate_content(
            model="scripted", contents="Draw a red fox.", config={"tools": [session]}
        )


with ScriptedModel() as model:
    asyncio.run(main(model))
    model.report()
