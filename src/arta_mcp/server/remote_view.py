"""What a caller on another machine is shown: addresses that open there, and no path of this one."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import MCPServer
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from arta_mcp.generations.values import GeneratedImage, Generation
from arta_mcp.server.sdk import lowlevel_server

LINK_TTL = 24 * 3600.0
"""seconds for which an address of a picture opens; get_generation gives a new one"""


def hide_paths(generation: Generation) -> Generation:
    """The generation without where its pictures lie on this machine."""
    images = tuple(replace(image, path=None) for image in generation.images)
    return replace(generation, images=images)


def hide_folders(server: MCPServer[Any], folders: Sequence[str]) -> None:
    """Takes the names of these folders out of every error; the log keeps them."""

    def masked(text: str) -> str:
        for folder in folders:
            text = text.replace(folder, "<a folder of the server>")
        return text

    async def hide(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        try:
            result = await call_next(ctx)
        except MCPError as exc:
            raise MCPError(exc.error.code, masked(exc.error.message), exc.error.data) from exc
        # Below the middleware a result has become what goes over the wire.
        if isinstance(result, dict) and result.get("isError"):
            result["content"] = [
                {**block, **({"text": masked(block["text"])} if "text" in block else {})}
                for block in result["content"]
            ]
        return result

    lowlevel_server(server).middleware.append(hide)


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureLinks:
    """Addresses of this server for pictures that lie on its disk, each with an end and a signature.

    Who has the address sees the picture, as with those of the remote service. `find_file` gives the
    path of a picture by record id and index; `clock` gives seconds since the epoch.
    """

    public_url: str
    key: bytes
    find_file: Callable[[str, int], str | None]
    clock: Callable[[], float] = time.time

    def show(self, generation: Generation) -> Generation:
        """The generation with addresses that open elsewhere."""
        record_id = generation.record_id or ""
        images = tuple(
            self._link(record_id, index, image) for index, image in enumerate(generation.images)
        )
        return replace(generation, images=images)

    @property
    def route(self) -> Route:
        """Where they open."""
        return Route("/pictures/{record_id}/{index:int}", self.answer)

    async def answer(self, request: Request) -> Response:
        """The picture; 404 for a signature that is not ours, 410 once the address has ended."""
        record_id, index = request.path_params["record_id"], request.path_params["index"]
        until = request.query_params.get("until", "")
        signature = self._sign(record_id, index, until)
        # First of all: without a signature nothing is told, not even whether there is a picture.
        if not hmac.compare_digest(signature, request.query_params.get("signature", "")):
            return JSONResponse({"detail": "there is no such picture"}, 404)
        if float(until) < self.clock():
            return JSONResponse({"detail": "this address has ended; ask for a new one"}, 410)
        path = self.find_file(record_id, index)
        if path is None:
            return JSONResponse({"detail": "the picture is here no more"}, 410)
        headers = {
            "Cache-Control": "private, max-age=3600",
            "Content-Disposition": "inline",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "cross-origin",  # a host shows it in a page of its own
        }
        return FileResponse(path, headers=headers)

    def _link(self, record_id: str, index: int, image: GeneratedImage) -> GeneratedImage:
        until = f"{self.clock() + LINK_TTL:.0f}"
        signature = self._sign(record_id, index, until)
        where = f"{self.public_url}/pictures/{record_id}/{index}"
        return replace(image, url=f"{where}?until={until}&signature={signature}", path=None)

    def _sign(self, record_id: str, index: int, until: str) -> str:
        said = f"{record_id}/{index}/{until}".encode("utf-8", "replace")
        return hmac.new(self.key, said, hashlib.sha256).hexdigest()
