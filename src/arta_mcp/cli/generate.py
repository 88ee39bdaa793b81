"""The `generate` and `get` commands: a new generation, or an earlier one by its record id."""

from __future__ import annotations

import argparse
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from arta_mcp.arta.protocol import RATIOS
from arta_mcp.cli.batch import Batch
from arta_mcp.cli.console import translate_hint
from arta_mcp.cli.parser import Parser, Subparsers
from arta_mcp.cli.session import run_generation
from arta_mcp.config import Settings
from arta_mcp.errors import InvalidRequest
from arta_mcp.generations.values import GenerationRequest

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
