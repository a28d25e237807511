"""What every contract test has at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract import node_clients as npm
from contract.conformance import DOCUMENT, Conformance, replaced


@pytest.fixture(scope="session")
def conformance(request: pytest.FixtureRequest) -> Iterator[Conformance]:
    """Where a test records what a client was seen to do."""
    collected = Conformance()
    yield collected
    whole = not request.session.testsfailed and not request.config.option.keyword and request.session.testscollected
    if os.environ.get("CONFORMANCE") == "write" and whole:
        DOCUMENT.write_text(replaced(DOCUMENT.read_text("utf-8"), collected.rows), "utf-8")


@pytest.fixture(scope="session")
def node_clients() -> Path:
    """The folder of the clients from npm, installed."""
    return npm.install()
