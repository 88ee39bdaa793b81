"""Which engine the settings name; what an engine needs is loaded when it is the one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arta_mcp.config import Settings
from arta_mcp.engines.base import Engine
from arta_mcp.engines.sketch.drawing import SketchEngine

if TYPE_CHECKING:
    from arta_mcp.engines.diffusers import DiffusersEngine
    from arta_mcp.engines.http import HttpClient
    from arta_mcp.engines.openai_images import OpenAIImages
    from arta_mcp.engines.sdapi import SdApi


def open_engine(settings: Settings, http: HttpClient) -> Engine:
    """The engine; `http` asks its server, where it is one, and nobody before the first picture."""
    match settings.local_engine:
        case "sketch":
            return SketchEngine()
        case "diffusers":
            return open_diffusers(settings)
        case _:
            return open_server_engine(settings, http)


def open_diffusers(settings: Settings) -> DiffusersEngine:
    """An engine that is a process of ours; it starts with the first picture."""
    from arta_mcp.engines.diffusers import Defaults, DiffusersEngine
    from arta_mcp.engines.worker import LoadOrder

    order = LoadOrder(
        model=settings.local_model or "",
        device=settings.local_device,
        dtype=settings.local_dtype,
        offload=settings.local_offload,
        download=settings.local_download,
    )
    defaults = Defaults(
        num_inference_steps=settings.local_steps,
        guidance_scale=settings.local_guidance,
        sizes=settings.local_sizes or (),
    )
    return DiffusersEngine(
        order, defaults=defaults, timeout=settings.job_timeout, idle=settings.local_idle
    )


def open_server_engine(settings: Settings, http: HttpClient) -> OpenAIImages | SdApi:
    """An engine that is a server of the person's own."""
    from arta_mcp.engines.http import Server

    url = settings.local_url or ""
    server = Server(url, http, settings.local_key, timeout=settings.job_timeout)
    if settings.local_engine == "sdapi":
        from arta_mcp.engines.sdapi import SdApi

        return SdApi(server, model=settings.local_model, sizes=settings.local_sizes or ())
    from arta_mcp.engines.openai_images import OpenAIImages

    return OpenAIImages(
        server,
        model=settings.local_model,
        dialect=settings.local_dialect,
        sizes=settings.local_sizes or (),
    )
