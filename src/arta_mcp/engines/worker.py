"""The process in which a diffusers pipeline draws: its program, and what it and its parent say.

    parent -> {"load": LoadOrder}   <- {"downloading": bytes}, then {"loaded": Loaded} or an error
    parent -> {"draw": DrawOrder}   <- {"step", "steps"} ..., then {"drawn": Drawn} or an error
    parent -> {"cancel": id}        <- an error of code CANCELLED, in place of the picture

One JSON object a line. When stdin ends the parent has, and so does this process, in the middle of
a picture too. Every foreign package is imported by what needs it: the parent imports this module.
"""

from __future__ import annotations

import base64
import inspect
import io
import json
import math
import os
import queue
import re
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from arta_mcp.errors import (
    CANCELLED,
    ArtaError,
    ConfigError,
    EngineError,
    EngineUnavailable,
    JobCancelled,
    ModelNotFound,
    ModelUnusable,
    OutOfMemory,
    PromptRejected,
    RequestRefused,
)
from arta_mcp.redaction import sanitize

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

INDEX = "model_index.json"
"""the file that makes a folder a pipeline"""

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
"""endings of weights that run code when they are loaded"""

CONFIGURATION = (".json", ".txt", ".model")
"""endings of what is beside the weights"""

NATIVE_SIZE = 1024
"""pixels of a side, where a pipeline does not say"""

SIZE_STEP = 16
"""pixels: eight are enough for most pipelines, Flux and its like want 16"""

ROOM = 0.8
"""of the device's free memory that weights may fill; the picture needs the rest"""

INSTALL = "python -m pip install 'arta-mcp[diffusers]'"

_MEMORY = re.compile(r"(?i)out of memory|can.?t allocate|failed to allocate|not enough memory")

OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOrder:
    """Which pipeline, and how; `model` is the absolute path of a folder, or a name at the hub."""

    model: str
    device: str = "auto"
    dtype: str = "auto"
    offload: str = "auto"
    download: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What draws from now on; `native_area` is in pixels, `size_step` in pixels of a side."""

    software: str
    device: str
    dtype: str
    native_area: int
    size_step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawOrder:
    """One picture; None and "" leave it to the pipeline."""

    id: int
    prompt: str
    negative_prompt: str
    width: int
    height: int
    seed: int
    num_inference_steps: int | None = None
    guidance_scale: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The picture as Base64 of a PNG, and what it took, as `GeneratedImage` says it."""

    png: str
    not_honoured: tuple[str, ...] = ()
    note: str = ""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None


class Pipeline(Protocol):
    """What this process draws with; errors are EngineError, or PromptRejected."""

    loaded: Loaded

    def draw(self, order: DrawOrder, on_step: OnStep) -> Drawn: ...


Load = Callable[[LoadOrder, Callable[[int], None]], Pipeline]
"""gives the pipeline, and calls back with the bytes that are to be fetched first"""


class Parent:
    """The pipes to the process that started this one."""

    def __init__(self, lines: Iterable[bytes], out: BinaryIO) -> None:
        self._lines, self._out = lines, out
        self._orders = queue.SimpleQueue[dict[str, Any]]()
        self._cancelled = -1
        threading.Thread(target=self._listen, daemon=True).start()

    def next_order(self, kind: str) -> dict[str, Any]:
        """Waits for the next order, which is of that kind."""
        return self._orders.get()[kind]

    def say(self, **message: object) -> None:
        """One line to the parent."""
        self._out.write(json.dumps(message).encode() + b"\n")
        self._out.flush()

    def say_error(self, exc: ArtaError) -> None:
        """The error, for the parent to raise."""
        code = exc.code if isinstance(exc, EngineError) else EngineError.code
        code = CANCELLED if isinstance(exc, JobCancelled) else code
        code = "PROMPT_REJECTED" if isinstance(exc, PromptRejected) else code
        self.say(error={"code": code, "message": exc.message, "hint": exc.hint})

    def report_step(self, order_id: int, step: int, steps: int) -> None:
        """Says a step of a picture. Raises JobCancelled for one that is wanted no more."""
        # Raised from the step's callback: a pipeline that is told to interrupt itself decodes, and
        # gives, half a picture.
        if self._cancelled == order_id:
            raise JobCancelled("the picture was cancelled")
        self.say(step=step, steps=steps)

    def _listen(self) -> None:
        for line in self._lines:
            message = json.loads(line)
            if "cancel" in message:
                self._cancelled = message["cancel"]
            else:
                self._orders.put(message)
        os._exit(0)  # the parent is gone: nobody wants what is being drawn


def serve(parent: Parent, load: Load) -> None:
    """Loads and draws as the parent says, until it goes, or the memory is used up."""
    try:
        order = LoadOrder(**parent.next_order("load"))
        pipeline = load(order, lambda size: parent.say(downloading=size))
    except ArtaError as exc:
        return parent.say_error(exc)
    parent.say(loaded=asdict(pipeline.loaded))
    while True:
        order = DrawOrder(**parent.next_order("draw"))
        try:
            drawn = pipeline.draw(
                order, lambda step, steps, of=order.id: parent.report_step(of, step, steps)
            )
            parent.say(drawn=asdict(drawn))
        except OutOfMemory as exc:
            # What was taken is given back with the process alone.
            return parent.say_error(exc)
        except ArtaError as exc:
            parent.say_error(exc)


def main(load: Load) -> None:
    """The process: stdout is the parent's; whatever else writes there, in C too, is on stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with suppress(OSError):  # where memory is short, this goes before what started it (Linux)
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    serve(Parent(sys.stdin.buffer, out), load)


# Which files


def is_folder(model: str) -> bool:
    """Whether a model's name is the path of a folder; all others are names at the hub."""
    return Path(model).is_absolute()


def name_of(model: str) -> str:
    """What a model is called in results: its folder alone, whose path is nobody's business."""
    return Path(model).name if is_folder(model) else model


def check_start(model: str) -> None:
    """Raises ConfigError for what every picture would fail for; imports nothing of the extra."""
    missing = [name for name in ("torch", "diffusers", "transformers") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"ARTA_LOCAL_ENGINE is 'diffusers', and {', '.join(missing)} cannot be imported",
            hint=f"{INSTALL}; docs/local.md has the lines for CPU, CUDA and Mac",
        )
    if is_folder(model):
        try:
            check_folder(Path(model), name_of(model))
        except EngineError as exc:
            raise ConfigError(f"ARTA_LOCAL_MODEL: {exc.message}", hint=exc.hint) from exc


def check_folder(folder: Path, name: str) -> None:
    """Raises ModelNotFound, ModelUnusable for what is no pipeline with safe weights."""
    if folder.is_file():
        why = "is a single file, and a pipeline is a folder"
        raise ModelUnusable(f"{name} {why}", hint=_folder_hint())
    if not folder.is_dir():
        raise ModelNotFound(f"there is no folder {name}", hint=_folder_hint())
    try:
        index = json.loads((folder / INDEX).read_bytes())
        parts = [part for part, value in index.items() if isinstance(value, list)]
    except FileNotFoundError as exc:
        raise ModelUnusable(f"{name} has no {INDEX}", hint=_folder_hint()) from exc
    except (OSError, ValueError, AttributeError) as exc:
        raise ModelUnusable(f"{INDEX} of {name} cannot be read", hint=_folder_hint()) from exc
    for part in parts:
        files = [file.name for file in folder.glob(f"{part}/*")]
        if any(file.endswith(PICKLES) for file in files) and not any(
            file.endswith(".safetensors") for file in files
        ):
            raise ModelUnusable(
                f"the weights in {part} of {name} are pickle files, which may run code",
                hint="set ARTA_LOCAL_MODEL to a model whose weights are .safetensors files",
            )


def _folder_hint() -> str:
    return (
        f"set ARTA_LOCAL_MODEL to the absolute path of a folder with a {INDEX}, or to the name of"
        " a diffusers model at the hub"
    )


def pick_variant(files: Collection[str], *, is_half: bool) -> str | None:
    """`fp16` where those weights are enough, or the only ones; None for the usual ones."""
    weights = [file for file in files if file.endswith(".safetensors") and "/" in file]
    half = {file.partition("/")[0] for file in weights if ".fp16." in file}
    whole = {file.partition("/")[0] for file in weights if ".fp16." not in file}
    return "fp16" if half and (is_half or half - whole) else None


def pick_files(files: Collection[str], parts: Collection[str], variant: str | None) -> list[str]:
    """What a pipeline of these parts needs of a repository's files; no pickles, no code."""
    picked = [INDEX] if INDEX in files else []
    for part in parts:
        own = [file for file in files if file.startswith(f"{part}/")]
        weights = [file for file in own if file.endswith(".safetensors")]
        half = [file for file in weights if ".fp16." in file]
        whole = [file for file in weights if ".fp16." not in file]
        picked += [file for file in own if file.endswith(CONFIGURATION)]
        picked += half if half and (variant or not whole) else whole
    return picked


def find_folder(order: LoadOrder, *, is_half: bool, on_download: Callable[[int], None]) -> Path:
    """The folder of the model: the one that was named, or the hub's cache of it.

    Only with `download` the hub is asked; `on_download` gets the bytes before they are fetched.
    Raises ModelNotFound, ModelUnusable, EngineUnavailable.
    """
    if is_folder(order.model):
        return Path(order.model)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    unreachable: EngineUnavailable | None = None
    if order.download:
        try:
            _download(order.model, is_half=is_half, on_download=on_download)
        except EngineUnavailable as exc:
            # What is here from before is as good.
            unreachable = exc
    try:
        # A whole snapshot would be asked for all that the repository has.
        return Path(hf_hub_download(order.model, INDEX, local_files_only=True)).parent
    except (LocalEntryNotFoundError, ValueError) as exc:
        raise unreachable or ModelNotFound(
            f"the model {order.model} is not on this machine",
            hint="set ARTA_LOCAL_DOWNLOAD=on to fetch it from the hub, or ARTA_LOCAL_MODEL to a"
            " folder",
        ) from exc


def _download(model: str, *, is_half: bool, on_download: Callable[[int], None]) -> None:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        listed = HfApi().model_info(model, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in listed.siblings or ()}
        if INDEX not in sizes:
            raise ModelUnusable(f"{model} has no {INDEX} at the hub", hint=_folder_hint())
        index = json.loads(Path(hf_hub_download(model, INDEX)).read_bytes())
        parts = [part for part, value in index.items() if isinstance(value, list) and value[0]]
        files = pick_files(sizes, parts, pick_variant(sizes, is_half=is_half))
        found = snapshot_download(model, allow_patterns=files, dry_run=True)
        if missing := sum(file.file_size for file in found if file.will_download):
            on_download(missing)
        snapshot_download(model, allow_patterns=files)
    except RepositoryNotFoundError as exc:  # also one that needs a login
        hint = "correct ARTA_LOCAL_MODEL; for one that asks for it, accept its licence at the hub"
        hint += " and log in with `hf auth login`"
        raise ModelNotFound(f"the hub shows no model {model}", hint=hint) from exc
    except EngineError:
        raise
    except Exception as exc:  # of its HTTP client, which is another one each year
        why = f"{model} could not be fetched: {_first_line(exc)}"
        hint = "see to the network and the disk; what was fetched is kept, the rest comes next time"
        raise EngineUnavailable(why, hint=hint) from exc


# The pipeline


def load_pipeline(order: LoadOrder, on_download: Callable[[int], None]) -> Pipeline:
    """The pipeline, ready to draw. Raises EngineError."""
    name = name_of(order.model)
    # Before the import, which takes ten seconds.
    if is_folder(order.model):
        check_folder(Path(order.model), name)
    try:
        import diffusers
        import torch
        import transformers
        from huggingface_hub import constants
    except ImportError as exc:
        raise EngineUnavailable(
            f"diffusers cannot be imported: {_first_line(exc)}",
            hint=f"{INSTALL}; docs/local.md has the lines for CPU, CUDA and Mac",
        ) from exc
    # Their warnings quote prompts, and their bars are for a terminal.
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    device = pick_device(order.device)
    dtype = pick_dtype(device, order.dtype)
    folder = find_folder(order, is_half=dtype.itemsize == 2, on_download=on_download)
    # Nothing that is loaded from here on may ask the hub.
    constants.HF_HUB_OFFLINE = True
    check_folder(folder, name)
    files = [file.relative_to(folder).as_posix() for file in folder.glob("*/*")]
    try:
        pipe = diffusers.AutoPipelineForText2Image.from_pretrained(
            str(folder),
            dtype=dtype,
            variant=pick_variant(files, is_half=dtype.itemsize == 2),
            use_safetensors=True,
            local_files_only=True,
        )
        place(pipe, device, order.offload)
    except Exception as exc:  # each library that reads a part has its own
        raise explain_load_failure(exc, folder, name, device) from exc
    pipe.set_progress_bar_config(disable=True)
    software = f"diffusers {diffusers.__version__}, torch {torch.__version__}"
    return DiffusersPipeline(pipe, software=software, device=device, dtype=dtype)


def pick_device(wanted: str) -> str:
    """Where to draw. Raises EngineUnavailable for a device that is not there."""
    import torch

    there = {
        "cuda": torch.cuda.is_available(),  # AMD's ROCm calls itself so, too
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return next(name for name, is_there in there.items() if is_there)
    if not there[wanted]:
        raise EngineUnavailable(
            f"ARTA_LOCAL_DEVICE is {wanted!r}, which torch {torch.__version__} does not find",
            hint="leave ARTA_LOCAL_DEVICE out, or install the torch of that device: docs/local.md",
        )
    return wanted


def pick_dtype(device: str, wanted: str) -> torch.dtype:
    """Half the memory where a device computes in it; what a CPU computes fastest is whole."""
    import torch

    if wanted != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[wanted]
    if device == "cpu":
        return torch.float32
    # Older cards compute bfloat16 in software, or not at all.
    is_old = device == "cuda" and not torch.cuda.is_bf16_supported()
    return torch.float16 if is_old else torch.bfloat16


def place(pipe: DiffusionPipeline, device: str, offload: str) -> None:
    """Puts the weights where they are used, or leaves them in the computer's own memory."""
    import torch

    if device == "cpu":
        return
    if offload == "auto":
        offload = "off"
        if device == "cuda":
            free, _ = torch.cuda.mem_get_info()
            modules = (
                part for part in pipe.components.values() if isinstance(part, torch.nn.Module)
            )
            weights = sum(p.numel() * p.element_size() for m in modules for p in m.parameters())
            offload = "off" if weights < free * ROOM else "model"
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)


class DiffusersPipeline:
    """A pipeline of whichever family: what its call takes is read from its own signature."""

    def __init__(
        self, pipe: DiffusionPipeline, *, software: str, device: str, dtype: torch.dtype
    ) -> None:
        self._pipe = pipe
        self._takes = inspect.signature(type(pipe).__call__).parameters
        # Sana compresses 32 pixels into one, and takes multiples of that alone.
        factor = getattr(pipe, "vae_scale_factor", 8)
        self.loaded = Loaded(
            software=software,
            device=device,
            dtype=str(dtype).removeprefix("torch."),
            native_area=native_side(pipe) ** 2,
            size_step=math.lcm(SIZE_STEP, factor),
        )

    def draw(self, order: DrawOrder, on_step: OnStep) -> Drawn:
        """See `Pipeline.draw`."""
        import torch

        arguments, missed = self._arguments(order)

        def after_step(
            pipe: DiffusionPipeline, index: int, timestep: object, inputs: dict[str, object]
        ) -> dict[str, object]:
            # A scheduler may do more than it said at first, and no step comes after the last.
            on_step(index + 1, max(index + 1, pipe.num_timesteps))
            return inputs

        if "callback_on_step_end" in self._takes:
            arguments["callback_on_step_end"] = after_step
        # On the CPU whatever draws: the same noise on each device.
        arguments["generator"] = torch.Generator("cpu").manual_seed(order.seed)
        try:
            output = self._pipe(**arguments)
        except ArtaError:
            raise
        except Exception as exc:
            raise explain_failure(exc, order, self.loaded.device) from exc
        if any(getattr(output, "nsfw_content_detected", None) or ()):
            raise PromptRejected("the model's own safety checker refuses this picture")
        out = io.BytesIO()
        output.images[0].save(out, "PNG", compress_level=1)
        steps, guidance = arguments.get("num_inference_steps"), arguments.get(self._guidance)
        return Drawn(
            png=base64.b64encode(out.getvalue()).decode(),
            not_honoured=missed,
            note=self._explain_cut(order.prompt),
            num_inference_steps=steps if isinstance(steps, int) else None,
            guidance_scale=guidance if isinstance(guidance, int | float) else None,
        )

    @property
    def _guidance(self) -> str:
        # Qwen's kind has only what others call the true one.
        return "guidance_scale" if "guidance_scale" in self._takes else "true_cfg_scale"

    def _arguments(self, order: DrawOrder) -> tuple[dict[str, object], tuple[str, ...]]:
        """What the call is given, and what of the order it does not take."""
        asked = {
            "negative_prompt": order.negative_prompt or None,
            "num_inference_steps": order.num_inference_steps,
            self._guidance: order.guidance_scale,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        missed = [name for name in given if name not in self._takes]
        fixed = {"prompt": order.prompt, "width": order.width, "height": order.height}
        # The pipeline's own values are given to it, too: so the result can say what was used.
        known = {
            name: parameter.default
            for name, parameter in self._takes.items()
            if name in asked or name == "true_cfg_scale"
        }
        all_of_it: dict[str, object] = {**known, **fixed, **given}
        arguments = {name: value for name, value in all_of_it.items() if name in self._takes}
        # Without guidance there is nothing that words to avoid could steer. Flux has two kinds of
        # it, of which the true one is off: it takes twice the time.
        scale = arguments.get("true_cfg_scale", arguments.get("guidance_scale"))
        if "negative_prompt" in given and isinstance(scale, int | float) and scale <= 1:
            missed.append("negative_prompt")
        names = {"true_cfg_scale": "guidance_scale"}
        return arguments, tuple(dict.fromkeys(names.get(name, name) for name in missed))

    def _explain_cut(self, prompt: str) -> str:
        """What to say where no part of the model reads the whole prompt."""
        longest = 0
        for name, part in self._pipe.components.items():
            if not name.startswith("tokenizer") or part is None:
                continue
            count, limit = len(part(prompt)["input_ids"]), part.model_max_length
            if count <= limit:
                return ""
            longest = max(longest, limit)
        return (
            f"the model reads {longest} tokens, the rest of the prompt was cut" if longest else ""
        )


def native_side(pipe: DiffusionPipeline) -> int:
    """Pixels of a side of the squares that the model was trained on."""
    side = getattr(pipe, "default_sample_size", None)
    for name in ("unet", "transformer"):
        if not isinstance(side, int):
            side = getattr(getattr(getattr(pipe, name, None), "config", None), "sample_size", None)
    factor = getattr(pipe, "vae_scale_factor", 8)
    return side * factor if isinstance(side, int) else NATIVE_SIZE


def explain_load_failure(exc: Exception, folder: Path, name: str, device: str) -> EngineError:
    """What an exception means that came of loading."""
    if is_out_of_memory(exc):
        hint = "use a smaller model, or ARTA_LOCAL_OFFLOAD=sequential on a graphics card"
        return OutOfMemory(f"{name} does not fit into the memory of {device}", hint=hint)
    why = _first_line(exc).replace(str(folder), name)
    hint = "set ARTA_LOCAL_MODEL to another model, or fetch its files anew"
    return ModelUnusable(f"{name} cannot be loaded: {why}", hint=hint)


def explain_failure(exc: Exception, order: DrawOrder, device: str) -> EngineError:
    """What an exception of the pipeline means."""
    size = f"{order.width} x {order.height}"
    if is_out_of_memory(exc):
        return OutOfMemory(
            f"a picture of {size} does not fit into the memory of {device}",
            hint="use a smaller model, smaller ARTA_LOCAL_SIZES, or on a graphics card"
            " ARTA_LOCAL_OFFLOAD=model or sequential",
        )
    why = _first_line(exc)
    if isinstance(exc, ValueError | TypeError):
        return RequestRefused(f"the pipeline refuses {size}: {why}")
    return EngineError(f"the pipeline failed: {why}")


def is_out_of_memory(exc: Exception) -> bool:
    """Whether memory was short: a graphics card has a class for it, the CPU's allocator words."""
    import torch

    if isinstance(exc, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(exc, RuntimeError) and _MEMORY.search(str(exc)) is not None


def _first_line(exc: Exception) -> str:
    line = next((line for line in str(exc).splitlines() if line.strip()), "")
    return sanitize(f"{type(exc).__name__}: {line}" if line else type(exc).__name__, 300)


if __name__ == "__main__":
    main(load_pipeline)
