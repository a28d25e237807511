"""The self-made certificate, and what is said about a user's own."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from asr.tls_files import CertificateError
from server.certificates import (
    LIFETIME,
    RENEW_BEFORE,
    CertificateFiles,
    ensure_local_certificate,
    local_certificate,
    make_certificate,
    parse_names,
)
from server.tls.material import ListenerFiles, load_listener

NOW = datetime(2030, 5, 17, 12, 0, tzinfo=UTC)


def _load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _pair(directory: Path, name: str, *, now: datetime = NOW) -> CertificateFiles:
    files = CertificateFiles(directory / f"{name}.crt", directory / f"{name}.key")
    cert, key = make_certificate(now=now)
    files.cert.write_bytes(cert)
    files.key.write_bytes(key)
    return files


def test_it_names_localhost_in_every_spelling_and_the_machine(tmp_path: Path) -> None:
    certificate = _load(ensure_local_certificate(tmp_path, now=NOW, hostname="studio-7.example").cert)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "studio-7.example"]
    addresses = names.get_values_for_type(x509.IPAddress)
    assert addresses == [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]


@pytest.mark.parametrize("hostname", ["", "localhost", "under_score", "-dash", "zwei worte", "ö", "a" * 300])
def test_a_machine_name_that_dns_does_not_know_is_left_out(hostname: str) -> None:
    certificate = x509.load_pem_x509_certificate(make_certificate(now=NOW, hostname=hostname)[0])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]


def _shown(path: Path) -> set[str]:
    names = _load(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def test_further_names_are_in_it_and_it_is_made_anew_when_they_change(tmp_path: Path) -> None:
    own = {"localhost", "127.0.0.1", "::1", "host-1"}
    before = ensure_local_certificate(tmp_path, now=NOW, hostname="host-1", names=("a.example", "203.0.113.7")).cert
    assert _shown(before) == own | {"a.example", "203.0.113.7"}
    kept = before.read_bytes()
    ensure_local_certificate(tmp_path, now=NOW, hostname="host-2", names=("203.0.113.7", "a.example"))
    assert before.read_bytes() == kept
    ensure_local_certificate(tmp_path, now=NOW, hostname="host-1", names=("198.51.100.9",))
    assert _shown(before) == own | {"198.51.100.9"}
    ensure_local_certificate(tmp_path, now=NOW, hostname="host-1")
    assert _shown(before) == own


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        (" A.example , 203.0.113.7,,2001:db8::1,a.example", ("a.example", "203.0.113.7", "2001:db8::1")),
    ],
)
def test_names_are_read_from_a_line(text: str, names: tuple[str, ...]) -> None:
    assert parse_names(text) == names


@pytest.mark.parametrize("text", ["two words", "a.example;b.example", "-dash", "https://a.example", "a" * 300])
def test_what_cannot_be_a_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a DNS name nor an IP address"):
        parse_names(text)


def test_browsers_accept_its_lifetime_and_it_can_sign_no_other(tmp_path: Path) -> None:
    certificate = _load(ensure_local_certificate(tmp_path, now=NOW).cert)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == LIFETIME <= timedelta(days=397)
    assert certificate.not_valid_before_utc < NOW
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert public.curve.name == "secp256r1"


def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    files = ensure_local_certificate(tmp_path / "state", now=NOW)
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.key.parent.stat().st_mode) == 0o700
    assert {path.name for path in files.key.parent.iterdir()} == {".lock", "localhost.crt", "localhost.key"}


def test_it_stays_until_a_month_is_left(tmp_path: Path) -> None:
    first = ensure_local_certificate(tmp_path, now=NOW).cert.read_bytes()
    end = _load(local_certificate(tmp_path).cert).not_valid_after_utc
    assert ensure_local_certificate(tmp_path, now=end - RENEW_BEFORE).cert.read_bytes() == first
    renewed = ensure_local_certificate(tmp_path, now=end - RENEW_BEFORE + timedelta(seconds=1))
    assert renewed.cert.read_bytes() != first
    assert _load(renewed.cert).not_valid_after_utc > end


@pytest.mark.parametrize("damage", ["cert gone", "key gone", "cert cut", "foreign key"])
def test_damage_is_repaired(tmp_path: Path, damage: str) -> None:
    files = ensure_local_certificate(tmp_path, now=NOW)
    match damage:
        case "cert gone":
            files.cert.unlink()
        case "key gone":
            files.key.unlink()
        case "cert cut":
            files.cert.write_bytes(files.cert.read_bytes()[:100])
        case "foreign key":
            files.key.write_bytes(make_certificate(now=NOW)[1])
    ensure_local_certificate(tmp_path, now=NOW)
    load_listener(ListenerFiles(files.cert, files.key), now=NOW)


def test_many_starts_at_once_end_with_one_matching_pair(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(lambda _: ensure_local_certificate(tmp_path, now=NOW).cert.read_bytes(), range(8)))
    assert len(seen) == 1


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CertificateError, match=r"STATE_DIR.*--no-tls"):
        ensure_local_certificate(tmp_path / "file", now=NOW)


def test_tls_1_2_or_newer_and_http_1_1_with_a_client_that_trusts_the_file(tmp_path: Path) -> None:
    files = ensure_local_certificate(tmp_path, now=datetime.now(UTC))
    server = load_listener(ListenerFiles(files.cert, files.key), now=datetime.now(UTC)).context
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2
    client = ssl.create_default_context(cafile=str(files.cert))
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT  # the default from Python 3.13 on
    client.set_alpn_protocols(["h2", "http/1.1"])
    near, far = socket.socketpair()
    with near, far:
        answer = threading.Thread(target=lambda: server.wrap_socket(far, server_side=True).close())
        answer.start()
        with client.wrap_socket(near, server_hostname="localhost") as secure:
            assert secure.selected_alpn_protocol() == "http/1.1"
            assert secure.version() in {"TLSv1.2", "TLSv1.3"}
        answer.join(5)
        assert not answer.is_alive()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    files = _pair(tmp_path, "own")
    with pytest.raises(CertificateError, match=r"TLS_CERT .*none\.crt does not exist"):
        load_listener(ListenerFiles(tmp_path / "none.crt", files.key), now=NOW)
    with pytest.raises(CertificateError, match=r"TLS_KEY .*none\.key does not exist"):
        load_listener(ListenerFiles(files.cert, tmp_path / "none.key"), now=NOW)
    with pytest.raises(CertificateError, match=r"TLS_CERT .* cannot be read"):
        load_listener(ListenerFiles(tmp_path, files.key), now=NOW)


def test_a_pair_that_does_not_match_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="does not belong to"):
        load_listener(ListenerFiles(_pair(tmp_path, "one").cert, _pair(tmp_path, "two").key), now=NOW)


def test_a_certificate_out_of_its_time_is_refused(tmp_path: Path) -> None:
    files = _pair(tmp_path, "own")
    with pytest.raises(CertificateError, match="expired on 2031-06-18"):
        load_listener(ListenerFiles(files.cert, files.key), now=NOW + timedelta(days=500))
    with pytest.raises(CertificateError, match="clock"):
        load_listener(ListenerFiles(files.cert, files.key), now=NOW - timedelta(days=1))


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    files = _pair(tmp_path, "own")
    with pytest.raises(CertificateError, match="not a PEM certificate"):
        load_listener(ListenerFiles(files.key, files.key), now=NOW)
    with pytest.raises(CertificateError, match="not a PEM private key"):
        load_listener(ListenerFiles(files.cert, files.cert), now=NOW)


def test_a_locked_key_is_told_from_a_broken_one(tmp_path: Path) -> None:
    files = _pair(tmp_path, "own")
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(CertificateError, match="passphrase"):
        load_listener(ListenerFiles(files.cert, files.key), now=NOW)


def test_every_message_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CertificateError) as caught:
        load_listener(ListenerFiles(tmp_path / "none.crt", tmp_path / "none.key"), now=NOW)
    assert "\n" not in str(caught.value)
