"""Options ↔ Riva's recognition configs.

Riva's fields that are easy to get wrong: `verbatim_transcripts` is the spoken form (false asks for written
numbers), the endpointing fields tell "unset" from 0, `max_alternatives` 0 means 1, and the weight of a boosted
phrase has another scale for each kind of decoder.
"""

from __future__ import annotations

from itertools import groupby

from asr.audio import AudioFormat, Encoding
from asr.errors import ASRError, Code
from asr.options import Diarization, Endpointing, Options, Phrase
from asr.riva_codec.floats import short
from asr.riva_proto import Message
from asr.riva_proto import asr as pb
from asr.riva_proto import audio as audio_pb

MANUAL_SILENCE_MS = 60_000
"""Riva cannot leave endpointing out; `Endpointing.manual` asks for this pause, longer than a stream may be idle."""

CTC_BOOST = 100.0
"""Riva's weight for boost 1.0 on CTC decoders, whose useful range is 20 to 100."""
TRANSDUCER_BOOST = 2.0
"""Riva's weight for boost 1.0 on RNNT and TDT decoders, whose useful range is 0.5 to 2."""
PROTO_BOOST = 20.0
"""The weight that counts as boost 1.0 when a client's own number is read; the range named in the proto."""

_TRANSDUCERS = ("rnnt", "tdt", "nemotron", "transducer")

_ENCODINGS: dict[int, Encoding] = {
    audio_pb.ENCODING_UNSPECIFIED: Encoding.AUTO,
    audio_pb.LINEAR_PCM: Encoding.PCM_S16LE,
    audio_pb.FLAC: Encoding.FLAC,
    audio_pb.MULAW: Encoding.MULAW,
    audio_pb.OGGOPUS: Encoding.OGG_OPUS,
    audio_pb.ALAW: Encoding.ALAW,
}

FIELDS = {
    "model": "model",
    "language": "language_code",
    "punctuate": "enable_automatic_punctuation",
    "verbatim": "verbatim_transcripts",
    "profanity_filter": "profanity_filter",
    "diarization": "diarization_config",
    "diarization.max_speakers": "diarization_config.max_speaker_count",
    "phrases": "speech_contexts",
    "max_alternatives": "max_alternatives",
    "endpointing": "endpointing_config",
    "endpointing.start_ms": "endpointing_config.start_history",
    "endpointing.silence_ms": "endpointing_config.stop_history",
    "endpointing.eager_ms": "endpointing_config.stop_history_eou",
    "endpointing.start_threshold": "endpointing_config.start_threshold",
    "endpointing.stop_threshold": "endpointing_config.stop_threshold",
    "endpointing.eager_threshold": "endpointing_config.stop_threshold_eou",
    "upstream_options": "custom_configuration",
    "audio.sample_rate_hz": "sample_rate_hertz",
    "channels": "audio_channel_count",
    "encoding": "encoding",
    "audio": "audio",
    "streaming_config": "streaming_config",
}
"""What errors name (`ASRError.param`) → the field of Riva's messages."""

_ENDPOINTING_INTS = (("start_ms", "start_history"), ("silence_ms", "stop_history"), ("eager_ms", "stop_history_eou"))
_ENDPOINTING_FLOATS = (
    ("start_threshold", "start_threshold"),
    ("stop_threshold", "stop_threshold"),
    ("eager_threshold", "stop_threshold_eou"),
)


def recognize_config(options: Options, *, sample_rate_hz: int = 16_000) -> Message:
    """The `RecognitionConfig` for raw mono PCM16 of that rate."""
    config = pb.RecognitionConfig(
        encoding=audio_pb.LINEAR_PCM,
        sample_rate_hertz=sample_rate_hz,
        audio_channel_count=1,
        language_code=options.language,
        model=options.model,
        max_alternatives=options.max_alternatives,
        profanity_filter=options.profanity_filter,
        # Speaker labels travel on words.
        enable_word_time_offsets=options.words or options.diarization is not None,
        enable_automatic_punctuation=bool(options.punctuate),
        verbatim_transcripts=bool(options.verbatim),
    )
    for weight, phrases in groupby(options.phrases, key=lambda phrase: boost_for(phrase, options.model)):
        config.speech_contexts.add(phrases=[phrase.text for phrase in phrases], boost=weight)
    if options.diarization is not None:
        config.diarization_config.enable_speaker_diarization = True
        if options.diarization.max_speakers is not None:
            config.diarization_config.max_speaker_count = options.diarization.max_speakers
    if options.endpointing is not None:
        _write_endpointing(options.endpointing, config)
    for key, value in options.upstream_options.items():
        config.custom_configuration[key] = value
    return config


def streaming_config(options: Options, *, sample_rate_hz: int = 16_000) -> Message:
    """The `StreamingRecognitionConfig` for raw mono PCM16 of that rate."""
    config = recognize_config(options, sample_rate_hz=sample_rate_hz)
    return pb.StreamingRecognitionConfig(config=config, interim_results=options.partials)


def boost_for(phrase: Phrase, model: str) -> float:
    """Riva's own weight of a phrase.

    `raw_boost` as it is; else 0..1 onto 0..2 for transducer decoders and 0..100 for others, judged by the
    model's name. Without a name 0..2: too weak does nothing, too strong puts words in people's mouths.
    """
    if phrase.raw_boost is not None:
        return phrase.raw_boost
    name = model.lower()
    transducer = not name or any(kind in name for kind in _TRANSDUCERS)
    return phrase.boost * (TRANSDUCER_BOOST if transducer else CTC_BOOST)


def options_from(config: Message, *, partials: bool = True, request_id: str = "") -> tuple[Options, AudioFormat]:
    """What a client's `RecognitionConfig` asks for, and how it says its audio is encoded.

    Raises:
        ASRError: `bad_request` for values out of range, `bad_audio` for an encoding nobody knows.
    """
    speakers = config.diarization_config
    options = Options(
        language=config.language_code.strip(),
        model=config.model.strip(),
        partials=partials,
        words=config.enable_word_time_offsets or speakers.enable_speaker_diarization,
        # False is also what a client sends that never thought of it.
        punctuate=True if config.enable_automatic_punctuation else None,
        verbatim=True if config.verbatim_transcripts else None,
        profanity_filter=config.profanity_filter,
        diarization=(
            Diarization(speakers.max_speaker_count if speakers.max_speaker_count > 0 else None)
            if speakers.enable_speaker_diarization
            else None
        ),
        phrases=_read_phrases(config),
        endpointing=_read_endpointing(config.endpointing_config) if config.HasField("endpointing_config") else None,
        max_alternatives=config.max_alternatives or 1,
        upstream_options=dict(config.custom_configuration),
        request_id=request_id,
    )
    return options, _read_format(config)


def _write_endpointing(endpointing: Endpointing, config: Message) -> None:
    target = config.endpointing_config
    for ours, theirs in (*_ENDPOINTING_INTS, *_ENDPOINTING_FLOATS):
        value = getattr(endpointing, ours)
        if value is not None:
            setattr(target, theirs, value)
    if endpointing.manual:
        target.stop_history = MANUAL_SILENCE_MS


def _read_endpointing(source: Message) -> Endpointing | None:
    # Older clients send -1 or 0 for what they leave unset.
    found: dict[str, int | float] = {}
    for ours, theirs in _ENDPOINTING_INTS:
        if source.HasField(theirs) and getattr(source, theirs) > 0:
            found[ours] = getattr(source, theirs)
    for ours, theirs in _ENDPOINTING_FLOATS:
        if source.HasField(theirs) and getattr(source, theirs) >= 0:
            found[ours] = short(getattr(source, theirs))
    return Endpointing(**found) if found else None  # type: ignore[arg-type]  # the two tables pair names and types


def _read_phrases(config: Message) -> tuple[Phrase, ...]:
    found = []
    for context in config.speech_contexts:
        weight = short(context.boost)
        boost = min(max(weight / PROTO_BOOST, 0.0), 1.0)
        found += [Phrase(text, boost, raw_boost=weight) for text in context.phrases if text.strip()]
    return tuple(found)


def _read_format(config: Message) -> AudioFormat:
    encoding = _ENCODINGS.get(config.encoding)
    if encoding is None:
        names = ", ".join(name for name, number in audio_pb.AudioEncoding.items() if number in _ENCODINGS)
        raise ASRError(
            Code.BAD_AUDIO, f"Audio encoding {config.encoding} is not known. Known here: {names}.", param="encoding"
        )
    return AudioFormat(encoding, config.sample_rate_hertz or None, config.audio_channel_count or 1)
