"""Loads the SDK without building its models, most of which no conversation uses."""

from __future__ import annotations

from importlib import import_module

from pydantic import BaseModel


def load_sdk() -> None:
    """Imports what a server needs of the SDK, each of its models to be built at its first use.

    Of what mcp 2.3 takes to load, half is making some 550 models of three protocol versions; a
    session uses a few dozen. `defer_build` is pydantic's public setting, and every model takes
    its configuration from `BaseModel`; it is put back before any model of ours or of a program that
    embeds us is made. A model that two threads use first at once would be built twice: those of the
    SDK are used on the event loop alone. Ends when the SDK sets it on its own models.
    """
    BaseModel.model_config["defer_build"] = True
    try:
        for name in ("mcp.server.mcpserver", "mcp.server.apps"):
            import_module(name)
    finally:
        del BaseModel.model_config["defer_build"]
