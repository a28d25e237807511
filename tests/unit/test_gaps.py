"""A gap and a lost recognizer on the command line: a line for people, a line of JSON for programs."""

from __future__ import annotations

import io
import json

import pytest

from asr.events import Gap, GapCause, Partial, State, Status
from asr.transcript import Transcript
from server.commands.formats import Format
from server.commands.gaps import gap_sentence
from server.commands.listen import Screen
from server.commands.transcribe import _write

GAP = Gap(1_500, 4_000, GapCause.UPSTREAM_LOST)
SENTENCE = "1.5 s to 4.0 s was not recognized: the recognizer was lost"


@pytest.mark.parametrize("cause", GapCause)
def test_every_cause_has_a_sentence(cause: GapCause) -> None:
    assert gap_sentence(Gap(0, 100, cause)).startswith("0.0 s to 0.1 s was not recognized: ")


def test_while_listening_a_gap_is_a_line_beside_the_words(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    screen = Screen(out)
    screen.put(GAP)
    screen.put(Status(State.DEGRADED, 5_000))
    screen.put(Status(State.FAILING_OVER, 5_000))
    screen.put(Status(State.RECOVERED, 5_000))
    assert out.getvalue() == ""
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"riva-gateway: {SENTENCE}"
    assert "the recognizer was lost" in second


def test_on_a_terminal_a_warning_does_not_stand_in_a_partial(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    screen = Screen(out)
    screen.put(Partial(0, 1, "hello", 0, 400))
    screen.put(GAP)
    screen.close()
    assert out.getvalue() == "\r\x1b[Khello\r\x1b[K"
    assert SENTENCE in capsys.readouterr().err


def test_as_json_both_are_lines() -> None:
    out = io.StringIO()
    screen = Screen(out, as_json=True)
    screen.put(GAP)
    screen.put(Status(State.FAILING_OVER, 5_000))
    assert [json.loads(line)["type"] for line in out.getvalue().splitlines()] == ["gap", "status"]


def test_a_file_with_a_gap_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    _write("talk.wav", Transcript("hello", gaps=(GAP,)), Format.TEXT, None, several=False)
    assert f"riva-gateway: talk.wav: {SENTENCE}\n" in capsys.readouterr().err
