# type: ignore  # runs in an environment of its own, which the checker does not see
"""smolagents' agent, whose model is scripted and whose tools come over MCP."""

from mcp import StdioServerParameters
from scripted_model import ScriptedModel, read_task
from smolagents import OpenAIServerModel, ToolCallingAgent, ToolCollection

task = read_task()
server = StdioServerParameters(command=task["command"], env=task["env"], cwd=task["cwd"])
with (
    ScriptedModel() as model,
    ToolCollection.from_mcp(server, trust_remote_code=True, structured_output=False) as tools,
):
    llm = OpenAIServerModel("scripted", api_base=model.base_url, api_key="none")
    agent = ToolCallingAgent(tools=[*tools.tools], model=llm, max_steps=20, verbosity_level=0)
    agent.run("Draw a red fox.")
    model.report()
