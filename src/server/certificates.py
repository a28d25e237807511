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
from collections.abc import Iterator, Sequence
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


def localhost_certificate(state_dir: Path, names: Sequence[str] = ()) -> tuple[Path, Path]:
    """`ensure_local_certificate` with this machine's clock and name: the certificate's file and the key's."""
    files = ensure_local_certificate(state_dir, now=datetime.now(UTC), hostname=socket.gethostname(), names=names)
    return files.cert, files.key


def ensure_local_certificate(
    state_dir: Path, *, now: datetime, hostname: str = "", names: Sequence[str] = ()
) -> CertificateFiles:
    """The self-made certificate for localhost: the one there is, or a new one.

    It is made on the first run, and made anew when less than `RENEW_BEFORE` is left, when a file is missing or
    damaged, or when it is to be for other `names`. Several processes may call this at once.

    Args:
        state_dir: the gateway's own directory; made where it is missing.
        now: the time, with a time zone.
        hostname: this machine's name, added beside localhost, 127.0.0.1 and ::1.
        names: further names and addresses by which clients reach this machine, as `parse_names` gives them.

    Raises:
        CertificateError: the directory cannot be written.
    """
    files = local_certificate(state_dir)
    try:
        with _locked(files.cert.parent):
            if not _still_good(files, now, names):
                cert_pem, key_pem = make_certificate(now=now, hostname=hostname, names=names)
                # The key first: a crash in between leaves a pair that does not match, which is noticed and remade.
                write_whole(files.key, key_pem)
                write_whole(files.cert, cert_pem, mode=0o644)
    except OSError as error:
        raise CertificateError(
            f"The certificate for localhost cannot be kept in {files.cert.parent} ({error.strerror}): "
            "point STATE_DIR to a directory that can be written, or start with --no-tls."
        ) from error
    return files


def parse_names(text: str) -> tuple[str, ...]:
    """Names and addresses separated by commas, as `gateway.example.com,203.0.113.7`, without repetitions.

    Raises:
        ValueError: one is neither a name of the DNS nor an address.
    """
    found: dict[str, None] = {}
    for name in filter(None, (part.strip().lower() for part in text.split(","))):
        if not _is_dns_name(name) and not _is_address(name):
            raise ValueError(f"{name[:80]!r} is neither a DNS name nor an IP address. Separate several with commas.")
        found[name] = None
    return tuple(found)


def make_certificate(*, now: datetime, hostname: str = "", names: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """A new self-signed certificate for localhost (EC P-256) and its key, both as PEM bytes."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "riva-gateway on localhost")])
    shown = _general_names((*names, hostname) if _is_dns_name(hostname) else names)
    public = key.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now - _BACKDATE + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(shown), critical=False)
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


def _is_dns_name(name: str) -> bool:
    return len(name) <= 253 and _DNS_NAME.fullmatch(name) is not None and not _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    every = dict.fromkeys(("localhost", "127.0.0.1", "::1", *names))
    return [x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name) for name in every]


def _still_good(files: CertificateFiles, now: datetime, names: Sequence[str]) -> bool:
    try:
        pair = read_pair(files.cert, files.key, OWN_NAMES, now=now)
        shown = set(pair.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (CertificateError, x509.ExtensionNotFound):
        return False
    wanted = set(_general_names(names))
    # An address that is ours no more may be somebody else's now. A machine's former name does no harm.
    foreign = {name for name in shown - wanted if isinstance(name, x509.IPAddress)}
    return wanted <= shown and not foreign and pair.certificate.not_valid_after_utc - now >= RENEW_BEFORE


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    with (directory / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # held for milliseconds; freed by the kernel if its holder dies
        yield
