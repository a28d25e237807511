"""Pooled figures: what is added up, what is left out, and when there is an interval."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evaluation.calibration import World, made_up
from evaluation.results import ClipResult, ErrorCounts, GoldenRun, PartErrors, Timings
from evaluation.summary import block_of, pool, summarize


def clip(
    name: str = "clean/one",
    *,
    words: int = 10,
    errors: int = 1,
    words_of: ErrorCounts | None = None,
    **other: object,
) -> ClipResult:
    made = ClipResult(
        id=name,
        condition=name.partition("/")[0],
        reference="ten words of " + name.rpartition("/")[2] if words else "",
        hypothesis="heard",
        audio_ms=4_000,
        words=ErrorCounts(hits=words - errors, substitutions=errors) if words else ErrorCounts(insertions=errors),
        chars=ErrorCounts(hits=50 - errors, deletions=errors),
        finals=1,
        realtime=True,
    )
    if words_of is not None:
        made = replace(made, words=words_of)
    return replace(made, **other)  # type: ignore[arg-type]


def clips(count: int, condition: str = "clean", **other: object) -> list[ClipResult]:
    return [clip(f"{condition}/{index}", **other) for index in range(count)]  # type: ignore[arg-type]


def test_a_rate_is_all_errors_over_all_words_and_not_a_mean_of_rates() -> None:
    row = pool([clip(words=10, errors=10), clip("clean/two", words=90, errors=0)], "clean")
    assert (row.wer.value, row.wer.count) == (0.1, 100)
    assert (row.cer.value, row.cer.count) == (0.1, 100)
    assert (row.clips, row.audio_ms, row.condition) == (2, 8_000, "clean")


def test_words_of_a_failed_clip_are_deleted_and_its_latencies_are_none() -> None:
    fast = Timings(first_partial_ms=1.0, final_ms=(1.0,), partial_words=9, revised_words=0)
    broken = clip("clean/two", errors=0, outcome="disconnected", timings=fast)
    row = pool([clip(errors=0, timings=replace(fast, first_partial_ms=300.0, revised_words=3)), broken], "clean")
    assert (row.failed, row.wer.value, row.cer.value) == (1, 0.5, 0.5)
    assert (row.first_partial_p50_ms.value, row.first_partial_p50_ms.count) == (300.0, 1)
    assert (row.revised.value, row.revised.count) == (pytest.approx(1 / 3), 9)


def test_a_failed_clip_that_heard_too_much_has_its_words_missed_and_none_inserted() -> None:
    noisy = clip(outcome="timeout", words=10, errors=0)
    row = pool([replace(noisy, words=ErrorCounts(hits=10, insertions=40))], "clean")
    assert row.wer.value == 1.0


def test_percentiles_are_of_all_values_of_all_clips() -> None:
    one = clip(timings=Timings(first_text_ms=100.0, word_partial_ms=(1.0, 2.0, 3.0), final_ms=(400.0, 600.0)))
    two = clip(
        "clean/two", timings=Timings(word_partial_ms=(4.0, 5.0), final_ms=(800.0,), partial_gap_ms=(90.0, 110.0))
    )
    row = pool([one, two], "clean")
    assert (row.word_partial_p50_ms.value, row.word_partial_p50_ms.count) == (3.0, 5)
    assert row.word_partial_p95_ms.value == pytest.approx(4.8)
    assert (row.final_p50_ms.value, row.final_p95_ms.value) == (600.0, pytest.approx(780.0))
    assert (row.first_text_p50_ms.value, row.first_text_p95_ms.value) == (100.0, 100.0)
    assert (row.partial_gap_p50_ms.value, row.partial_gap_p50_ms.count) == (100.0, 2)
    assert (row.first_partial_p50_ms.value, row.first_partial_p50_ms.count) == (100.0, 1)


def test_nobody_gains_by_showing_no_partials() -> None:
    shown = [clip(f"clean/{index}", timings=Timings(first_partial_ms=200.0, first_text_ms=500.0)) for index in range(9)]
    hidden = clip("clean/late", timings=Timings(first_text_ms=4_000.0))
    row = pool([*shown, hidden, hidden], "clean")
    assert row.first_partial_p95_ms.value == pytest.approx(4_000.0)
    assert row.first_partial_p95_ms.count == 11


def test_the_sentences_of_a_joined_clip_are_drawn_one_by_one_and_its_failure_is_one() -> None:
    def joined(*errors: int, outcome: str = "ok") -> ClipResult:
        parts = tuple(
            PartErrors(
                f"clean/{at}", "ten words of " + str(at), ErrorCounts(10 - each, each), ErrorCounts(50 - each, each)
            )
            for at, each in enumerate(errors)
        )
        counts = ErrorCounts(10 * len(errors) - sum(errors), sum(errors))
        return clip("long/all", words=1, errors=0, words_of=counts, parts=parts, outcome=outcome)

    row = pool([joined(1, 2, 3, 0, 1, 2)], "long")
    assert (row.wer.value, row.wer.count, row.clips) == (9 / 60, 60, 1)
    assert row.wer.interval is not None
    assert row.wer.interval.low < 9 / 60 < row.wer.interval.high
    failed = pool([joined(1, 2, 3, 0, 1, 2, outcome="timeout")], "long")
    assert (failed.wer.value, failed.wer.interval) == (1.0, None)
    same = pool([joined(1, 2, 3, 0, 1, 2), *clips(6)], "all")
    apart = pool([joined(1, 2, 3, 0, 1, 2), *(clip(f"clean/other_{index}") for index in range(6))], "all")
    assert same.wer.value == apart.wer.value
    assert same.wer.interval != apart.wer.interval  # a sentence and its place in the joined clip are one


def test_what_is_heard_in_silence_is_a_false_final_and_an_insertion() -> None:
    silent = [clip("silence/zeros", words=0, errors=3, finals=2), clip("silence/hiss", words=0, errors=0, finals=0)]
    row = pool(silent, "silence")
    assert (row.false_finals, row.wer.value, row.wer.interval) == (2, None, None)
    both = pool([*silent, clip(errors=1, finals=4)], "all")
    assert (both.false_finals, both.wer.value) == (2, 0.4)


def test_speed_is_of_the_clips_that_were_not_streamed_in_real_time() -> None:
    row = pool([clip(elapsed_ms=5_000.0), clip("clean/two", realtime=False, elapsed_ms=500.0)], "clean")
    assert (row.speed.value, row.speed.count) == (8.0, 1)
    assert pool([clip(elapsed_ms=5_000.0)], "clean").speed.value is None
    assert pool([clip(realtime=False, elapsed_ms=0.0)], "clean").speed.value is None
    # What was streamed, and not the clip alone: the silence after it took its time, too.
    with_tail = pool([clip(elapsed_ms=2_000.0, realtime=False, sent_ms=6_000)], "clean")
    assert with_tail.speed.value == 3.0


def test_intervals_need_sentences_and_values() -> None:
    timed = Timings(first_partial_ms=200.0, final_ms=(500.0,))
    few, some, many = (pool(clips(count, timings=timed), "clean") for count in (4, 71, 72))
    assert (few.wer.interval, few.final_p50_ms.interval) == (None, None)
    assert some.wer.interval is not None
    assert some.final_p50_ms.interval is not None
    assert (some.final_p95_ms.interval, some.first_partial_p95_ms.interval) == (None, None)
    assert many.final_p95_ms.interval is not None


def test_a_sentence_under_several_conditions_is_one() -> None:
    assert block_of(clip("clean/brother")) == block_of(clip("noise_10db/brother"))
    assert block_of(clip("a/1", reference="this")) != block_of(clip("b/1", reference="that"))
    noisy = [clip(f"{condition}/{i}", errors=i) for condition in ("clean", "noise", "music") for i in range(4)]
    assert pool(noisy, "all").wer.interval is None


def test_a_run_has_a_row_per_condition_in_the_set_s_order_and_one_over_all() -> None:
    run = made_up(World(sentences=6, conditions=3), seed=1)
    shuffled = GoldenRun(run.info, (run.clips[-1], *run.clips[:-1]))
    summary = summarize(shuffled)
    assert [row.condition for row in summary.conditions] == ["condition_2", "condition_0", "condition_1"]
    assert (summary.all.condition, summary.all.clips) == ("all", 18)
    assert summary.all.wer.count == sum(row.wer.count for row in summary.conditions)
    assert summarize(GoldenRun(run.info, ())).all.wer.value is None
