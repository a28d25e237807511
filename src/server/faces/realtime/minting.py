"""Sessions made before their connection: short-lived secrets, and the settings that they stand for.

Where the gateway asks everybody for a credential, a secret is one (`Minting.verify`): whoever shows it is who made it,
and may transcribe. It opens connections for as long as it lives; one that is open is not ended by that.

The time and the randomness are arguments. Nothing is unbounded: so many secrets live at a time, with so much of
settings, and a further one is refused until some have expired. Until then a secret may be used again: clients
reconnect.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from asr.errors import ASRError, Code
from server.access.grants import Grant, Scope, payer_of
from server.faces.realtime.dialect import Dialect, Handshake

Json = dict[str, Any]

MAX_SECRETS = 10_000
MAX_KEPT_BYTES = 32 * 1024 * 1024
SHARE = 4
"""Of both, one caller may have one in so many, where it is known who asks."""
OWN_PRINCIPAL = "key :realtime"
"""Who shows the key of this register itself, where a gate asks who it is. No API key has such a name."""


@dataclass(frozen=True, slots=True)
class Minted:
    """A secret and what it stands for.

    Attributes:
        value: the secret.
        expires_at: in Unix seconds.
        session: the settings given with it, in the spelling of its dialects.
        dialects: those that can read these settings.
        grant: what whoever shows it may do; None where nobody asked who made it.
    """

    value: str
    expires_at: int
    session: Json
    dialects: frozenset[Dialect]
    grant: Grant | None = None


class Minting:
    """The register of minted sessions.

    Args:
        key: who may mint; "" for everybody, and then connections need no secret either. Where a gate stands in front
            (`trust_gate`), it is one more key to that, for minting and transcribing.
        ttl_ms: how long a secret is good for.
        unix_time: the wall clock, in seconds.
        new_secret: makes an unguessable text.
        new_id: makes an id with the prefix that it is given.
        max_secrets: that live at a time.
    """

    def __init__(
        self,
        *,
        key: str,
        ttl_ms: int,
        unix_time: Callable[[], float],
        new_secret: Callable[[], str],
        new_id: Callable[[str], str],
        max_secrets: int = MAX_SECRETS,
    ) -> None:
        self._key = key
        self._ttl_s = max(ttl_ms // 1000, 1)
        self._unix_time = unix_time
        self._new_secret = new_secret
        self.new_id = new_id
        self._max_secrets = max_secrets
        self._living: dict[str, Minted] = {}
        self._sizes: dict[str, int] = {}
        self._kept_bytes = 0
        self._made_by = Counter[str]()
        self._bytes_by = Counter[str]()
        self._is_gated = False

    @property
    def is_open(self) -> bool:
        """Whether everybody who comes so far may mint, and connect."""
        return self._is_gated or not self._key

    def trust_gate(self) -> None:
        """Whoever comes from now on has shown a credential to the gate, and is not asked again."""
        self._is_gated = True

    def verify(self, credential: str) -> Grant | None:
        """See `server.access.gate.Verifier`."""
        minted = self._find(credential)
        if minted is not None:
            return minted.grant
        return Grant(OWN_PRINCIPAL, frozenset({Scope.TRANSCRIBE, Scope.MINT})) if self._is_key(credential) else None

    def still_good(self, grant: Grant) -> bool:
        """See `server.access.gate.Verifier`."""
        return True

    def check_key(self, headers: Mapping[str, str]) -> None:
        """Let nobody mint who does not show the key, as a Bearer credential or as `X-API-Key`.

        Raises:
            ASRError: `unauthorized`.
        """
        if self.is_open:
            return
        scheme, _, bearer = headers.get("authorization", "").strip().partition(" ")
        shown = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
        if not self._is_key(shown):
            text = "The API key of this server is missing or wrong. Send it as 'Authorization: Bearer <key>'."
            raise ASRError(Code.UNAUTHORIZED, text)

    def mint(
        self,
        session: Json,
        dialects: frozenset[Dialect],
        *,
        prefix: str = "",
        ttl_s: int | None = None,
        minter: Grant | None = None,
    ) -> Minted:
        """A new secret for these settings, good for `ttl_s` seconds, but no longer than the server allows.

        Args:
            session: the settings.
            dialects: those that can read them.
            prefix: how the secret begins.
            ttl_s: as above.
            minter: what its maker may do, where somebody asked; the secret allows to transcribe in its name.

        Raises:
            ASRError: `rate_limited`, while too many live; `forbidden`, for a maker who may not transcribe.
        """
        if minter is not None:
            minter.check(Scope.TRANSCRIBE)
            minter = replace(minter, scopes=frozenset({Scope.TRANSCRIBE}))
        now = self._unix_time()
        size = len(orjson.dumps(session))
        if self._is_full(minter, size):
            self._forget(now)
        if self._is_full(minter, size):
            text = "Too many sessions were made that are not used yet. Try again when some have expired."
            raise ASRError(Code.RATE_LIMITED, text, retry_after_ms=1_000)
        lasts_s = self._ttl_s if ttl_s is None else max(1, min(ttl_s, self._ttl_s))
        minted = Minted(prefix + self._new_secret(), int(now) + lasts_s, session, dialects, minter)
        self._living[minted.value] = minted
        self._sizes[minted.value] = size
        self._count(minted, 1, size)
        return minted

    def admit(self, handshake: Handshake) -> Json | None:
        """The settings that a connection starts from, or None for the dialect's own.

        A secret counts however it is offered: as a NIM's token, a Bearer credential or a browser's key. The server's
        own key opens a connection as well, but not as a NIM's token.

        Raises:
            ASRError: `unauthorized`, where a key is set and neither was shown.
        """
        for value in (handshake.token, handshake.key):
            minted = self._find(value)
            if minted is not None:
                return dict(minted.session) if handshake.dialect in minted.dialects and minted.session else None
        if self.is_open or self._is_key(handshake.key):
            return None
        if handshake.token or handshake.key:
            text = "The credential is wrong or has expired. Make another session, and offer its secret."
        elif handshake.dialect is Dialect.NIM:
            text = (
                "This server needs the secret of a session. POST /v1/realtime/transcription_sessions with the API key, "
                "and offer its client_secret as the subprotocol realtime-token.<secret>."
            )
        else:
            text = "This server needs a key. Send the API key, or the secret of a session, as a Bearer credential."
        raise ASRError(Code.UNAUTHORIZED, text)

    def _find(self, value: str) -> Minted | None:
        # The secrets are long and random: that looking one up takes longer for some tells nothing of use.
        minted = self._living.get(value) if value else None
        return minted if minted is not None and minted.expires_at > self._unix_time() else None

    def _forget(self, now: float) -> None:
        for value in [value for value, minted in self._living.items() if minted.expires_at <= now]:
            self._count(self._living.pop(value), -1, -self._sizes.pop(value))

    def _is_full(self, minter: Grant | None, size: int) -> bool:
        """Whether there is no room for a further secret, or no more for this caller."""
        if len(self._living) >= self._max_secrets or self._kept_bytes + size > MAX_KEPT_BYTES:
            return True
        if minter is None:
            return False
        payer = payer_of(minter.principal)
        has_share = self._made_by[payer] >= max(self._max_secrets // SHARE, 1)
        return has_share or self._bytes_by[payer] + size > MAX_KEPT_BYTES // SHARE

    def _count(self, minted: Minted, number: int, size: int) -> None:
        self._kept_bytes += size
        if minted.grant is None:
            return
        payer = payer_of(minted.grant.principal)
        self._made_by[payer] += number
        self._bytes_by[payer] += size
        if not self._made_by[payer]:
            del self._made_by[payer], self._bytes_by[payer]

    def _is_key(self, shown: str) -> bool:
        # A header may hold any bytes.
        return bool(self._key) and hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self._key.encode())
