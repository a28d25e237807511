"""What a listener's TLS is made of: the files, and what was read from them in one piece."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc

from asr.tls_files import read_authorities, read_pair
from server.certificates import OWN_NAMES
from server.tls.policy import server_ssl_context


@dataclass(frozen=True, slots=True)
class ListenerFiles:
    """PEM files.

    Attributes:
        cert, key: of the gateway; the certificate with its chain.
        client_ca: who may sign certificates of clients; None asks clients for none.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.cert, self.key) if self.client_ca is None else (self.cert, self.key, self.client_ca)


@dataclass(frozen=True, slots=True)
class ListenerMaterial:
    """What both listeners show and ask for.

    Attributes:
        context: for HTTPS.
        grpc: for gRPC.
        serial: the certificate's number, in hexadecimal as `openssl x509 -serial` prints it.
        expires: the end of the certificate.
        client_ca_expires: the end of the last authority whose clients are let in; None where none is asked for.
    """

    context: ssl.SSLContext
    grpc: grpc.ServerCertificateConfiguration
    serial: str
    expires: datetime
    client_ca_expires: datetime | None


def load_listener(files: ListenerFiles, *, now: datetime) -> ListenerMaterial:
    """Read the files.

    Raises:
        CertificateError: one cannot be used, or they do not fit together.
    """
    pair = read_pair(files.cert, files.key, OWN_NAMES, now=now)
    client_ca: bytes | None = None
    client_ca_expires: datetime | None = None
    if files.client_ca is not None:
        client_ca, client_ca_expires = read_authorities(files.client_ca, "TLS_CLIENT_CA")
    return ListenerMaterial(
        server_ssl_context(files.cert, files.key, client_ca=client_ca),
        grpc.ssl_server_certificate_configuration([(pair.key_pem, pair.cert_pem)], client_ca),
        f"{pair.certificate.serial_number:X}",
        pair.certificate.not_valid_after_utc,
        client_ca_expires,
    )
