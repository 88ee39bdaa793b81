"""What a healthy Redis or Valkey server is like; a check leaves everything as it was."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from arta_mcp.errors import ArtaError
from arta_mcp.redaction import sanitize
from arta_mcp.state.records import Health, StateCheck
from arta_mcp.state.redis_client import RedisClient


async def check_server(client: RedisClient, epoch_key: str) -> Health:
    """How the server stands, in a ping and a look at its configuration."""
    began = time.monotonic()
    try:
        epoch = await client.command("GET", epoch_key)
    except ArtaError as exc:
        return Health(store="redis", answers=False, warnings=(f"{exc.message}; {exc.hint}",))
    latency, about = time.monotonic() - began, dict[str, Any]()
    with suppress(ArtaError):  # a user may be kept from it
        about = await client.command("INFO")
    has_aof, eviction = about.get("aof_enabled"), about.get("maxmemory_policy")
    warnings: list[str] = []
    if has_aof is not None and not has_aof:
        warnings.append(
            "it has no append-only file: when it ends it may forget idempotency keys, and pictures"
            " may be ordered twice; set `appendonly yes` in its configuration"
        )
    if eviction not in (None, "noeviction"):
        warnings.append(
            f"its maxmemory-policy is {sanitize(str(eviction), 80)}: it drops keys when its memory"
            " is full, and pictures may be ordered twice; set `maxmemory-policy noeviction` in its"
            " configuration"
        )
    if client.is_open_to_others:
        warnings.append(
            "the way to it is not encrypted, and tokens travel on it; use rediss:// unless the"
            " network is yours alone"
        )
    return Health(
        store="valkey" if about.get("server_name") == "valkey" else "redis",
        answers=True,
        latency=latency,
        persistence=None if has_aof is None else "aof" if has_aof else "none",
        eviction=eviction,
        epoch=epoch,
        warnings=tuple(warnings),
    )


def describe_server(health: Health, location: str) -> tuple[StateCheck, ...]:
    """What the doctor says of it."""
    name = "shared state"
    warned = [warning.rpartition("; ") for warning in health.warnings]
    if not health.answers:
        return tuple(StateCheck(name, "fail", what, remedy) for what, _, remedy in warned)
    parts = (
        f"{health.store} at {location} answers in {1000 * (health.latency or 0):.1f} ms",
        f"persistence {health.persistence or 'not told'}",
        f"eviction {health.eviction or 'not told'}",
        f"epoch {health.epoch or 'none yet'}",
    )
    first = StateCheck(name, "ok", ", ".join(parts))
    return (first, *(StateCheck(name, "warn", what, remedy) for what, _, remedy in warned))
