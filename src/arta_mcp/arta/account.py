"""Account: the tokens of one anonymous account, and how long they serve. No I/O happens here."""

from __future__ import annotations

from dataclasses import dataclass

from arta_mcp.arta.protocol import Tokens
from arta_mcp.redaction import Secret


@dataclass(frozen=True, slots=True)
class Account:
    """One anonymous account; times are seconds since the epoch."""

    id_token: Secret
    refresh_token: Secret
    issued_at: float
    expires_at: float
    user_id: str

    @classmethod
    def from_tokens(cls, tokens: Tokens, *, now: float, before: Account | None = None) -> Account:
        """The account that an answer gives; a refresh may leave out what has not changed since."""
        kept = before.refresh_token if before else tokens.refresh_token
        return cls(
            id_token=tokens.id_token,
            refresh_token=tokens.refresh_token if tokens.refresh_token.reveal() else kept,
            issued_at=now,
            expires_at=now + tokens.expires_in,
            user_id=tokens.user_id or (before.user_id if before else ""),
        )

    def is_fresh(self, now: float) -> bool:
        """Whether the id token still serves: renewed 5 minutes, or a fifth of its life, ahead.

        A clock that went back behind the issue makes a token stale: its age is not known then.
        """
        ahead = min(300.0, (self.expires_at - self.issued_at) / 5)
        return self.issued_at - 60 <= now < self.expires_at - ahead
