"""Who may call over HTTP: callers with a token of ours, or with one of an OpenID Connect issuer.

A token is one person, whose generations are seen by nobody else (`Caller.owner`):

    one of ARTA_HTTP_TOKENS      token:<name>
    an issuer's                  oidc:<iss>|<sub>
    no token is asked for        http:anonymous, whom nothing tells apart; on loopback alone

What a token is refused for is said to its caller as RFC 6750 and RFC 9728 have it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
from mcp.types import INVALID_REQUEST
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from arta_mcp.arta.transport import Transport
from arta_mcp.arta.url_guard import is_loopback
from arta_mcp.errors import ArtaError, Unavailable
from arta_mcp.redaction import Secret, sanitize
from arta_mcp.server.calls import Caller
from arta_mcp.untrusted_json import is_object, json_or_none, list_or_empty, text

log = logging.getLogger(__name__)

ANONYMOUS = Caller("http:anonymous", is_known=False)

ALGORITHMS = ("RS256", "ES256")
"""what a token may be signed with: public keys alone, so that no key of theirs is a password"""

LEEWAY = 60.0
"""seconds that the issuer's clock and ours may differ"""

KEYS_TTL, MAX_STALE = 600.0, 3600.0
"""seconds after which an issuer's keys are read again, and for which they serve while it is away"""

RETRY_PAUSE, UNKNOWN_KEY_PAUSE = 5.0, 30.0
"""seconds between two tries to read keys: of an issuer that is away, and for a key that it has not
listed; whoever sends such tokens must not have it asked for each"""

WELL_KNOWN = "/.well-known/oauth-protected-resource"

EXCHANGE_TIMEOUT = 5.0
"""seconds for one answer of an issuer"""


class Refusal(Exception):
    """What an HTTP request is refused with, as a JSON-RPC error."""

    def __init__(
        self, status: int, why: str, *, code: int = INVALID_REQUEST, **headers: str
    ) -> None:
        self.status, self.code = status, code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(why)

    @property
    def response(self) -> Response:
        """As the transport answers what is no request that it serves: an error without an id."""
        error = {"code": self.code, "message": str(self)}
        content = {"jsonrpc": "2.0", "id": None, "error": error}
        return JSONResponse(content, self.status, headers=self.headers)


class TokenRefused(ValueError):
    """Why an issuer's token is not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Whom a server takes requests from.

    With neither tokens nor an issuer everybody who reaches it. `scope` is what an issuer's token
    must have, `resource` the server's address, by which such a token and RFC 9728 name it.
    """

    tokens: Sequence[tuple[str, Secret]] = ()
    issuer: Issuer | None = None
    scope: str | None = None
    resource: str = ""

    @property
    def routes(self) -> list[Route]:
        """Where RFC 9728's document lies; at the root, too, where clients look that know no path.

        Without an issuer there is none: a client would go looking for who gives tokens out.
        """
        if self.issuer is None:
            return []
        document = {
            "resource": self.resource,
            "authorization_servers": [self.issuer.url],
            "bearer_methods_supported": ["header"],
            "resource_name": "ARTA image generation",
            **({"scopes_supported": [self.scope]} if self.scope else {}),
        }

        async def answer(_: Request) -> Response:
            # For every page: it holds nothing that a client is not to know.
            return JSONResponse(document, headers={"Access-Control-Allow-Origin": "*"})

        paths = dict.fromkeys((urlsplit(self.resource).path, "/mcp", ""))
        return [Route(f"{WELL_KNOWN}{path}", answer) for path in paths]

    async def admit(self, headers: Headers) -> Caller:
        """Who sends a request with these headers. Raises Refusal."""
        if not self.tokens and self.issuer is None:
            return ANONYMOUS
        # Of two headers a proxy may have checked the other one.
        given = headers.getlist("authorization")
        scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        if scheme.lower() != "bearer" or not (token := token.strip()):
            raise self._challenge(401, "a bearer token is needed")
        if (name := self._find_name(token)) is not None:
            return Caller(f"token:{name}")
        if self.issuer is None:
            raise self._challenge(401, "the token is not known", error="invalid_token")
        try:
            claims = await self.issuer.verify(token)
        except TokenRefused as exc:
            log.info("a token is refused: %s", exc)
            raise self._challenge(401, str(exc), error="invalid_token") from exc
        except ArtaError as exc:
            log.warning("the token issuer cannot be asked: %s", exc.message)
            why = "the token issuer does not answer; try again in some seconds"
            raise Refusal(503, why, Retry_After=f"{RETRY_PAUSE:.0f}") from exc
        if self.scope and self.scope not in _scopes_of(claims):
            why = f"the token lacks the scope {self.scope}"
            raise self._challenge(403, why, error="insufficient_scope")
        return Caller(f"oidc:{claims['iss']}|{claims['sub']}")

    def _find_name(self, token: str) -> str | None:
        """The name behind a token; all are compared, as hashes of one length, in constant time."""
        # To the end also when it is found: how long it takes says nothing of where it stands.
        digest, found = _digest(token), None
        for name, known in self.tokens:
            if hmac.compare_digest(digest, _digest(known.reveal())):
                found = name
        return found

    def _challenge(self, status: int, why: str, *, error: str | None = None) -> Refusal:
        parameters = {"realm": "arta-mcp", "error": error, "error_description": error and why}
        if self.issuer is not None:
            parts = urlsplit(self.resource)
            where = parts._replace(path=WELL_KNOWN + parts.path).geturl()
            parameters |= {"scope": self.scope, "resource_metadata": where}
        told = ", ".join(f'{name}="{value}"' for name, value in parameters.items() if value)
        return Refusal(status, why, WWW_Authenticate=f"Bearer {told}")


class Issuer:
    """An OpenID Connect issuer: its keys as its discovery document names them, kept for a while."""

    def __init__(
        self,
        url: str,
        *,
        audiences: Sequence[str],
        transport: Transport,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`audiences` are the values of `aud` that mean this server; `clock` gives seconds."""
        self.url, self._audiences, self._transport = url, audiences, transport
        self._clock, self._reading = clock, anyio.Lock()
        self._name, self._keys = url, dict[str | None, Any]()
        self._read_at = self._tried_at = -MAX_STALE

    async def verify(self, token: str) -> Mapping[str, Any]:
        """The claims of a token. Raises TokenRefused, or an ArtaError when the keys are unknown."""
        import jwt

        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as exc:
            raise TokenRefused("the token is no signed JWT") from exc
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            raise TokenRefused(f"the token is not signed with one of {', '.join(ALGORITHMS)}")
        # The key says how it signs, not the token: an RSA key is never the password of an HS256.
        key = await self._find_key(header.get("kid"))
        if key is None or key.algorithm_name != algorithm:
            raise TokenRefused("the token is signed with a key that its issuer does not list")
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audiences,
                issuer=self._name,
                leeway=LEEWAY,
                options={"require": ["iss", "sub", "aud", "exp"]},
            )
        except jwt.InvalidTokenError as exc:
            raise TokenRefused(f"the token is not valid here: {_reason(exc)}") from exc
        return claims

    async def _find_key(self, kid: object) -> Any:
        """The key with this id; without one the only key that there is."""
        name = kid if isinstance(kid, str) else None
        async with self._reading:
            age, idle = self._clock() - self._read_at, self._clock() - self._tried_at
            # By when it was tried, not read: an issuer that is away is not asked for each request.
            is_missing = name not in self._keys and idle > UNKNOWN_KEY_PAUSE
            if is_missing or (age > KEYS_TTL and idle > RETRY_PAUSE):
                try:
                    # Shielded: whoever leaves in the middle costs the next one no try.
                    with anyio.CancelScope(shield=True):
                        await self._read_keys()
                except ArtaError as exc:
                    log.warning("the keys of %s cannot be read: %s", self.url, exc.message)
            if self._clock() - self._read_at > MAX_STALE:
                raise Unavailable("the keys of the token issuer could not be read")
            return self._keys.get(name)

    async def _read_keys(self) -> None:
        import jwt

        self._tried_at = self._clock()
        found = await self._get(f"{self.url}/.well-known/openid-configuration")
        issuer, where = text(found, "issuer"), text(found, "jwks_uri")
        # OpenID Connect Discovery 4.3: else whoever answers there could speak for another issuer.
        if issuer.rstrip("/") != self.url:
            raise Unavailable(f"the issuer calls itself {sanitize(repr(issuer), 120)}")
        parts = urlsplit(where)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise Unavailable(f"its keys lie at no https address: {sanitize(where, 120)}")
        listed = list_or_empty((await self._get(where)).get("keys"))
        keys: dict[str | None, Any] = {}
        for entry in listed:
            if is_object(entry) and text(entry, "use") != "enc":
                try:
                    key = jwt.PyJWK.from_dict(dict(entry))
                except jwt.PyJWTError:  # of a kind that we do not use
                    continue
                if key.algorithm_name in ALGORITHMS:
                    keys[text(entry, "kid") or None] = key
        if len(keys) == 1:
            keys[None] = next(iter(keys.values()))
        self._name, self._keys, self._read_at = issuer, keys, self._clock()

    async def _get(self, url: str) -> Mapping[str, object]:
        answer = await self._transport.exchange("GET", url, timeout=EXCHANGE_TIMEOUT)
        content = json_or_none(answer.body)
        if answer.status != 200 or not is_object(content):
            raise Unavailable(f"{sanitize(url, 120)} answers with {answer.status} and no object")
        return content


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _scopes_of(claims: Mapping[str, Any]) -> list[str]:
    """`scope` is RFC 9068's; `scp` is what Microsoft and Okta call it."""
    given = [claims.get("scope"), *list_or_empty(claims.get("scp")), claims.get("scp")]
    return [word for words in given if isinstance(words, str) for word in words.split()]


def _reason(exc: Exception) -> str:
    return sanitize(str(exc) or type(exc).__name__, 120).replace('"', "'")
