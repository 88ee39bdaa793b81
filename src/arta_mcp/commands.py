"""The commands for people at a terminal; `cli` prints what they say."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio

from arta_mcp import cli
from arta_mcp.config import Settings
from arta_mcp.content import describe_models, progress_message
from arta_mcp.errors import InvalidRequest
from arta_mcp.generation import Generation, GenerationRequest, Update
from arta_mcp.protocol import RATIOS
from arta_mcp.wire import is_object, text

if TYPE_CHECKING:
    from arta_mcp.generations import Generations

    Words = argparse._SubParsersAction[cli.Parser]  # pyright: ignore[reportPrivateUsage]  # argparse names it so

T = TypeVar("T")

OPTIONS = {
    "model": ("-m", "--model"),
    "negative_prompt": ("--negative-prompt",),
    "n": ("-n",),
    "aspect_ratio": ("-a", "--aspect-ratio"),
    "guidance_scale": ("--guidance-scale",),
    "num_inference_steps": ("--steps",),
    "seed": ("--seed",),
    "idempotency_key": ("--idempotency-key",),
}
"""argument of a request -> its option; help texts and bounds come from the request itself"""


def add_generate(words: Words) -> None:
    parser = words.add_parser("generate", help="draw pictures of a prompt")
    parser.add_argument("prompt", metavar="PROMPT", help=_help("prompt"))
    for name, flags in OPTIONS.items():
        choices = f" ({', '.join(RATIOS)})" if name == "aspect_ratio" else ""
        parser.add_argument(
            *flags,
            dest=name,
            metavar=flags[-1].lstrip("-").replace("-", "_").upper(),
            help=_help(name) + choices,
        )
    _add_output(parser)
    parser.add_argument("--max-wait", type=float, help="seconds to wait at most; default: the end")
    parser.set_defaults(run=generate)


def add_get(words: Words) -> None:
    parser = words.add_parser("get", help="fetch an earlier generation by its record id")
    parser.add_argument("record_id", metavar="RECORD_ID", help="as generate or history told it")
    _add_output(parser)
    parser.add_argument("--max-wait", type=float, help="seconds to wait at most; default: the end")
    parser.set_defaults(run=get)


def add_history(words: Words) -> None:
    parser = words.add_parser("history", help="list the latest generations")
    parser.add_argument("--limit", type=int, default=20, help="how many at most; default 20")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(run=history)


def add_models(words: Words) -> None:
    parser = words.add_parser("models", help="list what can be drawn with")
    parser.add_argument("--search", metavar="WORDS", help="only those that match")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=models)


def add_local(words: Words) -> None:
    parser = words.add_parser("local", help="run the embedded service alone, on this machine")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--port", type=int, help="default: the one of last time, or a free one")
    parser.add_argument("--queue", type=float, default=0.6, help="seconds a job queues")
    parser.add_argument("--draw", type=float, default=1.0, help="seconds a job is drawn at least")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME@ENDPOINT",
        help="scripted trouble, e.g. 503@submit*2=Retry-After:1; `--fault help` lists them",
    )
    parser.set_defaults(run=local)


def _add_output(parser: cli.Parser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="save the pictures here; default: ARTA_OUTPUT_DIR, or the current folder",
    )
    parser.add_argument("--no-save", action="store_true", help="print the addresses only")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def generate(settings: Settings, options: argparse.Namespace) -> int:
    given = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    request = GenerationRequest.of(prompt=options.prompt, **given)
    wait = _max_wait(options, settings)

    async def call(generations: Generations, report: Reporter) -> Generation:
        return await generations.generate(request, report, max_wait=wait)

    return _run_one(settings, options, call)


def get(settings: Settings, options: argparse.Namespace) -> int:
    wait = _max_wait(options, settings)

    async def call(generations: Generations, report: Reporter) -> Generation:
        return await generations.get(options.record_id, report, max_wait=wait)

    return _run_one(settings, options, call)


def history(settings: Settings, options: argparse.Namespace) -> int:
    found = _with_generations(settings, None, lambda g: g.history(max(1, options.limit)))
    for generation in found:
        if options.json:
            cli.data(json.dumps(asdict(generation), ensure_ascii=False))
        else:
            cli.data(_history_line(generation))
    if not found:
        cli.talk("nothing was drawn here yet; `arta-mcp generate PROMPT` begins")
    return cli.OK


def models(settings: Settings, options: argparse.Namespace) -> int:
    from arta_mcp.styles import SHIPPED

    found = SHIPPED.search(options.search)
    if options.json:
        listed = [asdict(style) for style in found]
        cli.data(json.dumps({"as_of": SHIPPED.as_of, "models": listed}, ensure_ascii=False))
        return cli.OK
    width = max((len(style.id) for style in found), default=0)
    for style in found:
        cli.data(f"{style.id:<{width}}  {style.category:<8}  {style.name}")
    cli.talk(describe_models(SHIPPED, found).splitlines()[0])
    return cli.OK


def local(settings: Settings, options: argparse.Namespace) -> int:
    from arta_mcp.assemble import state_dir
    from arta_mcp.local.faults import FAULTS, Fault
    from arta_mcp.local.running import run_forever
    from arta_mcp.local.service import Service

    if "help" in options.fault:
        for name, kind in FAULTS.items():
            cli.data(f"{name:<28} {', '.join(kind.endpoints):<44} {kind.sentence}")
        return cli.OK
    try:
        service = Service(
            state_dir(settings) / "local",
            queue=options.queue,
            draw=options.draw,
            latency=options.latency,
            faults=[Fault.parse(text) for text in options.fault],
        )
        run_forever(
            service,
            host=options.host,
            port=options.port,
            on_ready=lambda url: cli.data(f"the embedded service answers at {url}"),
        )
    except (ValueError, OSError) as exc:
        raise InvalidRequest("local", str(exc), "what --help shows") from exc
    return cli.OK


class Reporter:
    """Progress for people: a bar on a terminal, a line a change elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._bar = None
        self._step = ""
        self.record_id: str | None = None

    async def __call__(self, update: Update) -> None:
        self.record_id = update.record_id or self.record_id
        if self._is_terminal:
            self._draw(update)
        elif update.step != self._step:
            cli.talk(progress_message(update))
        self._step = update.step

    def close(self, *, is_done: bool) -> None:
        if self._bar is not None:
            if is_done:
                self._bar.n = self._bar.total
            self._bar.close()

    def _draw(self, update: Update) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                total=1.0, bar_format="{desc} |{bar:30}| {postfix}", file=sys.stderr, leave=True
            )
        left = update.remaining
        share = 0.0 if left is None else update.waited / max(0.1, update.waited + left)
        self._bar.n = max(self._bar.n, min(0.98, share))
        self._bar.set_description_str(f"{update.step:<8}", refresh=False)
        rest = "" if left is None else f", about {max(1, round(left))} s left"
        self._bar.set_postfix_str(f"{update.waited:.0f} s{rest}", refresh=True)


def _run_one(
    settings: Settings,
    options: argparse.Namespace,
    call: Callable[[Generations, Reporter], Awaitable[Generation]],
) -> int:
    report = Reporter()
    folder = None if options.no_save else (options.output or settings.output_dir or Path.cwd())

    async def run(generations: Generations) -> Generation:
        try:
            generation = await call(generations, report)
        except BaseException:
            report.close(is_done=False)
            raise
        report.close(is_done=generation.status == "done")
        return generation

    try:
        generation = _with_generations(settings, folder, run)
    except KeyboardInterrupt:
        if report.record_id:
            cli.talk(f"stopped waiting; `arta-mcp get {report.record_id}` fetches the picture")
        raise
    return _tell(generation, options)


def _tell(generation: Generation, options: argparse.Namespace) -> int:
    if options.json:
        cli.data(json.dumps(asdict(generation), ensure_ascii=False))
    else:
        for image in generation.images:
            blurred = " (blurred by the service)" if image.blurred else ""
            cli.data(f"{image.path or image.url}{blurred}")
        seed = f", seed {generation.seed}" if generation.seed is not None else ""
        cli.talk(f"{generation.model}{seed}, record id {generation.record_id}")
        if generation.notice:
            cli.talk(f"note: {generation.notice}")
    if generation.status == "done":
        return cli.OK
    cli.talk(f"hint: still being drawn; `arta-mcp get {generation.record_id}` fetches it")
    return cli.PENDING


def _with_generations(
    settings: Settings, folder: Path | None, use: Callable[[Generations], Awaitable[T]]
) -> T:
    from arta_mcp.assemble import open_generations

    async def run() -> T:
        async with open_generations(settings, output_dir=folder, warn=cli.talk) as generations:
            return await use(generations)

    return anyio.run(run)


def _max_wait(options: argparse.Namespace, settings: Settings) -> float:
    return settings.job_timeout if options.max_wait is None else max(0.0, options.max_wait)


def _history_line(generation: Generation) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(generation.created_at))
    prompt = generation.prompt if len(generation.prompt) <= 60 else f"{generation.prompt[:59]}…"
    name = generation.record_id or "(no record id)"
    return f"{when}  {generation.status:<8}  {name:<34}  {generation.model:<18}  {prompt}"


def _help(name: str) -> str:
    schema = GenerationRequest.model_json_schema()
    properties = schema.get("properties")
    field = properties.get(name) if is_object(properties) else None
    words = _description(field) if is_object(field) else ""
    default = GenerationRequest.model_fields[name].default
    shown = f"; default {default}" if isinstance(default, str | int | float) else ""
    return (words + shown).replace("%", "%%")


def _description(field: Mapping[str, object]) -> str:
    from arta_mcp.wire import entries

    if found := text(field, "description"):
        return found
    options = [option for option in entries(field.get("anyOf")) if is_object(option)]
    return next((found for option in options if (found := text(option, "description"))), "")
