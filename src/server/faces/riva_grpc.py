"""The Riva gRPC face: `nvidia.riva.asr.RivaSpeechRecognition` and `grpc.health.v1.Health` over an engine.

Unmodified Riva clients come in here. What their messages mean is in `asr.riva_codec`; here they are received,
bounded and answered. What was understood in another way than the client may think is said in the response
metadata, one `riva-gateway-note` each.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn

import grpc
import grpc.aio
import structlog

from asr.audio import AudioDecoder, Stereo
from asr.engine import Agreement, AudioInput, EndUtterance, Engine, agree
from asr.errors import ASRError, Code
from asr.events import Event, Final, Progress
from asr.options import Options
from asr.riva_codec import ResponseWriter, config_rows, options_from, write_recognize
from asr.riva_proto import Message, asr_grpc, health, health_grpc
from server.refusals import refusal

log = structlog.get_logger(__name__)

NOTE_KEY = "riva-gateway-note"
CODE_KEY = "riva-gateway-code"
RETRY_KEY = "riva-gateway-retry-after-ms"
MAX_NOTES = 16
MAX_NOTE_CHARS = 300
SLICE_BYTES = 64 * 1024
"""A whole recording is decoded in slices of this size, with the loop free in between."""
SERVICES = ("", "nvidia.riva.asr.RivaSpeechRecognition")

_PUBLISHED_NAME = re.compile(
    r"(?:ai-)?(?:parakeet|nemotron|canary|conformer|citrinet|whisper)(?:-[\w.]+)*-asr(?:-[\w.]+)*", re.IGNORECASE
)
"""How NVIDIA names the models of its cloud; clients send such names unasked."""


@dataclass(frozen=True, slots=True)
class RivaFaceLimits:
    """The bounds of this face.

    Attributes:
        first_message_timeout_ms: until a client must have sent its configuration.
        idle_timeout_ms: the longest silence of a client between two messages.
        slow_reader_timeout_ms: how long one response may wait for the client to take it.
        health_interval_ms: how often a watched health state is looked at.
    """

    first_message_timeout_ms: int = 10_000
    idle_timeout_ms: int = 300_000
    slow_reader_timeout_ms: int = 30_000
    health_interval_ms: int = 2_000


def add_riva_face(
    server: grpc.aio.Server,
    engine: Engine,
    *,
    stereo: Stereo = "mix",
    aliases: Mapping[str, str] | None = None,
    published_names: bool = True,
    limits: RivaFaceLimits | None = None,
) -> None:
    """Register the recognition and health services on `server`, before it is started.

    The size of messages is bounded by the server's own `grpc.max_receive_message_length`.

    Args:
        server: where to register.
        engine: who recognizes.
        stereo: mix several channels down, or refuse them.
        aliases: model names that clients may use → the served model that is meant ("" for the engine's choice).
        published_names: take the names of NVIDIA's published cloud models for the served model.
        limits: the bounds.
    """
    limits = limits or RivaFaceLimits()
    recognition = _Recognition(engine, stereo, dict(aliases or {}), published_names, limits)
    asr_grpc.add_RivaSpeechRecognitionServicer_to_server(recognition, server)
    health_grpc.add_HealthServicer_to_server(_Health(engine, limits), server)


@dataclass(slots=True)
class _Notes:
    """What to tell the client beside the results."""

    said: list[str] = field(default_factory=list)

    def add(self, *sentences: str) -> None:
        self.said += [s for s in sentences if s not in self.said][: MAX_NOTES - len(self.said)]

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple((NOTE_KEY, _printable(sentence)) for sentence in self.said)


class _Recognition:
    """The servicer of `RivaSpeechRecognition`."""

    def __init__(
        self,
        engine: Engine,
        stereo: Stereo,
        aliases: Mapping[str, str],
        published_names: bool,
        limits: RivaFaceLimits,
    ) -> None:
        self._engine = engine
        self._stereo: Stereo = stereo
        self._aliases = aliases
        self._published_names = published_names
        self._limits = limits

    async def StreamingRecognize(self, _requests: Message, context: Message) -> None:  # noqa: N802 - the proto's name
        """Audio in, results out while it arrives."""
        notes = _Notes()
        try:
            await self._stream(context, notes)
        except Exception as error:
            await _refuse(context, error, notes)
        context.set_trailing_metadata(notes.metadata())

    async def Recognize(self, request: Message, context: Message) -> Message:  # noqa: N802
        """A whole recording in, all results out."""
        notes = _Notes()
        try:
            response = await self._recognize(request, notes)
        except Exception as error:
            await _refuse(context, error, notes)
        context.set_trailing_metadata(notes.metadata())
        return response

    async def GetRivaSpeechRecognitionConfig(self, request: Message, context: Message) -> Message:  # noqa: N802
        """The models, a row for each use of each."""
        try:
            models = await self._engine.models()
            if request.model_name:
                named = [model for model in models if model.name == request.model_name]
                if not named:
                    names = ", ".join(model.name for model in models)
                    raise ASRError(
                        Code.NOT_FOUND, f"There is no model {request.model_name!r}. Models served here: {names}."
                    )
                models = named
            return config_rows(models)
        except Exception as error:
            await _refuse(context, error, _Notes())

    async def _stream(self, context: Message, notes: _Notes) -> None:
        first = await self._first_message(context)
        config = first.streaming_config
        options, fmt = options_from(
            config.config, partials=config.interim_results, request_id=_request_id(first, context)
        )
        decoder = AudioDecoder(fmt, stereo=self._stereo)
        agreement = await self._agree(options, notes)
        # Sent at once, so that a client knows its stream stands before there is anything to say.
        await context.send_initial_metadata(notes.metadata())
        writer = ResponseWriter(options)
        audio = self._audio(context, decoder, notes)
        events = self._engine.stream(audio, agreement.options)
        try:
            async for event in events:
                response = writer.write(event)
                if response is not None:
                    await self._send(context, response)
        finally:
            await events.aclose()
            await audio.aclose()
            notes.add(*decoder.warnings)

    async def _first_message(self, context: Message) -> Message:
        limit_s = self._limits.first_message_timeout_ms / 1000
        try:
            async with asyncio.timeout(limit_s):
                first = await context.read()
        except TimeoutError:
            raise ASRError(
                Code.IDLE_TIMEOUT, f"No message came within {limit_s:g} s. Send the streaming_config first."
            ) from None
        if first is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs forgot it
            raise ASRError(
                Code.BAD_REQUEST, "The stream ended before any message. Send a streaming_config, then audio."
            )
        if first.WhichOneof("streaming_request") != "streaming_config":
            raise ASRError(
                Code.BAD_REQUEST,
                "The first message must carry a streaming_config; this one does not.",
                param="streaming_config",
            )
        return first

    async def _audio(self, context: Message, decoder: AudioDecoder, notes: _Notes) -> AsyncGenerator[AudioInput]:
        idle_s = self._limits.idle_timeout_ms / 1000
        while True:
            try:
                async with asyncio.timeout(idle_s):
                    request = await context.read()
            except TimeoutError:
                raise ASRError(Code.IDLE_TIMEOUT, f"No audio came for {idle_s:g} s. Open a new stream.") from None
            if request is grpc.aio.EOF:  # type: ignore[attr-defined]
                break
            data = request.audio_content
            if data:
                pcm = decoder.feed(data)
                if pcm:
                    yield pcm
            elif request.HasField("streaming_config"):
                raise ASRError(Code.BAD_REQUEST, "A second streaming_config came. Open a new stream for it.")
            if request.runtime_config and request.runtime_config.get("force_eou", "").lower() == "true":
                if self._engine.features.end_utterance:
                    yield EndUtterance()
                else:
                    notes.add("This recognizer cannot end an utterance on request; force_eou was ignored.")
        if decoder.received_bytes:
            pcm = decoder.finish()
            if pcm:
                yield pcm

    async def _recognize(self, request: Message, notes: _Notes) -> Message:
        options, fmt = options_from(request.config, partials=False, request_id=request.id.value)
        if not request.audio:
            raise ASRError(Code.BAD_AUDIO, "The audio is empty: not one byte came.", param="audio")
        decoder = AudioDecoder(fmt, stereo=self._stereo)
        agreement = await self._agree(options, notes)
        finals: list[Final] = []
        audio_ms = 0
        audio = _decoded(request.audio, decoder)
        events: AsyncGenerator[Event] = self._engine.stream(audio, agreement.options)
        try:
            async for event in events:
                if isinstance(event, Final) and event.text:
                    finals.append(event)
                elif isinstance(event, Progress):
                    audio_ms = event.processed_ms
        finally:
            await events.aclose()
            await audio.aclose()
            notes.add(*decoder.warnings)
        return write_recognize(finals, options, audio_ms)

    async def _agree(self, options: Options, notes: _Notes) -> Agreement:
        models = await self._engine.models()
        asked = options.model
        if asked and all(model.name != asked for model in models):
            if asked in self._aliases:
                options = replace(options, model=self._aliases[asked])
            elif self._published_names and _PUBLISHED_NAME.fullmatch(asked):
                options = replace(options, model="")
        agreement = agree(options, models, self._engine.features)
        if options.model != asked:
            notes.add(f"The model {asked!r} is not served here; {agreement.model.name!r} answers in its place.")
        notes.add(*agreement.warnings)
        return agreement

    async def _send(self, context: Message, response: Message) -> None:
        limit_s = self._limits.slow_reader_timeout_ms / 1000
        try:
            async with asyncio.timeout(limit_s):
                await context.write(response)
        except TimeoutError:
            raise ASRError(
                Code.SLOW_READER, f"A result was not read for {limit_s:g} s. Read results as they come."
            ) from None


class _Health:
    """The servicer of `grpc.health.v1.Health`."""

    def __init__(self, engine: Engine, limits: RivaFaceLimits) -> None:
        self._engine = engine
        self._limits = limits

    async def Check(self, request: Message, context: Message) -> Message:  # noqa: N802 - the proto's name
        """Whether streams can be served now."""
        if request.service not in SERVICES:
            names = ", ".join(repr(name) for name in SERVICES)
            await context.abort(grpc.StatusCode.NOT_FOUND, f"No such service. Services here: {names}.")
        return health.HealthCheckResponse(status=await self._status(request.service))

    async def Watch(self, request: Message, context: Message) -> AsyncIterator[Message]:  # noqa: N802
        """The same, and again whenever it changes, until the client goes."""
        last: int | None = None
        while not context.cancelled():
            status = await self._status(request.service)
            if status != last:
                last = status
                yield health.HealthCheckResponse(status=status)
            await asyncio.sleep(self._limits.health_interval_ms / 1000)

    async def _status(self, service: str) -> int:
        kinds = health.HealthCheckResponse
        if service not in SERVICES:
            return int(kinds.UNKNOWN)
        readiness = await self._engine.ready()
        return int(kinds.SERVING if readiness.ready else kinds.NOT_SERVING)


async def _decoded(recording: bytes, decoder: AudioDecoder) -> AsyncGenerator[AudioInput]:
    for start in range(0, len(recording), SLICE_BYTES):
        pcm = decoder.feed(recording[start : start + SLICE_BYTES])
        if pcm:
            yield pcm
        await asyncio.sleep(0)
    pcm = decoder.finish()
    if pcm:
        yield pcm


async def _refuse(context: Message, failure: Exception, notes: _Notes) -> NoReturn:
    if isinstance(failure, ASRError):
        error = failure
    else:
        log.error("defect", face="riva_grpc", exc_info=failure)
        error = ASRError(Code.INTERNAL, "The gateway failed in an unexpected way; its log says how.")
    metadata = (*notes.metadata(), (CODE_KEY, error.code.value))
    if error.retry_after_ms is not None:
        metadata += ((RETRY_KEY, str(error.retry_after_ms)),)
    status = grpc.StatusCode[refusal(error.code).grpc_status]
    await context.abort(status, error.message, metadata)
    raise AssertionError("abort always raises")


def _request_id(first: Message, context: Message) -> str:
    # NVIDIA's clients put it in the message; others send it beside.
    if first.id.value:
        return str(first.id.value)
    found = (value for key, value in context.invocation_metadata() or () if key == "x-request-id")
    return str(next(found, ""))


def _printable(sentence: str) -> str:
    # Metadata takes printable ASCII only.
    plain = sentence[:MAX_NOTE_CHARS].encode("ascii", "replace").decode()
    return "".join(char if char.isprintable() else "?" for char in plain)
