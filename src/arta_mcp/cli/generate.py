"""The `generate`, `get` and `cancel` commands: a new generation, or an earlier one by its id."""

from __future__ import annotations

import argparse
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from arta_mcp.arta.protocol import RATIOS
from arta_mcp.cli.batch import Batch
from arta_mcp.cli.console import OK, print_json, print_message, translate_hint
from arta_mcp.cli.parser import Parser, Subparsers
from arta_mcp.cli.session import find_record_id, run_generation, run_session
from arta_mcp.cli.tables import count_of
from arta_mcp.config import Settings
from arta_mcp.errors import InvalidRequest
from arta_mcp.generations.values import Cancellation, GenerationRequest

if TYPE_CHECKING:
    from arta_mcp.generations.service import Generations

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


def add_generate(commands: Subparsers) -> None:
    """The `generate` command."""
    parser = commands.add_parser(
        "generate", help="draw pictures of a prompt, or of a file of prompts"
    )
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", help=describe_argument("prompt"))
    for name, flags in OPTIONS.items():
        choices = f" ({', '.join(RATIOS)})" if name == "aspect_ratio" else ""
        # Neither `type` nor `choices`: the request checks, and its errors are those of the tool.
        parser.add_argument(
            *flags,
            dest=name,
            metavar=flags[-1].lstrip("-").replace("-", "_").upper(),
            help=describe_argument(name) + choices,
        )
    parser.add_argument(
        "--batch",
        metavar="FILE",
        help="draw every line of a file, or of stdin (-), but blank ones and remarks, which begin"
        " with #; run again, it goes on where it stopped and orders nothing twice, until"
        " --idempotency-key gives the batch another name than that of its file",
    )
    add_output_options(parser)
    parser.set_defaults(run=run_generate)


def add_get(commands: Subparsers) -> None:
    """The `get` command."""
    parser = commands.add_parser("get", help="fetch an earlier generation by its record id")
    parser.add_argument(
        "record_id",
        metavar="RECORD_ID",
        help="as generate or history told it; its beginning is enough",
    )
    add_output_options(parser)
    parser.set_defaults(run=run_generation)


def add_cancel(commands: Subparsers) -> None:
    """The `cancel` command."""
    parser = commands.add_parser(
        "cancel",
        help="give up what is still to be drawn of a job on this machine",
        description="Begins no further picture of a job of the embedded service, whichever process"
        " draws it; the one under way is still drawn, and what is drawn stays.",
    )
    parser.add_argument(
        "record_id",
        metavar="RECORD_ID",
        help="as generate or history told it; its beginning is enough",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run_cancel)


def run_cancel(settings: Settings, options: argparse.Namespace) -> int:
    """Cancels one job and says what there is of it. Raises NotCancellable, UnknownRecord."""

    async def cancel(generations: Generations) -> Cancellation:
        return await generations.cancel(await find_record_id(generations, options.record_id))

    done = run_session(settings, None, cancel)
    if options.json:
        print_json(asdict(done))
        return OK
    of_all = f"{done.drawn} of {count_of(done.n, 'picture')}"
    more = "; the one under way is still drawn" if done.is_drawing else ""
    print_message(f"cancelled; {of_all} drawn{more}")
    if done.drawn or done.is_drawing:
        print_message(f"hint: `arta-mcp get {done.record_id}` fetches what there is")
    return OK


def add_output_options(parser: Parser) -> None:
    """The options of every command that ends with pictures."""
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


def run_generate(settings: Settings, options: argparse.Namespace) -> int:
    """Draws one prompt, or a batch of them."""
    given = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    # By hand: argparse cannot say that an argument and an option exclude each other.
    parser: Parser = options.parser
    if options.prompt is None and options.batch is None:
        parser.error("the following arguments are required: PROMPT")
    if options.prompt is not None and options.batch is not None:
        parser.error("give PROMPT or --batch, not both")
    if options.open and options.batch is not None:
        parser.error("--open goes with one prompt, not with --batch")
    if options.batch is not None:
        with name_options():
            batch = Batch(settings, options, given)
        return batch.run()
    with name_options():
        request = GenerationRequest.of(prompt=options.prompt, **given)
    return run_generation(settings, options, request)


@contextmanager
def name_options() -> Generator[None]:
    """An InvalidRequest raised within speaks of options, not of the arguments behind them."""
    try:
        yield
    except InvalidRequest as exc:
        names = {name: flags[-1] for name, flags in OPTIONS.items()}
        begun = re.compile(rf"(^|; and )({'|'.join(names)})(?= is )")
        exc.message = begun.sub(lambda found: found[1] + names[found[2]], exc.message)
        raise


def describe_argument(name: str) -> str:
    """What the tool's schema says of an argument, for argparse, to which a % is a placeholder."""
    # From the schema and not from the field: where null is allowed, the words stand one level down.
    field = GenerationRequest.model_json_schema()["properties"][name]
    described: str = field.get("description") or field["anyOf"][0]["description"]
    default = GenerationRequest.model_fields[name].default
    shown = f"; default {default}" if isinstance(default, str | int | float) else ""
    return translate_hint(described + shown).replace("%", "%%")
