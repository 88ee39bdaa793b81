from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.lowlevel
import httpx
import pytest

from arta_mcp.arta.client import ArtaClient
from arta_mcp.arta.protocol import (
    MAX_SEED,
    REFRESH_PATH,
    SIGN_UP_PATHS,
    STYLES_PATH,
    SUBMIT_PATH,
    Addresses,
    Image,
    Job,
    Submit,
)
from arta_mcp.background import open_background
from arta_mcp.errors import (
    ArtaError,
    AuthError,
    PollFailed,
    PromptRejected,
    ProtocolError,
    RateLimited,
    RefusedStyle,
    SubmitUnknown,
    Unavailable,
    UnknownRecord,
)
from arta_mcp.local.faults.catalogue import Fault
from arta_mcp.styles import SHIPPED
from harness.service import ScriptedServer, ScriptedService
from harness.service_calls import Clock, paint
from harness.world import Client

pytestmark = pytest.mark.anyio

T = TypeVar("T")

KEY = "sentinel-key-5d20"
ORDER = Submit(prompt="a red fox in snow", style="Flux", n=2, seed=7)
REMOTE = "https://93.184.216.34"
"""a base address beyond this machine; in these tests an app stands in for it"""


@dataclass
class World:
    """A service on a port, and our client with a clock that only its pauses move."""

    running: ScriptedServer
    folder: Path
    clock: Clock
    slept: list[float] = field(default_factory=list[float])
    on_pause: Callable[[], None] = lambda: None
    exchange_timeout: float = 20.0
    looked_at: str = ""

    @property
    def service(self) -> ScriptedService:
        return self.running.service

    @property
    def submits(self) -> int:
        return self.service.seen["submit"]

    def strike(self, *faults: str) -> None:
        self.service.faults.add(*map(Fault.parse, faults))

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.now += seconds
        self.on_pause()
        await anyio.lowlevel.checkpoint()

    @asynccontextmanager
    async def client(
        self, base_url: str = "", app: httpx.AsyncBaseTransport | None = None
    ) -> AsyncGenerator[ArtaClient]:
        here = base_url or self.running.base_url
        wiring = Client(
            state_dir=self.folder / "state",
            addresses=Addresses.at_origin(here, styles_url=here + STYLES_PATH),
            app=app,
            key=KEY,
            clock=self.clock,
            sleep=self.sleep,
            exchange_timeout=self.exchange_timeout,
        )
        async with open_background() as background, wiring.open_backend(background) as backend:
            yield backend.client

    async def submit(self, *faults: str, deadline: float = 30.0) -> Job | ArtaError:
        """What a submit comes to while faults strike."""
        async with self.client() as client:
            await client.prepare_token()
            self.strike(*faults)
            return await outcome(client.submit(ORDER, deadline=deadline))

    async def look(self, *faults: str) -> Job | ArtaError:
        """What a look at a finished job comes to while faults strike."""
        async with self.client() as client:
            job = await client.submit(ORDER, deadline=30)
            self.service.finish_drawing()
            self.service.seen.clear()
            self.strike(*faults)
            self.looked_at = job.record_id
            return await outcome(client.poll(job.record_id))

    async def picture(self, *faults: str) -> object:
        """What a download comes to while faults strike."""
        async with self.client() as client:
            job = await client.submit(ORDER, deadline=30)
            self.service.finish_drawing()
            image = (await client.poll(job.record_id)).images[0]
            self.strike(*faults)
            return await outcome(client.download(image))


def listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


async def outcome(call: Awaitable[T]) -> T | ArtaError:
    try:
        return await call
    except ArtaError as exc:
        return exc


@pytest.fixture(scope="module")
def on_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    service = ScriptedService(tmp_path_factory.mktemp("service"), engine=paint, queue=0, draw=0)
    with ScriptedServer(service) as running:
        yield running


@pytest.fixture
def world(on_port: ScriptedServer, tmp_path: Path) -> World:
    clock = Clock()
    on_port.service.clock = clock
    on_port.service.faults.clear()
    on_port.service.seen.clear()
    return World(on_port, tmp_path, clock)


# Submit


async def test_a_submit_gives_a_job_and_sends_what_was_ordered(world: World) -> None:
    job = await world.submit()
    assert isinstance(job, Job)
    assert (job.is_queued, job.seed, world.submits) == (True, 7, 1)
    record = world.service.store.record(job.record_id)
    assert record is not None
    assert record.submission == ORDER


@pytest.mark.parametrize(
    "prompt",
    [
        "ä ö ü 狐 🦊",
        "a\0b",
        "line\r\nline\ttab",
        "\u202eright to left",
        "x" * 4000,
        "a=b&c=d%20+e",
        "\u007f\u0085",
    ],
    ids=lambda prompt: ascii(prompt[:20]),
)
async def test_every_prompt_travels_unchanged(world: World, prompt: str) -> None:
    order = Submit(prompt=prompt, negative_prompt=prompt, style="Flux", seed=MAX_SEED)
    async with world.client() as client:
        job = await client.submit(order, deadline=30)
    record = world.service.store.record(job.record_id)
    assert record is not None
    assert record.submission == order


UNKNOWN = listed("""
    reset-before reset-after answer-lost empty-body html-body not-object truncated-json wrong-types
    endless-body late-500 late-502 late-504 500 502 503 504
    408 409 redirect-302 redirect-307
""")


@pytest.mark.parametrize("fault", UNKNOWN)
async def test_an_answer_that_is_lost_is_never_asked_for_by_another_submit(
    world: World, fault: str
) -> None:
    before = len(world.service.jobs)
    error = await world.submit(f"{fault}@submit")
    assert isinstance(error, SubmitUnknown)
    assert "nothing was sent again" in error.hint
    assert (world.submits, world.slept) == (1, [])
    assert len(world.service.jobs) - before in (0, 1)


@pytest.mark.parametrize("fault", ["slow-headers", "slow-body"])
async def test_an_answer_that_comes_too_late_is_never_asked_for_by_another_submit(
    world: World, fault: str
) -> None:
    before = len(world.service.jobs)
    async with world.client() as client:
        await client.prepare_token()
    world.exchange_timeout = 0.2
    error = await world.submit(f"{fault}@submit=30")
    assert isinstance(error, SubmitUnknown)
    assert (world.submits, len(world.service.jobs) - before) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("400", PromptRejected),
        ("422", PromptRejected),
        ("detail-string", PromptRejected),
        ("detail-list", PromptRejected),
        ("echo", PromptRejected),
        ("403", AuthError),
        ("404", ProtocolError),
        ("429", RateLimited),
    ],
)
async def test_a_refused_submit_made_no_job_and_says_what_to_do(
    world: World, fault: str, kind: type[ArtaError]
) -> None:
    before = len(world.service.jobs)
    error = await world.submit(f"{fault}@submit")
    assert isinstance(error, ArtaError)
    assert type(error) is kind
    assert error.hint
    assert (world.submits, world.slept) == (1, [])
    assert len(world.service.jobs) == before


@pytest.mark.parametrize(
    "fault", [f"{status}-{form}" for status in (429, 503) for form in ("wait", "date", "ahead")]
)
async def test_a_submit_that_was_put_off_is_sent_again_when_the_time_comes(
    world: World, fault: str
) -> None:
    before = len(world.service.jobs)
    job = await world.submit(f"{fault}@submit*2=4")
    assert isinstance(job, Job)
    assert (world.submits, world.slept) == (3, [4.0, 4.0])
    assert len(world.service.jobs) - before == 1


@pytest.mark.parametrize("fault", ["429-wait", "503-date"])
async def test_a_submit_that_was_put_off_beyond_the_deadline_is_not_waited_for(
    world: World, fault: str
) -> None:
    error = await world.submit(f"{fault}@submit=4", deadline=3.9)
    assert (world.submits, world.slept) == (1, [])
    if fault == "429-wait":
        assert isinstance(error, RateLimited)
        assert error.retry_after == 4.0
    else:
        assert type(error) is Unavailable


async def test_a_submit_that_is_put_off_for_ever_ends_at_the_deadline(world: World) -> None:
    error = await world.submit("429-wait@submit*always=4", deadline=10)
    assert isinstance(error, RateLimited)
    assert (world.submits, world.slept) == (3, [4.0, 4.0])


async def test_no_service_is_asked_without_a_pause_although_it_says_so(world: World) -> None:
    error = await world.submit("429-wait@submit*always=0", deadline=2)
    assert isinstance(error, RateLimited)
    assert world.slept == [0.5] * (world.submits - 1)
    assert world.submits <= 6


async def test_a_refused_token_is_renewed_once_and_the_submit_sent_again(world: World) -> None:
    before = len(world.service.jobs)
    job = await world.submit("stale-token@submit")
    assert isinstance(job, Job)
    assert (world.submits, world.service.seen["refresh"]) == (2, 1)
    assert len(world.service.jobs) - before == 1


async def test_a_token_that_is_refused_again_is_an_error_and_no_loop(world: World) -> None:
    error = await world.submit("401@submit*always")
    assert type(error) is AuthError
    assert (world.submits, world.service.seen["refresh"], world.slept) == (2, 1, [])


async def test_a_submit_that_never_left_is_tried_again_and_then_unavailable(world: World) -> None:
    async with world.client() as client:
        await client.prepare_token()
        with world.running.refused():
            error = await outcome(client.submit(ORDER, deadline=30))
    assert isinstance(error, Unavailable)
    assert not isinstance(error, SubmitUnknown)
    assert (world.submits, world.slept) == (0, [0.5, 1.0, 2.0])


async def test_a_submit_that_never_left_is_sent_once_the_service_is_back(world: World) -> None:
    async with world.client() as client:
        await client.prepare_token()
        door = world.running.refused()
        door.__enter__()
        world.on_pause = lambda: None if len(world.slept) < 2 else _open(door.__exit__)
        job = await client.submit(ORDER, deadline=30)
    assert isinstance(job, Job)
    assert (world.submits, world.slept) == (1, [0.5, 1.0])


def _open(leave: Callable[[None, None, None], object]) -> None:
    leave(None, None, None)


async def test_a_submit_that_never_left_is_not_tried_beyond_the_deadline(world: World) -> None:
    async with world.client() as client:
        await client.prepare_token()
        with world.running.refused():
            error = await outcome(client.submit(ORDER, deadline=1))
    assert isinstance(error, Unavailable)
    assert world.slept == [0.5]


async def test_a_refused_style_brings_the_names_that_are_valid(world: World) -> None:
    async with world.client() as client:
        error = await outcome(client.submit(Submit(prompt="a fox", style="SDXL 1.0"), deadline=30))
    assert isinstance(error, RefusedStyle)
    assert error.valid == tuple(sorted(style.name for style in SHIPPED.styles))
    assert str(error) == "the service has no style 'SDXL 1.0' now"


@pytest.mark.parametrize("fault", ["unknown-status", "error-code", "error-details"])
async def test_a_job_that_failed_at_once_is_still_a_job(world: World, fault: str) -> None:
    job = await world.submit(f"{fault}@submit")
    assert isinstance(job, Job)
    assert job.is_failed


async def test_a_job_that_cannot_be_read_but_has_an_id_is_not_lost(world: World) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path != SUBMIT_PATH:
            return httpx.Response(200, json={"idToken": "a", "refreshToken": "b"})
        images = [{"url": "file:///etc/passwd"}]
        return httpx.Response(200, json={"record_id": "r1", "status": "DONE", "response": images})

    async with world.client(REMOTE, httpx.MockTransport(handler)) as client:
        job = await client.submit(ORDER, deadline=30)
    assert (job.record_id, job.is_queued) == ("r1", True)


@pytest.mark.parametrize("status", [201, 202])
async def test_any_success_of_a_submit_is_read_as_one(world: World, status: int) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path != SUBMIT_PATH:
            return httpx.Response(200, json={"idToken": "a", "refreshToken": "b"})
        return httpx.Response(status, json={"record_id": "r1", "status": "IN_QUEUE"})

    async with world.client(REMOTE, httpx.MockTransport(handler)) as client:
        assert (await client.submit(ORDER, deadline=30)).record_id == "r1"


# Look


async def test_a_look_tells_where_the_job_stands(world: World) -> None:
    job = await world.look()
    assert isinstance(job, Job)
    assert (job.is_done, len(job.images), job.seed) == (True, 2, 7)


TRANSIENT = listed("""
    reset-before reset-after answer-lost empty-body html-body not-object truncated-json wrong-types
    endless-body late-500 late-502 late-504 408 429 429-wait 429-date 500 502 503 503-wait 503-date
    504 redirect-302 redirect-307
""")


@pytest.mark.parametrize("fault", TRANSIENT)
async def test_a_look_that_fails_in_passing_says_so(world: World, fault: str) -> None:
    error = await world.look(f"{fault}@status")
    assert isinstance(error, PollFailed)
    expected = 1.0 if fault.endswith(("-wait", "-date")) else None
    assert error.retry_after == expected
    assert (world.service.seen["status"], world.slept) == (1, [])


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("400", ProtocolError),
        ("409", ProtocolError),
        ("422", ProtocolError),
        ("detail-string", ProtocolError),
        ("detail-list", ProtocolError),
        ("echo", ProtocolError),
        ("403", AuthError),
        ("404", UnknownRecord),
        ("foreign-scheme", ProtocolError),
    ],
)
async def test_a_look_that_will_never_tell_more_says_so_with_the_record_id(
    world: World, fault: str, kind: type[ArtaError]
) -> None:
    error = await world.look(f"{fault}@status")
    assert type(error) is kind
    assert isinstance(error, ArtaError)
    assert error.record_id == world.looked_at
    assert world.service.seen["status"] == 1


@pytest.mark.parametrize("fault", ["done-null", "done-empty"])
async def test_a_job_that_is_done_without_pictures_is_neither_done_nor_failed(
    world: World, fault: str
) -> None:
    job = await world.look(f"{fault}@status")
    assert isinstance(job, Job)
    assert (job.is_empty, job.is_done, job.is_failed, job.is_waiting) == (True, *[False] * 3)


@pytest.mark.parametrize("fault", ["502", "503-wait", "reset-before", "truncated-json", "429"])
async def test_a_look_that_is_no_loop_is_tried_again(world: World, fault: str) -> None:
    async with world.client() as client:
        job = await client.submit(ORDER, deadline=30)
        world.strike(f"{fault}@status*3")
        assert (await client.poll_until_answered(job.record_id)).record_id == job.record_id
    assert (world.service.seen["status"], len(world.slept)) == (4, 3)


@pytest.mark.parametrize("fault", ["404", "403", "400"])
async def test_a_look_that_will_never_tell_more_is_not_tried_again(
    world: World, fault: str
) -> None:
    async with world.client() as client:
        job = await client.submit(ORDER, deadline=30)
        world.strike(f"{fault}@status")
        assert isinstance(await outcome(client.poll_until_answered(job.record_id)), ArtaError)
    assert (world.service.seen["status"], world.slept) == (1, [])


@pytest.mark.parametrize("fault", ["401", "stale-token"])
async def test_a_look_renews_a_refused_token_once(world: World, fault: str) -> None:
    job = await world.look(f"{fault}@status")
    assert isinstance(job, Job)
    assert (world.service.seen["status"], world.service.seen["refresh"]) == (2, 1)


async def test_a_look_whose_token_is_refused_again_is_an_error_and_no_loop(world: World) -> None:
    error = await world.look("401@status*always")
    assert type(error) is AuthError
    assert isinstance(error, AuthError)
    assert error.record_id == world.looked_at
    assert (world.service.seen["status"], world.service.seen["refresh"]) == (2, 1)


@pytest.mark.parametrize("fault", ["unknown-status", "error-code", "error-details"])
async def test_a_job_that_failed_is_told_as_one_in_the_words_of_the_service(
    world: World, fault: str
) -> None:
    job = await world.look(f"{fault}@status=sentinel words")
    assert isinstance(job, Job)
    assert job.is_failed
    assert "sentinel words" in job.words


@pytest.mark.parametrize(
    ("fault", "blurred"), [("all-blurred", [True, True]), ("some-blurred", [True, False])]
)
async def test_blurred_pictures_are_told_from_others(
    world: World, fault: str, blurred: list[bool]
) -> None:
    job = await world.look(f"{fault}@status")
    assert isinstance(job, Job)
    assert [image.blurred for image in job.images] == blurred


def saying(status: int, body: bytes) -> httpx.MockTransport:
    """Every host: tokens for whoever asks, and one answer to every look."""

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith(SUBMIT_PATH):
            return httpx.Response(status, content=body)
        return httpx.Response(200, json={"idToken": "a", "refreshToken": "b"})

    return httpx.MockTransport(handler)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418])
async def test_a_refusal_without_a_word_may_be_a_hiccup(world: World, status: int) -> None:
    async with world.client(REMOTE, saying(status, b"")) as client:
        with pytest.raises(PollFailed, match="no reason given"):
            await client.poll("r1")


async def test_an_answer_about_another_job_is_not_taken_for_ours(world: World) -> None:
    body = json.dumps({"record_id": "r2", "status": "IN_QUEUE"}).encode()
    async with world.client(REMOTE, saying(200, body)) as client:
        with pytest.raises(PollFailed, match="answered for another job: r2"):
            await client.poll("r1")


@pytest.mark.parametrize("record_id", ["", "..", "\ud800", "a\nb", "x" * 1000])
async def test_what_cannot_be_a_record_id_is_unknown_and_nobody_is_asked(
    world: World, record_id: str
) -> None:
    async with world.client() as client:
        with pytest.raises(UnknownRecord):
            await client.poll(record_id)
    assert world.service.seen["status"] == 0


async def test_a_record_id_that_nobody_gave_out_is_unknown(world: World) -> None:
    async with world.client() as client:
        with pytest.raises(UnknownRecord) as caught:
            await client.poll("0" * 32)
    assert caught.value.record_id == "0" * 32


# Download


async def test_a_picture_comes_with_the_suffix_of_its_bytes(world: World) -> None:
    picture = await world.picture()
    assert getattr(picture, "suffix", None) == "png"
    assert "content" not in repr(picture)


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        (b"\x89PNG\r\n\x1a\n....", "png"),
        (b"\xff\xd8\xff\xe0....", "jpg"),
        (b"GIF89a....", "gif"),
        (b"RIFF....WEBPVP8 ", "webp"),
        (b"\0\0\0\x20ftypavif....", "avif"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
        (b"<!doctype html>", None),
        (b"#!/bin/sh", None),
        (b"MZ\x90", None),
        (b"", None),
    ],
)
async def test_what_is_no_picture_is_refused_whatever_it_is_called(
    world: World, content: bytes, suffix: str | None
) -> None:
    app = httpx.MockTransport(
        lambda request: httpx.Response(200, headers={"content-type": "image/png"}, content=content)
    )
    async with world.client(REMOTE, app) as client:
        found = await outcome(client.download(Image(f"{REMOTE}/x.png")))
    if suffix is None:
        assert isinstance(found, ProtocolError)
    else:
        assert getattr(found, "suffix", None) == suffix


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("image-too-large", ProtocolError),
        ("image-not-one", ProtocolError),
        ("image-empty", ProtocolError),
        ("endless-body", ProtocolError),
        ("404", Unavailable),
        ("503-wait@image=11", Unavailable),
    ],
)
async def test_a_picture_that_will_not_come_is_an_error_at_once(
    world: World, fault: str, kind: type[ArtaError]
) -> None:
    error = await world.picture(fault if "@" in fault else f"{fault}@image")
    assert isinstance(error, kind)
    assert ("asks for a new address" in error.hint) is (fault == "404")
    assert (world.service.seen["image"], world.slept) == (1, [])
    assert world.service.seen["leaks"] == 0


PASSING = listed("image-cut 500 502 503 504 408 429 503-wait 429-ahead reset-before answer-lost")


@pytest.mark.parametrize("fault", [*PASSING, "redirect-302"])
async def test_a_picture_is_fetched_again_after_what_may_pass(world: World, fault: str) -> None:
    found = await world.picture(f"{fault}@image*3")
    assert getattr(found, "suffix", None) == "png"
    seconds = [1.0, 1.0, 2.0] if fault in ("503-wait", "429-ahead") else [0.5, 1.0, 2.0]
    assert (world.service.seen["image"], world.slept) == (4, seconds)


@pytest.mark.parametrize("fault", PASSING)
async def test_a_picture_that_never_comes_is_given_up_after_some_tries(
    world: World, fault: str
) -> None:
    assert isinstance(await world.picture(f"{fault}@image*always"), Unavailable)
    assert world.service.seen["image"] == 4


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "169.254.1.1", "10.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"],
)
async def test_a_remote_service_has_no_pictures_inside_this_network(
    world: World, host: str
) -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(302, headers={"location": f"http://{host}/x.png"})

    async with world.client(REMOTE, httpx.MockTransport(handler)) as client:
        with pytest.raises(ProtocolError, match="is inside this network"):
            await client.download(Image(f"http://{host}/x.png"))
        assert asked == []
        with pytest.raises(ProtocolError, match="is inside this network"):
            await client.download(Image(f"{REMOTE}/x.png"))
    assert asked == ["93.184.216.34"]


async def test_a_remote_service_cannot_make_us_fetch_from_the_one_on_this_machine(
    world: World,
) -> None:
    async with world.client() as client:
        job = await client.submit(ORDER, deadline=30)
        world.service.finish_drawing()
        image = (await client.poll(job.record_id)).images[0]
    async with world.client(REMOTE) as client:
        with pytest.raises(ProtocolError, match="is inside this network"):
            await client.download(image)
    assert world.service.seen["image"] == 0


# Authorization


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[ScriptedServer]:
    with ScriptedServer(ScriptedService(tmp_path / "elsewhere", engine=paint)) as running:
        yield running


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("endpoint", ["sign_up", "refresh", "submit", "status"])
async def test_no_call_follows_a_redirect_with_its_secrets(
    world: World, elsewhere: ScriptedServer, endpoint: str, status: int
) -> None:
    paths = {"sign_up": SIGN_UP_PATHS[0], "refresh": REFRESH_PATH, "submit": SUBMIT_PATH}
    path = paths.get(endpoint, "/")
    fault = f"redirect-{status}@{endpoint}={elsewhere.base_url}{path}"
    async with world.client() as client:
        if endpoint == "sign_up":
            world.strike(fault)
            error = await outcome(client.prepare_token())
        else:
            job = await client.submit(ORDER, deadline=30)
            world.clock.now += 3600 if endpoint == "refresh" else 0
            world.strike(fault)
            submit = endpoint == "submit"
            error = await outcome(
                client.submit(ORDER, deadline=30) if submit else client.poll(job.record_id)
            )
    assert isinstance(error, ArtaError)
    assert elsewhere.service.seen == Counter()


async def test_pictures_are_fetched_without_authorization_also_over_a_redirect(
    world: World, elsewhere: ScriptedServer
) -> None:
    url = f"{elsewhere.base_url}/images/{'0' * 32}-0.png"
    assert isinstance(await world.picture(f"redirect-302@image={url}"), Unavailable)  # a 404 there
    assert world.service.seen["image"] == elsewhere.service.seen["image"] == 1
    assert world.service.seen["leaks"] == elsewhere.service.seen["leaks"] == 0


@pytest.mark.parametrize("endpoint", ["submit", "status"])
async def test_a_service_that_repeats_our_secrets_gets_them_into_no_error(
    world: World, endpoint: str
) -> None:
    call = world.submit if endpoint == "submit" else world.look
    error = await call(f"echo@{endpoint}")
    assert isinstance(error, ArtaError)
    said = f"{error!r} {error} {error.hint} {error.__cause__!r} {error.__context__!r}"
    assert "eyJ" not in said
    assert KEY not in said
    assert "[redacted]" in said


# Styles


async def test_the_live_styles_are_those_of_the_service(world: World) -> None:
    async with world.client() as client:
        assert client.lists_styles
        assert await client.list_styles() == tuple(style.name for style in SHIPPED.styles)
    assert world.service.seen["sign_up"] == 0


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("404", Unavailable),
        ("redirect-302", Unavailable),
        ("html-body", ProtocolError),
        ("empty-body", ProtocolError),
        ("endless-body", ProtocolError),
        ("wrong-types", ProtocolError),
    ],
)
async def test_a_style_list_that_cannot_be_had_is_an_error(
    world: World, fault: str, kind: type[ArtaError]
) -> None:
    async with world.client() as client:
        world.strike(f"{fault}@styles")
        assert isinstance(await outcome(client.list_styles()), kind)
    assert world.service.seen["styles"] == 1


@pytest.mark.parametrize("fault", ["502", "503-wait", "429", "reset-before", "answer-lost"])
async def test_a_style_list_is_asked_for_again_after_what_may_pass(
    world: World, fault: str
) -> None:
    async with world.client() as client:
        world.strike(f"{fault}@styles*3")
        assert await client.list_styles()
        assert (world.service.seen["styles"], len(world.slept)) == (4, 3)
        world.strike(f"{fault}@styles*always")
        assert isinstance(await outcome(client.list_styles()), Unavailable)
    assert world.service.seen["styles"] == 8
