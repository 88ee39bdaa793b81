"""The embedded service: every host of the ARTA API in one ASGI app, mirroring `protocol`."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
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
    Refresh,
    SignUp,
    Submit,
    Tokens,
    render_styles,
)
from arta_mcp.arta.refusals import Refusal, style_refusal
from arta_mcp.errors import ProtocolError
from arta_mcp.local.faults.catalogue import Fault, Script
from arta_mcp.local.store import ID, Account, Claims, Record, Store, append, picture_name
from arta_mcp.local.workers import Engine, Studio
from arta_mcp.redaction import Secret
from arta_mcp.styles import SHIPPED
from arta_mcp.untrusted_json import is_object, json_or_none, text

Endpoint = Callable[[Request], Awaitable[Response]]

IMAGE_HOST = "/img-gen-prod.ai-arta.com"
SIGN_UP_HOSTS = ("/www.googleapis.com", "/identitytoolkit.googleapis.com")
REFRESH_HOST = "/securetoken.googleapis.com"
STYLES_HOST = "/contentcdnhub.com"

PROJECT = "100000000000"
"""the project number that a refresh names; ours is nobody's"""

MAX_BODY = 128 * 1024
"""bytes of a request; two texts of 4,000 characters take up to 96 kB once they are urlencoded"""

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


class Service:
    """One ASGI app on one folder; `seen`, `log`, `jobs` and `accounts` tell what happened.

    `queue` and `draw` are the least seconds a job waits and is drawn, `latency` the seconds before
    each answer, `token_lifetime` those of an id token. `rotate` gives a new refresh token at each
    refresh and expires the one before. `keep` is how many records are kept.
    """

    def __init__(
        self,
        folder: Path,
        *,
        engine: Engine | None = None,
        queue: float = 0.6,
        draw: float = 1.0,
        latency: float = 0.0,
        token_lifetime: float = 3600.0,
        rotate: bool = False,
        faults: Iterable[Fault] = (),
        clock: Callable[[], float] = time.time,
        keep: int = 1000,
    ) -> None:
        self.queue, self.draw, self.latency = queue, draw, latency
        self.token_lifetime, self.rotate = token_lifetime, rotate
        self.faults = Script(faults)
        self.seen: Counter[str] = Counter()
        self.log: deque[Event] = deque(maxlen=10_000)
        self.clock = clock
        self.store = Store(folder, keep=keep)
        self._studio = Studio(self.store, engine)
        self._refused: deque[str] = deque(maxlen=1000)
        self._app = Starlette(
            routes=self._routes(), exception_handlers={HTTPException: _plain_refusal}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    @property
    def folder(self) -> Path:
        return self.store.folder

    @property
    def jobs(self) -> tuple[str, ...]:
        """The record ids of every job made in this folder, by whichever process."""
        return self.store.records()

    @property
    def accounts(self) -> tuple[str, ...]:
        """The user ids of every account in this folder."""
        return self.store.accounts()

    def disable(self, user_id: str) -> None:
        """Ban an account: its refresh tokens answer USER_DISABLED, its id tokens run out."""
        self.store.put_account(replace(self._known(user_id), disabled=True))

    def delete(self, user_id: str) -> None:
        """Delete an account: its refresh tokens answer USER_NOT_FOUND."""
        self.store.delete_account(user_id)

    def expire(self, user_id: str) -> None:
        """Let an account's refresh tokens so far answer TOKEN_EXPIRED."""
        self.store.advance(self._known(user_id))

    def refuse_token(self, id_token: str) -> None:
        """Treat this id token as stale from now on (in this process only)."""
        self._refused.append(id_token)

    def finish_drawing(self, timeout: float = 30.0) -> None:
        """Block until every picture that was begun is on disk."""
        self._studio.finish(timeout)

    def close(self) -> None:
        """Begin no further picture; whoever opens the folder next draws the rest."""
        self._studio.close()

    def _known(self, user_id: str) -> Account:
        account = self.store.account(user_id)
        if account is None:
            raise KeyError(user_id)
        return account

    # What a request passes on its way

    def _routes(self) -> list[Route]:
        sign_up = self._watched("sign_up", self._sign_up)
        refresh = self._watched("refresh", self._refresh)
        submit = self._watched("submit", self._submit)
        status = self._watched("status", self._status)
        styles = self._watched("styles", self._styles)
        status_route = f"{SUBMIT_PATH}/{{record_id}}/status"
        return [
            Route("/", self._health),
            *(
                Route(host + path, sign_up, methods=["POST"])
                for host in ("", *SIGN_UP_HOSTS)
                for path in SIGN_UP_PATHS
            ),
            *(Route(host + REFRESH_PATH, refresh, methods=["POST"]) for host in ("", REFRESH_HOST)),
            *(Route(host + SUBMIT_PATH, submit, methods=["POST"]) for host in ("", IMAGE_HOST)),
            *(Route(host + status_route, status) for host in ("", IMAGE_HOST)),
            *(Route(host + STYLES_PATH, styles) for host in ("", STYLES_HOST)),
            Route("/images/{name}", self._watched("image", self._image)),
        ]

    def _watched(self, endpoint: str, answer: Endpoint) -> Endpoint:
        """The endpoint with counting, latency, the body's limit and scripted trouble round it."""

        async def watched(request: Request) -> Response:
            self.seen[endpoint] += 1
            if self.latency:
                await anyio.sleep(self.latency)
            whole = await _read_whole(request)
            if whole is None:
                response, fault = _refused(Refusal(413, "Request body too large")), None
            else:
                response, fault = await self._answer(endpoint, whole, answer)
            self._note(endpoint, request, response, fault)
            return response

        return watched

    async def _answer(
        self, endpoint: str, request: Request, answer: Endpoint
    ) -> tuple[Response, Fault | None]:
        async def real() -> Response:
            return response or await answer(request)

        response = None
        fault = self.faults.take(endpoint)
        if fault is None:
            response = await real()
            is_done = endpoint == "status" and text(_job(response), "status") == "DONE"
            fault = self.faults.take(endpoint, done=True) if is_done else None
        if fault is None:
            return await real(), None
        now, refuse_token = self.clock(), self.refuse_token
        return await fault.strike(request, real, now=now, refuse_token=refuse_token), fault

    def _note(
        self, endpoint: str, request: Request, response: Response, fault: Fault | None
    ) -> None:
        event = Event(
            at=self.clock(),
            endpoint=endpoint,
            status=response.status_code,
            record_id=_record_id(endpoint, request, response),
            fault=str(fault) if fault else None,
        )
        self.log.append(event)
        append(self.folder / "service.log", json.dumps(asdict(event)), limit=MAX_LOG)

    # The identity host

    async def _sign_up(self, request: Request) -> Response:
        if refusal := _key_refusal(request):
            return _refused(refusal)
        try:
            SignUp.parse(await request.body())
        except ProtocolError:
            return _refused(_bad_payload())
        return JSONResponse(self._tokens(self.store.open_account()).render_sign_up())

    async def _refresh(self, request: Request) -> Response:
        if refusal := _key_refusal(request):
            return _refused(refusal)
        try:
            account = self._owner(Refresh.parse(await request.body()))
        except ProtocolError:
            return _refused(_bad_payload())
        if isinstance(account, Refusal):
            return _refused(account)
        if self.rotate:
            account = self.store.advance(account)
        return JSONResponse(self._tokens(account).render_refresh(PROJECT))

    def _owner(self, asked: Refresh) -> Account | Refusal:
        """Whose refresh token this is, or Google's word for why it is refused."""
        token = asked.refresh_token.reveal()
        if asked.grant_type != "refresh_token":
            code = "INVALID_GRANT_TYPE" if asked.grant_type else "MISSING_GRANT_TYPE"
            return Refusal(400, code=code)
        if not token:
            return Refusal(400, code="MISSING_REFRESH_TOKEN")
        claims = self.store.read(token)
        if claims is None or claims.kind != "refresh":
            return Refusal(400, code="INVALID_REFRESH_TOKEN")
        account = self.store.account(claims.user_id)
        if account is None:
            return Refusal(400, code="USER_NOT_FOUND")
        if account.disabled:
            return Refusal(400, code="USER_DISABLED")
        return account if claims.serial == account.serial else Refusal(400, code="TOKEN_EXPIRED")

    def _tokens(self, account: Account) -> Tokens:
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

    async def _submit(self, request: Request) -> Response:
        caller = self._caller(request)
        if isinstance(caller, Refusal):
            return _refused(caller)
        order = await _order(request)
        if isinstance(order, Refusal):
            return _refused(order)
        record = self._open_job(caller, order)
        return JSONResponse(Job(record.record_id, "IN_QUEUE", seed=record.seed).render())

    async def _status(self, request: Request) -> Response:
        caller = self._caller(request)
        if isinstance(caller, Refusal):
            return _refused(caller)
        record = self.store.record(request.path_params["record_id"])
        if record is None:
            return _refused(Refusal(404, "Record not found"))
        return JSONResponse(self._stand(record, str(request.base_url)).render())

    def _caller(self, request: Request) -> str | Refusal:
        """The user id in the bare id token of a request."""
        token = request.headers.get("authorization", "")
        claims = self.store.read(token) if token else None
        if claims is None or claims.kind != "id":
            return Refusal(401, "Invalid token" if token else "Not authenticated")
        if token in self._refused or claims.expires_at <= self.clock():
            return Refusal(401, "Token expired")
        return claims.user_id

    def _open_job(self, user_id: str, order: Submit) -> Record:
        """The record is on disk before anybody learns its id."""
        seed = order.seed if order.seed is not None else random.randint(9999, 99_999_999)
        record = Record(
            record_id=uuid.uuid4().hex,
            user_id=user_id,
            created_at=self.clock(),
            queue=self.queue,
            draw=self.draw,
            seed=seed,
            order=order,
        )
        self.store.put_record(record)
        self._studio.begin(record)
        return record

    def _stand(self, record: Record, base_url: str) -> Job:
        """Where a job stands: what the clock says, but never DONE before its pictures are there."""
        age = self.clock() - record.created_at
        if age < record.queue:
            return Job(record.record_id, "IN_QUEUE", seed=record.seed)
        self._studio.begin(record)
        if failure := self._studio.failure(record.record_id):
            return Job(record.record_id, "FAILED", (), "ENGINE", failure, record.seed)
        if age < record.queue + record.draw or not self._studio.has_all(record):
            return Job(record.record_id, "IN_PROGRESS", seed=record.seed)
        names = [picture_name(record.record_id, index) for index in range(record.order.n)]
        images = tuple(Image(url=f"{base_url}images/{name}", name=name) for name in names)
        return Job(record.record_id, "DONE", images, seed=record.seed)

    async def _image(self, request: Request) -> Response:
        if "authorization" in request.headers:
            self.seen["leaks"] += 1
        picture = self.store.picture(request.path_params["name"])
        if picture is None:
            return _refused(Refusal(404, "Image not found"))
        return Response(picture, media_type="image/png")

    # The content host, and the door

    async def _styles(self, request: Request) -> Response:
        return JSONResponse(render_styles(tuple(style.name for style in SHIPPED.styles)))

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"artaService": {"ready": True, "jobs": len(self.jobs)}})


async def _order(request: Request) -> Submit | Refusal:
    """The form of a submit in either encoding; a JSON body is an empty form, as at FastAPI."""
    try:
        form = await request.form(max_files=8, max_fields=32, max_part_size=MAX_BODY)
    except MultiPartException as exc:
        return Refusal(400, exc.message)
    except HTTPException as exc:
        return Refusal(exc.status_code, exc.detail)
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    await form.close()
    order = Submit.parse(fields)
    valid = [style.name for style in SHIPPED.styles]
    if isinstance(order, Submit) and order.style not in valid:
        return style_refusal(order.style, valid)
    return order


def _key_refusal(request: Request) -> Refusal | None:
    if request.query_params.get("key") or request.headers.get("x-goog-api-key"):
        return None
    return Refusal(403, "The request is missing a valid API key.", "PERMISSION_DENIED")


def _bad_payload() -> Refusal:
    return Refusal(400, "Invalid JSON payload received. Unexpected token.", "INVALID_ARGUMENT")


def _refused(refusal: Refusal) -> Response:
    return JSONResponse(refusal.render(), status_code=refusal.status)


async def _plain_refusal(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    words = exc.detail if isinstance(exc, HTTPException) else "Internal Server Error"
    headers: Mapping[str, str] = (exc.headers if isinstance(exc, HTTPException) else None) or {}
    return JSONResponse(Refusal(status, words).render(), status_code=status, headers=dict(headers))


async def _read_whole(request: Request) -> Request | None:
    """The same request with its body read, or None when that is beyond the limit."""
    body = b""
    stream: AsyncIterator[bytes] = request.stream()
    async for chunk in stream:
        body += chunk
        if len(body) > MAX_BODY:
            return None

    pending = [body]

    async def receive() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await request.receive()

    return Request(request.scope, receive)


def _job(response: Response) -> dict[str, object]:
    """The fields of an answer, none when it is no JSON object."""
    answer = json_or_none(bytes(getattr(response, "body", b"")))
    return answer if is_object(answer) else {}


def _record_id(endpoint: str, request: Request, response: Response) -> str | None:
    """The job that an exchange is about, when its id is one of ours."""
    match endpoint:
        case "submit":
            named = text(_job(response), "record_id")
        case "status":
            named = request.path_params["record_id"]
        case _:
            named = request.path_params.get("name", "").partition("-")[0]
    return named if ID.fullmatch(named) else None
