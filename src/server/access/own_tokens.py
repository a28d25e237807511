"""Short-lived tokens of our own, `rgt_…`: for browsers, which must not hold a key, and for what a key hands on. Pure.

`rgt_<claims>.<mac>`, both base64url: the claims are JSON that anybody may read, the MAC is HMAC-SHA256 under a secret
of the gateways. It is no JWT on purpose: neither verifier takes what the other one made, and there is no algorithm to
choose. A token never allows more than what it was made with, never lasts longer, and ends with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from asr.errors import ASRError, Code
from server.access.grants import CLIENT_SCOPES, Allowance, Grant, Scope, payer_of

PREFIX = "rgt_"
MIN_SECRET_CHARS = 32
MAX_SECRETS = 8
MAX_TOKEN_CHARS = 2_048
MAX_SUBJECT_CHARS = 256
MAX_REMEMBERED = 100_000
"""Single-use tokens that were used and could come again; a further one is refused until some of them have expired."""
SHARE = 4
"""Of these, one caller may have one in so many."""
_DOMAIN = b"riva-gateway token 1\n"
_SERIAL_PREFIX = "token:"
_CLAIMS = {"p", "s", "e", "i", "o", "a", "r"}


@dataclass(frozen=True, slots=True)
class Minted:
    """A token that was made.

    Attributes:
        token: the credential itself.
        expires_at: in Unix seconds.
        scopes: what it allows.
        single_use: whether it opens one connection only.
    """

    token: str = field(repr=False)
    expires_at: int
    scopes: frozenset[Scope]
    single_use: bool


class OwnTokens:
    """Makes tokens, and is the `Verifier` of them.

    Args:
        secrets: the first signs, all of them are accepted; see `read_secrets`.
        max_ttl_ms: the longest life of a token, and what it gets where nothing else is asked for.
        unix_time: the wall clock, in seconds.
        token_hex: random bytes in hexadecimal, from a source fit for secrets.
    """

    def __init__(
        self,
        secrets: Sequence[bytes],
        *,
        max_ttl_ms: int,
        unix_time: Callable[[], float],
        token_hex: Callable[[int], str],
    ) -> None:
        self._secrets = tuple(secrets)
        self._max_ttl_ms = max_ttl_ms
        self._unix_time = unix_time
        self._token_hex = token_hex
        self._used: dict[str, tuple[float, str]] = {}  # until when it must be remembered, and whose it was
        self._used_by = Counter[str]()

    def mint(
        self,
        minter: Grant,
        *,
        scopes: Iterable[Scope] | None = None,
        ttl_ms: int | None = None,
        subject: str = "",
        single_use: bool = False,
    ) -> Minted:
        """A token that allows no more than its minter may.

        Args:
            minter: who asks for it; its scope `mint` was checked.
            scopes: left out: those of `CLIENT_SCOPES` that the minter has.
            ttl_ms: left out: the longest.
            subject: for whom it is, in the minter's own words; only a digest of it goes into the token. What one
                subject makes (jobs, sessions) is hidden from another; quotas are those of the minter together.
            single_use: whether it opens one connection only.

        Raises:
            ASRError: `forbidden` for scopes that the minter lacks, `bad_request` for anything else that cannot be.
        """
        given = minter.scopes & CLIENT_SCOPES if scopes is None else frozenset(scopes)
        if not given <= minter.scopes:
            missing = ", ".join(sorted(given - minter.scopes))
            raise ASRError(Code.FORBIDDEN, f"A token cannot allow more than what it is made with: {missing}.")
        if not given:
            raise ASRError(Code.BAD_REQUEST, "A token without any scope is good for nothing. Name one.", param="scopes")
        if len(subject) > MAX_SUBJECT_CHARS:
            text = f"The subject is longer than {MAX_SUBJECT_CHARS} characters. Send a shorter name."
            raise ASRError(Code.BAD_REQUEST, text, param="subject")
        expires_at = int(self._unix_time() + self._ttl_ms(ttl_ms) / 1000)
        if minter.expires_at is not None:
            expires_at = min(expires_at, int(minter.expires_at))
        serial = self._token_hex(12)
        allowance = minter.allowance
        claims = {
            "p": _principal(minter.principal, subject),
            "s": sorted(given),
            "e": expires_at,
            "i": serial,
            "o": single_use,
            "a": [allowance.streams, allowance.starts_per_minute, allowance.audio_minutes_per_day],
            "r": minter.serial,
        }
        body = _encoded(json.dumps(claims, separators=(",", ":")).encode())
        token = f"{PREFIX}{body}.{_encoded(_mac(self._secrets[0], body))}"
        if len(token) > MAX_TOKEN_CHARS:
            text = "A token of a token of a token … has grown too long. Make it with a key."
            raise ASRError(Code.BAD_REQUEST, text)
        return Minted(token, expires_at, given, single_use)

    def verify(self, credential: str) -> Grant | None:
        """See `Verifier`. One that has expired gives a grant that has; a single-use token is used by this.

        Raises:
            ASRError: `overloaded`, for a single-use token where too many are to be remembered.
        """
        if not credential.startswith(PREFIX) or len(credential) > MAX_TOKEN_CHARS:
            return None
        body, _, mac = credential.removeprefix(PREFIX).partition(".")
        shown = _decoded(mac)
        if shown is None or not body.isascii():
            return None
        # All of them are computed, whichever fits.
        if not any([hmac.compare_digest(_mac(secret, body), shown) for secret in self._secrets]):  # noqa: C419
            return None
        claims = _claims(body)
        if claims is None:
            return None
        grant = _grant(claims)
        if claims["o"] and not self._first_use(claims["i"], claims["e"], payer_of(claims["p"])):
            return None
        return grant

    def still_good(self, grant: Grant) -> bool:
        """See `Verifier`: a token ends with its time, or with the key that it was made with, which `Keys` knows."""
        return True

    def _ttl_ms(self, asked: int | None) -> int:
        if asked is None:
            return self._max_ttl_ms
        if not 1_000 <= asked <= self._max_ttl_ms:
            text = f"A token lasts from 1000 to {self._max_ttl_ms} ms here. Ask for a time in between."
            raise ASRError(Code.BAD_REQUEST, text, param="ttl_ms")
        return asked

    def _first_use(self, serial: str, expires_at: float, payer: str) -> bool:
        now = self._unix_time()
        if serial in self._used:
            return False
        if expires_at <= now:
            return True  # of no use to anybody, and the gate says so
        if self._has_used_up(payer):
            self._used = {known: use for known, use in self._used.items() if use[0] > now}
            self._used_by = Counter(whose for _, whose in self._used.values())
        if self._has_used_up(payer):
            raise ASRError(Code.OVERLOADED, "Too many single-use tokens are in use. Try again in a moment.")
        self._used[serial] = (expires_at, payer)
        self._used_by[payer] += 1
        return True

    def _has_used_up(self, payer: str) -> bool:
        return len(self._used) >= MAX_REMEMBERED or self._used_by[payer] >= MAX_REMEMBERED // SHARE


def read_secrets(text: str) -> tuple[bytes, ...]:
    """The secrets in a setting or file: separated by commas or blank space, the one that signs first.

    Raises:
        ValueError: there is none, one is too short, or there are too many.
    """
    found = text.replace(",", " ").split()
    if not found or any(len(secret) < MIN_SECRET_CHARS for secret in found):
        raise ValueError(
            f"each secret needs at least {MIN_SECRET_CHARS} characters without blanks, as `openssl rand -hex 32` makes."
        )
    if len(found) > MAX_SECRETS:
        raise ValueError(f"more than {MAX_SECRETS} secrets are too many. Keep the newest, and the one before it.")
    return tuple(secret.encode() for secret in found)


def _principal(minter: str, subject: str) -> str:
    if not subject:
        return minter
    digest = hashlib.sha256(f"{minter}\n{subject}".encode("utf-8", "surrogateescape")).hexdigest()
    return f"{payer_of(minter)} for {digest[:24]}"


def _mac(secret: bytes, body: str) -> bytes:
    return hmac.digest(secret, _DOMAIN + body.encode("ascii"), "sha256")


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes | None:
    """Exactly what `_encoded` made of something; None for every other spelling of it."""
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        return None
    return content if _encoded(content) == text else None


def _claims(body: str) -> dict[str, Any] | None:
    """The claims of a token whose MAC was right: those of `mint`, or of a gateway of another version."""
    content = _decoded(body)
    if content is None:
        return None
    try:
        claims = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) and claims.keys() == _CLAIMS else None


def _grant(claims: dict[str, Any]) -> Grant:
    known = {scope.value for scope in Scope}
    parent = f"{claims['r']}/" if claims["r"] else ""
    return Grant(
        principal=claims["p"],
        scopes=frozenset(Scope(scope) for scope in claims["s"] if scope in known),
        expires_at=float(claims["e"]),
        allowance=Allowance(*claims["a"]),
        serial=f"{parent}{_SERIAL_PREFIX}{claims['i']}",
    )
