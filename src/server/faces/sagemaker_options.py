"""What the query of a plain SageMaker stream asks for, as options and an audio format.

Pure. The names are those that clients of hosted speech services already send (`sample_rate`, `encoding`,
`interim_results` …); what is not known is left alone, for such clients send much that says nothing about recognition.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asr.audio import AudioFormat, Encoding
from asr.errors import ASRError, Code, quoted
from asr.options import Diarization, Endpointing, Options, Phrase

_ENCODINGS = {
    "": Encoding.PCM_S16LE,
    "linear16": Encoding.PCM_S16LE,
    "pcm": Encoding.PCM_S16LE,
    "pcm16": Encoding.PCM_S16LE,
    "linear32": Encoding.PCM_F32LE,
    "ulaw": Encoding.MULAW,
    "opus": Encoding.OGG_OPUS,
    "ogg-opus": Encoding.OGG_OPUS,
}
_FOREIGN_MODEL = re.compile(r"(?:nova|flux|enhanced|base)(?:-[\w.-]+)?")
"""Model names of another service, whose clients send one unasked."""
_YES, _NO = frozenset({"true", "1", "yes", "on", ""}), frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """What a plain stream asks for.

    Attributes:
        options: for the recognizer.
        format: of the audio.
        interim: whether partials are wanted.
        notes: what was understood in another way than the client may think.
    """

    options: Options
    format: AudioFormat
    interim: bool
    notes: tuple[str, ...] = ()


def read_query(queries: Mapping[str, list[str]], *, refuse_unsupported: bool = False) -> PlainRequest:
    """Read the query of a plain stream.

    Raises:
        ASRError: `bad_request` for a value that cannot be understood.
    """
    query = {name: values[-1] for name, values in queries.items()}
    interim = _flag(query, "interim_results", default=True)
    model = query.get("model", "")
    notes: tuple[str, ...] = ()
    if _FOREIGN_MODEL.fullmatch(model):
        notes = (f"The model {quoted(model)} is not served here; the recognizer's own choice answers in its place.",)
        model = ""
    phrases = tuple(Phrase(text) for name in ("keyterm", "phrase") for text in queries.get(name, []) if text.strip())
    options = Options(
        language=query.get("language", query.get("language_code", "")),
        model=model,
        partials=interim,
        punctuate=True if _flag(query, "punctuate") or _flag(query, "smart_format") else None,
        profanity_filter=_flag(query, "profanity_filter"),
        diarization=Diarization(_number(query, "max_speakers")) if _diarizes(query) else None,
        phrases=phrases,
        endpointing=_endpointing(query),
        fail_on_unsupported=refuse_unsupported,
    )
    encoding = _encoding(query.get("encoding", ""))
    fmt = AudioFormat(encoding, _number(query, "sample_rate") or 16_000, _number(query, "channels") or 1)
    return PlainRequest(options, fmt, interim, notes)


def _encoding(name: str) -> Encoding:
    found: Any = _ENCODINGS.get(name.lower())
    if found is not None:
        return Encoding(found)
    try:
        return Encoding(name.lower())
    except ValueError:
        known = ", ".join([name for name in _ENCODINGS if name] + [one.value for one in Encoding])
        text = f"There is no encoding {quoted(name)}. Encodings known here: {known}."
        raise ASRError(Code.BAD_REQUEST, text, param="encoding") from None


def _diarizes(query: Mapping[str, str]) -> bool:
    return _flag(query, "diarize") or _flag(query, "speaker_diarization")


def _endpointing(query: Mapping[str, str]) -> Endpointing | None:
    value = query.get("endpointing", "").lower()
    if value in ("", "true", "none"):
        return None
    if value == "false":
        return Endpointing(manual=True)
    return Endpointing(silence_ms=_number(query, "endpointing"))


def _flag(query: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    value = query.get(name)
    if value is None:
        return default
    if value.lower() not in _YES | _NO:
        raise ASRError(Code.BAD_REQUEST, f"{name} is {quoted(value)}; it must be true or false.", param=name)
    return value.lower() in _YES


def _number(query: Mapping[str, str], name: str) -> int | None:
    value = query.get(name, "")
    if not value:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise ASRError(Code.BAD_REQUEST, f"{name} is {quoted(value)}; it must be a whole number.", param=name)
    return int(value)
