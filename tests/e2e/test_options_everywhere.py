"""Every wish with every engine: it has its effect, or it is missed aloud (a warning, or an error by choice).

`riva` and `gateway` hand wishes on: what they say there must be what was said here. `local` and `mock` grant them
themselves. A wish that is in neither column of the table fails the test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import speech
from asr.config import GatewayConfig, LocalConfig, RivaConfig
from asr.engine import Engine, agree
from asr.engines.gateway import GatewayEngine
from asr.engines.local import LocalEngine
from asr.engines.mock import MockEngine
from asr.engines.riva import RivaEngine
from asr.errors import ASRError, Code
from asr.events import Event, Final, Partial
from asr.mock.plan import load_plan
from asr.options import Diarization, Endpointing, Options, Phrase
from e2e.gateway import running
from e2e.test_grpc_complete import Able
from e2e.test_grpc_face import collect, face

WISHES: dict[str, Options] = {
    "language": Options(language="en"),
    "model": Options(model="?"),
    "partials": Options(partials=False),
    "words": Options(words=False),
    "punctuate": Options(punctuate=True),
    "verbatim": Options(verbatim=False),
    "profanity_filter": Options(profanity_filter=True),
    "diarization": Options(diarization=Diarization(2)),
    "phrases": Options(phrases=(Phrase("two", 0.5), Phrase("five", 1.0))),
    "max_alternatives": Options(max_alternatives=2),
    "endpointing.silence_ms": Options(endpointing=Endpointing(silence_ms=300)),
    "endpointing.manual": Options(endpointing=Endpointing(manual=True)),
    "endpointing.eager_ms": Options(endpointing=Endpointing(eager_ms=200)),
    "endpointing.start_ms": Options(endpointing=Endpointing(start_ms=200)),
    "endpointing.start_threshold": Options(endpointing=Endpointing(start_threshold=0.5)),
    "endpointing.stop_threshold": Options(endpointing=Endpointing(stop_threshold=0.5)),
    "endpointing.eager_threshold": Options(endpointing=Endpointing(eager_threshold=0.5)),
    "upstream_options": Options(upstream_options={"neural_vad.onset": "0.5"}),
}
ELSEWHERE = {"request_id", "traceparent", "fail_on_unsupported", "channels", "recording"}
"""No wishes of what is to be recognized; they have tests of their own."""
WINDOWS = {"endpointing.start_ms", "endpointing.start_threshold", "endpointing.stop_threshold"}

MISSED = {
    "riva": set[str](),
    "gateway": {"max_alternatives", "endpointing.eager_threshold", *WINDOWS},
    "local": {
        *("punctuate", "verbatim", "profanity_filter", "diarization", "phrases", "max_alternatives"),
        *("endpointing.eager_ms", "endpointing.eager_threshold", "upstream_options", *WINDOWS),
    },
    "mock": {
        *("verbatim", "profanity_filter", "phrases", "endpointing.eager_threshold", "upstream_options", *WINDOWS),
    },
}
MOCK_PLAN = load_plan(
    {
        "hears": "speech",
        "loop": False,
        "utterances": [
            {"words": ["One,", "two."], "alternatives": ["won too"], "speaker": 0},
            {"words": ["Three,", "four."], "alternatives": ["free for"], "speaker": 1},
        ],
    }
)


@asynccontextmanager
async def behind(kind: str, able: Able, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine of that kind; `able` is what those listen with that hand on."""
    match kind:
        case "riva":
            async with face(able) as target:
                engine: Engine = RivaEngine(RivaConfig(endpoint=target))
                yield engine
                await engine.aclose()
        case "gateway":
            async with running(able, tmp_path) as addresses:
                engine = GatewayEngine(GatewayConfig(url=addresses.url))
                yield engine
                await engine.aclose()
        case "local":
            engine = LocalEngine(LocalConfig(workers=1, silence_ms=700))
            yield engine
            await engine.aclose()
        case _:
            yield MockEngine(MOCK_PLAN)


def test_no_option_is_forgotten() -> None:
    known = {name.split(".")[0] for name in WISHES} | ELSEWHERE
    assert {field.name for field in fields(Options)} == known
    inner = {name.split(".")[1] for name in WISHES if name.startswith("endpointing.")}
    assert {field.name for field in fields(Endpointing)} == inner


@pytest.mark.parametrize("kind", MISSED)
async def test_what_an_engine_cannot_do_is_a_warning_or_an_error(kind: str, tmp_path: Path) -> None:
    async with behind(kind, Able(), tmp_path) as engine:
        models, features = await engine.models(), engine.features
        for name, wish in WISHES.items():
            asked = replace(wish, model=models[0].name) if wish.model else wish
            agreement = agree(asked, models, features)
            if name not in MISSED[kind]:
                assert agreement.warnings == (), name
                continue
            assert len(agreement.warnings) == 1, name
            assert getattr(agreement.options, name.split(".")[0]) == getattr(Options(), name.split(".")[0]), name
            with pytest.raises(ASRError) as caught:
                agree(replace(asked, fail_on_unsupported=True), models, features)
            assert caught.value.code is Code.UNSUPPORTED
            assert (caught.value.param or "").startswith(name.split(".")[0])


@pytest.mark.parametrize("kind", ["riva", "gateway"])
async def test_what_is_handed_on_means_the_same_there(kind: str, tmp_path: Path) -> None:
    able = Able()
    async with behind(kind, able, tmp_path) as engine:
        for name, wish in WISHES.items():
            if name in MISSED[kind]:
                continue
            asked = replace(wish, model="able-1") if wish.model else wish
            await collect(engine, speech.chunks(bytes(6400)), asked)
            there, attribute = able.asked[-1], name.split(".")[0]
            assert getattr(there, attribute) == handed_on(kind, name, asked), name


def handed_on(kind: str, name: str, asked: Options) -> Any:
    """What must arrive there."""
    if name == "language":
        return "en-US"
    if kind == "riva":
        match name:
            case "verbatim":
                return None  # Riva's false, which a face reads as "not said": the written form in both cases
            case "phrases":
                # Our scale is mapped for the decoder (one of CTC's, by the model's name), and stays as it is then.
                return (Phrase("two", 1.0, 50.0), Phrase("five", 1.0, 100.0))
            case "endpointing.manual":
                return Endpointing(silence_ms=60_000)
    return getattr(asked, name.split(".")[0])


async def heard(engine: Engine, options: Options, *clips: str) -> list[Event]:
    pause = speech.silence(500)
    audio = b"".join(speech.pcm(name) + pause for name in clips) + speech.silence(1_000)
    return await collect(engine, speech.chunks(audio), options)


def finals(events: list[Event]) -> list[Final]:
    return [event for event in events if isinstance(event, Final) and event.text]


async def test_what_the_embedded_recognizer_grants(tmp_path: Path) -> None:
    async with behind("local", Able(), tmp_path) as engine:
        plain = await heard(engine, Options(), "greeting", "greeting")
        few = await heard(engine, Options(words=False, partials=False, language="en"), "greeting", "greeting")
        early = await heard(engine, Options(endpointing=Endpointing(silence_ms=300)), "greeting", "greeting")
        manual = await heard(engine, Options(endpointing=Endpointing(manual=True)), "greeting", "greeting")
    assert finals(plain)[0].words
    assert any(isinstance(event, Partial) for event in plain)
    assert not any(isinstance(event, Partial) for event in few)
    assert not any(final.words for final in finals(few))
    assert finals(few)[0].language == "en-US"
    assert len(finals(early)) > len(finals(manual)) == 1


async def test_what_the_scripted_recognizer_grants(tmp_path: Path) -> None:
    async with behind("mock", Able(), tmp_path) as engine:

        async def said(options: Options) -> list[Event]:
            return await heard(engine, options, "greeting", "greeting")

        plain = await said(Options(punctuate=True))
        assert [f.text for f in finals(plain)][:1] == ["One, two."]
        assert {w.speaker for f in finals(plain) for w in f.words} == {None}
        speakers = await said(Options(diarization=Diarization(2)))
        assert len({w.speaker for f in finals(speakers) for w in f.words}) == 2
        readings = await said(Options(max_alternatives=2))
        assert finals(readings)[0].alternatives[0].text == "won too"
        few = await said(Options(words=False, partials=False))
        assert not any(isinstance(event, Partial) for event in few)
        assert not any(final.words for final in finals(few))
        eager = await said(Options(endpointing=Endpointing(eager_ms=200)))
        assert any(isinstance(event, Partial) and event.eager_eou for event in eager)
        assert not any(isinstance(event, Partial) and event.eager_eou for event in plain)
        manual = await said(Options(endpointing=Endpointing(manual=True)))
        assert len(finals(manual)) == 1
        early = await said(Options(endpointing=Endpointing(silence_ms=100)))
        assert len(finals(early)) >= len(finals(plain)) > 1
