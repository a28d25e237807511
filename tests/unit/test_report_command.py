"""`riva-gateway report`: what it prints, for people and for machines, and what it says where there is nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.commands.app import app
from server.commands.exits import Exit
from server.settings import ServerSettings
from server.telemetry.records import file_name, line_of, row_of_refusals

DEFAULT = ["30m", "1h", "3h", "6h", "12h", "24h", "3d"]


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ServerSettings.known_keys():
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """An hour ago ten streams, two hours ago one that failed, two days ago one, and a cut line."""
    folder = tmp_path / "state" / "records"
    folder.mkdir(parents=True)
    good = {"status": "ok", "code": "", "face": "native", "kind": "live", "audio_len_s": 360.0}
    good |= {"queue_wait_s": 0.01, "first_partial_s": 0.2, "final_latency_s": 0.9, "rtfx": 1.0}
    failed = {"status": "server_error", "code": "unavailable", "face": "riva_grpc", "kind": "live"}
    for hours, row, count in ((0.9, good, 10), (2, failed, 1), (48, good, 1)):
        at = datetime.now(UTC) - timedelta(hours=hours)
        with (folder / file_name(at.date())).open("ab") as file:
            file.write(line_of({"ts": at.isoformat(), **row}) * count)
    now = datetime.now(UTC)
    with (folder / file_name(now.date())).open("ab") as file:
        file.write(line_of(row_of_refusals("native", "rate_limited", 7, now.timestamp())))
        file.write(b'{"ts":"2026-')
    (folder / file_name((now - timedelta(days=30)).date())).write_bytes(b"too old to be looked at\n")
    return folder


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["report", *arguments], env={"NO_COLOR": "1"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.usefixtures("records")
def test_a_row_for_each_window_with_marks() -> None:
    status, out, _ = run()
    assert status == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.split()[0] in DEFAULT}
    assert list(rows) == DEFAULT
    assert rows["1h"].split()[1] == "10"
    assert rows["3h"].split()[1] == "11"
    assert rows["3d"].split()[1] == "12"
    assert "0.00% ✓" in rows["1h"]
    assert "9.09% ✗" in rows["3h"]
    assert "0.200 / 0.200 / 0.200 ✓" in rows["1h"]
    assert "0.900 / 0.900 / 0.900 ✗" in rows["1h"]
    assert rows["1h"].split()[-1] == "1.00"
    assert "–" in rows["30m"]
    assert "1 lines are no records" in out
    assert "objectives: 1st partial p95 ≤ 0.3 s, final p95 ≤ 0.8 s, errors < 0.5%" in out


@pytest.mark.usefixtures("records")
@pytest.mark.parametrize(
    "flags",
    [
        ("--windows", "1h", "3h", "3d", "--json"),
        ("--windows", "1h,3h,3d", "--json"),
        ("--json", "-w", "1h", "-w", "3h", "--windows", "3d"),
        ("--windows=1h", "3h", "--json", "3d", "1h"),
        ("--json", "--windows", "1h 3h", "3d"),
    ],
)
def test_windows_come_with_spaces_or_commas(flags: tuple[str, ...]) -> None:
    status, out, _ = run(*flags)
    assert status == 0
    told = json.loads(out)
    assert [(window["window"], window["streams"]) for window in told["windows"]] == [("1h", 10), ("3h", 11), ("3d", 12)]
    assert told["windows"][1]["errors"] == {"share": 1 / 11, "objective": 0.005, "kept": False}
    assert told["windows"][0]["refused"] == 7
    assert told["unreadable"] == 1


def test_one_face_and_a_folder_of_ones_own(records: Path, tmp_path: Path) -> None:
    elsewhere = records.rename(tmp_path / "elsewhere")
    status, out, _ = run("--records", str(elsewhere), "--face", "riva_grpc", "--windows", "3h", "--json")
    assert status == 0
    assert json.loads(out)["windows"][0]["streams"] == 1
    _, out, _ = run("--records", str(elsewhere), "--face", "fax", "--windows", "3h")
    assert "has no record of fax within these windows. There are some of: native, riva_grpc." in out


def test_where_there_is_nothing_it_says_so(tmp_path: Path) -> None:
    status, out, err = run()
    assert (status, out) == (Exit.BAD_INPUT, "")
    assert "There is no folder" in err
    assert "RECORDS=off" in err
    empty = tmp_path / "state" / "records"
    empty.mkdir(parents=True)
    assert run()[:2] == (0, f"{empty} has no record within these windows.\n")
    assert json.loads(run("--json")[1])["windows"][0]["streams"] == 0


@pytest.mark.parametrize("flags", [("--windows", "soon"), ("--windows", "1h", "never"), ("--windows", ","), ("1y",)])
def test_a_window_that_is_none_is_one_line_with_a_way_out(flags: tuple[str, ...]) -> None:
    status, out, err = run(*flags)
    assert (status, out) == (Exit.CONFIGURATION, "")
    assert err.startswith("riva-gateway: --windows: ")
    assert err.count("\n") == 1


def test_a_file_that_cannot_be_read_is_named(records: Path) -> None:
    broken = records / file_name(datetime.now(UTC).date() + timedelta(days=1))
    broken.mkdir()
    status, _, err = run()
    assert status == Exit.BAD_INPUT
    assert f"{broken} cannot be read" in err
