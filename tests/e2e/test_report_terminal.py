"""`riva-gateway report` on terminals of several widths."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from e2e.command import Shell, plain
from server.telemetry.records import file_name, line_of


@pytest.mark.parametrize("columns", [160, 80])
def test_a_narrow_terminal_gets_what_matters_most(columns: int, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    row = {"ts": now.isoformat(), "status": "ok", "code": "", "face": "native", "kind": "live", "queue_wait_s": 0.01}
    (tmp_path / file_name(now.date())).write_bytes(line_of(row | {"first_partial_s": 0.2, "final_latency_s": 0.9}))
    arguments = ("report", "--records", tmp_path, "--windows", "1h", "3h")
    status, shown = Shell(tmp_path).on_terminal(*arguments, columns=columns)
    text = plain(shown)
    assert status == 0
    assert all(len(line) <= columns for line in text.splitlines())
    assert "0.200 / 0.200 / 0.200 ✓" in text
    assert "0.900 / 0.900 / 0.900 ✗" in text
    assert ("no room for: RTFx, queue wait s" in text) is (columns < 160)
