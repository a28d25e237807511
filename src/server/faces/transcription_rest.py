"""The transcription REST: `POST /transcribe`, `GET /health`, and what `GET /` says to those who are no browser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.routing import Match
from starlette.types import Scope

from asr.engine import Engine, Readiness
from asr.errors import ASRError
from server.calls import Desk, while_connected
from server.faces import rest_docs as docs
from server.faces.rest_answers import Shape, body_of, notes_of
from server.faces.rest_form import read_asked
from server.faces.rest_request import DetailRoute, Intake, with_notes
from server.readiness import ReadinessWatch

MODELS_TIMEOUT_S = 1.0


def router(
    desk: Desk,
    *,
    watch: ReadinessWatch,
    now: Callable[[], datetime],
    version: str,
    has_jobs: bool = True,
) -> APIRouter:
    """The calls that wait for their answer.

    Args:
        desk: where recordings are recognized.
        watch: knows whether the gateway can serve.
        now: the wall clock, with a zone.
        version: of the gateway.
        has_jobs: whether the calls of jobs are there too.
    """
    routes = APIRouter(tags=["transcription"], route_class=DetailRoute)
    intake = Intake(desk.spool)
    health = _Health(desk, watch)

    @routes.post(
        "/transcribe",
        summary="Transcribe a recording, and wait for its text",
        description=docs.TRANSCRIBE,
        responses=docs.TRANSCRIBE_ANSWERS,
        openapi_extra=docs.TRANSCRIBE_BODY,
        response_class=Response,
    )
    async def transcribe(request: Request) -> Response:
        with desk.admitted(request, "rest") as watch:
            async with intake.taken(request, max_bytes=desk.limits.max_upload_bytes) as (upload, fields):
                asked = read_asked(fields, refuse=desk.refuse_unsupported)
                agreement = await desk.agree(asked.options)
                work = desk.transcribe(upload, agreement, watch, stereo=asked.stereo)
                transcript = await while_connected(request, work)
                shape = Shape(asked.timestamps, asked.words, asked.format)
                body = body_of(transcript, shape, filename=upload.filename, now=now())
                answer = Response(body.content, media_type=body.media_type)
                watch.sent_bytes += len(answer.body)
        return with_notes(answer, (*asked.notes, *notes_of(transcript)))

    @routes.get(
        "/health",
        summary="Whether recordings can be transcribed now",
        description=docs.HEALTH,
        responses=docs.HEALTH_ANSWERS,
        response_model=None,
    )
    async def tell_health() -> JSONResponse:
        state, body = await health.tell()
        return JSONResponse(body, 200 if state.ready else 503)

    async def root() -> JSONResponse:
        body = {
            "name": "riva-gateway",
            "version": version,
            "engine": desk.engine.name,
            "docs": "/docs",
            "openapi": "/openapi.json",
            "endpoints": docs.ENDPOINTS | (docs.JOB_ENDPOINTS if has_jobs else {}),
        }
        return JSONResponse(body, headers={"Vary": "Accept"})

    routes.add_api_route(
        "/",
        root,
        methods=["GET"],
        summary="What this service offers",
        description=docs.ROOT,
        responses=docs.ROOT_ANSWERS,
        response_model=None,
        route_class_override=NotForBrowsers,
    )
    return routes


class NotForBrowsers(DetailRoute):
    """A route that leaves those who ask for a page to what is mounted behind it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """No match for a request that accepts HTML."""
        for name, value in scope.get("headers", ()):
            if name == b"accept" and b"text/html" in value.lower():
                return Match.NONE, {}
        return super().matches(scope)


class _Health:
    def __init__(self, desk: Desk, watch: ReadinessWatch) -> None:
        self._desk = desk
        self._watch = watch
        self._model_name = ""

    async def tell(self) -> tuple[Readiness, dict[str, Any]]:
        state = await self._watch.state()
        engine = self._desk.engine
        if state.ready:
            self._model_name = await _first_model(engine) or self._model_name
        return state, {
            "status": "healthy" if state.ready else "unhealthy",
            "model_loaded": state.ready,
            "model_name": self._model_name,
            "engine": engine.name,
            "active_streams": self._desk.active_streams,
            "gpu": None,
            "detail": state.detail,
        }


async def _first_model(engine: Engine) -> str:
    try:
        async with asyncio.timeout(MODELS_TIMEOUT_S):
            models = await engine.models()
    except (ASRError, TimeoutError):
        return ""
    return models[0].name if models else ""
