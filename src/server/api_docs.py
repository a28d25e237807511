"""What every HTTP face says of itself in `/openapi.json`: pieces for `openapi_extra=` and `responses=`.

Bodies are read by `server.uploads`, not by the framework (they stream to disk), so the framework cannot know what is in
them; the faces say it with these functions. Pure: dictionaries in, dictionaries out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]
Responses = dict[int | str, dict[str, Any]]
ErrorShape = Literal["openai", "detail"]

TAGS: tuple[dict[str, str], ...] = (
    {
        "name": "OpenAI",
        "description": "`/v1/audio/…` and `/v1/models`, as OpenAI's clients call them. Errors are its error object.",
    },
    {
        "name": "transcription",
        "description": 'The plain transcription calls: a recording in, its text out. Errors are `{"detail": …}`.',
    },
    {"name": "jobs", "description": "Long recordings: hand one in, ask how far it is, fetch the result."},
    {
        "name": "realtime",
        "description": "Sessions for `WS /v1/realtime`, made beforehand as NIM's and OpenAI's clients make them.",
    },
    {"name": "tokens", "description": "Short-lived credentials, where the gateway asks for any."},
    {"name": "NIM", "description": "What a NIM answers about itself, and its health."},
    {"name": "SageMaker", "description": "What a SageMaker endpoint calls in its container."},
    {"name": "operation", "description": "Is it alive, is it ready, how full is it."},
    {"name": "schema", "description": "JSON Schemas of the native WebSocket protocol."},
)
"""Every tag with what stands under it, in the order of the page."""

COMPONENTS: Json = {
    "Error": {
        "title": "Error",
        "description": "OpenAI's error object. `code` is one of the gateway's codes and never changes its spelling.",
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string", "description": "What happened, and what to do."},
                    "type": {"type": "string", "description": "`invalid_request_error`, `server_error` …"},
                    "param": {"type": ["string", "null"], "description": "The field to blame, where there is one."},
                    "code": {"type": ["string", "null"], "description": "`bad_audio`, `too_large`, `overloaded` …"},
                },
            }
        },
        "example": {
            "error": {
                "message": "There is no file in the form. Send the recording as the field 'file'.",
                "type": "invalid_request_error",
                "param": "file",
                "code": "bad_request",
            }
        },
    },
    "Detail": {
        "title": "Detail",
        "description": "An error as one sentence.",
        "type": "object",
        "required": ["detail"],
        "properties": {"detail": {"type": "string", "description": "What happened, and what to do."}},
        "example": {"detail": "There is no file in the form. Send the recording as the field 'file'."},
    },
}
"""Schemas that the document has by name, for `ref`."""

_WHY = {
    400: "The request or its audio cannot be used; the message says why.",
    401: "A credential is missing, wrong or expired.",
    403: "The credential is good and does not allow this.",
    404: "There is no such model, language or thing; the message names those there are.",
    405: "This path is not asked with this method.",
    408: "The request did not arrive in time.",
    409: "It contradicts what was asked before.",
    413: "The body is larger than the stated limit.",
    415: "The body is of a kind that this call does not read.",
    429: "Your share of this gateway is used up. Come back after `Retry-After` seconds.",
    500: "A defect of the gateway or the recognizer.",
    502: "The recognizer gave an answer that makes no sense.",
    503: "The recognizer is full, loading or away. Come back after `Retry-After` seconds.",
    504: "The recognizer did not answer in time.",
    507: "There is no room for the upload on the gateway's disk. Come back after `Retry-After` seconds.",
}
_COMMON = (400, 404, 413, 429, 500, 503, 504, 507)
_COME_BACK = {429, 503, 507}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a form.

    Attributes:
        name: as it is sent.
        about: what it does, for people; Markdown.
        kind: `file`, `string`, `number`, `integer` or `boolean`.
        required: whether the call fails without it.
        repeated: whether it may come several times.
        choices: the values it may have; none: any.
        example: a value that works, which `/docs` fills in; None: nothing is filled in.
    """

    name: str
    about: str
    kind: Literal["file", "string", "number", "integer", "boolean"] = "string"
    required: bool = False
    repeated: bool = False
    choices: Sequence[str] = ()
    example: object = None

    @property
    def schema(self) -> Json:
        """Its JSON Schema."""
        one: Json = {"type": "string", "format": "binary"} if self.kind == "file" else {"type": self.kind}
        if self.choices:
            one["enum"] = list(self.choices)
        schema: Json = {"type": "array", "items": one} if self.repeated else one
        schema["description"] = self.about
        if self.example is not None:
            schema["example"] = self.example
        elif self.kind != "file" and not self.required:
            # Left to itself, the page would send "string" and 0 in every field that nobody has touched.
            schema["example"] = [] if self.repeated else ""
        return schema


def multipart_body(*fields: Field) -> Json:
    """`openapi_extra=` of a call that takes `multipart/form-data` with these fields."""
    schema: Json = {"type": "object", "properties": {field.name: field.schema for field in fields}}
    required = [field.name for field in fields if field.required]
    if required:
        schema["required"] = required
    return _body({"multipart/form-data": {"schema": schema}})


def json_body(schema: Json, example: object = None, *, required: bool = True) -> Json:
    """`openapi_extra=` of a call that takes JSON."""
    return _body({"application/json": _content(schema, example)}, required=required)


def binary_body(*media_types: str) -> Json:
    """`openapi_extra=` of a call whose body is the audio itself, as one of these types."""
    return _body({kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types})


def either(*bodies: Json) -> Json:
    """`openapi_extra=` of a call that takes any of these bodies; its `Content-Type` says which."""
    content: Json = {}
    for body in bodies:
        content |= body["requestBody"]["content"]
    return _body(content, required=all(body["requestBody"].get("required", False) for body in bodies))


def answer(
    about: str, schema: Json | None = None, example: object = None, *, media_type: str = "application/json"
) -> dict[str, Any]:
    """One entry of `responses=`: what it means, and its body."""
    content = _content({"type": "string"} if schema is None else schema, example)
    return {"description": about, "content": {media_type: content}}


def errors(*statuses: int, shape: ErrorShape = "openai") -> Responses:
    """`responses=`: failures with these statuses (none: all that a call with audio can have), in a face's shape."""
    return {status: _failure(status, shape) for status in statuses or _COMMON}


def ref(name: str) -> Json:
    """A reference to one of `COMPONENTS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def completed(document: Json) -> Json:
    """The framework's document with `COMPONENTS`, without tags that nothing has and the 422 that is never answered."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= COMPONENTS
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    used: set[str] = set()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            used.update(operation.get("tags", ()))
    if "tags" in document:
        document["tags"] = [tag for tag in document["tags"] if tag["name"] in used]
    return document


def _body(content: Json, *, required: bool = True) -> Json:
    return {"requestBody": {"required": required, "content": content}}


def _content(schema: Json, example: object) -> Json:
    return {"schema": schema} if example is None else {"schema": schema, "example": example}


def _failure(status: int, shape: ErrorShape) -> dict[str, Any]:
    entry = answer(_WHY[status], ref("Error" if shape == "openai" else "Detail"))
    if status in _COME_BACK:
        entry["headers"] = {
            "Retry-After": {"description": "Seconds to wait, where they are known.", "schema": {"type": "integer"}}
        }
    return entry
