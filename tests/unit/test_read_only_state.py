"""A gateway whose state directory cannot be written starts, and says what it lacks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog

from server.serve import _tell_read_only


def test_what_a_gateway_lacks_is_told_at_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def refuse(path: Path, mode: int) -> bool:
        asked.append(path)
        return False

    with structlog.testing.capture_logs() as told:
        _tell_read_only(tmp_path / "not" / "there")
        assert told == []
        monkeypatch.setattr(os, "access", refuse)
        _tell_read_only(tmp_path / "not" / "there")
    assert asked == [tmp_path], "where it would be made"
    (line,) = told
    assert line["event"] == "STATE_DIR cannot be written; live streams go on"
    assert "uploads, jobs, records" in line["missing"]
