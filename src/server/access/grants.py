"""What a credential allows. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from asr.errors import ASRError, Code


class Scope(StrEnum):
    """What one may be allowed to do. The values are spelled in keys and tokens and never change."""

    TRANSCRIBE = "transcribe"
    """Streams and recordings, and what they need to know (models)."""
    JOBS = "jobs"
    """Durable jobs, one's own."""
    MINT = "mint"
    """Short-lived tokens for others, with no more than one's own scopes."""
    METRICS = "metrics"
    """Figures and state of the gateway."""
    ADMIN = "admin"
    """The rollout."""


ALL_SCOPES = frozenset(Scope)
CLIENT_SCOPES = frozenset({Scope.TRANSCRIBE, Scope.JOBS})


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much one caller may have; 0: no bound of its own."""

    streams: int = 0
    starts_per_minute: int = 0
    audio_minutes_per_day: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody who came in may do.

    Attributes:
        principal: who it is: stable over credentials of the same owner, and free of them. It begins with `address `
            for those without a credential, else with `key `.
        scopes: what it may do.
        expires_at: in Unix seconds, or None.
        allowance: how much of it.
        serial: names the credential, so that one that was revoked can be told during a stream; "" for none.
    """

    principal: str
    scopes: frozenset[Scope] = ALL_SCOPES
    expires_at: float | None = None
    allowance: Allowance = field(default_factory=Allowance)
    serial: str = ""

    def check(self, scope: Scope) -> None:
        """Raises:
        ASRError: `forbidden`, where the scope was not given.
        """
        if scope not in self.scopes:
            text = f"This credential does not allow it: the scope {scope.value} is missing. Ask for one that has it."
            raise ASRError(Code.FORBIDDEN, text)


def payer_of(principal: str) -> str:
    """Whose quotas count: whoever made the token, where a principal acts for somebody.

    >>> payer_of("key mobile-app for 3f1c"), payer_of("key mobile-app"), payer_of("address 192.0.2.1")
    ('key mobile-app', 'key mobile-app', 'address 192.0.2.1')
    """
    return principal.partition(" for ")[0]
