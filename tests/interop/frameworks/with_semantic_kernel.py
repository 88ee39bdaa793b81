# type: ignore  # runs in an environment of its own, which the checker does not see
"""Semantic Kernel's agent with our server as a plugin."""

import asyncio

from openai import AsyncOpenAI
from scripted_model import ScriptedModel, read_task
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion
from semantic_kernel.connectors.mcp import MCPStdioPlugin


async def main(model):
    task = read_task()
    client = AsyncOpenAI(base_url=model.base_url, api_key="none")
    llm = OpenAIChatCompletion(ai_model_id="scripted", async_client=client)
    async with MCPStdioPlugin(
        name="arta", command=task["command"], args=[], env=task["env"]
    ) as plugin:
        agent = ChatCompletionAgent(name="artist", service=llm, plugins=[plugin])
        await agent.get_response("Draw a red fox.")


with ScriptedModel() as model:
    asyncio.run(main(model))
    model.report()
