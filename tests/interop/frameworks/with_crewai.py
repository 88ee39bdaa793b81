# type: ignore  # runs in an environment of its own, which the checker does not see
"""CrewAI with the MCP adapter of its tools, and a scripted model."""

from crewai import LLM, Agent, Crew, Task
from crewai_tools import MCPServerAdapter
from mcp import StdioServerParameters
from scripted_model import ScriptedModel, read_task

task = read_task()
server = StdioServerParameters(command=task["command"], env=task["env"], cwd=task["cwd"])
with ScriptedModel() as model, MCPServerAdapter(server) as tools:
    llm = LLM(model="openai/scripted", base_url=model.base_url, api_key="none")
    artist = Agent(role="artist", goal="draw", backstory="paints", llm=llm, tools=[*tools])
    drawing = Task(description="Draw a red fox.", expected_output="a picture", agent=artist)
    Crew(agents=[artist], tasks=[drawing]).kickoff()
    model.report()
