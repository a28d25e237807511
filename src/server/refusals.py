"""What each error looks like on every face: one row per code, one column per protocol.

Statuses are given by name or number, not as a library's enum: this is vocabulary, and stands below the
faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asr.errors import ASRError, Code

# WebSocket close codes of RFC 6455 §7.4.1 that no error code stands for.
NORMAL = 1000
GOING_AWAY = 1001
TOO_BIG = 1009

REALM = "riva-gateway"
"""Of the `WWW-Authenticate` header."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """How one error code is spelled.

    Attributes:
        http_status: status of an HTTP answer, also before a WebSocket upgrade.
        close_code: WebSocket close code after an `error` message (4000-4999 mirror HTTP).
        grpc_status: name of the gRPC status.
        openai_type: `error.type` of OpenAI's error object.
    """

    http_status: int
    close_code: int
    grpc_status: str
    openai_type: str


_MATRIX: dict[Code, Refusal] = {
    Code.BAD_REQUEST: Refusal(400, 4400, "INVALID_ARGUMENT", "invalid_request_error"),
    Code.BAD_AUDIO: Refusal(400, 4415, "INVALID_ARGUMENT", "invalid_request_error"),
    Code.UNSUPPORTED: Refusal(400, 4415, "INVALID_ARGUMENT", "invalid_request_error"),
    Code.UNAUTHORIZED: Refusal(401, 4401, "UNAUTHENTICATED", "authentication_error"),
    Code.FORBIDDEN: Refusal(403, 4403, "PERMISSION_DENIED", "permission_error"),
    Code.NOT_FOUND: Refusal(404, 4404, "NOT_FOUND", "invalid_request_error"),
    Code.SUPERSEDED: Refusal(409, 4409, "ABORTED", "invalid_request_error"),
    Code.EXPIRED: Refusal(410, 4410, "NOT_FOUND", "invalid_request_error"),
    Code.TOO_LARGE: Refusal(413, 4413, "RESOURCE_EXHAUSTED", "invalid_request_error"),
    Code.IDLE_TIMEOUT: Refusal(408, 4408, "DEADLINE_EXCEEDED", "invalid_request_error"),
    Code.SLOW_READER: Refusal(408, 4499, "ABORTED", "invalid_request_error"),
    Code.STORAGE_FULL: Refusal(507, 4507, "RESOURCE_EXHAUSTED", "server_error"),
    Code.RATE_LIMITED: Refusal(429, 4429, "RESOURCE_EXHAUSTED", "rate_limit_error"),
    Code.OVERLOADED: Refusal(503, 4503, "UNAVAILABLE", "server_error"),
    Code.UNAVAILABLE: Refusal(503, 4502, "UNAVAILABLE", "server_error"),
    Code.TIMEOUT: Refusal(504, 4504, "DEADLINE_EXCEEDED", "server_error"),
    Code.INTERNAL: Refusal(500, 1011, "INTERNAL", "server_error"),
}


def refusal(code: Code) -> Refusal:
    """The row of an error code."""
    return _MATRIX[code]


def openai_error(error: ASRError) -> dict[str, Any]:
    """OpenAI's error object."""
    row = refusal(error.code)
    body = {"message": error.message, "type": row.openai_type, "param": error.param, "code": error.code.value}
    return {"error": body}
