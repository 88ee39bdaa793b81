from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arta_mcp import __version__, config
from arta_mcp.config import SETTINGS, Settings, without_settings
from arta_mcp.errors import ConfigError
from arta_mcp.matching import suggest
from arta_mcp.redaction import Secret

KEY = "sentinel-key-0123456789"
BY_NAME = {setting.name: setting for setting in SETTINGS}
ADDRESSES = ("ARTA_BASE_URL", "ARTA_AUTH_URL", "ARTA_TOKEN_REFRESH_URL", "ARTA_STYLES_URL")
GOOD: dict[str, tuple[str, object]] = {
    "ARTA_BACKEND": (" LOCAL ", "local"),
    "ARTA_API_KEY": (KEY, Secret(KEY)),
    "ARTA_BASE_URL": ("https://a.example:8443/b/", "https://a.example:8443/b"),
    "ARTA_AUTH_URL": ("https://a.example/sign-up", "https://a.example/sign-up"),
    "ARTA_TOKEN_REFRESH_URL": ("http://127.0.0.1:9099/token", "http://127.0.0.1:9099/token"),
    "ARTA_STYLES_URL": ("https://a.example/styles.json", "https://a.example/styles.json"),
    "ARTA_CLIENT_TYPE": ("CLIENT_TYPE_WEB", "CLIENT_TYPE_WEB"),
    "ARTA_USER_AGENT": ("mine/1.0 (me)", "mine/1.0 (me)"),
    "ARTA_PROXY": (
        "socks5://u:sentinel-pw@p.example:1",
        Secret("socks5://u:sentinel-pw@p.example:1"),
    ),
    "ARTA_MAX_WAIT": ("0", 0.0),
    "ARTA_JOB_TIMEOUT": ("1.5", 1.5),
    "ARTA_MAX_CONCURRENCY": ("0012", 12),
    "ARTA_SKETCH_LIMIT": ("500 MB", 500_000_000),
    "ARTA_HOURLY_LIMIT": ("OFF", None),
    "ARTA_MIN_POLL_INTERVAL": ("1e-2", 0.01),
    "ARTA_OUTPUT_DIR": ("/tmp/pictures", Path("/tmp/pictures")),
    "ARTA_STATE_DIR": ("~/state", Path("~/state").expanduser()),
    "ARTA_STATE_URL": (
        "rediss://me:sentinel-pw@db.example:6380/2",
        Secret("rediss://me:sentinel-pw@db.example:6380/2"),
    ),
    "ARTA_OWNER": (" Ada Lovelace ", "Ada Lovelace"),
    "ARTA_LOCAL_ENGINE": ("SdApi", "sdapi"),
    "ARTA_LOCAL_URL": ("http://127.0.0.1:7860/", "http://127.0.0.1:7860"),
    "ARTA_LOCAL_KEY": (KEY, Secret(KEY)),
    "ARTA_LOCAL_MODEL": ("black-forest-labs/FLUX.2-klein", "black-forest-labs/FLUX.2-klein"),
    "ARTA_LOCAL_DIALECT": ("vllm-omni", "vllm-omni"),
    "ARTA_LOCAL_STYLES": ("/tmp/styles.json", Path("/tmp/styles.json")),
    "ARTA_LOCAL_SIZES": ("1024x1024, 832x1216", ((1024, 1024), (832, 1216))),
    "ARTA_LOCAL_DEVICE": ("CUDA", "cuda"),
    "ARTA_LOCAL_DTYPE": ("float16", "float16"),
    "ARTA_LOCAL_OFFLOAD": ("sequential", "sequential"),
    "ARTA_LOCAL_DOWNLOAD": ("on", True),
    "ARTA_LOCAL_STEPS": ("4", 4),
    "ARTA_LOCAL_GUIDANCE": ("0", 0.0),
    "ARTA_LOCAL_IDLE": ("0", 0.0),
    "ARTA_LOCAL_HTTP": ("on", True),
    "ARTA_PREVIEW": ("On", "on"),
    "ARTA_RESOURCE_LINKS": ("on", True),
    "ARTA_HTTP_HOST": ("::1", "::1"),
    "ARTA_HTTP_PORT": ("0", 0),
    "ARTA_HTTP_TOKENS": (
        f"alice={KEY}, alice={KEY}2\nbob@work={KEY}3",
        (("alice", Secret(KEY)), ("alice", Secret(f"{KEY}2")), ("bob@work", Secret(f"{KEY}3"))),
    ),
    "ARTA_HTTP_ALLOWED_HOSTS": (
        "MCP.example.com, mcp:8000 [::1]",
        ("mcp.example.com", "mcp:8000", "[::1]"),
    ),
    "ARTA_HTTP_ALLOWED_ORIGINS": (
        "https://a.example,http://localhost:5173",
        ("https://a.example", "http://localhost:5173"),
    ),
    "ARTA_HTTP_PUBLIC_URL": ("https://mcp.example.com/", "https://mcp.example.com"),
    "ARTA_HTTP_ISSUER": ("https://id.example.com/realms/a/", "https://id.example.com/realms/a"),
    "ARTA_HTTP_AUDIENCE": ("api://arta", "api://arta"),
    "ARTA_HTTP_SCOPE": ("api://arta/mcp.access", "api://arta/mcp.access"),
    "ARTA_HTTP_CALLER_CONCURRENCY": ("5", 5),
    "ARTA_HTTP_CALLER_RATE": ("60", 60),
    "ARTA_LOG_LEVEL": ("debug", "DEBUG"),
    "ARTA_QUICK_REPLIES": ("off", False),
}
"""a value that each setting takes, and what it is read as"""

BAD_ADDRESSES = (
    "http://example.org",
    "http://10.0.0.1",
    "http://localhost.example",
    "example.org",
    "ftp://example.org",
    "https://",
    "https:///path",
    "https://[::1",
    "https://a.example:port",
    "https://a.example:99999",
    "https://a example",
    "https://a.example/\npath",
    "https://a.example/?",
    "https://a.example/?key=x",
    "https://a.example/#top",
)

BAD: dict[str, tuple[str, ...]] = {
    "ARTA_BACKEND": ("remote", "arta,local"),
    "ARTA_API_KEY": ("two words", "schlüssel", "line\nline", "abc12"),
    "ARTA_CLIENT_TYPE": ("ANDROÏD", "a\nb"),
    "ARTA_USER_AGENT": ("ärta/1", "a\r\nx-injected: 1"),
    "ARTA_PROXY": ("p.example:1080", "ftp://p.example", "http://", "http://[::1", "http://a:b"),
    "ARTA_MAX_WAIT": ("abc", "-1", "3601", "nan", "inf", "1e999"),
    "ARTA_JOB_TIMEOUT": ("0", "86401"),
    "ARTA_SKETCH_LIMIT": ("0GB", "2", "-1GB", "1.5GB", "2PB", "GB", "9999999GB", "٣GB"),
    "ARTA_MAX_CONCURRENCY": ("0", "10001", "1.5", "-1", "²", "٣", "0000100009999", "9" * 5000),
    "ARTA_HOURLY_LIMIT": ("0", "1.5", "-1", "none"),
    "ARTA_MIN_POLL_INTERVAL": ("0", "61"),
    "ARTA_OUTPUT_DIR": ("pictures", "./x", "~nobody-has-this-name/x"),
    "ARTA_STATE_DIR": ("state",),
    "ARTA_STATE_URL": (
        *("db.example", "db.example:6379", "http://db.example", "redis://", "redis:///0"),
        *("redis://db.example:port", "redis://db.example:99999", "redis://[::1", "redis://a b"),
        *("redis://db.example/name", "redis://db.example/0/1", "redis://db.example?db=1"),
        *("redis://db.example/0#x", "unix:///run/redis.sock"),
    ),
    "ARTA_OWNER": ("a\nb", "x" * 201),
    "ARTA_LOCAL_ENGINE": ("comfy", "diffusers2"),
    "ARTA_LOCAL_URL": tuple(one for one in BAD_ADDRESSES if "http://" not in one),
    "ARTA_LOCAL_KEY": ("two words", "abc12"),
    "ARTA_LOCAL_MODEL": ("a\nb", "x" * 201),
    "ARTA_LOCAL_DIALECT": ("vllm",),
    "ARTA_LOCAL_STYLES": ("styles.json",),
    "ARTA_LOCAL_SIZES": ("1024", "1024x", "1020x1024", "8x8", "1024x1024;512x512", "a" * 99),
    "ARTA_LOCAL_DEVICE": ("gpu",),
    "ARTA_LOCAL_DTYPE": ("fp8",),
    "ARTA_LOCAL_OFFLOAD": ("on",),
    "ARTA_LOCAL_DOWNLOAD": ("yes",),
    "ARTA_LOCAL_STEPS": ("0", "201", "4.5"),
    "ARTA_LOCAL_GUIDANCE": ("-1", "31", "nan"),
    "ARTA_LOCAL_IDLE": ("-1", "never"),
    "ARTA_LOCAL_HTTP": ("1",),
    "ARTA_PREVIEW": ("yes",),
    "ARTA_RESOURCE_LINKS": ("1",),
    "ARTA_HTTP_HOST": ("höst", "a\nb"),
    "ARTA_HTTP_PORT": ("65536", "-1", "http", "1.5"),
    "ARTA_HTTP_TOKENS": (
        *(
            KEY,
            "alice=",
            f"={KEY}",
            f"al/ice={KEY}",
            f"{'a' * 65}={KEY}",
            "alice=short-token-15x"[:21],
        ),
        *(
            f"alice={KEY}ä",
            f"alice={KEY},bob={KEY}",
            f"alice={KEY};bob={KEY}",
            ",",
            "a=" + "x" * 513,
        ),
    ),
    "ARTA_HTTP_ALLOWED_HOSTS": ("*", "https://a.example", "a.example/b", "a.example:x", ",", "::1"),
    "ARTA_HTTP_ALLOWED_ORIGINS": (
        "*",
        "a.example",
        "https://a.example/",
        "null",
        "https://*.b.example",
    ),
    "ARTA_HTTP_PUBLIC_URL": tuple(one for one in BAD_ADDRESSES if "http://" not in one),
    "ARTA_HTTP_ISSUER": BAD_ADDRESSES,
    "ARTA_HTTP_AUDIENCE": ("a\nb", "x" * 201),
    "ARTA_HTTP_SCOPE": ("a\nb", "x" * 201),
    "ARTA_HTTP_CALLER_CONCURRENCY": ("0", "401"),
    "ARTA_HTTP_CALLER_RATE": ("0", "100001", "ten"),
    "ARTA_LOG_LEVEL": ("loud",),
    "ARTA_QUICK_REPLIES": ("maybe",),
    **dict.fromkeys(ADDRESSES, BAD_ADDRESSES),
}
LITERALS = (
    *("${ARTA_API_KEY}", "${user_config.api_key}", "x${y}", "{{ARTA_API_KEY}}", "{{ user.key }}"),
    *("$ARTA_API_KEY", "$env:ARTA_API_KEY", "%ARTA_API_KEY%", "<your-key>", "<YOUR KEY HERE>"),
    *("undefined", "null", "None", "[object Object]", "your-api-key", "YOUR_API_KEY"),
)
QUOTED = ('"{}"', "'{}'", "`{}`", "“{}”", "\u2018{}\u2019", " '{}' ")


def read(name: str, value: str) -> object:
    server = {"ARTA_LOCAL_URL": "http://127.0.0.1:1"}  # for the engines that are one
    if value == "diffusers":
        server = {"ARTA_LOCAL_MODEL": "a-model"}
    key = {} if name == "ARTA_API_KEY" else {"ARTA_API_KEY": KEY}
    environ = {**server, **key, name: value}
    return getattr(Settings.from_env(environ), BY_NAME[name].field)


def refused(environ: Mapping[str, str]) -> ConfigError:
    try:
        Settings.from_env(environ)
    except ConfigError as exc:
        return exc
    pytest.fail(f"{environ} was taken")


# Rows


def test_every_setting_has_a_good_and_a_bad_example_here() -> None:
    assert sorted(GOOD) == sorted(BAD) == sorted(BY_NAME)


def test_nothing_set_is_a_local_service_with_the_documented_defaults() -> None:
    settings = Settings.from_env({})
    assert (settings.backend, settings.api_key, settings.proxy) == ("local", None, None)
    assert settings.base_url == "https://img-gen-prod.ai-arta.com"
    assert settings.user_agent == f"arta-mcp/{__version__}"
    assert settings.styles_url is not None
    assert (settings.max_wait, settings.job_timeout, settings.max_concurrency) == (
        None,
        600.0,
        None,
    )
    assert (settings.min_poll_interval, settings.log_level) == (0.5, "WARNING")
    assert (settings.output_dir, settings.state_dir, settings.unknown) == (None, None, ())


@pytest.mark.parametrize("name", BY_NAME)
def test_a_good_value_is_read(name: str) -> None:
    value, expected = GOOD[name]
    assert read(name, value) == expected


def test_a_value_of_blanks_is_the_same_as_none() -> None:
    unset = Settings.from_env({"ARTA_API_KEY": KEY, "ARTA_LOCAL_URL": "http://127.0.0.1:1"})
    for name, setting in BY_NAME.items():
        is_none = setting.empty_means_none or name == "ARTA_LOCAL_URL"
        expected = None if is_none else getattr(unset, setting.field)
        assert read(name, " \t") == (None if name == "ARTA_API_KEY" else expected), name
    assert [setting.name for setting in SETTINGS if setting.empty_means_none] == [
        "ARTA_STYLES_URL",
        "ARTA_HTTP_SCOPE",
    ]


@pytest.mark.parametrize("name", BY_NAME)
def test_a_bad_value_is_refused_in_a_line_that_names_the_variable(name: str) -> None:
    for value in BAD[name]:
        message = refused({"ARTA_API_KEY": KEY, name: value}).message
        assert message.startswith(name)
        assert message.isprintable()
        assert len(message) < 300


@pytest.mark.parametrize("name", BY_NAME)
def test_a_placeholder_that_a_host_left_is_refused_and_says_so(name: str) -> None:
    for value in LITERALS:
        error = refused({name: value})
        found = f"is the literal {value}"
        if BY_NAME[name].secret:
            found = "holds a placeholder"
        assert error.message == f"{name} {found}, which the host did not fill in"
        assert name in error.hint


@pytest.mark.parametrize("name", BY_NAME)
def test_a_value_in_quotes_is_refused_without_showing_it(name: str) -> None:
    for quotes in QUOTED:
        error = refused({name: quotes.format(GOOD[name][0].strip())})
        assert error.message == f"{name} stands in quotes, which are taken as a part of it"
        assert "quotes" in error.hint


SECRET_PARTS = {
    "ARTA_API_KEY": ("{}${{X}}", "${{X}}{}", "'{}'", '"{}"', "{} {}", "{}ä", "{}\n", "{}\x00"),
    "ARTA_PROXY": (
        *("http://me:{}@${{HOST}}", "http://me:{}@[::1", "'http://me:{}@p.example'", "me:{}@p:1"),
        *("{}", "http://{}@", "ftp://me:{}@p.example", "http://me:{}@p.example:port"),
    ),
    "ARTA_HTTP_TOKENS": ("{}", "alice={},bob={}", "alice={}ä", "al/ice={}", "alice= {}"),
    "ARTA_STATE_URL": (
        *("redis://me:{}@${{HOST}}", "redis://me:{}@[::1", "'redis://me:{}@d'", "me:{}@d:1"),
        *("{}", "redis://{}@", "http://me:{}@d", "redis://me:{}/x@d", "redis://{}#@d"),
    ),
    **dict.fromkeys(
        (*ADDRESSES, "ARTA_HTTP_ISSUER", "ARTA_HTTP_PUBLIC_URL"),
        (
            *("https://me:{}@${{HOST}}", "https://me:{}@a.example", "'https://me:{}@a.example'"),
            *("https://a.example/?token={}", "ftp://a.example/?token={}", "http://b/#{}"),
        ),
    ),
}


@pytest.mark.parametrize("name", SECRET_PARTS)
def test_no_error_about_what_may_be_secret_quotes_it(name: str) -> None:
    secret = "s3ntinel-pw-0123"
    for form in SECRET_PARTS[name]:
        value = form.format(secret, secret)
        if value.strip() == secret or (name, form) == ("ARTA_API_KEY", "{}\n"):
            continue
        error = refused({name: value})
        assert error.message.startswith(name)
        assert secret not in f"{error.message} {error.hint} {error!r} {error.args}", form


def test_everything_that_is_wrong_is_told_at_once_and_each_with_its_way_out() -> None:
    wrong = {name: values[0] for name, values in BAD.items()} | {"ARTA_API_KEY": "'quoted-key'"}
    error = refused(wrong)
    for name in BY_NAME:
        assert f"{name} " in error.message
        assert f"{name}: " in error.hint
    assert error.message.isprintable()
    two = refused({"ARTA_MAX_WAIT": "abc", "ARTA_PREVIEW": "yes"})
    assert two.message == (
        "ARTA_MAX_WAIT is 'abc', not a number of seconds in 0..3600; and ARTA_PREVIEW is 'yes'"
    )
    assert two.hint == (
        "ARTA_MAX_WAIT: set ARTA_MAX_WAIT to a number, or leave it out;"
        " ARTA_PREVIEW: use one of auto, on, off"
    )
    missing = refused({"ARTA_BACKEND": "arta", "ARTA_MAX_WAIT": "abc"})
    assert "ARTA_API_KEY is not set" in missing.message
    assert "ARTA_MAX_WAIT is 'abc'" in missing.message
    assert "is not set" not in refused({"ARTA_BACKEND": "arta", "ARTA_API_KEY": "x y z"}).message


def test_a_program_that_we_start_gets_none_of_our_settings() -> None:
    environ = {"ARTA_API_KEY": KEY, "ARTA_APIKEY": KEY, "PATH": "/bin", "HOME": "/root"}
    assert without_settings(environ) == {"PATH": "/bin", "HOME": "/root"}


# Backend and addresses


def test_a_key_chooses_the_remote_service_unless_told_otherwise() -> None:
    key = {"ARTA_API_KEY": KEY}
    assert Settings.from_env({}).backend == "local"
    assert Settings.from_env(key).backend == "arta"
    assert Settings.from_env(key | {"ARTA_BACKEND": "auto"}).backend == "arta"
    assert Settings.from_env(key | {"ARTA_BACKEND": "arta"}).backend == "arta"
    assert Settings.from_env(key | {"ARTA_BACKEND": "local"}).backend == "local"


def test_a_limit_an_hour_is_for_what_is_asked_with_a_key() -> None:
    engine = {"ARTA_LOCAL_ENGINE": "openai", "ARTA_LOCAL_URL": "http://127.0.0.1:1"}
    assert Settings.from_env({"ARTA_API_KEY": KEY}).has_key
    assert Settings.from_env({**engine, "ARTA_LOCAL_KEY": KEY}).has_key
    assert Settings.from_env({"ARTA_LOCAL_ENGINE": "openai", "OPENAI_API_KEY": KEY}).has_key
    assert not Settings.from_env({**engine, "ARTA_API_KEY": KEY}).has_key
    assert not Settings.from_env({"ARTA_LOCAL_KEY": KEY}).has_key
    assert Settings.from_env({}).hourly_limit == 120
    assert Settings.from_env({"ARTA_HOURLY_LIMIT": "7"}).hourly_limit == 7


def test_the_remote_service_without_a_key_is_refused_with_both_ways_out() -> None:
    error = refused({"ARTA_BACKEND": "arta"})
    assert error.message == "ARTA_BACKEND is 'arta' but ARTA_API_KEY is not set"
    assert "ARTA_BACKEND=local" in error.hint


def test_plain_http_is_taken_for_this_machine() -> None:
    for host in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        assert read("ARTA_BASE_URL", f"http://{host}:9099/a/") == f"http://{host}:9099/a"


def test_an_address_with_a_password_is_refused_without_showing_it() -> None:
    for value in (
        "https://u:sentinel-pw@a.example",
        "http://u:sentinel-pw@[::1",
        "x://u:sentinel-pw@b",
    ):
        error = refused({"ARTA_BASE_URL": value})
        assert error.message == "ARTA_BASE_URL holds a user name or password"


def test_an_account_belongs_to_its_addresses_and_its_key() -> None:
    base = {"ARTA_API_KEY": KEY}
    names = [
        Settings.from_env({**base, **more}).account_name
        for more in (
            {},
            {"ARTA_API_KEY": "another-sentinel-key"},
            {"ARTA_BASE_URL": "https://a.example"},
            {"ARTA_AUTH_URL": "https://a.example/x"},
            {"ARTA_TOKEN_REFRESH_URL": "https://a.example/x"},
            {"ARTA_BACKEND": "local"},
        )
    ]
    assert len(set(names)) == len(names)
    assert names[-1] == "local"
    assert [name for name in names if KEY in name] == []
    assert Settings.from_env({**base, "ARTA_USER_AGENT": "x"}).account_name == names[0]


def test_the_service_of_a_generation_is_its_host() -> None:
    assert Settings.from_env({}).service == "local"
    assert Settings.from_env({"ARTA_API_KEY": KEY}).service == "img-gen-prod.ai-arta.com"


# Secrets and strangers


def test_no_secret_is_in_the_repr_of_the_settings() -> None:
    proxy = "http://u:sentinel-pw@p.example"
    settings = Settings.from_env({"ARTA_API_KEY": KEY, "ARTA_PROXY": proxy})
    shown = f"{settings!r} {settings} {dataclasses.asdict(settings)}"
    assert KEY not in shown
    assert "sentinel-pw" not in shown
    assert settings.proxy == Secret(proxy)


def test_a_key_too_short_to_be_redacted_is_refused_without_showing_it() -> None:
    error = refused({"ARTA_API_KEY": "abc12"})
    assert error.message == "ARTA_API_KEY is shorter than 6 characters, as no key is"
    assert "abc12" not in error.hint
    assert read("ARTA_API_KEY", "abc123") == Secret("abc123")


def test_every_setting_that_is_read_as_a_secret_is_marked_as_one() -> None:
    parsed = {name: read(name, value) for name, (value, _) in GOOD.items()}
    assert isinstance(parsed["ARTA_HTTP_TOKENS"], tuple)  # of a name and a secret each
    secret = [
        name
        for name, value in parsed.items()
        if isinstance(value, Secret) or name == "ARTA_HTTP_TOKENS"
    ]
    assert secret == [setting.name for setting in SETTINGS if setting.secret]


def test_the_choices_that_are_shown_are_all_taken() -> None:
    shown = [(setting.name, choice) for setting in SETTINGS for choice in setting.choices]
    assert len(shown) == 38
    for name, choice in shown:
        read(name, choice)


def test_a_setting_is_read_by_its_old_name_and_the_new_one_wins() -> None:
    old, new = "ARTA_FRONT_DESK", "ARTA_QUICK_REPLIES"
    found = Settings.from_env({old: "off"})
    assert found.quick_replies is False
    assert found.unknown == ()
    assert Settings.from_env({old: "off", new: "on"}).quick_replies is True
    assert Settings.from_env({old: "maybe", new: "off"}).quick_replies is False
    assert Settings.from_env({old: "off", new: " "}).quick_replies is False
    assert refused({old: "maybe"}).message == "ARTA_FRONT_DESK is 'maybe'"
    assert refused({old: "${DESK}"}).message.startswith("ARTA_FRONT_DESK is the literal ${DESK}")


def test_names_that_mean_nothing_are_told_and_have_a_near_one() -> None:
    environ = {"ARTA_MAXWAIT": "5", "ARTA_API_KEYS": "x", "PATH": "/bin", "ARTA_": ""}
    unknown = Settings.from_env(environ).unknown
    assert unknown == ("ARTA_", "ARTA_API_KEYS", "ARTA_MAXWAIT")
    assert suggest("ARTA_MAXWAIT", BY_NAME, limit=1) == ("ARTA_MAX_WAIT",)
    assert suggest("ARTA_API_KEYS", BY_NAME, limit=1) == ("ARTA_API_KEY",)


def test_settings_are_read_from_what_is_given_and_from_nowhere_else() -> None:
    module = ast.parse(Path(config.__file__).read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
    assert "os" not in names


# Fuzz

values = (
    st.text(st.characters(), max_size=30)
    | st.sampled_from([value for value, _ in GOOD.values()])
    | st.sampled_from([value for listed in BAD.values() for value in listed])
    | st.builds(
        "{}://{}{}".format, st.sampled_from(["http", "https"]), st.text(max_size=8), st.text()
    )
    | st.floats().map(str)
    | st.integers().map(str)
)


@given(st.dictionaries(st.sampled_from(sorted(BY_NAME)), values, max_size=4))
@settings(max_examples=300, deadline=None)
@example({"ARTA_BASE_URL": "https://[v1.x]", "ARTA_API_KEY": KEY})
@example({"ARTA_BASE_URL": "https://ex\udc80mple", "ARTA_API_KEY": KEY})
def test_any_environment_is_settings_or_a_config_error(environ: dict[str, str]) -> None:
    try:
        found = Settings.from_env(environ)
    except ConfigError as exc:
        message = exc.message
    else:
        message = found.service + found.account_name
    assert message.isprintable()


@given(st.dictionaries(st.text(max_size=12).map("ARTA_{}".format), st.text(max_size=5), max_size=4))
@settings(deadline=None)
def test_names_that_mean_nothing_never_stop_the_start(environ: dict[str, str]) -> None:
    strange = {name: value for name, value in environ.items() if name not in BY_NAME}
    assert Settings.from_env(strange).unknown == tuple(sorted(strange))
