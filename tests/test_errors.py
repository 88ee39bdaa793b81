from __future__ import annotations

import ast
import copy
import io
import json
import logging
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote as url_quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arta_mcp import errors, redaction
from arta_mcp.cli.settings import RedactingFormatter
from arta_mcp.errors import (
    ArtaError,
    AuthError,
    InvalidRequest,
    JobFailed,
    RateLimited,
    UnknownStyle,
)
from arta_mcp.redaction import Secret, redact, sanitize

SENTINEL = "sentinel-3f9a71c2"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
GOOGLE_KEY = "AIzaSyD-0123456789012345678901234567890"


@pytest.fixture
def secret() -> Secret:
    return Secret(SENTINEL)


def tree() -> list[str]:
    """The class names in the module's docstring, in their order."""
    assert errors.__doc__ is not None
    return re.findall(r"^ +([A-Z]\w+)(?= {2})", errors.__doc__, re.MULTILINE)


# The tree


def test_the_tree_in_the_docstring_names_every_class_and_no_other() -> None:
    module = ast.parse(Path(errors.__file__).read_text(encoding="utf-8"))
    classes = [node.name for node in module.body if isinstance(node, ast.ClassDef)]
    assert tree()[0] == "ArtaError"
    assert sorted(tree()) == sorted(classes)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"^( +)([A-Z]\w+)(?= {2})", errors.__doc__, re.MULTILINE)
    above: dict[int, str] = {}
    for indent, name in drawn:
        above[len(indent)] = name
        kind: type[ArtaError] = getattr(errors, name)
        base = above.get(len(indent) - 2, "Exception")
        assert [parent.__name__ for parent in kind.__bases__] == [base]
        assert kind.__doc__


def test_what_the_tree_says_an_error_carries_it_carries(secret: Secret) -> None:
    request = InvalidRequest("n", 9, "a whole number in 1..8")
    assert (request.argument, request.value, request.allowed) == ("n", 9, "a whole number in 1..8")
    assert str(request) == "n is 9; allowed is a whole number in 1..8"
    style = UnknownStyle("fluxx", ("flux", "f-dev"))
    assert (style.name, style.suggestions) == ("fluxx", ("flux", "f-dev"))
    assert str(style) == "no model is called 'fluxx'"
    assert style.hint == "did you mean flux or f-dev? list_models shows them all"
    limited = RateLimited("slow down", retry_after=6.6, record_id="r1")
    assert (limited.retry_after, limited.record_id) == (6.6, "r1")
    assert limited.hint == "wait 7 s, then try again"
    assert RateLimited("slow down").hint == "wait some minutes, then try again"


def test_an_error_without_a_hint_has_that_of_its_class() -> None:
    assert AuthError("no token").hint == "check ARTA_API_KEY"
    assert AuthError("no token", hint="look").hint == "look"
    assert ArtaError("x").record_id is None


@pytest.mark.parametrize("value", [10**5000, [[10**5000]]], ids=["number", "list"])
def test_a_value_that_python_does_not_write_out_is_named_by_its_type(value: object) -> None:
    shown = str(InvalidRequest("seed", value, "a whole number"))
    assert shown == f"seed is some {type(value).__name__}; allowed is a whole number"


def test_a_long_value_is_quoted_in_part() -> None:
    assert len(str(InvalidRequest("prompt", "x" * 100_000, "less"))) < 150


# Secrets


def test_a_secret_shows_itself_to_nobody_but_who_asks_for_it(secret: Secret) -> None:
    @dataclass(frozen=True)
    class Holder:
        inside: Secret

    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", format(secret), f"{secret}"]
    shown += [repr(Holder(secret)), repr([secret]), repr({"key": secret})]
    assert [text for text in shown if SENTINEL in text] == []
    assert secret.reveal() == SENTINEL


def test_equal_secrets_are_equal_and_other_things_are_not(secret: Secret) -> None:
    assert secret == Secret(SENTINEL)
    assert hash(secret) == hash(Secret(SENTINEL))
    assert secret == copy.deepcopy(secret)
    assert secret != Secret("another-secret")
    assert secret != SENTINEL


@pytest.mark.parametrize("kind", [ArtaError, AuthError, JobFailed])
def test_no_error_shows_a_secret_in_any_of_its_texts(secret: Secret, kind: type[ArtaError]) -> None:
    error = kind(f"the host says {SENTINEL}", hint=f"look at {SENTINEL}")
    assert (error.message, error.hint) == ("the host says [redacted]", "look at [redacted]")
    assert [text for text in (str(error), repr(error), repr(error.args)) if SENTINEL in text] == []


def test_an_argument_that_is_a_secret_is_not_quoted_back(secret: Secret) -> None:
    assert SENTINEL not in str(InvalidRequest("model", SENTINEL, "a style"))
    assert SENTINEL not in str(UnknownStyle(SENTINEL))


def test_a_log_line_loses_secrets_in_arguments_and_in_its_traceback(secret: Secret) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter("%(message)s"))
    try:
        raise ValueError(f"inside {SENTINEL}")
    except ValueError:
        record = logging.LogRecord("x", 40, "f", 1, "with %s", (SENTINEL,), sys.exc_info())
    handler.emit(record)
    assert SENTINEL not in stream.getvalue()
    assert stream.getvalue().startswith("with [redacted]\nTraceback")
    assert stream.getvalue().count("[redacted]") >= 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"token {JWT} refused", "token [redacted] refused"),
        (f'{{"idToken":"{JWT}"}}', '{"idToken":"[redacted]"}'),
        (f"key {GOOGLE_KEY}.", "key [redacted]."),
        ("https://a.example/v1?key=abc&x=1", "https://a.example/v1?key=[redacted]&x=1"),
        ("https://a.example/v1?x=1&key=a%2Bb 400", "https://a.example/v1?x=1&key=[redacted] 400"),
        ("the key=word pair", "the key=word pair"),
        ("eyJ is how each of them begins", "eyJ is how each of them begins"),
        ("arta_mcp.state.sqlite is a module", "arta_mcp.state.sqlite is a module"),
    ],
)
def test_what_is_shaped_like_a_secret_goes_although_nobody_planted_it(
    text: str, expected: str
) -> None:
    assert redact(text) == expected


def test_a_secret_goes_in_the_form_that_it_has_in_an_address() -> None:
    Secret("odd/key+with=signs")
    assert redact("refresh_token=odd%2Fkey%2Bwith%3Dsigns&x") == "refresh_token=[redacted]&x"


@pytest.mark.parametrize("value", ['it\'s "quoted" \\ so', "a'b\"c\\d%2Fe+f", "50%off+key/=="])
def test_a_secret_goes_in_every_form_in_which_a_program_writes_it(value: str) -> None:
    Secret(value)
    in_json = json.dumps({"k": value})
    forms = [value, in_json, json.dumps(in_json), repr(value), f"/a?k={url_quote(value)}"]
    assert [redact(form).count("[redacted]") for form in forms] == [1] * len(forms)


def test_of_two_secrets_the_longer_goes_whole() -> None:
    Secret("sentinel-short")
    Secret("sentinel-short-and-more")
    assert redact("sentinel-short-and-more") == "[redacted]"


def test_a_secret_in_use_is_remembered_however_many_come_after(secret: Secret) -> None:
    for number in range(2000):
        Secret(f"later-secret-{number:06}")
        secret.reveal()
    assert redact(f"a {SENTINEL} b") == "a [redacted] b"


def test_a_short_value_is_no_secret_since_it_would_mangle_words() -> None:
    Secret("on")
    assert redact("on and on") == "on and on"


@pytest.mark.parametrize(
    "hostile",
    ["eyJ" * 350_000, "eyJaaaaaaaa." * 90_000, "a." * 500_000, "AIza" * 250_000],
    ids=lambda text: text[:12],
)
def test_a_megabyte_of_near_tokens_is_redacted_in_bounded_time(hostile: str) -> None:
    begun = time.process_time()
    redact(hostile)
    assert time.process_time() - begun < 2


# Somebody else's words


@given(st.text())
def test_quoted_words_are_one_printable_line_of_bounded_length(text: str) -> None:
    quoted = sanitize(text, 20)
    assert len(quoted) <= 20
    assert quoted.isprintable()
    assert quoted == " ".join(quoted.split())
    assert sanitize(quoted, 20) == quoted


def test_quoting_redacts_before_it_cuts(secret: Secret) -> None:
    assert SENTINEL[:4] not in sanitize(f"{'x' * 10}{SENTINEL}", 14)
    assert sanitize("word \x1b[31m\u202e\r\n red") == "word [31m red"


def test_the_secrets_in_use_stay_known_however_many_come_after_them() -> None:
    key, old = Secret("the-key-in-use-1"), Secret("an-old-token-of-yesterday")
    for number in range(500):
        Secret(f"token-number-{number:05}")
        if number % 50 == 0:
            key.reveal()
    assert redact("the-key-in-use-1") == "[redacted]"
    assert redact("token-number-00499") == "[redacted]"
    assert len(redaction._forms) <= 500  # pyright: ignore[reportPrivateUsage]  # the bound itself
    assert redact("an-old-token-of-yesterday") == "an-old-token-of-yesterday"
    assert old.reveal()
