"""Two gateways side by side: what comes out of their rounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from load.versus import Rounds, Side, settings_of, table

OURS, THEIRS = Side("this", Path()), Side("the other", Path())


def test_rounds_are_compared_one_by_one():
    # Somebody else used the machine during the second round: both sides took twice as long.
    found = Rounds(100, [3.3, 6.6, 3.3], [3.0, 6.0, 3.0], [0, 0, 2])
    assert found.ratios == pytest.approx([1.1, 1.1, 1.1])
    assert found.differences_us == pytest.approx([300, 600, 300])
    assert table([found], OURS, THEIRS).splitlines()[-1] == (
        "| 100 ms | 3.30 | 3.00 | +300 | 1.100 | 1.100–1.100 | 2 |"
    )


def test_settings_stand_on_the_command_line_as_in_the_environment():
    assert settings_of(["AUTH=on", "RIVA_METADATA=a=b"]) == {"AUTH": "on", "RIVA_METADATA": "a=b"}
    with pytest.raises(SystemExit, match="NAME=VALUE"):
        settings_of(["AUTH"])
