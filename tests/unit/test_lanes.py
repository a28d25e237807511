"""The room of tests that run in several processes: many together, or one alone, and nobody waits for ever."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from lanes import Room, room_of_this_run, together

TESTS = Path(__file__).resolve().parents[1]
PATIENCE_S = 20.0
NOT_YET_S = 0.3
AWAY = multiprocessing.get_context("spawn")


def enter(folder: Path, alone: bool, asking: Event, inside: Event, leave: Event) -> None:
    """In another process: go in, say so, and stay until told to leave."""
    asking.set()
    with Room(folder).entered(alone=alone):
        inside.set()
        leave.wait(PATIENCE_S)


class Visitor:
    """Another process that wants to be in the room."""

    def __init__(self, folder: Path, *, alone: bool) -> None:
        asking, self.inside, self.leave = AWAY.Event(), AWAY.Event(), AWAY.Event()
        self.process = AWAY.Process(target=enter, args=(folder, alone, asking, self.inside, self.leave))
        self.process.start()
        assert asking.wait(PATIENCE_S)

    def is_in(self, within_s: float = PATIENCE_S) -> bool:
        return self.inside.wait(within_s)

    def go(self) -> None:
        self.leave.set()
        self.process.join(PATIENCE_S)


@pytest.fixture
def visitors(tmp_path: Path) -> Iterator[list[Visitor]]:
    """Two who run with others and are in, and one who measures and asks to be."""
    found: list[Visitor] = []
    for alone in (False, False, True):
        found.append(Visitor(tmp_path, alone=alone))
        assert alone or found[-1].is_in()
    yield found
    for one in found:
        one.process.kill()
        one.process.join()


def test_who_measures_waits_for_all_and_is_alone(visitors: list[Visitor], tmp_path: Path) -> None:
    first, second, measuring = visitors
    assert not measuring.is_in(NOT_YET_S)
    first.go()
    assert not measuring.is_in(NOT_YET_S)
    second.go()
    assert measuring.is_in()
    late = Visitor(tmp_path, alone=False)
    visitors.append(late)
    assert not late.is_in(NOT_YET_S)
    measuring.go()
    assert late.is_in()


def test_who_comes_later_does_not_slip_in_before_who_measures(visitors: list[Visitor], tmp_path: Path) -> None:
    first, second, measuring = visitors
    assert not measuring.is_in(NOT_YET_S)
    late = Visitor(tmp_path, alone=False)
    visitors.append(late)
    assert not late.is_in(NOT_YET_S), "or those who measure would never have their turn"
    first.go()
    second.go()
    assert measuring.is_in()


def test_who_dies_inside_locks_nobody_out(visitors: list[Visitor]) -> None:
    first, second, measuring = visitors
    first.process.kill()
    second.process.kill()
    assert measuring.is_in()


def test_tests_that_share_something_are_in_one_process() -> None:
    first, second = "tests/unit/test_a.py::test_one[a::b]", "tests/unit/test_a.py::test_two"
    assert together(first) == together(second) != together("tests/unit/test_b.py::test_one")
    assert together("tests/contract/test_a.py::test_one") == together("tests/contract/test_b.py::test_two")


def test_a_run_in_one_process_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    assert room_of_this_run(tmp_path) is None
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    room = room_of_this_run(tmp_path)
    assert room is not None
    with room.entered(alone=True):
        pass
    room.close()


SUITE = """
import fcntl
from pathlib import Path
import pytest

def free():
    with Path(".pytest_cache/lanes/inside").open("w") as inside:
        try:
            fcntl.flock(inside, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

@pytest.fixture(scope="module")
def before():
    return free()

@pytest.mark.alone
def test_that_measures(before):
    assert not before and not free()

def test_of_any_other_kind():
    assert free()
"""
FIRST = """
@pytest.fixture(scope="module")
def played():
    return free()

@pytest.mark.alone(first=True)
@pytest.mark.parametrize("row", (0, 1, 2))
def test_row(row, played):
    assert not played and free() == (row > 0)
"""


def test_the_mark_gives_a_test_the_room_and_its_fixtures_too(tmp_path: Path) -> None:
    (tmp_path / "test_first.py").write_text(SUITE.partition("@")[0] + FIRST)
    (tmp_path / "test_suite.py").write_text(SUITE)
    env = {**os.environ, "PYTHONPATH": str(TESTS), "PYTEST_XDIST_WORKER": "gw0"}
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "conftest",
        "--rootdir",
        tmp_path,
        "--strict-markers",
        "-c",
        os.devnull,
    )
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "5 passed" in done.stdout, done.stdout
