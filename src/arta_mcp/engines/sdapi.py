"""Any server with `POST /sdapi/v1/txt2img`: A1111, Forge, SD.Next, Draw Things, KoboldCpp."""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress
from dataclasses import replace

import anyio
import anyio.to_thread

from arta_mcp.engines.base import EngineInfo, GeneratedImage, ImageRequest, OnStep
from arta_mcp.engines.http import Server
from arta_mcp.engines.png import describe_picture, write_png
from arta_mcp.errors import ArtaError, EngineError
from arta_mcp.redaction import sanitize
from arta_mcp.untrusted_json import is_object, json_or_none, list_or_empty, text

PATH = "/sdapi/v1/txt2img"
PROGRESS = "/sdapi/v1/progress?skip_current_image=true"
INTERRUPT = "/sdapi/v1/interrupt"

PROGRESS_INTERVAL = 1.0
"""seconds between two questions how far the picture is"""

INTERRUPT_TIMEOUT = 3.0
"""seconds that a cancelled call waits for the server to hear of it"""


class SdApi:
    """Draws through such a server; progress and interruption are used where it has them."""

    def __init__(
        self,
        server: Server,
        *,
        model: str | None = None,
        sizes: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self._server = replace(server, url=server.url.removesuffix("/").removesuffix("/sdapi/v1"))
        self._model, self._sizes = model, sizes
        self._has_progress = True

    def describe(self) -> EngineInfo:
        """See `Engine.describe`."""
        by = f"by {self._model or 'the loaded model'} at {self._server.origin}"
        return EngineInfo(
            engine="sdapi",
            model=self._model,
            is_ai=True,
            notice=f"drawn {by}",
            summary=f"Pictures are drawn {by}; the styles are words that are added to the prompt.",
            sizes=self._sizes,
            honours=frozenset({"negative_prompt", "guidance_scale", "num_inference_steps", "seed"}),
        )

    async def list_models(self) -> tuple[str, ...]:
        """What the server says that it has; () where it has no list, as Draw Things."""
        listed = list_or_empty(await self._server.ask("/sdapi/v1/sd-models"))
        return tuple(text(entry, "title") for entry in listed if is_object(entry))

    async def generate(self, request: ImageRequest, on_step: OnStep) -> GeneratedImage:
        """See `Engine.generate`."""
        answers: list[dict[str, object]] = []
        failures: list[ArtaError] = []
        try:
            async with anyio.create_task_group() as group:

                async def draw() -> None:
                    try:
                        answers.append(await self._server.draw(PATH, self._write_body(request)))
                    except ArtaError as exc:
                        failures.append(exc)  # a group would wrap it
                    group.cancel_scope.cancel()

                group.start_soon(draw)
                group.start_soon(self._watch, on_step)
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(INTERRUPT_TIMEOUT, shield=True), suppress(ArtaError):
                await self._server.draw(INTERRUPT, {})
            raise
        if failures:
            raise failures[0]
        return await self._read(request, answers[0])

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        await self._server.http.aclose()

    def _write_body(self, request: ImageRequest) -> dict[str, object]:
        width, height = request.size
        body: dict[str, object] = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "seed": request.picture_seed,
            "width": width,
            "height": height,
            "batch_size": 1,
            "n_iter": 1,
            # A web page of the server's own shows what is drawn; it should not keep our pictures.
            "save_images": False,
        }
        if request.num_inference_steps is not None:
            body["steps"] = request.num_inference_steps
        if request.guidance_scale is not None:
            body["cfg_scale"] = request.guidance_scale
        if self._model is not None:
            body["override_settings"] = {"sd_model_checkpoint": self._model}
        return body

    async def _watch(self, on_step: OnStep) -> None:
        """Tells the steps that are done, as long as the server answers the question."""
        last = 0
        while self._has_progress:
            await anyio.sleep(PROGRESS_INTERVAL)
            answer = None
            with suppress(EngineError):  # the picture itself says what is wrong
                answer = await self._server.ask(PROGRESS)
            state = answer.get("state") if is_object(answer) else None
            if not is_object(state):
                self._has_progress = False
                return
            step, steps = state.get("sampling_step"), state.get("sampling_steps")
            if isinstance(step, int) and isinstance(steps, int) and last < step <= steps:
                last = step
                on_step(step, steps)

    async def _read(self, request: ImageRequest, answer: dict[str, object]) -> GeneratedImage:
        encoded = next((one for one in list_or_empty(answer.get("images"))), None)
        if not isinstance(encoded, str):
            raise EngineError(f"{self._server.origin} answered without a picture")
        try:
            content = base64.b64decode(encoded.rpartition(",")[2], validate=True)
        except (binascii.Error, ValueError) as exc:
            raise EngineError(f"{self._server.origin} answered with broken Base64") from exc
        # What the server says that it used: JSON as a text, with the servers that say it at all.
        info = answer.get("info")
        info = json_or_none(info.encode("utf-8", "replace")) if isinstance(info, str) else info
        told = info if is_object(info) else {}
        steps, guidance = told.get("steps"), told.get("cfg_scale")
        steps = steps if isinstance(steps, int) else request.num_inference_steps
        guidance = guidance if isinstance(guidance, int | float) else request.guidance_scale
        model = text(told, "sd_model_name") or self._model
        texts = describe_picture(
            request,
            self.describe(),
            model=model,
            steps=steps,
            guidance=guidance,
            honours_seed=True,
        )
        data, size = await anyio.to_thread.run_sync(write_png, content, texts)
        asked, got = ("{} x {}".format(*one) for one in (request.size, size))
        return GeneratedImage(
            data=data,
            model=sanitize(model, 200) if model else None,
            note="" if asked == got else f"the server drew {got} pixels in place of {asked}",
            num_inference_steps=steps,
            guidance_scale=guidance,
        )
