"""Each test has its turn, and leaves no logger to the next that writes to a stream which is closed by then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import structlog

from lanes import Room, room_of_this_run, together

_ROOM = pytest.StashKey[Room | None]()
_MEASURED = pytest.StashKey[set[Path]]()


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "alone(first): measures; no other test runs meanwhile, in any process of this run. With first=True only the "
        "file's first one does, with the fixture that plays all of it; the others look at what it has found.",
    )
    config.stash[_MEASURED] = set()
    config.stash[_ROOM] = room_of_this_run(config.rootpath / ".pytest_cache" / "lanes")


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before the limit of the test's time begins
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    room = item.config.stash[_ROOM]
    with room.entered(alone=_measures(item)) if room else nullcontext():
        return (yield)


def _measures(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("alone")
    if mark is None:
        return False
    before = item.config.stash[_MEASURED]
    repeated = item.path in before
    before.add(item.path)
    return not (mark.kwargs.get("first") and repeated)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files in their order, so that the quick ones are left for the end; each to the process that is free first."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_unconfigure(config: pytest.Config) -> None:
    if room := config.stash.get(_ROOM, None):
        room.close()
