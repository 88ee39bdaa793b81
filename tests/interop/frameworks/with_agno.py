# type: ignore  # runs in an environment of its own, which the checker does not see
"""Agno's agent with our server's tools."""

import asyncio

from agno.agent import Agent
from agno.models.openai import OpenAIChat
from agno.tools.mcp import MCPTools
from mcp import StdioServerParameters
from scripted_model import ScriptedModel, read_task


async def main(model):
    task = read_task()
    server = StdioServerParameters(command=task["command"], env=task["env"], cwd=task["cwd"])
    async with MCPTools(server_params=server) as tools:
        llm = OpenAIChat(id="scripted", base_url=model.base_url, api_key="none")
        await Agent(model=llm, tools=[tools], telemetry=False).arun("Draw a red fox.")


with ScriptedModel() as model:
    asyncio.run(main(model))
    model.report()
