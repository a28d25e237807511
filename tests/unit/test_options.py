"""Options are checked once, where they are made, and wishes in keywords become the same options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields

import pytest

from asr.errors import ASRError, Code
from asr.options import Diarization, Endpointing, Options, Phrase
from asr.wishes import Wishes, to_options


@pytest.mark.parametrize(
    ("make", "param"),
    [
        (lambda: Phrase(" "), "phrases"),
        (lambda: Phrase("riva", 1.1), "phrases"),
        (lambda: Phrase("riva", -0.1), "phrases"),
        (lambda: Diarization(0), "diarization.max_speakers"),
        (lambda: Diarization(10**30), "diarization.max_speakers"),
        (lambda: Endpointing(silence_ms=0), "endpointing.silence_ms"),
        (lambda: Endpointing(eager_ms=60_001), "endpointing.eager_ms"),
        (lambda: Endpointing(start_threshold=1.5), "endpointing.start_threshold"),
        (lambda: Options(max_alternatives=0), "max_alternatives"),
        (lambda: Options(max_alternatives=21), "max_alternatives"),
        (lambda: Options(phrases=(Phrase("a"),) * 5001), "phrases"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(make: Callable[[], object], param: str) -> None:
    with pytest.raises(ASRError) as caught:
        make()
    assert (caught.value.code, caught.value.param) == (Code.BAD_REQUEST, param)


def test_the_bounds_themselves_are_fine() -> None:
    Options(max_alternatives=20, phrases=(Phrase("a", 0.0), Phrase("b", 1.0)))
    Endpointing(silence_ms=1, eager_ms=60_000, stop_threshold=0.0, eager_threshold=1.0)
    Diarization(1)


def test_nothing_said_is_the_default() -> None:
    assert to_options(None, None, {}) == Options()


def test_options_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Options().language = "de"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Options().upstream_options["a"] = "b"  # type: ignore[index]


def test_every_option_can_be_wished_for() -> None:
    # Channels are what the audio says; what becomes of them, `stereo`. A recording is one by the call that is made.
    assert set(Wishes.__annotations__) | {"partials", "channels", "recording"} == {
        field.name for field in fields(Options)
    }


def test_wishes_become_options() -> None:
    wishes: Wishes = {
        "language": "de-DE",
        "phrases": ["riva", Phrase("nim", 0.9)],
        "diarization": True,
        "endpointing": Endpointing(silence_ms=300),
        "upstream_options": {"a": "b"},
    }
    assert to_options(None, False, wishes) == Options(
        language="de-DE",
        partials=False,
        phrases=(Phrase("riva"), Phrase("nim", 0.9)),
        diarization=Diarization(),
        endpointing=Endpointing(silence_ms=300),
        upstream_options={"a": "b"},
    )


def test_wishes_are_laid_over_options() -> None:
    base = Options(language="de-DE", words=False, partials=False, diarization=Diarization(2))
    assert to_options(base, None, {"words": True}) == Options("de-DE", partials=False, diarization=Diarization(2))
    assert to_options(base, True, {"diarization": False}).diarization is None
    assert to_options(base, True, {"diarization": Diarization(4)}).diarization == Diarization(4)
    assert to_options(base, True, {}).partials


def test_a_keyword_that_does_not_exist_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="no keyword 'langauge'; there are language"):
        to_options(None, None, {"langauge": "de"})  # type: ignore[typeddict-unknown-key]
