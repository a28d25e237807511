"""The embedded recognizer on the golden set, held against its profile: nothing may make it hear worse or later.

The words are those of the conditions that it can hear, as fast as they can be had; in the others (accents of another
synthesizer, loud noise) four words of five are wrong anyway, and take it long. Latencies come from a sample in
real time. `riva-gateway golden` does the whole set, both ways.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from asr import RivaASRClient
from evaluation.clips import ClipSet
from evaluation.golden import RunPlan, run_set
from evaluation.profiles import Judgement, judge, load_profile
from evaluation.results import GoldenRun
from evaluation.sets import load_set, only, sampled

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEARD = ("clean", "fast", "digits", "names", "noise_20db", "telephone", "low_level", "silence")
IN_REAL_TIME = 12

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


async def run(clips: ClipSet, plan: RunPlan) -> GoldenRun:
    async with RivaASRClient(engine="local") as client:
        return await run_set(client, clips, plan, now=NOW)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def words() -> AsyncIterator[GoldenRun]:
    yield await run(only(load_set(GOLDEN), HEARD), RunPlan(pace="fast", concurrency=2))


def missed(judgement: Judgement) -> dict[tuple[str, ...], float | None]:
    return {
        (result.rule.metric, *result.rule.conditions): result.value for result in judgement.results if not result.kept
    }


async def test_the_words_are_as_good_as_they_were(words: GoldenRun) -> None:
    assert len(words.clips) > 140
    judgement = judge(words, load_profile("local"))
    assert missed(judgement) == {}
    judged = {result.rule.conditions[0] for result in judgement.results if result.value is not None}
    assert judged >= {name for name in HEARD if name != "silence"}


async def test_what_is_heard_as_badly_as_over_the_telephone_is_noticed(words: GoldenRun) -> None:
    worse = [replace(clip, condition="clean") for clip in words.clips if clip.condition == "telephone"]
    assert ("wer", "clean") in missed(judge(replace(words, clips=tuple(worse)), load_profile("local")))


async def test_a_word_where_nobody_speaks_is_noticed(words: GoldenRun) -> None:
    clips = tuple(replace(clip, hypothesis="oh", finals=1) if not clip.reference else clip for clip in words.clips)
    assert ("false_finals", "*") in missed(judge(replace(words, clips=clips), load_profile("local")))


@pytest.mark.alone
async def test_they_come_as_soon_as_they_did() -> None:
    heard = only(load_set(GOLDEN), ("clean", "fast", "digits", "names"))
    result = await run(sampled(heard, IN_REAL_TIME, seed=1), RunPlan(pace="realtime", concurrency=2))
    judgement = judge(result, load_profile("local"))
    latencies = [judged for judged in judgement.results if judged.rule.metric.endswith("_ms")]
    assert len(latencies) >= 2
    assert all(judged.value is not None and judged.kept for judged in latencies), latencies
