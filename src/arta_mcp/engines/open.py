"""Which engine the settings name; what an engine needs is loaded when it is the one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arta_mcp.config import Settings
from arta_mcp.engines.base import Engine
from arta_mcp.engines.sketch.drawing import SketchEngine

if TYPE_CHECKING:
    from arta_mcp.engines.http import HttpClient
    from arta_mcp.engines.openai_images import OpenAIImages
    from arta_mcp.engines.sdapi import SdApi


def open_engine(settings: Settings, http: HttpClient) -> Engine:
    """The engine; `http` asks its server, where it is one, and nobody before the first picture."""
    if settings.local_engine == "sketch":
        return SketchEngine()
    return open_server_engine(settings, http)


def open_server_engine(settings: Settings, http: HttpClient) -> OpenAIImages | SdApi:
    """An engine that is a server of the person's own."""
    from arta_mcp.engines.http import Server

    url = settings.local_url or ""
    server = Server(url, http, settings.local_key, timeout=settings.job_timeout)
    if settings.local_engine == "sdapi":
        from arta_mcp.engines.sdapi import SdApi

        return SdApi(server, model=settings.local_model)
    from arta_mcp.engines.openai_images import OpenAIImages

    return OpenAIImages(server, model=settings.local_model, dialect=settings.local_dialect)
