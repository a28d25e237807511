"""Long recordings over the transcription REST: hand one in, ask how far it is, fetch its text, cancel it.

A job that was sent with a credential (a bearer token or an `x-api-key`) is seen only by those who show the same one;
one that was sent without is seen by everyone who knows its id. Who may not see a job is told that there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from asr.errors import ASRError, Code, quoted
from asr.options import Options
from server.calls import Desk
from server.faces import rest_docs as docs
from server.faces.rest_answers import Shape, accepted, body_of, cancelled, listed, notes_of, over_at, shape_of, status
from server.faces.rest_form import Asked, read_asked, read_format
from server.faces.rest_request import DetailRoute, Intake, refused, with_notes
from server.forms import Upload
from server.jobs.model import MAX_KEY_CHARS, JobView, Status
from server.models import resolve_model
from server.telemetry.trace import caller_of

DEFAULT_PAGE = 50
MAX_PAGE = 200
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
"""What could be a job's id; anything else is not for the database."""
_CREDENTIAL = "key "
"""How the principal of a client with a credential begins (`server.principal`)."""


class JobDesk(Protocol):
    """What the face needs of `server.jobs.service.Jobs`."""

    async def submit(
        self,
        upload: Upload,
        options: Options,
        *,
        filename: str,
        owner: str,
        idempotency_key: str = "",
        webhook_url: str = "",
        labels: Mapping[str, str] = ...,
        warnings: Iterable[str] = ...,
    ) -> JobView:
        """Take a recording over."""
        ...

    async def check_room(self) -> None:
        """Whether a further job may come. Raises `overloaded`."""
        ...

    async def get(self, job_id: str, owner: str | None = None) -> JobView | None:
        """A job with its transcript, or None."""
        ...

    async def list(
        self, owner: str | None = None, status: Status | None = None, limit: int = 50, before: str | None = None
    ) -> list[JobView]:
        """Jobs, newest first."""
        ...

    async def cancel(self, job_id: str) -> JobView:
        """End a job. Raises `not_found`, or `bad_request` where it is over."""
        ...

    async def delete(self, job_id: str) -> None:
        """Forget a job."""
        ...


def router(desk: Desk, jobs: JobDesk, *, max_upload_bytes: int) -> APIRouter:
    """The calls of jobs.

    Args:
        desk: knows the recognizer's models, and the spool.
        jobs: does the work.
        max_upload_bytes: of one recording.
    """
    routes = APIRouter(tags=["jobs"], route_class=DetailRoute)
    intake = Intake(desk.spool)

    def owner_of(request: Request) -> str:
        principal = desk.principal(request)
        return principal if principal.startswith(_CREDENTIAL) else ""

    async def find(request: Request, job_id: str) -> JobView:
        job = await jobs.get(job_id) if _ID.fullmatch(job_id) else None
        # Where everybody shows a credential, what was sent before without one is nobody's.
        shared = ("",) if desk.porter.gate.is_open else ()
        if job is None or job.owner not in (*shared, owner_of(request)):
            text = f"There is no job {quoted(job_id)}. Results are kept for a limited time after a job is over."
            raise ASRError(Code.NOT_FOUND, text, param="job_id")
        return job

    @routes.post(
        "/transcribe/async",
        summary="Hand in a recording as a job",
        description=docs.SUBMIT,
        responses=docs.SUBMIT_ANSWERS,
        openapi_extra=docs.SUBMIT_BODY,
        response_class=JSONResponse,
        response_model=None,
    )
    async def submit(request: Request) -> Response:
        desk.count_start(request)
        await jobs.check_room()
        with _full_disk_told(desk):
            return await take_in(request)

    async def take_in(request: Request) -> Response:
        async with intake.taken(request, max_bytes=max_upload_bytes) as (upload, fields):
            asked = read_asked(fields, job=True, refuse=desk.refuse_unsupported)
            options, notes = await _meant(desk, asked.options)
            options = replace(options, traceparent=caller_of(request.headers.get("traceparent", "")))
            job = await jobs.submit(
                upload,
                options,
                filename=upload.filename,
                owner=owner_of(request),
                idempotency_key=_key(request, asked),
                webhook_url=asked.webhook_url,
                labels={**dict(asked.labels), **Shape(asked.timestamps, asked.words, asked.format).label()},
                warnings=notes,
            )
        return with_notes(JSONResponse(accepted(job)), (*asked.notes, *notes))

    @routes.get("/jobs", summary="The jobs there are, newest first", responses=docs.LIST_ANSWERS, response_model=None)
    async def list_jobs(request: Request, status: str = "", limit: str = "", before: str = "") -> dict[str, Any]:
        """Only your own: those sent with the same credential, or, without one, those sent without."""
        most = _limit(limit)
        if before:
            await find(request, before)
        page = await jobs.list(owner_of(request), _status(status), most + 1, before or None)
        return listed(page, most)

    @routes.get("/jobs/{job_id}/status", summary="How far a job is", responses=docs.STATUS_ANSWERS, response_model=None)
    async def tell_status(request: Request, job_id: str) -> dict[str, Any]:
        """`pending`, `processing`, `completed`, `failed` or `cancelled`, with its result once it is completed."""
        return status(await find(request, job_id))

    @routes.get(
        "/jobs/{job_id}/result",
        summary="What was said in a completed job's recording",
        description=docs.RESULT,
        responses=docs.RESULT_ANSWERS,
        response_class=Response,
    )
    async def result(
        request: Request,
        job_id: str,
        format: str = "",
        words: bool | None = None,
        include_timestamps: bool | None = None,
    ) -> Response:
        wanted = read_format(format) if format else None
        job = await find(request, job_id)
        if job.status is Status.FAILED:
            return refused(ASRError(Code.INTERNAL, f"The job failed: {job.error}"))
        transcript = job.transcript
        if transcript is None:
            raise ASRError(Code.BAD_REQUEST, _not_done(job), param="job_id")
        kept = shape_of(job.labels)
        shape = Shape(
            kept.timestamps if include_timestamps is None else include_timestamps,
            kept.words if words is None else words,
            wanted or kept.format,
        )
        body = body_of(transcript, shape, filename=job.filename, now=over_at(job))
        return with_notes(Response(body.content, media_type=body.media_type), notes_of(transcript))

    @routes.post("/jobs/{job_id}/cancel", summary="Cancel a job", responses=docs.CANCEL_ANSWERS, response_model=None)
    async def cancel(request: Request, job_id: str) -> dict[str, Any]:
        """Its work stops within a second. A job that is over cannot be cancelled."""
        await find(request, job_id)
        return cancelled(await jobs.cancel(job_id))

    @routes.delete(
        "/jobs/{job_id}", summary="Forget a job that is over", responses=docs.DELETE_ANSWERS, status_code=204
    )
    async def delete(request: Request, job_id: str) -> Response:
        """Its result is gone for good. Cancel a job that is not over first."""
        await find(request, job_id)
        await jobs.delete(job_id)
        return Response(status_code=204)

    return routes


async def _meant(desk: Desk, options: Options) -> tuple[Options, tuple[str, ...]]:
    """The options with the model that is meant by its name, and what the client should know now.

    A recognizer that is away now may be back when the job's turn comes: then it is matched.
    """
    try:
        agreement = await desk.agree(options)
    except ASRError as error:
        if error.code not in (Code.UNAVAILABLE, Code.TIMEOUT, Code.OVERLOADED):
            raise
        model, note = resolve_model(options.model, (), desk.aliases)
        return replace(options, model=model), (note,) if note else ()
    model = agreement.options.model if options.model else ""
    return replace(options, model=model), agreement.warnings


@contextmanager
def _full_disk_told(desk: Desk) -> Iterator[None]:
    """A job takes no stream's place; that there is no room for one counts as a refusal, so that somebody is woken."""
    try:
        yield
    except ASRError as error:
        if error.code is Code.STORAGE_FULL:
            desk.telemetry.refused("rest", error.code)
        raise


def _key(request: Request, asked: Asked) -> str:
    key = request.headers.get("idempotency-key", "").strip() or asked.idempotency_key
    if len(key) > MAX_KEY_CHARS or not key.isprintable():
        text = f"The idempotency key must have at most {MAX_KEY_CHARS} printable characters."
        raise ASRError(Code.BAD_REQUEST, text, param="Idempotency-Key")
    return key


def _limit(given: str) -> int:
    if not given:
        return DEFAULT_PAGE
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= MAX_PAGE):
        raise ASRError(Code.BAD_REQUEST, f"limit is {quoted(given)}; it must be 1 to {MAX_PAGE}.", param="limit")
    return int(given)


def _status(given: str) -> Status | None:
    if not given:
        return None
    try:
        return Status(given.lower())
    except ValueError:
        there = ", ".join(status.value for status in Status)
        text = f"There is no status {quoted(given)}. There are {there}."
        raise ASRError(Code.BAD_REQUEST, text, param="status") from None


def _not_done(job: JobView) -> str:
    if job.status is Status.CANCELLED:
        return "The job was cancelled; it has no result."
    return f"The job is {job.status.value}, not completed yet ({job.progress_percent} %). Ask again later."
