# type: ignore  # runs in an environment of its own, which the checker does not see
"""LlamaIndex' agent with our server's tools, as its documentation shows it."""

import asyncio

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai import OpenAI
from llama_index.tools.mcp import BasicMCPClient, McpToolSpec
from scripted_model import ScriptedModel, read_task


async def main(model):
    task = read_task()
    client = BasicMCPClient(task["command"], env=task["env"])
    tools = await McpToolSpec(client).to_tool_list_async()
    # it looks the name up in a table of models
    llm = OpenAI(model="gpt-4o", api_base=model.base_url, api_key="none")
    await FunctionAgent(tools=tools, llm=llm).run(user_msg="Draw a red fox.")


with ScriptedModel() as model:
    asyncio.run(main(model))
    model.report()
