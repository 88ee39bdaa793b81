"""A picture server of another program, as each of its dialects: it counts and does as told."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Answer = Callable[[dict[str, object]], Response | None]


def picture(size: str = "64x64", seed: object = 7, kind: str = "PNG") -> bytes:
    """A real picture of that size; another seed, another colour."""
    width, _, height = size.partition("x")
    out = io.BytesIO()
    colour = (hash(seed) % 256, 80, 120)
    Image.new("RGB", (int(width), int(height)), colour).save(out, kind)
    return out.getvalue()


@dataclass
class ImageServer:
    """`bodies` are the requests for pictures, `keys` what came as Authorization with any request.

    `answer` may give something else than the picture; `models` are what it says that it has.
    """

    answer: Answer = lambda body: None
    models: list[dict[str, object]] | None = None
    gives: str = "b64_json"
    delay: float = 0.0
    steps: int = 0
    """that it counts, with its own end points for progress and interruption; 0: it has none"""
    bodies: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    keys: list[str | None] = field(default_factory=list[str | None])
    paths: list[str] = field(default_factory=list[str])
    answers: list[object] = field(default_factory=list[object])
    interrupted: threading.Event = field(default_factory=threading.Event)
    url: str = "http://127.0.0.1:9"
    _step: int = 0

    @property
    def app(self) -> Starlette:
        """The server without a port."""
        return Starlette(
            routes=[
                Route("/v1/images/generations", self._generate, methods=["POST"]),
                Route("/v1/models", self._list),
                Route("/generated/{name}", self._picture),
                Route("/sdapi/v1/txt2img", self._txt2img, methods=["POST"]),
                Route("/sdapi/v1/progress", self._progress),
                Route("/sdapi/v1/interrupt", self._interrupt, methods=["POST"]),
            ]
        )

    @contextmanager
    def running(self) -> Generator[str]:
        """Its address, while it listens on a port."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(self.app, log_config=None, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield self.url
        finally:
            server.should_exit = server.force_exit = True
            thread.join(5)
            listening.close()

    def _note(self, request: Request) -> None:
        self.paths.append(request.url.path)
        self.keys.append(request.headers.get("authorization"))

    async def _generate(self, request: Request) -> Response:
        body = await self._take(request)
        if (other := self.answer(body)) is not None:
            return other
        content = picture(str(body.get("size", "64x64")), body.get("seed"))
        entry: dict[str, object] = {"b64_json": base64.b64encode(content).decode()}
        if self.gives == "url":
            entry = {"url": f"{self.url}/generated/{body.get('size', '64x64')}"}
        answer = {"created": 1764000000, "data": [entry]}
        self.answers.append(answer)
        return JSONResponse(answer)

    async def _take(self, request: Request) -> dict[str, object]:
        self._note(request)
        body: dict[str, object] = json.loads(await request.body())
        self.bodies.append(body)
        for step in range(1, self.steps + 1):
            self._step = step
            await anyio.sleep(self.delay / self.steps)
            if self.interrupted.is_set():
                break
        if not self.steps:
            await anyio.sleep(self.delay)
        return body

    async def _list(self, request: Request) -> Response:
        self._note(request)
        if self.models is None:
            return JSONResponse({"detail": "Not Found"}, status_code=404)
        return JSONResponse({"object": "list", "data": self.models})

    async def _picture(self, request: Request) -> Response:
        self._note(request)
        return Response(picture(request.path_params["name"]), media_type="image/png")

    async def _txt2img(self, request: Request) -> Response:
        body = await self._take(request)
        if (other := self.answer(body)) is not None:
            return other
        size = f"{body['width']}x{body['height']}"
        content = base64.b64encode(picture(size, body["seed"])).decode()
        info = {"steps": body.get("steps", 20), "cfg_scale": body.get("cfg_scale", 1.5)}
        told = json.dumps({**info, "sd_model_name": "turbo-v1"})
        return JSONResponse({"images": [content], "parameters": body, "info": told})

    async def _progress(self, request: Request) -> Response:
        self._note(request)
        if not self.steps:
            return JSONResponse({"detail": "Not Found"}, status_code=404)
        state = {"sampling_step": self._step, "sampling_steps": self.steps}
        return JSONResponse({"progress": self._step / self.steps, "state": state})

    async def _interrupt(self, request: Request) -> Response:
        self._note(request)
        self.interrupted.set()
        return JSONResponse({})
