"""One async call with files: open Generations, wait for pictures, save them, show them."""

from __future__ import annotations

import argparse
import json
import os
import webbrowser
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio

from arta_mcp.cli.console import (
    FAILED,
    OK,
    PENDING,
    columns,
    is_terminal,
    print_data,
    print_message,
    print_picture,
)
from arta_mcp.cli.parser import Parser
from arta_mcp.cli.progress import ProgressDisplay
from arta_mcp.cli.thumbnails import detect_protocol, render
from arta_mcp.config import Settings
from arta_mcp.errors import ArtaError, InvalidRequest
from arta_mcp.generations.values import GeneratedImage, Generation

if TYPE_CHECKING:
    from arta_mcp.generations.service import Generations

T = TypeVar("T")

MAX_HISTORY = 100_000
"""generations that a command reads from the journal at most"""


def add_output_options(parser: Parser) -> None:
    """What every command that ends with pictures can be told about them."""
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


def choose_output_folder(options: argparse.Namespace, settings: Settings) -> Path | None:
    """Where pictures go, None with `--no-save`. Raises InvalidRequest before anything is sent."""
    if options.no_save:
        return None
    # Before anything is sent: a job whose pictures cannot be saved costs as much as any other.
    folder = Path(options.output or settings.output_dir or Path.cwd()).expanduser().absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InvalidRequest("--output", str(folder), "a folder that can be written to")
    return folder


def choose_max_wait(options: argparse.Namespace, settings: Settings) -> float:
    """Seconds to wait for one generation at most."""
    return settings.job_timeout if options.max_wait is None else max(0.0, options.max_wait)


def run_session(
    settings: Settings, folder: Path | None, use: Callable[[Generations], Awaitable[T]]
) -> T:
    """What `use` gives of Generations that save into `folder`; everything is closed by then."""
    from arta_mcp.app import open_generations

    async def run() -> T:
        async with open_generations(settings, output_dir=folder, warn=print_message) as generations:
            return await use(generations)

    return anyio.run(run)


def run_generation(
    settings: Settings,
    options: argparse.Namespace,
    call: Callable[[Generations, ProgressDisplay], Awaitable[Generation]],
) -> int:
    """Waits for what `call` gives with a progress display, saves and prints it; the exit code."""
    folder = choose_output_folder(options, settings)
    display = ProgressDisplay(print_message)

    async def run(generations: Generations) -> tuple[Generation, list[bytes]]:
        try:
            generation = await call(generations, display)
        except BaseException:
            display.close(is_done=False)
            raise
        generation = await save_into(folder, generations, generation)
        display.close(is_done=generation.status == "done")
        return generation, await read_previews(generations, generation, options)

    try:
        generation, previews = run_session(settings, folder, run)
    except KeyboardInterrupt:
        # A job that was submitted goes on at the service, so it can still be had.
        if display.record_id:
            print_message(
                f"stopped waiting; `arta-mcp get {display.record_id}` fetches the picture"
            )
        else:
            print_message("hint: `arta-mcp history` shows whether it was ordered before that")
        raise
    # After the session, whose loop Pillow would hold up.
    if previews and (protocol := detect_protocol(options.environ)):
        print_picture(render(previews, protocol, columns=columns() - 1))
    return print_result(generation, options)


async def save_into(
    folder: Path | None, generations: Generations, generation: Generation
) -> Generation:
    """The generation with every picture in `folder`, whatever was saved before, and where."""
    if folder is None or generation.status != "done":
        return generation

    def warn(index: int, why: str) -> None:
        print_message(f"warning: picture {index + 1} was not saved: {why}")

    return await generations.save_pictures(generation, folder, on_failure=warn)


async def read_previews(
    generations: Generations, generation: Generation, options: argparse.Namespace
) -> list[bytes]:
    """The pictures for a terminal that shows some; none where nobody looks."""
    wanted = is_terminal() and not options.json and not options.no_picture
    if not wanted or generation.status != "done" or detect_protocol(options.environ) is None:
        return []
    pictures: list[bytes] = []
    for index in range(len(generation.images)):
        # One that cannot be had is a preview less: the result is printed all the same.
        with suppress(ArtaError):
            pictures.append((await generations.read_picture(generation, index)).content)
    return pictures


def print_result(generation: Generation, options: argparse.Namespace) -> int:
    """Prints a finished or pending generation and gives the exit code of its command."""
    if options.json:
        print_data(json.dumps(generation.to_dict(), ensure_ascii=False))
    else:
        print_pictures(generation)
        seed = f", seed {generation.seed}" if generation.seed is not None else ""
        print_message(f"{generation.model}{seed}, record id {generation.record_id}")
        if generation.notice:
            print_message(f"note: {generation.notice}")
    if generation.status != "done":
        print_message(f"hint: still being drawn; `arta-mcp get {generation.record_id}` fetches it")
        return PENDING
    if options.open:
        open_pictures(generation)
    if options.no_save:
        # The embedded service ends with this command, and its address with it.
        if generation.backend == "local":
            print_message("hint: these addresses answer while `arta-mcp local` or a server runs")
        return OK
    # Each picture that could not be saved was warned of; a script sees the exit code alone.
    return OK if all(image.path for image in generation.images) else FAILED


def print_pictures(generation: Generation) -> None:
    """One file or address a line; a file below the current folder as short as it can be."""
    here = Path.cwd()
    for image in generation.images:
        shown = image.url
        if image.path:
            path = Path(image.path)
            shown = str(path.relative_to(here) if path.is_relative_to(here) else path)
        blurred = " (blurred by the service)" if image.blurred else ""
        print_data(f"{shown}{blurred}")


def open_pictures(generation: Generation) -> None:
    """Shows every picture in the viewer that this machine has for it."""
    for image in generation.images:
        address = Path(image.path).as_uri() if image.path else image.url
        if not webbrowser.open(address):
            print_message("warning: nothing here opens pictures; set BROWSER to what does")
            return


def is_on_disk(image: GeneratedImage) -> bool:
    """Whether a picture was saved and still lies there."""
    return image.path is not None and Path(image.path).exists()
