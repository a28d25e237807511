"""The Riva gRPC face: `nvidia.riva.asr.RivaSpeechRecognition` (and health beside it) over an engine.

Unmodified Riva clients come in here. What their messages mean is in `asr.riva_codec`; here they are received,
bounded and answered. What was understood in another way than the client may think is said in the response
metadata, one `riva-gateway-note` each. A stream that must end before its client wanted (it sent something
wrong, or the gateway shuts down) ends its audio first, so that what was said until then is still answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace

import grpc.aio
from grpc_reflection.v1alpha import reflection

from asr.audio import AudioDecoder, Stereo
from asr.engine import Agreement, AudioInput, EndUtterance, Engine
from asr.errors import ASRError, Code, quoted
from asr.events import Final, Gap, Progress
from asr.options import Options
from asr.riva_codec import ResponseWriter, config_rows, options_from, write_recognize
from asr.riva_proto import Message, asr_grpc, health_grpc
from server.access.porter import Porter, open_porter
from server.admission import Admission
from server.faces.riva_answers import Notes, missing, refuse
from server.faces.riva_audio import Ended, counted, decoded, rest_of
from server.faces.riva_door import Door, RivaFaceLimits
from server.faces.riva_health import Health
from server.models import House, resolve_model
from server.telemetry.hub import Telemetry
from server.telemetry.takes import TakeWatch
from server.telemetry.watch import StreamWatch

__all__ = ["RivaFace", "RivaFaceLimits", "add_riva_face"]

REFLECTED = ("nvidia.riva.asr.RivaSpeechRecognition", "grpc.health.v1.Health", reflection.SERVICE_NAME)


class RivaFace:
    """The face of a running server."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def close(self) -> None:
        """Let nobody in any more, and have health say that nothing is served; streams go on."""
        self._door.close()

    def drain(self) -> None:
        """Before the server stops: end the audio of every stream, so that each gets its last finals and ends.

        Calls that come after this are refused as `unavailable`, and health says that nothing is served.
        """
        self._door.drain()


def add_riva_face(
    server: grpc.aio.Server,
    engine: Engine,
    admission: Admission,
    *,
    stereo: Stereo = "mix",
    aliases: Mapping[str, str] | None = None,
    refuse_unsupported: bool = False,
    limits: RivaFaceLimits | None = None,
    porter: Porter | None = None,
    telemetry: Telemetry | None = None,
) -> RivaFace:
    """Register recognition, health and reflection on `server`, before it is started.

    The size of messages is bounded by the server's own `grpc.max_receive_message_length`.

    Args:
        server: where to register.
        engine: who recognizes.
        admission: gives each call its place.
        stereo: mix several channels down, refuse them, or recognize each on its own. A client that asks for separate
            recognition gets it, unless they are refused.
        aliases: model names that clients may use → the served model that is meant ("" for the engine's choice).
        refuse_unsupported: refuse what the engine cannot do; else it is left out with a note.
        limits: the bounds.
        porter: counts what callers use; who may come in is asked by the interceptor of `server` (`server.access.grpc`).
        telemetry: told of every call.

    Returns:
        The face, to be drained before the server is stopped.
    """
    limits = limits or RivaFaceLimits()
    door = Door(
        admission,
        porter if porter is not None else open_porter(),
        telemetry if telemetry is not None else Telemetry(),
    )
    recognition = _Recognition(engine, stereo, dict(aliases or {}), refuse_unsupported, limits, door)
    asr_grpc.add_RivaSpeechRecognitionServicer_to_server(recognition, server)
    health_grpc.add_HealthServicer_to_server(Health(engine, door, limits.health_interval_ms), server)
    reflection.enable_server_reflection(REFLECTED, server)
    return RivaFace(door)


class _Recognition:
    """The servicer of `RivaSpeechRecognition`."""

    def __init__(
        self,
        engine: Engine,
        stereo: Stereo,
        aliases: Mapping[str, str],
        refuse_unsupported: bool,
        limits: RivaFaceLimits,
        door: Door,
    ) -> None:
        self._engine = engine
        self._stereo: Stereo = stereo
        self._house = House(aliases, refuse_unsupported)
        self._limits = limits
        self._door = door

    async def StreamingRecognize(self, _requests: Message, context: Message) -> None:  # noqa: N802 - the proto's name
        """Audio in, results out while it arrives."""
        notes = Notes()
        try:
            with self._door.admitted(context, "live") as watch:
                await self._stream(context, notes, watch)
        except Exception as error:
            await refuse(context, error, notes)
        context.set_trailing_metadata(notes.metadata())

    async def Recognize(self, request: Message, context: Message) -> Message:  # noqa: N802
        """A whole recording in, all results out."""
        notes = Notes()
        try:
            with self._door.admitted(context, "recording") as watch:
                response = await self._recognize(request, context, notes, watch)
        except Exception as error:
            await refuse(context, error, notes)
        context.set_trailing_metadata(notes.metadata())
        return response

    async def GetRivaSpeechRecognitionConfig(self, request: Message, context: Message) -> Message:  # noqa: N802
        """The models, a row for each use of each."""
        try:
            self._door.check()
            models = await self._engine.models()
            asked, _ = resolve_model(request.model_name.strip(), models, self._house.aliases)
            if asked:
                named = [model for model in models if model.name == asked]
                if not named:
                    names = ", ".join(model.name for model in models)
                    raise ASRError(
                        Code.NOT_FOUND, f"There is no model {quoted(request.model_name)}. Models served here: {names}."
                    )
                models = named
            return config_rows(models)
        except Exception as error:
            await refuse(context, error, Notes())

    async def _stream(self, context: Message, notes: Notes, watch: StreamWatch) -> None:
        first = await self._first_message(context)
        config = first.streaming_config
        options, fmt = options_from(
            config.config, partials=config.interim_results, request_id=_request_id(first, context)
        )
        decoder = AudioDecoder(fmt, stereo=self._channels(config.config))
        agreement = await self._agree(options, notes, watch)
        self._door.check()
        # Sent at once, so that a client knows its stream stands before there is anything to say.
        await context.send_initial_metadata(notes.metadata())
        writer = ResponseWriter(options)
        ended = Ended()
        take = watch.take()
        source = self._audio(context, decoder, agreement, notes, ended, take)
        try:
            async with aclosing(source):
                audio, channels = await counted(source, decoder) if self._splits(config.config) else (source, 1)
                stream = self._engine.stream(audio, replace(agreement.options, channels=channels))
                async with aclosing(audio), aclosing(stream) as events:
                    async for event in events:
                        told = take.heard(event)
                        if isinstance(event, Gap):
                            notes.add(missing(event))
                        response = writer.write(event)
                        if response is not None:
                            await self._send(context, response)
                            watch.sent_bytes += response.ByteSize()
                            if told is not None:
                                watch.sent(told)
        except ASRError:
            # What the engine makes of audio that was cut short is not what went wrong.
            if ended.failure is None:
                raise
        finally:
            notes.add(*decoder.warnings)
        if ended.failure is not None:
            raise ended.failure
        if ended.drained:
            notes.add("The gateway is shutting down; audio after this was not heard. Open a new stream for it.")

    async def _first_message(self, context: Message) -> Message:
        limit_s = self._limits.first_message_timeout_ms / 1000
        try:
            first = await self._door.read(context, limit_s)
        except TimeoutError:
            raise ASRError(
                Code.IDLE_TIMEOUT, f"No message came within {limit_s:g} s. Send the streaming_config first."
            ) from None
        if first is None:
            raise self._door.shutting_down()
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

    async def _audio(
        self,
        context: Message,
        decoder: AudioDecoder,
        agreement: Agreement,
        notes: Notes,
        ended: Ended,
        take: TakeWatch,
    ) -> AsyncGenerator[AudioInput]:
        while True:
            try:
                request = await self._next(context, ended)
                if request is None:
                    break
                received = take.came(len(request.audio_content))
                pcm = decoder.feed(request.audio_content) if request.audio_content else b""
            except ASRError as error:
                # Not raised here: the engine would drop what it has heard. It is once the last final is out.
                ended.failure = error
                break
            if pcm:
                take.fed(len(pcm), received, channels=decoder.out_channels)
                take.taken()
                yield pcm
            if request.runtime_config and _ends_utterance(request.runtime_config, notes):
                if agreement.features.end_utterance:
                    yield EndUtterance()
                else:
                    notes.add("This recognizer cannot end an utterance on request; force_eou was ignored.")
        if decoder.received_bytes:
            pcm = rest_of(decoder, ended)
            if pcm:
                take.fed(len(pcm), channels=decoder.out_channels)
                take.taken()
                yield pcm

    async def _next(self, context: Message, ended: Ended) -> Message | None:
        # None at the end of the audio.
        idle_s = self._limits.idle_timeout_ms / 1000
        try:
            request = await self._door.read(context, idle_s)
        except TimeoutError:
            raise ASRError(Code.IDLE_TIMEOUT, f"No audio came for {idle_s:g} s. Open a new stream.") from None
        if request is None:
            ended.drained = True
            return None
        if request is grpc.aio.EOF:  # type: ignore[attr-defined]
            return None
        if not request.audio_content and request.HasField("streaming_config"):
            raise ASRError(Code.BAD_REQUEST, "A second streaming_config came. Open a new stream for it.")
        return request

    async def _recognize(self, request: Message, context: Message, notes: Notes, watch: StreamWatch) -> Message:
        options, fmt = options_from(request.config, partials=False, request_id=_request_id(request, context))
        if not request.audio:
            raise ASRError(Code.BAD_AUDIO, "The audio is empty: not one byte came.", param="audio")
        decoder = AudioDecoder(fmt, stereo=self._channels(request.config))
        agreement = await self._agree(options, notes, watch)
        finals: list[Final] = []
        audio_ms = 0
        take = watch.take()
        take.came(len(request.audio))
        source = decoded(request.audio, decoder, self._limits.max_audio_ms, take)
        try:
            async with aclosing(source):
                audio, channels = await counted(source, decoder) if self._splits(request.config) else (source, 1)
                stream = self._engine.stream(audio, replace(agreement.options, channels=channels, recording=True))
                async with aclosing(audio), aclosing(stream) as events:
                    async for event in events:
                        take.heard(event)
                        if isinstance(event, Final) and event.text:
                            finals.append(event)
                        elif isinstance(event, Progress):
                            audio_ms = event.processed_ms
                        elif isinstance(event, Gap):
                            notes.add(missing(event))
        finally:
            notes.add(*decoder.warnings)
        response = write_recognize(finals, options, audio_ms)
        watch.sent_bytes += response.ByteSize()
        return response

    def _splits(self, config: Message) -> bool:
        return self._channels(config) == "split"

    def _channels(self, config: Message) -> Stereo:
        """What becomes of several channels in this call."""
        asked = config.enable_separate_recognition_per_channel and self._stereo != "refuse"
        return "split" if asked else self._stereo

    async def _agree(self, options: Options, notes: Notes, watch: StreamWatch) -> Agreement:
        models = await self._engine.models()
        agreement = self._house.agree(options, models, self._engine.features)
        notes.add(*agreement.warnings)
        watch.agreed(agreement.options.model, agreement.options.language)
        return replace(agreement, options=replace(agreement.options, traceparent=watch.start.trace.header()))

    async def _send(self, context: Message, response: Message) -> None:
        limit_s = self._limits.slow_reader_timeout_ms / 1000
        try:
            async with asyncio.timeout(limit_s):
                await context.write(response)
        except TimeoutError:
            raise ASRError(
                Code.SLOW_READER, f"A result was not read for {limit_s:g} s. Read results as they come."
            ) from None


def _ends_utterance(runtime_config: Mapping[str, str], notes: Notes) -> bool:
    unknown = sorted(key for key in runtime_config if key != "force_eou")
    if unknown:
        notes.add(f"runtime_config {quoted(unknown[0])} is not known here and was ignored; force_eou is.")
    return runtime_config.get("force_eou", "").lower() == "true"


def _request_id(first: Message, context: Message) -> str:
    # NVIDIA's clients put it in the message; others send it beside.
    if first.id.value:
        return str(first.id.value)
    found = (value for key, value in context.invocation_metadata() or () if key == "x-request-id")
    return str(next(found, ""))
