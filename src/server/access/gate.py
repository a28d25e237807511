"""The one place where access is granted, for HTTP, WebSockets and gRPC alike.

A face shows what it was sent (headers or metadata, and the address) and the scope that is needed; out comes a grant,
or an error whose words are the same whatever is wrong with the credential.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from asr.errors import ASRError, Code
from server.access.credentials import credentials_in
from server.access.grants import Grant, Scope
from server.principal import principal_of

WRONG = "The credential is missing, wrong or expired. Send an API key or a token, as 'Authorization: Bearer …'."
"""The same for every cause: who tries credentials learns nothing."""


class Verifier(Protocol):
    """One kind of credential."""

    def verify(self, credential: str) -> Grant | None:
        """What it allows; None for one that is not of this kind, or not good. Constant in time where it compares."""
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
    """

    def __init__(self, verifiers: Sequence[Verifier], *, is_open: bool, unix_time: Callable[[], float]) -> None:
        self._verifiers = tuple(verifiers)
        self._unix_time = unix_time
        self.is_open = is_open

    def enter(self, fields: Iterable[tuple[str, str | bytes]], address: str, scope: Scope) -> Grant:
        """What the sender of these headers may do.

        Args:
            fields: headers or gRPC metadata: names, in any case, with their values.
            address: where the client is, without a port.
            scope: what is about to be done.

        Raises:
            ASRError: `unauthorized` for no good credential, `forbidden` for one that does not allow `scope`.
        """
        shown = list(fields)
        for credential in credentials_in(shown):
            for verifier in self._verifiers:
                grant = verifier.verify(credential)
                if grant is not None and self.refusal(grant) is None:
                    grant.check(scope)
                    return grant
        if self.is_open:
            return Grant(principal_of(shown, address))
        raise ASRError(Code.UNAUTHORIZED, WRONG)

    def refusal(self, grant: Grant) -> ASRError | None:
        """Why a grant holds no longer, or None; asked again while a stream runs."""
        if grant.expires_at is not None and grant.expires_at <= self._unix_time():
            return ASRError(Code.UNAUTHORIZED, "The credential has expired. Connect again with a new one.")
        if not all(verifier.still_good(grant) for verifier in self._verifiers):
            return ASRError(Code.UNAUTHORIZED, "The credential has been revoked. Connect again with a new one.")
        return None
