"""The certificate for localhost that the gateway makes itself. What is done with one is in `server.tls`.

A browser opens the microphone only on a secure page, so the gateway speaks TLS from its first run, with
a self-made certificate kept in the state directory. It is a leaf, not an authority: somebody who
tells a browser to trust it trusts this one server and nothing its key could sign.
"""

from __future__ import annotations

import fcntl
import ipaddress
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from asr.tls_files import CertificateError, PairNames, read_pair
from server.whole_file import write_whole

LIFETIME = timedelta(days=397)
"""Browsers refuse server certificates that live longer than 398 days."""
RENEW_BEFORE = timedelta(days=30)
"""A self-made certificate with less left than this is made anew, at a start or while the gateway runs."""
OWN_NAMES = PairNames("TLS_CERT", "TLS_KEY", ", or leave TLS_CERT and TLS_KEY out for a self-made one")
"""How the listener's pair is called in messages."""

_BACKDATE = timedelta(minutes=5)  # a client whose clock is a little behind still accepts it
_DNS_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a certificate and its key lie, both PEM."""

    cert: Path
    key: Path


def local_certificate(state_dir: Path) -> CertificateFiles:
    """Where the self-made certificate lies or would lie. Touches nothing."""
    return CertificateFiles(state_dir / "tls" / "localhost.crt", state_dir / "tls" / "localhost.key")


def localhost_certificate(state_dir: Path) -> tuple[Path, Path]:
    """`ensure_local_certificate` with this machine's clock and name: the certificate's file and the key's."""
    files = ensure_local_certificate(state_dir, now=datetime.now(UTC), hostname=socket.gethostname())
    return files.cert, files.key


def ensure_local_certificate(state_dir: Path, *, now: datetime, hostname: str = "") -> CertificateFiles:
    """The self-made certificate for localhost: the one there is, or a new one.

    It is made on the first run, and made anew when less than `RENEW_BEFORE` is left or when a file is
    missing or damaged. Several processes may call this at once.

    Args:
        state_dir: the gateway's own directory; made where it is missing.
        now: the time, with a time zone.
        hostname: this machine's name, added beside localhost, 127.0.0.1 and ::1.

    Raises:
        CertificateError: the directory cannot be written.
    """
    files = local_certificate(state_dir)
    try:
        with _locked(files.cert.parent):
            if not _still_good(files, now):
                cert_pem, key_pem = make_certificate(now=now, hostname=hostname)
                # The key first: a crash in between leaves a pair that does not match, which is noticed and remade.
                write_whole(files.key, key_pem)
                write_whole(files.cert, cert_pem, mode=0o644)
    except OSError as error:
        raise CertificateError(
            f"The certificate for localhost cannot be kept in {files.cert.parent} ({error.strerror}): "
            "point STATE_DIR to a directory that can be written, or start with --no-tls."
        ) from error
    return files


def make_certificate(*, now: datetime, hostname: str = "") -> tuple[bytes, bytes]:
    """A new self-signed certificate for localhost (EC P-256) and its key, both as PEM bytes."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "riva-gateway on localhost")])
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    if hostname != "localhost" and len(hostname) <= 253 and _DNS_NAME.fullmatch(hostname):
        names.append(x509.DNSName(hostname))
    public = key.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now - _BACKDATE + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key_pem


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _still_good(files: CertificateFiles, now: datetime) -> bool:
    try:
        pair = read_pair(files.cert, files.key, OWN_NAMES, now=now)
    except CertificateError:
        return False
    return pair.certificate.not_valid_after_utc - now >= RENEW_BEFORE


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    with (directory / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # held for milliseconds; freed by the kernel if its holder dies
        yield
