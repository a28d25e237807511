"""The Riva codec by golden files, by round trip, and field by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from asr import wire
from asr.audio import AudioFormat, Encoding
from asr.engine import Features, Model, agree
from asr.errors import ASRError, Code
from asr.events import Event, Final, FinalReason, Partial, Progress, Word
from asr.options import Diarization, Endpointing, Options, Phrase
from asr.riva_codec import (
    ResponseReader,
    ResponseWriter,
    config_rows,
    options_from,
    read_models,
    read_recognize,
    recognize_config,
    streaming_config,
    wire_language,
    write_recognize,
)
from asr.riva_codec.requests import boost_for
from asr.riva_proto import asr as pb
from asr.utterances import UtteranceCounter

GOLDEN = Path(__file__).parent.parent / "golden" / "riva"


def load(path: Path) -> tuple[dict[str, Any], Options]:
    case = json.loads(path.read_text("utf-8"))
    chosen = dict(case["options"])
    if chosen.pop("diarization", False):
        chosen["diarization"] = Diarization()
    return case, Options(**chosen)


def cases(folder: str) -> list[Any]:
    found = sorted((GOLDEN / folder).glob("*.json"))
    assert found
    return [pytest.param(path, id=path.stem) for path in found]


def take(reader: ResponseReader, step: dict[str, Any]) -> list[Event]:
    match next(iter(step)):
        case "response":
            message = json_format.ParseDict(step["response"], pb.StreamingRecognizeResponse())
            return reader.read(message, step.get("sent_ms"))
        case "finalize":
            reader.finalize(step["finalize"])
            return []
        case "stop":
            reader.stop(step["stop"])
            return []
        case "settled":
            return reader.settled()
        case "expire":
            return reader.expire()
        case _:
            return reader.end()


@pytest.mark.parametrize("path", cases("read"))
def test_responses_become_events(path: Path) -> None:
    case, options = load(path)
    reader = ResponseReader(options)
    events = [wire.encode(event) for step in case["steps"] for event in take(reader, step)]
    assert events == case["events"]


@pytest.mark.parametrize("path", cases("write"))
def test_events_become_responses(path: Path) -> None:
    case, options = load(path)
    writer = ResponseWriter(options)
    written = []
    for message in case["events"]:
        event = wire.decode(message)
        assert event is not None
        response = writer.write(event)
        written.append(None if response is None else json_format.MessageToDict(response))
    assert written == case["responses"]


LETTERS = st.text("abcdé", min_size=1, max_size=5)


@st.composite
def talks(draw: st.DrawFn) -> list[Event]:
    """Any number of utterances as a Riva would tell them, with the progress that each result shows."""
    counter = UtteranceCounter()
    events: list[Event] = []
    now = 0
    for _ in range(draw(st.integers(0, 4))):
        start, words = now, []
        for text in draw(st.lists(LETTERS, min_size=1, max_size=4)):
            now += draw(st.integers(1, 3000))
            words.append(Word(text, now - 1, now, confidence_raw=draw(st.sampled_from([None, -1.78, 0.1]))))
            partial = counter.partial(
                " ".join(w.text for w in words),
                start,
                now,
                stability=draw(st.sampled_from([None, 0.1, 0.9])),
            )
            assert partial is not None
            events += [partial, Progress(now)]
        if draw(st.booleans()):
            eager = counter.partial(counter.last_text, start, now, stability=1.0, eager_eou=True)
            assert eager is not None
            events.append(eager)
        final = counter.final(
            " ".join(w.text for w in words),
            words[0].start_ms,
            words[-1].end_ms,
            reason=FinalReason.ENDPOINT,
            words=tuple(words),
            confidence_raw=draw(st.sampled_from([None, -0.25])),
            language=draw(st.sampled_from([None, "en-US"])),
        )
        events.append(final)
        now = final.end_ms
    return events


@given(talks())
def test_what_is_written_reads_as_the_same(events: list[Event]) -> None:
    writer, reader = ResponseWriter(Options()), ResponseReader(Options())
    responses = [writer.write(event) for event in events]
    read = [
        e
        for r in responses
        if r is not None
        for e in reader.read(pb.StreamingRecognizeResponse.FromString(r.SerializeToString()))
    ]
    assert read == events


FULL = Options(
    language="en-US",
    model="parakeet-rnnt",
    punctuate=True,
    verbatim=True,
    profanity_filter=True,
    diarization=Diarization(3),
    phrases=(Phrase("a", 0.2, 4.0), Phrase("b", 0.2, 4.0), Phrase("c", 0.0, -2.5)),
    endpointing=Endpointing(
        silence_ms=800, eager_ms=320, start_ms=300, start_threshold=0.2, stop_threshold=0.98, eager_threshold=0.0
    ),
    max_alternatives=4,
    upstream_options={"get_vad_probabilities": "true"},
    request_id="r",
)


def test_options_survive_the_wire() -> None:
    config = streaming_config(FULL)
    assert [(list(c.phrases), c.boost) for c in config.config.speech_contexts] == [(["a", "b"], 4.0), (["c"], -2.5)]
    options, fmt = options_from(config.config, partials=config.interim_results, request_id="r")
    assert options == FULL
    assert fmt == AudioFormat(Encoding.PCM_S16LE, 16_000, 1)


def test_what_is_not_said_is_not_sent() -> None:
    config = recognize_config(Options(words=False, endpointing=Endpointing(silence_ms=400)))
    assert {f.name for f, _ in config.ListFields()} == {
        "encoding",
        "sample_rate_hertz",
        "audio_channel_count",
        "max_alternatives",
        "endpointing_config",
    }
    assert [f.name for f, _ in config.endpointing_config.ListFields()] == ["stop_history"]
    assert not streaming_config(Options(partials=False)).interim_results


def test_verbatim_is_the_spoken_form() -> None:
    assert [recognize_config(Options(verbatim=v)).verbatim_transcripts for v in (None, False, True)] == [
        False,
        False,
        True,
    ]


def test_speaker_labels_need_words() -> None:
    config = recognize_config(Options(words=False, diarization=Diarization()))
    assert config.enable_word_time_offsets
    assert config.diarization_config.max_speaker_count == 0
    assert options_from(config)[0].diarization == Diarization(None)


def test_manual_endpointing_is_the_longest_pause() -> None:
    assert recognize_config(Options(endpointing=Endpointing(manual=True))).endpointing_config.stop_history == 60_000


@pytest.mark.parametrize(
    ("model", "phrase", "weight"),
    [
        ("parakeet-ctc-1.1b", Phrase("a", 0.5), 50.0),
        ("parakeet-rnnt-1.1b", Phrase("a", 0.5), 1.0),
        ("Nemotron-asr-streaming", Phrase("a", 1.0), 2.0),
        ("", Phrase("a", 0.5), 1.0),
        ("parakeet-ctc-1.1b", Phrase("a", 0.5, raw_boost=-3.0), -3.0),
    ],
)
def test_boosts_are_on_the_decoders_scale(model: str, phrase: Phrase, weight: float) -> None:
    assert boost_for(phrase, model) == weight


def test_an_empty_config_asks_for_nothing() -> None:
    options, fmt = options_from(pb.RecognitionConfig())
    assert options == Options(words=False)
    assert fmt == AudioFormat(Encoding.AUTO, None, 1)


def test_sentinels_of_older_clients_are_unset() -> None:
    config = pb.RecognitionConfig()
    target = config.endpointing_config
    target.start_history = target.stop_history = -1
    target.stop_history_eou = 0
    target.start_threshold = -1
    assert options_from(config)[0].endpointing is None
    config.speech_contexts.add(phrases=["", " ", "word"], boost=10)
    assert options_from(config)[0].phrases == (Phrase("word", 0.5, 10.0),)


@pytest.mark.parametrize(
    ("number", "encoding"),
    [(0, "auto"), (1, "pcm_s16le"), (2, "flac"), (3, "mulaw"), (4, "ogg_opus"), (20, "alaw")],
)
def test_encodings(number: int, encoding: str) -> None:
    config = pb.RecognitionConfig(encoding=number, sample_rate_hertz=8000, audio_channel_count=2)
    assert options_from(config)[1] == AudioFormat(Encoding(encoding), 8000, 2)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("encoding", 99, Code.BAD_AUDIO),
        ("max_alternatives", -1, Code.BAD_REQUEST),
        ("max_alternatives", 21, Code.BAD_REQUEST),
        ("sample_rate_hertz", 12, Code.BAD_REQUEST),
        ("audio_channel_count", 99, Code.BAD_REQUEST),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: int, code: Code) -> None:
    with pytest.raises(ASRError) as caught:
        options_from(pb.RecognitionConfig(**{field: value}))
    assert caught.value.code is code


def test_recordings() -> None:
    words = (Word("one", 100, 400), Word("two", 500, 900))
    finals = [Final(0, 1, "one two", 100, 900, words), Final(1, 1, "three", 900, 2000)]
    response = write_recognize(finals, Options(request_id="r"), 2500)
    assert [r.alternatives[0].transcript for r in response.results] == ["one two ", "three "]
    assert response.id.value == "r"
    one, two, progress = read_recognize(response, Options(), 2500)
    assert isinstance(one, Final)
    assert (one.text, one.words, one.reason) == ("one two", words, FinalReason.STOP)
    assert isinstance(two, Final)
    assert (two.utterance, two.start_ms, two.end_ms) == (1, 900, 2500)
    assert progress == Progress(2500)


def test_a_recording_without_words_still_has_a_result() -> None:
    response = write_recognize([], Options(), 700)
    assert [a.transcript for r in response.results for a in r.alternatives] == [""]
    assert read_recognize(response, Options(), 700) == [Progress(700)]


def row(name: str, **parameters: str) -> Any:
    return pb.RivaSpeechRecognitionConfigResponse.Config(model_name=name, parameters=parameters)


def test_models_are_merged_by_name() -> None:
    response = pb.RivaSpeechRecognitionConfigResponse(
        model_config=[
            row("off", type="offline", language_code="en-US"),
            row("both", type="offline", language_code="en-US"),
            row("both", type="online", language_code="en-US"),
            row("flags", streaming="True", offline="False", language_code="de-DE, fr-FR"),
            row("bare"),
        ]
    )
    models = read_models(response, prefer="flags")
    assert [(m.name, m.languages, m.streaming, m.offline) for m in models] == [
        ("flags", ("multi", "de-DE", "fr-FR"), True, False),
        ("both", ("en-US",), True, True),
        ("bare", ("multi",), True, True),
        ("off", ("en-US",), False, True),
    ]
    assert read_models(pb.RivaSpeechRecognitionConfigResponse()) == ()


def test_a_row_for_each_use() -> None:
    rows = config_rows([Model("m", ("en-US",)), Model("s", ("de-DE", "fr-FR"), offline=False)])
    assert [(r.model_name, r.parameters["type"], r.parameters["language_code"]) for r in rows.model_config] == [
        ("m", "online", "en-US"),
        ("m", "offline", "en-US"),
        ("s", "online", "de-DE,fr-FR"),
    ]
    assert dict(rows.model_config[1].parameters) == {
        "type": "offline",
        "language_code": "en-US",
        "streaming": "False",
        "offline": "True",
        "sample_rate": "16000",
    }
    again = read_models(rows)
    assert [(m.name, m.streaming, m.offline) for m in again] == [("m", True, True), ("s", True, False)]


def test_the_language_is_left_to_a_model_that_finds_out() -> None:
    listed = pb.RivaSpeechRecognitionConfigResponse(
        model_config=[row("list", language_code="en-US,es-US"), row("multi", language_code="multi")]
    )
    by_list, by_word = read_models(listed)
    agreed = agree(Options(), [by_list], features=Features()).options.language
    assert wire_language(agreed, by_list) == ""
    assert wire_language("es-US", by_list) == "es-US"
    assert wire_language("multi", by_word) == "multi"
    assert wire_language("multi", None) == ""


def test_partials_of_a_writer_never_claim_the_end() -> None:
    response = ResponseWriter(Options()).write(Partial(0, 1, "a", 0, 100, stability=1.0))
    (event, _) = ResponseReader(Options()).read(response)
    assert isinstance(event, Partial)
    assert not event.eager_eou
