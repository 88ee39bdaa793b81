from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from arta_mcp.local.faults import Fault
from arta_mcp.local.running import Running
from arta_mcp.local.service import MAX_BODY, Event, Service
from arta_mcp.local.sketch import Order
from arta_mcp.local.store import Claims, append
from arta_mcp.protocol import (
    REFRESH_PATH,
    SIGN_UP_PATHS,
    STYLES_PATH,
    SUBMIT_PATH,
    Job,
    Refusal,
    SignUp,
    Submit,
    Tokens,
    parse_styles,
    status_path,
)
from arta_mcp.styles import SHIPPED

pytestmark = pytest.mark.anyio

FORM = {"prompt": "a red fox in snow", "style": "Flux", "images_num": "2"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(tmp_path: Path, clock: Clock) -> Iterator[Service]:
    service = Service(tmp_path, engine=paint, queue=2.0, draw=3.0, clock=clock)
    yield service
    service.close()


def paint(order: Order) -> bytes:
    """An engine that is quick and says what it was asked for."""
    return b"\x89PNG\r\n\x1a\n" + repr(order).encode()


@asynccontextmanager
async def calling(service: Service, token: str = "") -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": token} if token else {}
    transport = httpx.ASGITransport(service)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1:7", headers=headers
    ) as client:
        yield client


async def sign_up(service: Service) -> Tokens:
    async with calling(service) as client:
        answer = await client.post(SIGN_UP_PATHS[1], params={"key": "k"}, json={})
    return Tokens.parse(answer.content)


async def refresh(service: Service, token: str, **more: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token, **more}
    async with calling(service) as client:
        return await client.post(REFRESH_PATH, params={"key": "k"}, data=form)


async def submit(service: Service, **more: str) -> Job:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.post(SUBMIT_PATH, data={**FORM, **more})
    assert 200 == answer.status_code, answer.text
    return Job.parse(answer.content)


async def look(service: Service, record_id: str) -> Job:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        return Job.parse((await client.get(status_path(record_id))).content)


def code(answer: httpx.Response) -> str:
    return Refusal.parse(answer.status_code, answer.headers, answer.content).code


# Accounts


@pytest.mark.parametrize(
    "path",
    [
        *SIGN_UP_PATHS,
        f"/www.googleapis.com{SIGN_UP_PATHS[0]}",
        f"/identitytoolkit.googleapis.com{SIGN_UP_PATHS[1]}",
    ],
)
@pytest.mark.parametrize("body", [b"", b"{}", json.dumps(SignUp("CLIENT_TYPE_ANDROID").body())])
async def test_an_account_is_opened_at_every_address(
    service: Service, path: str, body: bytes | str
) -> None:
    async with calling(service) as client:
        answer = await client.post(path, params={"key": "any"}, content=body)
    tokens = Tokens.parse(answer.content)
    assert 200 == answer.status_code
    assert (tokens.user_id,) == service.accounts
    assert 3600.0 == tokens.expires_in
    assert "3600" == answer.json()["expiresIn"]


@pytest.mark.parametrize("path", [*SIGN_UP_PATHS, REFRESH_PATH])
async def test_a_call_without_a_key_is_forbidden_in_googles_words(
    service: Service, path: str
) -> None:
    async with calling(service) as client:
        answer = await client.post(path)
        with_header = await client.post(path, headers={"x-goog-api-key": "k"})
    assert (403, "PERMISSION_DENIED") == (answer.status_code, answer.json()["error"]["status"])
    assert "The request is missing a valid API key." == answer.json()["error"]["message"]
    assert 403 != with_header.status_code


@pytest.mark.parametrize("path", [*SIGN_UP_PATHS, REFRESH_PATH])
async def test_broken_json_is_refused_and_opens_no_account(service: Service, path: str) -> None:
    async with calling(service) as client:
        answer = await client.post(path, params={"key": "k"}, content=b'{"clientType":')
    assert (400, "INVALID_ARGUMENT") == (answer.status_code, code(answer))
    assert () == service.accounts


@pytest.mark.parametrize("path", [REFRESH_PATH, f"/securetoken.googleapis.com{REFRESH_PATH}"])
@pytest.mark.parametrize("style", ["form", "snake", "camel"])
async def test_a_refresh_in_any_spelling_gives_an_id_token_of_the_same_account(
    service: Service, path: str, style: str
) -> None:
    tokens = await sign_up(service)
    token = tokens.refresh_token.reveal()
    snake = {"grant_type": "refresh_token", "refresh_token": token}
    async with calling(service) as client:
        match style:
            case "form":
                answer = await client.post(path, params={"key": "k"}, data=snake)
            case "snake":
                answer = await client.post(path, params={"key": "k"}, json=snake)
            case _:
                camel = {"grantType": "refresh_token", "refreshToken": token}
                answer = await client.post(path, params={"key": "k"}, json=camel)
    renewed = Tokens.parse(answer.content)
    assert tokens.user_id == renewed.user_id
    assert tokens.id_token != renewed.id_token
    assert 1 == len(service.accounts)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (Service.delete, "USER_NOT_FOUND"),
        (Service.disable, "USER_DISABLED"),
        (Service.expire, "TOKEN_EXPIRED"),
    ],
)
async def test_a_refresh_token_ends_with_its_account(
    service: Service, spoil: Callable[[Service, str], None], expected: str
) -> None:
    tokens = await sign_up(service)
    spoil(service, tokens.user_id)
    answer = await refresh(service, tokens.refresh_token.reveal())
    assert (400, expected) == (answer.status_code, code(answer))


async def test_a_request_for_a_refresh_that_is_wrong_itself_is_told_what_is_wrong(
    service: Service,
) -> None:
    tokens = await sign_up(service)
    token = tokens.refresh_token.reveal()
    assert "INVALID_REFRESH_TOKEN" == code(await refresh(service, "garbage"))
    assert "INVALID_REFRESH_TOKEN" == code(await refresh(service, token[:-2]))
    assert "INVALID_REFRESH_TOKEN" == code(await refresh(service, tokens.id_token.reveal()))
    assert "MISSING_REFRESH_TOKEN" == code(await refresh(service, ""))
    assert "INVALID_GRANT_TYPE" == code(await refresh(service, token, grant_type="password"))
    assert "MISSING_GRANT_TYPE" == code(await refresh(service, token, grant_type=""))


async def test_refresh_tokens_live_on_unless_the_service_rotates_them(
    service: Service, tmp_path: Path
) -> None:
    first = (await sign_up(service)).refresh_token.reveal()
    assert 200 == (await refresh(service, first)).status_code
    assert 200 == (await refresh(service, first)).status_code
    rotating = Service(tmp_path, rotate=True)
    second = Tokens.parse((await refresh(rotating, first)).content).refresh_token.reveal()
    assert "TOKEN_EXPIRED" == code(await refresh(rotating, first))
    assert 200 == (await refresh(rotating, second)).status_code


# Who may submit and look


@pytest.mark.parametrize("how", ["none", "garbage", "refresh", "stale", "forged", "refused"])
async def test_only_a_fresh_id_token_of_ours_opens_the_image_host(
    service: Service, clock: Clock, how: str
) -> None:
    tokens = await sign_up(service)
    token = tokens.id_token.reveal()
    if how == "stale":
        clock.now += 3600
    if how == "refused":
        service.refuse_token(token)
    sent = {
        "none": "",
        "garbage": "garbage",
        "refresh": tokens.refresh_token.reveal(),
        "forged": token[:-4] + "AAAA",
    }
    async with calling(service, sent.get(how, token)) as client:
        answers = [await client.post(SUBMIT_PATH, data=FORM), await client.get(status_path("a"))]
    assert [401, 401] == [answer.status_code for answer in answers]
    assert all(isinstance(answer.json()["detail"], str) for answer in answers)
    assert () == service.jobs


async def test_a_token_is_good_in_every_process_on_the_folder(
    service: Service, tmp_path: Path, clock: Clock
) -> None:
    token = (await sign_up(service)).id_token.reveal()
    other = Service(tmp_path, engine=paint, clock=clock)
    async with calling(other, token) as client:
        assert 200 == (await client.post(SUBMIT_PATH, data=FORM)).status_code
    assert service.jobs == other.jobs
    assert 1 == len(service.jobs)


async def test_a_token_of_another_folder_is_foreign(service: Service, tmp_path: Path) -> None:
    other = Service(tmp_path / "other", engine=paint)
    token = other.store.sign(Claims("id", "0" * 32, 0, 2e12))
    async with calling(service, token) as client:
        assert 401 == (await client.get(status_path("0" * 32))).status_code


# Orders


@pytest.mark.parametrize("path", [SUBMIT_PATH, f"/img-gen-prod.ai-arta.com{SUBMIT_PATH}"])
async def test_both_encodings_of_a_form_order_the_same_job(service: Service, path: str) -> None:
    order = Submit(prompt="füchse & co. \u202e", style="Vincent Van Gogh", n=3, seed=4294967295)
    parts = {name: (None, value) for name, value in order.form().items()}
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        urlencoded = Job.parse((await client.post(path, data=order.form())).content)
        multipart = Job.parse((await client.post(path, files=parts)).content)
    records = [service.store.record(job.record_id) for job in (urlencoded, multipart)]
    assert [order, order] == [record.order for record in records if record]
    assert [4294967295] * 2 == [urlencoded.seed, multipart.seed]
    assert urlencoded.record_id != multipart.record_id


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", "  "),
        ("prompt", "a" * 4001),
        ("style", ""),
        ("images_num", "9"),
        ("images_num", "two"),
        ("cfg_scale", "0.5"),
        ("cfg_scale", "nan"),
        ("steps", "51"),
        ("aspect_ratio", "5:7"),
        ("seed", "-1"),
        ("seed", "4294967296"),
    ],
)
async def test_a_field_out_of_bounds_is_named_in_a_list_like_fastapis(
    service: Service, name: str, value: str
) -> None:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.post(SUBMIT_PATH, data={**FORM, name: value})
    assert 422 == answer.status_code
    assert [["body", name]] == [entry["loc"] for entry in answer.json()["detail"]]
    assert () == service.jobs


async def test_a_json_body_is_no_form_and_lacks_every_field(service: Service) -> None:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.post(SUBMIT_PATH, json=FORM)
    assert (422, "Field required") == (answer.status_code, answer.json()["detail"][0]["msg"])


async def test_multipart_without_a_boundary_is_a_bad_request(service: Service) -> None:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.post(
            SUBMIT_PATH, content=b"prompt=a", headers={"Content-Type": "multipart/form-data"}
        )
    assert (400, {"detail": "Missing boundary in multipart."}) == (
        answer.status_code,
        answer.json(),
    )


async def test_an_unknown_style_is_answered_with_every_valid_one(service: Service) -> None:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.post(SUBMIT_PATH, data={**FORM, "style": "SDXL 1.0"})
    message = answer.json()["detail"][0]["msg"]
    assert 422 == answer.status_code
    assert message.startswith("Value error, Style SDXL 1.0 not in frozenset({")
    assert [] == [style.name for style in SHIPPED.styles if repr(style.name) not in message]


async def test_a_prompt_of_4000_characters_of_any_script_fits(service: Service) -> None:
    widest = "\N{FOX FACE}" * 4000
    job = await submit(service, prompt=widest, negative_prompt=widest)
    record = service.store.record(job.record_id)
    assert record is not None
    assert (widest, widest) == (record.order.prompt, record.order.negative_prompt)


async def test_a_body_beyond_the_limit_is_not_read(service: Service) -> None:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.post(SUBMIT_PATH, content=b"a" * (MAX_BODY + 1))
    assert 413 == answer.status_code


async def test_a_job_without_a_seed_gets_one(service: Service) -> None:
    seeds = [(await submit(service)).seed for _ in range(5)]
    assert all(seed is not None and 9999 <= seed <= 99_999_999 for seed in seeds)
    assert 5 == len(set(seeds))


# The life of a job


async def test_a_job_walks_through_its_statuses_by_the_clock(
    service: Service, clock: Clock
) -> None:
    job = await submit(service)
    service.finish_drawing()
    told = [job.status]
    for _ in range(5):
        clock.now += 1.0
        told.append((await look(service, job.record_id)).status)
    assert ["IN_QUEUE"] * 2 + ["IN_PROGRESS"] * 3 + ["DONE"] == told


async def test_the_answer_has_the_captured_shape_before_and_after_done(
    service: Service, clock: Clock
) -> None:
    token = (await sign_up(service)).id_token.reveal()
    async with calling(service, token) as client:
        before = (await client.post(SUBMIT_PATH, data={**FORM, "seed": "77"})).json()
        service.finish_drawing()
        clock.now += 5
        after = (await client.get(status_path(before["record_id"]))).json()
    name = f"{before['record_id']}-0.png"
    assert {
        "record_id": before["record_id"],
        "status": "IN_QUEUE",
        "response": None,
        "error_code": None,
        "error_details": None,
        "seed": 77,
    } == before
    assert {**before, "status": "DONE", "response": after["response"]} == after
    assert 2 == len(after["response"])
    assert {
        "name": name,
        "url": f"http://127.0.0.1:7/images/{name}",
        "isBlur": False,
        "MIME": "image/png",
    } == after["response"][0]


async def test_done_is_not_told_while_a_picture_is_still_being_drawn(
    tmp_path: Path, clock: Clock
) -> None:
    go = threading.Event()

    def slow(order: Order) -> bytes:
        go.wait(30)
        return paint(order)

    service = Service(tmp_path, engine=slow, clock=clock)
    job = await submit(service)
    clock.now += 1000
    assert "IN_PROGRESS" == (await look(service, job.record_id)).status
    go.set()
    service.finish_drawing()
    assert "DONE" == (await look(service, job.record_id)).status


async def test_a_process_that_died_leaves_its_pictures_to_the_next(
    tmp_path: Path, clock: Clock
) -> None:
    dying = Service(tmp_path, engine=paint, clock=clock)
    dying.close()
    job = await submit(dying)
    clock.now += 86400
    assert "IN_PROGRESS" == (await look(dying, job.record_id)).status
    heir = Service(tmp_path, engine=paint, clock=clock)
    assert "IN_PROGRESS" == (await look(heir, job.record_id)).status
    heir.finish_drawing()
    assert "DONE" == (await look(heir, job.record_id)).status


async def test_an_engine_that_fails_ends_the_job_with_its_words(
    tmp_path: Path, clock: Clock
) -> None:
    def broken(order: Order) -> bytes:
        raise OSError("out of paint")

    service = Service(tmp_path, engine=broken, clock=clock)
    job = await submit(service)
    service.finish_drawing()
    clock.now += 1000
    failed = await look(service, job.record_id)
    assert ("FAILED", "ENGINE") == (failed.status, failed.error_code)
    assert "out of paint" in (failed.error_details or "")


async def test_the_engine_is_told_the_whole_order_and_the_pictures_number(
    tmp_path: Path, clock: Clock
) -> None:
    drawn: list[Order] = []

    def noting(order: Order) -> bytes:
        drawn.append(order)
        return paint(order)

    service = Service(tmp_path, engine=noting, clock=clock)
    job = await submit(service, style="3D Logo", seed="5", aspect_ratio="9:21")
    service.finish_drawing()
    first = Order("a red fox in snow", "", "3D Logo", "logo", 5, 0, "9:21")
    assert [first, replace(first, index=1)] == sorted(drawn, key=lambda order: order.index)
    assert 5 == job.seed


@pytest.mark.parametrize(
    "name", ["0" * 32, "0" * 31, "A" * 32, "..", "%2e%2e%2fsecret", "..%5csecret", "secret%00"]
)
async def test_an_unknown_record_is_not_found_and_no_name_reaches_the_disk(
    service: Service, name: str
) -> None:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.get(f"{SUBMIT_PATH}/{name}/status")
    assert 404 == answer.status_code
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"order":{}}', b'{"order":{"style":1}}'])
async def test_a_damaged_record_is_the_same_as_none(service: Service, damage: bytes) -> None:
    job = await submit(service)
    (service.folder / "records" / f"{job.record_id}.json").write_bytes(damage)
    assert service.store.record(job.record_id) is None


async def test_the_oldest_records_go_when_there_are_too_many(tmp_path: Path) -> None:
    service = Service(tmp_path, engine=paint, keep=3)
    jobs: list[str] = []
    for age in range(9, 4, -1):
        jobs.append((await submit(service)).record_id)
        service.finish_drawing()
        written = time.time() - age
        path = tmp_path / "records" / f"{jobs[-1]}.json"
        if path.exists():
            os.utime(path, (written, written))
    assert set(jobs[-3:]) == set(service.jobs)
    pictures = {path.name[:32] for path in (tmp_path / "images").iterdir()}
    assert set(jobs[-3:]) == pictures


# Pictures, styles, health


async def test_pictures_are_served_to_anyone_and_a_token_sent_there_is_a_leak(
    service: Service, clock: Clock
) -> None:
    job = await submit(service)
    service.finish_drawing()
    clock.now += 5
    url = (await look(service, job.record_id)).images[1].url
    async with calling(service) as client:
        answer = await client.get(url)
        assert (200, "image/png") == (answer.status_code, answer.headers["content-type"])
        assert b"index=1" in answer.content
        assert 0 == service.seen["leaks"]
        await client.get(url, headers={"Authorization": "t"})
    assert (2, 1) == (service.seen["image"], service.seen["leaks"])


@pytest.mark.parametrize("name", ["secret", "..%2fsecret", "0-0.png", f"{'0' * 32}-0.png"])
async def test_what_is_no_picture_is_not_found(service: Service, name: str) -> None:
    async with calling(service) as client:
        assert 404 == (await client.get(f"/images/{name}")).status_code


@pytest.mark.parametrize("path", [STYLES_PATH, f"/contentcdnhub.com{STYLES_PATH}"])
async def test_the_style_list_is_the_shipped_one(service: Service, path: str) -> None:
    async with calling(service) as client:
        names = parse_styles((await client.get(path)).content)
    assert {style.name for style in SHIPPED.styles} == set(names)


async def test_the_door_says_that_the_service_is_ready(service: Service) -> None:
    async with calling(service) as client:
        assert {"artaService": {"ready": True, "jobs": 0}} == (await client.get("/")).json()
        assert {"detail": "Not Found"} == (await client.get("/nowhere")).json()
        assert 405 == (await client.get(SUBMIT_PATH)).status_code


# What it remembers of what it saw


async def test_every_request_is_counted_and_logged_in_the_folder(
    service: Service, clock: Clock
) -> None:
    job = await submit(service)
    await look(service, job.record_id)
    expected = [
        Event(clock.now, "sign_up", 200),
        Event(clock.now, "submit", 200, job.record_id),
        Event(clock.now, "sign_up", 200),
        Event(clock.now, "status", 200, job.record_id),
    ]
    lines = (service.folder / "service.log").read_text(encoding="utf-8").splitlines()
    assert {"sign_up": 2, "submit": 1, "status": 1} == service.seen
    assert expected == list(service.log)
    assert expected == [Event(**json.loads(line)) for line in lines]


async def test_the_log_holds_neither_tokens_nor_prompts(service: Service) -> None:
    tokens = await sign_up(service)
    await refresh(service, tokens.refresh_token.reveal())
    async with calling(service, tokens.id_token.reveal()) as client:
        await client.post(SUBMIT_PATH, data=FORM)
        await client.get(f"{SUBMIT_PATH}/{tokens.id_token.reveal()}/status")
    log = (service.folder / "service.log").read_text(encoding="utf-8")
    for secret in (tokens.id_token.reveal(), tokens.refresh_token.reveal(), FORM["prompt"]):
        assert secret not in log
    assert 4 == len(log.splitlines())


def test_a_log_that_has_grown_too_long_is_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    for number in range(5):
        append(log, f"line {number}", limit=10)
    assert "line 4\n" == log.read_text(encoding="utf-8")
    assert "line 2\nline 3\n" == (tmp_path / "service.log.1").read_text(encoding="utf-8")


async def test_only_the_owner_can_read_the_folder_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = tmp_path / "service"
        service = Service(folder, engine=paint)
        await submit(service)
        service.finish_drawing()
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    folders = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_dir()}
    assert ({0o600}, {0o700}) == (modes, folders | {folder.stat().st_mode & 0o777})


def test_processes_that_start_together_share_one_secret(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from arta_mcp.local.store import Claims, Store; "
        "print(Store(Path(sys.argv[1]), keep=9).sign(Claims('id', 'u', 0, 1.0)))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    tokens = [process.communicate()[0].strip() for process in started]
    store = Service(tmp_path).store
    assert [Claims("id", "u", 0, 1.0)] * 8 == [store.read(token) for token in tokens]


def test_drafts_of_killed_processes_are_swept_once_they_are_old(tmp_path: Path) -> None:
    Service(tmp_path)
    old, new = (tmp_path / "records" / name for name in (".a.draft", ".b.draft"))
    old.touch()
    new.touch()
    os.utime(old, (1, 1))
    Service(tmp_path)
    assert (False, True) == (old.exists(), new.exists())


# On a port


def test_a_job_on_a_real_port_ends_with_pictures_that_open(tmp_path: Path) -> None:
    from PIL import Image

    service = Service(tmp_path, queue=0, draw=0)
    with Running(service) as running, httpx.Client(base_url=running.base_url) as client:
        tokens = Tokens.parse(client.post(SIGN_UP_PATHS[0], params={"key": "k"}).content)
        client.headers["Authorization"] = tokens.id_token.reveal()
        job = Job.parse(client.post(SUBMIT_PATH, data={**FORM, "aspect_ratio": "16:9"}).content)
        service.finish_drawing()
        done = Job.parse(client.get(status_path(job.record_id)).content)
        pictures = [httpx.get(image.url).content for image in done.images]
    sizes = [Image.open(io.BytesIO(picture)).size for picture in pictures]
    assert [running.base_url] * 2 == [image.url.partition("/images/")[0] for image in done.images]
    assert 2 == len(sizes)
    assert all(width > height for width, height in sizes)


def test_the_port_of_the_last_time_is_taken_again(tmp_path: Path) -> None:
    with Running(Service(tmp_path)) as first:
        pass
    with Running(Service(tmp_path)) as second:
        assert first.base_url == second.base_url
        with Running(Service(tmp_path)) as third:
            assert second.base_url != third.base_url
            assert 200 == httpx.get(third.base_url).status_code


@pytest.mark.parametrize("remembered", ["", "port", "99999999", "-1", "\udc80"])
def test_a_damaged_port_file_means_any_free_port(tmp_path: Path, remembered: str) -> None:
    (tmp_path / "port").write_text(remembered, encoding="utf-8", errors="surrogateescape")
    with Running(Service(tmp_path)) as running:
        assert 200 == httpx.get(running.base_url).status_code


def test_a_port_that_is_asked_for_and_taken_is_an_error(tmp_path: Path) -> None:
    with Running(Service(tmp_path)) as running:
        port = int(running.base_url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"), Running(Service(tmp_path), port=port):
            pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", ""])
def test_it_listens_on_loopback_only(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match="loopback only"):
        Running(Service(tmp_path), host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_any_loopback_host_will_do(tmp_path: Path, host: str) -> None:
    with Running(Service(tmp_path), host=host) as running:
        assert 200 == httpx.get(running.base_url).status_code


def test_a_page_that_rebinds_its_name_to_loopback_is_turned_away(tmp_path: Path) -> None:
    with Running(Service(tmp_path)) as running:
        for host in ("evil.example", "127.0.0.1.evil.example", "[", ""):
            assert 200 != httpx.get(running.base_url, headers={"Host": host}).status_code
        assert 200 == httpx.get(running.base_url, headers={"Host": "localhost:1"}).status_code


def test_it_stops_at_once_whatever_is_still_going_on(tmp_path: Path) -> None:
    go = threading.Event()
    lost: list[Exception] = []

    def slow(order: Order) -> bytes:
        go.wait(30)
        return paint(order)

    def wait_for_styles() -> None:
        try:
            httpx.get(running.base_url + STYLES_PATH, timeout=30)
        except httpx.HTTPError as exc:
            lost.append(exc)

    service = Service(tmp_path, engine=slow, faults=[Fault("slow-headers", "styles", value="60")])
    running = Running(service).__enter__()
    with httpx.Client(base_url=running.base_url) as idle:
        tokens = Tokens.parse(idle.post(SIGN_UP_PATHS[0], params={"key": "k"}).content)
        headers = {"Authorization": tokens.id_token.reveal()}
        assert 200 == idle.post(SUBMIT_PATH, data=FORM, headers=headers).status_code
        waiting = threading.Thread(target=wait_for_styles)
        waiting.start()
        while not service.seen["styles"]:
            pass
        begun = time.monotonic()
        running.close()
        assert time.monotonic() - begun < 2
    waiting.join(30)
    go.set()
    assert 1 == len(lost)
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.base_url)


def test_a_shut_door_refuses_connections_and_opens_at_the_same_port(tmp_path: Path) -> None:
    with Running(Service(tmp_path)) as running, httpx.Client(base_url=running.base_url) as client:
        assert 200 == client.get("/").status_code
        with running.refused(), pytest.raises(httpx.TransportError):
            client.get("/")
        with running.refused(), pytest.raises(httpx.ConnectError):
            httpx.get(running.base_url)
        assert 200 == client.get("/").status_code


@pytest.mark.parametrize(("sent", "expected"), [(signal.SIGINT, 0), (signal.SIGTERM, -15)])
def test_alone_it_serves_until_it_is_told_to_stop_and_prints_nothing(
    tmp_path: Path, sent: signal.Signals, expected: int
) -> None:
    script = (
        "import sys; from functools import partial; from pathlib import Path; "
        "from arta_mcp.local.running import run_forever; "
        "from arta_mcp.local.service import Service; "
        "run_forever(Service(Path(sys.argv[1])), on_ready=partial(print, flush=True))"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert 200 == httpx.get(url).status_code
        process.send_signal(sent)
        rest = process.communicate(timeout=30)
    assert (("", ""), expected) == (rest, process.returncode)
