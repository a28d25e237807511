"""Sessions made before their connection: short-lived secrets, and the settings that they stand for.

The time and the randomness are arguments. Nothing is unbounded: so many secrets live at a time, with so much of
settings, and a further one is refused until some have expired. Until then a secret may be used again: clients
reconnect.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from asr.errors import ASRError, Code
from server.faces.realtime.dialect import Dialect, Handshake

Json = dict[str, Any]

MAX_SECRETS = 10_000
MAX_KEPT_BYTES = 32 * 1024 * 1024
REALM = "riva-gateway"
"""Of the `WWW-Authenticate` header."""


@dataclass(frozen=True, slots=True)
class Minted:
    """A secret and what it stands for.

    Attributes:
        value: the secret.
        expires_at: in Unix seconds.
        session: the settings given with it, in the spelling of its dialects.
        dialects: those that can read these settings.
    """

    value: str
    expires_at: int
    session: Json
    dialects: frozenset[Dialect]


class Minting:
    """The register of minted sessions.

    Args:
        key: who may mint; "" for everybody, and then connections need no secret either.
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

    @property
    def is_open(self) -> bool:
        """Whether everybody may mint, and connect."""
        return not self._key

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
        self, session: Json, dialects: frozenset[Dialect], *, prefix: str = "", ttl_s: int | None = None
    ) -> Minted:
        """A new secret for these settings, good for `ttl_s` seconds, but no longer than the server allows.

        Raises:
            ASRError: `rate_limited`, while too many live.
        """
        now = self._unix_time()
        size = len(orjson.dumps(session))
        if len(self._living) >= self._max_secrets or self._kept_bytes + size > MAX_KEPT_BYTES:
            self._forget(now)
        if len(self._living) >= self._max_secrets or self._kept_bytes + size > MAX_KEPT_BYTES:
            text = "Too many sessions were made that are not used yet. Try again when some have expired."
            raise ASRError(Code.RATE_LIMITED, text, retry_after_ms=1_000)
        lasts_s = self._ttl_s if ttl_s is None else max(1, min(ttl_s, self._ttl_s))
        minted = Minted(prefix + self._new_secret(), int(now) + lasts_s, session, dialects)
        self._living[minted.value] = minted
        self._sizes[minted.value] = size
        self._kept_bytes += size
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
            del self._living[value]
            self._kept_bytes -= self._sizes.pop(value)

    def _is_key(self, shown: str) -> bool:
        # A header may hold any bytes.
        return bool(self._key) and hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self._key.encode())
