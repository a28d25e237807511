"""The `riva` engine: one Riva or Speech NIM endpoint over gRPC.

What a stream does is in `asr.engines.riva_call`, its connections in `asr.engines.riva_channels`; what its
messages mean, in `asr.riva_codec`. Answers come as bytes and are read here: gRPC for asyncio would wait for ever
after one that it cannot read.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from asr.config import RivaConfig
from asr.engine import BYTES_PER_MS, AudioInput, EndUtterance, Features, Model, Readiness
from asr.engines.riva_call import RivaCall
from asr.engines.riva_channels import Channels, Lease
from asr.engines.riva_tls import client_tls
from asr.errors import ASRError, Code
from asr.events import Event, Flushed
from asr.options import Options
from asr.riva_codec import error_from_status, read_models, read_recognize, recognize_config, wire_language
from asr.riva_proto import Message
from asr.riva_proto import asr as pb

MODELS_FRESH_S = 1.0
"""For how long a list of models is taken as it was, where no call fails: those who look after health ask here."""
READY_TIMEOUT_MS = 3_000
"""The longest that `ready` takes."""
TRACE_KEY = "traceparent"
"""The metadata in which a server is told of the caller's trace."""
Metadata = tuple[tuple[str, str], ...]

_SERVICE = "/nvidia.riva.asr.RivaSpeechRecognition/"
_FORCE_EOU_MODELS = ("nemotron",)
_HUNG_UP = re.compile(r"failed to connect.*(?:socket closed|recvmsg|reset by peer)", re.IGNORECASE | re.DOTALL)


class RivaEngine:
    """Streams to one Riva endpoint."""

    name = "riva"

    def __init__(self, config: RivaConfig, *, clock: Callable[[], float] = monotonic) -> None:
        """Read the certificate files; nothing is connected yet.

        Args:
            config: the endpoint.
            clock: seconds, for the age of the list of models.

        Raises:
            ASRError: `bad_request`, when a certificate file cannot be used.
        """
        self._config = config
        self._clock = clock
        self._tls = client_tls(config, clock=clock)
        self._channels = Channels(config, self._tls, clock=clock)
        self._metadata: Metadata = tuple((key.lower(), value) for key, value in config.metadata)
        self._models: tuple[Model, ...] = ()
        self._models_until = 0.0
        self._asking: asyncio.Task[tuple[Model, ...]] | None = None
        self._curious = 0

    @property
    def features(self) -> Features:
        """What Riva can do; whether `force_eou` is known is told by the setting, or the model's name."""
        name = self._config.model or (self._models[0].name if self._models else "")
        return Features(
            punctuation=True,
            verbatim=True,
            profanity_filter=True,
            diarization=True,
            phrases=True,
            alternatives=True,
            endpointing=True,
            eager_end=True,
            endpointing_windows=True,
            upstream_options=True,
            end_utterance=self._knows_force_eou(name),
        )

    async def models(self) -> Sequence[Model]:
        """The models that the server lists; asked again after a second."""
        return await self._list_models(self._config.call_timeout_ms)

    async def ready(self) -> Readiness:
        """Whether the server answers and serves a model."""
        try:
            models = await self._list_models(min(READY_TIMEOUT_MS, self._config.call_timeout_ms))
        except ASRError as error:
            return Readiness(False, error.message)
        if not models:
            return Readiness(False, "The recognizer serves no model yet.")
        return Readiness(True)

    def refusal(self) -> ASRError | None:
        """See `Engine`: one endpoint keeps no count; `asr.resilience` does."""
        return None

    def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        """Recognize `audio`; with a model that cannot stream, all at once after the end of the audio."""
        model_name = options.model or self._config.model
        model = next((m for m in self._models if m.name == model_name), None)
        options = replace(options, model=model_name, language=wire_language(options.language, model))
        if model is not None and not model.streaming:
            return self._recognize(audio, options)
        return self._stream(audio, options)

    async def aclose(self) -> None:
        """Close the connections; open streams fail with `unavailable`."""
        await self._channels.aclose()
        if self._asking is not None:
            await asyncio.wait({self._asking})

    async def _stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        lease = self._channels.lease()
        force_eou = self._knows_force_eou(options.model)
        call = RivaCall(lambda: self._open(lease, options), audio, options, self._config, force_eou=force_eou)
        events = call.events()
        broken = False
        try:
            async for event in events:
                yield event
        except ASRError as error:
            broken = _is_broken(error)
            raise self._name_models(error) from error.__cause__
        finally:
            await events.aclose()
            self._release(lease, broken=broken)

    async def _recognize(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        recording = bytearray()
        flushes: list[int] = []
        async for item in audio:
            if isinstance(item, EndUtterance):
                flushes.append(len(recording) // BYTES_PER_MS)
                continue
            recording += item
            if len(recording) > self._config.max_message_bytes - 64 * 1024:
                limit_s = self._config.max_message_bytes // BYTES_PER_MS // 1000
                raise ASRError(
                    Code.TOO_LARGE,
                    f"The model {options.model!r} takes whole recordings only, of up to {limit_s} s here.",
                    param="audio",
                )
        sent_ms = len(recording) // BYTES_PER_MS
        if recording:
            request = pb.RecognizeRequest(config=recognize_config(options), audio=bytes(recording[: sent_ms * 32]))
            if options.request_id:
                request.id.value = options.request_id
            # The server works through the whole recording before it answers.
            timeout_ms = self._config.call_timeout_ms + sent_ms
            metadata = self._metadata_of(options)
            response = await self._call("Recognize", request, pb.RecognizeResponse, timeout_ms, metadata)
            for event in read_recognize(response, options, sent_ms):
                yield event
        for audio_ms in flushes:
            yield Flushed(audio_ms)

    async def _list_models(self, timeout_ms: int) -> tuple[Model, ...]:
        if self._clock() < self._models_until:
            return self._models
        # All who want to know wait for one answer, each as long as it likes.
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask_models())
            self._asking.add_done_callback(self._asked)
        asking = self._asking
        self._curious += 1
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await asyncio.shield(asking)
        except TimeoutError:
            raise _not_in_time(timeout_ms) from None
        finally:
            self._curious -= 1
            if not self._curious and self._asking is asking and not asking.done():
                self._asking = None
                asking.cancel()

    async def _ask_models(self) -> tuple[Model, ...]:
        request = pb.RivaSpeechRecognitionConfigRequest()
        answer_type = pb.RivaSpeechRecognitionConfigResponse
        timeout_ms = self._config.call_timeout_ms
        response = await self._call("GetRivaSpeechRecognitionConfig", request, answer_type, timeout_ms, self._metadata)
        found = read_models(response, prefer=self._config.model)
        self._models = tuple(replace(m, end_utterance=self._knows_force_eou(m.name)) for m in found)
        # A server that is still loading lists nothing: ask it again at once.
        self._models_until = self._clock() + MODELS_FRESH_S if self._models else 0.0
        return self._models

    def _asked(self, task: asyncio.Task[tuple[Model, ...]]) -> None:
        if self._asking is task:
            self._asking = None
        if not task.cancelled():
            task.exception()  # all who asked may have left

    async def _call(
        self, method: str, request: Message, answer_type: Message, timeout_ms: int, metadata: Metadata
    ) -> Message:
        lease = self._channels.lease()
        begun = self._clock()
        broken = False
        try:
            answer = await self._send(lease, method, request.SerializeToString(), timeout_ms, metadata)
            return answer_type.FromString(answer)
        except ASRError as error:
            broken = _is_broken(error)
            raise
        except asyncio.CancelledError:
            # Nobody wants to wait any longer; the connection may be why.
            broken = self._clock() - begun > self._config.connect_timeout_ms / 1000
            raise
        except DecodeError:
            broken = True
            raise ASRError(
                Code.INTERNAL, "The recognizer's answer cannot be read. Is it a Riva server?", retryable=True
            ) from None
        finally:
            self._release(lease, broken=broken)

    def _release(self, lease: Lease, *, broken: bool) -> None:
        lease.release(broken=broken)
        if broken:
            self._models_until = 0.0

    async def _send(self, lease: Lease, method: str, request: bytes, timeout_ms: int, metadata: Metadata) -> bytes:
        timeout_s = timeout_ms / 1000
        try:
            # Our own clock decides: gRPC reports a deadline that passes as one of several statuses.
            async with asyncio.timeout(timeout_s):
                call: Any = lease.channel.unary_unary(_SERVICE + method, None, None)
                answer: bytes = await call(request, metadata=metadata, timeout=timeout_s + 1)
                return answer
        except TimeoutError:
            raise _not_in_time(timeout_ms) from None
        except grpc.aio.AioRpcError as error:
            status, details = error.code().name, error.details() or ""
            if self._tls is not None and _HUNG_UP.search(details):
                self._tls.hung_up()
            trailers: Any = error.trailing_metadata() or ()
            raise self._name_models(error_from_status(status, details, "call", trailers)) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise error_from_status("UNAVAILABLE", "", "call") from None

    def _open(self, lease: Lease, options: Options) -> Message:
        call: Any = lease.channel.stream_stream(_SERVICE + "StreamingRecognize", None, None)
        return call(metadata=self._metadata_of(options))

    def _metadata_of(self, options: Options) -> Metadata:
        if not options.traceparent:
            return self._metadata
        # One that the settings name is for callers without any: servers take the first of two, or neither.
        others = tuple(pair for pair in self._metadata if pair[0] != TRACE_KEY)
        return (*others, (TRACE_KEY, options.traceparent))

    def _knows_force_eou(self, model: str) -> bool:
        if self._config.force_eou != "auto":
            return self._config.force_eou == "on"
        return any(kind in model.lower() for kind in _FORCE_EOU_MODELS)

    def _name_models(self, error: ASRError) -> ASRError:
        # Riva says what it lacks and never what it has.
        if error.code is not Code.NOT_FOUND or not self._models:
            return error
        names = "; ".join(f"{m.name} ({', '.join(m.languages)})" for m in self._models)
        return ASRError(error.code, f"{error.message} Models there: {names}.", retryable=False, param=error.param)


def _is_broken(error: ASRError) -> bool:
    """Whether new calls had better use another connection."""
    return error.retryable and error.code in (Code.UNAVAILABLE, Code.TIMEOUT)


def _not_in_time(timeout_ms: int) -> ASRError:
    return ASRError(Code.TIMEOUT, f"The recognizer did not answer within {timeout_ms / 1000:g} s. Try again.")
