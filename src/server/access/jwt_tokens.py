"""JSON Web Tokens of somebody else's issuer, as a `Verifier`. Pure: the keys come from `jwks`, and time is an argument.

The token itself decides nothing: the algorithms are ours, the keys are ours, and what its header carries or points at
(`jwk`, `jku`, `x5c`, `x5u`) is not looked at. PyJWT checks the signature; the claims are checked here, strictly.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Callable, Collection
from typing import Any

from jwt import PyJWS
from jwt.exceptions import PyJWTError

from asr.errors import ASRError, Code
from server.access.grants import Allowance, Grant, Scope
from server.access.jwt_keys import MAX_KID_CHARS, KeySet

LEEWAY_S = 60.0
"""How far the issuer's clock and ours may lie apart."""
MAX_HEADER_CHARS = 2_048
MAX_SUBJECT_CHARS = 1_024
MAX_CANDIDATES = 8
"""Keys that one token is tried with."""
ALLOWANCE_CLAIM = "riva_gateway"
"""An object with any of `streams`, `starts_per_minute` and `audio_minutes_per_day`."""
_BOUNDS = {"streams": 100_000, "starts_per_minute": 1_000_000, "audio_minutes_per_day": 10_000_000}
_TYPES = {"jwt", "at+jwt", "application/at+jwt"}
_KNOWN_SCOPES = {scope.value: scope for scope in Scope}
_JWS = PyJWS()


class _Refused(Exception):
    """This token is not good; nobody is told why."""


class JwtVerifier:
    """Checks tokens.

    Args:
        keys: the issuer's keys as they are known now; None: not known yet.
        kid_unknown: told when a token names a key that is not among them.
        issuer: what `iss` must be.
        audience: what `aud` must be or hold.
        algorithms: the signatures that are accepted, from `jwt_keys.ALGORITHMS`.
        scope_claim: the claim with the scopes: a text with blanks between them, or a list.
        unix_time: the wall clock, in seconds.
    """

    def __init__(
        self,
        keys: Callable[[], KeySet | None],
        kid_unknown: Callable[[], None],
        *,
        issuer: str,
        audience: str,
        algorithms: Collection[str],
        scope_claim: str,
        unix_time: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._kid_unknown = kid_unknown
        self._issuer = issuer
        self._audience = audience
        self._algorithms = frozenset(algorithms)
        self._scope_claim = scope_claim
        self._unix_time = unix_time

    def verify(self, credential: str) -> Grant | None:
        """See `Verifier`. One that has expired, and is good otherwise, gives a grant that has.

        Raises:
            ASRError: `unavailable`, for what looks like a token while no keys are known yet.
        """
        if credential.count(".") != 2 or not credential.isascii():
            return None
        try:
            algorithm, kid = self._header(credential.partition(".")[0])
            keys = self._keys()
            if keys is None:
                text = "Tokens cannot be checked yet: the keys of their issuer are not known. Try again in a moment."
                raise ASRError(Code.UNAVAILABLE, text, retry_after_ms=5_000)
            candidates = keys.candidates(kid, algorithm)[:MAX_CANDIDATES]
            if not candidates:
                self._kid_unknown()
            for candidate in candidates:
                try:
                    payload = _JWS.decode(credential, candidate.key, algorithms=[algorithm])
                except PyJWTError:
                    continue
                return self._grant(_strict_json(payload), credential)
        except _Refused:
            pass
        return None

    def still_good(self, grant: Grant) -> bool:
        """See `Verifier`: a token ends with its time."""
        return True

    def _header(self, segment: str) -> tuple[str, str]:
        """The algorithm and the key's name."""
        if len(segment) > MAX_HEADER_CHARS:
            raise _Refused
        header = _strict_json(_decoded(segment))
        algorithm, kid, kind = header.get("alg"), header.get("kid", ""), header.get("typ", "JWT")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise _Refused
        if not isinstance(kid, str) or len(kid) > MAX_KID_CHARS:
            raise _Refused
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise _Refused  # a logout token or a security event is signed by the same keys
        if header.keys() & {"crit", "b64", "zip", "enc"}:
            raise _Refused  # extensions that would change what is read
        return algorithm, kid

    def _grant(self, claims: dict[str, Any], credential: str) -> Grant:
        now = self._unix_time()
        issuer, subject, expires_at = claims.get("iss"), claims.get("sub"), _moment(claims, "exp")
        if issuer != self._issuer or not self._for_us(claims.get("aud")) or expires_at is None:
            raise _Refused
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARS:
            raise _Refused
        for name in ("nbf", "iat"):
            moment = _moment(claims, name)
            if moment is not None and moment > now + LEEWAY_S:
                raise _Refused
        owner = _digest(f"{issuer}\n{subject}")  # names of people stay out of logs and files
        return Grant(
            principal=f"key jwt {owner}",
            scopes=_scopes(claims.get(self._scope_claim)),
            expires_at=expires_at + LEEWAY_S,
            allowance=_allowance(claims.get(ALLOWANCE_CLAIM)),
            serial=f"jwt:{_digest(credential)}",
        )

    def _for_us(self, audience: object) -> bool:
        if isinstance(audience, list):
            return all(isinstance(one, str) for one in audience) and self._audience in audience
        return audience == self._audience


def _scopes(claim: object) -> frozenset[Scope]:
    names = claim.split(" ") if isinstance(claim, str) else claim
    if names is None:
        return frozenset()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _Refused
    return frozenset(_KNOWN_SCOPES[name] for name in names if name in _KNOWN_SCOPES)


def _allowance(claim: object) -> Allowance:
    if claim is None:
        return Allowance()
    if not isinstance(claim, dict) or not claim.keys() <= _BOUNDS.keys():
        raise _Refused
    if not all(type(value) is int and 0 <= value <= _BOUNDS[name] for name, value in claim.items()):
        raise _Refused
    return Allowance(**claim)


def _moment(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        if name in claims:
            raise _Refused
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused
    if not 0 <= value < 2**53 or not math.isfinite(value):
        raise _Refused
    return float(value)


def _strict_json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _Refused from None
    if not isinstance(value, dict):
        raise _Refused
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers of a claim that is there twice may see two values.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused
    return found


def _no_constant(_: str) -> object:
    raise _Refused  # NaN and Infinity are no JSON


def _decoded(segment: str) -> bytes:
    try:
        content = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (ValueError, binascii.Error):
        raise _Refused from None
    if base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii") != segment:
        raise _Refused
    return content


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
