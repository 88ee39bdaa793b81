"""A hub on a port of this machine: one repository, answered as the client of the real one asks."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

SHA = "0123456789abcdef" * 2 + "01234567"


@dataclass
class Hub:
    """`folder` is the repository, and beside its own files it has some that nobody should fetch."""

    folder: Path
    name: str
    paths: list[str] = field(default_factory=list[str])
    url: str = ""

    @contextmanager
    def running(self) -> Generator[Self]:
        app = Starlette(
            routes=[
                Route("/api/models/{owner}/{name}", self._info),
                Route("/api/models/{owner}/{name}/revision/{revision}", self._info),
                Route("/api/models/{owner}/{name}/tree/{revision}", self._tree),
                Route(
                    "/{owner}/{name}/resolve/{revision}/{path:path}",
                    self._file,
                    methods=["GET", "HEAD"],
                ),
            ]
        )
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield self
        finally:
            server.should_exit = server.force_exit = True
            thread.join(5)
            listening.close()

    def _sizes(self) -> dict[str, int]:
        own = {
            path.relative_to(self.folder).as_posix(): path.stat().st_size
            for path in self.folder.rglob("*")
            if path.is_file()
        }
        return own | {"README.md": 9, "unet/model.bin": 9, "unet/code.py": 9, "sd.safetensors": 9}

    def _is_known(self, request: Request) -> bool:
        self.paths.append(request.url.path)
        return f"{request.path_params['owner']}/{request.path_params['name']}" == self.name

    def _missing(self) -> Response:
        headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
        return JSONResponse({"error": "Repository not found"}, status_code=404, headers=headers)

    async def _info(self, request: Request) -> Response:
        if not self._is_known(request):
            return self._missing()
        files = [{"rfilename": name, "size": size} for name, size in self._sizes().items()]
        about = {"id": self.name, "modelId": self.name, "sha": SHA, "private": False}
        return JSONResponse({**about, "tags": [], "downloads": 0, "likes": 0, "siblings": files})

    async def _tree(self, request: Request) -> Response:
        if not self._is_known(request):
            return self._missing()
        return JSONResponse(
            [
                {"type": "file", "path": name, "size": size, "oid": _etag(name)}
                for name, size in self._sizes().items()
            ]
        )

    async def _file(self, request: Request) -> Response:
        if not self._is_known(request):
            return self._missing()
        name = request.path_params["path"]
        headers = {"X-Repo-Commit": SHA, "ETag": f'"{_etag(name)}"'}
        return FileResponse(self.folder / name, headers=headers)


def _etag(name: str) -> str:
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
