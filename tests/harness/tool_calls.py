"""Tool calls over HTTP by hand: hundreds at once, where an SDK's clients would take the machine."""

from __future__ import annotations

import json
from typing import Any, Literal

import httpx

from harness.installed import TIMEOUT

Revision = Literal["2025-11-25", "2026-07-28"]

REVISIONS: tuple[Revision, ...] = ("2025-11-25", "2026-07-28")
"""of the protocol; the last of the old era, and the new one"""


class Unanswered(Exception):
    """The connection broke, or somebody else answered: nobody knows what became of the call."""


def new_client(**options: Any) -> httpx.AsyncClient:  # httpx's own
    """A client for any number of calls at once, which asks no proxy of the environment."""
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, limits=limits, **options)


async def call_tool(
    client: httpx.AsyncClient,
    url: str,
    name: str,
    arguments: dict[str, object],
    *,
    token: str,
    revision: Revision = "2026-07-28",
) -> dict[str, Any]:
    """The result of a tool call at a server, whose `url` is without `/mcp`; raises Unanswered."""
    meta: dict[str, object] = {
        "io.modelcontextprotocol/protocolVersion": revision,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": revision,
        "Mcp-Method": "tools/call",
        "Mcp-Name": name,
    }
    params = {"name": name, "arguments": arguments, "_meta": meta}
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    try:
        answer = await client.post(f"{url}/mcp", json=request, headers=headers)
    except httpx.TransportError as exc:
        raise Unanswered(f"{type(exc).__name__}: {exc}") from exc
    if answer.status_code != 200:
        raise Unanswered(f"{answer.status_code}: {answer.text[:200]}")
    # One JSON text where nothing went before the answer, else a stream of events.
    lines = answer.text.splitlines()
    is_stream = answer.headers["content-type"].startswith("text/event-stream")
    sent = [line[5:] for line in lines if line.startswith("data:")] if is_stream else [answer.text]
    for text in sent:
        if (message := json.loads(text)).get("id") == 1:
            if "result" not in message:
                raise Unanswered(str(message["error"]))
            return message["result"]
    raise Unanswered("the stream ended before the answer")


def words_of(result: dict[str, Any]) -> str:
    """Every text of a result."""
    return "\n".join(block.get("text", "") for block in result["content"])
