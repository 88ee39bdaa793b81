from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from arta_mcp.arta.protocol import (
    SUBMIT_PATH,
    Submit,
    status_path,
)
from arta_mcp.engines.base import ImageRequest
from arta_mcp.engines.sketch.drawing import MAX_THREADS, SWITCH_INTERVAL
from arta_mcp.local.service import Event
from arta_mcp.local.store import Claims, Record, append
from harness.service import ScriptedService
from harness.service_calls import FORM, Clock, calling, paint, poll_job, refresh, sign_up, submit

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(tmp_path: Path, clock: Clock) -> Iterator[ScriptedService]:
    service = ScriptedService(tmp_path, engine=paint, queue=2.0, draw=3.0, clock=clock)
    yield service
    service.close()


# The life of a job


async def test_a_job_walks_through_its_statuses_by_the_clock(
    service: ScriptedService, clock: Clock
) -> None:
    job = await submit(service)
    service.finish_drawing()
    told = [job.status]
    for _ in range(5):
        clock.now += 1.0
        told.append((await poll_job(service, job.record_id)).status)
    assert told == ["IN_QUEUE"] * 2 + ["IN_PROGRESS"] * 3 + ["DONE"]


async def test_the_answer_has_the_captured_shape_before_and_after_done(
    service: ScriptedService, clock: Clock
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
    assert after.pop("local") == {
        "engine": "sketch",
        "engine_model": "arta-mcp sketch",
        "is_ai": False,
    }
    assert {**before, "status": "DONE", "response": after["response"]} == after
    assert len(after["response"]) == 2
    assert {
        "name": name,
        "url": f"http://127.0.0.1:7/images/{name}",
        "isBlur": False,
        "MIME": "image/png",
    } == after["response"][0]


async def test_done_is_not_told_while_a_picture_is_still_being_drawn(
    tmp_path: Path, clock: Clock
) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(request: ImageRequest) -> bytes:
        begun.set()
        go.wait(30)
        return paint(request)

    service = ScriptedService(tmp_path, engine=slow, clock=clock)
    job = await submit(service)
    clock.now += 1000
    assert begun.wait(30)
    assert (await poll_job(service, job.record_id)).status == "IN_PROGRESS"
    go.set()
    service.finish_drawing()
    assert (await poll_job(service, job.record_id)).status == "DONE"


async def test_a_job_that_waits_for_others_is_queued_and_told_its_place(
    tmp_path: Path, clock: Clock
) -> None:
    go = threading.Event()
    at_once: list[int] = []
    drawing: list[ImageRequest] = []

    def slow(request: ImageRequest) -> bytes:
        drawing.append(request)
        at_once.append(len(drawing))
        go.wait(30)
        drawing.remove(request)
        return paint(request)

    service = ScriptedService(tmp_path, engine=slow, clock=clock, queue=0, draw=0)
    jobs = [(await submit(service, images_num="1", seed=str(n))).record_id for n in range(6)]
    while not drawing:
        time.sleep(0.001)  # noqa: ASYNC251  # the threads that draw are no tasks

    async def tell() -> list[tuple[str, int | None]]:
        answers = [await poll_job(service, job, embedded=True) for job in jobs]
        return [(job.status, job.local.ahead if job.local else -1) for job in answers]

    told = await tell()
    begun = len([status for status, _ in told if status == "IN_PROGRESS"])
    assert 1 <= begun <= MAX_THREADS
    assert told[begun:] == [("IN_QUEUE", place) for place in range(begun, 6)]
    go.set()
    service.finish_drawing()
    assert await tell() == [("DONE", None)] * 6
    assert max(at_once) <= MAX_THREADS
    assert not service.workers.is_busy


async def test_the_least_times_are_none_for_a_job_that_comes_while_others_wait(
    tmp_path: Path,
) -> None:
    go = threading.Event()

    def slow(request: ImageRequest) -> bytes:
        go.wait(30)
        return paint(request)

    service = ScriptedService(tmp_path, engine=slow)
    jobs = [(await submit(service)).record_id for _ in range(2)]
    go.set()
    service.finish_drawing()
    jobs.append((await submit(service)).record_id)
    records = [service.store.record(job) for job in jobs]
    assert [(r.queue, r.draw) for r in records if r] == [(0.6, 1.0), (0.0, 0.0), (0.6, 1.0)]


async def test_what_is_no_png_fails_the_job_and_is_not_saved(tmp_path: Path, clock: Clock) -> None:
    def spoilt(request: ImageRequest) -> bytes:
        return b"<html>"

    service = ScriptedService(tmp_path, engine=spoilt, clock=clock)
    job = await submit(service)
    service.finish_drawing()
    clock.now += 1000
    assert "not a PNG" in ((await poll_job(service, job.record_id)).error_details or "")
    assert list((tmp_path / "images").iterdir()) == []


async def test_threads_get_their_turn_soon_while_something_is_drawn(tmp_path: Path) -> None:
    seen: list[float] = []

    def noting(request: ImageRequest) -> bytes:
        seen.append(sys.getswitchinterval())
        return paint(request)

    before = sys.getswitchinterval()
    service = ScriptedService(tmp_path, engine=noting)
    await submit(service)
    service.finish_drawing()
    assert seen == [SWITCH_INTERVAL] * 2
    assert sys.getswitchinterval() == before


async def test_a_process_that_died_leaves_its_pictures_to_the_next(
    tmp_path: Path, clock: Clock
) -> None:
    dying = ScriptedService(tmp_path, engine=paint, clock=clock)
    dying.close()
    job = await submit(dying)
    clock.now += 86400
    assert (await poll_job(dying, job.record_id)).status == "IN_PROGRESS"
    heir = ScriptedService(tmp_path, engine=paint, clock=clock)
    await poll_job(heir, job.record_id)
    heir.finish_drawing()
    assert (await poll_job(heir, job.record_id)).status == "DONE"


async def test_an_engine_that_fails_ends_the_job_with_its_words(
    tmp_path: Path, clock: Clock
) -> None:
    def broken(request: ImageRequest) -> bytes:
        raise OSError("out of paint")

    service = ScriptedService(tmp_path, engine=broken, clock=clock)
    job = await submit(service)
    service.finish_drawing()
    clock.now += 1000
    failed = await poll_job(service, job.record_id)
    assert (failed.status, failed.error_code) == ("FAILED", "ENGINE")
    assert "out of paint" in (failed.error_details or "")


async def test_the_engine_is_told_the_whole_order_and_the_pictures_number(
    tmp_path: Path, clock: Clock
) -> None:
    drawn: list[ImageRequest] = []

    def noting(request: ImageRequest) -> bytes:
        drawn.append(request)
        return paint(request)

    service = ScriptedService(tmp_path, engine=noting, clock=clock)
    job = await submit(service, style="3D Logo", seed="5", aspect_ratio="9:21")
    service.finish_drawing()
    first = ImageRequest("a red fox in snow", "", "3D Logo", "logo", 5, 0, "9:21", (672, 1568))
    assert [first, replace(first, index=1)] == sorted(drawn, key=lambda request: request.index)
    assert job.seed == 5


@pytest.mark.parametrize(
    "name", ["0" * 32, "0" * 31, "A" * 32, "..", "%2e%2e%2fsecret", "..%5csecret", "secret%00"]
)
async def test_an_unknown_record_is_not_found_and_no_name_reaches_the_disk(
    service: ScriptedService, name: str
) -> None:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.get(f"{SUBMIT_PATH}/{name}/status")
    assert answer.status_code == 404
    assert isinstance(answer.json()["detail"], str)


def test_a_record_of_the_first_version_is_read(tmp_path: Path) -> None:
    store = ScriptedService(tmp_path).store
    (tmp_path / "records" / f"{'b' * 32}.json").write_text(
        '{"record_id": "' + "b" * 32 + '", "user_id": "' + "a" * 32 + '", "created_at": 1.5,'
        ' "queue": 0.6, "draw": 1.0, "seed": 77, "order": {"prompt": "a fox", "negative_prompt":'
        ' "", "style": "Flux", "images_num": "2", "cfg_scale": "7", "steps": "30",'
        ' "aspect_ratio": "16:9"}}',
        encoding="utf-8",
    )
    submission = Submit(
        prompt="a fox",
        negative_prompt="",
        style="Flux",
        n=2,
        guidance_scale=7,
        num_inference_steps=30,
        aspect_ratio="16:9",
    )
    expected = Record("b" * 32, "a" * 32, 1.5, 0.6, 1.0, 77, submission)
    assert expected == store.record("b" * 32)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"order":{}}', b'{"order":{"style":1}}'])
async def test_a_damaged_record_is_the_same_as_none(
    service: ScriptedService, damage: bytes
) -> None:
    job = await submit(service)
    (service.folder / "records" / f"{job.record_id}.json").write_bytes(damage)
    assert service.store.record(job.record_id) is None


async def test_the_oldest_records_go_when_there_are_too_many(tmp_path: Path) -> None:
    service = ScriptedService(tmp_path, engine=paint, keep=3)
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


async def test_sketches_make_room_by_size_and_are_told_as_removed(tmp_path: Path) -> None:
    def large(request: ImageRequest) -> bytes:
        return paint(request) + bytes(100_000)

    service = ScriptedService(tmp_path, engine=large, keep_bytes=500_000, queue=0, draw=0)
    jobs: list[str] = []
    for age in range(9, 0, -1):
        jobs.append((await submit(service, images_num="1")).record_id)
        service.finish_drawing()
        written = time.time() - age
        os.utime(tmp_path / "records" / f"{jobs[-1]}.json", (written, written))
    pictures = {path.name[:32] for path in (tmp_path / "images").iterdir()}
    assert set(jobs[-5:]) <= pictures
    assert jobs[0] not in pictures
    assert len(pictures) <= 6
    token = (await sign_up(service)).id_token.reveal()
    async with calling(service, token) as client:
        for path in (status_path(jobs[0]), f"/images/{jobs[0]}-0.png"):
            answer = await client.get(path)
            expected = "this sketch was removed to make room, or with `history --prune`"
            assert (answer.status_code, answer.json()) == (410, {"detail": expected})
        assert (await client.get(f"/images/{'0' * 32}-0.png")).status_code == 404


async def test_what_is_not_drawn_yet_or_is_of_another_engine_makes_no_room(tmp_path: Path) -> None:
    go = threading.Event()

    def slow(request: ImageRequest) -> bytes:
        go.wait(30)
        return paint(request)

    service = ScriptedService(tmp_path, engine=slow, keep=2, keep_bytes=1)
    jobs = [(await submit(service)).record_id for _ in range(6)]
    assert set(jobs) == set(service.jobs)
    go.set()
    service.finish_drawing()
    path = tmp_path / "records" / f"{jobs[0]}.json"
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "engine": "diffusers"}), encoding="utf-8")
    await submit(service)
    assert jobs[0] in service.jobs
    assert service.store.picture(f"{jobs[0]}-0.png") is not None
    assert not set(jobs[1:]) & set(service.jobs)


# Pictures


async def test_pictures_are_served_to_anyone_and_a_token_sent_there_is_a_leak(
    service: ScriptedService, clock: Clock
) -> None:
    job = await submit(service)
    service.finish_drawing()
    clock.now += 5
    url = (await poll_job(service, job.record_id)).images[1].url
    async with calling(service) as client:
        answer = await client.get(url)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert b"index=1" in answer.content
        assert service.seen["leaks"] == 0
        await client.get(url, headers={"Authorization": "t"})
    assert (service.seen["image"], service.seen["leaks"]) == (2, 1)


@pytest.mark.parametrize("name", ["secret", "..%2fsecret", "0-0.png", f"{'0' * 32}-0.png"])
async def test_what_is_no_picture_is_not_found(service: ScriptedService, name: str) -> None:
    async with calling(service) as client:
        assert (await client.get(f"/images/{name}")).status_code == 404


# What it remembers of what it saw


async def test_every_request_is_counted_and_logged_in_the_folder(
    service: ScriptedService, clock: Clock
) -> None:
    job = await submit(service)
    await poll_job(service, job.record_id)
    expected = [
        Event(clock.now, "sign_up", 200),
        Event(clock.now, "submit", 200, job.record_id),
        Event(clock.now, "sign_up", 200),
        Event(clock.now, "status", 200, job.record_id),
    ]
    lines = (service.folder / "service.log").read_text(encoding="utf-8").splitlines()
    assert service.seen == {"sign_up": 2, "submit": 1, "status": 1}
    assert expected == list(service.log)
    assert expected == [Event(**json.loads(line)) for line in lines]


async def test_the_log_holds_neither_tokens_nor_prompts(service: ScriptedService) -> None:
    tokens = await sign_up(service)
    await refresh(service, tokens.refresh_token.reveal())
    async with calling(service, tokens.id_token.reveal()) as client:
        await client.post(SUBMIT_PATH, data=FORM)
        await client.get(f"{SUBMIT_PATH}/{tokens.id_token.reveal()}/status")
    log = (service.folder / "service.log").read_text(encoding="utf-8")
    for secret in (tokens.id_token.reveal(), tokens.refresh_token.reveal(), FORM["prompt"]):
        assert secret not in log
    assert len(log.splitlines()) == 4


def test_a_log_that_has_grown_too_long_is_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    for number in range(5):
        append(log, f"line {number}", limit=10)
    assert log.read_text(encoding="utf-8") == "line 4\n"
    assert (tmp_path / "service.log.1").read_text(encoding="utf-8") == "line 2\nline 3\n"


async def test_only_the_owner_can_read_the_folder_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = tmp_path / "service"
        service = ScriptedService(folder, engine=paint)
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
    store = ScriptedService(tmp_path).store
    assert [Claims("id", "u", 0, 1.0)] * 8 == [store.read(token) for token in tokens]


def test_drafts_of_killed_processes_are_swept_once_they_are_old(tmp_path: Path) -> None:
    ScriptedService(tmp_path)
    old, new = (tmp_path / "records" / name for name in (".a.draft", ".b.draft"))
    old.touch()
    new.touch()
    os.utime(old, (1, 1))
    ScriptedService(tmp_path)
    assert (old.exists(), new.exists()) == (False, True)
