from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import pytest

from arta_mcp.arta.protocol import (
    REFRESH_PATH,
    SIGN_UP_PATHS,
    STYLES_PATH,
    SUBMIT_PATH,
    Job,
    SignUp,
    Submit,
    Tokens,
    parse_styles,
    status_path,
)
from arta_mcp.local.service import MAX_BODY
from arta_mcp.local.store import MAX_ACCOUNTS, Claims
from arta_mcp.styles import SHIPPED
from harness.service import ScriptedService
from harness.service_calls import FORM, Clock, calling, code, paint, refresh, sign_up, submit

pytestmark = pytest.mark.anyio

ID_TOKEN_OF_0_1_0 = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0eXAiOiAiaWQiLCAic3ViIjogIjAxMjM0NTY3ODlhYmNkZWYwMTIz"
    "NDU2Nzg5YWJjZGVmIiwgInNlciI6IDMsICJleHAiOiAxNzAwMDAwMDAwLjUsICJqdGkiOiAiZDM1ZTgxNmViZTI2OWE3OC"
    "J9.4I_leFnOkxTvjU3WWI7441Sa32q8RnBmNtx_8M2B8vA"
)
REFRESH_TOKEN_OF_0_1_0 = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0eXAiOiAicmVmcmVzaCIsICJzdWIiOiAiMDEyMzQ1Njc4OWFiY2Rl"
    "ZjAxMjM0NTY3ODlhYmNkZWYiLCAic2VyIjogMywgImV4cCI6IDAuMCwgImp0aSI6ICJhYjQ5NzU4ZmRjMjZjYTE0In0.4S"
    "OWnV7B3tIop8-Jbh9cTQC85cvUC-qdZqlLLgoN5U8"
)
"""signed by the hand-made code of 0.1.0 with the bytes 0 to 31 for a secret"""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(tmp_path: Path, clock: Clock) -> Iterator[ScriptedService]:
    service = ScriptedService(tmp_path, engine=paint, queue=2.0, draw=3.0, clock=clock)
    yield service
    service.close()


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
    service: ScriptedService, path: str, body: bytes | str
) -> None:
    async with calling(service) as client:
        answer = await client.post(path, params={"key": "any"}, content=body)
    tokens = Tokens.parse(answer.content)
    assert answer.status_code == 200
    assert (tokens.user_id,) == service.accounts
    assert tokens.expires_in == 3600.0
    assert answer.json()["expiresIn"] == "3600"


@pytest.mark.parametrize("path", [*SIGN_UP_PATHS, REFRESH_PATH])
async def test_a_call_without_a_key_is_forbidden_in_googles_words(
    service: ScriptedService, path: str
) -> None:
    async with calling(service) as client:
        answer = await client.post(path)
        with_header = await client.post(path, headers={"x-goog-api-key": "k"})
    assert (answer.status_code, answer.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
    assert answer.json()["error"]["message"] == "The request is missing a valid API key."
    assert with_header.status_code != 403


@pytest.mark.parametrize("path", [*SIGN_UP_PATHS, REFRESH_PATH])
async def test_broken_json_is_refused_and_opens_no_account(
    service: ScriptedService, path: str
) -> None:
    async with calling(service) as client:
        answer = await client.post(path, params={"key": "k"}, content=b'{"clientType":')
    assert (answer.status_code, code(answer)) == (400, "INVALID_ARGUMENT")
    assert service.accounts == ()


@pytest.mark.parametrize("path", [REFRESH_PATH, f"/securetoken.googleapis.com{REFRESH_PATH}"])
@pytest.mark.parametrize("style", ["form", "snake", "camel"])
async def test_a_refresh_in_any_spelling_gives_an_id_token_of_the_same_account(
    service: ScriptedService, path: str, style: str
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
    assert len(service.accounts) == 1


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (ScriptedService.delete, "USER_NOT_FOUND"),
        (ScriptedService.disable, "USER_DISABLED"),
        (ScriptedService.expire, "TOKEN_EXPIRED"),
    ],
)
async def test_a_refresh_token_ends_with_its_account(
    service: ScriptedService, spoil: Callable[[ScriptedService, str], None], expected: str
) -> None:
    tokens = await sign_up(service)
    spoil(service, tokens.user_id)
    answer = await refresh(service, tokens.refresh_token.reveal())
    assert (400, expected) == (answer.status_code, code(answer))


async def test_a_request_for_a_refresh_that_is_wrong_itself_is_told_what_is_wrong(
    service: ScriptedService,
) -> None:
    tokens = await sign_up(service)
    token = tokens.refresh_token.reveal()
    assert code(await refresh(service, "garbage")) == "INVALID_REFRESH_TOKEN"
    assert code(await refresh(service, token[:-2])) == "INVALID_REFRESH_TOKEN"
    assert code(await refresh(service, tokens.id_token.reveal())) == "INVALID_REFRESH_TOKEN"
    assert code(await refresh(service, "")) == "MISSING_REFRESH_TOKEN"
    assert code(await refresh(service, token, grant_type="password")) == "INVALID_GRANT_TYPE"
    assert code(await refresh(service, token, grant_type="")) == "MISSING_GRANT_TYPE"


async def test_refresh_tokens_live_on_unless_the_service_rotates_them(
    service: ScriptedService, tmp_path: Path
) -> None:
    first = (await sign_up(service)).refresh_token.reveal()
    assert (await refresh(service, first)).status_code == 200
    assert (await refresh(service, first)).status_code == 200
    rotating = ScriptedService(tmp_path, rotate=True)
    second = Tokens.parse((await refresh(rotating, first)).content).refresh_token.reveal()
    assert code(await refresh(rotating, first)) == "TOKEN_EXPIRED"
    assert (await refresh(rotating, second)).status_code == 200


# Who may submit and look


@pytest.mark.parametrize("how", ["none", "garbage", "refresh", "stale", "forged", "refused"])
async def test_only_a_fresh_id_token_of_ours_opens_the_image_host(
    service: ScriptedService, clock: Clock, how: str
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
    assert [answer.status_code for answer in answers] == [401, 401]
    assert all(isinstance(answer.json()["detail"], str) for answer in answers)
    assert service.jobs == ()


async def test_a_token_is_good_in_every_process_on_the_folder(
    service: ScriptedService, tmp_path: Path, clock: Clock
) -> None:
    token = (await sign_up(service)).id_token.reveal()
    other = ScriptedService(tmp_path, engine=paint, clock=clock)
    async with calling(other, token) as client:
        assert (await client.post(SUBMIT_PATH, data=FORM)).status_code == 200
    assert service.jobs == other.jobs
    assert len(service.jobs) == 1


async def test_a_token_of_another_folder_is_foreign(
    service: ScriptedService, tmp_path: Path
) -> None:
    other = ScriptedService(tmp_path / "other", engine=paint)
    token = other.store.sign(Claims("id", "0" * 32, 0, 2e12))
    async with calling(service, token) as client:
        assert (await client.get(status_path("0" * 32))).status_code == 401


async def test_tokens_that_the_first_version_signed_are_still_good(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(range(32)))
    user = "0123456789abcdef0123456789abcdef"
    store = ScriptedService(tmp_path).store
    assert store.read(ID_TOKEN_OF_0_1_0) == Claims("id", user, 3, 1_700_000_000.5)
    assert store.read(REFRESH_TOKEN_OF_0_1_0) == Claims("refresh", user, 3, 0.0)
    assert (tmp_path / "secret").read_bytes() == bytes(range(32))


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "\ud83d", "\u0663.\u0664.\u0665"])
async def test_a_token_may_be_any_text(service: ScriptedService, token: str) -> None:
    assert service.store.read(token) is None


async def test_a_token_that_says_it_needs_no_signature_is_foreign(service: ScriptedService) -> None:
    token = jwt.encode({"typ": "id", "sub": "0" * 32, "ser": 0, "exp": 2e12}, "", algorithm="none")
    assert service.store.read(token) is None


@pytest.mark.parametrize("kind", ["empty", "short", "long", "link", "folder"])
async def test_a_secret_that_is_not_of_our_making_is_made_anew(tmp_path: Path, kind: str) -> None:
    secret, elsewhere = tmp_path / "secret", tmp_path / "elsewhere"
    elsewhere.write_bytes(bytes(range(32)))
    match kind:
        case "link":
            secret.symlink_to(elsewhere)
        case "folder":
            secret.mkdir()
            (secret / "file").touch()
        case _:
            secret.write_bytes({"empty": b"", "short": b"a" * 31, "long": b"a" * 33}[kind])
    store = ScriptedService(tmp_path).store
    claims = Claims("id", "0" * 32, 0, 2e12)
    assert store.read(store.sign(claims)) == claims
    assert len(secret.read_bytes()) == 32
    assert not secret.is_symlink()
    assert elsewhere.read_bytes() == bytes(range(32))
    assert ScriptedService(tmp_path).store.read(store.sign(claims)) == claims


async def test_accounts_are_bounded_and_one_in_use_is_not_forgotten(
    service: ScriptedService,
) -> None:
    used = await sign_up(service)
    folder = service.folder / "accounts"
    for number in range(MAX_ACCOUNTS + 50):
        path = folder / f"{number:032x}.json"
        path.write_text("{}", encoding="utf-8")
        os.utime(path, (number, number))
    os.utime(folder / f"{used.user_id}.json", (1, 1))
    assert (await refresh(service, used.refresh_token.reveal())).status_code == 200
    for _ in range(MAX_ACCOUNTS // 20):
        await sign_up(service)
    assert len(service.accounts) <= MAX_ACCOUNTS + MAX_ACCOUNTS // 20
    assert used.user_id in service.accounts


# Orders


@pytest.mark.parametrize("path", [SUBMIT_PATH, f"/img-gen-prod.ai-arta.com{SUBMIT_PATH}"])
async def test_both_encodings_of_a_form_order_the_same_job(
    service: ScriptedService, path: str
) -> None:
    order = Submit(prompt="füchse & co. \u202e", style="Vincent Van Gogh", n=3, seed=4294967295)
    parts = {name: (None, value) for name, value in order.form().items()}
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        urlencoded = Job.parse((await client.post(path, data=order.form())).content)
        multipart = Job.parse((await client.post(path, files=parts)).content)
    records = [service.store.record(job.record_id) for job in (urlencoded, multipart)]
    assert [order, order] == [record.submission for record in records if record]
    assert [urlencoded.seed, multipart.seed] == [4294967295] * 2
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
    service: ScriptedService, name: str, value: str
) -> None:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.post(SUBMIT_PATH, data={**FORM, name: value})
    assert answer.status_code == 422
    assert [["body", name]] == [entry["loc"] for entry in answer.json()["detail"]]
    assert service.jobs == ()


async def test_a_json_body_is_no_form_and_lacks_every_field(service: ScriptedService) -> None:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.post(SUBMIT_PATH, json=FORM)
    assert (answer.status_code, answer.json()["detail"][0]["msg"]) == (422, "Field required")


async def test_multipart_without_a_boundary_is_a_bad_request(service: ScriptedService) -> None:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.post(
            SUBMIT_PATH, content=b"prompt=a", headers={"Content-Type": "multipart/form-data"}
        )
    assert (
        answer.status_code,
        answer.json(),
    ) == (400, {"detail": "Missing boundary in multipart."})


async def test_an_unknown_style_is_answered_with_every_valid_one(service: ScriptedService) -> None:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.post(SUBMIT_PATH, data={**FORM, "style": "SDXL 1.0"})
    message = answer.json()["detail"][0]["msg"]
    assert answer.status_code == 422
    assert message.startswith("Value error, Style SDXL 1.0 not in frozenset({")
    assert [style.name for style in SHIPPED.styles if repr(style.name) not in message] == []


async def test_a_prompt_of_4000_characters_of_any_script_fits(service: ScriptedService) -> None:
    widest = "\N{FOX FACE}" * 4000
    job = await submit(service, prompt=widest, negative_prompt=widest)
    record = service.store.record(job.record_id)
    assert record is not None
    assert (widest, widest) == (record.submission.prompt, record.submission.negative_prompt)


async def test_a_body_beyond_the_limit_is_not_read(service: ScriptedService) -> None:
    async with calling(service, (await sign_up(service)).id_token.reveal()) as client:
        answer = await client.post(SUBMIT_PATH, content=b"a" * (MAX_BODY + 1))
    assert answer.status_code == 413


async def test_a_job_without_a_seed_gets_one(service: ScriptedService) -> None:
    seeds = [(await submit(service)).seed for _ in range(5)]
    assert all(seed is not None and 9999 <= seed <= 99_999_999 for seed in seeds)
    assert len(set(seeds)) == 5


# Styles, and the door


@pytest.mark.parametrize("path", [STYLES_PATH, f"/contentcdnhub.com{STYLES_PATH}"])
async def test_the_style_list_is_the_shipped_one(service: ScriptedService, path: str) -> None:
    async with calling(service) as client:
        names = parse_styles((await client.get(path)).content)
    assert {style.name for style in SHIPPED.styles} == set(names)


async def test_the_door_says_that_the_service_is_ready(service: ScriptedService) -> None:
    async with calling(service) as client:
        assert (await client.get("/")).json() == {"artaService": {"ready": True, "jobs": 0}}
        assert (await client.get("/nowhere")).json() == {"detail": "Not Found"}
        assert (await client.get(SUBMIT_PATH)).status_code == 405
