"""The session of a NIM's realtime API: what a client may set, and what that asks of the recognizer.

Clients send the whole object back that they got when the session was made, their own wishes in it. So a default must
ask for nothing: `false`, zeros and empty texts mean that the client did not say. Unknown fields are kept, and shown
again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from asr.audio import AudioFormat, Encoding
from asr.errors import ASRError, Code, quoted
from asr.options import Diarization, Endpointing, Options, Phrase
from server.prompts import phrases_of

Json = dict[str, Any]

OBJECT = "realtime.transcription_session"
PCM16 = "pcm16"
FILE = "none"
"""`input_audio_format` of a client that sends a file: its header, in the first bytes, tells what it is."""
DEFAULT_RATE_HZ = 16_000
FULL_BOOST = 20.0
"""The weight of a boosted phrase that counts as 1.0 on our scale, as on the gRPC face."""
MAX_BOOST = 1_000_000
MAX_CUSTOM = 100
MAX_SPEAKERS = 1_000

_ENDPOINTING_MS = (("start_ms", "start_history"), ("silence_ms", "stop_history"), ("eager_ms", "stop_history_eou"))
_ENDPOINTING_SHARES = (
    ("start_threshold", "start_threshold"),
    ("stop_threshold", "stop_threshold"),
    ("eager_threshold", "stop_threshold_eou"),
)


def new_session(session_id: str) -> Json:
    """The session before a client has asked for anything. Model and language are the recognizer's own."""
    return {
        "id": session_id,
        "object": OBJECT,
        "modalities": ["text"],
        "input_audio_format": PCM16,
        "input_audio_transcription": {"language": "", "model": "", "prompt": ""},
        "input_audio_params": {"sample_rate_hz": DEFAULT_RATE_HZ, "num_channels": 1},
        "recognition_config": {
            "max_alternatives": 1,
            "enable_automatic_punctuation": False,
            "enable_word_time_offsets": False,
            "enable_profanity_filter": False,
            "enable_verbatim_transcripts": False,
        },
        "speaker_diarization": {"enable_speaker_diarization": False, "max_speaker_count": 8},
        "word_boosting": {"enable_word_boosting": False, "word_boosting_list": []},
        "endpointing_config": {
            "start_history": 0,
            "start_threshold": 0,
            "stop_history": 0,
            "stop_threshold": 0,
            "stop_history_eou": 0,
            "stop_threshold_eou": 0,
        },
        "client_secret": None,
    }


def merged(session: Mapping[str, Any], wanted: Mapping[str, Any]) -> Json:
    """The session with the fields of `wanted` put over its own, one level deep; a section that is null stays."""
    result = dict(session)
    for name, value in wanted.items():
        known = result.get(name)
        if isinstance(known, Mapping):
            if isinstance(value, Mapping):
                result[name] = {**known, **value}
            elif value is not None:
                raise _bad(f"session.{name} must be an object.", f"session.{name}")
        else:
            result[name] = value
    return result


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a session asks for.

    Attributes:
        options: of the recognizer.
        format: how the client's audio is encoded.
        is_file: whether it sends a file, header and all.
        words: whether it wants to see words with times.
        warnings: a sentence for each wish that means less than it says.
    """

    options: Options
    format: AudioFormat
    is_file: bool
    words: bool
    warnings: tuple[str, ...] = ()


def read_session(session: Mapping[str, Any]) -> Wishes:
    """What the whole session asks for.

    Raises:
        ASRError: `bad_request`, with `param`, where a field has a value that it cannot have.
    """
    heard = _Section(session, "input_audio_transcription")
    config = _Section(session, "recognition_config")
    params = _Section(session, "input_audio_params")
    format_name = session.get("input_audio_format") or PCM16
    if format_name not in (PCM16, FILE):
        text = f"There is no input_audio_format {quoted(str(format_name))}. Formats: {PCM16}, or {FILE} for a file."
        raise _bad(text, "session.input_audio_format")
    is_file = format_name == FILE
    rate_hz = params.whole("sample_rate_hz") or DEFAULT_RATE_HZ
    channels = params.whole("num_channels") or 1
    diarization = _diarization(session)
    words = config.flag("enable_word_time_offsets") or diarization is not None
    warnings = []
    if channels > 1 and not is_file:
        warnings.append(f"The {channels} channels are mixed into one: results of this dialect name no channel.")
    prompt = heard.text("prompt")
    phrases = (*_boosted(session), *(Phrase(text) for text in phrases_of(prompt)))
    if prompt and not phrases:
        warnings.append("The prompt names no word that could be favoured; it was left out.")
    options = Options(
        language=heard.text("language"),
        model=heard.text("model"),
        words=words,
        punctuate=True if config.flag("enable_automatic_punctuation") else None,
        verbatim=True if config.flag("enable_verbatim_transcripts") else None,
        profanity_filter=config.flag("enable_profanity_filter"),
        diarization=diarization,
        phrases=phrases,
        endpointing=_endpointing(session),
        # The answers of this dialect have room for one reading.
        max_alternatives=1,
        upstream_options=_custom(config),
    )
    if config.whole("max_alternatives") > 1:
        warnings.append("One reading of each utterance is given: results of this dialect have no alternatives.")
    fmt = AudioFormat(Encoding.AUTO, None) if is_file else AudioFormat(Encoding.PCM_S16LE, rate_hz, channels)
    return Wishes(replace(options, recording=is_file), fmt, is_file, words, tuple(warnings))


class _Section:
    """One object of the session, its fields read with their types."""

    def __init__(self, session: Mapping[str, Any], name: str) -> None:
        value = session.get(name)
        self.fields: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        self.name = f"session.{name}"

    def text(self, name: str) -> str:
        value = self.fields.get(name)
        if value is not None and not isinstance(value, str):
            raise self.bad(name, "a text")
        return (value or "").strip()

    def flag(self, name: str) -> bool:
        value = self.fields.get(name)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if value is not None and not isinstance(value, bool):
            raise self.bad(name, "true or false")
        return bool(value)

    def number(self, name: str) -> float:
        value = self.fields.get(name)
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.bad(name, "a number")
        return float(value)

    def whole(self, name: str) -> int:
        value = self.number(name)
        if not value.is_integer():
            raise self.bad(name, "a whole number")
        return int(value)

    def bad(self, name: str, what: str) -> ASRError:
        return _bad(f"{self.name}.{name} must be {what}.", f"{self.name}.{name}")


def _diarization(session: Mapping[str, Any]) -> Diarization | None:
    section = _Section(session, "speaker_diarization")
    if not section.flag("enable_speaker_diarization"):
        return None
    most = section.whole("max_speaker_count")
    if most > MAX_SPEAKERS:
        raise section.bad("max_speaker_count", f"at most {MAX_SPEAKERS}")
    return Diarization(most if most > 0 else None)


def _boosted(session: Mapping[str, Any]) -> tuple[Phrase, ...]:
    section = _Section(session, "word_boosting")
    if not section.flag("enable_word_boosting"):
        return ()
    rows = section.fields.get("word_boosting_list") or []
    if not isinstance(rows, list):
        raise section.bad("word_boosting_list", "a list")
    found: list[Phrase] = []
    for row in rows:
        texts, weight = (row.get("phrases"), row.get("boost", 0)) if isinstance(row, Mapping) else (None, 0)
        texts = [texts] if isinstance(texts, str) else texts
        listed = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        numeric = isinstance(weight, int | float) and not isinstance(weight, bool) and abs(weight) <= MAX_BOOST
        if not listed or not numeric:
            raise section.bad("word_boosting_list", 'a list of {"phrases": [texts], "boost": number}')
        share = min(max(weight / FULL_BOOST, 0.0), 1.0)
        found += [Phrase(text, share, raw_boost=float(weight)) for text in texts or () if text.strip()]
    return tuple(found)


def _endpointing(session: Mapping[str, Any]) -> Endpointing | None:
    # Zeros are what a session is made with, and -1 is how a command line says "not given".
    section = _Section(session, "endpointing_config")
    found: dict[str, Any] = {}
    for ours, theirs in _ENDPOINTING_MS:
        if (ms := section.whole(theirs)) > 0:
            found[ours] = ms
    for ours, theirs in _ENDPOINTING_SHARES:
        if (share := section.number(theirs)) > 0:
            found[ours] = share
    return Endpointing(**found) if found else None


def _custom(config: _Section) -> dict[str, str]:
    """`custom_configuration`: the text `key:value,key:value`, or an object."""
    name = "custom_configuration"
    value = config.fields.get(name)
    if isinstance(value, Mapping):
        pairs = {str(key): str(said) for key, said in value.items()}
    else:
        pairs = {}
        for pair in filter(None, (part.strip() for part in config.text(name).split(","))):
            key, colon, said = pair.partition(":")
            if not colon or not key.strip():
                raise config.bad(name, "key:value pairs with commas between them")
            pairs[key.strip()] = said.strip()
    if len(pairs) > MAX_CUSTOM:
        raise config.bad(name, f"at most {MAX_CUSTOM} pairs")
    return pairs


def _bad(text: str, param: str) -> ASRError:
    return ASRError(Code.BAD_REQUEST, text, param=param)
