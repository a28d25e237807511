"""How strong TLS must be: what both listeners agree to, and nothing weaker. `docs/tls.md` has the list for people."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from asr.tls_files import CertificateError

CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
"""Of TLS 1.2: Mozilla's "intermediate" without finite-field Diffie-Hellman. TLS 1.3 has only good ones. gRPC brings
a list of its own, of the four with AES."""
GROUP = "prime256v1"
"""The curve of the key exchange. Python can name one only, and this one all clients know; left alone, OpenSSL 3 offers
finite fields of up to 8192 bits too, with which a stranger keeps a core busy at no cost to himself."""


def server_ssl_context(cert: Path, key: Path, *, client_ca: bytes | None = None) -> ssl.SSLContext:
    """What the HTTPS listener needs: TLS 1.2 or newer, strong suites only, ALPN `http/1.1`.

    Args:
        cert: PEM; its own certificate first.
        key: PEM.
        client_ca: PEM; clients must show a certificate that one of these has signed.

    Raises:
        CertificateError: OpenSSL does not take the files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Level 2 refuses keys and signatures of less than 112 bits, such as RSA 1024 and SHA-1.
    context.set_ciphers(":".join(CIPHERS) + ":@SECLEVEL=2")
    context.set_ecdh_curve(GROUP)
    # No tickets: streams are long, so they would save little; their key would live as long as the process, and a
    # client whose certificate is not trusted any more could come in on one.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key)
    except (ssl.SSLError, OSError) as error:
        raise CertificateError(f"TLS_CERT {cert} and TLS_KEY {key} cannot be used: {error}.") from error
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cadata=client_ca.decode("ascii", "ignore"))
        except ssl.SSLError as error:
            raise CertificateError(f"TLS_CLIENT_CA cannot be used: {error}.", "TLS_CLIENT_CA") from error
    return context


class LiveContext(ssl.SSLContext):
    """The context of an open listener, which can be replaced: each handshake is done with the newest.

    A context that is in use cannot forget: an authority once loaded stays trusted, and so do sessions that can be
    resumed. So a new one takes its place, and connections that are up keep theirs. This one holds no certificate of
    its own; asyncio and uvloop only ever call `wrap_bio`.
    """

    newest: ssl.SSLContext

    def __new__(cls, first: ssl.SSLContext) -> LiveContext:  # noqa: D102 - as `ssl.SSLContext`
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made.newest = first
        return made

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        """As in `ssl.SSLContext`, with the newest context."""
        return self.newest.wrap_bio(*given, **named)
