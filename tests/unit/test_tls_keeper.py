"""The certificates of a running gateway, looked after with a clock that the test turns."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from asr.config import RivaConfig
from asr.settings import SettingsError, load_settings
from asr.tls_files import CertificateError
from authority import Authority
from server.certificates import ensure_local_certificate
from server.settings import ServerSettings
from server.tls.keeper import Certificates, build_certificates
from server.tls.material import ListenerFiles
from server.tls.policy import CIPHERS

DAY_S = 86_400.0


class Clock:
    """Both clocks of a keeper."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.s = 0.0

    def pass_by(self, seconds: float) -> None:
        self.s += seconds
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def files_in(folder: Path, *, client_ca: bool = False) -> ListenerFiles:
    return ListenerFiles(folder / "a.crt", folder / "a.key", folder / "ca.pem" if client_ca else None)


def keeper(files: ListenerFiles | None, clock: Clock, **more: Any) -> Certificates:
    return Certificates(
        files, **{"https": files is not None, "clock": lambda: clock.s, "now": lambda: clock.now, **more}
    )


def test_new_files_change_both_listeners_and_one_line_says_so(
    tmp_path: Path, clock: Clock, authority: Authority
) -> None:
    files = files_in(tmp_path, client_ca=True)
    authority.issue().write(files.cert, files.key)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    kept = keeper(files, clock)
    kept.grpc_credentials()
    assert kept.https is not None
    before = kept.https.newest
    new = authority.issue()
    new.write(files.cert, files.key)
    with capture_logs() as lines:
        for _ in range(5):
            clock.pass_by(1)
            kept.look()
    assert [(line["event"], line["serial"]) for line in lines] == [("certificate loaded", new.serial)]
    assert kept.https.newest is not before
    assert kept.https.newest.verify_mode is ssl.CERT_REQUIRED
    # gRPC is handed the new one once, and goes on with it.
    assert kept._newer_for_grpc() is not None
    assert kept._newer_for_grpc() is None


@pytest.mark.parametrize("asks", [True, False])
def test_sessions_are_forgotten_where_clients_show_certificates(
    tmp_path: Path, clock: Clock, authority: Authority, asks: bool
) -> None:
    files = files_in(tmp_path, client_ca=asks)
    authority.issue().write(files.cert, files.key)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    kept = keeper(files, clock)
    kept.grpc_credentials()
    assert kept.https is not None
    contexts, handed = [kept.https.newest], 0
    with capture_logs() as lines:
        for _ in range(1000):
            clock.pass_by(1)
            kept.look()
            handed += kept._newer_for_grpc() is not None
            if kept.https.newest is not contexts[-1]:
                contexts.append(kept.https.newest)
    assert (len(contexts) - 1, handed) == ((3, 3) if asks else (0, 0))
    assert lines == []
    files.key.unlink()
    clock.pass_by(301)
    kept.look()
    assert kept.https.newest is contexts[-1]


def test_a_bad_file_changes_nothing_and_is_told_once(tmp_path: Path, clock: Clock, authority: Authority) -> None:
    files = files_in(tmp_path)
    authority.issue().write(files.cert, files.key)
    kept = keeper(files, clock)
    assert kept.https is not None
    before = kept.https.newest
    files.key.write_text("half")
    with capture_logs() as lines:
        for _ in range(30):
            clock.pass_by(1)
            kept.look()
    assert [line["event"] for line in lines] == ["certificate was not loaded, the former stays in use"]
    assert "TLS_KEY" in lines[0]["error"]
    assert kept.https.newest is before


def test_two_weeks_before_the_end_there_is_a_line_a_day(tmp_path: Path, clock: Clock, authority: Authority) -> None:
    files = files_in(tmp_path)
    authority.issue(days=(-1, 16)).write(files.cert, files.key)
    kept = keeper(files, clock)
    with capture_logs() as lines:
        for _ in range(18 * 24):
            clock.pass_by(3600)
            kept.look()
    told = [(line["log_level"], line["event"], line["use"], line["days_left"]) for line in lines]
    assert told[:14] == [("warning", "certificate expires soon", "listener", days) for days in range(13, -1, -1)]
    assert told[14:16] == [("warning", "certificate has expired", "listener", days) for days in (-1, -2)]
    new = authority.issue(now=clock.now)
    new.write(files.cert, files.key)
    with capture_logs() as lines:
        kept.look()
        kept.look()
    assert [line["event"] for line in lines] == ["certificate loaded"]


def test_every_use_has_its_end(tmp_path: Path, clock: Clock, authority: Authority) -> None:
    files = files_in(tmp_path, client_ca=True)
    end = authority.issue(days=(-1, 40))
    end.write(files.cert, files.key)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    authority.issue("client", days=(-1, 20)).write(tmp_path / "c.crt", tmp_path / "c.key")
    riva = RivaConfig(root_cert=tmp_path / "ca.pem", client_cert=tmp_path / "c.crt", client_key=tmp_path / "c.key")
    days = {
        use: round((at - clock.now.timestamp()) / DAY_S) for use, at in keeper(files, clock, riva=riva).ends.items()
    }
    assert days == {"listener": 40, "listener_client_ca": 30, "riva_client": 20, "riva_ca": 30}
    assert keeper(None, clock).ends == {}
    assert keeper(None, clock, riva=RivaConfig()).ends == {}


def test_the_self_made_certificate_is_renewed_while_the_gateway_runs(tmp_path: Path, clock: Clock) -> None:
    made = ensure_local_certificate(tmp_path, now=clock.now - timedelta(days=360))
    first = made.cert.read_bytes()
    kept = keeper(
        ListenerFiles(made.cert, made.key),
        clock,
        self_made_in=tmp_path,
        renew=lambda folder: ensure_local_certificate(folder, now=clock.now),
    )
    kept.look()
    assert made.cert.read_bytes() == first
    clock.pass_by(8 * DAY_S)
    with capture_logs() as lines:
        kept.look()
    assert made.cert.read_bytes() != first
    assert [line["event"] for line in lines] == ["certificate loaded"]
    assert kept.ends["listener"] - clock.now.timestamp() > 396 * DAY_S


def test_a_disk_that_takes_no_new_certificate_is_asked_once_an_hour(tmp_path: Path, clock: Clock) -> None:
    made = ensure_local_certificate(tmp_path, now=clock.now - timedelta(days=380))

    def full(folder: Path) -> None:
        raise CertificateError("The disk is full.")

    kept = keeper(ListenerFiles(made.cert, made.key), clock, self_made_in=tmp_path, renew=full)
    with capture_logs() as lines:
        for _ in range(7_000):
            clock.pass_by(1)
            kept.look()
    assert [line["event"] for line in lines] == ["the self-made certificate cannot be renewed"] * 2


def test_only_strong_suites_and_no_resumption(tmp_path: Path, authority: Authority, clock: Clock) -> None:
    files = files_in(tmp_path)
    authority.issue().write(files.cert, files.key)
    https = keeper(files, clock).https
    assert https is not None
    offered = {suite["name"] for suite in https.newest.get_ciphers()}
    assert offered == {*CIPHERS, "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
    for option in (ssl.OP_NO_TICKET, ssl.OP_NO_RENEGOTIATION, ssl.OP_NO_COMPRESSION):
        assert https.newest.options & option
    assert https.newest.num_tickets == 0


def settings(**given: object) -> ServerSettings:
    return load_settings(ServerSettings, given, env={}, env_file=None)


def test_when_grpc_speaks_tls(tmp_path: Path, authority: Authority) -> None:
    files = files_in(tmp_path, client_ca=True)
    authority.issue().write(files.cert, files.key)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    own = {"tls_cert": files.cert, "tls_key": files.key}
    assert not settings().grpc_secure
    assert settings(**own).grpc_secure
    assert settings(tls_client_ca=files.client_ca).grpc_secure
    assert not settings(**own, grpc_tls=False).grpc_secure
    assert not settings(**own, tls=False).grpc_secure
    assert settings(**own, tls=False, grpc_tls=True).grpc_secure
    assert settings(grpc_tls=True).grpc_secure
    with pytest.raises(SettingsError, match=r"GRPC_TLS.*TLS_CERT"):
        settings(tls=False, grpc_tls=True)


def test_nobody_believes_that_clients_are_asked_where_they_are_not(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    given = {"tls_client_ca": tmp_path / "ca.pem", "state_dir": tmp_path}
    with pytest.raises(CertificateError, match="TLS_CLIENT_CA"):
        build_certificates(settings(**given, tls=False))
    with capture_logs() as lines:
        build_certificates(settings(**given, grpc_tls=False))
    assert ["GRPC_TLS=off" in line["event"] for line in lines] == [True]
