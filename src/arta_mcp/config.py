"""Settings: one frozen value, read from a given environment.

Light on imports on purpose: settings are read before a host gets its first answer.
No I/O happens here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from arta_mcp import __version__
from arta_mcp.arta.url_guard import is_loopback, is_public
from arta_mcp.errors import ConfigError
from arta_mcp.redaction import MIN_SECRET, Secret, sanitize

PREFIX = "ARTA_"

MAX_OWNER = 200
"""characters of an owner's name"""

OPENAI_KEY = "OPENAI_API_KEY"
"""read for OpenAI itself alone; it goes to no other server"""

OPENAI_URL = "https://api.openai.com"

DIALECTS = ("openai", "plain", "vllm-omni", "localai", "lemonade", "sd-server")
"""what servers call the fields that OpenAI's own API has not"""

NEAR = (".local", ".lan", ".home", ".internal", ".home.arpa")
"""endings of names inside a network"""

MIN_SIDE = 64
"""pixels of a picture's side"""

HUB_NAME = re.compile(r"\w[\w.-]{0,95}(/\w[\w.-]{0,95})?")
"""what a model at the hub is called"""

MAX_MODEL = 200
"""characters of a model's name"""

HTTP_SLOTS, MAX_HTTP_SLOTS = 200, 400
"""jobs in flight of a server on HTTP where nothing is set, and at most: beyond it submits are so
slow that their answers are lost (2 of 800 were)"""

MIN_TOKEN = 16
"""characters of an HTTP caller's token: fewer can be guessed"""

# Some hosts pass on what they have no value for, and people what a page told them to replace;
# `${...}` is in no address and no key, the others are refused where they are the whole value.
_PLACEHOLDER = re.compile(
    r".*\$\{.*|\{\{.*\}\}|\$(env:)?[A-Za-z_]\w*|%\w+%|<[^<>]*>"
    r"|undefined|null|None|\[object Object\]|(?i:your[-_ ][\w -]*key)",
    re.DOTALL,
)
_QUOTED = re.compile(
    r"(?P<quote>[\"'`]).*(?P=quote)|[\u201c\u201e\u2018\u201a].*[\u201c\u201d\u2018\u2019]",
    re.DOTALL,
)

DrawnBy = Literal["remote", "sketch", "engine"]
"""what draws, as far as a host's first questions show it; `engine` is any other on this machine"""

Parse = Callable[[str, str], object]
"""takes a variable's name and its value, which is not blank; raises ConfigError"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable: its row in the README, in server.json and in `doctor`."""

    name: str
    default: str
    description: str
    parse: Parse
    secret: bool = False
    choices: tuple[str, ...] = ()
    empty_means_none: bool = False
    """an empty value turns it off, where for others it is the same as not set"""
    old_name: str = ""
    """what it was called before; read where the name has no value"""

    @property
    def field(self) -> str:
        """The attribute of `Settings` that holds it."""
        return self.name.removeprefix(PREFIX).lower()

    def read(self, environ: Mapping[str, str]) -> object:
        """The value that `environ` gives it, or its default, or None; raises ConfigError."""
        name, value = self.name, environ.get(self.name, "")
        if self.old_name and not value.strip():
            name, value = self.old_name, environ.get(self.old_name, "")
        if _PLACEHOLDER.fullmatch(value.strip()):
            # An address may hold a password too, before or after the placeholder.
            may_be_secret = self.secret or "@" in value
            found = "holds a placeholder" if may_be_secret else f"is the literal {sanitize(value)}"
            raise ConfigError(
                f"{name} {found}, which the host did not fill in",
                hint=f"give {name} a value in the host's configuration, or remove it",
            )
        if _QUOTED.fullmatch(value.strip()):
            raise ConfigError(
                f"{name} stands in quotes, which are taken as a part of it",
                hint="leave the quotes out",
            )
        if self.empty_means_none and self.name in environ and not value.strip():
            return None
        value = value.strip() or self.default
        return self.parse(name, value) if value else None


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a program that we start: no key and no password of ours is its to see."""
    return {name: value for name, value in environ.items() if not name.startswith(PREFIX)}


def _join(problems: Mapping[str, ConfigError]) -> ConfigError:
    """One error that tells all: who sets a server up in a host sees one at each start."""
    if len(problems) == 1:
        return next(iter(problems.values()))
    return ConfigError(
        "; and ".join(problem.message for problem in problems.values()),
        hint="; ".join(f"{name}: {problem.hint}" for name, problem in problems.items()),
    )


def _refuse(name: str, value: str, why: str, hint: str = "", *, limit: int = 80) -> ConfigError:
    """The error that quotes a value, cut to `limit` characters: never for what may be secret."""
    return ConfigError(f"{name} is {sanitize(repr(value), limit)}{why}", hint=hint)


def _setting(default: str, description: str, parse: Parse, **more: object) -> Any:
    """A field of `Settings` with the rest of its row; `Any` as `dataclasses.field` gives it."""
    return field(metadata={"default": default, "description": description, "parse": parse, **more})


def _choice(default: str, description: str, meanings: Mapping[str, object], **more: object) -> Any:
    return _setting(default, description, _one_of(meanings), choices=tuple(meanings), **more)


def _one_of(meanings: Mapping[str, object]) -> Parse:
    def parse(name: str, value: str) -> object:
        if (chosen := value.lower()) not in meanings:
            raise _refuse(name, value, "", f"use one of {', '.join(meanings)}")
        return meanings[chosen]

    return parse


def _number(
    low: float, high: float, kind: str = "number of seconds", read: Callable[[str], float] = float
) -> Parse:
    def parse(name: str, value: str) -> float:
        try:
            number = read(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:  # which nan never is
            why = f", not a {kind} in {low:g}..{high:g}"
            raise _refuse(name, value, why, f"set {name} to a number, or leave it out")
        return number

    return parse


def _word_or(word: str, parse_other: Parse) -> Parse:
    """None for that word."""

    def parse(name: str, value: str) -> object:
        return None if value.lower() == word else parse_other(name, value)

    return parse


def _whole(value: str) -> float:
    # int() also takes "1_0" and "٣", and refuses thousands of digits in words of its own.
    plain = value.isascii() and value.isdigit() and len(value) < 10
    return int(value) if plain else float("nan")


def _size(name: str, value: str) -> int:
    units = {"k": 1, "m": 2, "g": 3, "t": 4}
    found = re.fullmatch(r"([0-9]{1,6}) ?([kmgt])(i?)b?", value, re.IGNORECASE)
    if found is None or not int(found[1]):
        raise _refuse(name, value, ", not a size", "use a size such as 500MB or 2GiB")
    return int(found[1]) * (1024 if found[3] else 1000) ** units[found[2].lower()]


def _scheme_and_host(value: str) -> tuple[str, str]:
    """Two empty texts for what is no address."""
    try:
        parts = urlsplit(value)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return "", ""
    is_plain = value.isprintable() and " " not in value
    return (parts.scheme, parts.hostname) if parts.hostname and is_plain else ("", "")


def _address(name: str, value: str) -> str:
    # Before any other check, whose message would quote it.
    if "@" in value:
        raise ConfigError(f"{name} holds a user name or password", hint="leave them out")
    scheme, host = _scheme_and_host(value)
    shown = re.split(r"[?#]", value)[0]  # a query may hold a key
    if scheme not in ("http", "https"):
        raise _refuse(name, shown, ", not an https address", limit=120)
    if shown != value:
        raise _refuse(name, shown, " and more; leave out what follows the path", limit=120)
    # The key and the tokens travel in it.
    if scheme == "http" and not is_loopback(host):
        why = "; plain http is for this machine only"
        raise _refuse(name, shown, why, "use https://", limit=120)
    return value.rstrip("/")


def _server(name: str, value: str) -> str:
    """As `_address`; whether plain http may go to another machine is for `ARTA_LOCAL_HTTP`."""
    if "://" not in value and "@" not in value:
        hint = "begin with http:// for this machine or https://, as in http://127.0.0.1:7860"
        raise _refuse(name, re.split(r"[?#]", value)[0], ", no address", hint, limit=120)
    if _scheme_and_host(value)[0] == "http":
        _address(name, "https" + value[4:])
        return value.rstrip("/")
    return _address(name, value)


def _proxy(name: str, value: str) -> Secret:
    if _scheme_and_host(value)[0] not in ("http", "https", "socks5", "socks5h"):
        raise ConfigError(f"{name} is no http, https or socks5 address")
    return Secret(value)


def _state_url(name: str, value: str) -> Secret:
    # Its password must not be quoted, so nothing of it is.
    scheme, host = _scheme_and_host(value)
    hint = (
        "use redis://user:password@host:port/0, or rediss:// for TLS; in a password %23, %2F and"
        " %3F stand for #, / and ?"
    )
    if scheme not in ("redis", "rediss") or not host:
        raise ConfigError(f"{name} is no redis or rediss address", hint=hint)
    parts = urlsplit(value)
    if parts.query or parts.fragment or not re.fullmatch(r"/?[0-9]{0,4}", parts.path):
        raise ConfigError(f"{name} has more in it than a database's number", hint=hint)
    return Secret(value)


def _owner(name: str, value: str) -> str:
    if not value.isprintable() or len(value) > MAX_OWNER:
        raise _refuse(name, value, f", not a name of at most {MAX_OWNER} printable characters")
    return value


def _header(name: str, value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise _refuse(name, value, "; use printable ASCII")
    return value


def _key(name: str, value: str) -> Secret:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(f"{name} holds blanks or characters that no key has")
    # A shorter one is in half of all texts: it could not be redacted.
    if len(value) < MIN_SECRET:
        raise ConfigError(
            f"{name} is shorter than {MIN_SECRET} characters, as no key is",
            hint="a Firebase Web API key has 39 characters and begins with AIza"
            if name == "ARTA_API_KEY"
            else "leave it out where the server asks for no key",
        )
    return Secret(value)


def _folder(name: str, value: str) -> Path:
    try:
        path = Path(value).expanduser()
    except RuntimeError as exc:
        raise _refuse(name, value, ", a home that is not there", limit=120) from exc
    if not path.is_absolute():
        hint = "hosts start servers in any folder; give an absolute path"
        raise _refuse(name, value, ", a relative path", hint, limit=120)
    return path


def _text(name: str, value: str) -> str:
    if not value.isprintable() or len(value) > MAX_MODEL:
        raise _refuse(name, value, f"; use at most {MAX_MODEL} printable characters")
    return value


def _list(pattern: str, kind: str, example: str) -> Parse:
    """Reads words between commas or blanks, each of which the pattern must fit whole."""

    def parse(name: str, value: str) -> tuple[str, ...]:
        words = tuple(value.replace(",", " ").lower().split())
        for word in words or (value,):
            if not re.fullmatch(pattern, word):
                raise _refuse(name, word, f", not {kind}", f"list them as in `{example}`")
        return words

    return parse


def _tokens(name: str, value: str) -> tuple[tuple[str, Secret], ...]:
    """Pairs of a caller's name and one of its tokens; nothing of them is quoted in an error."""
    pairs = [word.partition("=") for word in value.replace(",", " ").split()]
    hint = "list them as in `alice=<token>,bob=<token>`; `openssl rand -hex 24` makes a token"
    for number, (caller, _, token) in enumerate(pairs, 1):
        which = f"{name} has, as entry {number} of {len(pairs)},"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", caller) or not token:
            raise ConfigError(f"{which} what is not of the form name=token", hint=hint)
        if not re.fullmatch(rf"[\w.~+/=-]{{{MIN_TOKEN},512}}", token, re.ASCII):
            why = f"no token of {MIN_TOKEN}..512 characters of A-Z a-z 0-9 - . _ ~ + / ="
            raise ConfigError(f"{which} {why}", hint=hint)
    # one that two have tells nobody apart; one name may have two, while they are changed
    if len({token for _, _, token in pairs}) < len(pairs):
        raise ConfigError(f"{name} has the same token twice", hint=hint)
    if not pairs:
        raise ConfigError(f"{name} has no entry", hint=hint)
    return tuple((caller, Secret(token)) for caller, _, token in pairs)


_HOST = r"[a-z0-9._-]+|\[[0-9a-f:.]+\]"


def _model(name: str, value: str) -> str:
    if value.startswith("~"):
        return str(_folder(name, value))
    return _text(name, value)


def _sizes(name: str, value: str) -> tuple[tuple[int, int], ...]:
    parts = [part.strip() for part in value.split(",")]
    found = [re.fullmatch(r"([0-9]{2,4})[x\u00d7]([0-9]{2,4})", part) for part in parts]
    sizes = tuple((int(one[1]), int(one[2])) for one in found if one)
    if len(sizes) < len(parts) or any(side % 8 or side < MIN_SIDE for one in sizes for side in one):
        why = f", not sizes with sides that are multiples of 8, {MIN_SIDE} or more"
        raise _refuse(name, value, why, "use sizes such as 1024x1024,832x1216")
    return sizes


_LOG_LEVELS = {name.lower(): name for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}
_SWITCH = {"on": True, "off": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, each with its default as text and its row in `SETTINGS`."""

    backend: Literal["arta", "local"] = _choice(
        "auto",
        "`arta`: the remote service; `local`: the embedded one; `auto`: `arta` when a key is set"
        " and no engine of yours",
        {"auto": "auto", "arta": "arta", "local": "local"},
    )
    api_key: Secret | None = _setting(
        "", "Firebase Web API key of the service's project; yours to bring", _key, secret=True
    )
    base_url: str = _setting("https://img-gen-prod.ai-arta.com", "image host", _address)
    auth_url: str = _setting(
        "https://www.googleapis.com/identitytoolkit/v3/relyingparty/signupNewUser",
        "sign-up address",
        _address,
    )
    token_refresh_url: str = _setting(
        "https://securetoken.googleapis.com/v1/token", "refresh address", _address
    )
    styles_url: str | None = _setting(
        "https://contentcdnhub.com/cms/content/apps/AIArtaAndroid/release/8/default/styles.json",
        "live style list of the remote service; empty: never ask",
        _address,
        empty_means_none=True,
    )
    client_type: str = _setting("CLIENT_TYPE_ANDROID", "field of the sign-up body", _header)
    user_agent: str = _setting(f"arta-mcp/{__version__}", "sent on every request", _header)
    proxy: Secret | None = _setting(
        "",
        "http, https or socks5 address; the standard proxy variables work without it",
        _proxy,
        secret=True,  # it may hold a password
    )
    max_wait: float | None = _setting(
        "auto",
        "seconds one call waits before it answers `pending`; `auto`: 50, less where a host was"
        " seen to wait less",
        _word_or("auto", _number(0, 3600)),
    )
    job_timeout: float = _setting(
        "600", "seconds after which a job counts as lost", _number(1, 86400)
    )
    max_concurrency: int | None = _setting(
        "",
        "jobs in flight in one process, further calls queue; not set: 8, and 1000 of the embedded"
        " service, which has a queue of its own",
        _number(1, 10000, "whole number", _whole),
    )
    hourly_limit: int | None = _setting(
        "120",
        "pictures that hosts may ask for in an hour where a key is used (the remote service's, or"
        " `ARTA_LOCAL_KEY`); the command line is not limited; `off`: no limit",
        _word_or("off", _number(1, 10_000, "whole number", _whole)),
    )
    min_poll_interval: float = _setting(
        "0.5", "least seconds between two looks at a job", _number(0.01, 60)
    )
    output_dir: Path | None = _setting(
        "",
        "finished pictures are also saved in this folder; not set: those of an engine of yours in"
        " `arta-mcp` in your folder of pictures",
        _folder,
    )
    state_dir: Path | None = _setting(
        "", "tokens and generations; the platform's state folder when not set", _folder
    )
    state_url: Secret | None = _setting(
        "",
        "a Redis or Valkey that several machines share in place of that folder:"
        " `redis://user:password@host:port/0`, `rediss://` for TLS; it needs `arta-mcp[redis]` and"
        " an append-only file",
        _state_url,
        secret=True,  # it may hold a password
    )
    owner: str | None = _setting(
        "", "whose generations these are in a shared state; `user@host` when not set", _owner
    )
    sketch_limit: int = _setting(
        "2GiB",
        "sketches of the embedded service are kept up to this size (`500MB`) and 1000 jobs; the"
        " oldest go first",
        _size,
    )
    local_engine: Literal["sketch", "openai", "sdapi", "diffusers"] = _choice(
        "sketch",
        "what draws for the embedded service: `sketch`, no AI; `openai`, `sdapi`: a server of yours"
        " that speaks that API; `diffusers`: a model on this machine (docs/local.md)",
        {name: name for name in ("sketch", "openai", "sdapi", "diffusers")},
    )
    local_url: str | None = _setting(
        "", "address of that server; `openai` without one: OpenAI itself", _server
    )
    local_key: Secret | None = _setting(
        "", "key for that server, where it asks for one", _key, secret=True
    )
    local_model: str | None = _setting(
        "",
        "model that draws; not set: the one that a server has loaded; for `diffusers` the absolute"
        " path of a folder, or a name at the hub",
        _model,
    )
    local_dialect: str = _choice(
        "auto",
        "fields that a server of `openai` takes beyond OpenAI's own; `auto`: as its list of models"
        " tells, else none",
        {name: name for name in ("auto", *DIALECTS)},
    )
    local_styles: Path | None = _setting(
        "",
        "file of styles, each with `name`, `prompt` and `negative_prompt`, that go before ours",
        _folder,
    )
    local_sizes: tuple[tuple[int, int], ...] | None = _setting(
        "",
        "the only sizes that the model draws: `1024x1024,832x1216`; not set: what fits the ratio",
        _sizes,
    )
    local_device: str = _choice(
        "auto",
        "`diffusers`: what computes; `auto`: a graphics card where torch finds one",
        {name: name for name in ("auto", "cuda", "xpu", "mps", "cpu")},
    )
    local_dtype: str = _choice(
        "auto",
        "`diffusers`: how numbers are kept; `auto`: in 16 bits, on a CPU in 32",
        {name: name for name in ("auto", "bfloat16", "float16", "float32")},
    )
    local_offload: str = _choice(
        "auto",
        "`diffusers`: what stays in the computer's memory until a graphics card needs it: `model`,"
        " whole parts; `sequential`, layers, slow; `auto`: `model` where the weights do not fit",
        {name: name for name in ("auto", "off", "model", "sequential")},
    )
    local_download: bool = _choice(
        "off",
        "`on`: a model that `diffusers` does not find on this machine is fetched from the hub",
        _SWITCH,
    )
    local_steps: int | None = _setting(
        "",
        "`diffusers`: steps where a call names none, such as 4 for a turbo model; not set: the"
        " pipeline's",
        _number(1, 200, "whole number", _whole),
    )
    local_guidance: float | None = _setting(
        "",
        "`diffusers`: guidance where a call names none, such as 0 for a turbo model; not set: the"
        " pipeline's",
        _number(0, 30, "number"),
    )
    local_idle: float = _setting(
        "600",
        "`diffusers`: seconds without a picture after which the model leaves the memory",
        _number(0, 86400),
    )
    local_http: bool = _choice(
        "off",
        "`on`: that server may be asked by plain http in a private network; prompts and key are"
        " then readable on the way",
        _SWITCH,
    )
    preview: Literal["auto", "on", "off"] = _choice(
        "auto",
        "small pictures (512 px, 150 kB at most) in results; `auto`: one for hosts known to show it"
        " to the person (docs/clients.md), `on`: each for every host, `off`: none",
        {"auto": "auto", "on": "on", "off": "off"},
    )
    resource_links: bool = _choice(
        "off", "`on`: results also hold resource links, for clients of 2025-06-18 or later", _SWITCH
    )
    http_host: str = _setting(
        "127.0.0.1",
        "`serve --http`: address to listen at; beyond this machine it needs tokens or an issuer,"
        " and allowed hosts (docs/team.md)",
        _header,
    )
    http_port: int = _setting(
        "8000", "port to listen at; 0: a free one", _number(0, 65535, "port", _whole)
    )
    http_tokens: tuple[tuple[str, Secret], ...] | None = _setting(
        "",
        "who may call, as `name=token` with commas between; a name is one person, who may have two"
        " tokens while they are changed",
        _tokens,
        secret=True,
    )
    http_allowed_hosts: tuple[str, ...] | None = _setting(
        "",
        "names that callers ask for, as `mcp.example.com` or `mcp:8000`; that of the public address"
        " is one",
        _list(rf"(?:{_HOST})(?::[0-9]{{1,5}})?", "the name of a host", "mcp.example.com,mcp:8000"),
    )
    http_allowed_origins: tuple[str, ...] | None = _setting(
        "",
        "web pages that may call, as `https://app.example.com`; not set: none",
        _list(
            rf"https?://(?:{_HOST})(?::[0-9]{{1,5}})?",
            "the origin of a web page",
            "https://app.example.com",
        ),
    )
    http_public_url: str | None = _setting(
        "", "address under which callers reach the server, without `/mcp`", _server
    )
    http_issuer: str | None = _setting(
        "", "OpenID Connect issuer whose access tokens are taken, an https address", _address
    )
    http_audience: str | None = _setting(
        "",
        "`aud` that such a token must have; not set: the public address, or that with `/mcp`",
        _text,
    )
    http_scope: str | None = _setting(
        "arta:draw", "scope that such a token must have; empty: any", _text, empty_means_none=True
    )
    http_caller_concurrency: int = _setting(
        "20",
        "jobs that one caller with a token may have in flight in one process",
        _number(1, MAX_HTTP_SLOTS, "whole number", _whole),
    )
    http_caller_rate: int | None = _setting(
        "",
        "generations that one caller with a token may order in an hour; not set: any number",
        _number(1, 10_000, "whole number", _whole),
    )
    log_level: str = _setting("WARNING", "how much goes to stderr", _one_of(_LOG_LEVELS))
    quick_replies: bool = _choice(
        "on",
        "`on`: a host's first questions are answered while the MCP SDK loads; `off`: after that",
        _SWITCH,
        old_name="ARTA_FRONT_DESK",
    )
    unknown: tuple[str, ...] = ()
    """names of `ARTA_*` variables that mean nothing here"""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Raises ConfigError naming every variable that cannot be used."""
        values: dict[str, object] = {}
        problems: dict[str, ConfigError] = {}
        for setting in SETTINGS:
            try:
                values[setting.field] = setting.read(environ)
            except ConfigError as exc:
                problems[setting.name] = exc
        if values.get("backend") == "arta" and values.get("api_key", "wrong") is None:
            problems["ARTA_BACKEND"] = ConfigError(
                "ARTA_BACKEND is 'arta' but ARTA_API_KEY is not set",
                hint="set ARTA_API_KEY, or ARTA_BACKEND=local to draw without an account",
            )
        if not problems:
            try:
                values |= _complete_engine(values, environ)
            except ConfigError as exc:
                problems["ARTA_LOCAL_URL"] = exc
        if problems:
            raise _join(problems)
        if values["backend"] == "auto":
            is_remote = values["api_key"] and values["local_engine"] == "sketch"
            values["backend"] = "arta" if is_remote else "local"
        # Not refused: a newer version's variable must not keep an older one from starting.
        known = {name for setting in SETTINGS for name in (setting.name, setting.old_name)}
        strange = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
        return cls(**values, unknown=tuple(strange))  # pyright: ignore[reportArgumentType]  # types are the parsers'

    @property
    def drawn_by(self) -> DrawnBy:
        """Which of the recorded sets of quick replies is what the server will say, too."""
        if self.backend == "arta":
            return "remote"
        return "engine" if self.draws_with_ai else "sketch"

    @property
    def draws_with_ai(self) -> bool:
        """Whether the embedded service draws with an engine of the person's own."""
        return self.backend == "local" and self.local_engine != "sketch"

    @property
    def has_key(self) -> bool:
        """Whether what draws is asked with a key of the person's: it may cost money or goodwill."""
        return self.backend == "arta" or (self.draws_with_ai and self.local_key is not None)

    @property
    def may_cost(self) -> bool:
        """Whether a picture of the engine may be billed: a key goes to a server outside."""
        host = urlsplit(self.local_url or "").hostname or ""
        return self.draws_with_ai and self.local_key is not None and _is_surely_outside(host)

    @property
    def travels_in_the_clear(self) -> bool:
        """Whether others in the network can read what the engine's server is asked."""
        parts = urlsplit(self.local_url or "")
        is_plain = parts.scheme == "http" and not is_loopback(parts.hostname or "")
        return self.draws_with_ai and is_plain

    @property
    def unused(self) -> str | None:
        """What is set and yet not used, because another setting goes before it; for people."""
        if self.local_engine == "sketch":
            given = {"URL": self.local_url, "MODEL": self.local_model, "KEY": self.local_key}
            names = ", ".join(f"ARTA_LOCAL_{name}" for name, value in given.items() if value)
            return f"not used: {names}, as ARTA_LOCAL_ENGINE is 'sketch'" if names else None
        if self.backend == "arta":
            return f"ARTA_LOCAL_ENGINE={self.local_engine} is not used: ARTA_BACKEND is arta"
        used = f"ARTA_LOCAL_ENGINE={self.local_engine} draws"
        return f"ARTA_API_KEY is not used: {used}" if self.api_key else None

    @property
    def service(self) -> str:
        """Which service a generation belongs to, for the journal: its host, or `local`."""
        return "local" if self.backend == "local" else urlsplit(self.base_url).netloc

    @property
    def slots(self) -> int:
        """Jobs in flight in one process; what is on this machine bounds by itself what it draws."""
        return self.max_concurrency or (1000 if self.backend == "local" else 8)

    @property
    def account_name(self) -> str:
        """Which account tokens belong to: other addresses or another key, another account."""
        if self.backend == "local" or self.api_key is None:
            return "local"
        # Not at the top: it loads OpenSSL, which the first answer does not need.
        import hashlib

        # Tokens that another address or key gave must never be sent here: everything that decides
        # whose they are is in the digest. The host before it is for people who read the folder.
        parts = (self.base_url, self.auth_url, self.token_refresh_url, self.api_key.reveal())
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        host = urlsplit(self.base_url).hostname or "arta"
        return f"{''.join(c if c.isalnum() or c in '.-' else '_' for c in host)}-{digest}"


def _complete_engine(values: Mapping[str, object], environ: Mapping[str, str]) -> dict[str, object]:
    """Address and key of the engine's server; raises ConfigError where they do not go together."""
    engine, url, key = values["local_engine"], values["local_url"], values["local_key"]
    if engine == "sketch":
        return {}
    if engine == "diffusers":
        _check_model(values["local_model"])
        return {}
    if engine == "openai" and url is None:
        if key is None and (given := environ.get(OPENAI_KEY, "").strip()):
            key = _key(OPENAI_KEY, given)
        if key is None:
            raise ConfigError(
                "ARTA_LOCAL_ENGINE is 'openai' and neither ARTA_LOCAL_URL nor a key is set",
                hint="set ARTA_LOCAL_URL to a server of your own, or ARTA_LOCAL_KEY (or"
                f" {OPENAI_KEY}) to draw at OpenAI itself",
            )
        return {"local_url": OPENAI_URL, "local_key": key}
    if not isinstance(url, str):
        raise ConfigError(
            f"ARTA_LOCAL_ENGINE is {engine!r} but ARTA_LOCAL_URL is not set",
            hint="set ARTA_LOCAL_URL to the server's address, such as http://127.0.0.1:7860",
        )
    parts = urlsplit(url)
    if parts.scheme == "http" and not is_loopback(host := parts.hostname or ""):
        hint = "use https://"
        if not _is_surely_outside(host):
            if values["local_http"]:
                return {}
            hint += ", or set ARTA_LOCAL_HTTP=on for a machine in your own network"
        why = "; plain http is for this machine only"
        raise _refuse("ARTA_LOCAL_URL", url, why, hint, limit=120)
    return {}


def _check_model(model: object) -> None:
    hint = "set ARTA_LOCAL_MODEL to the absolute path of a folder with a model_index.json, or to a"
    hint += " name at the hub such as stabilityai/sd-turbo"
    if not isinstance(model, str):
        why = "ARTA_LOCAL_ENGINE is 'diffusers' but ARTA_LOCAL_MODEL is not set"
        raise ConfigError(why, hint=hint)
    # Nothing else reaches diffusers, which looks for a folder of that name wherever we are started.
    if not Path(model).is_absolute() and not HUB_NAME.fullmatch(model):
        why = ", neither an absolute path nor a name at the hub"
        raise _refuse("ARTA_LOCAL_MODEL", model, why, hint)


def _is_surely_outside(host: str) -> bool:
    try:
        return is_public(host)
    except ValueError:  # a name
        return "." in host and not host.endswith(NEAR)


SETTINGS = tuple(
    Setting(PREFIX + row.name.upper(), **row.metadata) for row in fields(Settings) if row.metadata
)
"""in the order of the README's table"""
