"""Places: how many there are, who gets the last ones, and when to come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import ASRError, Code
from server.access.grants import Allowance
from server.admission import FULL_RETRY_MS, SHARE_RETRY_MS, Admission, Place


def places(
    max_streams: int,
    *,
    reserve: int = 0,
    per_key: int = 0,
    random: float = 0.5,
    engine: ASRError | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> Admission:
    return Admission(
        max_streams,
        random=lambda: random,
        clock=clock,
        reserve_percent=reserve,
        max_streams_per_key=per_key,
        engine_refusal=lambda: engine,
    )


def attempt(admission: Admission, principal: str) -> Place | ASRError:
    try:
        return admission.admit(principal)
    except ASRError as error:
        return error


def refused(admission: Admission, principal: str) -> ASRError:
    error = attempt(admission, principal)
    assert isinstance(error, ASRError)
    return error


def test_a_full_gateway_refuses_until_a_place_is_given_back() -> None:
    admission = places(2)
    first, _ = admission.admit("a"), admission.admit("b")
    error = refused(admission, "c")
    assert error.code is Code.OVERLOADED
    assert error.retryable
    assert (admission.in_use, admission.admitted, admission.refused) == (2, 2, {Code.OVERLOADED: 1})
    first.release()
    first.release()
    assert admission.in_use == 1
    assert dict(admission.in_use_by) == {"b": 1}
    admission.admit("c")


def test_who_is_refused_together_does_not_come_back_together() -> None:
    waits: set[int] = set()
    for random in (0.0, 0.25, 0.999):
        admission = places(1, random=random)
        admission.admit("a")
        waits.add(refused(admission, "b").retry_after_ms or 0)
    assert len(waits) == 3
    assert min(waits) == FULL_RETRY_MS // 2
    assert max(waits) < FULL_RETRY_MS * 3 // 2


def test_the_last_places_are_for_those_with_less_than_their_share() -> None:
    admission = places(100, reserve=10)
    for _ in range(90):
        admission.admit("greedy")
    newcomer = admission.admit("small")
    error = refused(admission, "greedy")
    assert error.code is Code.RATE_LIMITED
    assert error.retry_after_ms == SHARE_RETRY_MS
    assert "your share" in error.message
    for name in "abcdefghi":
        admission.admit(name)
    assert refused(admission, "z").code is Code.OVERLOADED
    newcomer.release()
    admission.admit("z")


def test_who_is_alone_may_use_everything() -> None:
    admission = places(10, reserve=50)
    for _ in range(10):
        admission.admit("only")
    assert refused(admission, "only").code is Code.OVERLOADED


def test_a_bound_for_each_caller() -> None:
    admission = places(10, per_key=2)
    place = admission.admit("a")
    admission.admit("a")
    assert refused(admission, "a").code is Code.RATE_LIMITED
    admission.admit("b")
    place.release()
    admission.admit("a")


def test_while_draining_nobody_comes_in_and_places_stay_taken() -> None:
    admission = places(2)
    place = admission.admit("a")
    admission.drain()
    error = refused(admission, "b")
    assert (error.code, error.retry_after_ms) == (Code.UNAVAILABLE, 2000)
    assert admission.in_use == 1
    place.release()
    assert admission.in_use == 0


@pytest.mark.parametrize(
    ("said", "wait_ms"), [(None, FULL_RETRY_MS), (100, FULL_RETRY_MS), (60_000, 60_000)], ids=["none", "short", "long"]
)
@pytest.mark.parametrize("code", [Code.OVERLOADED, Code.UNAVAILABLE])
def test_what_the_engine_says_holds_for_the_door(code: Code, said: int | None, wait_ms: int) -> None:
    admission = places(2, engine=ASRError(code, "The recognizer is down.", retry_after_ms=said))
    error = refused(admission, "a")
    assert (error.code, error.message, error.retry_after_ms) == (code, "The recognizer is down.", wait_ms)
    assert admission.in_use == 0


@settings(max_examples=40)
@given(
    total=st.integers(1, 30),
    reserve=st.integers(0, 90),
    per_key=st.sampled_from([0, 1, 3]),
    moves=st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=120),
)
def test_places_add_up_whatever_happens(total: int, reserve: int, per_key: int, moves: list[tuple[str, bool]]) -> None:
    admission = places(total, reserve=reserve, per_key=per_key)
    held: list[Place] = []
    for name, comes in moves:
        if not comes:
            if held:
                held.pop(len(name) % len(held)).release()
            continue
        free, mine = total - admission.in_use, admission.in_use_by.get(name, 0)
        callers = len({*admission.in_use_by, name})
        got = attempt(admission, name)
        if isinstance(got, Place):
            held.append(got)
        else:
            assert (got.code is Code.OVERLOADED) == (free == 0)
            # Whoever has less than the equal share gets in as long as anything is free.
            assert free == 0 or mine * callers >= total or (per_key and mine >= per_key)
        assert admission.in_use == len(held) <= total
        assert admission.in_use_by == Counter(place.principal for place in held)
        assert not per_key or max(admission.in_use_by.values()) <= per_key
    for place in held:
        place.release()
    assert (admission.in_use, dict(admission.in_use_by)) == (0, {})


@settings(max_examples=40)
@given(total=st.integers(10, 60), reserve=st.integers(10, 90), greedy=st.integers(1, 200))
def test_a_newcomer_always_finds_the_reserve_free(total: int, reserve: int, greedy: int) -> None:
    admission = places(total, reserve=reserve)
    admission.admit("first")
    for _ in range(greedy):
        got = attempt(admission, "greedy")
        assert isinstance(got, Place) or got.code is Code.RATE_LIMITED
    admission.admit("newcomer")


def test_a_caller_who_hammers_makes_room_for_one_who_was_refused() -> None:
    now = [0.0]
    admission = places(10, reserve=10, clock=lambda: now[0])
    greedy = [admission.admit("greedy") for _ in range(10)]
    assert refused(admission, "newcomer").code is Code.OVERLOADED
    greedy.pop().release()
    assert refused(admission, "greedy").code is Code.RATE_LIMITED, "somebody with less waits"
    assert isinstance(attempt(admission, "newcomer"), Place)
    greedy.pop().release()
    now[0] = 3_600.0
    assert admission.in_use == 9


def test_a_credential_may_allow_fewer_streams_or_more_than_others_get() -> None:
    admission = places(100, per_key=2)
    for allowance, most in ((Allowance(streams=1), 1), (Allowance(streams=5), 5), (Allowance(), 2), (None, 2)):
        name = f"key {most} {allowance}"
        held = [admission.admit(name, allowance) for _ in range(most)]
        with pytest.raises(ASRError, match=f"{most} streams") as refusal:
            admission.admit(name, allowance)
        assert refusal.value.code is Code.RATE_LIMITED
        held.pop().release()
        admission.admit(name, allowance)
    assert admission.refused_allowance == 4


def test_those_for_whom_somebody_pays_share_its_places() -> None:
    admission = places(100)
    allowance = Allowance(streams=2)
    first = admission.admit("key app for ann", allowance)
    admission.admit("key app for bob", allowance)
    with pytest.raises(ASRError):
        admission.admit("key app for eve", allowance)
    assert dict(admission.in_use_by) == {"key app": 2}
    first.release()
    assert admission.admit("key app", allowance).principal == "key app"
