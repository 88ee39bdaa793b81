from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest

from arta_mcp.arta.protocol import (
    MAX_IMAGE,
    MAX_JSON,
    REFRESH_PATH,
    SIGN_UP_PATHS,
    STYLES_PATH,
    SUBMIT_PATH,
    Job,
    Tokens,
    is_record_id,
    parse_styles,
    status_path,
)
from arta_mcp.arta.refusals import Refusal, parse_retry_after
from arta_mcp.engines.base import ImageRequest
from arta_mcp.errors import AuthError, ConfigError, ProtocolError
from arta_mcp.local.faults.catalogue import ENDPOINTS, FAULTS, Fault
from arta_mcp.untrusted_json import is_object, json_or_none, text
from harness.service import ScriptedServer, ScriptedService

NOW = 1_000_000.25
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(100_000)
HARMLESS = ("slow-headers", "slow-body", "refused")
"""faults that leave the answer itself as it is"""
BREAKING = ("refused", "reset-before", "reset-after", "answer-lost", "image-cut")
"""faults that break a real connection"""


def paint(request: ImageRequest) -> bytes:
    return PICTURE


@dataclass
class Caller:
    """A client that has an account and a finished job, and asks one endpoint at a time."""

    service: ScriptedService
    client: httpx.Client
    tokens: Tokens
    record_id: str

    def ask(self, endpoint: str) -> httpx.Response:
        key, token = {"key": "sentinel-key"}, self.tokens.refresh_token.reveal()
        bare = {"Authorization": self.tokens.id_token.reveal()}
        match endpoint:
            case "sign_up":
                return self.client.post(SIGN_UP_PATHS[0], params=key, json={})
            case "refresh":
                form = {"grant_type": "refresh_token", "refresh_token": token}
                return self.client.post(REFRESH_PATH, params=key, data=form)
            case "submit":
                form = {"prompt": "a fox", "style": "Flux", "images_num": "2"}
                return self.client.post(SUBMIT_PATH, data=form, headers=bare)
            case "status":
                return self.client.get(status_path(self.record_id), headers=bare)
            case "styles":
                return self.client.get(STYLES_PATH)
            case _:
                return self.client.get(f"/images/{self.record_id}-0.png")

    def ask_with(self, text: str) -> httpx.Response:
        fault = Fault.parse(text)
        self.service.faults.add(fault)
        return self.ask(fault.endpoint)

    def job(self, text: str) -> Job:
        return Job.parse(self.ask_with(text).content)

    def refusal(self, text: str) -> Refusal:
        answer = self.ask_with(text)
        return Refusal.parse(answer.status_code, answer.headers, answer.content)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Generator[ScriptedServer]:
    folder = tmp_path_factory.mktemp("service")
    service = ScriptedService(folder, engine=paint, queue=0, draw=0, clock=lambda: NOW)
    with ScriptedServer(service) as running:
        yield running


@pytest.fixture
def caller(running: ScriptedServer) -> Generator[Caller]:
    with calling(running) as caller:
        yield caller


@contextmanager
def calling(running: ScriptedServer) -> Generator[Caller]:
    service = running.service
    service.faults.clear()
    # without `verify` a client reads no certificates, which is most of what making one costs
    with httpx.Client(base_url=running.base_url, timeout=30, verify=False) as client:
        caller = Caller(service, client, Tokens.parse(_sign_up(client)), "")
        caller.record_id = Job.parse(caller.ask("submit").content).record_id
        service.finish_drawing()
        yield caller


def _sign_up(client: httpx.Client) -> bytes:
    return client.post(SIGN_UP_PATHS[0], params={"key": "k"}).content


# How a fault is said


def test_the_text_of_a_fault_gives_the_same_fault_again() -> None:
    for name, kind in FAULTS.items():
        for endpoint in kind.endpoints:
            for fault in (
                Fault(name, endpoint),
                Fault(name, endpoint, times=3, after=2),
                Fault(name, endpoint, times=None, value="1"),
            ):
                assert Fault.parse(str(fault)) == fault


def test_a_fault_is_said_in_one_line() -> None:
    assert Fault.parse("503@submit") == Fault("503", "submit", times=1, after=0, value="")
    assert Fault.parse("503@submit*2=Retry-After:1") == Fault(
        "503", "submit", times=2, value="Retry-After:1"
    )
    assert Fault.parse(" stuck@status*always+4 ") == Fault("stuck", "status", times=None, after=4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "503",
        "@submit",
        "503@",
        "503@submit*",
        "503@submit*-1",
        "503@submit*2*3",
        "503@submit+",
        "503@submit+1*2",
        "599@submit",
        "503@nowhere",
        "image-cut@submit",
        "stuck@submit",
        "USER_DISABLED@sign_up",
        "slow-body@submit=61",
        "slow-body@submit=-1",
        "slow-body@submit=nan",
        "slow-body@submit=long",
        "429-wait@submit=soon",
    ],
)
def test_a_text_that_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="fault"):
        Fault.parse(text)


def test_every_fault_is_described_and_strikes_somewhere() -> None:
    for name, kind in FAULTS.items():
        assert kind.sentence, name
        assert set(kind.endpoints) <= set(ENDPOINTS), name
        assert kind.endpoints, name


# When a fault strikes


def test_a_fault_strikes_as_often_as_it_says_and_passes_those_before(caller: Caller) -> None:
    caller.service.faults.add(Fault("500", "styles", times=2, after=1))
    statuses = [caller.ask("styles").status_code for _ in range(5)]
    assert statuses == [200, 500, 500, 200, 200]
    assert caller.service.faults.pending == ()


def test_faults_strike_in_their_order_and_each_at_its_endpoint(caller: Caller) -> None:
    caller.service.faults.add(Fault("500", "styles"), Fault("502", "styles", times=None))
    assert caller.ask("status").status_code == 200
    assert [caller.ask("styles").status_code for _ in range(4)] == [500, 502, 502, 502]


def test_what_changes_pictures_waits_for_a_job_that_is_done(caller: Caller) -> None:
    done, caller.service.queue = caller.record_id, 60.0
    caller.record_id = Job.parse(caller.ask("submit").content).record_id
    caller.service.queue = 0.0
    assert caller.job("all-blurred@status").is_queued
    caller.record_id = done
    assert [image.blurred for image in Job.parse(caller.ask("status").content).images] == [True] * 2


@pytest.mark.parametrize("name", HARMLESS)
def test_a_fault_that_only_delays_leaves_the_answer_as_it_is(caller: Caller, name: str) -> None:
    usual = caller.ask("status")
    assert _kind(caller.ask_with(f"{name}@status=0")) == _kind(usual)
    assert _kind(_until_open(caller, "status")) == _kind(usual)


def test_a_row_says_whether_the_request_has_its_effect_and_the_log_says_what_struck(
    caller: Caller,
) -> None:
    """The fault matrix strikes everywhere; what it cannot see is a row that is wrong."""
    usual = _kind(caller.ask("submit"))
    for name, kind in FAULTS.items():
        if "submit" not in kind.endpoints:
            continue
        jobs = len(caller.service.jobs)
        value = "=0" if kind.takes_seconds else ""
        with suppress(httpx.TransportError):
            answer = caller.ask_with(f"{name}@submit{value}")
            assert (_kind(answer) == usual) == (name in HARMLESS), name
        made = len(caller.service.jobs) - jobs
        assert made == kind.handled, name
        last = caller.service.log[-1]
        assert (last.endpoint, (last.fault or "").partition("@")[0]) == ("submit", name)
        if name == "stale-token":
            caller.tokens = Tokens.parse(_sign_up(caller.client))
        assert _kind(_until_open(caller, "submit")) == usual, name


def _until_open(caller: Caller, endpoint: str) -> httpx.Response:
    """The next answer; a door that was shut for no time opens within a moment."""
    for _ in range(1000):
        try:
            return caller.ask(endpoint)
        except httpx.ConnectError:
            continue
    raise AssertionError("the door stays shut")


def _kind(answer: httpx.Response) -> object:
    """What two answers to the same question have in common."""
    if answer.headers.get("content-type") != "application/json":
        return answer.status_code, answer.headers.get("content-type"), len(answer.content)
    body = json_or_none(answer.content)
    kept = ("status", "response", "error_code", "error_details")
    fields = body if is_object(body) else {}
    can_be_id = is_record_id(text(fields, "record_id"))  # each time another one
    return (
        answer.status_code,
        can_be_id,
        {name: value if name in kept else type(value) for name, value in fields.items()},
    )


# What the connection does


def test_a_request_is_reset_before_or_after_it_is_handled(caller: Caller) -> None:
    jobs = len(caller.service.jobs)
    with pytest.raises(httpx.ReadError):
        caller.ask_with("reset-before@submit")
    assert len(caller.service.jobs) == jobs
    with pytest.raises(httpx.ReadError):
        caller.ask_with("reset-after@submit")
    assert len(caller.service.jobs) == jobs + 1
    assert [event.status for event in list(caller.service.log)[-2:]] == [0, 0]


def test_a_lost_answer_leaves_the_job_behind(caller: Caller) -> None:
    jobs = len(caller.service.jobs)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending"):
        caller.ask_with("answer-lost@submit")
    assert len(caller.service.jobs) == jobs + 1


def test_after_this_answer_the_door_is_shut_for_a_while(caller: Caller) -> None:
    assert caller.ask_with("refused@sign_up=0.2").status_code == 200
    with pytest.raises(httpx.ConnectError):
        caller.ask("submit")
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            assert caller.ask("submit").status_code == 200
            return
        except httpx.ConnectError:
            continue
    pytest.fail("the door stays shut")


@pytest.mark.parametrize("name", ["slow-headers", "slow-body"])
def test_a_slow_answer_takes_its_seconds_and_is_whole(caller: Caller, name: str) -> None:
    begun = time.monotonic()
    assert parse_styles(caller.ask_with(f"{name}@styles=0.2").content)
    assert time.monotonic() - begun >= 0.2


def test_the_headers_of_a_slow_body_come_at_once(caller: Caller) -> None:
    caller.service.faults.add(Fault("slow-body", "styles", value="60"))
    with caller.client.stream("GET", STYLES_PATH) as answer:
        assert answer.status_code == 200
        assert int(answer.headers["content-length"]) > 1000


@pytest.mark.parametrize("endpoint", ["styles", "image"])
def test_an_endless_body_passes_every_limit_and_ends_broken(caller: Caller, endpoint: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        caller.ask_with(f"endless-body@{endpoint}")


def test_a_client_that_leaves_an_endless_body_does_no_harm(caller: Caller) -> None:
    caller.service.faults.add(Fault("endless-body", "styles"))
    with caller.client.stream("GET", STYLES_PATH) as answer:
        size = 0
        for chunk in answer.iter_raw():
            size += len(chunk)
            if size > MAX_JSON:
                break
    assert parse_styles(caller.ask("styles").content)


@pytest.mark.anyio
@pytest.mark.parametrize("name", BREAKING)
async def test_without_a_connection_to_break_the_app_raises_or_cuts_short(
    tmp_path: Path, name: str
) -> None:
    endpoint = FAULTS[name].endpoints[0]
    service = ScriptedService(tmp_path, engine=paint, faults=[Fault(name, endpoint)])
    service.store.put_picture("0" * 32, 0, PICTURE)
    path = {"image": f"/images/{'0' * 32}-0.png"}.get(endpoint, SIGN_UP_PATHS[0])
    method = "GET" if endpoint == "image" else "POST"
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(service), base_url="http://127.0.0.1"
    ) as client:
        if name == "image-cut":
            answer = await client.request(method, path)
            assert len(answer.content) == len(PICTURE) // 2
        else:
            with pytest.raises(ConnectionError, match="scripted fault"):
                await client.request(method, path, params={"key": "k"})


# What the answer says


def test_a_status_comes_in_the_manner_of_its_host(caller: Caller) -> None:
    for status in (400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504):
        google, fastapi = caller.ask_with(f"{status}@refresh"), caller.ask_with(f"{status}@status")
        assert (google.status_code, fastapi.status_code) == (status, status)
        assert google.json()["error"]["code"] == status
        assert isinstance(fastapi.json()["detail"], str)


def test_retry_after_comes_as_asked(caller: Caller) -> None:
    assert caller.refusal("429@submit").retry_after is None
    assert caller.refusal("429@submit=Retry-After:7").retry_after == 7.0
    assert caller.refusal("429-wait@submit=2.5").retry_after == 2.5
    dated = caller.ask_with("503-date@submit=30").headers["Retry-After"]
    assert dated == formatdate(1_000_031, usegmt=True)
    assert parse_retry_after(dated, now=NOW) == 30.75


def test_a_clock_that_is_ahead_says_so_itself(caller: Caller) -> None:
    answer = caller.ask_with("503-ahead@submit=30")
    assert answer.headers["Retry-After"] == formatdate(1_007_231, usegmt=True)
    assert answer.headers["Date"] == formatdate(1_007_200, usegmt=True)
    assert caller.ask_with("400@submit").headers["Date"] == formatdate(1_000_000, usegmt=True)


@pytest.mark.parametrize(
    ("name", "endpoint"),
    [
        (name, kind.endpoints[-1])
        for name, kind in FAULTS.items()
        if name.replace("_", "").isupper()
    ],
)
def test_a_code_of_google_is_read_as_that_code(caller: Caller, name: str, endpoint: str) -> None:
    refusal = caller.refusal(f"{name}@{endpoint}")
    assert refusal.code == name
    assert 400 <= refusal.status <= 403


@pytest.mark.parametrize(
    "name", ["empty-body", "html-body", "not-object", "truncated-json", "wrong-types"]
)
@pytest.mark.parametrize("endpoint", ["sign_up", "refresh", "submit", "status", "styles"])
def test_a_foreign_body_breaks_the_contract_with_status_200(
    caller: Caller, name: str, endpoint: str
) -> None:
    answer = caller.ask_with(f"{name}@{endpoint}")
    parse = {"styles": parse_styles, "submit": Job.parse, "status": Job.parse}
    assert answer.status_code == 200
    with pytest.raises((ProtocolError, AuthError)):
        parse.get(endpoint, Tokens.parse)(answer.content)


def test_detail_is_a_string_or_a_list(caller: Caller) -> None:
    assert isinstance(caller.ask_with("detail-string@submit").json()["detail"], str)
    assert caller.refusal("detail-list@submit").words == "steps: Input should be at most 50"


def test_words_lists_and_ids_can_be_such_as_nobody_should_show(caller: Caller) -> None:
    assert len(caller.ask_with("long-words@sign_up").json()["detail"]) == 300_000
    assert len(caller.ask_with("many-styles@styles").content) > 700_000
    with pytest.raises(ProtocolError, match="24000 entries"):
        parse_styles(caller.ask_with("many-styles@styles").content)
    for endpoint in ("submit", "status"):
        answer = caller.ask_with(f"foreign-id@{endpoint}=x; reboot")
        assert answer.json()["record_id"] == "x; reboot"
        with pytest.raises(ProtocolError, match="without a record id"):
            Job.parse(answer.content)


def test_a_redirect_points_elsewhere_and_the_job_is_not_made(caller: Caller) -> None:
    jobs = len(caller.service.jobs)
    answer = caller.ask_with("redirect-307@submit=http://127.0.0.1:9/trap")
    assert (answer.status_code, answer.headers["location"]) == (307, "http://127.0.0.1:9/trap")
    assert caller.ask_with("redirect-302@status").next_request is not None
    assert len(caller.service.jobs) == jobs


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_echo_repeats_what_must_not_be_shown(caller: Caller, endpoint: str) -> None:
    said = caller.ask_with(f"echo@{endpoint}").text
    if endpoint in ("sign_up", "refresh"):
        assert "sentinel-key" in said
    if endpoint in ("submit", "status"):
        assert caller.tokens.id_token.reveal() in said
    if endpoint == "refresh":
        assert caller.tokens.refresh_token.reveal() in said


def test_a_job_can_end_in_every_way_that_was_never_captured(caller: Caller) -> None:
    assert caller.job("unknown-status@status").status == "CANCELLED"
    assert caller.job("unknown-status@submit=FAILED").is_failed
    assert caller.job("error-code@status=NSFW").error_code == "NSFW"
    assert caller.job("error-details@status").is_failed
    assert caller.job("stuck@status").is_waiting
    for name, response in (("done-null", "null"), ("done-empty", "[]")):
        answer = caller.ask_with(f"{name}@status")
        assert f'"status":"DONE","response":{response},' in answer.text
        assert Job.parse(answer.content).is_empty


def test_pictures_can_be_blurred_or_lie_elsewhere(caller: Caller) -> None:
    assert [image.blurred for image in caller.job("all-blurred@status").images] == [True, True]
    assert [image.blurred for image in caller.job("some-blurred@status").images] == [True, False]
    moved = caller.job("foreign-url@status=http://10.0.0.1/x.png").images
    assert [image.url for image in moved] == ["http://10.0.0.1/x.png"] * 2
    with pytest.raises(ProtocolError, match="file:///etc/passwd"):
        caller.job("foreign-scheme@status")


def test_a_token_that_went_stale_stays_so_until_there_is_a_new_one(caller: Caller) -> None:
    assert caller.ask_with("stale-token@status").status_code == 401
    assert caller.ask("status").status_code == 401
    assert caller.ask("submit").status_code == 401
    caller.tokens = Tokens.parse(caller.ask("refresh").content)
    assert caller.ask("status").status_code == 200


def test_a_picture_can_be_cut_too_large_or_none(caller: Caller) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="peer closed"):
        caller.ask_with("image-cut@image")
    large = caller.ask_with("image-too-large@image")
    assert len(large.content) > MAX_IMAGE
    assert large.headers["content-length"] == str(len(large.content))
    page = caller.ask_with("image-not-one@image")
    assert (page.headers["content-type"], page.content[:9]) == ("image/png", b"<!doctype")
    assert caller.ask_with("image-empty@image").content == b""


def test_the_command_serves_with_the_faults_that_it_is_given(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "arta_mcp", "local", "--fault", "reset-before@styles"]
    environ = {**os.environ, "ARTA_STATE_DIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with pytest.raises(httpx.ReadError):
            httpx.get(url + STYLES_PATH)
        assert parse_styles(httpx.get(url + STYLES_PATH).content)
        process.terminate()
