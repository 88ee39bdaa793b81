# type: ignore  # runs in an environment of its own, which the checker does not see
"""mcp-use's agent with a chat model of LangChain."""

import asyncio

from langchain_openai import ChatOpenAI
from mcp_use import MCPAgent, MCPClient
from scripted_model import ScriptedModel, read_task


async def main(model):
    task = read_task()
    servers = {"arta": {"command": task["command"], "args": [], "env": task["env"]}}
    client = MCPClient({"mcpServers": servers})
    llm = ChatOpenAI(model="scripted", base_url=model.base_url, api_key="none")
    await MCPAgent(llm=llm, client=client, max_steps=20).run("Draw a red fox.")
    await client.close_all_sessions()


with ScriptedModel() as model:
    asyncio.run(main(model))
    model.report()
