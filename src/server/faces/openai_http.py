"""OpenAI's HTTP dialect: `POST /v1/audio/transcriptions`, whole answers and streams of server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from asr.engine import Agreement
from asr.errors import ASRError, Code
from asr.events import Event, Final, Partial
from asr.transcript import Transcript
from server.calls import Desk, note_headers, while_connected
from server.deltas import Deltas
from server.faces import openai_docs as docs
from server.faces.openai_answers import Turns, body_of, delta_event, done_event, error_event, notes_of, sse
from server.faces.openai_form import Wanted, read_wanted
from server.telemetry.watch import ClientGone, StreamWatch
from server.uploads import read_form

log = structlog.get_logger("server.openai")

QUIET_S = 15.0
"""A stream that has nothing to say for so long shows that it lives; proxies cut what is silent."""
MAX_ID_CHARS = 128
_ALIVE = b":\n\n"


def router(desk: Desk) -> APIRouter:
    """The routes under `/v1/audio`."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.post(
        "/v1/audio/transcriptions",
        summary="Transcribe a recording",
        response_class=Response,
        responses=docs.TRANSCRIPTION_ANSWERS,
        openapi_extra=docs.TRANSCRIPTION_FORM,
        description=docs.TRANSCRIPTION,
    )
    async def transcriptions(request: Request) -> Response:
        async with AsyncExitStack() as held:
            watch = held.enter_context(desk.admitted(request, "openai"))
            form = await read_form(request, desk.spool, max_bytes=desk.limits.max_upload_bytes)
            await held.enter_async_context(form)
            request_id = _request_id(request)
            wanted = read_wanted(form.values, refuse=desk.refuse_unsupported, request_id=request_id)
            upload = form.file("file")
            agreement = await desk.agree(wanted.options)
            notes = [*wanted.notes, *_check(wanted, agreement, desk)]
            if wanted.stream:
                telling = _Telling(wanted, agreement)
                work = asyncio.create_task(desk.transcribe(upload, agreement, watch, on_event=telling.hear))
                held.push_async_callback(_end, work)
                telling.follow(work)
                await while_connected(request, telling.begun())
                answer: Response = EventStream(telling, held.pop_all(), watch)
                notes += agreement.warnings
            else:
                transcript = await while_connected(request, desk.transcribe(upload, agreement, watch))
                body = body_of(transcript, wanted)
                answer = Response(body.content, media_type=body.media_type)
                watch.sent_bytes += len(answer.body)
                notes += notes_of(transcript)
        for name, value in note_headers(notes):
            answer.headers.append(name, value)
        if request_id:
            answer.headers["x-request-id"] = request_id
        return answer

    @routes.post(
        "/v1/audio/translations",
        summary="Translate a recording (no recognizer here can)",
        response_class=Response,
        responses=docs.TRANSLATION_ANSWERS,
        openapi_extra=docs.TRANSLATION_FORM,
    )
    async def translations() -> Response:
        """Always an error: the recognizers behind this gateway write down what is said in its own language."""
        raise ASRError(
            Code.UNSUPPORTED,
            "The recognizer does not translate: it writes down what is said, in the language in which it is said. "
            "Use /v1/audio/transcriptions.",
        )

    return routes


def _request_id(request: Request) -> str:
    """The client's own id of the request, where it can be passed on."""
    given = request.headers.get("x-request-id", "")
    return given if given.isascii() and given.isprintable() and len(given) <= MAX_ID_CHARS else ""


def _check(wanted: Wanted, agreement: Agreement, desk: Desk) -> list[str]:
    """What the agreement cannot give that the answer's format needs."""
    if wanted.response_format == "diarized_json" and agreement.options.diarization is None:
        raise ASRError(
            Code.UNSUPPORTED,
            "This recognizer cannot tell speakers apart, which diarized_json needs. Ask for json or verbose_json.",
            param="response_format",
        )
    if "word" not in wanted.granularities or agreement.features.words:
        return []
    sentence = "This recognizer gives no times of words; words is empty."
    if desk.refuse_unsupported:
        raise ASRError(Code.UNSUPPORTED, sentence, param="timestamp_granularities")
    return [sentence]


async def _end(work: asyncio.Task[Transcript]) -> None:
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


class _Telling:
    """What a stream's client is told: made while the recording is recognized, sent as fast as the client reads.

    What waits is bounded by the text of the recording: nothing is sent twice.
    """

    def __init__(self, wanted: Wanted, agreement: Agreement) -> None:
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._begun = asyncio.Event()
        self._deltas = Deltas(agreement.options.language)
        self._turns = Turns(agreement.options.language) if wanted.response_format == "diarized_json" else None
        self._told = agreement.warnings
        self._work: asyncio.Task[Transcript] | None = None

    def follow(self, work: asyncio.Task[Transcript]) -> None:
        """The end of `work` is the end of the stream."""
        self._work = work
        work.add_done_callback(self._finish)

    def hear(self, event: Event) -> None:
        """The recognizer said something."""
        match event:
            case Partial() if self._turns is None:
                self._delta(self._deltas.partial(event.text, event.stable_chars, event.channel))
            case Final() if self._turns is not None:
                for segment in self._turns.of(event):
                    self._delta(self._deltas.final(segment["text"], event.channel), segment["id"])
                    self._say(sse(segment))
            case Final():
                self._delta(self._deltas.final(event.text, event.channel))

    async def begun(self) -> None:
        """Wait for the first words, for `QUIET_S` at most.

        Raises:
            ASRError: it failed before; the client gets a plain error.
        """
        assert self._work is not None
        try:
            async with asyncio.timeout(QUIET_S):
                await self._begun.wait()
        except TimeoutError:
            return
        if self._work.done() and self._waiting.qsize() == 1:
            self._work.result()

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The stream's bytes, to its end."""
        while True:
            try:
                async with asyncio.timeout(QUIET_S):
                    piece = await self._waiting.get()
            except TimeoutError:
                yield _ALIVE
                continue
            if piece is None:
                break
            yield piece
        assert self._work is not None
        yield sse(self._last_event(self._work))

    def check(self) -> None:
        """Raise what went wrong, once everything has been told.

        Raises:
            ASRError: the recognition failed.
        """
        assert self._work is not None
        if self._work.done() and (error := self._work.exception()) is not None:
            raise error if isinstance(error, ASRError) else _defect() from error

    def _last_event(self, work: asyncio.Task[Transcript]) -> dict[str, Any]:
        try:
            transcript = work.result()
        except ASRError as error:
            return error_event(error)
        except Exception as error:
            log.error("stream broke", error=repr(error))
            return error_event(_defect())
        return done_event(transcript, [note for note in notes_of(transcript) if note not in self._told])

    def _delta(self, delta: str, segment_id: str = "") -> None:
        if delta:
            self._say(sse(delta_event(delta, segment_id)))

    def _say(self, piece: bytes | None) -> None:
        self._waiting.put_nowait(piece)
        self._begun.set()

    def _finish(self, _: asyncio.Task[Transcript]) -> None:
        self._say(None)


class EventStream(Response):
    """A stream of server-sent events that holds what it needs until its end, and ends when the client goes."""

    media_type = "text/event-stream"

    def __init__(self, telling: _Telling, held: AsyncExitStack, watch: StreamWatch) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._telling = telling
        self._held = held
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events as they come. A failure has been told by then; what is held hears of it, for the log."""
        with contextlib.suppress(ASRError):
            async with self._held:
                await self._send_until_gone(receive, send)
                self._telling.check()

    async def _send_until_gone(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise ClientGone
            sending.result()
        finally:
            sending.cancel()
            gone.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        async for piece in self._telling.pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self._watch.sent_bytes += len(piece)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _defect() -> ASRError:
    return ASRError(Code.INTERNAL, "The gateway failed in a way that it should not; its log says how.")


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
