"""Limits are read strictly, held against pooled figures, and can be made from a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from asr.errors import ASRError, Code
from evaluation.calibration import Rise, World, made_up
from evaluation.profiles import BUILT_IN, METRICS, Profile, Rule, guard_limits, judge, load_profile, parse_profile
from evaluation.results import ErrorCounts, GoldenRun, Timings

WORLD = World(sentences=40)


def limits(name: str) -> list[tuple[str, tuple[str, ...], float]]:
    return [(rule.metric, rule.conditions, rule.limit) for rule in load_profile(name).rules]


def test_the_built_in_profiles_can_be_read() -> None:
    for name in BUILT_IN:
        profile = load_profile(name)
        assert profile.name == name
        assert profile.about


def test_the_limits_of_riva_are_the_product_s() -> None:
    found = limits("riva")
    assert [(metric, limit) for metric, _, limit in found] == [
        ("wer", 0.12),
        ("wer", 0.18),
        ("first_partial_p95_ms", 300),
        ("final_p95_ms", 800),
        ("false_finals", 0),
        ("failed", 0),
    ]
    assert "clean" in found[0][1]
    assert "noise_*" in found[1][1]


def test_a_profile_of_one_s_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('about = "ours"\n[[rules]]\nmetric = "cer"\nlimit = 0.5\n')
    assert load_profile(str(path)) == Profile("mine", "ours", (Rule("cer", ("*",), 0.5),))
    path.write_text('name = "other"\n[[rules]]\nmetric = "cer"\nlimit = 1\nconditions = ["a", "b_*"]\n')
    assert load_profile(str(path)) == Profile("other", "", (Rule("cer", ("a", "b_*"), 1.0),))


def test_a_profile_that_is_not_there_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ASRError, match=r"no profile 'rvia'.*riva, local") as caught:
        load_profile("rvia")
    assert (caught.value.code, caught.value.param) == (Code.NOT_FOUND, "profile")
    with pytest.raises(ASRError, match="cannot be read"):
        load_profile(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no rules"),
        ("rules = []", "has no rules"),
        ("[[rules]\n", "is no TOML"),
        ("[[rules]]\nmetric = 'wre'\nlimit = 1", "limits 'wre' in rule 1; what can be limited is wer, cer"),
        ("[[rules]]\nlimit = 1", "limits 'None' in rule 1"),
        ("[[rules]]\nmetric = ['wer']\nlimit = 1", "in rule 1; what can be limited"),
        ("[[rules]]\nmetric = 'speed'\nlimit = 1", "limits 'speed'"),
        ("[[rules]]\nmetric = 'wer'\nlimit = 1\n[[rules]]\nmetric = 'wer'\nlimit = -0.1", "limit '-0.1' in rule 2"),
        ("[[rules]]\nmetric = 'wer'\nlimit = true", "limit 'True'"),
        ("[[rules]]\nmetric = 'wer'\nlimit = nan", "limit 'nan'"),
        ("[[rules]]\nmetric = 'wer'\nlimit = inf", "limit 'inf'"),
        ("[[rules]]\nmetric = 'wer'\nlimit = '12 %'", "limit '12 %'"),
        ("[[rules]]\nmetric = 'wer'", "limit 'None'"),
        ("[[rules]]\nmetric = 'wer'\nlimit = 1\nmax = 2", "unknown key 'max' in rule 1; there are metric, conditions"),
        ("limits = 3\n[[rules]]\nmetric = 'wer'\nlimit = 1", "unknown key 'limits'; there are name, about, rules"),
        ("about = 3\n[[rules]]\nmetric = 'wer'\nlimit = 1", "about that is no text"),
        ("[[rules]]\nmetric = 'wer'\nlimit = 1\nconditions = 'clean'", "no list of names"),
        ("[[rules]]\nmetric = 'wer'\nlimit = 1\nconditions = []", "no list of names"),
        ("rules = [1]", "rule 1 that is no table"),
    ],
)
def test_what_cannot_be_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(ASRError) as caught:
        parse_profile(text, "mine")
    assert says in caught.value.message
    assert "'mine'" in caught.value.message
    assert (caught.value.code, caught.value.param) == (Code.BAD_REQUEST, "profile")


def test_every_metric_can_be_judged() -> None:
    profile = Profile("all", "", tuple(Rule(metric, ("*",), 1e9) for metric in METRICS))
    found = judge(made_up(WORLD, seed=1), profile)
    assert found.kept
    assert {result.rule.metric for result in found.results if result.value is None} == {
        "word_partial_p50_ms",
        "word_partial_p95_ms",
        "partial_gap_p50_ms",
        "false_finals",
    }
    assert not found.measured


def test_a_rule_pools_the_conditions_that_match() -> None:
    run = made_up(WORLD, seed=1)
    one, two, both, none = judge(
        run,
        Profile(
            "",
            "",
            tuple(Rule("wer", each, 0.0) for each in (("condition_0",), ("*_1",), ("condition_[01]",), ("noise_*",))),
        ),
    ).results
    assert (one.clips, two.clips, both.clips) == (40, 40, 80)
    assert one.value is not None
    assert two.value is not None
    assert both.value == pytest.approx((one.value + two.value) / 2)
    assert both.interval is not None
    assert both.interval.low < both.value < both.interval.high
    assert not both.kept
    assert (none.value, none.clips, none.kept) == (None, 0, True)


def test_a_limit_is_kept_by_the_figure_that_equals_it_and_missed_by_any_above() -> None:
    run = made_up(WORLD, seed=1)
    (first,) = judge(run, Profile("", "", (Rule("final_p95_ms", ("*",), 1e9),))).results
    assert first.value is not None
    assert judge(run, Profile("", "", (Rule("final_p95_ms", ("*",), first.value),))).kept
    assert not judge(run, Profile("", "", (Rule("final_p95_ms", ("*",), first.value - 0.01),))).kept


def test_a_failed_clip_and_a_word_in_silence_miss_the_limits_of_riva() -> None:
    run = made_up(World(sentences=20, wer=0.05, first_partial_ms=100, final_ms=200), seed=1)
    assert judge(run, load_profile("riva")).kept
    first = run.clips[0]
    broken = GoldenRun(run.info, (replace(first, outcome="error"), *run.clips[1:]))
    silent = replace(
        first, id="silence/hiss", reference="", words=ErrorCounts(), chars=ErrorCounts(), timings=Timings()
    )
    noisy = GoldenRun(run.info, (*run.clips, silent))
    assert missed(broken) == ["failed"]
    assert missed(noisy) == ["false_finals"]


def missed(run: GoldenRun) -> list[str]:
    return [result.rule.metric for result in judge(run, load_profile("riva")).results if not result.kept]


def test_a_guard_is_kept_by_its_own_run_and_its_like_and_missed_by_a_worse_one() -> None:
    guard = parse_profile(guard_limits(made_up(WORLD, seed=1), "mine"), "guard")
    assert guard.name == "mine"
    assert all(judge(made_up(WORLD, seed=seed), guard).kept for seed in range(1, 4))
    slow, deaf = (judge(made_up(WORLD, seed=9, rise=rise), guard) for rise in (Rise(latency_ms=400), Rise(wer=0.2)))
    assert {result.rule.metric for result in slow.results if not result.kept} == {
        "first_partial_p50_ms",
        "first_partial_p95_ms",
        "final_p50_ms",
        "final_p95_ms",
    }
    assert [result.rule.conditions for result in deaf.results if not result.kept] == [
        ("condition_0",),
        ("condition_1",),
        ("*",),
    ]


def test_a_guard_of_few_clips_and_odd_names_can_be_read() -> None:
    run = made_up(World(sentences=3, conditions=1), seed=1)
    odd = tuple(replace(clip, condition='quiet "[a]*"', realtime=False, timings=Timings()) for clip in run.clips)
    strange = GoldenRun(replace(run.info, target="a\nb = 3", machine='"\\'), odd)
    text = guard_limits(strange)
    assert "too few for an interval" in text
    guard = parse_profile(text, "guard")
    assert [rule.metric for rule in guard.rules] == ["wer", "wer", "failed", "false_finals"]
    found = judge(strange, guard)
    assert found.kept
    assert [(result.clips, result.measured) for result in found.results] == [
        (3, True),
        (3, True),
        (3, True),
        (0, False),
    ]


def test_a_limit_that_nothing_was_held_against_was_not_measured() -> None:
    run = made_up(WORLD, seed=1)
    fast = replace(run, clips=tuple(replace(clip, realtime=False, timings=Timings()) for clip in run.clips))
    found = judge(fast, Profile("", "", (Rule("final_p95_ms", ("*",), 1.0), Rule("false_finals", ("*",), 0.0))))
    assert [(result.value, result.clips, result.measured) for result in found.results] == [(None, 0, False)] * 2
    assert found.kept
    assert not found.measured


def test_a_figure_counts_the_clips_that_tell_it() -> None:
    run = made_up(WORLD, seed=1)
    first, second, third, *rest = run.clips
    odd = (
        replace(first, outcome="timeout"),
        replace(second, realtime=False, timings=Timings()),
        replace(third, reference="", words=ErrorCounts(), chars=ErrorCounts(), finals=0),
        *rest,
    )
    metrics = ("wer", "cer", "final_p95_ms", "first_partial_p50_ms", "revised", "false_finals", "failed")
    found = judge(replace(run, clips=odd), Profile("", "", tuple(Rule(metric, ("*",), 1e9) for metric in metrics)))
    assert dict(zip(metrics, (result.clips for result in found.results), strict=True)) == {
        "wer": 79,
        "cer": 79,
        "final_p95_ms": 78,
        "first_partial_p50_ms": 78,
        "revised": 78,
        "false_finals": 1,
        "failed": 80,
    }
