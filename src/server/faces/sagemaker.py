"""What a SageMaker endpoint calls in its container: `/ping` and `/invocations`.

A recording comes as multipart form, as JSON with base64, or as the body itself; it goes to a NIM's HTTP API or to the
gateway's recognizer (`server.faces.sagemaker_request` has the rules), and the answer says to which. SageMaker puts the
body of a failure into a sentence of its own and shows that to the caller, whatever the status was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from asr.engine import Agreement
from asr.errors import ASRError, Code
from asr.nim_http import NimHttp
from asr.options import Options
from server.calls import Desk, note_headers, while_connected
from server.faces import sagemaker_answer
from server.faces.sagemaker_docs import ANSWERS, BODIES, PING_ANSWERS
from server.faces.sagemaker_request import (
    ATTRIBUTES_HEADER,
    Chosen,
    Way,
    choose,
    forced_way,
    left_out,
    read_attributes,
    read_members,
    read_options,
)
from server.forms import Upload
from server.readiness import ReadinessWatch
from server.refusals import refusal
from server.telemetry.watch import StreamWatch
from server.uploads import content_type_of, read_body, read_form, read_json

log = structlog.get_logger("server.sagemaker")

_EXAMPLE = '{"audio": "UklGR…", "language_code": "en-US"}'
AGREE_TIMEOUT_S = 2.0
DEFAULT_LANGUAGE = "en-US"
_BODY_TYPES = frozenset({"application/json", "application/octet-stream", ""})
_SUFFIXES = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}


@dataclass(frozen=True, slots=True)
class SageMakerLimits:
    """Bounds of an invocation.

    Attributes:
        max_bytes: of the recording, or of the JSON around it.
        timeout_ms: from the first byte to the answer; SageMaker itself waits 60 s for a real-time endpoint.
    """

    max_bytes: int = 25 * 1024 * 1024
    timeout_ms: int = 58_000


def router(desk: Desk, *, nim: NimHttp | None, watch: ReadinessWatch, limits: SageMakerLimits) -> APIRouter:
    """`/ping` and the three invocation paths.

    Args:
        desk: the gateway's recognizer.
        nim: a NIM's HTTP API, where there is one.
        watch: knows whether the gateway can serve.
        limits: the bounds.
    """
    routes = APIRouter(tags=["SageMaker"], route_class=_ShortErrors)
    face = _Invocations(desk, nim, limits)

    @routes.get("/ping", responses=PING_ANSWERS, response_model=None)
    async def ping() -> JSONResponse:
        """Whether the container may be sent requests: 200, or 503 while the recognizer loads. Answers at once."""
        state = await watch.state()
        return JSONResponse({"ready": state.ready, "detail": state.detail}, 200 if state.ready else 503)

    described: dict[str, Any] = {"responses": ANSWERS, "openapi_extra": BODIES, "response_model": None}

    @routes.post("/invocations", **described)
    async def invoke(request: Request) -> Response:
        """Transcribe a recording. Small ones go to the NIM's HTTP API where there is one; the header
        `X-Amzn-SageMaker-Custom-Attributes` can say otherwise (`transport=grpc`)."""
        return await face.answer(request, Way.AUTO)

    @routes.post("/invocations/http", **described)
    async def invoke_http(request: Request) -> Response:
        """Transcribe by the NIM's HTTP API: the text, without times."""
        return await face.answer(request, Way.HTTP)

    @routes.post("/invocations/grpc", **described)
    async def invoke_grpc(request: Request) -> Response:
        """Transcribe by the gateway's recognizer: with word times, and speakers where they are asked for."""
        return await face.answer(request, Way.GRPC)

    return routes


class _Invocations:
    def __init__(self, desk: Desk, nim: NimHttp | None, limits: SageMakerLimits) -> None:
        self._desk = desk
        self._nim = nim
        self._limits = limits

    async def answer(self, request: Request, forced: Way) -> Response:
        """One invocation."""
        attributes = read_attributes(request.headers.get(ATTRIBUTES_HEADER, ""))
        way = forced_way(forced, attributes)
        with self._desk.admitted(request, "sagemaker") as watch:
            try:
                async with asyncio.timeout(self._limits.timeout_ms / 1000), AsyncExitStack() as stack:
                    upload, fields = await self._take_in(request, stack)
                    options = read_options(
                        lambda name: fields.get(name, "") or attributes.get(name, ""),
                        refuse_unsupported=self._desk.refuse_unsupported,
                    )
                    recognizing = self._recognize(upload, options, way, left_out(fields), watch)
                    answer = await while_connected(request, recognizing)
                    watch.sent_bytes += len(answer.body)
                    return answer
            except TimeoutError:
                raise self._too_slow() from None

    async def _take_in(self, request: Request, stack: AsyncExitStack) -> tuple[Upload, dict[str, str]]:
        """The recording, and the fields beside it."""
        kind = content_type_of(request)
        most = self._limits.max_bytes
        try:
            if kind == "multipart/form-data":
                form = await stack.enter_async_context(await read_form(request, self._desk.spool, max_bytes=most))
                name = "audio" if all(name != "file" for name, _ in form.files) and form.files else "file"
                return form.file(name), {key: value.strip() for key, value in form.values}
            if not kind.startswith(("audio/", "video/")) and kind not in _BODY_TYPES:
                text = (
                    f'The body is {kind}. Send multipart/form-data with a file, JSON with base64 in "audio", or the '
                    "recording itself as audio/wav or application/octet-stream."
                )
                raise ASRError(Code.BAD_REQUEST, text, param="content-type")
            if kind != "application/json":
                body = await read_body(request, self._desk.spool, max_bytes=most)
                return await stack.enter_async_context(body), {}
            upload, members = await read_json(
                request, self._desk.spool, max_bytes=most, max_body_bytes=most, example=_EXAMPLE
            )
        except ASRError as error:
            if error.code is Code.TOO_LARGE and error.param in ("file", "body", "audio"):
                raise self._too_large() from error
            raise
        return await stack.enter_async_context(upload), read_members(members)

    async def _recognize(
        self, upload: Upload, options: Options, way: Way, notes: tuple[str, ...], watch: StreamWatch
    ) -> Response:
        chosen = choose(
            way,
            size_bytes=upload.size_bytes,
            head=await asyncio.to_thread(_head, upload.path),
            diarization=options.diarization is not None,
            has_nim=self._nim is not None,
            refuse_unsupported=self._desk.refuse_unsupported,
        )
        if chosen.way is Way.HTTP and self._nim is not None:
            try:
                asked = replace(options, diarization=None)
                return await self._over_http(self._nim, upload, asked, chosen, notes)
            except ASRError as error:
                if not chosen.may_turn:
                    raise
                log.info("HTTP route failed, the recognizer is asked", code=error.code.value, error=error.message)
                chosen = replace(chosen, why_not=error.code.value)
        agreement = await self._desk.agree(options)
        transcript = await self._desk.transcribe(upload, agreement, watch)
        said = [*notes, chosen.note] if chosen.note else [*notes]
        body = sagemaker_answer.from_transcript(transcript, Way.GRPC, said)
        attributes = sagemaker_answer.attributes(Way.GRPC, self._desk.engine.name, chosen.why_not)
        return _answered(body, attributes, [*said, *transcript.warnings])

    async def _over_http(
        self, nim: NimHttp, upload: Upload, options: Options, chosen: Chosen, left_out: tuple[str, ...]
    ) -> Response:
        agreement = await self._agreed(options)
        language, model, name = options.language, options.model, options.model
        notes = [*left_out, chosen.note] if chosen.note else [*left_out]
        if agreement is not None:
            language = agreement.options.language
            # A name that was not asked for is better left to the NIM: its HTTP API knows fewer of them.
            model = agreement.options.model if model else ""
            name = agreement.model.name
            notes += agreement.warnings
        head = await asyncio.to_thread(_head, upload.path)
        # Where the recognizer may still be asked, it must have time left for it.
        patience_s = self._limits.timeout_ms / 2000 if chosen.may_turn else None
        try:
            async with self._desk.lasting(), asyncio.timeout(patience_s):
                heard = await nim.transcribe(
                    upload.path,
                    filename=upload.filename or f"audio{_SUFFIXES.get(head, '')}",
                    content_type=upload.content_type if upload.content_type.startswith("audio/") else "",
                    language=language or DEFAULT_LANGUAGE,
                    model=model,
                )
        except TimeoutError:
            raise ASRError(Code.TIMEOUT, "The NIM's HTTP API did not answer in time.") from None
        if heard.model != model:
            notes.append(f"The NIM's HTTP API does not know {model!r} by this name; it chose a model by the language.")
        body = sagemaker_answer.from_text(heard.text, name, Way.HTTP, notes)
        return _answered(body, sagemaker_answer.attributes(Way.HTTP), notes)

    async def _agreed(self, options: Options) -> Agreement | None:
        """What the recognizer makes of the names; None where it cannot say now: then the NIM is asked by them."""
        try:
            async with asyncio.timeout(AGREE_TIMEOUT_S):
                return await self._desk.agree(options)
        except ASRError as error:
            if not error.retryable:
                raise
            return None
        except TimeoutError:
            return None

    def _too_slow(self) -> ASRError:
        return ASRError(
            Code.TIMEOUT,
            f"The recording takes longer than the {self._limits.timeout_ms / 1000:g} s that an invocation may last. "
            "Send it in parts, or put it into S3 and invoke an asynchronous endpoint (with a larger "
            "SAGEMAKER_TIMEOUT_MS).",
        )

    def _too_large(self) -> ASRError:
        return ASRError(
            Code.TOO_LARGE,
            f"The request is larger than {self._limits.max_bytes} bytes. Send a compressed format (FLAC, Opus) or "
            "parts, or put it into S3 and invoke an asynchronous endpoint (with a larger SAGEMAKER_MAX_BYTES).",
            param="file",
        )


class _ShortErrors(APIRoute):
    """Failures as SageMaker can show them: a small JSON object."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The handler, with its failures turned into answers."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except ASRError as error:
                return _refused(error)
            except ClientDisconnect:
                return _refused(ASRError(Code.IDLE_TIMEOUT, "The request was not sent to its end."))
            except Exception:
                log.exception("invocation failed", path=request.url.path)
                text = "The gateway failed while handling this invocation. It has been logged."
                return _refused(ASRError(Code.INTERNAL, text))

        return answer


def _refused(error: ASRError) -> JSONResponse:
    headers = {} if error.retry_after_ms is None else {"Retry-After": str(-(-error.retry_after_ms // 1000))}
    return JSONResponse(sagemaker_answer.from_error(error), refusal(error.code).http_status, headers)


def _answered(body: dict[str, Any], attributes: str, warnings: Iterable[str]) -> JSONResponse:
    answer = JSONResponse(body, headers={ATTRIBUTES_HEADER: attributes})
    for name, value in note_headers(warnings):
        answer.headers.append(name, value)
    return answer


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)
