"""Trace context: the caller's, ours, and whether its spans are kept."""

from __future__ import annotations

import pytest

from asr.errors import ASRError, Code
from asr.options import Options
from server.telemetry.trace import TraceContext, in_share, trace_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = f"00-{TRACE}-{SPAN}-01"


def hexes(n_bytes: int) -> str:
    return "ab" * n_bytes


def test_ours_is_a_child_of_the_callers() -> None:
    found = trace_of(CALLER, "vendor=1", hexes, share=0.0)
    assert found == TraceContext(TRACE, "ab" * 8, SPAN, True, "vendor=1")
    assert found.header() == f"00-{TRACE}-{'ab' * 8}-01"


def test_the_caller_decides_what_is_kept() -> None:
    assert not trace_of(CALLER[:-2] + "00", "", hexes, share=1.0).sampled
    assert trace_of(CALLER[:-2] + "03", "", hexes, share=0.0).sampled


def test_where_no_spans_are_made_the_callers_is_passed_on() -> None:
    assert trace_of(CALLER, "", hexes).header() == CALLER
    assert trace_of(CALLER, "", hexes).parent_id == ""
    assert trace_of("", "", hexes).header() == f"00-{'ab' * 16}-{'ab' * 8}-00"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\nx: y",
    ],
)
def test_what_cannot_be_read_begins_a_trace_of_its_own(bad: str) -> None:
    assert trace_of(bad, "a=b", hexes, share=1.0) == TraceContext("ab" * 16, "ab" * 8)
    if bad:
        with pytest.raises(ASRError) as caught:
            Options(traceparent=bad)
        assert caught.value.code is Code.BAD_REQUEST
        assert caught.value.param == "traceparent"


def test_what_travels_as_a_header_ends_where_it_ends() -> None:
    assert trace_of(f" {CALLER}\n", "", hexes, share=1.0).trace_id == TRACE
    with pytest.raises(ASRError):
        Options(traceparent=f"{CALLER}\n")


@pytest.mark.parametrize("good", ["", CALLER, f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01-what-comes-next"])
def test_options_take_a_trace_context(good: str) -> None:
    assert Options(traceparent=good).traceparent == good


def test_a_share_is_kept() -> None:
    ids = [f"{number:032x}" for number in range(0, 2**64, 2**64 // 1000)]
    assert sum(in_share(trace_id, 0.25) for trace_id in ids) == pytest.approx(250, abs=2)
    assert all(in_share(trace_id, 1.0) for trace_id in ids)
    assert not any(in_share(trace_id, 0.0) for trace_id in ids)


def test_the_share_is_that_of_opentelemetry() -> None:
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    for share in (0.1, 0.5, 0.9):
        theirs = TraceIdRatioBased(share)
        for number in range(0, 2**64, 2**64 // 97):
            decision = theirs.should_sample(None, number, "x").decision
            assert decision.is_sampled() is in_share(f"{number:032x}", share)
