"""The audio that is kept for replay: bounded, counted, and given again exactly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.engine import AudioInput, EndUtterance
from asr.resilience.tape import Cursor, ReplayMemory, Tape

MS = 32


class Source:
    """Audio that is there already."""

    def __init__(self, items: Sequence[AudioInput]) -> None:
        self.items = list(items)

    def __aiter__(self) -> AsyncIterator[AudioInput]:
        return self

    async def __anext__(self) -> AudioInput:
        if not self.items:
            raise StopAsyncIteration
        return self.items.pop(0)


def step(awaitable: Any) -> Any:
    """What a coroutine that never waits comes to."""
    try:
        awaitable.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited")


def take(cursor: Cursor, count: int = 10_000) -> list[AudioInput]:
    """The next items of a cursor, to its end at most."""
    items: list[AudioInput] = []
    while len(items) < count:
        try:
            items.append(step(cursor.__anext__()))
        except StopAsyncIteration:
            break
    return items


def audio(items: Sequence[AudioInput]) -> bytes:
    return b"".join(item for item in items if isinstance(item, bytes))


def tape(max_ms: int = 1_000, total: int = 10**9) -> Tape:
    return Tape(max_ms * MS, ReplayMemory(total))


def test_a_second_cursor_gives_what_no_final_covers_and_then_goes_on() -> None:
    kept = tape()
    source = Source([bytes([n]) * MS * 10 for n in range(6)])
    first = Cursor(kept, source)
    assert audio(take(first, 4)) == bytes([0] * 320 + [1] * 320 + [2] * 320 + [3] * 320)
    kept.settle(15 * MS)
    first.close()
    second = Cursor(kept, source)
    assert second.base_bytes == 15 * MS
    assert audio(take(second)) == bytes([1] * 160 + [2] * 320 + [3] * 320 + [4] * 320 + [5] * 320)
    assert take(first) == []
    assert kept.ended
    assert audio(take(Cursor(kept, source))) == bytes([1] * 160 + [2] * 320 + [3] * 320 + [4] * 320 + [5] * 320)


def test_what_falls_out_of_the_memory_is_known() -> None:
    kept = tape(max_ms=30)
    take(Cursor(kept, Source([bytes(10 * MS)] * 5)))
    assert (kept.settled_bytes, kept.replay_bytes, kept.end_ms) == (0, 20 * MS, 50)
    again = Cursor(kept, Source([]))
    assert len(audio(take(again))) == 30 * MS


def test_a_replay_begins_on_a_whole_millisecond() -> None:
    kept = tape(max_ms=3)
    take(Cursor(kept, Source([bytes(33)] * 5)))
    assert kept.replay_bytes == 128  # 99 bytes fell out
    assert len(audio(take(Cursor(kept, Source([]))))) == 5 * 33 - 128


def test_the_common_memory_is_a_bound_too_and_is_given_back() -> None:
    memory = ReplayMemory(50 * MS)
    one, two = Tape(1_000 * MS, memory), Tape(1_000 * MS, memory)
    take(Cursor(one, Source([bytes(10 * MS)] * 3)))
    take(Cursor(two, Source([bytes(10 * MS)] * 4)))
    assert memory.used_bytes == 50 * MS
    assert two.replay_bytes == 20 * MS
    one.settle(30 * MS)
    assert memory.used_bytes == 20 * MS
    two.forget()
    assert memory.used_bytes == 0


def test_an_unanswered_flush_is_replayed_and_an_answered_one_is_not() -> None:
    kept = tape()
    source = Source([bytes(10 * MS), EndUtterance(), bytes(10 * MS), EndUtterance()])
    take(Cursor(kept, source))
    kept.answered()
    assert take(Cursor(kept, source)) == [bytes(10 * MS), bytes(10 * MS), EndUtterance()]
    kept.settle(20 * MS)
    assert take(Cursor(kept, source)) == [EndUtterance()]
    assert kept.flushes_open == 1
    kept.answered()
    assert take(Cursor(kept, source)) == []


def test_a_flush_that_fell_out_is_owed() -> None:
    kept = tape(max_ms=20)
    take(Cursor(kept, Source([EndUtterance(), *[bytes(10 * MS)] * 4])))
    assert kept.flushes_lost == 1


def test_a_source_that_breaks_is_told_apart() -> None:
    class Broken(Source):
        async def __anext__(self) -> AudioInput:
            raise ValueError("the microphone")

    cursor = Cursor(tape(), Broken([]))
    with pytest.raises(ValueError, match="microphone"):
        step(cursor.__anext__())
    assert isinstance(cursor.failure, ValueError)


@given(st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 5), st.integers(0, 100)), max_size=30))
def test_whatever_is_settled_and_cut_each_replay_is_the_unsettled_rest(moves: list[tuple[int, int, int]]) -> None:
    whole = bytes(n % 251 for n in range(sum(size for size, _, _ in moves)))
    pieces, at = [], 0
    for size, _, _ in moves:
        pieces.append(whole[at : at + size])
        at += size
    memory = ReplayMemory(10**9)
    kept = Tape(10**9, memory)
    source = Source(pieces)
    for _, count, percent in moves:
        cursor = Cursor(kept, source)
        head = audio(take(cursor, count))
        assert head == whole[cursor.base_bytes :][: len(head)]
        cursor.close()
        kept.settle(kept.end_bytes * percent // 100 // MS * MS)
        assert memory.used_bytes == kept.kept_bytes
    last = Cursor(kept, source)
    assert audio(take(last)) == whole[last.base_bytes :]
