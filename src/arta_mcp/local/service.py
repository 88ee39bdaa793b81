"""The embedded service: every host of the ARTA API in one ASGI app, mirroring `protocol`."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from email.utils import formatdate
from functools import partial
from pathlib import Path

import anyio
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from arta_mcp.arta.protocol import (
    REFRESH_PATH,
    SIGN_UP_PATHS,
    STYLES_PATH,
    SUBMIT_PATH,
    Image,
    Job,
    LocalDetails,
    Refresh,
    SignUp,
    Submit,
    Tokens,
    render_styles,
)
from arta_mcp.arta.refusals import Refusal, style_refusal
from arta_mcp.engines.base import Engine
from arta_mcp.engines.recipes import Recipes
from arta_mcp.engines.sketch.drawing import SketchEngine
from arta_mcp.engines.sketch.gaps import name_gaps
from arta_mcp.errors import ProtocolError
from arta_mcp.local.address import FolderAddress
from arta_mcp.local.store import (
    ID,
    KEEP_BYTES,
    KEEP_RECORDS,
    Claims,
    Record,
    ServiceAccount,
    Store,
    append,
    picture_name,
)
from arta_mcp.local.workers import DrawingWorkers
from arta_mcp.redaction import Secret
from arta_mcp.styles import SHIPPED
from arta_mcp.untrusted_json import is_object, json_or_none, text

_ENDPOINTS = (
    ("sign_up", "POST", SIGN_UP_PATHS, ("/www.googleapis.com", "/identitytoolkit.googleapis.com")),
    ("refresh", "POST", (REFRESH_PATH,), ("/securetoken.googleapis.com",)),
    ("submit", "POST", (SUBMIT_PATH,), ("/img-gen-prod.ai-arta.com",)),
    ("status", "GET", (f"{SUBMIT_PATH}/{{record_id}}/status",), ("/img-gen-prod.ai-arta.com",)),
    ("styles", "GET", (STYLES_PATH,), ("/contentcdnhub.com",)),
    ("image", "GET", ("/images/{name}",), ()),
)
"""name (of a method of `Service`), HTTP method, paths, and the hosts that have them"""

PROJECT = "100000000000"
"""the project number that a refresh names; ours is nobody's"""

MAX_BODY = 128 * 1024
"""bytes of a request; two texts of 4,000 characters take up to 96 kB once they are urlencoded"""

SKETCH = "sketch"
"""the engine that draws by rules; every other one is an AI model"""

LEAST_QUEUE, LEAST_DRAW = 0.6, 1.0
"""seconds that a job waits and is drawn at least, unless others wait"""

RETRY_AFTER = 1.0
"""seconds after which what lacked a file or a descriptor may be tried again"""

MAX_LOG = 1024 * 1024
"""bytes of `service.log` before it becomes `service.log.1`"""


@dataclass(frozen=True, slots=True)
class Event:
    """One request that the service saw; `status` is 0 when the connection ended without one."""

    at: float
    endpoint: str
    status: int
    record_id: str | None = None
    fault: str | None = None


class RefusalError(Exception):
    """What a method of `Service` raises to have `refusal` answered."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class Service:
    """One ASGI app on one folder.

    `queue` and `draw` are the least seconds a job waits and is drawn; not given, they are short
    ones, and none at all for a job that comes while others wait. `latency` is the seconds before
    each answer, `token_lifetime` those of an id token. `rotate` gives a new refresh token at each
    refresh and expires the one before. `engine` draws, the sketch where none is given; `recipes`
    are the words of styles for one that is a model. `keep` is how many records of sketches are
    kept, `keep_bytes` how much of their pictures.

    The way of a request:

        the app's route -> handle    latency, the body's limit, `service.log`
                        -> respond   which of the answers below; faults step in here
                        -> sign_up, refresh, submit, status, styles, image
    """

    def __init__(
        self,
        folder: Path,
        *,
        engine: Engine | None = None,
        recipes: Recipes | None = None,
        queue: float | None = None,
        draw: float | None = None,
        latency: float = 0.0,
        token_lifetime: float = 3600.0,
        rotate: bool = False,
        clock: Callable[[], float] = time.time,
        keep: int = KEEP_RECORDS,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self.queue, self.draw, self.latency = queue, draw, latency
        self.token_lifetime, self.rotate = token_lifetime, rotate
        self.clock, self.folder = clock, folder
        self.picture_address: FolderAddress | None = None
        """where pictures are said to lie; without one, where the caller asked"""
        self.store = Store(folder, keep=keep, keep_bytes=keep_bytes)
        self.workers = DrawingWorkers(self.store, engine or SketchEngine(), recipes=recipes)
        self.catalogue = recipes.catalogue if recipes else SHIPPED
        routes = [Route("/", self.health)]
        for endpoint, method, paths, hosts in _ENDPOINTS:
            answer = partial(self.handle, endpoint)
            # Below a host's name as well: so one port can stand for hosts that have equal paths.
            for path in (host + path for host in ("", *hosts) for path in paths):
                routes.append(Route(path, answer, methods=[method]))
        handlers = {HTTPException: _render_http_exception}
        self._app = Starlette(routes=routes, exception_handlers=handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = formatdate(self.clock(), usegmt=True)
                MutableHeaders(scope=message).setdefault("Date", date)
            await send(message)

        await self._app(scope, receive, send_dated)

    @property
    def jobs(self) -> tuple[str, ...]:
        """The record ids of every job made in this folder, by whichever process."""
        return self.store.records()

    def close(self) -> None:
        """Begin no further picture; who opens the folder next draws the rest."""
        self.workers.close()

    async def handle(self, endpoint: str, request: Request) -> Response:
        """The answer to a request, late by `latency` and noted in the log."""
        whole = await _read_whole(request)
        if self.latency:
            await anyio.sleep(self.latency)
        if whole is None:
            response = _render(Refusal(413, "Request body too large"))
        else:
            response = await self.respond(endpoint, whole)
        path = request.path_params
        named = path.get("record_id") or path.get("name", "").partition("-")[0]
        named = named or text(answer_fields(response), "record_id")
        record_id = named if ID.fullmatch(named) else None
        fault = getattr(request.state, "fault", None)  # set by `FaultyService` alone
        self.note(Event(self.clock(), endpoint, response.status_code, record_id, fault))
        return response

    async def respond(self, endpoint: str, request: Request) -> Response:
        """What the endpoint answers to a request whose body is there."""
        answer: Callable[[Request], Awaitable[Response]] = getattr(self, endpoint)
        try:
            return await answer(request)
        except RefusalError as exc:
            return _render(exc.refusal)
        except HTTPException as exc:  # of a form
            return _render(Refusal(exc.status_code, exc.detail))
        except OSError as exc:
            # Of a file: the disk is full, or no descriptor is left. Whatever makes something
            # writes it last, so nothing was made, and a `Retry-After` says so to a client.
            why = f"the embedded service could not do it: {exc.strerror or type(exc).__name__}"
            return _render(Refusal(503, why, retry_after=RETRY_AFTER))
        except ProtocolError:
            words = "Invalid JSON payload received. Unexpected token."
            return _render(Refusal(400, words, "INVALID_ARGUMENT"))

    def note(self, event: Event) -> None:
        """Add a line to `service.log`; it holds neither prompts nor tokens."""
        with suppress(OSError):  # a line less is no reason to lose an answer
            append(self.folder / "service.log", json.dumps(asdict(event)), limit=MAX_LOG)

    # The identity host

    async def sign_up(self, request: Request) -> Response:
        """A new anonymous account and its tokens."""
        _require_key(request)
        SignUp.parse(await request.body())
        return JSONResponse(self._issue_tokens(self.store.open_account()).render_sign_up())

    async def refresh(self, request: Request) -> Response:
        """New tokens of the account whose refresh token came, or Google's code."""
        _require_key(request)
        asked = Refresh.parse(await request.body())
        claims = self.store.read(asked.refresh_token.reveal())
        account = self.store.account(claims.user_id) if claims else None
        # What is wrong with the request goes before what is wrong with the account, as at Google.
        if asked.grant_type != "refresh_token":
            code = "INVALID_GRANT_TYPE" if asked.grant_type else "MISSING_GRANT_TYPE"
        elif not asked.refresh_token.reveal():
            code = "MISSING_REFRESH_TOKEN"
        elif claims is None or claims.kind != "refresh":
            code = "INVALID_REFRESH_TOKEN"
        elif account is None:
            code = "USER_NOT_FOUND"
        elif account.disabled:
            code = "USER_DISABLED"
        elif claims.serial != account.serial:
            code = "TOKEN_EXPIRED"
        else:
            renew = self.store.expire_refresh_tokens if self.rotate else self.store.touch_account
            return JSONResponse(self._issue_tokens(renew(account)).render_refresh(PROJECT))
        raise RefusalError(Refusal(400, code=code))

    def _issue_tokens(self, account: ServiceAccount) -> Tokens:
        # The id token ends by the clock, the refresh token by its account's serial.
        until = self.clock() + self.token_lifetime
        id_claims = Claims("id", account.user_id, account.serial, until)
        refresh_claims = Claims("refresh", account.user_id, account.serial, 0.0)
        return Tokens(
            id_token=Secret(self.store.sign(id_claims)),
            refresh_token=Secret(self.store.sign(refresh_claims)),
            expires_in=self.token_lifetime,
            user_id=account.user_id,
        )

    # The image host

    async def submit(self, request: Request) -> Response:
        """A new job, still IN_QUEUE; 401 for the caller, 422 for a field."""
        user_id = self.authenticate(request)
        # Either encoding; a JSON body is an empty form, as at FastAPI.
        form = await request.form(max_files=8, max_fields=32, max_part_size=MAX_BODY)
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        await form.close()
        submission = Submit.parse(fields)
        # After the bounds, and in other words than theirs, as the captured refusal has it.
        valid = [style.name for style in self.catalogue.styles]
        if isinstance(submission, Submit) and submission.style not in valid:
            submission = style_refusal(submission.style, valid)
        if isinstance(submission, Refusal):
            raise RefusalError(submission)
        seed = submission.seed
        # The times are kept with the job: it walks on as promised in a process with others.
        # They are there to be seen by a person who looks on; where others wait they would only add.
        queue, draw = (0.0, 0.0) if self.workers.is_busy else (LEAST_QUEUE, LEAST_DRAW)
        record = Record(
            record_id=uuid.uuid4().hex,
            user_id=user_id,
            created_at=self.clock(),
            queue=queue if self.queue is None else self.queue,
            draw=draw if self.draw is None else self.draw,
            seed=random.randint(9999, 99_999_999) if seed is None else seed,
            submission=submission,
            engine=self.workers.info.engine,
        )
        # On disk before anybody learns its id: a job that was promised outlives this process.
        self.store.put_record(record)
        self.workers.start_job(record)
        return JSONResponse(Job(record.record_id, "IN_QUEUE", seed=record.seed).render())

    async def status(self, request: Request) -> Response:
        """The job as it is now, for every account; 404 for one that is not there."""
        self.authenticate(request)
        record_id = request.path_params["record_id"]
        record = self.store.record(record_id)
        if record is None:
            raise RefusalError(self._refuse_missing(record_id, "Record not found"))
        job = self._job_of(record, str(request.base_url))
        # Not in the answer to a submit, which a client reads as soon as it has the record id.
        return JSONResponse(replace(job, local=self.details_of(record)).render())

    def details_of(self, record: Record) -> LocalDetails:
        """What the ARTA wire has no words for: what draws the job, and what it leaves out."""
        about, progress = self.workers.info, self.store.progress(record.record_id)
        is_ours = record.engine == about.engine
        is_sketch = record.engine == SKETCH
        prompt, notes = record.submission.prompt, list(progress.notes)
        if progress.failure:
            missing = len(self.store.missing_pictures(record))
            notes.append(f"{missing} of {record.submission.n} not drawn: {progress.failure}")
        if is_sketch and (gaps := name_gaps(prompt)):
            notes.append(gaps)
        return LocalDetails(
            engine=record.engine,
            engine_model=progress.model or (about.model if is_ours else None) or "",
            is_ai=not is_sketch,
            step=progress.step,
            steps=progress.steps,
            ahead=self.workers.jobs_ahead(record),
            not_honoured=progress.not_honoured,
            hint=progress.failure_hint,
            num_inference_steps=progress.num_inference_steps,
            guidance_scale=progress.guidance_scale,
            not_drawn="; ".join(notes),
        )

    def _refuse_missing(self, record_id: str, words: str) -> Refusal:
        if ID.fullmatch(record_id) and self.store.was_removed(record_id):
            return Refusal(410, "this sketch was removed to make room, or with `history --prune`")
        return Refusal(404, words)

    def authenticate(self, request: Request) -> str:
        """The user id in the bare id token of a request; RefusalError with 401 without one."""
        token = request.headers.get("authorization", "")
        claims = self.store.read(token) if token else None
        # A refresh token is signed as well, and must open nothing here.
        if claims is None or claims.kind != "id":
            raise RefusalError(Refusal(401, "Invalid token" if token else "Not authenticated"))
        if claims.expires_at <= self.clock():
            raise RefusalError(Refusal(401, "Token expired"))
        return claims.user_id

    def _job_of(self, record: Record, base_url: str) -> Job:
        """The job as it is now, by the clock, but never before what it says is so.

        IN_QUEUE --queue, and a worker took it--> IN_PROGRESS --draw, and all pictures--> DONE
                                                        `--the engine raised--> FAILED
        """
        age = self.clock() - record.created_at
        if age < record.queue:
            return Job(record.record_id, "IN_QUEUE", seed=record.seed)
        # Again at each poll: a process that died may have left pictures undrawn.
        self.workers.start_job(record)
        if self.workers.jobs_ahead(record) is not None:
            return Job(record.record_id, "IN_QUEUE", seed=record.seed)
        progress = self.store.progress(record.record_id)
        missing = self.store.missing_pictures(record)
        drawn = [index for index in range(record.submission.n) if index not in missing]
        # What was drawn before a failure stays: it may have cost somebody something.
        if progress.failure and not drawn:
            code, why = progress.failure_code, progress.failure
            return Job(record.record_id, "FAILED", (), code, why, record.seed)
        # The clock alone would promise pictures that a slow machine has not drawn.
        if age < record.queue + record.draw or (missing and not progress.failure):
            return Job(record.record_id, "IN_PROGRESS", seed=record.seed)
        names = [picture_name(record.record_id, index) for index in drawn]
        shared = self.picture_address.base_url if self.picture_address else None
        origin = shared or base_url.rstrip("/")
        images = tuple(Image(url=f"{origin}/images/{name}", name=name) for name in names)
        return Job(record.record_id, "DONE", images, seed=record.seed)

    async def image(self, request: Request) -> Response:
        """A picture, for everybody who has its address."""
        name = request.path_params["name"]
        picture = self.store.picture(name)
        if picture is None:
            raise RefusalError(self._refuse_missing(name.partition("-")[0], "Image not found"))
        return Response(picture, media_type="image/png")

    # The content host, and the root

    async def styles(self, request: Request) -> Response:
        """The list of styles: what is shipped, and a person's own."""
        return JSONResponse(render_styles(tuple(style.name for style in self.catalogue.styles)))

    async def health(self, request: Request) -> Response:
        """That this is the service, and how many jobs its folder has."""
        return JSONResponse({"artaService": {"ready": True, "jobs": len(self.jobs)}})


def _require_key(request: Request) -> None:
    if not (request.query_params.get("key") or request.headers.get("x-goog-api-key")):
        words = "The request is missing a valid API key."
        raise RefusalError(Refusal(403, words, "PERMISSION_DENIED"))


def _render(refusal: Refusal) -> Response:
    headers = {"Retry-After": f"{refusal.retry_after:g}"} if refusal.retry_after else None
    return JSONResponse(refusal.render(), status_code=refusal.status, headers=headers)


async def _render_http_exception(request: Request, exc: Exception) -> Response:
    """What Starlette refuses by itself, 404 and 405, in the words of the other refusals."""
    assert isinstance(exc, HTTPException)  # noqa: S101  # Starlette's handlers take any, and get this one
    body = Refusal(exc.status_code, exc.detail).render()
    return JSONResponse(body, status_code=exc.status_code, headers=dict(exc.headers or {}))


async def _read_whole(request: Request) -> Request | None:
    """The same request with all of its body there, or None once that is beyond the limit."""
    body = b""
    # By chunks and not by `Content-Length`, which a caller may leave out or get wrong.
    stream: AsyncIterator[bytes] = request.stream()
    async for chunk in stream:
        body += chunk
        if len(body) > MAX_BODY:
            return None

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, receive)


def answer_fields(response: Response) -> dict[str, object]:
    """The fields of an answer, none when it is no JSON object."""
    answer = json_or_none(bytes(getattr(response, "body", b"")))
    return answer if is_object(answer) else {}
