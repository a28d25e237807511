"""What `riva-gateway rollout` makes of its words, and of a state file; no gateway is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.commands.app import app
from server.rollout.state import MAX_STATE_BYTES, Position, Wanted, read_state
from server.settings import ServerSettings


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `.env` and no keys but those a test sets."""
    monkeypatch.chdir(tmp_path)
    for key in ServerSettings.known_keys():
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["rollout", *arguments], env={"NO_COLOR": "1"})
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("canary",), 2, "Give canary its percentage"),
        (("off", "5"), 2, "A percentage goes with canary, not with off"),
        (("sideways",), 2, "sideways"),
        (("canary", "101"), 2, "less than or equal to 100"),
        (("--server", "localhost:50051"), 2, "is a Riva server"),
        (("--server", "https://localhost:9", "--ca-cert", "none.pem"), 2, "there is no such file"),
        (("--server", "http://localhost:9"), 3, "No gateway listens there"),
        (("--file", "bad.json"), 4, "it is not JSON"),
        (("off", "--file", "/proc/rollout.json"), 1, "cannot be written"),
        (("off", "--file", "/proc/none/rollout.json"), 4, "There is no folder /proc/none"),
        (("--file", "bad.json", "--server", "http://localhost:9"), 2, "--file asks no gateway"),
    ],
)
def test_it_says_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...], status: int, words: str) -> None:
    (tmp_path / "bad.json").write_text("{")
    found, stdout, stderr = run(*arguments)
    assert (found, stdout) == (status, ""), stderr
    assert words in stderr


def test_a_port_that_the_system_chooses_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "0")
    status, _, stderr = run()
    assert status == 2
    assert "Name it with --server" in stderr


def test_a_key_never_travels_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_API_KEY", "secret-key")
    status, _, stderr = run("off", "--server", "http://gateway.example:8443")
    assert status == 4
    assert "would travel unencrypted" in stderr
    assert "secret-key" not in stderr


def test_a_file_is_written_from_what_it_says_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_CANARY_PERCENT", "3")
    path = tmp_path / "rollout.json"
    assert run("off", "--reason", "drill", "--file", str(path))[0] == 0
    first = json.loads(path.read_text())
    assert (first["position"], first["canary_percent"], first["reason"]) == ("off", 3, "drill")
    assert first["by"].endswith(", in the file")
    assert first["changed_at"].endswith("Z")
    assert run("canary", "9", "--file", str(path))[0] == 0
    again = json.loads(path.read_text())
    assert (again["position"], again["canary_percent"], again["reason"]) == ("off", 9, "")
    status, stdout, _ = run("--json", "--file", str(path))
    assert (status, json.loads(stdout)["position"]) == (0, "off")


# --- the file


def test_what_a_file_says_and_leaves_out() -> None:
    present = Wanted(Position.OFF, 7, "then", "who", "why")
    assert read_state(b"{}", present) == Wanted(Position.OFF, 7)
    assert read_state(b'{"position": "on", "by": "git"}', present) == Wanted(Position.ON, 7, by="git")
    wanted = Wanted(Position.FORMER, 100, "2026-01-01T00:00:00Z", "me", "caf\u00e9")
    assert read_state(wanted.to_json().encode(), Wanted()) == wanted


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "more than"),
        (b"[" * 5_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"percent": 5}', "it has the key 'percent'"),
        (b'{"position": "OFF"}', "position is not"),
        (b'{"position": null}', "position is not"),
        (b'{"canary_percent": 5.0}', "not a whole number"),
        (b'{"canary_percent": false}', "not a whole number"),
        (b'{"canary_percent": -1}', "not a whole number"),
        (b'{"reason": {}}', "reason is not a text"),
        (b" " * (MAX_STATE_BYTES + 1), "more than"),
    ],
)
def test_a_file_that_is_none(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_state(data, Wanted())
