"""The `riva` engine: one Riva or Speech NIM endpoint over gRPC.

One channel for all calls, opened with the first. What a stream does is in `asr.engines.riva_call`; what its
messages mean, in `asr.riva_codec`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic

import grpc
import grpc.aio

from asr.config import RivaConfig
from asr.engine import BYTES_PER_MS, AudioInput, EndUtterance, Features, Model, Readiness
from asr.engines.riva_call import RivaCall
from asr.errors import ASRError, Code
from asr.events import Event, Flushed
from asr.options import Options
from asr.riva_codec import error_from_status, read_models, read_recognize, recognize_config, wire_language
from asr.riva_proto import Message, asr_grpc
from asr.riva_proto import asr as pb

MODELS_FRESH_S = 5.0
"""For how long a list of models is taken as it was."""
READY_TIMEOUT_MS = 3_000
"""The longest that `ready` takes."""
MAX_RECONNECT_BACKOFF_MS = 2_000
"""The longest pause between attempts to connect: gRPC's own two minutes would outlast most outages."""
KEEPALIVE_TIMEOUT_MS = 10_000

_FORCE_EOU_MODELS = ("nemotron",)


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
        self._credentials = _credentials(config)
        self._metadata = tuple((key.lower(), value) for key, value in config.metadata)
        self._channel: grpc.aio.Channel | None = None
        self._stub: Message = None
        self._models: tuple[Model, ...] = ()
        self._models_until = 0.0
        self._closed = False

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
            end_utterance=self._knows_force_eou(name),
        )

    async def models(self) -> Sequence[Model]:
        """The models that the server lists; asked again after five seconds."""
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
        force_eou = self._knows_force_eou(model_name)
        return self._explained(RivaCall(self._open, audio, options, self._config, force_eou=force_eou))

    async def aclose(self) -> None:
        """Close the channel; open streams fail with `unavailable`."""
        self._closed = True
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

    async def _explained(self, call: RivaCall) -> AsyncGenerator[Event]:
        events = call.events()
        try:
            async for event in events:
                yield event
        except ASRError as error:
            raise self._name_models(error) from error.__cause__
        finally:
            await events.aclose()

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
            response = await self._call(lambda stub: stub.Recognize, request, timeout_ms)
            for event in read_recognize(response, options, sent_ms):
                yield event
        for audio_ms in flushes:
            yield Flushed(audio_ms)

    async def _list_models(self, timeout_ms: int) -> tuple[Model, ...]:
        if self._clock() >= self._models_until:
            request = pb.RivaSpeechRecognitionConfigRequest()
            response = await self._call(lambda stub: stub.GetRivaSpeechRecognitionConfig, request, timeout_ms)
            found = read_models(response, prefer=self._config.model)
            self._models = tuple(replace(m, end_utterance=self._knows_force_eou(m.name)) for m in found)
            # A server that is still loading lists nothing: ask it again at once.
            self._models_until = self._clock() + MODELS_FRESH_S if self._models else 0.0
        return self._models

    async def _call(self, method: Callable[[Message], Message], request: Message, timeout_ms: int) -> Message:
        timeout_s = timeout_ms / 1000
        try:
            # Our own clock decides: gRPC reports a deadline that passes as one of several statuses.
            async with asyncio.timeout(timeout_s):
                answer: Awaitable[Message] = method(self._connect())(
                    request, metadata=self._metadata, timeout=timeout_s + 1
                )
                return await answer
        except TimeoutError:
            raise ASRError(Code.TIMEOUT, f"The recognizer did not answer within {timeout_s:g} s. Try again.") from None
        except grpc.aio.AioRpcError as error:
            raise self._name_models(error_from_status(error.code().name, error.details() or "", "call")) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise error_from_status("UNAVAILABLE", "", "call") from None

    def _open(self) -> Message:
        return self._connect().StreamingRecognize(metadata=self._metadata)

    def _connect(self) -> Message:
        if self._closed:
            raise ASRError(Code.UNAVAILABLE, "The recognizer's connection has been closed.", retryable=False)
        if self._channel is None:
            options = _channel_options(self._config)
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self._config.endpoint, options=options)
            else:
                self._channel = grpc.aio.secure_channel(self._config.endpoint, self._credentials, options=options)
            self._stub = asr_grpc.RivaSpeechRecognitionStub(self._channel)
        return self._stub

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


def _channel_options(config: RivaConfig) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        # Closing the engine must close its connection, not one that is shared by address.
        ("grpc.use_local_subchannel_pool", 1),
        # gRPC reads this as the time that one attempt to connect may take.
        ("grpc.min_reconnect_backoff_ms", config.connect_timeout_ms),
        ("grpc.initial_reconnect_backoff_ms", min(200, config.connect_timeout_ms)),
        ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_BACKOFF_MS),
    ]
    if config.keepalive_time_ms:
        options += [
            ("grpc.keepalive_time_ms", config.keepalive_time_ms),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ]
    return options


def _credentials(config: RivaConfig) -> grpc.ChannelCredentials | None:
    if bool(config.client_cert) != bool(config.client_key):
        raise ASRError(
            Code.BAD_REQUEST,
            "Mutual TLS needs the client's certificate and its key; only one of the two is set.",
            param="client_cert" if config.client_key else "client_key",
        )
    if not (config.ssl or config.root_cert or config.client_cert):
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_read_pem(config.root_cert, "root_cert"),
        private_key=_read_pem(config.client_key, "client_key"),
        certificate_chain=_read_pem(config.client_cert, "client_cert"),
    )


def _read_pem(path: Path | None, param: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise ASRError(
            Code.BAD_REQUEST, f"The file {path} ({param}) cannot be read: {error.strerror}.", param=param
        ) from error
