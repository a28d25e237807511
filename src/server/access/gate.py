"""The one place where access is granted, for HTTP, WebSockets and gRPC alike.

A face shows what it was sent (headers or metadata, and the address) and the scope that is needed; out comes a grant,
or an error whose words are the same whatever is wrong with the credential.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Protocol

from asr.errors import ASRError, Code
from server.access.attempts import Attempts
from server.access.credentials import credentials_in
from server.access.grants import Grant, Scope
from server.principal import principal_of

WRONG = "The credential is missing, wrong or expired. Send an API key or a token, as 'Authorization: Bearer …'."
"""The same for every cause: who tries credentials learns nothing."""
MAX_SHOWN = 4
"""Credentials of one request that are looked at; a client needs one."""


class Verifier(Protocol):
    """One kind of credential."""

    def verify(self, credential: str) -> Grant | None:
        """What it allows; None for one that is not of this kind, or not good. Constant in time where it compares.

        A good one that has expired may give a grant that has.

        Raises:
            ASRError: it cannot be told now, as when there is nothing yet to check it with.
        """
        ...

    def still_good(self, grant: Grant) -> bool:
        """Whether a grant of this kind holds on: not revoked. True for grants of another kind."""
        ...


class Gate:
    """Who may come in.

    Args:
        verifiers: asked in this order.
        is_open: whether everybody may do everything without a credential.
        unix_time: the wall clock, in seconds.
        attempts: slows those who show wrong credentials; None: nobody is.

    Attributes:
        refused: refusals since the start, by reason: `missing`, `wrong`, `expired`, `scope`; others may add theirs.
    """

    def __init__(
        self,
        verifiers: Sequence[Verifier],
        *,
        is_open: bool,
        unix_time: Callable[[], float],
        attempts: Attempts | None = None,
    ) -> None:
        self.refused: Counter[str] = Counter()
        self._verifiers = tuple(verifiers)
        self._unix_time = unix_time
        self._attempts = attempts
        self.is_open = is_open

    def enter(self, fields: Iterable[tuple[str, str | bytes]], address: str, scope: Scope) -> Grant:
        """What the sender of these headers may do.

        Args:
            fields: headers or gRPC metadata: names, in any case, with their values.
            address: where the client is, without a port.
            scope: what is about to be done.

        Raises:
            ASRError: `unauthorized` for no good credential, `forbidden` for one that does not allow `scope`,
                `rate_limited` for a wrong one after many from this address, `unavailable` where it cannot be checked.
        """
        shown = list(fields)
        reason = "missing"
        unknown: ASRError | None = None
        for credential in islice(credentials_in(shown), MAX_SHOWN):
            try:
                grant = self._verified(credential)
            except ASRError as error:
                unknown = error
                continue
            if grant is not None and self.refusal(grant) is None:
                if scope not in grant.scopes:
                    self.refused["scope"] += 1
                grant.check(scope)
                return grant
            reason = "wrong" if grant is None else "expired"
        if self.is_open:
            return Grant(principal_of(shown, address))
        if unknown is not None:
            raise unknown
        self.refused[reason] += 1
        slowed = self._attempts.failed(address) if reason == "wrong" and self._attempts is not None else None
        raise slowed if slowed is not None else ASRError(Code.UNAUTHORIZED, WRONG)

    def refusal(self, grant: Grant) -> ASRError | None:
        """Why a grant holds no longer, or None; asked again while a stream runs."""
        if grant.expires_at is not None and grant.expires_at <= self._unix_time():
            return ASRError(Code.UNAUTHORIZED, "The credential has expired. Connect again with a new one.")
        if not all(verifier.still_good(grant) for verifier in self._verifiers):
            return ASRError(Code.UNAUTHORIZED, "The credential has been revoked. Connect again with a new one.")
        return None

    def left_s(self, grant: Grant) -> float:
        """How long a grant still holds, unless it is revoked; endless where it does not expire."""
        return math.inf if grant.expires_at is None else grant.expires_at - self._unix_time()

    def _verified(self, credential: str) -> Grant | None:
        for verifier in self._verifiers:
            grant = verifier.verify(credential)
            if grant is not None:
                return grant
        return None
