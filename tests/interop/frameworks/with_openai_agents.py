# type: ignore  # runs in an environment of its own, which the checker does not see
"""openai-agents with strict schemas, in which a model must fill in every argument."""

import asyncio

from agents import Agent, OpenAIChatCompletionsModel, Runner
from agents.mcp import MCPServerStdio
from openai import AsyncOpenAI
from scripted_model import ARGUMENTS, ScriptedModel, read_task

# what a model writes where it would rather write nothing
FILLED = {
    "model": "",
    "negative_prompt": "",
    "n": 1,
    "guidance_scale": 7,
    "num_inference_steps": 30,
    "seed": 7,
    "idempotency_key": "",
    **ARGUMENTS,
}


async def main(model):
    client = AsyncOpenAI(api_key="none", base_url=model.base_url)
    async with MCPServerStdio(params=read_task()) as server:
        agent = Agent(
            name="artist",
            model=OpenAIChatCompletionsModel(model="scripted", openai_client=client),
            mcp_servers=[server],
            mcp_config={"convert_schemas_to_strict": True},
        )
        await Runner.run(agent, "Draw a red fox.")


with ScriptedModel(FILLED) as model:
    asyncio.run(main(model))
    model.report()
