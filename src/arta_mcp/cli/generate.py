"""The commands for people at a terminal; `cli` prints what they say."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio

from arta_mcp.arta.protocol import RATIOS
from arta_mcp.cli import entry as cli
from arta_mcp.cli.progress import (
    Reporter,
    columns,
    counted,
    is_terminal,
    moment,
    one_line,
    table,
)
from arta_mcp.cli.thumbnails import render, way_of
from arta_mcp.config import Settings
from arta_mcp.errors import ArtaError, InvalidRequest
from arta_mcp.generations.values import GeneratedImage, Generation, GenerationRequest
from arta_mcp.untrusted_json import is_object, text

if TYPE_CHECKING:
    from arta_mcp.generations.service import Generations

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

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")
"""what shtab knows; asking it would cost every command 40 ms"""

MOST_HISTORY = 100_000


def add_generate(words: Words) -> None:
    parser = words.add_parser("generate", help="draw pictures of a prompt, or of a file of prompts")
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", help=_help("prompt"))
    for name, flags in OPTIONS.items():
        choices = f" ({', '.join(RATIOS)})" if name == "aspect_ratio" else ""
        parser.add_argument(
            *flags,
            dest=name,
            metavar=flags[-1].lstrip("-").replace("-", "_").upper(),
            help=_help(name) + choices,
        )
    parser.add_argument(
        "--batch",
        metavar="FILE",
        help="draw every line of a file, or of stdin (-); run again, it goes on where it stopped"
        " and orders nothing twice, until --idempotency-key gives the batch another name",
    )
    _add_output(parser)
    parser.set_defaults(run=generate)


def add_get(words: Words) -> None:
    parser = words.add_parser("get", help="fetch an earlier generation by its record id")
    parser.add_argument("record_id", metavar="RECORD_ID", help="as generate or history told it")
    _add_output(parser)
    parser.set_defaults(run=get)


def add_history(words: Words) -> None:
    parser = words.add_parser("history", help="list the latest generations")
    parser.add_argument("--limit", type=int, default=20, help="how many at most; default 20")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(run=history)


def add_models(words: Words) -> None:
    parser = words.add_parser("models", help="list what can be drawn with")
    parser.add_argument(
        "--search", metavar="WORDS", help="only those whose name or category matches"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=models)


def add_completion(words: Words) -> None:
    parser = words.add_parser("completion", help="print a script that completes our commands")
    parser.add_argument(
        "shell",
        metavar="SHELL",
        choices=SHELLS,
        help=f'one of {", ".join(SHELLS)}; e.g. eval "$(arta-mcp completion bash)" in ~/.bashrc',
    )
    parser.set_defaults(run_without_settings=completion)


def _add_output(parser: cli.Parser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="save the pictures here; default: ARTA_OUTPUT_DIR, or the current folder",
    )
    parser.add_argument("--no-save", action="store_true", help="print the addresses only")
    parser.add_argument("--no-picture", action="store_true", help="show no picture in the terminal")
    parser.add_argument("--open", action="store_true", help="open the pictures in their viewer")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--max-wait", type=float, help="seconds to wait at most; default: the end")


def generate(settings: Settings, options: argparse.Namespace) -> int:
    given = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    wait = max_wait(options, settings)
    _check_source(options)
    if options.batch is not None:
        from arta_mcp.cli import batch

        return batch.run(settings, options, options.batch, given)
    request = GenerationRequest.of(prompt=options.prompt, **given)

    async def call(generations: Generations, report: Reporter) -> Generation:
        return await generations.generate(request, report, max_wait=wait)

    return _run_one(settings, options, call)


def _check_source(options: argparse.Namespace) -> None:
    parser: cli.Parser = options.parser
    if options.prompt is None and options.batch is None:
        parser.error("the following arguments are required: PROMPT")
    if options.prompt is not None and options.batch is not None:
        parser.error("give PROMPT or --batch, not both")
    if options.open and options.batch is not None:
        parser.error("--open goes with one prompt, not with --batch")


def get(settings: Settings, options: argparse.Namespace) -> int:
    wait = max_wait(options, settings)

    async def call(generations: Generations, report: Reporter) -> Generation:
        return await generations.get(options.record_id, report, max_wait=wait)

    return _run_one(settings, options, call)


def history(settings: Settings, options: argparse.Namespace) -> int:
    limit = min(MOST_HISTORY, max(1, options.limit))
    found = with_generations(settings, None, lambda g: g.history(limit))
    if options.json:
        for generation in found:
            cli.data(json.dumps(generation.to_dict(), ensure_ascii=False))
    elif found:
        rows = [_history_row(generation) for generation in found]
        _print_table(("WHEN", "STATUS", "RECORD ID", "MODEL", "PROMPT"), rows)
    if not found:
        cli.talk("nothing was drawn here yet; `arta-mcp generate PROMPT` begins")
    return cli.OK


def models(settings: Settings, options: argparse.Namespace) -> int:
    catalogue = with_generations(settings, None, lambda g: g.catalogue())
    found = catalogue.search(options.search)
    if options.json:
        listed = [asdict(style) for style in found]
        about = {"as_of": catalogue.as_of, "source": catalogue.source, "models": listed}
        cli.data(json.dumps(about, ensure_ascii=False))
        return cli.OK
    if found:
        rows = [(style.id, style.category, style.name) for style in found]
        _print_table(("MODEL", "CATEGORY", "STYLE"), rows)
    origin = "as the service lists them" if catalogue.source == "live" else "as shipped"
    cli.talk(
        f"{counted(len(found), 'model')}, {origin}, {catalogue.as_of};"
        f" default {catalogue.default.id}"
    )
    if not found:
        cli.talk("hint: `arta-mcp models` without --search shows all")
    return cli.OK


def completion(options: argparse.Namespace) -> int:
    import shtab

    from arta_mcp.styles import SHIPPED

    parser = cli.build_parser()
    known: Mapping[str, tuple[str, ...]] = {
        "model": tuple(style.id for style in SHIPPED.styles),
        "aspect_ratio": RATIOS,
    }
    for action in parser.actions():
        # only for the script: as choices of the command line their errors would be argparse's
        action.choices = known.get(action.dest, action.choices)
        if action.dest in ("output", "batch"):
            ends = shtab.DIRECTORY if action.dest == "output" else shtab.FILE
            action.complete = ends  # pyright: ignore[reportAttributeAccessIssue]  # shtab looks there
    cli.data(shtab.complete(parser, shell=options.shell))
    return cli.OK


def _run_one(
    settings: Settings,
    options: argparse.Namespace,
    call: Callable[[Generations, Reporter], Awaitable[Generation]],
) -> int:
    folder = output_folder(options, settings)
    report = Reporter(cli.talk)

    async def run(generations: Generations) -> tuple[Generation, list[bytes]]:
        try:
            generation = await call(generations, report)
        except BaseException:
            report.close(is_done=False)
            raise
        generation = await with_files(generations, generation, folder)
        report.close(is_done=generation.status == "done")
        return generation, await _to_show(generations, generation, options)

    try:
        generation, pictures = with_generations(settings, folder, run)
    except KeyboardInterrupt:
        if report.record_id:
            cli.talk(f"stopped waiting; `arta-mcp get {report.record_id}` fetches the picture")
        else:
            cli.talk("hint: `arta-mcp history` shows whether it was ordered before that")
        raise
    if pictures and (way := way_of(options.environ)):
        cli.show(render(pictures, way, columns=columns() - 1))
    return _tell(generation, options)


async def with_files(
    generations: Generations, generation: Generation, folder: Path | None
) -> Generation:
    """The generation with every picture in `folder`, whatever was saved before, and where."""
    if folder is None or generation.status != "done":
        return generation

    def warn(index: int, why: str) -> None:
        cli.talk(f"warning: picture {index + 1} was not saved: {why}")

    return await generations.save_pictures(generation, folder, on_failure=warn)


def is_there(image: GeneratedImage) -> bool:
    """Whether a picture was saved and still lies there."""
    return image.path is not None and Path(image.path).exists()


async def _to_show(
    generations: Generations, generation: Generation, options: argparse.Namespace
) -> list[bytes]:
    """The pictures for a terminal that shows some; none where nobody looks."""
    wanted = is_terminal() and not options.json and not options.no_picture
    if not wanted or generation.status != "done" or way_of(options.environ) is None:
        return []
    pictures: list[bytes] = []
    for index, image in enumerate(generation.images):
        try:
            if image.path:
                pictures.append(await anyio.Path(image.path).read_bytes())
            else:
                picture = await generations.picture(generation.record_id or "", index)
                pictures.append(picture.content)
        except (ArtaError, OSError):
            continue
    return pictures


def _tell(generation: Generation, options: argparse.Namespace) -> int:
    if options.json:
        cli.data(json.dumps(generation.to_dict(), ensure_ascii=False))
    else:
        print_pictures(generation)
        seed = f", seed {generation.seed}" if generation.seed is not None else ""
        cli.talk(f"{generation.model}{seed}, record id {generation.record_id}")
        if generation.notice:
            cli.talk(f"note: {generation.notice}")
    if generation.status != "done":
        cli.talk(f"hint: still being drawn; `arta-mcp get {generation.record_id}` fetches it")
        return cli.PENDING
    if options.open:
        _open(generation)
    if options.no_save:
        if generation.backend == "local":
            cli.talk("hint: these addresses answer while `arta-mcp local` or a server runs")
        return cli.OK
    return cli.OK if all(image.path for image in generation.images) else cli.FAILED


def print_pictures(generation: Generation) -> None:
    """One file or address a line."""
    for image in generation.images:
        blurred = " (blurred by the service)" if image.blurred else ""
        cli.data(f"{_shown(image.path) if image.path else image.url}{blurred}")


def _shown(path: str) -> str:
    """A path as short as it can be from here."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _open(generation: Generation) -> None:
    import webbrowser

    for image in generation.images:
        address = Path(image.path).as_uri() if image.path else image.url
        if not webbrowser.open(address):
            cli.talk("warning: nothing here opens pictures; set BROWSER to what does")
            return


def with_generations(
    settings: Settings, folder: Path | None, use: Callable[[Generations], Awaitable[T]]
) -> T:
    from arta_mcp.app import open_generations

    async def run() -> T:
        async with open_generations(settings, output_dir=folder, warn=cli.talk) as generations:
            return await use(generations)

    return anyio.run(run)


def output_folder(options: argparse.Namespace, settings: Settings) -> Path | None:
    """Where pictures are to be saved, checked before anything is ordered."""
    if options.no_save:
        return None
    folder = Path(options.output or settings.output_dir or Path.cwd()).expanduser().absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InvalidRequest("--output", str(folder), "a folder that can be written to")
    return folder


def max_wait(options: argparse.Namespace, settings: Settings) -> float:
    return settings.job_timeout if options.max_wait is None else max(0.0, options.max_wait)


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    for line in table(header, rows):
        cli.data(line)


def _history_row(generation: Generation) -> tuple[str, ...]:
    return (
        moment(generation.created_at),
        generation.status,
        generation.record_id or "-",
        generation.model,
        one_line(generation.request.prompt),
    )


def _help(name: str) -> str:
    schema = GenerationRequest.model_json_schema()
    properties = schema.get("properties")
    field = properties.get(name) if is_object(properties) else None
    words = _description(field) if is_object(field) else ""
    default = GenerationRequest.model_fields[name].default
    shown = f"; default {default}" if isinstance(default, str | int | float) else ""
    return cli.as_commands(words + shown).replace("%", "%%")


def _description(field: Mapping[str, object]) -> str:
    from arta_mcp.untrusted_json import entries

    if found := text(field, "description"):
        return found
    options = [option for option in entries(field.get("anyOf")) if is_object(option)]
    return next((found for option in options if (found := text(option, "description"))), "")
