"""What every contract test has at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract import node_clients as npm
from contract.conformance import Conformance


@pytest.fixture(scope="session")
def conformance(request: pytest.FixtureRequest) -> Iterator[Conformance]:
    """Where a test records what a client was seen to do."""
    collected = Conformance(writing=os.environ.get("CONFORMANCE") == "write")
    yield collected
    asked = request.config.option
    folder = Path(__file__).parent
    ran = {item.path for item in request.session.items}
    whole = not (asked.keyword or asked.markexpr or request.session.testsfailed)
    if whole and set(folder.glob("test_*.py")) <= ran and "::" not in "".join(request.config.args):
        collected.finish()


@pytest.fixture(scope="session")
def node_clients() -> Path:
    """The folder of the clients from npm, installed."""
    return npm.install()
