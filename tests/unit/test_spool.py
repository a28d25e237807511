"""Files of uploads: bounded, counted, and gone when they are done with."""

import errno
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from asr.errors import ASRError, Code
from server.spool import Spool


def test_the_folder_is_made_for_this_user_alone(tmp_path: Path):
    spool = Spool(tmp_path / "a" / "spool", 100)
    file = spool.create()
    file.write(b"abc")
    file.close()
    assert file.path.read_bytes() == b"abc"
    assert spool.folder.stat().st_mode & 0o077 == 0
    assert spool.used_bytes == 3


def test_nothing_is_made_before_it_is_needed(tmp_path: Path):
    assert Spool(tmp_path / "spool", 100).used_bytes == 0
    assert not (tmp_path / "spool").exists()


def test_all_files_together_are_bounded(tmp_path: Path):
    spool = Spool(tmp_path, 10)
    first, second = spool.create(), spool.create()
    first.write(b"1234567")
    with pytest.raises(ASRError) as caught:
        second.write(b"1234")
    assert caught.value.code is Code.STORAGE_FULL
    assert caught.value.retry_after_ms
    second.discard()
    assert spool.used_bytes == 7
    first.close()
    spool.remove(first.path)
    assert spool.used_bytes == 0
    spool.create().write(b"1234567890")


def test_files_of_an_earlier_life_count(tmp_path: Path):
    (tmp_path / "old.upload").write_bytes(b"12345")
    with pytest.raises(ASRError, match="as many uploads"):
        Spool(tmp_path, 8).create().write(b"1234")


def test_a_full_disk_says_so(tmp_path: Path):
    file = Spool(tmp_path, 1 << 40).create()
    try:
        with Path("/dev/full").open("wb", buffering=0) as full:
            file._file.close()
            file._file = full  # type: ignore[assignment]
            with pytest.raises(ASRError) as caught:
                file.write(b"x")
    finally:
        file.discard()
    assert caught.value.code is Code.STORAGE_FULL
    assert "disk is full" in caught.value.message
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_removing_twice_does_no_harm(tmp_path: Path):
    spool = Spool(tmp_path, 100)
    file = spool.create()
    file.write(b"abc")
    file.discard()
    spool.remove(file.path)
    assert spool.used_bytes == 0
    assert list(tmp_path.iterdir()) == []


def test_two_gateways_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.spool.COUNT_AGAIN_S", 0.0)
    one, other = Spool(tmp_path, 10), Spool(tmp_path, 10)
    file = one.create()
    file.write(b"1234567")
    file.close()
    late = other.create()
    with pytest.raises(ASRError, match="as many uploads"):
        late.write(b"1234")
    one.remove(file.path)
    late.write(b"1234")
    late.discard()
    assert one.used_bytes == other.used_bytes == 0


def test_a_folder_that_cannot_be_used_is_logged_with_its_reason(tmp_path: Path):
    (tmp_path / "spool").write_bytes(b"")
    with capture_logs() as told, pytest.raises(ASRError, match="its log says why") as caught:
        Spool(tmp_path / "spool", 10).create()
    assert caught.value.code is Code.INTERNAL
    assert "File exists" in str(told)


def test_a_file_that_vanishes_while_it_is_counted_does_no_harm(tmp_path: Path):
    (tmp_path / "there.upload").write_bytes(b"12345")
    (tmp_path / "gone.upload").symlink_to(tmp_path / "nowhere")
    assert Spool(tmp_path, 10).used_bytes == 5
