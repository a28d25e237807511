"""Who a client is, for fair shares and for the right to resume: a name that says nothing of the credential in it.

Pure. A credential is not checked here; two clients with the same one are the same principal, and without one it is
the address they come from.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from urllib.parse import unquote

from server.access.credentials import credentials_in

TOKEN_PREFIX = "token."  # noqa: S105 - how a browser, which cannot set headers, offers a credential
DIGEST_CHARS = 32
_MAPPED = "::ffff:"


def principal_of(fields: Iterable[tuple[str, str | bytes]], address: str) -> str:
    """The name of who sent these headers (or this gRPC metadata) from this address.

    A bearer token counts before a subprotocol `token.…`, that before an `x-api-key`.

    Args:
        fields: names, in any case, with their values.
        address: where the client is, without a port.

    >>> principal_of([("Authorization", "Basic abc")], "192.0.2.1")
    'address 192.0.2.1'
    >>> principal_of([("x-api-key", "k")], "192.0.2.1") == principal_of([("x-api-key", "k")], "192.0.2.2")
    True
    """
    credential = next(credentials_in(fields, (TOKEN_PREFIX,), math.inf), "")
    if not credential:
        return f"address {address.removeprefix(_MAPPED)}"
    digest = hashlib.sha256(credential.encode("utf-8", "surrogateescape")).hexdigest()
    return f"key {digest[:DIGEST_CHARS]}"


def grpc_address(peer: str) -> str:
    """The address in what gRPC calls a peer, without the port.

    >>> grpc_address("ipv4:192.0.2.1:5000"), grpc_address("ipv6:%5B2001:db8::1%5D:5000"), grpc_address("unix:")
    ('192.0.2.1', '2001:db8::1', 'unix')
    """
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind or "unknown"
    return rest.rpartition(":")[0].strip("[]")
