"""What `/openapi.json` says of the SageMaker calls: their bodies and their answers. Dictionaries alone."""

from __future__ import annotations

from server import api_docs
from server.faces.sagemaker_request import ATTRIBUTES_HEADER

_FIELDS = (
    api_docs.Field("file", "The recording: WAV, FLAC, Ogg, MP3, M4A, WebM.", kind="file", required=True),
    api_docs.Field("language_code", "BCP-47; `language` means the same.", example="en-US"),
    api_docs.Field("model", "One of the served models; left out: the recognizer's choice."),
    api_docs.Field("speaker_diarization", "`true` tells speakers apart.", choices=("true", "false")),
    api_docs.Field("max_speakers", "How many there are at most; 10 where it is not said.", kind="integer", example=4),
)
_JSON_BODY = {
    "type": "object",
    "required": ["audio"],
    "properties": {
        "audio": {"type": "string", "description": "The recording as base64."},
        "filename": {"type": "string"},
        "language_code": {"type": "string"},
        "model": {"type": "string"},
        "speaker_diarization": {"type": "boolean"},
        "max_speakers": {"type": "integer"},
    },
}
BODIES = api_docs.either(
    api_docs.multipart_body(*_FIELDS),
    api_docs.json_body(_JSON_BODY, {"audio": "UklGR…", "language_code": "en-US"}),
    api_docs.binary_body("audio/wav", "application/octet-stream"),
)
_EXAMPLE = {
    "predictions": [
        {
            "results": [
                {
                    "alternatives": [
                        {
                            "transcript": "hello world",
                            "confidence": -0.35,
                            "words": [
                                {
                                    "word": "hello",
                                    "start_time": 0.32,
                                    "end_time": 0.64,
                                    "confidence": -0.2,
                                    "speaker_tag": 0,
                                }
                            ],
                        }
                    ],
                    "is_final": True,
                    "channel_tag": 1,
                }
            ],
            "model_version": "parakeet-1-1b-ctc-en-us",
            "transport": "grpc",
        }
    ]
}
_ERROR = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {
        "error": {"type": "string", "description": "What happened, and what to do."},
        "code": {"type": "string", "description": "`bad_audio`, `too_large`, `timeout` …"},
        "param": {"type": "string", "description": "The field to blame, where there is one."},
    },
}
ANSWERS: api_docs.Responses = {
    200: api_docs.answer(
        f"The transcript. The header `{ATTRIBUTES_HEADER}` says which way it came.", {"type": "object"}, _EXAMPLE
    ),
    **{
        status: api_docs.answer(about, _ERROR)
        for status, about in (
            (400, "The request or its audio cannot be used; the message says why."),
            (404, "There is no such model or language."),
            (408, "The request did not arrive in time."),
            (413, "It is larger than `SAGEMAKER_MAX_BYTES`."),
            (429, "Your share of this gateway is used up."),
            (500, "A defect of the gateway or the recognizer."),
            (503, "The recognizer is full, loading or away."),
            (504, "It takes longer than `SAGEMAKER_TIMEOUT_MS`."),
            (507, "There is no room for the upload on the gateway's disk."),
        )
    },
}
_PING_BODY = {
    "type": "object",
    "properties": {"ready": {"type": "boolean"}, "detail": {"type": "string"}},
}
PING_ANSWERS: api_docs.Responses = {
    200: api_docs.answer("Requests may come.", _PING_BODY),
    503: api_docs.answer("Not yet, or not any more; `detail` says why.", _PING_BODY),
}
