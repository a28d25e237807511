"""Whoever stands at every door: asks for the credential that its rule wants, and minds where web pages come from.

The faces differ only in what they are shown and in how they say no; everything that is decided is decided here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from asr.errors import ASRError, Code
from server.access.credentials import credentials_in
from server.access.gate import Gate
from server.access.grants import Grant, Scope
from server.access.origins import OriginPolicy
from server.access.rules import Rule
from server.admission import Admission, Place

log = structlog.get_logger("server.access")

Fields = Sequence[tuple[str, str | bytes]]

NO_RULE = "This is not open to anybody: no rule says who may use it."
FOREIGN = (
    "A web page of another site may not do this here. Its origin has to be in ALLOWED_ORIGINS, spelled exactly as the "
    "browser sends it."
)
STRANGE_HOST = (
    "The gateway does not go by the name in the Host header: it listens on this machine alone, and asks for no "
    "credential. Call it localhost, or name the origin of your proxy in ALLOWED_ORIGINS, or switch AUTH on."
)
OPEN_ADMIN = (
    "This gateway asks for no credential and can be reached from other machines, so nobody may steer it. Switch AUTH "
    "on, and use a key with the scope admin."
)


class Usage(Protocol):
    """What callers have used of their quotas; see `server.access.quotas`."""

    def start(self, grant: Grant) -> ASRError | None:
        """Count a start; or why there may be none."""
        ...

    def spend(self, grant: Grant, audio_ms: float) -> ASRError | None:
        """Count audio; an error once there may be no more."""
        ...


class Boundless:
    """No quotas."""

    def start(self, grant: Grant) -> ASRError | None:
        """See `Usage`."""
        return None

    def spend(self, grant: Grant, audio_ms: float) -> ASRError | None:
        """See `Usage`."""
        return None


class Porter:
    """Lets in.

    Args:
        gate: knows the credentials.
        origins: where web pages may come from.
        usage: quotas.
        is_local: whether only this machine can reach the gateway.
        refused: counts those who were not let in, by reason: `missing`, `wrong`, `scope`, `origin`, `host`, `rule`.
    """

    def __init__(
        self,
        gate: Gate,
        origins: OriginPolicy,
        *,
        usage: Usage | None = None,
        is_local: bool = False,
        refused: Counter[str] | None = None,
    ) -> None:
        self.gate = gate
        self.origins = origins
        self.usage: Usage = usage if usage is not None else Boundless()
        self._is_local = is_local
        self._refused = refused if refused is not None else Counter[str]()

    def enter(self, rule: Rule | None, fields: Fields, address: str, door: str) -> Grant | None:
        """What the sender of these headers may do; None at an open door, and for nobody in particular at one that
        is open to some degree.

        Args:
            rule: of the door; None: it has none, and nobody passes.
            fields: headers or metadata.
            address: where the client is, without a port.
            door: for the log: a route's template or a method's name, nothing that a client chose.

        Raises:
            ASRError: `unauthorized`, `forbidden`, or what the gate says of too many wrong credentials.
        """
        if rule is None:
            self.note("rule", door, address)
            raise ASRError(Code.FORBIDDEN, NO_RULE)
        if rule.scope is None:
            return None
        if rule.is_optional and not self.gate.is_open and next(iter(credentials_in(fields)), None) is None:
            return None
        try:
            grant = self.gate.enter(fields, address, rule.scope)
        except ASRError as error:
            if rule.is_optional:
                return None
            if error.code is Code.FORBIDDEN:
                reason = "scope"
            else:
                reason = "missing" if next(iter(credentials_in(fields)), None) is None else "wrong"
            self.note(reason, door, address)
            raise
        if rule.scope is Scope.ADMIN and self.is_anonymous(grant) and not self._is_local:
            self.note("scope", door, address)
            raise ASRError(Code.FORBIDDEN, OPEN_ADMIN)
        return grant

    def check_host(self, hosts: list[str], door: str, address: str) -> None:
        """Raises `forbidden` where the gateway is called by a name that is not its own."""
        if not self.origins.knows(hosts):
            self.note("host", door, address)
            raise ASRError(Code.FORBIDDEN, STRANGE_HOST)

    def check_origin(self, origins: list[str], hosts: list[str], door: str, address: str) -> None:
        """Raises `forbidden` for a web page of a site that was not allowed."""
        if not self.origins.admits(origins, hosts):
            self.note("origin", door, address)
            raise ASRError(Code.FORBIDDEN, FOREIGN)

    def is_anonymous(self, grant: Grant) -> bool:
        """Whether somebody came in only because the gate is open."""
        return self.gate.is_open and not grant.serial

    def admit(self, admission: Admission, grant: Grant) -> Place:
        """Take a place for this caller.

        Raises:
            ASRError: see `Admission.admit`; `rate_limited` where a quota is used up.
        """
        place = admission.admit(grant.principal, grant.allowance)
        error = self.usage.start(grant)
        if error is not None:
            place.release()
            raise error
        return place

    def note(self, reason: str, door: str, address: str) -> None:
        """One line for whoever looks after the gateway, and a count. Never a credential."""
        log.info("access refused", reason=reason, door=door, address=address or None)
        self._refused[reason] += 1


def open_porter(unix_time: Callable[[], float] = time.time) -> Porter:
    """One that asks nobody for a credential, and lets in no page of another site."""
    return Porter(Gate([], is_open=True, unix_time=unix_time), OriginPolicy(frozenset(), is_tls=False), is_local=True)
