"""What a request and an engine agree on."""

from __future__ import annotations

from dataclasses import fields

import pytest

from asr.channels import ChannelsEngine
from asr.config import SilenceGateConfig
from asr.engine import Features, Model, agree, endpoints_of, match_language
from asr.errors import ASRError, Code
from asr.options import Diarization, Endpointing, Options, Phrase
from asr.silence_gate import SilenceGate
from counting import CountingEngine

ENGLISH = Model("parakeet", ("en-US", "en-GB"))
GERMAN = Model("canary", ("de-DE", "en-US"))
ANY = Model("whisper", ("multi",))
NOTHING = Features(end_utterance=False)
ALL = Features(**{field.name: True for field in fields(Features)})


@pytest.mark.parametrize(
    ("wanted", "available", "found"),
    [
        ("", ("en-US", "en-GB"), "en-US"),
        ("", (), ""),
        ("en-GB", ("en-US", "en-GB"), "en-GB"),
        ("EN-us", ("en-US",), "en-US"),
        ("en_US", ("en-US",), "en-US"),
        ("en", ("de-DE", "en-GB", "en-US"), "en-GB"),
        ("en-AU", ("en-US",), None),
        ("de", ("en-US",), None),
        ("pt-BR", ("multi",), "pt-BR"),
        ("pt-BR", ("en-US", "auto"), "pt-BR"),
        ("en", ("multi", "en-US"), "en-US"),
        ("en", ("multi",), "multi"),
        ("auto", ("en-US", "multi"), "multi"),
    ],
)
def test_languages(wanted: str, available: tuple[str, ...], found: str | None) -> None:
    assert match_language(wanted, available) == found


@pytest.mark.parametrize(
    ("options", "model", "language"),
    [
        (Options(), "parakeet", "en-US"),
        (Options(language="de"), "canary", "de-DE"),
        (Options(language="en-us"), "parakeet", "en-US"),
        (Options(language="en", model="canary"), "canary", "en-US"),
        (Options(language="fr-FR"), "whisper", "fr-FR"),
        (Options(model="whisper"), "whisper", "multi"),
    ],
)
def test_model_and_language_are_filled_in(options: Options, model: str, language: str) -> None:
    agreement = agree(options, (ENGLISH, GERMAN, ANY), ALL)
    assert (agreement.model.name, agreement.options.model, agreement.options.language) == (model, model, language)
    assert agreement.warnings == ()


@pytest.mark.parametrize(
    ("options", "models", "code", "param", "names"),
    [
        (Options(), (), Code.UNAVAILABLE, None, []),
        (Options(model="whisper"), (ENGLISH, GERMAN), Code.NOT_FOUND, "model", ["canary", "parakeet"]),
        (Options(language="fr"), (ENGLISH, GERMAN), Code.NOT_FOUND, "language", ["de-DE", "en-GB", "en-US"]),
        (Options(language="de", model="parakeet"), (ENGLISH, GERMAN), Code.NOT_FOUND, "language", ["en-GB", "en-US"]),
    ],
)
def test_what_is_not_there_is_told_what_is(
    options: Options, models: tuple[Model, ...], code: Code, param: str | None, names: list[str]
) -> None:
    with pytest.raises(ASRError) as caught:
        agree(options, models, ALL)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.message.rstrip(".").endswith(", ".join(names))


WISHES = [
    (Options(punctuate=True), "punctuate", "punctuation"),
    (Options(verbatim=False), "verbatim", "written form"),
    (Options(profanity_filter=True), "profanity_filter", "profanity"),
    (Options(diarization=Diarization()), "diarization", "diarization"),
    (Options(phrases=(Phrase("riva"),)), "phrases", "phrases"),
    (Options(max_alternatives=2), "max_alternatives", "alternatives"),
    (Options(endpointing=Endpointing(silence_ms=300)), "endpointing", "endpointing"),
    (Options(upstream_options={"vad.onset": "1"}), "upstream_options", "vad.onset"),
]


@pytest.mark.parametrize(
    ("options", "field", "words"), WISHES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_wish_that_cannot_be_granted_is_left_out_with_a_warning(options: Options, field: str, words: str) -> None:
    agreement = agree(options, (ENGLISH,), NOTHING)
    assert getattr(agreement.options, field) == getattr(Options(), field)
    (warning,) = agreement.warnings
    assert words in warning
    granted = agree(options, (ENGLISH,), ALL)
    assert getattr(granted.options, field) == getattr(options, field)
    assert granted.warnings == ()


@pytest.mark.parametrize(
    ("options", "field", "words"), WISHES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_or_refused_where_the_caller_chose_so(options: Options, field: str, words: str) -> None:
    strict = Options(**{f.name: getattr(options, f.name) for f in fields(Options)} | {"fail_on_unsupported": True})
    with pytest.raises(ASRError, match=words) as caught:
        agree(strict, (ENGLISH,), NOTHING)
    assert (caught.value.code, caught.value.param) == (Code.UNSUPPORTED, field)


def test_wishes_against_something_are_always_granted() -> None:
    options = Options(punctuate=False, verbatim=True)
    assert agree(options, (ENGLISH,), NOTHING).warnings == ()


@pytest.mark.parametrize(
    ("wanted", "features", "left", "params"),
    [
        (Endpointing(silence_ms=300, manual=True), Features(endpointing=True), Endpointing(True, 300), []),
        (
            Endpointing(silence_ms=300, eager_ms=100, eager_threshold=0.5),
            Features(endpointing=True, endpointing_windows=True),
            Endpointing(silence_ms=300),
            ["eager_ms"],
        ),
        (
            Endpointing(eager_ms=100, start_ms=80, stop_threshold=0.5),
            Features(endpointing=True, eager_end=True),
            Endpointing(eager_ms=100),
            ["start_ms", "stop_threshold"],
        ),
        (Endpointing(start_threshold=0.5), Features(endpointing=True), None, ["start_threshold"]),
    ],
)
def test_endpointing_is_granted_field_by_field(
    wanted: Endpointing, features: Features, left: Endpointing | None, params: list[str]
) -> None:
    agreement = agree(Options(endpointing=wanted), (ENGLISH,), features)
    assert agreement.options.endpointing == left
    assert len(agreement.warnings) == len(params)
    assert all(name in warning for name, warning in zip(params, agreement.warnings, strict=True))
    if params:
        with pytest.raises(ASRError) as caught:
            agree(Options(endpointing=wanted, fail_on_unsupported=True), (ENGLISH,), features)
        assert caught.value.param == f"endpointing.{params[0]}"


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_wanted_by_default_is_missed_aloud_and_refuses_nobody(strict: bool) -> None:
    features = Features(partials=False, words=False)
    agreement = agree(Options(fail_on_unsupported=strict), (ENGLISH,), features)
    assert (agreement.options.partials, agreement.options.words) == (False, False)
    assert [("partial" in text, "words" in text) for text in agreement.warnings] == [(True, False), (False, True)]
    assert agree(Options(partials=False, words=False), (ENGLISH,), features).warnings == ()


def test_a_model_for_whole_recordings_has_no_partials() -> None:
    offline = Model("canary", ("en-US",), streaming=False)
    agreement = agree(Options(), (offline,), ALL)
    assert not agreement.options.partials
    assert "partial" in agreement.warnings[0]
    assert not agreement.features.partials


def test_wrappers_tell_of_the_recognizers_behind_them() -> None:
    class Several(CountingEngine):
        def endpoints(self) -> list[dict[str, object]]:
            return [{"name": "a"}]

    gated = SilenceGate(Several(), SilenceGateConfig(), make_voice=lambda: None)  # type: ignore[arg-type, return-value]
    assert endpoints_of(ChannelsEngine(gated)) == [{"name": "a"}]
    assert endpoints_of(ChannelsEngine(CountingEngine())) == []
