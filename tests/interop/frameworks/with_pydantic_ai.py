# type: ignore  # runs in an environment of its own, which the checker does not see
"""pydantic-ai with our server as a toolset, and a model of the OpenAI API."""

import asyncio

from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from scripted_model import ScriptedModel, read_task


async def main(model):
    transport = StdioTransport(args=[], **read_task())
    provider = OpenAIProvider(api_key="none", base_url=model.base_url)
    agent = Agent(OpenAIChatModel("scripted", provider=provider), toolsets=[MCPToolset(transport)])
    await agent.run("Draw a red fox.")


with ScriptedModel() as model:
    asyncio.run(main(model))
    model.report()
