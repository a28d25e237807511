"""API keys: how they are made, kept and recognized, and how the file of them is followed."""

from __future__ import annotations

import json
import os
import secrets
import stat
import statistics
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from asr.errors import ASRError, Code
from server.access.attempts import FREE_FAILURES, SECONDS_EACH, Attempts, site_of
from server.access.files import write_private
from server.access.gate import MAX_SHOWN, WRONG, Gate
from server.access.grants import ALL_SCOPES, CLIENT_SCOPES, Allowance, Grant, Scope
from server.access.key_file import BadKeyFile, KeyRecord, digest_of, make_key, read_keys, write_keys
from server.access.keys import Keys, changing, load_keys

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def made(name: str = "app", **more: Any) -> tuple[str, KeyRecord]:
    return make_key(name, token_hex=secrets.token_hex, now=NOW, **more)


def kept(path: Path, *records: KeyRecord) -> None:
    with changing(path) as known:
        known.clear()
        known.update({record.id: record for record in records})


class Followed:
    """Keys in a file, and a gate that asks nothing else."""

    def __init__(self, tmp_path: Path, *records: KeyRecord) -> None:
        self.now = NOW.timestamp()
        self.path = tmp_path / "keys.json"
        if records:
            kept(self.path, *records)
        self.keys = Keys(self.path, lambda: self.now)
        self.keys.load()
        self.gate = Gate((self.keys,), is_open=False, unix_time=lambda: self.now, attempts=Attempts(lambda: self.now))

    def enter(self, credential: str, scope: Scope = Scope.TRANSCRIBE) -> Grant:
        return self.gate.enter([("authorization", f"Bearer {credential}")], "192.0.2.1", scope)

    def refusal(self, credential: str, scope: Scope = Scope.TRANSCRIBE) -> ASRError:
        with pytest.raises(ASRError) as refused:
            self.enter(credential, scope)
        return refused.value


def test_a_key_opens_what_it_was_made_for(tmp_path: Path) -> None:
    key, record = made(allowance=Allowance(3, 4, 5))
    followed = Followed(tmp_path, record)
    grant = followed.enter(key)
    assert grant == Grant("key app", CLIENT_SCOPES, None, Allowance(3, 4, 5), f"key:{record.id}")
    assert followed.refusal(key, Scope.ADMIN).code is Code.FORBIDDEN
    assert followed.gate.refused == {"scope": 1}


def test_a_key_is_long_random_and_never_kept(tmp_path: Path) -> None:
    key, record = made()
    another, other = made()
    prefix, key_id, secret = key.split("_")
    assert (prefix, key_id, len(bytes.fromhex(secret))) == ("rgw", record.id, 24)
    assert not set(key.split("_")[1:]) & set(another.split("_")[1:])
    assert record.digest != other.digest
    content = write_keys({record.id: record})
    assert secret.encode() not in content
    assert read_keys(content) == {record.id: record}
    assert secret not in repr(record)
    assert record.digest.hex() not in repr(record)


def test_a_wrong_secret_and_an_unknown_id_are_refused_alike(tmp_path: Path) -> None:
    key, record = made()
    followed = Followed(tmp_path, record)
    wrong = f"{key[:-1]}{'0' if key[-1] != '0' else '1'}"
    for credential in (wrong, made()[0], key.upper(), key[:-1], f"{key}0", "rgw_", f"rgw_{record.id}_", ""):
        error = followed.refusal(credential)
        assert (error.code, error.message) == (Code.UNAUTHORIZED, WRONG)
    known, unknown = list[float](), list[float]()
    stranger = made()[0]
    for _ in range(500):
        for credential, times in ((wrong, known), (stranger, unknown)):
            began = time.perf_counter()
            followed.keys.verify(credential)
            times.append(time.perf_counter() - began)
    assert statistics.median(known) < 2 * statistics.median(unknown) < 4 * statistics.median(known)


def test_keys_of_one_name_are_one_caller(tmp_path: Path) -> None:
    (old, old_record), (new, new_record) = made(), made()
    followed = Followed(tmp_path, old_record, new_record)
    assert followed.enter(old).principal == followed.enter(new).principal
    assert followed.enter(old).serial != followed.enter(new).serial


def test_an_expired_key_is_refused_like_a_wrong_one_and_counted_as_what_it_is(tmp_path: Path) -> None:
    key, record = made(lifetime=timedelta(days=1))
    followed = Followed(tmp_path, record)
    grant = followed.enter(key)
    followed.now += 86_400
    assert followed.refusal(key).message == WRONG
    assert followed.gate.refused == {"expired": 1}
    told = followed.gate.refusal(grant)
    assert told is not None
    assert "expired" in told.message


def test_a_revoked_key_ends_what_runs(tmp_path: Path) -> None:
    key, record = made()
    followed = Followed(tmp_path, record)
    grant = followed.enter(key)
    token = Grant("key app for 1", serial=f"{grant.serial}/token:2")
    assert followed.gate.refusal(grant) is None
    with changing(followed.path) as records:
        records[record.id] = KeyRecord(**{**_fields(record), "revoked": NOW})
    assert followed.gate.refusal(grant) is None  # not read yet
    followed.keys.refresh()
    for one in (grant, token):
        told = followed.gate.refusal(one)
        assert told is not None
        assert told.code is Code.UNAUTHORIZED
    assert followed.keys.verify(key) is None
    assert followed.refusal(key).message == WRONG
    assert followed.keys.still_good(Grant("key jwt 1", serial="jwt:1"))


def _fields(record: KeyRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in KeyRecord.__slots__}


def test_keys_come_change_and_go_with_their_file(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    key, record = made()
    followed.refusal(key)
    kept(followed.path, record)
    followed.keys.refresh()
    followed.enter(key)
    another, other = made("second")
    kept(followed.path, other)
    followed.keys.refresh()
    followed.enter(another)
    followed.refusal(key)
    followed.path.unlink()
    followed.keys.refresh()
    followed.refusal(another)


def test_a_broken_file_changes_nothing_and_is_told_once(tmp_path: Path) -> None:
    key, record = made()
    followed = Followed(tmp_path, record)
    with capture_logs() as lines:
        for content in (b"{", b"[]"):
            followed.path.write_bytes(content)
            for _ in range(3):
                followed.keys.refresh()
                followed.enter(key)
    assert [line["log_level"] for line in lines] == ["error", "error"]  # one for each breaking
    followed.path.write_bytes(write_keys({}))
    followed.keys.refresh()
    followed.refusal(key)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"version": 2, "keys": []}',
        b'{"version": 1}',
        b'{"version": 1, "keys": [7]}',
        b'{"version": 1, "keys": [{}]}',
    ],
)
def test_what_is_no_file_of_keys_is_said(content: bytes) -> None:
    with pytest.raises(BadKeyFile):
        read_keys(content)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "x"),
        ("id", 5),
        ("name", "bad name"),
        ("name", None),
        ("hash", "md5:00"),
        ("hash", ""),
        ("scopes", "transcribe"),
        ("scopes", ["fly"]),
        ("allowance", {"streams": -1}),
        ("allowance", {"streams": True}),
        ("allowance", {"seats": 1}),
        ("created", None),
        ("created", "yesterday"),
        ("expires", 5),
        ("last_used", "never"),
    ],
)
def test_one_wrong_field_makes_the_file_wrong_and_is_not_quoted(field: str, value: object) -> None:
    _, record = made()
    document = json.loads(write_keys({record.id: record}))
    document["keys"][0][field] = value
    with pytest.raises(BadKeyFile) as wrong:
        read_keys(json.dumps(document).encode())
    assert record.digest.hex() not in str(wrong.value)


def test_two_keys_of_one_id_are_refused() -> None:
    _, record = made()
    document = json.loads(write_keys({record.id: record}))
    document["keys"] *= 2
    with pytest.raises(BadKeyFile, match="id of another"):
        read_keys(json.dumps(document).encode())


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "a\n", "ключ", "a/b", "key for x"])
def test_a_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        made(name)


def test_the_file_is_for_its_owner_alone_and_never_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "made" / "keys.json"
    _, record = made()
    kept(path, record)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, b"half")
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".new-*"))


def test_the_day_of_last_use_is_noted_later_and_once(tmp_path: Path) -> None:
    key, record = made()
    followed = Followed(tmp_path, record)
    before = followed.path.stat()
    followed.enter(key)
    followed.enter(key)
    assert followed.path.stat() == before
    used = followed.keys.take_used()
    assert used == {record.id: NOW.date()}
    followed.keys.note_used(used)
    assert load_keys(followed.path)[record.id].last_used == date(2026, 11, 21)
    followed.keys.refresh()
    followed.enter(key)
    assert followed.keys.take_used() == {}
    followed.now += 86_400
    followed.enter(key)
    used = followed.keys.take_used()
    assert used == {record.id: date(2026, 11, 22)}
    followed.keys.note_used(used)
    followed.keys.note_used({record.id: date(2026, 11, 21)})  # of another gateway, later
    assert load_keys(followed.path)[record.id].last_used == date(2026, 11, 22)


def test_a_key_that_was_revoked_meanwhile_stays_so(tmp_path: Path) -> None:
    key, record = made()
    followed = Followed(tmp_path, record)
    followed.enter(key)
    kept(followed.path, KeyRecord(**{**_fields(record), "revoked": NOW}))
    followed.keys.note_used(followed.keys.take_used())
    assert load_keys(followed.path)[record.id].revoked == NOW


def test_a_file_that_cannot_be_written_is_told_once_and_keys_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, record = made()
    followed = Followed(tmp_path, record)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("server.access.keys.write_private", refuse)
    with capture_logs() as lines:
        for _ in range(2):
            followed.enter(key)
            followed.keys.note_used(followed.keys.take_used())
    assert [line["log_level"] for line in lines] == ["info"]


def test_the_hash_is_of_the_whole_key() -> None:
    key, record = made()
    assert digest_of(key) == record.digest
    assert digest_of(key.replace(record.id, "0" * 12)) != record.digest


def test_who_guesses_is_slowed_and_a_good_key_from_there_works(tmp_path: Path) -> None:
    key, record = made(scopes=ALL_SCOPES)
    followed = Followed(tmp_path, record)
    for _ in range(FREE_FAILURES):
        assert followed.refusal("guess").code is Code.UNAUTHORIZED
    error = followed.refusal("guess")
    assert (error.code, error.retryable) == (Code.RATE_LIMITED, True)
    assert error.retry_after_ms is not None
    assert 0 < error.retry_after_ms <= SECONDS_EACH * 1000
    assert followed.enter(key)
    followed.now += error.retry_after_ms / 1000
    assert followed.refusal("guess").code is Code.UNAUTHORIZED
    assert followed.refusal("guess").code is Code.RATE_LIMITED
    with pytest.raises(ASRError) as elsewhere:
        followed.gate.enter([("x-api-key", "guess")], "192.0.2.2", Scope.JOBS)
    assert elsewhere.value.code is Code.UNAUTHORIZED
    assert followed.gate.refused == {"wrong": FREE_FAILURES + 4}


def test_no_credential_at_all_is_no_guess(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    for _ in range(3 * FREE_FAILURES):
        with pytest.raises(ASRError) as refused:
            followed.gate.enter([], "192.0.2.1", Scope.JOBS)
        assert refused.value.code is Code.UNAUTHORIZED
    assert followed.gate.refused == {"missing": 3 * FREE_FAILURES}


def test_a_thousand_credentials_in_one_request_are_not_a_thousand_guesses(tmp_path: Path) -> None:
    key, record = made()
    followed = Followed(tmp_path, record)
    with pytest.raises(ASRError):
        followed.gate.enter([*[("x-api-key", "guess")] * MAX_SHOWN, ("x-api-key", key)], "192.0.2.1", Scope.JOBS)
    assert followed.gate.enter([("x-api-key", "guess"), ("x-api-key", key)], "192.0.2.1", Scope.JOBS)


def test_one_holder_of_addresses_is_one() -> None:
    assert site_of("2001:db8::1") == site_of("2001:db8::ffff:1") != site_of("2001:db8:0:1::1")
    assert site_of("::ffff:192.0.2.1") == site_of("192.0.2.1") != site_of("192.0.2.2")
    assert len(site_of("x" * 10_000)) < 100


def test_an_open_gate_asks_nobody() -> None:
    gate = Gate((), is_open=True, unix_time=lambda: 0.0)
    assert gate.enter([("authorization", "Bearer nonsense")], "192.0.2.1", Scope.ADMIN).scopes == ALL_SCOPES
    assert not gate.refused
