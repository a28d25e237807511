"""What `golden` says: which profile, which target, missed limits and power in words."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from asr.config import (
    EngineConfig,
    GatedConfig,
    GatewayConfig,
    LocalConfig,
    MockConfig,
    ResilientConfig,
    RivaConfig,
)
from evaluation.compare import ALPHA, MAX_ALPHA, MIN_ALPHA, Comparison, Difference
from evaluation.profiles import Judgement, Profile, Rule, RuleResult, load_profile
from evaluation.results import RunInfo
from evaluation.statistics import Interval
from evaluation.summary import Figure
from server.commands.exits import Exit, Stop
from server.commands.golden_choice import applies, profile_name, set_folder, target_of
from server.commands.golden_flags import DEFAULT_ALPHA, AlphaFlag, labels
from server.commands.golden_words import bracketed, change, comparison_verdict, findable, pair, verdict

INFO = RunInfo("", "", "", "", "", 100, 1500, 1, "", "", "", "", {})


def difference(metric: str = "wer", a: float = 0.1, detectable: float | None = 0.012, **more: object) -> Difference:
    row: dict[str, object] = {
        "condition": "all",
        "b": a,
        "difference": 0.0,
        "interval": None,
        "p_value": 1.0,
        "margin": 0.005,
        "worse": False,
        "better": False,
        "clips": 200,
    }
    return Difference(metric=metric, a=a, detectable=detectable, **{**row, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "engine", "name"),
    [
        (None, "local", "local"),
        (None, "riva", "riva"),
        (None, "mock", None),
        (None, "gateway", None),
        ("none", "riva", None),
        ("local", "riva", "local"),
        ("mine.toml", "mock", "mine.toml"),
    ],
)
def test_the_profile_is_the_recognizers_unless_one_is_named(given: str | None, engine: str, name: str | None) -> None:
    assert profile_name(given, engine) == name


@pytest.mark.parametrize(
    ("config", "target"),
    [
        (LocalConfig(), "embedded recognizer"),
        (GatedConfig(ResilientConfig((LocalConfig(), LocalConfig()))), "embedded recognizer"),
        (MockConfig(), "mock recognizer"),
        (MockConfig(Path("plans/late.toml")), "mock recognizer, late.toml"),
        (GatewayConfig("https://me:secret@gateway:8443"), "https://gateway:8443"),
        (ResilientConfig((RivaConfig("a:1", metadata=(("k", "secret"),)), RivaConfig("b:2"))), "a:1, b:2"),
    ],
)
def test_the_target_is_named_without_secrets(config: EngineConfig, target: str) -> None:
    assert target_of(config) == target


def test_the_set_of_a_checkout_is_found_from_its_root(tmp_path: Path) -> None:
    with pytest.raises(Stop) as caught:
        set_folder(None, tmp_path)
    assert caught.value.status is Exit.CONFIGURATION
    (tmp_path / "tests" / "golden").mkdir(parents=True)
    assert set_folder(None, tmp_path) == tmp_path / "tests" / "golden"
    assert set_folder(Path("mine"), tmp_path) == Path("mine")


def test_the_command_takes_the_error_rates_that_a_comparison_takes() -> None:
    _, option = get_args(AlphaFlag)
    assert (option.min, option.max) == (MIN_ALPHA, MAX_ALPHA)
    assert DEFAULT_ALPHA == ALPHA


def test_labels_are_pairs() -> None:
    assert labels(["build=1=2", " by = me "]) == {"build": "1=2", "by": "me"}
    for wrong in ("build", "=1", " =1"):
        with pytest.raises(Stop):
            labels([wrong])


def test_figures_are_short() -> None:
    assert bracketed("wer", Interval(0.101, 0.145)) == "[10.1–14.5]"
    assert bracketed("final_p95_ms", Interval(-12.4, 40.0)) == "[-12 to 40]"
    assert bracketed("wer", None) == ""
    assert change("wer", 0.012) == "+1.2 points"
    assert change("final_p95_ms", -45.2) == "-45 ms"
    assert change("failed", 2.0) == "+2"
    assert pair(Figure(211.4), Figure(340.0)) == "211 / 340"
    assert pair(Figure(None), Figure(None)) == "–"


def test_a_verdict_names_what_is_missed_what_is_kept_and_what_was_not_looked_at() -> None:
    missed = RuleResult(Rule("first_partial_p95_ms", ("*",), 300.0), 412.0, Interval(380.0, 450.0), 20, kept=False)
    kept = RuleResult(Rule("false_finals", ("*",), 0.0), 0.0, None, 20, kept=True)
    idle = RuleResult(Rule("wer", ("noise_*", "music"), 0.18), None, None, 0, kept=True)
    profile = Profile("riva", "", ())
    assert verdict(Judgement(profile, (kept, missed, idle))) == [
        "missed: first partial, p95 of all clips is 412 ms [380–450] over 20 clips; riva allows 300 ms",
        "not measured: word error rate of noise_*, music (no clip here tells it)",
        "profile riva: 1 of 2 limits missed, 1 not measured",
    ]
    assert verdict(Judgement(profile, (kept, idle)))[-1] == "profile riva: 1 limit kept, 1 not measured"
    assert (
        verdict(Judgement(profile, (idle,)))[-1]
        == "profile riva: not measured, there is nothing to hold its 1 limit against"
    )
    assert verdict(Judgement(profile, (kept, kept))) == ["profile riva: all 2 limits kept"]


def test_a_comparison_says_what_it_could_have_found() -> None:
    rows = (difference(), difference("final_p95_ms", 400.0, 31.0), difference("cer", 0.05, 0.01))
    assert comparison_verdict(Comparison(INFO, INFO, 0.05, rows, ("odd",))) == [
        "power: with 200 clips it finds, four times of five, a change of +1.2 points of word error rate; "
        "+31 ms of final, p95",
        "note: odd",
        "B is not worse than A (a B that is no worse is called worse in at most 5 % of comparisons)",
    ]
    worse = difference("wer", b=0.14, difference=0.04, interval=Interval(0.02, 0.06), p_value=0.0004, worse=True)
    told = comparison_verdict(Comparison(INFO, INFO, 0.05, (worse,)))
    assert told[0] == "worse: word error rate went from 10.0 % to 14.0 % (+4.0 points [2.0–6.0], p under 0.001)"
    assert told[-1].startswith("B is WORSE than A")


def test_more_than_there_can_be_is_not_found() -> None:
    assert findable(difference("wer", 0.9, 0.3)) is None
    assert findable(difference("failed", 0.0, 26.2, clips=11)) is None
    assert findable(difference("final_p95_ms", 400.0, 900.0)) == 900.0
    (line, *_) = comparison_verdict(Comparison(INFO, INFO, 0.05, (difference(detectable=None),)))
    assert line == "power: 200 clips are too few to find any change for certain"


def test_a_gate_that_cannot_tell_what_it_sees_of_the_words_says_so() -> None:
    rows = (difference(detectable=None), difference("final_p50_ms", 400.0, 40.0))
    line = next(line for line in comparison_verdict(Comparison(INFO, INFO, 0.05, rows)) if line.startswith("power"))
    assert line.endswith("; how large a change of the word error rate it finds cannot be told from them")


def test_what_is_written_as_nothing_has_no_minus() -> None:
    assert change("final_p50_ms", -0.3) == "+0 ms"


def test_a_measured_guard_is_held_against_sets_that_it_knows_alone() -> None:
    guard, targets = load_profile("local"), load_profile("riva")
    assert applies(guard, {"clean", "mine"})
    assert not applies(guard, {"support", "sales"})
    assert not applies(guard, set())
    assert applies(targets, {"support", "sales"})
