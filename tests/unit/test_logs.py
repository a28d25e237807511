"""Logs: what a traceback tells, and what it does not."""

from __future__ import annotations

from typing import Literal

import pytest
import structlog

from server.logs import configure_logs


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_keeps_what_clients_said_to_itself(
    style: Literal["json", "console"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs("info", style)

    def fails(said: str) -> None:
        raise RuntimeError("it went wrong")

    try:
        fails("".join(("my ", "secret ", "words")))
    except RuntimeError:
        structlog.get_logger("x").exception("request failed")
    told = capsys.readouterr().err
    assert "it went wrong" in told
    assert "fails" in told
    assert "my secret words" not in told
