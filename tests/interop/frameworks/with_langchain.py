# type: ignore  # runs in an environment of its own, which the checker does not see
"""LangChain's agent with the tools of its MCP adapters, as its documentation shows it."""

import asyncio

from langchain.agents import create_agent
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_openai import ChatOpenAI
from scripted_model import ScriptedModel, read_task


async def main(model):
    client = MultiServerMCPClient({"arta": {"transport": "stdio", "args": [], **read_task()}})
    llm = ChatOpenAI(model="scripted", base_url=model.base_url, api_key="none")
    agent = create_agent(llm, await client.get_tools())
    await agent.ainvoke({"messages": [{"role": "user", "content": "Draw a red fox."}]})


with ScriptedModel() as model:
    asyncio.run(main(model))
    model.report()
