# type: ignore  # runs in an environment of its own, which the checker does not see
"""Google ADK's agent with our server as a toolset."""

import asyncio
import os

from google.adk.agents import LlmAgent
from google.adk.runners import InMemoryRunner
from google.adk.tools.mcp_tool import McpToolset, StdioConnectionParams
from google.genai import types
from mcp import StdioServerParameters
from scripted_model import ScriptedModel, read_task


async def main():
    task = read_task()
    server = StdioServerParameters(command=task["command"], env=task["env"], cwd=task["cwd"])
    tools = McpToolset(connection_params=StdioConnectionParams(server_params=server))
    agent = LlmAgent(name="artist", model="gemini-2.5-flash", tools=[tools])
    runner = InMemoryRunner(agent=agent, app_name="arta")
    session = await runner.session_service.create_session(app_name="arta", user_id="one")
    message = types.Content(role="user", parts=[types.Part(text="Draw a red fox.")])
    async for _ in runner.run_async(user_id="one", session_id=session.id, new_message=message):
        pass
    await tools.close()


with ScriptedModel() as model:
    os.environ |= {"GOOGLE_GEMINI_BASE_URL": model.base_url, "GOOGLE_API_KEY": "none"}
    asyncio.run(main())
    model.report()
