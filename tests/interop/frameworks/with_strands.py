# type: ignore  # runs in an environment of its own, which the checker does not see
"""Strands' agent with our server's tools."""

from mcp import StdioServerParameters, stdio_client
from scripted_model import ScriptedModel, read_task
from strands import Agent
from strands.models.openai import OpenAIModel
from strands.tools.mcp import MCPClient

task = read_task()
server = StdioServerParameters(command=task["command"], env=task["env"], cwd=task["cwd"])
with ScriptedModel() as model, MCPClient(lambda: stdio_client(server)) as client:
    access = {"base_url": model.base_url, "api_key": "none"}
    llm = OpenAIModel(client_args=access, model_id="scripted")
    Agent(model=llm, tools=client.list_tools_sync(), callback_handler=None)("Draw a red fox.")
    model.report()
