"""What the tests of commands share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.warm_command import warm_command


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The command, begun at once: for `Shell(…, command=warm)`, whose pipes and status are all that is looked at."""
    with warm_command(tmp_path_factory.mktemp("warm")) as found:
        yield found / "riva-gateway"
