"""The `setup` command: three questions about a person's own engine, a try, and the lines for it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from arta_mcp.cli.console import (
    FAILED,
    OK,
    ask,
    ask_secret,
    confirm,
    is_terminal,
    print_data,
    print_error,
    print_json,
    print_message,
    translate_hint,
)
from arta_mcp.cli.engine import MAX_SHOWN, check_engine
from arta_mcp.cli.install.command import install
from arta_mcp.cli.install.hosts import HOSTS, find_host
from arta_mcp.cli.parser import Parser, Subparsers
from arta_mcp.cli.stopping import run_until_stopped
from arta_mcp.config import OPENAI_KEY, SETTINGS, Settings
from arta_mcp.errors import ArtaError, ConfigError, InvalidRequest
from arta_mcp.redaction import sanitize
from arta_mcp.state.records import StateCheck as Finding

ENGINE, URL, KEY, MODEL = (f"ARTA_LOCAL_{name}" for name in ("ENGINE", "URL", "KEY", "MODEL"))


@dataclass(frozen=True, slots=True)
class Program:
    """What a person may run, and how it is reached where nobody says otherwise."""

    name: str
    title: str
    engine: str
    url: str = ""
    dialect: str = ""


ALL_PROGRAMS = (
    Program("openai", "OpenAI itself, which bills each picture to your key", "openai"),
    Program("sd-server", "stable-diffusion.cpp (sd-server)", "openai", "http://127.0.0.1:1234"),
    Program("a1111", "A1111, Forge or SD.Next", "sdapi", "http://127.0.0.1:7860"),
    Program("koboldcpp", "KoboldCpp", "sdapi", "http://127.0.0.1:5001"),
    Program("draw-things", "Draw Things", "sdapi", "http://127.0.0.1:7860"),
    Program("localai", "LocalAI", "openai", "http://127.0.0.1:8080", "localai"),
    Program("lemonade", "Lemonade", "openai", "http://127.0.0.1:13305/api/v1", "lemonade"),
    Program("vllm-omni", "vLLM-Omni", "openai", "http://127.0.0.1:8000", "vllm-omni"),
    Program("sglang", "SGLang", "openai", "http://127.0.0.1:30010"),
    Program("aquiles-image", "Aquiles-Image", "openai", "http://127.0.0.1:5500"),
    Program("other", "another with /v1/images/generations", "openai", "http://127.0.0.1:8000"),
    Program("diffusers", "none: a model in a process of its own (diffusers)", "diffusers"),
)
"""addresses: what each listens on by default, read 2026-11-26"""

ENGINES = next(setting.choices for setting in SETTINGS if setting.name == ENGINE)
PROGRAMS = tuple(program for program in ALL_PROGRAMS if program.engine in ENGINES)


@dataclass
class Answers:
    """The settings as they come together; `environ` is what else is set."""

    environ: Mapping[str, str]
    chosen: dict[str, str] = field(default_factory=dict[str, str])
    key: str = ""

    def settings(self) -> Settings:
        """As the server would read them. Raises ConfigError."""
        others = {k: v for k, v in self.environ.items() if not k.startswith("ARTA_LOCAL_")}
        return Settings.from_env(
            {
                **others,
                "ARTA_BACKEND": "local",
                **self.chosen,
                **({KEY: self.key} if self.key else {}),
            }
        )


def add_setup(commands: Subparsers) -> None:
    """The `setup` command."""
    parser = commands.add_parser(
        "setup",
        help="have your own engine draw: three questions, a try, and the lines for your host",
        description="Asks what you run, where, and which model; tries it; prints the settings, or"
        " puts them into a host's configuration. With --run nothing is asked. A key is taken from"
        f" {KEY} (or {OPENAI_KEY} for OpenAI itself), never from the command line.",
    )
    names = [program.name for program in PROGRAMS]
    parser.add_argument(
        "--run", metavar="PROGRAM", choices=names, help=f"what draws: {', '.join(names)}"
    )
    parser.add_argument("--url", help="its address; default: where it listens by itself")
    parser.add_argument("--model", help="the model; default: the one that it has loaded")
    parser.add_argument(
        "--http", action="store_true", help="allow plain http to a machine in your own network"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--no-picture", action="store_true", help="draw none to try it")
    which.add_argument("--draw", action="store_true", help="draw one even if it may cost money")
    parser.add_argument(
        "--install",
        metavar="HOST",
        help=f"put them into its configuration: {', '.join(host.name for host in HOSTS[:-1])}",
    )
    parser.add_argument("--force", action="store_true", help="replace a different entry there")
    parser.add_argument("--dry-run", action="store_true", help="show that change, write nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run_without_settings=run_setup)


def run_setup(options: argparse.Namespace) -> int:
    """Asks what the options do not say, tries it, and prints or installs the lines."""
    is_asking = options.run is None
    if is_asking and not (sys.stdin.isatty() and is_terminal()):
        parser: Parser = options.parser
        parser.fail("setup asks, and nobody is there to answer", "give --run PROGRAM; see --help")
    if options.install:
        find_host(options.install)  # before anything is drawn
    answers = ask_questions(options) if is_asking else read_options(options)
    draw = choose_draw(answers, options, is_asking=is_asking)
    findings = try_engine(answers.settings(), draw=draw)
    is_well = all(finding.status != "fail" for finding in findings)
    if options.json:
        found = [asdict(finding) for finding in findings]
        print_json({"ok": is_well, "env": answers.chosen, "findings": found})
    else:
        for name, value in answers.chosen.items():
            print_data(f"{name}={value}")
    if answers.key and not options.install:
        print_message(f"hint: set {KEY} beside them; the key itself is shown nowhere")
    if not is_well:
        print_message("error: it does not draw yet; what is said above comes first")
        return FAILED
    host = options.install or (is_asking and ask("Which host gets them? (Enter: none)"))
    if not host:
        print_message("hint: they go into the `env` of your host's entry; `--install HOST` does it")
        return OK
    return install_into(host, answers, options)


def read_options(options: argparse.Namespace) -> Answers:
    """The settings that the options name. Raises ConfigError."""
    program = next(program for program in PROGRAMS if program.name == options.run)
    answers = begin(program, options, options.url or program.url)
    if options.model:
        answers.chosen[MODEL] = options.model
    answers.settings()
    return answers


def begin(program: Program, options: argparse.Namespace, url: str) -> Answers:
    """What is known before the model: the engine, its address, the key that is set."""
    environ: Mapping[str, str] = options.environ
    answers = Answers(environ, {ENGINE: program.engine})
    if url:
        answers.chosen[URL] = url
    if program.dialect:
        answers.chosen["ARTA_LOCAL_DIALECT"] = program.dialect
    if options.http:
        answers.chosen["ARTA_LOCAL_HTTP"] = "on"
    # OpenAI's own key goes to OpenAI alone, which is what no address means.
    answers.key = environ.get(KEY, "") or ("" if url else environ.get(OPENAI_KEY, ""))
    return answers


def ask_questions(options: argparse.Namespace) -> Answers:
    """What do you run, where, which model; a wrong answer is asked for again."""
    for number, program in enumerate(PROGRAMS, 1):
        print_message(f"{number:>3}  {program.title}")
    program = PROGRAMS[ask_number("1/3 What do you run?", len(PROGRAMS)) - 1]
    while True:
        url = options.url or (program.url and ask("2/3 Where?", program.url))
        answers = begin(program, options, url)
        if program.name == "openai" and not answers.key:
            answers.key = ask_secret("2/3 Your key (it is not shown)")
        try:
            settings = answers.settings()
        except ConfigError as exc:
            print_error(exc)
            if "ARTA_LOCAL_HTTP" not in exc.hint or not confirm("Allow plain http there?"):
                options.url = None
                continue
            options.http, options.url = True, url
            continue
        break
    chosen = options.model or ask_model(answers, settings)
    if chosen:
        answers.chosen[MODEL] = chosen
    return answers


def ask_model(answers: Answers, settings: Settings) -> str:
    """One of those that the server lists, or what is typed; empty: what it has loaded."""
    from arta_mcp.app import list_engine_models

    try:
        listed = run_until_stopped(lambda: list_engine_models(settings))
    except ArtaError as exc:
        print_error(exc)
        listed = ()
        # Only now: most servers of one's own want no key.
        if ("401" in exc.message or "403" in exc.message) and not answers.key:
            answers.key = ask_secret("It asks for a key (it is not shown)")
            return ask_model(answers, answers.settings()) if answers.key else ""
    for number, name in enumerate(listed[:MAX_SHOWN], 1):
        print_message(f"{number:>3}  {sanitize(name, 120)}")
    said = ask("3/3 Which model? (a number, a name; Enter: what it draws with by itself)")
    is_number = said.isdigit() and 0 < int(said) <= min(len(listed), MAX_SHOWN)
    return listed[int(said) - 1] if is_number else said


def ask_number(question: str, high: int) -> int:
    """A number in 1..high, asked for until it is one."""
    while True:
        said = ask(f"{question} (1..{high})")
        if said.isdigit() and 0 < int(said) <= high:
            return int(said)
        print_message(f"error: {sanitize(repr(said), 40)} is no number in 1..{high}")


def choose_draw(answers: Answers, options: argparse.Namespace, *, is_asking: bool) -> bool:
    """Whether a picture is drawn to try it: never one that may cost money without a yes."""
    if options.no_picture or options.draw:
        return options.draw
    may_cost = answers.settings().may_cost
    if is_asking:
        cost = " It may cost money." if may_cost else ""
        return confirm(f"Draw one small picture to try it?{cost}")
    if may_cost:
        print_message("note: no picture is drawn, as it may cost money; --draw draws one")
    return not may_cost


def try_engine(settings: Settings, *, draw: bool) -> list[Finding]:
    """What the try has found, each told as it comes."""
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        print_message(f"{finding.status:<4}  {finding.name}: {finding.detail}")
        if finding.remedy:
            print_message(f"      -> {translate_hint(finding.remedy)}")

    async def examine() -> None:
        try:
            async for finding in check_engine(settings, draw=draw):
                tell(finding)
        except ArtaError as exc:
            tell(Finding("engine", "fail", exc.message, exc.hint))

    run_until_stopped(examine)
    return findings


def install_into(name: str, answers: Answers, options: argparse.Namespace) -> int:
    """Puts the settings into a host's configuration, the key by reference where it has one."""
    host = find_host(name)
    if host.name == "generic":
        hint = "`arta-mcp install --file PATH --env NAME=VALUE` writes any other file"
        raise InvalidRequest("--install", name, "a host whose file is known", hint=hint)
    env = [f"{variable}={value}" for variable, value in answers.chosen.items()]
    asked: list[str] = []
    # A reference keeps the key itself out of the host's file.
    held_by = next((one for one in (KEY, OPENAI_KEY) if answers.environ.get(one)), "")
    if answers.key and host.asks:
        asked.append(KEY)
    elif answers.key and host.reference and held_by:
        env.append(f"{KEY}={host.reference.replace('NAME', held_by)}")
    elif answers.key:
        env.append(f"{KEY}={answers.key}")
    more = {"host": host.name, "name": "arta", "file": None, "project": False, "uvx": False}
    how = {"force": options.force, "dry_run": options.dry_run, "environ": answers.environ}
    return install(argparse.Namespace(**more, **how, env=env, ask=asked))
