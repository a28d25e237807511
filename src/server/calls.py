"""One use of the boundary for faces that are calls: a request with a whole recording, one answer or one stream.

A face reads its request into `Options` and an `Upload`, and writes its answer from a `Transcript` or from events;
what lies between them is here once: the place, the model that is meant, decoding off the loop, bounds, and the end of
the work when the client goes away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from asr.audio import AudioSource, Stereo, open_audio
from asr.engine import BYTES_PER_MS, Agreement, AudioInput, Engine
from asr.errors import ASRError, Code
from asr.events import Event
from asr.options import Options
from asr.pulling import pull
from asr.transcript import Transcript, TranscriptBuilder
from server.access.grants import Grant, Scope
from server.access.http import grant_of
from server.access.porter import Porter, open_porter
from server.admission import DRAINING_RETRY_MS, Admission, Place
from server.forms import Upload
from server.models import House
from server.spool import Spool
from server.telemetry.hub import Telemetry
from server.telemetry.takes import TakeWatch
from server.telemetry.watch import ClientGone, StreamWatch

T = TypeVar("T")

NOTE_HEADER = "riva-gateway-note"
MAX_NOTES = 16
MAX_NOTE_CHARS = 300
CHUNK_MS = 1_000


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Bounds of a call that waits for its answer.

    Attributes:
        max_upload_bytes: of one request.
        max_audio_ms: of one recording.
    """

    max_upload_bytes: int = 64 * 1024 * 1024
    max_audio_ms: int = 3_600_000


class Desk:
    """Where call-shaped faces have their recordings recognized.

    Attributes:
        engine: who recognizes.
        spool: where uploads go.
        limits: the bounds.
        refuse_unsupported: whether what the engine cannot do refuses a request; else it is left out with a note.
        stereo: what becomes of several channels.
        porter: gives callers their places, and counts what they use.
        telemetry: told of every call.
    """

    def __init__(
        self,
        engine: Engine,
        admission: Admission,
        spool: Spool,
        *,
        limits: CallLimits | None = None,
        aliases: Mapping[str, str] | None = None,
        refuse_unsupported: bool = False,
        stereo: Stereo = "mix",
        porter: Porter | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.engine = engine
        self.telemetry = telemetry if telemetry is not None else Telemetry()
        self.porter = porter if porter is not None else open_porter()
        self.spool = spool
        self.limits = limits or CallLimits()
        self.refuse_unsupported = refuse_unsupported
        self.stereo: Stereo = stereo
        self._admission = admission
        self._house = House(dict(aliases or {}), refuse_unsupported)
        self._waits: set[asyncio.Timeout] = set()
        self._given_up = False

    @property
    def draining(self) -> bool:
        """Whether the gateway goes down, and takes no more calls."""
        return self._admission.draining

    @property
    def active_streams(self) -> int:
        """Places that are taken, over all faces."""
        return self._admission.in_use

    @property
    def aliases(self) -> Mapping[str, str]:
        """The operator's own names for served models."""
        return self._house.aliases

    def admit(self, request: Request) -> Place:
        """Take a place for the length of a call; `release` it.

        Raises:
            ASRError: see `Admission.admit`.
        """
        return self.porter.admit(self._admission, self.grant(request))

    @contextmanager
    def admitted(self, request: Request, face: str) -> Iterator[StreamWatch]:
        """A place for the length of a call, and a watch over it.

        Raises:
            ASRError: see `Admission.admit`.
        """
        try:
            place = self.admit(request)
        except ASRError as error:
            self.telemetry.refused(face, error.code)
            raise
        grant = self.grant(request)
        try:
            headers = request.headers
            watch = self.telemetry.open(
                face,
                kind="recording",
                peer=request.client.host if request.client else "unknown",
                principal=grant.principal,
                traceparent=headers.get("traceparent", ""),
                tracestate=",".join(headers.getlist("tracestate")),
            )
            try:
                with watch.until_over():
                    try:
                        yield watch
                    except ClientDisconnect:  # in the middle of its upload
                        raise ClientGone from None
            finally:
                self.porter.usage.spend(grant, watch.audio_ms)
        finally:
            place.release()

    def give_up(self) -> None:
        """The gateway goes down and can wait no longer: recognition that runs fails now, so that callers are told."""
        self._given_up = True
        now = asyncio.get_running_loop().time()
        for wait in list(self._waits):
            wait.reschedule(now)

    @asynccontextmanager
    async def lasting(self) -> AsyncGenerator[None]:
        """Around work that may go on until `give_up`.

        Raises:
            ASRError: `unavailable`, when it came to that.
        """
        wait = asyncio.timeout(0 if self._given_up else None)
        self._waits.add(wait)
        try:
            async with wait:
                yield
        except TimeoutError:
            if not wait.expired():
                raise
            text = "The gateway is shutting down, and this recording was not done in time. Send it again in a moment."
            raise self._admission.later(Code.UNAVAILABLE, text, DRAINING_RETRY_MS) from None
        finally:
            self._waits.discard(wait)

    def principal(self, request: Request) -> str:
        """Who the client is."""
        return self.grant(request).principal

    def grant(self, request: Request) -> Grant:
        """What the client may do: as it was let in.

        Raises:
            ASRError: `unauthorized`, for who came past the door; where that is open, its headers tell who it is.
        """
        shown = grant_of(request.scope.get("state"))
        if shown is not None:
            return shown
        address = request.client.host if request.client else "unknown"
        return self.porter.gate.enter(request.headers.items(), address, Scope.TRANSCRIBE)

    def count_start(self, request: Request) -> None:
        """Count a request that takes no place now.

        Raises:
            ASRError: `rate_limited` where a quota is used up.
        """
        error = self.porter.usage.start(self.grant(request))
        if error is not None:
            raise error

    async def agree(self, options: Options) -> Agreement:
        """Match what is asked with what the engine has; the model may be named as other services name theirs.

        Raises:
            ASRError: see `asr.engine.agree`.
        """
        return self._house.agree(options, await self.engine.models(), self.engine.features)

    async def transcribe(
        self,
        upload: Upload,
        agreement: Agreement,
        watch: StreamWatch,
        *,
        stereo: Stereo | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Transcript:
        """Recognize a whole recording; `watch` is told of it.

        Raises:
            ASRError: `bad_audio` for what cannot be decoded or is over the bound, and what a stream may raise.
        """
        builder = TranscriptBuilder(
            language=agreement.options.language, model=agreement.model.name, warnings=agreement.warnings
        )
        source = _Source(upload, stereo or self.stereo, self.limits.max_audio_ms)
        watch.received_bytes += upload.size_bytes
        watch.agreed(agreement.options.model, agreement.options.language)
        async with self.lasting(), aclosing(self._events(source, agreement, watch)) as events:
            async for event in events:
                builder.add(event)
                if on_event is not None:
                    on_event(event)
        for warning in source.warnings:
            builder.warn(warning)
        return builder.build(source.audio_ms)

    async def _events(self, source: _Source, agreement: Agreement, watch: StreamWatch) -> AsyncGenerator[Event]:
        async with aclosing(pull(source.chunks)) as chunks:
            first = await anext(chunks, b"")  # what is wrong with the file is said before a recognizer is asked
            traceparent = watch.start.trace.header()
            options = replace(agreement.options, channels=source.channels, recording=True, traceparent=traceparent)
            take = watch.take(source.channels)
            audio = _after(first, chunks, source, take)
            try:
                async with aclosing(audio), aclosing(self.engine.stream(audio, options)) as events:
                    async for event in events:
                        take.heard(event)
                        yield event
            except ASRError:
                # What the engine makes of audio that broke off is not what went wrong.
                if source.failure is not None:
                    raise source.failure from None
                raise
            if source.failure is not None:
                raise source.failure


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, and cancel it when the client goes away. The request's body must have been read.

    Raises:
        ClientGone: the client has gone.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def note_headers(warnings: Iterable[str]) -> list[tuple[str, str]]:
    """One header for each warning, cut and made printable; of too many, the last says how many there were."""
    said = list(dict.fromkeys(warnings))
    if len(said) > MAX_NOTES:
        said = [*said[: MAX_NOTES - 1], f"There were {len(said) - MAX_NOTES + 1} more notes like these."]
    return [(NOTE_HEADER, _printable(sentence)) for sentence in said]


def _printable(sentence: str) -> str:
    plain = sentence[:MAX_NOTE_CHARS].encode("ascii", "replace").decode()
    return "".join(char if char.isprintable() else "?" for char in plain)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Source:
    """A recording, decoded on a thread that `pull` owns."""

    def __init__(self, upload: Upload, stereo: Stereo, max_audio_ms: int) -> None:
        self._upload = upload
        self._stereo: Stereo = stereo
        self._max_ms = max_audio_ms
        self._bytes = 0
        self.channels = 1
        self.warnings: list[str] = []
        self.failure: ASRError | None = None

    @property
    def audio_ms(self) -> int:
        return self._bytes // (BYTES_PER_MS * self.channels)

    def chunks(self) -> Iterator[bytes]:
        try:
            with open_audio(self._upload.path, stereo=self._stereo, chunk_ms=CHUNK_MS) as audio:
                self._check(audio)
                self.warnings = audio.warnings
                self.channels = getattr(audio, "channels", 1)
                for chunk in audio:
                    self._bytes += len(chunk)
                    if self.audio_ms > self._max_ms:
                        raise self._too_long()
                    yield chunk
        except ASRError as error:
            # Our own name for the file is not the client's.
            name = self._upload.filename or "the audio"
            message = error.message.replace(self._upload.path.name, name)
            raise ASRError(error.code, message, param=error.param or "file") from error

    def _check(self, audio: AudioSource) -> None:
        if audio.duration_ms is not None and audio.duration_ms > self._max_ms:
            raise self._too_long()

    def _too_long(self) -> ASRError:
        text = (
            f"The recording is longer than the {self._max_ms / 60_000:g} minutes that are accepted here. "
            "Send it in parts, or as a job (POST /transcribe/async)."
        )
        return ASRError(Code.BAD_REQUEST, text, param="file")


async def _after(
    first: bytes, rest: AsyncGenerator[bytes], source: _Source, take: TakeWatch
) -> AsyncGenerator[AudioInput]:
    if first:
        take.fed(len(first))
        take.taken()
        yield first
    try:
        async for chunk in rest:
            take.fed(len(chunk))
            take.taken()
            yield chunk
    except ASRError as error:
        # The engine still brings home what it has heard; then this is told.
        source.failure = error
