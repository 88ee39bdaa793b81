"""Settings: one frozen value, read from a given environment.

Light on imports on purpose: settings are read before a host gets its first answer.
No I/O happens here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from arta_mcp import __version__
from arta_mcp.arta.url_guard import is_loopback
from arta_mcp.errors import ConfigError
from arta_mcp.redaction import MIN_SECRET, Secret, sanitize

Backend = Literal["arta", "local"]
PREFIX = "ARTA_"


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable: its row in the README, in server.json and in `doctor`."""

    name: str
    default: str
    description: str
    parse: Callable[[str, str], object]
    secret: bool = False
    choices: tuple[str, ...] = ()
    empty_means_none: bool = False
    """an empty value turns it off, where for others it is the same as not set"""


def _is_plain(value: str) -> bool:
    return value.isprintable() and " " not in value


def _choice(*choices: str) -> Callable[[str, str], str]:
    def parse(name: str, value: str) -> str:
        if (found := value.strip().lower()) not in choices:
            raise ConfigError(
                f"{name} is {sanitize(repr(value), 80)}", hint=f"use one of {', '.join(choices)}"
            )
        return found

    return parse


def _switch(name: str, value: str) -> bool:
    return _choice("on", "off")(name, value) == "on"


def _log_level(name: str, value: str) -> str:
    return _choice("debug", "info", "warning", "error", "critical")(name, value).upper()


def _seconds(low: float, high: float) -> Callable[[str, str], float]:
    def parse(name: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise ConfigError(
                f"{name} is {sanitize(repr(value), 80)},"
                f" not a number of seconds in {low:g}..{high:g}",
                hint=f"set {name} to a number, or leave it out",
            )
        return number

    return parse


def _count(low: int, high: int) -> Callable[[str, str], int]:
    def parse(name: str, value: str) -> int:
        digits = value.isascii() and value.isdigit() and len(value) < 10
        if not digits or not low <= int(value) <= high:
            raise ConfigError(
                f"{name} is {sanitize(repr(value), 80)}, not a whole number in {low}..{high}",
                hint=f"set {name} to a number, or leave it out",
            )
        return int(value)

    return parse


def _address(name: str, value: str) -> str:
    try:
        parts = urlsplit(value)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if "@" in value:  # before any message quotes it
        raise ConfigError(f"{name} holds a user name or password", hint="leave them out")
    if parts.scheme not in ("http", "https") or not host or not _is_plain(value):
        raise ConfigError(f"{name} is {sanitize(repr(value), 120)}, not an https address")
    if "?" in value or "#" in value:
        raise ConfigError(
            f"{name} is {sanitize(repr(value), 120)}; leave out what follows the path"
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigError(
            f"{name} is {sanitize(repr(value), 120)}; plain http is for this machine only",
            hint="use https://",
        )
    return value.rstrip("/")


def _proxy(name: str, value: str) -> Secret:
    try:
        parts = urlsplit(value)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    schemes = ("http", "https", "socks5", "socks5h")
    if parts.scheme not in schemes or not host or not _is_plain(value):
        raise ConfigError(f"{name} is no http, https or socks5 address")
    return Secret(value)


def _header(name: str, value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise ConfigError(f"{name} is {sanitize(repr(value), 80)}; use printable ASCII")
    return value


def _key(name: str, value: str) -> Secret:
    if not value.isascii() or not _is_plain(value):
        raise ConfigError(f"{name} holds blanks or characters that no key has")
    if len(value) < MIN_SECRET:  # it could not be redacted
        raise ConfigError(
            f"{name} is shorter than {MIN_SECRET} characters, as no key is",
            hint="a Firebase Web API key has 39 characters and begins with AIza",
        )
    return Secret(value)


def _folder(name: str, value: str) -> Path:
    try:
        path = Path(value).expanduser()
    except RuntimeError as exc:
        raise ConfigError(
            f"{name} is {sanitize(repr(value), 120)}, a home that is not there"
        ) from exc
    if not path.is_absolute():
        raise ConfigError(
            f"{name} is {sanitize(repr(value), 120)}, a relative path",
            hint="hosts start servers in any folder; give an absolute path",
        )
    return path


SETTINGS = (
    Setting(
        "ARTA_BACKEND",
        "auto",
        "`arta`: the remote service; `local`: the embedded one; `auto`: `arta` when a key is set",
        _choice("auto", "arta", "local"),
        choices=("auto", "arta", "local"),
    ),
    Setting(
        "ARTA_API_KEY",
        "",
        "Firebase Web API key of the service's project; yours to bring",
        _key,
        secret=True,
    ),
    Setting("ARTA_BASE_URL", "https://img-gen-prod.ai-arta.com", "image host", _address),
    Setting(
        "ARTA_AUTH_URL",
        "https://www.googleapis.com/identitytoolkit/v3/relyingparty/signupNewUser",
        "sign-up address",
        _address,
    ),
    Setting(
        "ARTA_TOKEN_REFRESH_URL",
        "https://securetoken.googleapis.com/v1/token",
        "refresh address",
        _address,
    ),
    Setting(
        "ARTA_STYLES_URL",
        "https://contentcdnhub.com/cms/content/apps/AIArtaAndroid/release/8/default/styles.json",
        "live style list of the remote service; empty: never ask",
        _address,
        empty_means_none=True,
    ),
    Setting("ARTA_CLIENT_TYPE", "CLIENT_TYPE_ANDROID", "field of the sign-up body", _header),
    Setting("ARTA_USER_AGENT", f"arta-mcp/{__version__}", "sent on every request", _header),
    Setting(
        "ARTA_PROXY",
        "",
        "http, https or socks5 address; the standard proxy variables work without it",
        _proxy,
        secret=True,  # it may hold a password
    ),
    Setting(
        "ARTA_MAX_WAIT",
        "50",
        "seconds one call waits before it answers `pending`",
        _seconds(0, 3600),
    ),
    Setting(
        "ARTA_JOB_TIMEOUT",
        "600",
        "seconds after which a job counts as lost",
        _seconds(1, 86400),
    ),
    Setting(
        "ARTA_MAX_CONCURRENCY",
        "8",
        "jobs in flight in one process; further calls queue",
        _count(1, 10000),
    ),
    Setting(
        "ARTA_MIN_POLL_INTERVAL",
        "0.5",
        "least seconds between two looks at a job",
        _seconds(0.01, 60),
    ),
    Setting("ARTA_OUTPUT_DIR", "", "finished pictures are also saved in this folder", _folder),
    Setting(
        "ARTA_STATE_DIR",
        "",
        "tokens and generations; the platform's state folder when not set",
        _folder,
    ),
    Setting(
        "ARTA_PREVIEW",
        "off",
        "`on`: results also hold small pictures (512 px, 150 kB at most)",
        _switch,
        choices=("on", "off"),
    ),
    Setting(
        "ARTA_RESOURCE_LINKS",
        "off",
        "`on`: results also hold resource links, for clients of 2025-06-18 or later",
        _switch,
        choices=("on", "off"),
    ),
    Setting("ARTA_LOG_LEVEL", "WARNING", "how much goes to stderr", _log_level),
    Setting(
        "ARTA_FRONT_DESK",
        "on",
        "`on`: a host's first questions are answered while the MCP SDK loads; `off`: after that",
        _choice("on", "off"),
        choices=("on", "off"),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set; see `SETTINGS` for what each means."""

    backend: Backend
    api_key: Secret | None
    base_url: str
    auth_url: str
    token_refresh_url: str
    styles_url: str | None
    client_type: str
    user_agent: str
    proxy: Secret | None
    max_wait: float
    job_timeout: float
    max_concurrency: int
    min_poll_interval: float
    output_dir: Path | None
    state_dir: Path | None
    preview: bool
    resource_links: bool
    log_level: str
    front_desk: Literal["on", "off"]
    unknown: tuple[str, ...] = ()
    """names of `ARTA_*` variables that mean nothing here"""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Raises ConfigError naming the first variable that cannot be used."""
        values = {_field(setting): _read(setting, environ) for setting in SETTINGS}
        if values["backend"] == "arta" and values["api_key"] is None:
            raise ConfigError(
                "ARTA_BACKEND is 'arta' but ARTA_API_KEY is not set",
                hint="set ARTA_API_KEY, or ARTA_BACKEND=local to draw without an account",
            )
        if values["backend"] == "auto":
            values["backend"] = "arta" if values["api_key"] else "local"
        known = {setting.name for setting in SETTINGS}
        strange = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
        return cls(**values, unknown=tuple(strange))  # pyright: ignore[reportArgumentType]  # types are the parsers'

    @property
    def service(self) -> str:
        """Which service a generation belongs to, for the journal: its host, or `local`."""
        return "local" if self.backend == "local" else urlsplit(self.base_url).netloc

    @property
    def account_name(self) -> str:
        """Which account tokens belong to: other addresses or another key, another account."""
        if self.backend == "local" or self.api_key is None:
            return "local"
        import hashlib  # loads OpenSSL, which the first answer does not need

        parts = (self.base_url, self.auth_url, self.token_refresh_url, self.api_key.reveal())
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        host = urlsplit(self.base_url).hostname or "arta"
        return f"{''.join(c if c.isalnum() or c in '.-' else '_' for c in host)}-{digest}"


def _field(setting: Setting) -> str:
    return setting.name.removeprefix(PREFIX).lower()


def _read(setting: Setting, environ: Mapping[str, str]) -> object:
    value = environ.get(setting.name, "")
    if "${" in value:
        raise ConfigError(
            f"{setting.name} is the literal {sanitize(value, 80)}, which the host did not fill in",
            hint=f"give {setting.name} a value in the host's configuration, or remove it",
        )
    if setting.empty_means_none and setting.name in environ and not value.strip():
        return None
    value = value.strip() or setting.default
    return setting.parse(setting.name, value) if value else None
