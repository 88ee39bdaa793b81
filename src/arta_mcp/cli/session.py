"""One async call with files: open Generations, wait for pictures, save them, show them."""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from arta_mcp.cli.console import (
    FAILED,
    OK,
    PENDING,
    columns,
    is_terminal,
    print_data,
    print_json,
    print_message,
    print_picture,
)
from arta_mcp.cli.interrupts import ExitAtInterrupt
from arta_mcp.cli.progress import ProgressDisplay
from arta_mcp.cli.stopping import run_until_stopped
from arta_mcp.cli.thumbnails import detect_protocol, render
from arta_mcp.config import Settings, without_settings
from arta_mcp.errors import ArtaError, InvalidRequest
from arta_mcp.generations.values import Generation, GenerationRequest
from arta_mcp.state.checks import check_folder

if TYPE_CHECKING:
    from arta_mcp.generations.service import Generations

T = TypeVar("T")

MAX_HISTORY = 100_000
"""generations that a command reads from the journal at most"""

MAX_BEGINNING = 32
"""characters from which on a record id is taken as whole, without a look at the others"""

MAX_SHOWN = 4
"""record ids that an error names"""


def choose_output_folder(options: argparse.Namespace, settings: Settings) -> Path | None:
    """Where pictures go, None with `--no-save`. Raises InvalidRequest before anything is sent."""
    if options.no_save:
        return None
    # Before anything is sent: a job whose pictures cannot be saved costs as much as any other.
    folder = Path(options.output or settings.output_dir or Path.cwd()).expanduser().absolute()
    if check_folder("output folder", "--output", folder, private=False).status == "fail":
        raise InvalidRequest("--output", str(folder), "a folder that can be written to")
    return folder


def choose_max_wait(options: argparse.Namespace, settings: Settings) -> float:
    """Seconds to wait for one generation at most."""
    return settings.job_timeout if options.max_wait is None else max(0.0, options.max_wait)


def run_session(
    settings: Settings,
    folder: Path | None,
    use: Callable[[Generations], Awaitable[T]],
    *,
    draws: bool = False,
) -> T:
    """What `use` gives of Generations that save into `folder`; everything is closed by then.

    `draws`: it waits for pictures, and so draws those too that come before them.
    """
    with ExitAtInterrupt():
        from arta_mcp.app import open_generations

    async def run() -> T:
        opened = open_generations(settings, output_dir=folder, warn=print_message, resume=draws)
        async with opened as generations:
            return await use(generations)

    return run_until_stopped(run)


def run_generation(
    settings: Settings, options: argparse.Namespace, request: GenerationRequest | None = None
) -> int:
    """Waits with a progress display for a generation, saves and prints it; the exit code.

    Without a request it is the one of `options.record_id`, and nothing is drawn anew.
    """
    folder = choose_output_folder(options, settings)
    max_wait = choose_max_wait(options, settings)
    wants_previews = is_terminal() and not options.json and not options.no_picture
    protocol = detect_protocol(options.environ) if wants_previews else None
    display = ProgressDisplay()
    previews: list[bytes] = []

    async def run(generations: Generations) -> Generation:
        is_done = False
        try:
            if request is None:
                record_id = await find_record_id(generations, options.record_id)
                generation = await generations.get(record_id, display, max_wait=max_wait)
            else:
                generation = await generations.generate(request, display, max_wait=max_wait)
            generation = await save_into(folder, generations, generation)
            is_done = generation.status == "done"
        finally:
            display.close(is_done=is_done)
        if protocol and is_done:
            for index in range(len(generation.images)):
                # One that cannot be had is a preview less: the result is printed all the same.
                with suppress(ArtaError):
                    previews.append((await generations.read_picture(generation, index)).content)
        return generation

    try:
        generation = run_session(settings, folder, run, draws=True)
    except KeyboardInterrupt:
        # A job that was submitted goes on at the service, so it can still be had.
        if record_id := display.record_id:
            print_message(f"stopped waiting; `arta-mcp get {record_id}` fetches the picture")
        else:
            print_message("hint: `arta-mcp history` shows whether it was ordered before that")
        raise
    # After the session, whose loop Pillow would hold up.
    if protocol and previews:
        print_picture(render(previews, protocol, columns=columns() - 1))
    return print_result(generation, options)


async def find_record_id(generations: Generations, begun: str) -> str:
    """The one known record id that begins so, else `begun` itself: the service may know it.

    Raises InvalidRequest when it is the beginning of several.
    """
    if len(begun) >= MAX_BEGINNING:
        return begun
    history = await generations.history(MAX_HISTORY)
    known = [one.record_id for one in history if one.record_id]
    found = [record_id for record_id in known if record_id.startswith(begun)]
    if begun in found or not begun:
        return begun
    if len(found) > 1:
        shown = ", ".join(found[:MAX_SHOWN])
        more = f" and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
        allowed = f"the beginning of one record id, not of {shown}{more}"
        raise InvalidRequest("RECORD_ID", begun, allowed)
    return found[0] if found else begun


async def save_into(
    folder: Path | None, generations: Generations, generation: Generation
) -> Generation:
    """The generation with every picture in `folder`, whatever was saved before, and where."""
    if folder is None or generation.status != "done":
        return generation

    def warn(index: int, why: str) -> None:
        print_message(f"warning: picture {index + 1} was not saved: {why}")

    return await generations.save_pictures(generation, folder, on_failure=warn)


def print_result(generation: Generation, options: argparse.Namespace) -> int:
    """Prints a finished or pending generation, opens its pictures if asked to; the exit code."""
    if options.json:
        print_json(generation.to_dict())
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
        open_pictures(generation, options.environ)
    # The embedded service ends with this command, and its address with it.
    if generation.backend == "local" and not all(image.path for image in generation.images):
        print_message("hint: these addresses answer while `arta-mcp local` or a server runs")
    # Each picture that could not be saved was warned of; a script sees the exit code alone.
    is_complete = options.no_save or all(image.path for image in generation.images)
    return OK if is_complete and generation.images else FAILED


def open_pictures(generation: Generation, environ: MutableMapping[str, str]) -> None:
    """Opens every picture in its viewer, which inherits this process's environment, `environ`."""
    with hide_settings(environ):
        for image in generation.images:
            if not webbrowser.open(Path(image.path).as_uri() if image.path else image.url):
                print_message("warning: nothing here opens pictures; set BROWSER to what does")
                break


@contextmanager
def hide_settings(environ: MutableMapping[str, str]) -> Generator[None]:
    """Takes our settings out of an environment for a while: `webbrowser` can be given none."""
    hidden = {name: environ.pop(name) for name in environ.keys() - without_settings(environ).keys()}
    try:
        yield
    finally:
        environ.update(hidden)


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
