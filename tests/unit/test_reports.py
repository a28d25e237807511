"""Reports: well-formed, self-contained, complete; hostile texts stay text, and empty runs do not break them."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pytest

from evaluation.compare import Comparison, Difference, compare, disagreements
from evaluation.figures import between, duration, milliseconds, percent, revised, written
from evaluation.profiles import Judgement, Profile, Rule, RuleResult, judge, load_profile
from evaluation.report import comparison_page, golden_page
from evaluation.report_parts import rule_of, rule_of_all
from evaluation.results import GoldenRun, Timings
from evaluation.statistics import Interval
from evaluation.summary import Figure, Summary, summarize
from evaluation.wording import LONG, compared, marked
from html_reading import Read, assert_self_contained, read
from load.knee import recommend
from load.report import load_page
from load.summary import LeakVerdict, Slo, Sweep
from sample_runs import HOSTILE, clip_result, golden_run, hostile_run, load_row, run_info, sweep

SAID = HOSTILE.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def checked(page: str) -> Read:
    seen = read(page)
    assert_self_contained(seen)
    return seen


@pytest.fixture(scope="module")
def run() -> GoldenRun:
    return golden_run(each=5)


@pytest.fixture(scope="module")
def summary(run: GoldenRun) -> Summary:
    return summarize(run)


@pytest.fixture(scope="module")
def judgement(run: GoldenRun) -> Judgement:
    return judge(run, load_profile("riva"))


@pytest.fixture(scope="module")
def golden(run: GoldenRun, summary: Summary, judgement: Judgement) -> Read:
    return checked(golden_page(run, summary, judgement))


@pytest.fixture(scope="module")
def one() -> GoldenRun:
    """One clip of each condition."""
    return golden_run(each=1)


def difference(metric: str = "wer", condition: str = "all", **changes: object) -> Difference:
    told: dict[str, object] = {
        "metric": metric, "condition": condition, "a": 0.1, "b": 0.13, "difference": 0.03,
        "interval": Interval(0.01, 0.05), "p_value": 0.004, "margin": 0.005, "detectable": 0.02, "worse": True,
        "better": False, "clips": 40,
    }  # fmt: skip
    return Difference(**{**told, **changes})  # type: ignore[arg-type]


def comparison(*differences: Difference, notes: tuple[str, ...] = ()) -> Comparison:
    return Comparison(run_info(), run_info(), 0.05, differences, notes)


# A golden run


def test_every_figure_of_the_summary_is_in_the_report(golden: Read, summary: Summary) -> None:
    for row in (*summary.conditions, summary.all):
        assert row.condition in golden.text
        assert duration(row.audio_ms) in golden.text
        for name in (field.name for field in fields(row)):
            figure = getattr(row, name)
            if isinstance(figure, Figure) and figure.value is not None:
                assert written(name, figure.value) in golden.text, (row.condition, name)
                assert between(name, figure.interval) in golden.text, (row.condition, name)


def test_every_rule_is_told_with_its_limit_and_verdict(golden: Read, judgement: Judgement) -> None:
    text = golden.text
    assert "✕ Missed" in text
    for result in judgement.results:
        assert written(result.rule.metric, result.rule.limit) in text
        assert written(result.rule.metric, result.value) in text
    assert text.count("✕ missed") == sum(not result.kept for result in judgement.results)


def test_a_rule_that_measures_nothing_says_so(one: GoldenRun) -> None:
    rule = Rule("wer", ("nowhere",), 0.1)
    judgement = Judgement(Profile("p", "", (rule,)), (RuleResult(rule, None, None, 0, kept=True),))
    text = read(golden_page(one, summarize(one), judgement)).text
    assert "nothing to measure" in text
    assert "No clip tells anything about the 1 limit of the profile “p”." in text
    assert "! Not measured" in text
    assert "✓ Kept" not in text


def judged(run: GoldenRun, *rules: Rule) -> Judgement:
    return judge(run, Profile("p", "", rules))


def test_what_was_kept_is_told_beside_what_could_not_be_measured(one: GoldenRun) -> None:
    judgement = judged(one, Rule("wer", ("nowhere",), 0.1), Rule("wer", ("*",), 1.0), Rule("failed", ("*",), 9))
    text = read(golden_page(one, summarize(one), judgement)).text
    assert "All 2 limits of the profile “p” were kept; 1 could not be measured." in text
    assert "✓ Kept" in text


def test_the_missed_limits_come_first(one: GoldenRun) -> None:
    judgement = judged(one, Rule("failed", ("*",), 9), Rule("wer", ("*",), 0.0))
    text = read(golden_page(one, summarize(one), judgement)).text
    assert text.index("✕ missed") < text.index("✓ kept")


def test_the_limit_of_a_bar_is_that_of_the_rule_that_is_most_about_its_condition(run: GoldenRun) -> None:
    rules = (
        Rule("wer", ("*",), 0.01),
        Rule("wer", ("noise_*", "music"), 0.02),
        Rule("wer", ("noise_1*",), 0.03),
        Rule("wer", ("noise_10db", "clean"), 0.04),
        Rule("wer", ("noise_10db",), 0.05),
        Rule("cer", ("fast",), 0.06),
    )
    judgement = judged(run, *rules)

    def limit(condition: str) -> float | None:
        found = rule_of(judgement, "wer", condition)
        return found and found.rule.limit

    assert limit("noise_10db") == 0.05
    assert limit("clean") == 0.04
    assert limit("noise_15db") == 0.03
    assert limit("noise_5db") == limit("music") == 0.02
    assert limit("fast") is limit("all") is None
    whole = rule_of_all(judgement, "wer")
    assert whole is not None
    assert whole.rule.limit == 0.01
    assert rule_of_all(judgement, "cer") is rule_of(None, "wer", "clean") is None


def test_a_condition_is_above_its_limit_only_where_its_rule_was_missed(run: GoldenRun, summary: Summary) -> None:
    worst = max(row.wer.value or 0 for row in summary.conditions)
    pooled = summary.all.wer.value
    assert pooled is not None
    assert pooled < worst
    between_both = (pooled + worst) / 2
    for rules, said in (
        ([Rule("wer", ("*",), between_both)], 0),
        ([Rule("wer", ("*_*", "*[!_]*"), between_both)], 0),  # all of them together, by patterns: kept
        ([Rule("wer", (row.condition,), 9.0) for row in summary.conditions] + [Rule("wer", ("*",), 0.0)], 1),
        ([Rule("wer", ("noise_0db",), 0.0)], 1),
    ):
        text = read(golden_page(run, summary, judged(run, *rules))).text
        shown = text[: text.index("Errors as the noise rises")]
        assert len(set(re.findall(r"[\d.]+ % \(above its limit\)", shown))) == said, rules


def test_words_shown_where_nobody_speaks_are_counted(one: GoldenRun) -> None:
    shown = Timings(partial_words=3, revised_words=3)
    clips = [replace(clip, timings=shown) if clip.id == "silence/0" else clip for clip in one.clips]
    run = GoldenRun(one.info, tuple(clips))
    assert "3 of 3" in read(golden_page(run, summarize(run), None)).text
    assert revised(None, 0, said=0) == "–"
    assert revised(0.5, 4, said=2) == "50.0 %"


def test_a_machine_with_too_much_to_do_is_told(one: GoldenRun) -> None:
    busy = GoldenRun(replace(one.info, cores=2, load_average=7.25), one.clips)
    assert "load average up to 7.2 on 2 cores" in read(golden_page(busy, summarize(busy), None)).text
    assert "load average" not in read(golden_page(one, summarize(one), None)).text


def test_without_a_profile_there_is_no_verdict(run: GoldenRun, summary: Summary) -> None:
    text = read(golden_page(run, summary, None)).text
    assert "✓ Kept" not in text
    assert "✕ Missed" not in text
    assert "Limits of" not in text


def test_the_charts_are_there_with_their_limits(golden: Read) -> None:
    for words in ("Word error rate by condition", "Errors as the noise rises", "95 % by 300 ms", "95 % by 800 ms"):
        assert words in golden.text
    assert sum(label.startswith("Word error rate: clean ") for label in golden.values("svg", "aria-label")) == 1


def test_the_snr_curve_needs_two_levels_of_noise() -> None:
    clips = tuple(clip for clip in golden_run(each=2).clips if clip.condition in ("clean", "noise_10db"))
    run = GoldenRun(run_info(), clips)
    assert "as the noise rises" not in read(golden_page(run, summarize(run), None)).text


def test_how_it_was_measured_is_told(golden: Read) -> None:
    info = run_info()
    for words in (info.target, info.model, info.set_fingerprint, info.normalizer, info.machine, "driver: 550.90"):
        assert words in golden.text
    assert "2026-03-02 09:14 UTC" in golden.text


def test_all_clips_are_there_and_the_worst_come_first(golden: Read, run: GoldenRun) -> None:
    for clip in run.clips:
        assert clip.id in golden.text
    assert golden.text.index("disconnected") > golden.text.index("The worst clips")
    assert "The connection broke after 1.4 s." in golden.text


def test_a_sender_that_was_late_is_named(one: GoldenRun) -> None:
    late = GoldenRun(one.info, (replace(one.clips[0], late_ms=900.0), *one.clips[1:]))
    assert "This machine sent 1 clip late, by up to 900 ms" in read(golden_page(late, summarize(late), None)).text


def test_hostile_texts_of_a_run_stay_text() -> None:
    run = hostile_run()
    seen = checked(golden_page(run, summarize(run), judge(run, load_profile("riva"))))
    assert seen.text.count("<script>alert('x')</script>") > 12
    assert SAID in seen.text


@pytest.mark.parametrize(
    "clips", [(), (clip_result("a", "silence", "", ""),), (clip_result("a", "clean", "word", ""),)]
)
def test_runs_of_nothing_do_not_break_the_report(clips: tuple[object, ...]) -> None:
    run = GoldenRun(run_info(labels={}), clips)  # type: ignore[arg-type]
    seen = checked(golden_page(run, summarize(run), judge(run, load_profile("local"))))
    assert "no latency can be told" in seen.text


# Word by word


def words(markup: str, tag: str) -> list[str]:
    return re.findall(rf"<{tag}[^>]*>([^<]*)</{tag}>", markup)


def test_words_left_out_added_and_replaced_are_marked_apart() -> None:
    made = marked("the quick brown fox jumps", "the quick crown fox happily jumps")
    assert words(made, "mark") == ["crown"]
    assert words(made, "ins") == ["happily"]
    assert words(marked("the quick fox", "the fox"), "del") == ["quick"]
    assert read(made).values("mark", "title") == ["said: brown"]


def test_equal_texts_have_no_marks_and_silence_is_said() -> None:
    assert marked("Hello, World.", "hello world") == "hello world"
    assert read(compared("", [("heard", "")])).text.split() == ["said", "nothing", "heard", "nothing"]


def test_long_stretches_without_an_error_are_shortened() -> None:
    reference = " ".join(["word"] * (LONG + 50) + ["wrong"] + ["word"] * 3)
    made = read(marked(reference, reference.replace("wrong", "right"))).text
    assert "… 194 words as said …" in made
    assert made.endswith("right word word word")
    whole = compared(reference, [("heard", reference)])
    assert read(whole).tags.count("details") == 1
    assert f"{LONG + 54} words" in whole


# A comparison


def test_a_comparison_tells_verdict_figures_power_and_words() -> None:
    a, b = golden_run(seed=1, each=3), golden_run(seed=2, each=3, harm=2.5, model="other")
    found = compare(a, b, samples=50)
    seen = checked(comparison_page(a, b, found, disagreements(a, b)))
    assert ("✕ B is worse" in seen.text) == found.worse
    for row in found.differences:
        if row.metric != "failed":
            assert written(row.metric, row.a) in seen.text
            assert written(row.metric, row.b) in seen.text
    for note in found.notes:
        assert re.sub(r"\s+", " ", note) in seen.text
    assert "A heard" in seen.text
    assert "parakeet-1.1b-en-US-streaming" in seen.text


@pytest.mark.parametrize(("detectable", "said"), [(None, True), (0.02, False)])
def test_a_gate_that_cannot_tell_what_it_finds_says_so(one: GoldenRun, detectable: float | None, said: bool) -> None:
    rows = (difference(detectable=detectable), difference("final_p50_ms", a=400.0, difference=-0.3, detectable=40.0))
    text = checked(comparison_page(one, one, comparison(*rows), ())).text
    assert ("How large a change of the word error rate would be found cannot be told" in text) == said
    assert "±0 ms" in text
    assert "−0 ms" not in text


def test_worse_and_better_figures_are_named_with_their_change(one: GoldenRun) -> None:
    later = difference("final_p95_ms", a=700.0, b=650.0, difference=-50.0, interval=None, margin=70.0, worse=False,
                       better=True, detectable=None, p_value=0.99)  # fmt: skip
    text = read(comparison_page(one, one, comparison(difference(), later), ())).text
    assert "B is worse than A: word error rate (+3.00 points)." in text
    assert "It is better in final, p95 (−50 ms)." in text
    assert "+1.00 to +5.00 points" in text
    assert "0.004" in text
    assert "A true loss of 2.00 points in word error rate" in text
    assert "✓ better" in text


def test_what_is_not_worse_is_said_to_be_not_worse(one: GoldenRun) -> None:
    text = read(comparison_page(one, one, comparison(difference(worse=False)), ())).text
    assert "✓ B is not worse" in text
    assert "Both heard the same words in every clip." in text


def test_hostile_texts_of_a_comparison_stay_text() -> None:
    a, b = hostile_run(), hostile_run()
    shown = comparison(difference(), difference(condition=HOSTILE), notes=(HOSTILE,))
    pair = disagreements(a, GoldenRun(b.info, tuple(replace(clip, hypothesis=f"no {HOSTILE}") for clip in b.clips)))
    assert len(pair) == 2
    seen = checked(comparison_page(a, b, shown, pair))
    assert SAID in seen.text


def test_runs_without_anything_in_common_do_not_break_the_comparison() -> None:
    empty = GoldenRun(run_info(), ())
    assert "nothing in common" in checked(comparison_page(empty, empty, comparison(), ())).text


# A load run


def test_every_row_and_figure_of_a_sweep_is_in_the_report() -> None:
    measured = sweep()
    seen = checked(load_page(measured))
    assert measured.recommendation.sentence in seen.text
    for row in measured.rows:
        assert written("wer", row.wer.value) in seen.text
        assert f"{row.throughput:,.1f}" in seen.text
        assert (
            f"{row.first_partial_p50_ms:,.0f} / {row.first_partial_p95_ms:,.0f} / {row.first_partial_p99_ms:,.0f}"
            in seen.text
        )
        assert f"{row.final_p50_ms:,.0f} / {row.final_p95_ms:,.0f} / {row.final_p99_ms:,.0f}" in seen.text
        assert f"{row.late_p99_ms:,.1f} ms" in seen.text
        for reason in row.missed:
            assert f"{row.sessions:,} sessions: {reason}" in seen.text
    assert measured.failures[0] in seen.text
    assert measured.notes[0] in seen.text
    assert "SLO: p95 within 300 ms" in seen.text
    assert "refused, 400: 322" in seen.text
    assert "The tool itself" in seen.text
    assert "How it refused" in seen.text
    assert "40.2 % 8 ms 100 %" in seen.text


def test_the_knee_is_marked_in_the_charts() -> None:
    measured = sweep()
    with_knee = replace(measured, recommendation=replace(measured.recommendation, knee=200))
    assert "knee at 200" in read(load_page(with_knee)).text
    assert (
        "knee at"
        not in read(load_page(replace(measured, recommendation=replace(measured.recommendation, knee=None)))).text
    )


def test_a_tool_that_was_too_slow_is_said_loudly() -> None:
    text = read(load_page(sweep(limited=True))).text
    assert "With 400 sessions this tool itself was too slow" in text
    assert "! tool late" in text
    assert "too slow (its audio" not in read(load_page(sweep())).text


@pytest.mark.parametrize("leaking", [False, True])
def test_a_soak_shows_its_gauges_and_what_leaks(leaking: bool) -> None:
    measured = sweep(mode="soak", leaking=leaking)
    seen = checked(load_page(measured))
    assert ("✕ Leaks" in seen.text) == leaking
    for verdict in measured.leaks:
        assert verdict.sentence in seen.text
    labels = " ".join(seen.values("svg", "aria-label"))
    for gauge in ("Memory", "Open files", "Tasks", "Threads", "Processor"):
        assert f"{gauge} over time: gateway" in labels


def test_hostile_texts_of_a_sweep_stay_text() -> None:
    measured = sweep(mode="soak")
    info = replace(
        measured.info,
        target=HOSTILE,
        engine=HOSTILE,
        mode=HOSTILE,
        set_name=HOSTILE,
        started_at=HOSTILE,
        machine=HOSTILE,
    )
    leak = LeakVerdict(HOSTILE, "tasks", "stays", 1.0, Interval(0.5, 2.0), 3.0, 9.0, HOSTILE)
    row = replace(
        measured.rows[0], missed=(HOSTILE,), usage=tuple(replace(u, source=HOSTILE) for u in measured.rows[0].usage)
    )
    samples = tuple(replace(sample, source=HOSTILE) for sample in measured.samples)
    hostile = Sweep(info, Slo(), (row, row), measured.recommendation, samples, (leak,), (HOSTILE,), (HOSTILE,))
    assert SAID in checked(load_page(hostile)).text


@pytest.mark.parametrize("complete", [True, False])
def test_sweeps_of_nothing_do_not_break_the_report(complete: bool) -> None:
    empty = Sweep(replace(sweep().info, complete=complete), Slo(), (), recommend((), None))
    seen = checked(load_page(empty))
    assert "Nothing measured" in seen.text
    assert ("was interrupted" in seen.text) == (not complete)


def test_a_row_in_which_nobody_was_admitted_can_be_shown() -> None:
    nothing: dict[str, Any] = {
        name: None for name in (field.name for field in fields(load_row(1))) if re.search(r"_p\d\d_ms$", name)
    }
    nothing.pop("late_p99_ms")
    rows = (load_row(1, **nothing, wer=Figure(None), cer=Figure(None), usage=()), load_row(10, **nothing))
    checked(load_page(Sweep(sweep().info, Slo(), rows, recommend(rows, None))))


# Figures in words


def test_figures_have_units_and_few_digits() -> None:
    assert percent(0.1234) == "12.3 %"
    assert milliseconds(812.4) == "812 ms"
    assert milliseconds(12_340) == "12.3 s"
    assert duration(59_000) == "59 s"
    assert duration(200_000) == "3 min 20 s"
    assert duration(7_500_000) == "2 h 05 min"
    assert between("wer", Interval(0.05, 0.1)) == "5.0 to 10.0 %"
    assert between("final_p95_ms", Interval(900, 11_000)) == "900 ms to 11.0 s"
    assert written("wer", None) == "–"
