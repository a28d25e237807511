"""What the settings of JSON Web Tokens may say. Pure; it is loaded with the settings, so it brings no cryptography."""

from __future__ import annotations

from urllib.parse import urlsplit

from asr.endpoints import is_loopback

CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
"""The curve of each algorithm over one."""
RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
ALGORITHMS = RSA_ALGORITHMS | CURVES.keys() | {"EdDSA"}
"""The signatures that may be accepted. None of them is symmetric: a secret that a gateway shares with an issuer would
let the gateway issue, and a public key could be taken for such a secret."""


def parse_algorithms(text: str) -> frozenset[str]:
    """`RS256,ES256` as a set.

    Raises:
        ValueError: one of them is unknown, or there is none.

    >>> sorted(parse_algorithms("RS256, ES256"))
    ['ES256', 'RS256']
    """
    found = {part.strip() for part in text.split(",")} - {""}
    unknown = sorted(found - ALGORITHMS)
    if unknown or not found:
        what = f"{unknown[0]!r} is not one that is accepted" if unknown else "it names none"
        secret = " (HS… would need a secret shared with the issuer)" if unknown and unknown[0].startswith("HS") else ""
        raise ValueError(f"{what}{secret}. Choose from {', '.join(sorted(ALGORITHMS))}.")
    return frozenset(found)


def check_keys_address(text: str) -> None:
    """Whether keys may be fetched from there; a path is not looked at.

    Raises:
        ValueError: it is an address without TLS on another machine, or none of a known kind.
    """
    scheme, mark, _ = text.partition("://")
    if not mark:
        return
    try:
        url = urlsplit(text)
        host, _, secret = url.hostname, url.port, url.username or url.password
    except ValueError:
        host = secret = None
    if scheme.lower() not in ("https", "http") or not host:
        raise ValueError("it is neither a file nor an https address of a JWKS.")
    if secret:
        raise ValueError("it holds a user or a password. A JWKS is public: leave them out.")
    if scheme.lower() == "http" and not is_loopback(f"{host}:0"):
        raise ValueError("whoever sits on the way could put keys of their own in. Write https://.")
