"""The stored run: it comes back as it was, later versions may say more, and what is damaged is said where."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from asr.errors import ASRError, Code
from evaluation.results import GoldenRun, PartErrors
from sample_runs import golden_run

RUN = golden_run(each=2)


def stored(**changes: object) -> dict[str, Any]:
    """A document with its first clip changed."""
    document: dict[str, Any] = json.loads(json.dumps(RUN.to_json()))
    document["clips"][0] |= changes
    return document


def test_a_run_comes_back_as_it_was_but_for_tenths() -> None:
    run = replace(RUN, info=replace(RUN.info, cores=2, load_average=0.5))
    whole = replace(run.clips[0].words, hits=5)
    run = replace(
        run, clips=(replace(run.clips[0], parts=(PartErrors("clean/a", "a b", whole, whole),)), *run.clips[1:])
    )
    once = GoldenRun.from_json(json.loads(json.dumps(run.to_json())))
    assert once.to_json() == run.to_json()
    assert GoldenRun.from_json(json.loads(json.dumps(once.to_json()))) == once
    assert [clip.words for clip in once.clips] == [clip.words for clip in run.clips]
    assert once.clips[0].parts == run.clips[0].parts
    assert once.info.load_average == 0.5


def test_a_later_version_may_say_more_and_an_earlier_one_less() -> None:
    document = stored(of_a_later_version={"x": [1]})
    document["more"] = float("nan")
    document["info"]["of_a_later_version"] = 1
    for key in ("cores", "load_average"):
        del document["info"][key]
    del document["clips"][0]["parts"]
    assert len(GoldenRun.from_json(document).clips) == len(RUN.clips)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"late_ms": float("nan")}, r"clips\[0\].late_ms is 'nan'"),
        ({"elapsed_ms": float("inf")}, r"clips\[0\].elapsed_ms is 'inf'"),
        ({"audio_ms": -1}, r"clips\[0\].audio_ms is '-1'"),
        ({"audio_ms": True}, r"clips\[0\].audio_ms is 'True'"),
        ({"outcome": "fine"}, r"clips\[0\].outcome is 'fine'"),
        ({"hypothesis": None}, r"clips\[0\].hypothesis is 'None', which is no text"),
        ({"hypothesis": "\ud800"}, "which is no text"),
        ({"words": {"hits": "many"}}, r"clips\[0\].words.hits is 'many'"),
        ({"words": [1]}, r"clips\[0\].words is no object"),
        ({"timings": {"final_ms": [1.0, float("nan")]}}, r"clips\[0\].timings.final_ms"),
        ({"timings": {"final_ms": 4}}, r"clips\[0\].timings.final_ms is '4', which is no list of numbers"),
        ({"parts": [{"id": "a"}]}, r"clips\[0\].parts\[0\].reference is missing"),
        ({"id": RUN.clips[1].id}, "is there twice"),
    ],
)
def test_what_is_damaged_is_said_where(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ASRError, match=says) as refused:
        GoldenRun.from_json(stored(**changes))
    assert refused.value.code is Code.BAD_REQUEST


@pytest.mark.parametrize("document", [None, [], {}, {"schema": "riva-gateway.golden/1"}, {"schema": 1}])
def test_what_is_no_result_is_refused(document: object) -> None:
    with pytest.raises(ASRError):
        GoldenRun.from_json(document)
    for clips in ({}, None, 3, [1], [None]):
        with pytest.raises(ASRError):
            GoldenRun.from_json({**stored(), "clips": clips})
