"""What each door asks for: every HTTP route, WebSocket path and gRPC method with its rule. Pure.

This is the one list. What is not on it is refused, however it came to be registered: a door that somebody adds later is
shut until it is given a rule here, and a test compares the list with what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from server.access.grants import Scope


@dataclass(frozen=True, slots=True)
class Rule:
    """What one door asks for.

    Attributes:
        scope: what a credential must allow; None: nothing is asked, and no credential is looked at.
        is_optional: whether one comes in without a credential too, and is then shown less.
    """

    scope: Scope | None = None
    is_optional: bool = False


OPEN = Rule()
TRANSCRIBE = Rule(Scope.TRANSCRIBE)
JOBS = Rule(Scope.JOBS)
MINT = Rule(Scope.MINT)
METRICS = Rule(Scope.METRICS)
ADMIN = Rule(Scope.ADMIN)
MORE_WITH_METRICS = Rule(Scope.METRICS, is_optional=True)

HTTP: Mapping[tuple[str, str], Rule] = {
    # What a browser loads before it can show a credential; what probes ask, which have none; the documents.
    ("GET", "/"): OPEN,
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): MORE_WITH_METRICS,
    ("GET", "/ping"): OPEN,
    ("GET", "/v1/health/live"): OPEN,
    ("GET", "/v1/health/ready"): OPEN,
    ("GET", "/v1/realtime/health"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    ("HEAD", "/openapi.json"): OPEN,
    ("GET", "/docs"): OPEN,
    ("GET", "/docs.js"): OPEN,
    ("GET", "/redoc"): OPEN,
    ("GET", "/redoc.js"): OPEN,
    ("GET", "/api-assets/redoc.standalone.js"): OPEN,
    ("GET", "/schema/asr.v1.json"): OPEN,
    ("GET", "/schema/log.v1.json"): OPEN,
    # Recordings, and what one needs to know to send them.
    ("POST", "/v1/audio/transcriptions"): TRANSCRIBE,
    ("POST", "/v1/audio/translations"): TRANSCRIBE,
    ("POST", "/transcribe"): TRANSCRIBE,
    ("GET", "/health"): TRANSCRIBE,
    ("POST", "/invocations"): TRANSCRIBE,
    ("POST", "/invocations/http"): TRANSCRIBE,
    ("POST", "/invocations/grpc"): TRANSCRIBE,
    ("GET", "/v1/models"): TRANSCRIBE,
    ("GET", "/v1/models/{model}"): TRANSCRIBE,
    ("GET", "/v1/metadata"): TRANSCRIBE,
    ("GET", "/v1/version"): TRANSCRIBE,
    ("GET", "/v1/license"): TRANSCRIBE,
    ("GET", "/v1/manifest"): TRANSCRIBE,
    # Jobs.
    ("POST", "/transcribe/async"): JOBS,
    ("GET", "/jobs"): JOBS,
    ("GET", "/jobs/{job_id}/status"): JOBS,
    ("GET", "/jobs/{job_id}/result"): JOBS,
    ("POST", "/jobs/{job_id}/cancel"): JOBS,
    ("DELETE", "/jobs/{job_id}"): JOBS,
    # Credentials for others.
    ("POST", "/v1/tokens"): MINT,
    ("POST", "/v1/realtime/transcription_sessions"): MINT,
    ("POST", "/v1/realtime/client_secrets"): MINT,
    # Operation.
    ("GET", "/metrics"): METRICS,
    ("GET", "/status"): OPEN,  # a page that shows nothing until it has read the next one
    ("GET", "/status.json"): METRICS,
    ("GET", "/admin/rollout"): ADMIN,
    ("PUT", "/admin/rollout"): ADMIN,
}
"""By method and path template."""

MOUNTS: Mapping[str, Rule] = {"": OPEN, "/api-assets": OPEN}
"""Folders of files, by where they are mounted: the page, and what the documents load."""

SOCKETS: Mapping[str, Rule] = {
    "/v1/stream": TRANSCRIBE,
    "/ws": TRANSCRIBE,
    "/v1/realtime": TRANSCRIBE,
    "/invocations-bidirectional-stream/": TRANSCRIBE,
}
"""WebSockets, by the path that they are registered under."""

GRPC: Mapping[str, Rule] = {
    "/grpc.health.v1.Health/Check": OPEN,
    "/grpc.health.v1.Health/Watch": OPEN,
    "/nvidia.riva.asr.RivaSpeechRecognition/StreamingRecognize": TRANSCRIBE,
    "/nvidia.riva.asr.RivaSpeechRecognition/Recognize": TRANSCRIBE,
    "/nvidia.riva.asr.RivaSpeechRecognition/GetRivaSpeechRecognitionConfig": TRANSCRIBE,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": TRANSCRIBE,
}
"""gRPC methods, by their full name."""
