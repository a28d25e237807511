"""A throw-away certificate authority that issues again and again, for tests that replace, expire or forge."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, PEM."""

    cert: bytes
    key: bytes

    @property
    def serial(self) -> str:
        """As `openssl x509 -serial` prints it, but for a 0 in front."""
        return f"{x509.load_pem_x509_certificate(self.cert).serial_number:X}"

    def write(self, cert: Path, key: Path) -> None:
        """The certificate first, then its key: nobody replaces two files in one instant."""
        cert.write_bytes(self.cert)
        key.write_bytes(self.key)


class Authority:
    """Signs certificates of localhost, for servers and clients alike."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        self._cert = self._sign(self._name, self._key.public_key(), now - 30 * _DAY, now + 30 * _DAY, ca=True)
        self.pem = self._cert.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        name: str = "server",
        *,
        now: datetime.datetime | None = None,
        days: tuple[float, float] = (-1, 90),
        rsa_bits: int = 0,
    ) -> Issued:
        """A certificate, valid from so many days after `now` until so many; its key is EC, or RSA of that size."""
        key = rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        today = now if now is not None else datetime.datetime.now(datetime.UTC)
        made = self._sign(subject, key.public_key(), today + days[0] * _DAY, today + days[1] * _DAY, ca=False)
        return Issued(
            made.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )

    def _sign(
        self,
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        begin: datetime.datetime,
        end: datetime.datetime,
        *,
        ca: bool,
    ) -> x509.Certificate:
        local: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(local), critical=False)
            .sign(self._key, hashes.SHA256())
        )
