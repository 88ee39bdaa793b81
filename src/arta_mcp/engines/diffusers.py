"""A diffusers pipeline as an engine, in a process of its own that is kept warm; no torch here."""

from __future__ import annotations

import base64
import json
import logging
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO, Self

import anyio
import anyio.to_thread
from anyio.abc import ByteSendStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

from arta_mcp.engines.base import EngineInfo, GeneratedImage, ImageRequest, OnStep, fit_size
from arta_mcp.engines.png import describe_picture, write_png
from arta_mcp.engines.worker import (
    Drawn,
    DrawOrder,
    Loaded,
    LoadOrder,
    name_of,
)
from arta_mcp.errors import (
    CANCELLED,
    ENGINE_ERRORS,
    PROMPT_REJECTED,
    ArtaError,
    EngineCrashed,
    EngineError,
    EngineUnavailable,
    JobCancelled,
    OutOfMemory,
    PromptRejected,
)
from arta_mcp.redaction import sanitize

COMMAND = (sys.executable, "-P", "-m", "arta_mcp.engines.worker")
"""`-P`: a file `torch.py` in the folder where a host starts us is not what is imported"""

MAX_LINE = 128 * 1024 * 1024
"""bytes of a message: a picture of 40 megapixels in Base64 is the longest"""

CANCEL_TIMEOUT = 10.0
"""seconds that a cancelled picture has to end its step, before its process is killed"""

EXIT_TIMEOUT = 5.0
"""seconds that a process has to end once its stdin is closed"""

MAX_LAST_WORDS = 4000
"""bytes that are read of what a process that failed wrote to stderr"""

ERRORS: Mapping[str, type[ArtaError]] = {
    **ENGINE_ERRORS,
    PROMPT_REJECTED: PromptRejected,
    CANCELLED: JobCancelled,
}
"""code of a message -> class"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the settings say where a call says nothing; None leaves it to the pipeline."""

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    sizes: tuple[tuple[int, int], ...] = ()


class DiffusersEngine:
    """Draws in one child process, which the first picture starts and which stays until `aclose`.

    `timeout` is the seconds without a step after which it counts as hung. A child that failed is
    replaced at the next picture.
    """

    def __init__(
        self,
        order: LoadOrder,
        *,
        defaults: Defaults = Defaults(),
        timeout: float = 600.0,
        idle: float = 600.0,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._order, self._defaults, self._command = order, defaults, command
        self._timeout, self._idle = timeout, idle
        self._worker: Worker | None = None

    @property
    def pid(self) -> int | None:
        """Of the child; None while there is none."""
        return self._worker.pid if self._worker else None

    def describe(self) -> EngineInfo:
        """See `Engine.describe`."""
        name = name_of(self._order.model)
        by = f"on this machine by {name}"
        info = EngineInfo(
            engine="diffusers",
            model=name,
            is_ai=True,
            notice=f"drawn {by}",
            summary=f"Pictures are drawn {by}; the styles are words that are added to the prompt.",
            sizes=self._defaults.sizes,
            honours=frozenset({"negative_prompt", "guidance_scale", "num_inference_steps", "seed"}),
            idle=self._idle,
        )
        if self._worker is None:
            return info
        loaded = self._worker.loaded
        return replace(info, native_area=loaded.native_area, size_step=loaded.size_step)

    async def generate(self, request: ImageRequest, on_step: OnStep) -> GeneratedImage:
        """See `Engine.generate`; the size is anew the nearest one, now that the model is known."""
        if self._worker is None:
            timeout = math.inf if self._order.download else self._timeout
            self._worker = await Worker.start(self._command, self._order, timeout=timeout)
        worker, info = self._worker, self.describe()
        request = replace(request, size=fit_size(info, request.aspect_ratio))
        steps, guidance = request.num_inference_steps, request.guidance_scale
        own = self._defaults
        order = DrawOrder(
            id=worker.next_id(),
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            width=request.size[0],
            height=request.size[1],
            seed=request.picture_seed,
            num_inference_steps=own.num_inference_steps if steps is None else steps,
            guidance_scale=own.guidance_scale if guidance is None else guidance,
        )
        # Whatever ended it, a process that is over must not be asked again.
        try:
            drawn = await worker.draw(order, on_step, timeout=self._timeout)
        finally:
            if worker.is_over:
                self._worker = None
        return await anyio.to_thread.run_sync(
            to_image, request, info, drawn, worker.loaded.software
        )

    async def aclose(self) -> None:
        """See `Engine.aclose`; the child's memory is free with it."""
        if worker := self._worker:
            self._worker = None
            await worker.close()


def to_image(
    request: ImageRequest, info: EngineInfo, drawn: Drawn, software: str
) -> GeneratedImage:
    """The picture with its texts; takes time, so for a thread."""
    texts = describe_picture(
        request,
        info,
        model=info.model,
        steps=drawn.num_inference_steps,
        guidance=drawn.guidance_scale,
        honours_seed=True,
    )
    texts["Software"] += f", {software}"
    data, size = write_png(base64.b64decode(drawn.png), texts)
    asked, got = ("{} x {}".format(*one) for one in (request.size, size))
    other = "" if asked == got else f"the pipeline drew {got} pixels in place of {asked}"
    return GeneratedImage(
        data=data,
        model=info.model,
        not_honoured=tuple(drawn.not_honoured),
        note="; ".join(filter(None, (drawn.note, other))),
        num_inference_steps=drawn.num_inference_steps,
        guidance_scale=drawn.guidance_scale,
    )


class Worker:
    """One child that has loaded its pipeline, and draws a picture at a time."""

    def __init__(self, process: Process, log: BinaryIO) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a worker has pipes on both sides")
        self._process, self._log = process, log
        self._stdin: ByteSendStream = process.stdin
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._last_id = 0
        self.loaded = Loaded(software="", device="", dtype="", native_area=0, size_step=0)
        self.is_over = False
        """whether it will draw no further picture"""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @classmethod
    async def start(cls, command: Sequence[str], order: LoadOrder, *, timeout: float) -> Self:
        """A child that has loaded the model. Raises EngineError; then it has ended."""
        # No pipe: nobody reads it before the end, and a pipe that is full stops a child.
        log = tempfile.TemporaryFile()  # noqa: SIM115  # it is closed with the worker
        try:
            process = await anyio.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        except OSError as exc:
            log.close()
            why = f"the engine's process does not start: {sanitize(exc.strerror or str(exc), 200)}"
            hint = "make room for it: it wants memory and a file or two"
            raise EngineUnavailable(why, hint=hint) from exc
        worker = cls(process, log)
        name = name_of(order.model)
        try:
            await worker._send(load=asdict(order))
            while "loaded" not in (message := await worker._receive(timeout)):
                if isinstance(size := message.get("downloading"), int):
                    # Before the first byte of it is fetched.
                    _log.warning("fetching %s from the hub: %.2f GB", name, size / 1e9)
            worker.loaded = Loaded(**message["loaded"])
        except BaseException:
            # Cancelled, too: half a model is of no use to the next picture.
            with anyio.CancelScope(shield=True):
                await worker.close(at_once=True)
            raise
        loaded = worker.loaded
        _log.info("%s loaded by %s, %s, %s", name, loaded.software, loaded.device, loaded.dtype)
        return worker

    def next_id(self) -> int:
        """A number that no order of this process had."""
        self._last_id += 1
        return self._last_id

    async def draw(self, order: DrawOrder, on_step: OnStep, *, timeout: float) -> Drawn:
        """The picture. Raises EngineError, PromptRejected; cancelled, it ends at a step."""
        try:
            await self._send(draw=asdict(order))
            return await self._wait(on_step, timeout)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(CANCEL_TIMEOUT) as patience, suppress(ArtaError):
                    await self._send(cancel=order.id)
                    await self._wait(lambda step, steps: None, timeout)
                if patience.cancelled_caught:
                    await self.close(at_once=True)
            raise

    async def _wait(self, on_step: OnStep, timeout: float) -> Drawn:
        try:
            while "drawn" not in (message := await self._receive(timeout)):
                step, steps = message.get("step"), message.get("steps")
                if isinstance(step, int) and isinstance(steps, int):
                    on_step(step, steps)
        except (OutOfMemory, EngineCrashed):
            with anyio.CancelScope(shield=True):
                await self.close(at_once=True)
            raise
        return Drawn(**message["drawn"])

    async def close(self, *, at_once: bool = False) -> None:
        """Ends the process: it goes when its stdin does, and is killed where it does not."""
        self.is_over = True
        try:
            if not at_once:
                await self._stdin.aclose()
                with anyio.move_on_after(EXIT_TIMEOUT):
                    await self._process.wait()
        finally:
            with anyio.CancelScope(shield=True):
                if self._process.returncode is None:
                    with suppress(ProcessLookupError):
                        self._process.kill()
                await self._process.aclose()
            self._log.close()

    async def _send(self, **message: object) -> None:
        # One that has ended takes nothing; its answer says how it ended.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._stdin.send(json.dumps(message).encode() + b"\n")

    async def _receive(self, timeout: float) -> dict[str, Any]:
        """The next message. Raises what one that is an error means, EngineCrashed without one."""
        try:
            with anyio.fail_after(timeout):
                line = await self._lines.receive_until(b"\n", MAX_LINE)
                message = json.loads(line)
        except TimeoutError as exc:
            why = f"the engine's process did nothing for {timeout:.0f} s"
            raise EngineCrashed(why, hint="ARTA_JOB_TIMEOUT is how long a step may take") from exc
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError) as exc:
            raise await self._explain_end() from exc
        except (ValueError, anyio.DelimiterNotFound) as exc:
            raise EngineCrashed("the engine's process wrote what is no message") from exc
        if error := message.get("error"):
            kind = ERRORS.get(error["code"], EngineError)
            raise kind(error["message"], hint=error["hint"])
        return message

    async def _explain_end(self) -> EngineCrashed:
        with anyio.move_on_after(EXIT_TIMEOUT):
            await self._process.wait()
        code = self._process.returncode
        how = "" if code is None else f" ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
        self._log.seek(0, 2)
        self._log.seek(max(0, self._log.tell() - MAX_LAST_WORDS))
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        last = f": {sanitize(lines[-1], 200)}" if lines else ""
        hint = "the next picture starts it anew"
        if code == -9:
            hint = f"the system ends what takes too much memory: a smaller model may help; {hint}"
        return EngineCrashed(f"the engine's process ended{how}{last}", hint=hint)
