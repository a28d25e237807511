"""A job's states, and its options as JSON."""

from __future__ import annotations

import json
from itertools import product
from types import MappingProxyType

import pytest

from asr.errors import ASRError, Code
from asr.options import Diarization, Endpointing, Options, Phrase
from server.jobs.model import (
    MAX_LABELS,
    MOVES,
    OVER,
    Status,
    checked_labels,
    may_become,
    options_from_json,
    options_to_json,
    percent,
    retry_delay_ms,
    wishes_of,
)


def test_a_job_that_is_over_stays_as_it_is() -> None:
    assert {Status.COMPLETED, Status.FAILED, Status.CANCELLED} == OVER
    for before, after in product(Status, Status):
        assert (before in may_become(after)) == (after in MOVES[before])
        if before in OVER:
            assert before not in may_become(after)
    assert may_become(Status.COMPLETED) == {Status.PROCESSING}


def test_options_come_back_as_they_were() -> None:
    options = Options(
        language="de-DE",
        model="m",
        partials=False,
        words=False,
        punctuate=True,
        verbatim=False,
        profanity_filter=True,
        diarization=Diarization(3),
        phrases=(Phrase("Zürich", 0.7), Phrase("b", raw_boost=12.0)),
        endpointing=Endpointing(silence_ms=400, eager_threshold=0.5),
        max_alternatives=3,
        upstream_options=MappingProxyType({"a": "b"}),
        request_id="r",
        fail_on_unsupported=True,
    )
    for one in (options, Options()):
        stored = json.loads(json.dumps(options_to_json(one)))
        assert options_from_json(stored) == one
        assert options_from_json({**stored, "of_a_later_version": 1}) == one


STORED = (
    '[{"channels": 1, "diarization": null, "endpointing": null, "fail_on_unsupported": false, "language": "", '
    '"max_alternatives": 1, "model": "m", "partials": true, "phrases": [], "profanity_filter": false, '
    '"punctuate": null, "recording": false, "request_id": "", "upstream_options": {}, "verbatim": null, '
    '"words": true}, "https://a.example/"]'
)


def test_a_key_that_comes_again_after_an_upgrade_still_fits() -> None:
    """What is compared is stored: it stays as it was first written, and a caller's ids are no part of it."""
    assert wishes_of(Options(model="m"), "https://a.example/") == STORED
    again = Options(model="m", request_id="r", traceparent=f"00-{'1' * 32}-{'2' * 16}-01")
    assert wishes_of(again, "https://a.example/") == STORED
    assert wishes_of(Options(model="n"), "https://a.example/") != STORED


@pytest.mark.parametrize("broken", [{"phrases": [{"texte": "a"}]}, {"max_alternatives": 99}, {"phrases": 7}])
def test_options_that_cannot_be_read_are_said_to_be_so(broken: dict[str, object]) -> None:
    with pytest.raises(ASRError) as caught:
        options_from_json({**options_to_json(Options()), **broken})
    assert caught.value.code is Code.INTERNAL


def test_only_a_completed_job_is_at_a_hundred_percent() -> None:
    assert [percent(Status.PROCESSING, done, 1000) for done in (0, 5, 999, 2000)] == [0, 0, 99, 99]
    assert percent(Status.FAILED, 1000, 1000) == 99
    assert percent(Status.COMPLETED, 0, 0) == 100


def test_labels_are_bounded() -> None:
    assert checked_labels({"a": ""}) == {"a": ""}
    for bad in ({"": "x"}, {"a": "x" * 300}, {"a" * 300: "x"}, {str(n): "" for n in range(MAX_LABELS + 1)}):
        with pytest.raises(ASRError) as caught:
            checked_labels(bad)
        assert (caught.value.code, caught.value.param) == (Code.BAD_REQUEST, "labels")


def test_waiting_grows_up_to_a_bound() -> None:
    waits = [retry_delay_ms(attempt, first_ms=100, most_ms=1000) for attempt in range(1, 2000)]
    assert waits[:5] == [100, 200, 400, 800, 1000]
    assert set(waits[5:]) == {1000}
