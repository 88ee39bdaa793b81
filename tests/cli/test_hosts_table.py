"""What each host of the facts' table makes of our results, row by row (mcp-sdk.md, section 7)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import mcp
import pytest
from mcp import Client

from arta_mcp.config import Settings
from arta_mcp.engines.sketch.engine import draw
from arta_mcp.server.build import build_server
from arta_mcp.server.tools import ResultExtras
from harness.world import LIMITS, World, new_world

TABLE = Path(__file__).parents[3] / "shared" / "facts" / "mcp-sdk.md"


@dataclass(frozen=True)
class Host:
    """What the table says a host does with a result; sizes are in characters of the result."""

    name: str
    reads: str = "text"
    most: int = 1024 * 1024
    takes_links: bool = True
    patience: float | None = None


HOSTS = (
    Host("Claude Code", most=50_000),
    Host("Claude Desktop", most=1024 * 1024, takes_links=False, patience=60),
    Host("claude.ai web", takes_links=False, patience=60),
    Host("ChatGPT", patience=60),
    Host("VS Code Copilot", reads="structure"),
    Host("LangChain adapters", reads="both", takes_links=False),
    Host("OpenAI Agents", takes_links=False, patience=5),
    Host("pydantic-ai", reads="structure", takes_links=False),
    Host("TS SDK", takes_links=False, patience=60),
    Host("python `mcp.Client`", reads="both"),
)

EACH = pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)


def test_every_row_of_the_table_is_walked(need: Callable[[bool, str], None]) -> None:
    need(TABLE.exists(), "the facts are not beside this checkout")
    section = TABLE.read_text(encoding="utf-8").split("## 7.")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (?!client|---)([^|]+?) \|", section, re.MULTILINE)
    told = [row for row in rows if not row.startswith("-")]
    assert len(told) == len(HOSTS)
    for row, host in zip(told, HOSTS, strict=True):
        assert row.startswith(host.name)


def text_of(result: mcp.types.CallToolResult) -> str:
    return "\n".join(b.text for b in result.content if isinstance(b, mcp.types.TextContent))


def seen_by(host: Host, result: mcp.types.CallToolResult) -> list[str]:
    """Each thing that the host gives its model, as words; both must stand alone."""
    structure = str(result.structured_content)
    return {"text": [text_of(result)], "structure": [structure]}.get(
        host.reads, [text_of(result), structure]
    )


@EACH
@pytest.mark.anyio
async def test_a_finished_result_reaches_the_model_of_every_host(
    host: Host, tmp_path: Path
) -> None:
    world = new_world(tmp_path)
    async with Client(build_server(world.generations())) as asked:
        arguments = {"prompt": "a red fox", "n": 8, "seed": 7, "aspect_ratio": "16:9"}
        result = await asked.call_tool("generate_image", arguments)
    assert [block.type for block in result.content] == ["text"]
    assert len(result.model_dump_json()) <= host.most
    record_id = world.service.jobs[0]
    facts = [f"/images/{record_id}-{index}.png" for index in range(8)]
    for seen in seen_by(host, result):
        for fact in (*facts, record_id, "flux", "16:9", "7"):
            assert fact in seen


@EACH
def test_our_wait_ends_before_the_patience_of_every_host_or_the_readme_says_what_to_set(
    host: Host,
) -> None:
    wait = Settings.from_env({}).max_wait
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert host.patience is None or wait < host.patience or f"{host.name} cuts at" in readme


@EACH
@pytest.mark.anyio
async def test_a_pending_result_tells_the_model_of_every_host_how_to_go_on(
    host: Host, tmp_path: Path
) -> None:
    world = new_world(tmp_path, queue=3600)
    async with Client(build_server(world.generations(replace(LIMITS, max_wait=0.1)))) as asked:
        result = await asked.call_tool(
            "generate_image", {"prompt": "a red fox"}, read_timeout_seconds=host.patience
        )
    assert not result.is_error
    for seen in seen_by(host, result):
        assert world.service.jobs[0] in seen
        assert "pending" in seen or "Still being drawn" in seen


@EACH
@pytest.mark.anyio
async def test_the_extras_stay_within_what_every_host_takes(host: Host, tmp_path: Path) -> None:
    """Links and previews are off unless asked for; asked for, no result is over a host's limit."""
    world = new_world(tmp_path, engine=draw)
    asked_for = ResultExtras(previews=host.most > 100_000, resource_links=host.takes_links)
    result = await drawn(world, asked_for)
    kinds = {block.type for block in result.content}
    assert ("resource_link" in kinds) == host.takes_links
    assert ("image" in kinds) == (host.most > 100_000)
    assert len(result.model_dump_json()) <= host.most
    for block in result.content:
        if isinstance(block, mcp.types.ResourceLink):
            assert block.annotations is not None
            assert block.annotations.audience == ["user"]


async def drawn(world: World, extras: ResultExtras) -> mcp.types.CallToolResult:
    async with Client(build_server(world.generations(), extras)) as asked:
        return await asked.call_tool("generate_image", {"prompt": "a red fox", "n": 2})
