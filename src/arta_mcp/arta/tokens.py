"""TokenSource: one sign-up and one refresh, however many tasks and processes ask."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

import anyio

from arta_mcp.arta.account import Account
from arta_mcp.arta.protocol import Refresh, Refusal, SignUp, Tokens
from arta_mcp.arta.transport import NotSent, Transport
from arta_mcp.background import Errands, Told
from arta_mcp.errors import ArtaError, AuthError, ProtocolError, RateLimited, Unavailable
from arta_mcp.redaction import Secret

log = logging.getLogger(__name__)

_ACCOUNT_IS_GONE = (
    "TOKEN_EXPIRED",
    "USER_NOT_FOUND",
    "INVALID_REFRESH_TOKEN",
    "PROJECT_NUMBER_MISMATCH",
)
"""refusals of a refresh after which a new account is the only way on"""

_TOO_MANY = ("TOO_MANY_ATTEMPTS_TRY_LATER", "QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED")

_TRIES = 3
_LONGEST_PAUSE = 10.0
"""seconds that a `Retry-After` may ask for before the caller is told instead"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Where an account comes from; `name` is the one it is stored under."""

    name: str
    auth_url: str
    token_refresh_url: str
    client_type: str
    api_key: Secret


class AccountStore(Protocol):
    """What is needed of a store to keep one account for every process of this installation."""

    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        """Held by one task of one process at a time."""
        ...

    async def account(self, name: str) -> Account | None:
        """The stored account, if there is a whole one."""
        ...

    async def keep_account(self, name: str, account: Account | None) -> None:
        """Replaces the stored account; None removes it."""
        ...


class TokenSource:
    """The current id token of one identity."""

    def __init__(
        self,
        identity: Identity,
        *,
        store: AccountStore,
        transport: Transport,
        errands: Errands,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        """`clock` gives seconds since the epoch."""
        self._identity, self._store, self._transport = identity, store, transport
        self._errands, self._clock, self._sleep = errands, clock, sleep
        self._account: Account | None = None
        self._turn = anyio.Lock()

    async def current(self, *, meanwhile: Told | None = None, every: float = 2.5) -> Secret:
        """A fresh id token: as kept, else as stored, else refreshed, else from a new account.

        Raises AuthError, RateLimited or Unavailable.
        """
        if self._account is not None and self._account.is_fresh(self._clock()):
            return self._account.id_token
        return await self._errands.finish(self._settle, meanwhile=meanwhile, every=every)

    async def renew(self, refused: Secret) -> Secret:
        """Another id token than the one the image host refused; asks only if nobody did yet."""
        return await self._errands.finish(lambda: self._settle(refused))

    async def forget(self) -> None:
        """Removes the stored account; the next call signs up anew."""
        async with self._turn, self._store.lock(self._lock_name):
            self._account = None
            await self._store.keep_account(self._identity.name, None)

    @property
    def _lock_name(self) -> str:
        return f"account-{self._identity.name}"

    async def _settle(self, refused: Secret | None = None) -> Secret:
        async with self._turn:
            if self._account is None or not self._serves(self._account, refused):
                self._account = await self._agree(refused)
            return self._account.id_token

    async def _agree(self, refused: Secret | None) -> Account:
        """Lock, look again, then ask: another process may have been first."""
        async with self._store.lock(self._lock_name):
            stored = await self._store.account(self._identity.name)
            if stored is not None and self._serves(stored, refused):
                return stored
            account = await self._ask(stored)
            await self._store.keep_account(self._identity.name, account)
            return account

    def _serves(self, account: Account, refused: Secret | None) -> bool:
        return account.is_fresh(self._clock()) and account.id_token != refused

    async def _ask(self, stored: Account | None) -> Account:
        if stored is None:
            return await self._sign_up()
        try:
            return await self._refresh(stored)
        except _AccountIsGone as exc:
            log.warning("the account was given up (%s); signing up anew", exc.code)
            return await self._sign_up()

    async def _sign_up(self) -> Account:
        identity = self._identity
        body = SignUp(identity.client_type).body()
        try:
            tokens = await self._exchange(identity.auth_url, json=body)
        except _AccountIsGone as exc:  # nonsense as the answer to a sign-up, and no way on
            raise AuthError(f"the identity host refuses a sign-up with {exc.code}") from exc
        return Account.from_tokens(tokens, now=self._clock())

    async def _refresh(self, stored: Account) -> Account:
        body = Refresh(stored.refresh_token).body()
        tokens = await self._exchange(self._identity.token_refresh_url, form=body)
        return Account.from_tokens(tokens, now=self._clock(), before=stored)

    async def _exchange(
        self, url: str, *, json: dict[str, str | bool] | None = None, form: bytes | None = None
    ) -> Tokens:
        """Tries again what may pass by itself; a refresh is safe to repeat, a sign-up is not.

        A second sign-up after a lost answer would leave an account behind, so only a sign-up that
        was refused in so many words is repeated.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                return await self._exchange_once(url, json=json, form=form)
            except (RateLimited, _Busy) as exc:
                pause = exc.retry_after
                if not tries_left or pause is None or pause > _LONGEST_PAUSE:
                    raise
            except (Unavailable, ProtocolError) as exc:
                if not tries_left or not (form or isinstance(exc, NotSent)):
                    raise
                pause = 0.5 * (_TRIES - tries_left)
            await self._sleep(pause)
        raise AssertionError("the last try returns or raises")

    async def _exchange_once(
        self, url: str, *, json: dict[str, str | bool] | None, form: bytes | None
    ) -> Tokens:
        key = self._identity.api_key.reveal()
        answer = await self._transport.exchange(
            "POST", f"{url}?key={quote(key, safe='')}", json=json, form=form
        )
        if 200 <= answer.status < 300:
            return Tokens.parse(answer.body)
        refusal = Refusal.parse(answer.status, answer.headers, answer.body, now=self._clock())
        raise _explain(refusal)


class _AccountIsGone(ArtaError):
    """A refresh was refused for good; never leaves this module."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"the refresh token was refused: {code}")


class _Busy(Unavailable):
    """The identity host is down and says for how long, in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(message, hint=f"wait {retry_after:.0f} s, then try again")


def _explain(refusal: Refusal) -> ArtaError:
    """The error for a refusal of the identity host (codes: Firebase's REST reference)."""
    words = f"{refusal.code} {refusal.words}".strip() or "no reason given"
    said = f"the identity host refuses with {refusal.status}: {words}"
    match refusal.code:
        case code if code in _ACCOUNT_IS_GONE:
            return _AccountIsGone(code)
        case code if code in _TOO_MANY or refusal.status == 429:
            return RateLimited(said, retry_after=refusal.retry_after)
        case "USER_DISABLED":
            return AuthError(
                said,
                hint="the operator disabled this account; `arta-mcp account reset` drops it,"
                " but ask first whether you may use the service",
            )
        case "OPERATION_NOT_ALLOWED" | "ADMIN_ONLY_OPERATION" | "PROJECT_DISABLED":
            return AuthError(said, hint="this project gives out no anonymous accounts any more")
        case "API_KEY_ANDROID_APP_BLOCKED":
            return AuthError(said, hint="this key serves the official app only; use your own")
        case _ if refusal.status == 503 and refusal.retry_after is not None:
            return _Busy(said, refusal.retry_after)
        case _ if refusal.status >= 500 or refusal.status == 408:
            return Unavailable(said)
        case _:
            return AuthError(said)
