"""What `/openapi.json` says of the OpenAI calls. Dictionaries alone."""

from __future__ import annotations

from typing import Any

from server.api_docs import Field, Json, Responses, answer, errors, multipart_body
from server.faces.openai_form import FORMATS, GRANULARITIES

TRANSCRIPTION = (
    "A recording in, its text out, as OpenAI's clients ask for it and as NIM's do. What the recognizer cannot do is "
    "left out and said in a header `riva-gateway-note`, one for each note; with `ON_UNSUPPORTED=refuse` it is a 400."
)
_FILE = Field("file", "The recording: WAV, MP3, FLAC, Ogg, Opus, M4A, MP4 or WebM.", kind="file", required=True)
_MODEL = Field(
    "model", "One of `GET /v1/models`. OpenAI's and NVIDIA's own names mean the served model. Left out: the default."
)
_FORMAT = Field("response_format", "How the answer is written; `json` where it is not said.", choices=FORMATS)
_PROMPT = Field(
    "prompt",
    "Phrases to favour, separated by commas, semicolons or lines: `Parakeet, Triton`. Of prose only its names count.",
)
_TEMPERATURE = Field("temperature", "0 to 1. No recognizer here has one; it is left out.", kind="number")
TRANSCRIPTION_FORM = multipart_body(
    _FILE,
    _MODEL,
    Field("language", "`en`, `en-US` or `english`; left out or `auto`: the recognizer's own."),
    _FORMAT,
    Field(
        "timestamp_granularities[]",
        "Times in `verbose_json`: of words, of segments, or both.",
        repeated=True,
        choices=GRANULARITIES,
    ),
    Field("stream", "`true`: the text comes as server-sent events while it is recognized.", kind="boolean"),
    _PROMPT,
    Field("keywords[]", "Words or phrases to favour.", repeated=True),
    Field("languages[]", "Languages it may be; the first is taken.", repeated=True),
    Field("chunking_strategy", "`auto`, or JSON of type `server_vad`: its `silence_duration_ms` ends utterances."),
    _TEMPERATURE,
    Field("include[]", "`logprobs`: no recognizer here has them; left out.", repeated=True),
    Field("known_speaker_names[]", "Left out: speakers are told apart, not recognized.", repeated=True),
    Field("known_speaker_references[]", "Left out, as the names.", repeated=True),
)
TRANSLATION_FORM = multipart_body(_FILE, _MODEL, _FORMAT, _PROMPT, _TEMPERATURE)

_NUMBER: Json = {"type": "number"}
_STRING: Json = {"type": "string"}
_USAGE: Json = {
    "type": "object",
    "properties": {"type": {"const": "duration"}, "seconds": _NUMBER},
    "required": ["type", "seconds"],
}
_WORD: Json = {
    "type": "object",
    "required": ["word", "start", "end"],
    "properties": {"word": _STRING, "start": _NUMBER, "end": _NUMBER},
}
_SEGMENT: Json = {
    "type": "object",
    "required": ["id", "start", "end", "text"],
    "properties": {
        "id": {"type": ["integer", "string"]},
        "start": _NUMBER,
        "end": _NUMBER,
        "text": _STRING,
        "speaker": {"type": "string", "description": "A, B, C … (`diarized_json`)"},
        "avg_logprob": _NUMBER,
        "compression_ratio": _NUMBER,
        "no_speech_prob": _NUMBER,
        "temperature": _NUMBER,
        "seek": {"type": "integer"},
        "tokens": {"type": "array", "items": {"type": "integer"}},
    },
}
_JSON_ANSWER: Json = {
    "type": "object",
    "required": ["text", "usage"],
    "properties": {
        "text": _STRING,
        "usage": _USAGE,
        "task": {"const": "transcribe"},
        "language": {"type": "string", "description": "Its English name: english"},
        "duration": {"type": "number", "description": "Seconds"},
        "segments": {"type": "array", "items": _SEGMENT},
        "words": {"type": "array", "items": _WORD},
        "warnings": {"type": "array", "items": _STRING, "description": "Only where audio was lost: from when to when"},
    },
}
_EXAMPLE = {"text": "Well hello there.", "usage": {"type": "duration", "seconds": 1.7}}
_STREAM_EXAMPLE = (
    'data: {"type":"transcript.text.delta","delta":"Well hello"}\n\n'
    'data: {"type":"transcript.text.delta","delta":" there."}\n\n'
    'data: {"type":"transcript.text.done","text":"Well hello there.","usage":{"type":"duration","seconds":1.7}}\n\n'
)


def _transcribed() -> dict[str, Any]:
    entry = answer("The text, written as `response_format` says.", _JSON_ANSWER, _EXAMPLE)
    entry["content"]["text/plain"] = {"schema": _STRING, "example": "Well hello there.\n"}
    entry["content"]["text/event-stream"] = {"schema": _STRING, "example": _STREAM_EXAMPLE}
    entry["headers"] = {
        "riva-gateway-note": {"description": "What was left out or understood in another way.", "schema": _STRING}
    }
    return entry


TRANSCRIPTION_ANSWERS: Responses = {200: _transcribed(), **errors()}
TRANSLATION_ANSWERS: Responses = errors(400)
