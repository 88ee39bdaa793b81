# type: ignore  # runs in an environment of its own, which the checker does not see
"""CrewAI's agent with our server as one of its `mcps`, as its documentation shows it."""

from crewai import LLM, Agent, Crew, Task
from crewai.mcp import MCPServerStdio
from scripted_model import ScriptedModel, read_task

task = read_task()
with ScriptedModel() as model:
    artist = Agent(
        role="artist",
        goal="draw",
        backstory="paints",
        llm=LLM(model="openai/scripted", base_url=model.base_url, api_key="none"),
        mcps=[MCPServerStdio(command=task["command"], args=[], env=task["env"])],
    )
    drawing = Task(description="Draw a red fox.", expected_output="a picture", agent=artist)
    Crew(agents=[artist], tasks=[drawing]).kickoff()
    model.report()
