"""TokenSource: one sign-up and one refresh, however many tasks and processes ask."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from urllib.parse import quote

import anyio

from arta_mcp.arta.account import Account
from arta_mcp.arta.protocol import Addresses, Refresh, SignUp, Tokens
from arta_mcp.arta.refusals import Refusal
from arta_mcp.arta.transport import Answer, Transport
from arta_mcp.background import BackgroundTasks, pause_after_failure, retry
from arta_mcp.errors import (
    AccountGone,
    ArtaError,
    AuthError,
    NotSent,
    ProtocolError,
    RateLimited,
    Unavailable,
)
from arta_mcp.redaction import Secret

log = logging.getLogger(__name__)

GONE_CODES = (
    "TOKEN_EXPIRED",
    "USER_NOT_FOUND",
    "INVALID_REFRESH_TOKEN",
    "PROJECT_NUMBER_MISMATCH",
)
"""refusals of a refresh after which a new account is the only way on"""

QUOTA_CODES = ("TOO_MANY_ATTEMPTS_TRY_LATER", "QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED")

_HINTS = {
    "OPERATION_NOT_ALLOWED|ADMIN_ONLY_OPERATION|PROJECT_DISABLED": (
        "this project gives out no anonymous accounts any more"
    ),
    "_(ANDROID|IOS)_APP_BLOCKED|(Android|iOS) client application .* blocked": (
        "this key serves the official app only; use your own"
    ),
    "REFERRER_BLOCKED|referr?er .* blocked": (
        "this key serves the web pages of its owner only; use your own"
    ),
    "IP_ADDRESS_BLOCKED|IP address restriction": (
        "this key serves other machines than this one; use your own"
    ),
    "SERVICE_BLOCKED|Requests to this API .* blocked": (
        "this key is not for signing in; allow it the Identity Toolkit API and the Token Service"
        " API, or use another"
    ),
    "SERVICE_DISABLED": (
        "the project of this key has the Identity Toolkit API switched off; switch it on, or use a"
        " key of another project"
    ),
    "CONFIGURATION_NOT_FOUND": (
        "the project of this key has no Firebase Authentication; set it up, or use a key of"
        " another project"
    ),
    "CONSUMER_(SUSPENDED|INVALID)": (
        "the project of this key is suspended or gone; use a key of another project"
    ),
    "App ?Check|APP_CHECK|RECAPTCHA": (
        "this project serves attested apps only (App Check, reCAPTCHA), whatever the key; only its"
        " owner can change that"
    ),
}
"""what to do about a refusal that another key, or none, would mend, by its code or its words"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose account it is; `name` is the one it is stored under."""

    name: str
    client_type: str
    api_key: Secret


class AccountStore(Protocol):
    """What is needed of a store to keep one account for every process of this installation."""

    def lock(self, name: str) -> AbstractAsyncContextManager[int]:
        """Held by one task of one process at a time; gives a fence that rises with each holder."""
        ...

    async def account(self, name: str) -> Account | None:
        """The stored account, if there is a whole one."""
        ...

    async def keep_account(self, name: str, account: Account | None, *, fence: int) -> bool:
        """Replaces the stored account, None removes it; False when a later holder has done so."""
        ...


class TokenSource:
    """The current id token of one identity.

    Lock order: the lock of this object, then the store's. The first spares the tasks of a process
    from queueing at a file; the second is what makes processes sign up once.
    """

    def __init__(
        self,
        identity: Identity,
        addresses: Addresses,
        *,
        store: AccountStore,
        transport: Transport,
        background: BackgroundTasks,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        """`clock` gives seconds since the epoch."""
        self._identity, self._addresses = identity, addresses
        self._store, self._transport = store, transport
        self._background, self._clock, self._sleep = background, clock, sleep
        self._account: Account | None = None
        self._lock = anyio.Lock()
        self._lock_name = f"account-{identity.name}"

    @property
    def fresh_token(self) -> Secret | None:
        """The token that is kept, while it is fresh."""
        account = self._account
        return account.id_token if account and account.is_fresh(self._clock()) else None

    async def get_token(self) -> Secret:
        """A fresh id token: as kept, else as stored, else refreshed, else from a new account.

        Raises AuthError, RateLimited or Unavailable. Cancelling the caller stops its waiting and
        not the request, whose answer is kept.
        """
        return self.fresh_token or await self._background.run_detached(self._get_or_request)

    async def renew_token(self, refused: Secret) -> Secret:
        """Another id token than the one the image host refused; asks only if none is there yet."""
        return await self._background.run_detached(lambda: self._get_or_request(refused))

    async def forget_account(self) -> None:
        """Removes the stored account; the next call signs up anew."""
        async with self._lock, self._store.lock(self._lock_name) as fence:
            self._account = None
            await self._store.keep_account(self._identity.name, None, fence=fence)

    async def _get_or_request(self, refused: Secret | None = None) -> Secret:
        store, name = self._store, self._identity.name
        async with self._lock:
            while self._account is None or not self._is_usable(self._account, refused):
                async with store.lock(self._lock_name) as fence:
                    # Read again under the lock: while we waited, another process may have asked.
                    account = await store.account(name)
                    if account is None or not self._is_usable(account, refused):
                        account = await self._request_account(account)
                        # Not stored, it would be an account that nobody knows: tried again for
                        # some seconds. False: this one stood still, and lost the lock to another.
                        keep = partial(store.keep_account, name, account, fence=fence)
                        if not await retry(keep, pause_after_failure, sleep=self._sleep):
                            continue
                    self._account = account
                    break  # also with a token that is stale at once, by a clock that is wrong
            return self._account.id_token

    def _is_usable(self, account: Account, refused: Secret | None) -> bool:
        return account.is_fresh(self._clock()) and account.id_token != refused

    async def _request_account(self, stored: Account | None) -> Account:
        """Refreshes the stored account; signs up where there is none, or none any more."""
        if stored is not None:
            form = Refresh(stored.refresh_token).body()
            try:
                tokens = await self._request_tokens(self._addresses.token_refresh_url, form=form)
                return Account.from_tokens(tokens, now=self._clock(), before=stored)
            except AccountGone as exc:
                log.warning("the account was given up (%s); signing up anew", exc.code)
        body = SignUp(self._identity.client_type).body()
        try:
            tokens = await self._request_tokens(self._addresses.auth_url, json=body)
        except AccountGone as exc:  # nonsense as the answer to a sign-up, and no way on
            raise AuthError(f"the identity host refuses a sign-up with {exc.code}") from exc
        return Account.from_tokens(tokens, now=self._clock())

    async def _request_tokens(
        self, url: str, *, json: dict[str, str | bool] | None = None, form: bytes | None = None
    ) -> Tokens:
        """One POST, repeated where that is safe: a refresh is, a sign-up is only when refused."""
        answer: Answer | None = None

        async def post() -> Tokens:
            nonlocal answer
            answer, key = None, quote(self._identity.api_key.reveal(), safe="")
            answer = await self._transport.exchange(
                "POST", f"{url}?key={key}", json=json, form=form
            )
            if 200 <= answer.status < 300:
                return Tokens.parse(answer.body)
            now = self._clock()
            raise _explain(Refusal.parse(answer.status, answer.headers, answer.body, now=now))

        def pause_after(exc: ArtaError, tries: int) -> float | None:
            match answer:
                case None:  # after a sign-up it would leave an account that no one knows
                    is_safe = isinstance(exc, NotSent) or form is not None
                case Answer(status=status) if 200 <= status < 300:  # nonsense, and likewise
                    is_safe = form is not None
                case Answer(status=status):
                    is_safe = status in (408, 429) or status >= 500
            # AuthError and ConfigError are for good
            passes = isinstance(exc, RateLimited | Unavailable | ProtocolError)
            return pause_after_failure(exc, tries) if is_safe and passes else None

        return await retry(post, pause_after, sleep=self._sleep)


def _explain(refusal: Refusal) -> ArtaError:
    """The error for a refusal of the identity host (codes: Firebase's REST reference)."""
    words = f"{refusal.code} {refusal.words}".strip() or "no reason given"
    said = f"the identity host refuses with {refusal.status}: {words}"
    match refusal.code:
        case code if code in GONE_CODES:
            return AccountGone(code)
        case code if code in QUOTA_CODES or refusal.status == 429:
            return RateLimited(said, retry_after=refusal.retry_after)
        case "USER_DISABLED":
            return AuthError(
                said,
                hint="the operator disabled this account; `arta-mcp account reset` drops it,"
                " but ask first whether you may use the service",
            )
        case _ if refusal.status == 503 and refusal.retry_after is not None:
            hint = f"wait {refusal.retry_after:.0f} s, then try again"
            return Unavailable(said, retry_after=refusal.retry_after, hint=hint)
        case _ if refusal.status >= 500 or refusal.status == 408:
            return Unavailable(said)
        case _:
            signs = _HINTS.items()
            hint = next((hint for sign, hint in signs if re.search(sign, words)), "")
            return AuthError(said, hint=hint)
