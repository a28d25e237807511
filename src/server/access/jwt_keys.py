"""The public keys that JSON Web Tokens are checked with, as PEM or as a JWKS. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from server.access.jwt_settings import ALGORITHMS, CURVES, RSA_ALGORITHMS

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

MAX_BYTES = 1024 * 1024
MAX_KEYS = 64
MAX_KID_CHARS = 256
MIN_RSA_BITS = 2_048

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
_PARSERS: Mapping[str, Any] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}


class BadKeys(ValueError):
    """These are no keys that can be used; the message says why, and holds nothing of them."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key.

    Attributes:
        key: it.
        kid: its name among others; "" for one without, which fits every name.
        algorithms: the signatures that it can be meant for.
    """

    key: PublicKey
    kid: str
    algorithms: frozenset[str]


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of an issuer."""

    keys: tuple[VerificationKey, ...]

    def candidates(self, kid: str, algorithm: str) -> Sequence[VerificationKey]:
        """Those that a signature with this algorithm can be of; a token that names none is tried with all of them."""
        return [key for key in self.keys if algorithm in key.algorithms and (not kid or not key.kid or key.kid == kid)]


def parse_keys(content: bytes) -> KeySet:
    """The keys in a file or an answer: a JWKS, or PEM with public keys or certificates.

    What a JWKS holds beside keys for signatures of a known kind (encryption, kinds of later years) is left out.

    Raises:
        BadKeys: nothing in it can be used, or it holds something secret.
    """
    keys = _from_jwks(content) if content.lstrip()[:1] == b"{" else _from_pem(content)
    if not keys:
        raise BadKeys("it holds no public key for signatures")
    if len(keys) > MAX_KEYS:
        raise BadKeys(f"it holds more than {MAX_KEYS} keys")
    return KeySet(tuple(keys))


def _from_pem(content: bytes) -> list[VerificationKey]:
    found = list[VerificationKey]()
    for match in _PEM.finditer(content):
        kind = match[1].decode("ascii")
        if "PRIVATE" in kind:
            raise BadKeys("it holds a private key. Give the public one, and keep the private one with the issuer")
        try:
            if kind == "CERTIFICATE":
                key: object = x509.load_pem_x509_certificate(match[0]).public_key()
            else:
                key = load_pem_public_key(match[0])
        except (ValueError, UnsupportedAlgorithm):
            raise BadKeys("it holds a PEM block that is no public key") from None
        found.append(_checked(key, "", None))
    return found


def _from_jwks(content: bytes) -> list[VerificationKey]:
    try:
        document = json.loads(content)
        entries = document["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadKeys('it is no JWKS: {"keys": […]}') from None
    if not isinstance(entries, list):
        raise BadKeys('it is no JWKS: "keys" is no list')
    return [key for entry in entries[: MAX_KEYS + 1] if (key := _from_jwk(entry)) is not None]


def _from_jwk(entry: Any) -> VerificationKey | None:
    if not isinstance(entry, dict):
        raise BadKeys("one of its keys is no object")
    if "d" in entry:
        raise BadKeys("one of its keys is private. Publish public keys only")
    operations = entry.get("key_ops", ["verify"])
    parser = _PARSERS.get(str(entry.get("kty")))
    for_signatures = entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    alg, kid = entry.get("alg"), entry.get("kid", "")
    if parser is None or not for_signatures or (alg is not None and alg not in ALGORITHMS):
        return None
    if not isinstance(kid, str) or len(kid) > MAX_KID_CHARS:
        raise BadKeys("the kid of one of its keys is no short text")
    try:
        return _checked(parser.from_jwk(entry), kid, alg)
    except (InvalidKeyError, UnsupportedAlgorithm, ValueError, TypeError, KeyError):
        return None  # a curve that is not known, or too short a key


def _checked(key: object, kid: str, alg: str | None) -> VerificationKey:
    if isinstance(key, RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise BadKeys(f"it holds an RSA key of {key.key_size} bits; at least {MIN_RSA_BITS} are needed")
        fits = RSA_ALGORITHMS
    elif isinstance(key, EllipticCurvePublicKey):
        fits = frozenset(name for name, curve in CURVES.items() if curve == key.curve.name)
    elif isinstance(key, Ed25519PublicKey | Ed448PublicKey):
        fits = frozenset({"EdDSA"})
    else:
        raise BadKeys("it holds a key of a kind that signs no tokens")
    if alg is not None:
        fits &= {alg}
    if not fits:
        raise BadKeys("it holds a key that fits no known algorithm")
    return VerificationKey(key, kid, fits)
