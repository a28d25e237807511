"""Certificates and keys as files: read and judged, and read again when they have changed.

Who renews a certificate seldom replaces two files in one instant, and Kubernetes swaps a link to their folder. So what
counts is the content: new files are taken when they fit together, and until then what was loaded before goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final as Const
from typing import Generic, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from asr.errors import ASRError, Code

SETTLE_S: Const = 3.0
"""For how long new files may not fit together before that is worth a word: they are replaced one after the other."""

Stamp = tuple[tuple[int, int, int, int] | None, ...]
"""What tells that files have changed, links followed: for each its device, inode, size and time of change; None where
it is missing."""

T = TypeVar("T")


class CertificateError(ASRError):
    """A certificate cannot be used. The message is one line: what is wrong, and what to do."""

    def __init__(self, message: str, param: str = "TLS_CERT") -> None:
        super().__init__(Code.BAD_REQUEST, message, param=param)


@dataclass(frozen=True, slots=True)
class PairNames:
    """How a certificate and its key are called in messages.

    Attributes:
        cert, key: the settings that name the files.
        otherwise: what can be done about an expired certificate other than to renew it, after ", "; or "".
    """

    cert: str
    key: str
    otherwise: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its chain, and its key, that fit together and are valid now.

    Attributes:
        cert_pem, key_pem: as read.
        certificate: the first of `cert_pem`.
    """

    cert_pem: bytes
    key_pem: bytes
    certificate: x509.Certificate


def stamp(paths: Sequence[Path]) -> Stamp:
    """How these files look from outside. Never raises."""
    return tuple(_look(path) for path in paths)


def read_pair(cert: Path, key: Path, names: PairNames, *, now: datetime) -> Pair:
    """A certificate and its key.

    Args:
        cert: PEM; it may hold a chain, its own certificate first.
        key: PEM, without a passphrase.
        names: for the messages.
        now: the time, with a time zone.

    Raises:
        CertificateError: a file is missing or unreadable, is not PEM, holds a key that is locked or belongs to
            another certificate, or the certificate has expired or is not valid yet.
    """
    cert_pem, key_pem = read_file(cert, names.cert), read_file(key, names.key)
    certificate = _certificates(cert_pem, cert, names.cert)[0]
    try:
        private = serialization.load_pem_private_key(key_pem, password=None)
    except TypeError as error:
        raise CertificateError(
            f"{names.key} {key} is locked with a passphrase: give a key without one "
            "(openssl pkey -in locked.pem -out key.pem).",
            names.key,
        ) from error
    except ValueError as error:
        raise CertificateError(f"{names.key} {key} is not a PEM private key.", names.key) from error
    if private.public_key() != certificate.public_key():
        raise CertificateError(
            f"{names.key} {key} does not belong to {names.cert} {cert}: give the pair that was made together.",
            names.key,
        )
    if now > certificate.not_valid_after_utc:
        raise CertificateError(
            f"{names.cert} {cert} expired on {certificate.not_valid_after_utc:%Y-%m-%d}: renew it{names.otherwise}.",
            names.cert,
        )
    if now < certificate.not_valid_before_utc:
        raise CertificateError(
            f"{names.cert} {cert} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: "
            "check this machine's clock.",
            names.cert,
        )
    return Pair(cert_pem, key_pem, certificate)


def read_authorities(path: Path, name: str) -> tuple[bytes, datetime]:
    """Certificates to trust, as PEM, and when the last of them expires; it may have: then handshakes fail.

    Args:
        path: one or several certificates, PEM.
        name: the setting that names it, for messages.

    Raises:
        CertificateError: it is missing or unreadable, or holds no certificate or a revocation list.
    """
    pem = read_file(path, name)
    if b"-----BEGIN X509 CRL-----" in pem:
        raise CertificateError(
            f"{name} {path} holds a revocation list, and those are not looked at: take it out, and withdraw a "
            "certificate by trusting another authority.",
            name,
        )
    return pem, max(certificate.not_valid_after_utc for certificate in _certificates(pem, path, name))


def read_file(path: Path, name: str) -> bytes:
    """The content of a file that the setting `name` names.

    Raises:
        CertificateError: it is missing or unreadable.
    """
    try:
        return path.expanduser().read_bytes()
    except FileNotFoundError as error:
        raise CertificateError(f"{name} {path} does not exist: give the path of a PEM file.", name) from error
    except OSError as error:
        raise CertificateError(f"{name} {path} cannot be read: {error.strerror}.", name) from error


class Watched(Generic[T]):
    """Files, and what was last made of them. It does not look by itself: whoever has a clock calls `look`."""

    def __init__(self, paths: Sequence[Path], load: Callable[[], T]) -> None:
        """Load them for the first time.

        Args:
            paths: the files.
            load: makes something of them, or raises `CertificateError`.

        Raises:
            CertificateError: they cannot be used.
        """
        self._paths = tuple(path.expanduser() for path in paths)
        self._load = load
        self._stamp, self.current = self._settled()
        self._bad_since: float | None = None
        self._told = ""

    def look(self, now_s: float) -> T | CertificateError | None:
        """What has changed since the last look.

        Args:
            now_s: a monotonic clock, in seconds.

        Returns:
            What is loaded now, where it is new; or what is wrong with the new files, once, when it has been
            wrong for `SETTLE_S`: `current` is what it was. None: nothing to tell.
        """
        if stamp(self._paths) == self._stamp:
            self._bad_since = None
            self._told = ""
            return None
        try:
            self._stamp, self.current = self._settled()
        except CertificateError as error:
            if self._bad_since is None:
                self._bad_since = now_s
            if now_s - self._bad_since < SETTLE_S or error.message == self._told:
                return None
            self._told = error.message
            return error
        self._bad_since = None
        self._told = ""
        return self.current

    def again(self) -> T | None:
        """What the same files give when they are loaded once more; None where they have changed or are no good now."""
        if stamp(self._paths) != self._stamp:
            return None
        try:
            return self._load()
        except CertificateError:
            return None

    def _settled(self) -> tuple[Stamp, T]:
        before = stamp(self._paths)
        loaded = self._load()
        if stamp(self._paths) != before:
            raise CertificateError("The certificate's files change while they are read: try again.")
        return before, loaded


def _look(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _certificates(pem: bytes, path: Path, name: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateError(
            f"{name} {path} is not a PEM certificate: it must begin with -----BEGIN CERTIFICATE-----.", name
        ) from error
