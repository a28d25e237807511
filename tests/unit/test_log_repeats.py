"""Lines that repeat: so many in a minute, then a count."""

from __future__ import annotations

from server.telemetry.repeats import MAX_KINDS, OTHERS, Repeats


def test_so_many_pass_in_a_window_and_the_rest_is_counted() -> None:
    repeats = Repeats(3, 60.0)
    assert [repeats.admit("a", at) for at in (0, 1, 2, 3, 59.9)] == [True, True, True, False, False]
    assert repeats.admit("b", 4)
    assert repeats.over(59.9) == []
    assert repeats.over(60.0) == [("a", 2)]
    assert repeats.over(60.0) == []
    assert repeats.admit("a", 60.0)


def test_what_was_not_left_out_is_not_told() -> None:
    repeats = Repeats(3, 60.0)
    assert repeats.admit("a", 0)
    assert repeats.over(1000) == []


def test_the_end_tells_of_windows_that_last() -> None:
    repeats = Repeats(1, 60.0)
    assert [repeats.admit(kind, 0) for kind in "aabb"] == [True, False, True, False]
    assert repeats.over(1, all_of_them=True) == [("a", 1), ("b", 1)]


def test_kinds_are_bounded_and_windows_end_when_they_should() -> None:
    repeats = Repeats(1, 60.0)
    for number in range(MAX_KINDS + 10):
        repeats.admit(f"kind {number}", number / 1000)
    assert not repeats.admit("one more", 1.0)
    assert not repeats.admit("and another", 1.0)
    assert repeats.admit("kind 5", 1.0) is False
    told = repeats.over(1000.0)
    assert dict(told)[OTHERS] == 11
    assert dict(told)["kind 5"] == 1
    assert repeats.admit("one more", 1000.0)
