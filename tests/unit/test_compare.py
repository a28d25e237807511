"""The release gate: its false alarms and its power are counted on runs of which the truth is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asr.errors import ASRError, Code
from evaluation.calibration import Rise, World, made_up, rehearse
from evaluation.compare import DECIDING, Comparison, Difference, compare, disagreements
from evaluation.recording import Outcome
from evaluation.results import ClipResult, ErrorCounts, GoldenRun, PartErrors, Timings
from evaluation.samples import margin_of
from evaluation.statistics import binomial_bounds

WORLD = World(sentences=60, conditions=1)
STEADY = World(sentences=60, conditions=2, steadiness=1.0)
DRAWS = 400


def test_a_hundred_null_runs_give_no_more_false_alarms_than_stated() -> None:
    found = rehearse(WORLD, 100, samples=DRAWS)
    # Were the true rate above the stated 5 %, so few alarms would come less than once in forty.
    assert found.bounds == binomial_bounds(found.alarms, 100)
    assert found.alarms <= 5, found
    assert found.bounds.low <= 0.05


def test_a_larger_alpha_gives_more_alarms_and_no_more_than_stated() -> None:
    # The gate does not keep its promise by never raising an alarm.
    found = rehearse(WORLD, 100, metrics=("wer",), alpha=0.4, samples=DRAWS)
    assert 20 <= found.alarms <= 50, found


def test_a_rise_as_large_as_is_claimed_to_be_found_is_found_four_times_in_five() -> None:
    claimed = rehearse(WORLD, 20, metrics=("wer",)).detectable["wer"]
    assert 0.02 < claimed < 0.05
    found = rehearse(WORLD, 100, metrics=("wer",), rise=Rise(wer=claimed), seed=1000)
    # 80 ± 8, three standard deviations of the count being 12.
    assert 68 <= found.alarms <= 92, found


@pytest.mark.parametrize("metric", ["first_partial_p50_ms", "final_p95_ms"])
def test_a_latency_as_large_as_is_claimed_to_be_found_is_found_four_times_in_five(metric: str) -> None:
    world = World(sentences=100, conditions=1)
    claimed = rehearse(world, 20, metrics=(metric,), samples=DRAWS).detectable[metric]
    found = rehearse(world, 50, metrics=(metric,), rise=Rise(latency_ms=claimed), samples=DRAWS, seed=1000)
    assert found.alarms >= 33, found


def test_a_rise_of_three_points_is_found_at_the_power_stated_and_a_large_one_always() -> None:
    world = World(sentences=130, conditions=1, wer=0.1)
    assert rehearse(world, 20, metrics=("wer",)).detectable["wer"] < 0.03
    assert rehearse(world, 60, metrics=("wer",), rise=Rise(wer=0.03)).alarms >= 48
    assert rehearse(world, 20, metrics=("wer",), rise=Rise(wer=0.1)).alarms == 20


def test_a_tenth_of_a_second_is_always_found() -> None:
    latencies = ("first_partial_p50_ms", "final_p50_ms")
    assert rehearse(WORLD, 20, metrics=latencies, rise=Rise(latency_ms=100), samples=DRAWS).alarms == 20


def test_a_recognizer_that_always_hears_the_same_is_told_apart_by_little() -> None:
    a = made_up(STEADY, seed=1)
    same = wer_of(compare(a, made_up(STEADY, seed=2)))
    assert (same.difference, same.p_value, same.worse, same.interval) == (0, 1, False, None)
    assert same.detectable is not None
    assert 0.005 < same.detectable < 0.01
    assert any("same words in every clip" in note for note in compare(a, a).notes)
    found = rehearse(STEADY, 40, metrics=("wer",), rise=Rise(wer=0.01), samples=DRAWS)
    assert found.alarms >= 34


def test_what_gets_better_is_called_so_and_nothing_else() -> None:
    better = compare(made_up(WORLD, seed=1, rise=Rise(0.1, 200)), made_up(WORLD, seed=2), samples=DRAWS)
    assert not better.worse
    assert {row.metric for row in better.differences if row.better} == {
        "wer",
        "cer",
        "first_partial_p50_ms",
        "first_partial_p95_ms",
        "final_p50_ms",
        "final_p95_ms",
    } - ({"first_partial_p95_ms", "final_p95_ms"} - {row.metric for row in better.differences if row.better})
    worse = compare(made_up(WORLD, seed=2), made_up(WORLD, seed=1, rise=Rise(0.1, 200)), samples=DRAWS)
    assert worse.worse
    assert not any(row.better for row in worse.differences)


def test_what_is_certain_and_below_the_margin_is_not_worse() -> None:
    a = made_up(STEADY, seed=1)
    b = changed(a, lambda clip: replace(clip, timings=replace(clip.timings, final_ms=(clip.timings.final_ms[0] + 15,))))
    row = row_of(compare(a, b), "final_p50_ms")
    assert row.difference == pytest.approx(15)
    assert row.p_value < 0.01
    assert not row.worse


def test_margins_are_half_a_point_two_words_in_a_hundred_and_20_ms_or_a_tenth() -> None:
    assert [margin_of("wer", 0.1), margin_of("cer", 0.1), margin_of("revised", 0.1)] == [0.005, 0.005, 0.02]
    assert [margin_of("final_p95_ms", 100.0), margin_of("final_p95_ms", 700.0)] == [20, 70]
    assert [margin_of("failed", 3), margin_of("false_finals", 3)] == [0, 0]


def test_rows_of_conditions_are_for_reading() -> None:
    a = made_up(World(sentences=30, conditions=2, steadiness=1.0), seed=1)
    b = changed(a, lambda clip: spoiled(clip, 3) if clip.condition == "condition_1" else clip)
    found = compare(a, b, samples=DRAWS)
    by_condition = {row.condition: row for row in found.differences if row.metric == "wer"}
    assert list(by_condition) == ["all", "condition_0", "condition_1"]
    assert by_condition["all"].worse
    assert (by_condition["condition_1"].p_value, by_condition["condition_0"].p_value) == (pytest.approx(0, abs=0.01), 1)
    assert not any(row.worse or row.better for row in found.differences if row.condition != "all")
    # No clip is silent, so nothing can be heard in silence.
    told = [metric for metric in DECIDING if metric != "false_finals"]
    assert [row.metric for row in found.differences[: len(told)]] == told


def test_new_failures_are_named_and_many_of_them_are_worse() -> None:
    a = made_up(STEADY, seed=1)
    two = broken(a, 2)
    found = compare(a, two, samples=DRAWS)
    assert any(
        "2 clips failed in B and not in A: condition_0/sentence_0, condition_0/sentence_1." in n for n in found.notes
    )
    assert (row_of(found, "failed").difference, row_of(found, "failed").worse) == (2, False)
    assert row_of(compare(a, broken(a, 12), samples=DRAWS), "failed").worse
    assert not compare(broken(a, 12), a, samples=DRAWS).worse


def test_a_clip_that_failed_has_no_latencies_to_compare() -> None:
    a = made_up(STEADY, seed=1)
    found = compare(a, broken(a, 2), samples=DRAWS)
    assert [row_of(found, metric).clips for metric in ("first_partial_p50_ms", "final_p95_ms", "wer")] == [
        118,
        118,
        120,
    ]


def test_partials_that_stay_away_make_first_words_late() -> None:
    a = made_up(STEADY, seed=1)
    late = Timings(first_partial_ms=None, first_text_ms=2_000.0, final_ms=(500.0,))
    b = changed(a, lambda clip: replace(clip, partials=0, timings=late))
    found = compare(a, b, samples=DRAWS)
    assert row_of(found, "first_partial_p50_ms").worse
    assert any("no partial in 120 clips in which A did" in note for note in found.notes)


def test_false_finals_are_counted() -> None:
    quiet = [silent(index, 0) for index in range(20)]
    a = made_up(STEADY, seed=1)
    with_quiet = GoldenRun(a.info, (*a.clips, *quiet))
    noisy = GoldenRun(a.info, (*a.clips, *(silent(index, 1) for index in range(20))))
    row = row_of(compare(with_quiet, noisy, samples=DRAWS), "false_finals")
    assert (row.a, row.b, row.worse) == (0, 20, True)


def test_one_giant_clip_does_not_decide_and_is_told() -> None:
    a = made_up(STEADY, seed=1)
    giant = replace(
        a.clips[0], id="long/ten_minutes", condition="long", reference="a story", words=ErrorCounts(hits=1500)
    )
    worse = replace(giant, words=ErrorCounts(hits=1000, deletions=500))
    found = compare(GoldenRun(a.info, (*a.clips, giant)), GoldenRun(a.info, (*a.clips, worse)), samples=DRAWS)
    assert row_of(found, "wer").difference == 0
    assert row_of(found, "wer").clips == 120
    assert any("long/ten_minutes" in note and "0 errors in A, 500 in B, of 1500 words" in note for note in found.notes)
    (long,) = [row for row in found.differences if (row.metric, row.condition) == ("wer", "long")]
    assert long.difference == pytest.approx(1 / 3)


def with_long(run: GoldenRun, spoilt: int = 0, outcome: Outcome = "ok") -> GoldenRun:
    """The run with a clip joined of all its sentences of one condition; so many are lost in it."""
    one = [clip for clip in run.clips if clip.condition == "condition_0"]
    lost = [replace(each, words=ErrorCounts(deletions=each.words.reference)) for each in one[:spoilt]] + one[spoilt:]
    whole = replace(
        one[0],
        id="long/all",
        condition="long",
        reference="a story",
        words=sum((each.words for each in lost), ErrorCounts()),
        parts=tuple(PartErrors(each.id, each.reference, each.words, each.chars) for each in lost),
        outcome=outcome,
        timings=Timings(),
    )
    return replace(run, clips=(*run.clips, whole))


def test_a_collapse_within_a_long_clip_is_found() -> None:
    a = made_up(STEADY, seed=1)
    found = row_of(compare(with_long(a), with_long(a, spoilt=20), samples=DRAWS), "wer")
    assert found.worse
    assert found.clips == 121
    assert not any("left out" in note for note in compare(with_long(a), with_long(a, 20), samples=DRAWS).notes)


def test_a_long_clip_that_failed_failed_once() -> None:
    a = made_up(STEADY, seed=1)
    found = compare(with_long(a), with_long(a, outcome="disconnected"), samples=DRAWS)
    assert not row_of(found, "wer").worse
    assert row_of(found, "failed").difference == 1
    assert any("long/all" in note and "left out" in note for note in found.notes)


def test_a_busy_machine_is_told_and_its_load_makes_it_no_other_machine() -> None:
    a = made_up(STEADY, seed=1)
    calm = replace(a, info=replace(a.info, machine="2 cores; load average up to 0.2", cores=2, load_average=0.2))
    busy = replace(a, info=replace(a.info, machine="2 cores; load average up to 7.3", cores=2, load_average=7.3))
    notes = compare(calm, busy, samples=DRAWS).notes
    assert any("streamed B was busy (load average up to 7.3 on 2 cores)" in note for note in notes)
    assert not any("streamed A was busy" in note or "differ in machines" in note for note in notes)


def test_latencies_of_another_pace_are_not_compared() -> None:
    a = made_up(STEADY, seed=1)
    found = compare(a, changed(a, lambda clip: replace(clip, realtime=False)), samples=DRAWS)
    assert not any(row.metric.endswith("_ms") for row in found.differences)
    assert any("in real time in one run only" in note for note in found.notes)


def test_few_clips_find_nothing_and_say_so() -> None:
    a = made_up(World(sentences=4, conditions=1), seed=1)
    found = compare(a, changed(a, lambda clip: spoiled(clip, 4)), samples=DRAWS)
    assert not found.worse
    assert all(row.detectable is None for row in found.differences)
    assert any("too few clips" in note for note in found.notes)


def test_a_sentence_heard_ten_times_is_one_piece_of_evidence() -> None:
    a = made_up(World(sentences=4, conditions=10, steadiness=1.0), seed=1)
    row = row_of(compare(a, changed(a, lambda clip: spoiled(clip, 4)), samples=DRAWS), "wer")
    assert row.difference > 0.1
    assert (row.clips, row.detectable, row.worse) == (40, None, False)


def test_ten_of_ten_clips_slower_by_the_same_are_enough() -> None:
    # The median of ten moves in steps when single clips are swapped; the shifts of the clips themselves do not.
    a = made_up(World(sentences=10, conditions=1), seed=1)
    a = replace(
        a, clips=tuple(replace(clip, timings=slower(clip.timings, 400.0 * at)) for at, clip in enumerate(a.clips))
    )
    b = changed(a, lambda clip: replace(clip, timings=slower(clip.timings, 300.0)))
    found = {row.metric: row for row in compare(a, b).differences}
    assert found["final_p50_ms"].worse
    assert found["final_p50_ms"].p_value < 0.05
    assert found["final_p50_ms"].difference == pytest.approx(300, abs=1)


def test_one_stream_that_hung_does_not_make_the_median_worse() -> None:
    a = made_up(World(sentences=40, conditions=1), seed=1)
    b = made_up(World(sentences=40, conditions=1), seed=2)
    hung = replace(b, clips=(replace(b.clips[0], timings=slower(b.clips[0].timings, 60_000.0)), *b.clips[1:]))
    for metric in ("final_p50_ms", "first_partial_p50_ms"):
        before = next(row for row in compare(a, b, samples=DRAWS).differences if row.metric == metric)
        after = next(row for row in compare(a, hung, samples=DRAWS).differences if row.metric == metric)
        assert not after.worse
        assert after.p_value == pytest.approx(before.p_value, abs=0.2)


@pytest.mark.parametrize("sentences", [5, 6, 10])
def test_nothing_is_claimed_to_be_found_that_could_not_be(sentences: int) -> None:
    # With 6 sentences no figure of so many can be significant; with 10 more would have to fail than there are.
    a, b = (made_up(World(sentences=sentences, conditions=1), seed=seed) for seed in (1, 2))
    found = {row.metric: row for row in compare(a, b).differences}
    for row in found.values():
        if row.metric in ("wer", "cer", "revised"):
            assert row.detectable is None or row.a + row.detectable <= 1
        if row.metric == "failed":
            assert row.detectable is None or row.detectable <= sentences
        if sentences <= 6:
            assert row.detectable is None, row


def test_the_order_of_the_clips_is_no_matter_and_neither_is_the_side() -> None:
    a, b = made_up(WORLD, seed=1), made_up(WORLD, seed=2, rise=Rise(wer=0.12))
    there, turned = compare(a, b, samples=DRAWS), compare(replace(a, clips=a.clips[::-1]), b, samples=DRAWS)
    back = compare(b, a, samples=DRAWS)
    assert [replace(row, p_value=0) for row in there.differences] == [
        replace(row, p_value=0) for row in turned.differences
    ]
    assert [row.p_value for row in there.differences] == [row.p_value for row in turned.differences]
    assert [row.difference for row in back.differences] == pytest.approx([-row.difference for row in there.differences])
    rates = [row for row in there.differences if row.metric in ("wer", "cer", "revised")]
    assert [row.worse for row in rates] == [
        row.better for row in back.differences if row.metric in ("wer", "cer", "revised")
    ]
    assert rates[0].worse


def slower(timings: Timings, by_ms: float) -> Timings:
    assert timings.first_partial_ms is not None
    return replace(
        timings,
        first_partial_ms=timings.first_partial_ms + by_ms,
        final_ms=tuple(each + by_ms for each in timings.final_ms),
    )


def test_figures_that_cannot_be_significant_cost_the_others_nothing() -> None:
    # Five sentences got worse: one chance in 32, enough for one figure and not for nine.
    a = made_up(World(sentences=60, conditions=1, steadiness=1.0), seed=1)
    b = GoldenRun(a.info, tuple(spoiled(clip, 10) if i < 5 else clip for i, clip in enumerate(a.clips)))
    row = row_of(compare(a, b), "wer")
    assert row.p_value == pytest.approx(1 / 32, abs=0.015)
    assert row.worse


def test_only_clips_with_the_same_text_are_compared() -> None:
    a = made_up(STEADY, seed=1)
    other = replace(a.info, set_fingerprint="other", machine="another", chunk_ms=160)
    changed_text = replace(a.clips[0], reference="another text")
    b = GoldenRun(other, (changed_text, *a.clips[1:], replace(a.clips[1], id="new")))
    found = compare(a, b, samples=DRAWS)
    assert row_of(found, "wer").clips == 119
    notes = " ".join(found.notes)
    assert "The sets differ" in notes
    assert "1 clip of A not compared" in notes
    assert "2 clips of B not compared" in notes
    assert "machines (none; another)" in notes
    assert "chunk lengths (100 ms; 160 ms)" in notes


def test_what_cannot_be_compared_is_refused_in_words() -> None:
    a = made_up(STEADY, seed=1)
    for b, says in (
        (GoldenRun(replace(a.info, normalizer="new/2"), a.clips), r"different rules \(none and new/2\)"),
        (changed(a, lambda clip: replace(clip, id="x" + clip.id)), "no clip in common"),
        (GoldenRun(a.info, ()), "no clip in common"),
    ):
        with pytest.raises(ASRError, match=says) as caught:
            compare(a, b)
        assert caught.value.code is Code.BAD_REQUEST
    for alpha in (0.0, 0.6, -1.0, float("nan")):
        with pytest.raises(ASRError, match=r"between 0\.001 and 0\.5") as caught:
            compare(a, a, alpha=alpha)
        assert caught.value.param == "alpha"


def test_a_small_alpha_can_still_be_told() -> None:
    a = made_up(STEADY, seed=1)
    found = compare(a, made_up(STEADY, seed=2, rise=Rise(wer=0.1)), metrics=("wer",), alpha=0.001, by_condition=False)
    assert found.worse
    assert found.differences[0].p_value <= 0.001


def test_the_same_runs_give_the_same_comparison() -> None:
    a, b = made_up(WORLD, seed=1), made_up(WORLD, seed=2)
    assert compare(a, b, samples=DRAWS) == compare(a, b, samples=DRAWS)


def test_disagreements_are_of_words_and_the_largest_come_first() -> None:
    a = made_up(World(sentences=3, conditions=1, steadiness=1.0), seed=1)
    one, two, three = a.clips
    said = GoldenRun(a.info, tuple(replace(clip, hypothesis="Hello, world!") for clip in a.clips))
    heard = GoldenRun(
        a.info,
        (
            replace(one, hypothesis="hello world"),
            replace(spoiled(two, 1), hypothesis="yellow world"),
            replace(spoiled(three, 4), hypothesis="something else"),
        ),
    )
    found = disagreements(said, heard)
    assert [each.id for each in found] == [three.id, two.id]
    assert (found[0].a, found[0].b) == ("Hello, world!", "something else")
    assert found[0].b_errors - found[0].a_errors == 4
    assert found[0].condition == "condition_0"


def changed(run: GoldenRun, change: object) -> GoldenRun:
    return GoldenRun(run.info, tuple(change(clip) for clip in run.clips))  # type: ignore[operator]


def spoiled(clip: ClipResult, more: int) -> ClipResult:
    return replace(clip, words=replace(clip.words, insertions=clip.words.insertions + more))


def broken(run: GoldenRun, count: int) -> GoldenRun:
    return GoldenRun(run.info, tuple(replace(c, outcome="error") if i < count else c for i, c in enumerate(run.clips)))


def silent(index: int, finals: int) -> ClipResult:
    nothing = ErrorCounts(insertions=finals)
    return ClipResult(f"silence/{index}", "silence", "", "", 3_000, nothing, nothing, finals=finals, realtime=True)


def row_of(comparison: Comparison, metric: str) -> Difference:
    return next(row for row in comparison.differences if (row.metric, row.condition) == (metric, "all"))


def wer_of(comparison: Comparison) -> Difference:
    return row_of(comparison, "wer")
