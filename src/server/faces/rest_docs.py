"""What `/openapi.json` says of the transcription REST and its jobs. Dictionaries alone."""

from __future__ import annotations

from typing import Any

from server.api_docs import Field, Json, answer, binary_body, either, errors, json_body, multipart_body, ref
from server.faces.rest_form import FORMATS, STEREO
from server.jobs.model import Status

_STRING: Json = {"type": "string"}
_NUMBER: Json = {"type": "number"}
_MAYBE: Json = {"type": ["string", "null"]}
_MOMENT: Json = {"type": "string", "description": "UTC, ISO 8601 to the second, without a zone."}
_MAYBE_MOMENT: Json = {"type": ["string", "null"], "description": "UTC, ISO 8601 to the second, without a zone."}
_AUDIO_TYPES = ("audio/wav", "audio/mpeg", "audio/flac", "audio/ogg", "audio/mp4", "audio/webm")

_WISHES = (
    Field("model", "One of `GET /v1/models`, or a family: `parakeet`, `canary`. Left out: the default."),
    Field(
        "language", "`en`, `es`, `de`, `fr`, or BCP-47 such as `en-US`. Left out: the recognizer's own.", example="en"
    ),
    Field("include_timestamps", "`true` where it is not said; `false`: `segments` is empty.", kind="boolean"),
    Field("words", "`true`: each segment has its words with times.", kind="boolean"),
    Field("punctuate", "Ask for punctuation, or against it.", kind="boolean"),
    Field("verbatim", "`true`: spoken form; `false`: written form.", kind="boolean"),
    Field("profanity_filter", "Mask profanity.", kind="boolean"),
    Field("diarization", "Tell speakers apart; they are named in `words`.", kind="boolean"),
    Field("max_speakers", "How many speakers there are at most.", kind="integer"),
    Field("phrases", 'Phrases to favour: a text, or JSON `{"text", "boost"}` with a boost of 0 to 1.', repeated=True),
    Field("silence_ms", "The pause that ends a segment, in milliseconds.", kind="integer"),
)
_FILE = Field("file", "The recording: WAV, MP3, FLAC, Ogg, Opus, M4A, MP4, WebM and more.", kind="file", required=True)
_SYNC = (
    Field("format", "How the answer is written; `json` where it is not said.", choices=FORMATS),
    Field("stereo", "Several channels: mixed, refused, or recognized each. Left out: `STEREO`.", choices=STEREO),
)
_JOB = (
    Field("webhook_url", "Told when the job is over, signed with `JOBS_WEBHOOK_SECRET`."),
    Field("labels", "Your own words about the job: a JSON object of texts.", example='{"customer": "42"}'),
    Field("idempotency_key", "As the header `Idempotency-Key`."),
)


def _json_schema(*fields: Field) -> Json:
    properties: Json = {
        "audio": {"type": "string", "description": "The recording as base64 (a `data:` URL is fine)."},
        "filename": {"type": "string", "description": "Its name, which the answer repeats."},
    }
    return {
        "type": "object",
        "required": ["audio"],
        "properties": properties | {field.name: field.schema for field in fields},
    }


def _bodies(*fields: Field) -> Json:
    return either(
        multipart_body(_FILE, *fields),
        json_body(_json_schema(*fields)),
        binary_body(*_AUDIO_TYPES),
    )


TRANSCRIBE = (
    "A recording in, its text out. It comes as multipart form, as JSON with base64 in `audio`, or as the body itself "
    "(`Content-Type: audio/…`, fields in the query). What the recognizer cannot do is left out and said in a header "
    "`riva-gateway-note`; with `ON_UNSUPPORTED=refuse` it is a 400."
)
TRANSCRIBE_BODY = _bodies(*_WISHES, *_SYNC)

_SEGMENT: Json = {
    "type": "object",
    "required": ["start", "end", "text"],
    "properties": {
        "start": _NUMBER | {"description": "Seconds."},
        "end": _NUMBER | {"description": "Seconds."},
        "text": _STRING,
        "words": {"type": "array", "items": {"type": "object"}, "description": "Only where they were asked for."},
        "channel": {"type": "integer", "description": "Only where channels were recognized each."},
    },
}
_TRANSCRIPTION: Json = {
    "title": "Transcription",
    "type": "object",
    "required": ["text", "segments", "filename", "timestamp"],
    "properties": {
        "text": _STRING,
        "segments": {"type": "array", "items": _SEGMENT},
        "filename": _STRING,
        "timestamp": _MOMENT,
        "warnings": {"type": "array", "items": _STRING, "description": "Only where audio was lost: from when to when."},
    },
}
_TRANSCRIPTION_EXAMPLE: Json = {
    "text": "Full transcription text here.",
    "segments": [{"start": 0.0, "end": 3.5, "text": "Full transcription text here."}],
    "filename": "audio.mp3",
    "timestamp": "2026-02-04T19:30:00",
}
_DONE = answer("What was said.", _TRANSCRIPTION, _TRANSCRIPTION_EXAMPLE)
for _kind in ("text/plain", "application/x-subrip", "text/vtt"):
    _DONE["content"][_kind] = {"schema": _STRING}
_AUDIO_ERRORS = (400, 404, 408, 413, 429, 500, 503, 504, 507)
TRANSCRIBE_ANSWERS: dict[int | str, dict[str, Any]] = {200: _DONE, **errors(*_AUDIO_ERRORS, shape="detail")}

HEALTH = "200 while recordings can be transcribed, else 503 with the same body. `gpu` is null: the gateway has none."
_HEALTH: Json = {
    "title": "Health",
    "type": "object",
    "required": ["status", "model_loaded", "model_name"],
    "properties": {
        "status": {"enum": ["healthy", "unhealthy"]},
        "model_loaded": {"type": "boolean"},
        "model_name": _STRING | {"description": "The default model; empty while it is not known."},
        "engine": _STRING,
        "active_streams": {"type": "integer"},
        "gpu": _MAYBE,
        "detail": _STRING | {"description": "Why it is unhealthy."},
    },
}
_HEALTH_EXAMPLE: Json = {
    "status": "healthy",
    "model_loaded": True,
    "model_name": "parakeet-1.1b-en-US",
    "engine": "riva",
    "active_streams": 3,
    "gpu": None,
    "detail": "",
}
HEALTH_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: answer("Ready.", _HEALTH, _HEALTH_EXAMPLE),
    503: answer("Not ready; `detail` says why.", _HEALTH),
}

ROOT = "What this service offers, as JSON. Those who accept `text/html` get the browser page in its place."
ENDPOINTS = {
    "POST /transcribe": "a recording in, its text out",
    "GET /health": "whether recordings can be transcribed now",
    "POST /v1/audio/transcriptions": "OpenAI's call",
    "GET /v1/models": "the models that are served",
    "WS /v1/stream": "live audio, native protocol",
    "WS /v1/realtime": "live audio, as NIM's and OpenAI's clients speak it",
    "WS /ws": "live audio, raw PCM and END",
}
JOB_ENDPOINTS = {
    "POST /transcribe/async": "hand in a recording as a job",
    "GET /jobs": "the jobs there are",
    "GET /jobs/{job_id}/status": "how far a job is",
    "GET /jobs/{job_id}/result": "the text of a completed job",
    "POST /jobs/{job_id}/cancel": "cancel a job",
    "DELETE /jobs/{job_id}": "forget a job that is over",
}
ROOT_ANSWERS: dict[int | str, dict[str, Any]] = {200: answer("The service.", {"type": "object"})}

SUBMIT = (
    "The same bodies as `/transcribe`, larger ones too; it answers as soon as the recording is stored. A job survives "
    "a restart of the gateway. With `Idempotency-Key`, the same request sent again is the same job."
)
SUBMIT_BODY = _bodies(*_WISHES, *_JOB) | {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "maxLength": 256},
            "description": "Requests with the same key are the same job.",
        }
    ]
}
_ID_EXAMPLE = "550e8400-e29b-41d4-a716-446655440000"
_STATUSES = [status.value for status in Status]
_ACCEPTED: Json = {
    "title": "Accepted",
    "type": "object",
    "required": ["job_id", "status", "message"],
    "properties": {"job_id": _STRING, "status": {"enum": _STATUSES}, "message": _STRING},
}
_ACCEPTED_EXAMPLE = {
    "job_id": _ID_EXAMPLE,
    "status": "pending",
    "message": "Transcription job started for audio.mp3",
}
SUBMIT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: answer("The job.", _ACCEPTED, _ACCEPTED_EXAMPLE),
    **errors(*_AUDIO_ERRORS, shape="detail"),
}

_STATUS_FIELDS: Json = {
    "job_id": _STRING,
    "status": {"enum": _STATUSES},
    "filename": _STRING,
    "created_at": _MOMENT,
    "completed_at": _MAYBE_MOMENT,
    "error": _MAYBE,
    "result": {"anyOf": [_TRANSCRIPTION, {"type": "null"}]},
    "started_at": _MAYBE_MOMENT,
    "error_code": _MAYBE,
    "progress_percent": {"type": "integer", "minimum": 0, "maximum": 100},
    "audio_seconds": _NUMBER | {"description": "How much of the recording is recognized."},
    "audio_total_seconds": {"type": ["number", "null"], "description": "How long it is, once that is known."},
    "labels": {"type": "object"},
}
_STATUS: Json = {
    "title": "JobStatus",
    "type": "object",
    "required": ["job_id", "status", "filename", "created_at", "completed_at", "error", "result"],
    "properties": _STATUS_FIELDS,
}
_STATUS_EXAMPLE: Json = {
    "job_id": _ID_EXAMPLE,
    "status": "processing",
    "filename": "audio.mp3",
    "created_at": "2026-02-04T19:30:00",
    "completed_at": None,
    "error": None,
    "result": None,
    "started_at": "2026-02-04T19:30:01",
    "error_code": None,
    "progress_percent": 42,
    "audio_seconds": 1512.0,
    "audio_total_seconds": 3600.0,
    "labels": {},
}
_JOB_ERRORS = (404, 500, 503)
STATUS_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: answer("The job.", _STATUS, _STATUS_EXAMPLE),
    **errors(*_JOB_ERRORS, shape="detail"),
}

RESULT = "400 while the job is not completed, 500 with the reason where it failed. `format` also gives captions."
RESULT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _DONE,
    400: answer("The job is not completed yet, or was cancelled.", ref("Detail")),
    404: answer("There is no such job.", ref("Detail")),
    500: answer("The job failed; the message says why.", ref("Detail")),
    **errors(503, shape="detail"),
}

_CANCELLED: Json = {
    "title": "Cancelled",
    "type": "object",
    "required": ["message", "status"],
    "properties": {"message": _STRING, "status": {"const": "cancelled"}},
}
_CANCELLED_EXAMPLE = {"message": f"Job {_ID_EXAMPLE} cancelled", "status": "cancelled"}
CANCEL_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: answer("It is cancelled.", _CANCELLED, _CANCELLED_EXAMPLE),
    400: answer("The job is over already.", ref("Detail")),
    **errors(*_JOB_ERRORS, shape="detail"),
}
DELETE_ANSWERS: dict[int | str, dict[str, Any]] = {
    204: {"description": "It is forgotten."},
    400: answer("The job is not over.", ref("Detail")),
    **errors(*_JOB_ERRORS, shape="detail"),
}
_PAGE: Json = {
    "title": "Jobs",
    "type": "object",
    "required": ["jobs", "next"],
    "properties": {
        "jobs": {"type": "array", "items": _STATUS},
        "next": {"type": ["string", "null"], "description": "`before` of the next page; null: there is none."},
    },
}
LIST_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: answer("A page of jobs, without their results.", _PAGE),
    **errors(400, *_JOB_ERRORS, shape="detail"),
}
