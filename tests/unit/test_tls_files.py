"""Files of certificates that are replaced while somebody uses them: what is taken, what is kept, what is said."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asr.config import RivaConfig
from asr.engines.riva_tls import ClientTls, client_tls
from asr.errors import ASRError, Code
from asr.tls_files import SETTLE_S, CertificateError, Pair, PairNames, Watched, read_authorities, read_pair
from authority import Authority, Issued

NAMES = PairNames("THE_CERT", "THE_KEY")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


class Place:
    """A folder with a pair in it, and somebody who watches that."""

    def __init__(self, folder: Path, first: Issued) -> None:
        self.cert, self.key = folder / "tls.crt", folder / "tls.key"
        first.write(self.cert, self.key)
        self.loads = 0
        self.now = datetime.now(UTC)
        self.watched = Watched((self.cert, self.key), self._load)
        self.now_s = 0.0

    def _load(self) -> Pair:
        self.loads += 1
        return read_pair(self.cert, self.key, NAMES, now=self.now)

    def look(self, after_s: float = 1.0) -> Pair | CertificateError | None:
        self.now_s += after_s
        return self.watched.look(self.now_s)

    @property
    def shown(self) -> bytes:
        return self.watched.current.cert_pem


@pytest.fixture
def place(tmp_path: Path, authority: Authority) -> Place:
    return Place(tmp_path, authority.issue())


def test_unchanged_files_are_not_read_again(place: Place) -> None:
    assert [place.look() for _ in range(5)] == [None] * 5
    assert place.loads == 1


def test_a_new_pair_is_taken_at_the_next_look(place: Place, authority: Authority) -> None:
    new = authority.issue()
    new.write(place.cert, place.key)
    found = place.look()
    assert isinstance(found, Pair)
    assert found.cert_pem == new.cert == place.shown
    assert place.look() is None


@pytest.mark.parametrize("first", ["cert", "key"])
def test_one_file_after_the_other_is_no_fault(place: Place, authority: Authority, first: str) -> None:
    former, new = place.shown, authority.issue()
    parts = {"cert": (place.cert, new.cert), "key": (place.key, new.key)}
    path, content = parts.pop(first)
    path.write_bytes(content)
    assert place.look() is None
    assert place.shown == former
    ((path, content),) = parts.values()
    path.write_bytes(content)
    assert isinstance(place.look(), Pair)
    assert place.shown == new.cert


def _no_key(place: Place, authority: Authority) -> None:
    place.key.unlink()


def _half(place: Place, authority: Authority) -> None:
    place.cert.write_bytes(authority.issue().cert[:200])


def _garbage(place: Place, authority: Authority) -> None:
    place.cert.write_bytes(bytes(range(256)))


def _empty(place: Place, authority: Authority) -> None:
    place.key.write_bytes(b"")


def _foreign_key(place: Place, authority: Authority) -> None:
    place.key.write_bytes(authority.issue().key)


def _expired(place: Place, authority: Authority) -> None:
    authority.issue(days=(-9, -1)).write(place.cert, place.key)


def _early(place: Place, authority: Authority) -> None:
    authority.issue(days=(1, 9)).write(place.cert, place.key)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_no_key, "THE_KEY .* does not exist"),
        (_half, "THE_CERT .* is not a PEM certificate"),
        (_garbage, "THE_CERT .* is not a PEM certificate"),
        (_empty, "THE_KEY .* is not a PEM private key"),
        (_foreign_key, "does not belong to"),
        (_expired, "expired on"),
        (_early, "not valid before"),
    ],
)
def test_what_cannot_be_used_is_told_once_and_the_former_stays(
    place: Place, authority: Authority, damage: Callable[[Place, Authority], None], said: str
) -> None:
    former = place.shown
    damage(place, authority)
    told = [place.look() for _ in range(60)]
    faults = [error for error in told if error is not None]
    assert len(faults) == 1
    assert isinstance(faults[0], CertificateError)
    with pytest.raises(CertificateError, match=said):
        raise faults[0]
    assert told.index(faults[0]) == SETTLE_S
    assert place.shown == former
    authority.issue().write(place.cert, place.key)
    assert isinstance(place.look(), Pair)
    assert place.look() is None


def test_another_fault_and_a_fault_that_comes_back_are_told_too(place: Place, authority: Authority) -> None:
    original = Issued(place.cert.read_bytes(), place.key.read_bytes())
    _empty(place, authority)
    told = [place.look() for _ in range(10)]
    _garbage(place, authority)
    told += [place.look() for _ in range(10)]
    original.write(place.cert, place.key)
    told += [place.look() for _ in range(3)]
    _empty(place, authority)
    told += [place.look() for _ in range(10)]
    messages = [found.message.split(" ")[0] for found in told if isinstance(found, CertificateError)]
    assert messages == ["THE_KEY", "THE_CERT", "THE_KEY"]


def test_a_certificate_becomes_valid_without_another_change(place: Place, authority: Authority) -> None:
    tomorrow = authority.issue(days=(1, 9))
    tomorrow.write(place.cert, place.key)
    assert place.look() is None
    place.now += timedelta(days=2)
    assert isinstance(place.look(), Pair)
    assert place.shown == tomorrow.cert


def test_the_links_of_a_mounted_secret_are_followed(tmp_path: Path, authority: Authority) -> None:
    def publish(name: str) -> bytes:
        (tmp_path / name).mkdir()
        issued = authority.issue()
        issued.write(tmp_path / name / "tls.crt", tmp_path / name / "tls.key")
        (tmp_path / "..new").symlink_to(name)
        (tmp_path / "..new").rename(tmp_path / "..data")
        return issued.cert

    publish("..1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(Path("..data") / name)
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    watched = Watched((cert, key), lambda: read_pair(cert, key, NAMES, now=datetime.now(UTC)))
    second = publish("..2")
    assert isinstance(watched.look(1), Pair)
    assert watched.current.cert_pem == second


def test_files_that_change_while_they_are_read_wait_for_the_next_look(place: Place, authority: Authority) -> None:
    def load() -> bytes:
        content = place.cert.read_bytes()
        if busy:
            authority.issue().write(place.cert, place.key)
        return content

    busy: list[bool] = []
    watched = Watched((place.cert, place.key), load)
    former = watched.current
    busy.append(True)
    authority.issue().write(place.cert, place.key)
    assert watched.look(0) is None
    assert watched.current == former
    busy.clear()
    assert watched.look(1) == place.cert.read_bytes()


def test_authorities_may_be_several_and_expired_but_not_revoked(tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.issue(days=(-9, -1)).cert + authority.pem)
    pem, last = read_authorities(file, "THE_CA")
    assert pem == file.read_bytes()
    assert last > datetime.now(UTC) + timedelta(days=29)
    file.write_bytes(authority.pem + b"-----BEGIN X509 CRL-----\nMA==\n-----END X509 CRL-----\n")
    with pytest.raises(CertificateError, match=r"THE_CA .*revocation list") as caught:
        read_authorities(file, "THE_CA")
    assert caught.value.param == "THE_CA"
    file.write_bytes(b"no certificate")
    with pytest.raises(CertificateError, match="not a PEM certificate"):
        read_authorities(file, "THE_CA")


# --- towards Riva


@pytest.fixture
def riva(tmp_path: Path, authority: Authority) -> RivaConfig:
    config = RivaConfig(
        root_cert=tmp_path / "ca.pem", client_cert=tmp_path / "client.crt", client_key=tmp_path / "client.key"
    )
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    authority.issue("client").write(tmp_path / "client.crt", tmp_path / "client.key")
    return config


def test_the_clients_files_are_looked_at_once_a_second(
    riva: RivaConfig, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = [0.0]
    tls = ClientTls(riva, clock=lambda: now_s[0])
    first = tls.credentials
    authority.issue("client").write(tmp_path / "client.crt", tmp_path / "client.key")
    now_s[0] = 0.9
    assert not tls.renewed()
    now_s[0] = 1.1
    with caplog.at_level("INFO", "asr"):
        assert tls.renewed()
    assert "were renewed" in caplog.text
    assert tls.credentials is not first
    now_s[0] = 2.2
    assert not tls.renewed()


def test_a_bad_file_towards_riva_is_told_once_and_the_former_stays(
    riva: RivaConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = [0.0]
    tls = ClientTls(riva, clock=lambda: now_s[0])
    first = tls.credentials
    (tmp_path / "ca.pem").write_text("half a fi")
    for second in range(1, 30):
        now_s[0] = second * 1.01
        assert not tls.renewed()
    assert tls.credentials is first
    assert caplog.text.count("was not loaded, the former stays in use: RIVA_SSL_ROOT_CERT") == 1


@pytest.mark.parametrize("name", ["ca.pem", "client.crt", "client.key"])
def test_nothing_starts_with_a_damaged_file(riva: RivaConfig, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    with pytest.raises(ASRError, match="RIVA_SSL_") as caught:
        client_tls(riva, clock=lambda: 0.0)
    assert caught.value.code is Code.BAD_REQUEST


def test_no_code_leaves_out_the_check_of_a_certificate_or_its_name() -> None:
    leaves_out = re.compile(
        r"ssl_target_name_override|CERT_NONE|check_hostname\s*=|verify\s*=\s*False|unverified_context"
    )
    src = Path(__file__).resolve().parents[2] / "src"
    found = {
        path.relative_to(src).as_posix() for path in src.rglob("*.py") if leaves_out.search(path.read_text("utf-8"))
    }
    # `--insecure`, towards a gateway; and the container asking itself, whoever its certificate names.
    assert found == {"asr/session/address.py", "server/probe.py"}


def test_plain_text_is_only_where_nothing_speaks_of_tls(riva: RivaConfig) -> None:
    assert client_tls(RivaConfig(), clock=lambda: 0.0) is None
    assert client_tls(RivaConfig(ssl=True), clock=lambda: 0.0) is not None
    assert client_tls(RivaConfig(root_cert=riva.root_cert), clock=lambda: 0.0) is not None
