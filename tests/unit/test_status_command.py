"""`riva-gateway status`: the document of the status page in lines of text."""

from __future__ import annotations

from typing import Any

from server.commands.status import lines

QUIET: dict[str, Any] = {
    "version": "0.1.0",
    "uptime_s": 59,
    "streams": {"in_use": 0, "limit": 1000, "by_face": {}},
    "endpoints": [],
    "latencies": {
        "final": {"count": 0, "p50_ms": None, "p95_ms": None, "in_time": None, "objective_ms": 800},
    },
    "errors": [],
    "jobs": None,
    "rollout": None,
}
BUSY: dict[str, Any] = {
    **QUIET,
    "uptime_s": 11_520,
    "streams": {"in_use": 12, "limit": 1000, "by_face": {"native": 10, "riva_grpc": 2}},
    "endpoints": [
        {"name": "1", "state": "up", "breaker": "closed", "streams": 12, "limit": 40, "detail": ""},
        {"name": "canary-1", "state": "down", "breaker": "open", "streams": 0, "limit": None, "detail": "Gone."},
    ],
    "latencies": {
        "first_partial": {"count": 3, "p50_ms": 210, "p95_ms": 260, "in_time": None, "objective_ms": None},
        "final": {"count": 31, "p50_ms": 440, "p95_ms": 620, "in_time": 0.982, "objective_ms": 800},
    },
    "errors": [
        {"face": "native", "code": "unavailable", "refused": True, "ours": True, "count": 3, "last_s": 61.0},
        {"face": "end", "code": "bad_audio", "refused": False, "ours": False, "count": 1, "last_s": 3_600.0},
    ],
    "jobs": {"pending": 1, "processing": 2, "completed": 41, "failed": 0, "cancelled": 7},
    "rollout": {"words": "5 % of new streams try the canary."},
}


def test_a_gateway_without_anything_says_little() -> None:
    assert list(lines(QUIET)) == [
        "version 0.1.0, up for 0 min",
        "streams 0 of 1000",
        "",
        "last 5 minutes  results  p50 ms  p95 ms  in time  objective",
        "final           0        -       -       -        95% in 800 ms",
    ]


def test_a_busy_one_says_all() -> None:
    assert list(lines(BUSY)) == [
        "version 0.1.0, up for 3 h 12 min",
        "streams 12 of 1000: native 10, riva_grpc 2",
        "jobs pending 1, processing 2, completed 41, failed 0",
        "rollout: 5 % of new streams try the canary.",
        "",
        "endpoint  state  breaker  streams  limit  last failure",
        "1         up     closed   12       40     -",
        "canary-1  down   open     0        -      Gone.",
        "",
        "last 5 minutes  results  p50 ms  p95 ms  in time  objective",
        "first partial   3        210     260     -        -",
        "final           31       440     620     98.2%    95% in 800 ms",
        "",
        "last hour's errors     protocol  times  whose         last at",
        "unavailable (refused)  native    3      ours          00:01:01Z",
        "bad_audio              end       1      the client's  01:00:00Z",
    ]


def test_days_are_told_as_days() -> None:
    assert next(lines({**QUIET, "uptime_s": 2 * 86_400 + 3_700})) == "version 0.1.0, up for 2 d 1 h"
