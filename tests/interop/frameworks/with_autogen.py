# type: ignore  # runs in an environment of its own, which the checker does not see
"""AutoGen's assistant with our server as its workbench."""

import asyncio

from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient
from autogen_ext.tools.mcp import McpWorkbench, StdioServerParams
from scripted_model import ScriptedModel, read_task


async def main(model):
    llm = OpenAIChatCompletionClient(
        model="scripted",
        base_url=model.base_url,
        api_key="none",
        model_info={
            "vision": False,
            "function_calling": True,
            "json_output": False,
            "family": "unknown",
            "structured_output": False,
        },
    )
    async with McpWorkbench(StdioServerParams(args=[], **read_task())) as workbench:
        agent = AssistantAgent(
            "artist", model_client=llm, workbench=workbench, max_tool_iterations=20
        )
        await agent.run(task="Draw a red fox.")


with ScriptedModel() as model:
    asyncio.run(main(model))
    model.report()
