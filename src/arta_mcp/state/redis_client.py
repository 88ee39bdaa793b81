"""The way to a Redis or Valkey server: a script a round trip, each failure in words of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from arta_mcp.arta.url_guard import is_loopback
from arta_mcp.errors import ArtaError, ConfigError, Unavailable
from arta_mcp.redaction import Secret, sanitize

MAX_CONNECTIONS = 50
"""at once; each carries some hundred scripts a second, and further calls wait for one"""

CONNECT_TIMEOUT = 1.5
"""seconds until a server that is not there is told"""

ANSWER_TIMEOUT = 2.5
"""seconds for the answer to a script, which takes a thousandth of that"""

Argument = str | int | float


class RedisClient:
    """Runs the scripts of `state/scripts` on one server, and connects when it needs to.

    An exchange is not cancelled half-way, where its connection could give the answer to another
    call; it is bounded by ANSWER_TIMEOUT.
    """

    def __init__(self, url: Secret) -> None:
        """`url` is as `config` takes it."""
        parts = urlsplit(url.reveal())
        host, port = parts.hostname or "", parts.port or 6379
        database = parts.path.strip("/") or "0"
        # Never in the form of the address, which is a secret as a whole.
        self.location = f"{host}:{port}" + ("" if int(database) == 0 else f", database {database}")
        """where the server is, without user and password"""
        self.is_open_to_others = parts.scheme == "redis" and not is_loopback(host)
        # Known by itself too: an error may quote it without the address round it.
        self._password = Secret(unquote(parts.password or ""))
        self._url = url
        self._redis: Any = None
        self._under_way = 0

    async def run(self, name: str, keys: Sequence[str], *arguments: Argument) -> Any:
        """What the script gives: texts, numbers and lists of such."""
        script = _load(name)
        try:
            return await self.command("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except exceptions.NoScriptError:  # new to this server, or it was started anew
            return await self.command("EVAL", script.text, len(keys), *keys, *arguments)

    async def command(self, *words: Argument) -> Any:
        """What one command gives. Raises Unavailable, or ConfigError for a password."""
        if self._redis is None:
            self._redis = Redis(connection_pool=self._pool())
        if not self._under_way:
            self._idle = anyio.Event()
        self._under_way += 1
        try:
            # redis-py gives a connection back in steps, each of which anyio would cancel again.
            with anyio.CancelScope(shield=True):
                return await self._redis.execute_command(*words)
        except exceptions.NoScriptError:
            raise
        except (exceptions.RedisError, OSError) as exc:
            raise self._explain(exc) from exc
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def close(self) -> None:
        """Closes the connections once no exchange is under way; a later call opens others."""
        while self._under_way:  # another may begin before this hears that the last one has ended
            await self._idle.wait()
        if self._redis is not None:
            redis, self._redis = self._redis, None
            await redis.aclose()
            await redis.connection_pool.disconnect()

    def _pool(self) -> BlockingConnectionPool:
        return BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]  # its keywords are not typed
            self._url.reveal(),
            max_connections=MAX_CONNECTIONS,
            timeout=ANSWER_TIMEOUT,
            socket_connect_timeout=CONNECT_TIMEOUT,
            socket_timeout=ANSWER_TIMEOUT,
            # Once more at once, for a connection to a server that was started anew since: every
            # script may run twice. Not after a time-out, which is long enough.
            retry=Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,)),
            decode_responses=True,
            protocol=2,  # what we ask gives the same in both, and 2 needs no greeting
        )

    def _explain(self, exc: Exception) -> ArtaError:
        where = f"the shared state at {self.location}"
        match exc:
            case exceptions.AuthenticationError() | exceptions.AuthorizationError():
                return ConfigError(
                    f"{where} refuses the user or password",
                    hint="set ARTA_STATE_URL with those that it knows:"
                    " redis://user:password@host:port/0",
                )
            case exceptions.NoPermissionError():
                return ConfigError(
                    f"{where} refuses: {sanitize(str(exc), 200)}",
                    hint="allow the user of ARTA_STATE_URL all commands on keys that begin with"
                    " {arta}:",
                )
            case exceptions.ConnectionError() | exceptions.TimeoutError() | OSError():
                why = "" if isinstance(exc, TimeoutError) else f" ({sanitize(str(exc), 200)})"
                hint = (
                    "see that Redis or Valkey runs there, or set ARTA_STATE_URL to where it does;"
                    " then try again"
                )
                if "CERTIFICATE" in why:
                    hint = "set SSL_CERT_FILE to the authority of its certificate"
                return Unavailable(f"{where} does not answer{why}", hint=hint)
            case _:  # a full memory, a disk that cannot be written to, a replica
                return Unavailable(
                    f"{where} refuses: {sanitize(str(exc), 200)}",
                    hint="look into the server's log, then try again",
                )


@dataclass(frozen=True, slots=True)
class _Script:
    text: str
    digest: str


@cache
def _load(name: str) -> _Script:
    folder = files("arta_mcp.state").joinpath("scripts")
    parts = (
        folder.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in ("common", name)
    )
    text = "\n".join(parts)
    return _Script(text, hashlib.sha1(text.encode()).hexdigest())  # noqa: S324  # as Redis names it
