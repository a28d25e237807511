"""The asynchronous client: audio or files in, events or a transcript out, whatever recognizes them."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import AsyncGeneratorType, TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, Unpack
from weakref import WeakSet

from asr.build import build_engine
from asr.channels import ChannelsEngine
from asr.choice import Credentials, choose
from asr.config import EngineConfig
from asr.engine import BYTES_PER_MS, Agreement, AudioInput, EndUtterance, Engine, Model, Readiness, agree
from asr.errors import ASRError, Code
from asr.events import Event, Final, Flushed, Progress
from asr.options import Options
from asr.pulling import pull
from asr.settings import EngineName, EngineSettings
from asr.transcript import Transcript, TranscriptBuilder
from asr.wishes import Wishes, to_options

if TYPE_CHECKING:
    from asr.audio import AudioDecoder

log = logging.getLogger("asr")

OnProgress = Callable[[int, int | None], None]
"""Called with the milliseconds that are done, and those there are in all (None where that is not known)."""

EncodingName = Literal[
    "pcm_s16le", "pcm_f32le", "mulaw", "alaw", "flac", "wav", "ogg_opus", "webm_opus", "mp3", "aac", "mp4", "auto"
]
StereoName = Literal["mix", "refuse", "split"]

_FILE_CHUNK_MS = 1_000
_SLICE_BYTES = 65_536


class RivaASRClient:
    """Speech recognition by Riva / Speech NIM, another riva-gateway, or the embedded recognizer.

    An asynchronous context manager; `aclose` does the same. Any number of streams and files may be in work at a
    time. A client belongs to the event loop that first uses it.

    Every failure is an `ASRError`: `code` says what kind, `message` what to do. What your own audio iterator
    or callback raises comes through as it is.
    """

    def __init__(
        self,
        endpoint: str | EngineConfig | None = None,
        *,
        engine: Engine | EngineName | None = None,
        mock_mode: bool = False,
        settings: EngineSettings | None = None,
        ssl: bool | None = None,
        token: str = "",
        ca_cert: str | Path | None = None,
        insecure: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Choose the recognizer. Nothing is connected or started before the first use.

        Args:
            endpoint: `host:port`, `grpc://…` or `grpcs://…` is a Riva or NIM server; `https://…`, `wss://…`,
                `http://…` or `ws://…` is another riva-gateway. None: what the environment says
                (`ASR_ENGINE`, `RIVA_ENDPOINTS` …), and the embedded recognizer where it says nothing.
            engine: `local`, `riva` or `mock`, set up from the environment; or an engine of your own, which
                the client does not close.
            mock_mode: the scripted recognizer: no server, no model, the same words every time.
            settings: what `asr.settings.load_settings` read, instead of the environment.
            ssl: TLS towards a Riva server; also on with `grpcs://` or `ca_cert`.
            token: sent as `Authorization: Bearer`; never unencrypted to another machine.
            ca_cert: a PEM file to trust, such as a gateway's self-made certificate.
            insecure: do not verify a gateway's certificate.
            metadata: gRPC metadata for a Riva server.

        Raises:
            ASRError: `bad_request`, when the arguments or the environment do not fit.
        """
        self._choice = choose(
            endpoint, engine, mock_mode, settings, Credentials(ssl, token, ca_cert, insecure, metadata)
        )
        self._built: Engine | None = None
        self._closed = False
        self._streams: WeakSet[AsyncGeneratorType[Event, None]] = WeakSet()

    async def __aenter__(self) -> RivaASRClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of connections and processes.

        Streams that are still open end: one that is waited for fails with `unavailable`, one that rests between two
        events has no further one.
        """
        self._closed = True
        for stream in list(self._streams):
            if not stream.ag_running:
                await stream.aclose()
        built, self._built = self._built, None
        if built is not None and built is not self._choice:
            await built.aclose()

    @property
    def engine_name(self) -> str:
        """What recognizes: `local`, `riva`, `mock`, `gateway`, or the name of your own engine."""
        return self._engine().name

    async def models(self) -> Sequence[Model]:
        """The models that can be asked for, with their languages.

        Raises:
            ASRError: `unavailable`, `timeout` and others, when the recognizer cannot tell.
        """
        return await self._engine().models()

    async def health(self) -> Readiness:
        """Whether streams can be served now, and if not, why. Answers within a few seconds and raises nothing else."""
        return await self._engine().ready()

    def stream_transcribe(
        self,
        audio: AsyncIterable[AudioInput],
        options: Options | None = None,
        *,
        sample_rate_hz: int | None = 16_000,
        channels: int = 1,
        encoding: EncodingName = "pcm_s16le",
        stereo: StereoName = "mix",
        enable_partials: bool | None = None,
        all_events: bool = False,
        **wishes: Unpack[Wishes],
    ) -> AsyncGenerator[Event]:
        """Recognize audio while it arrives.

        Args:
            audio: bytes of any size, cut anywhere; it is read only as fast as the recognizer takes it. An
                `EndUtterance` among them ends the utterance there. Its end ends the stream, after the last final.
            options: wishes as one record; the keywords are laid over it.
            sample_rate_hz: of raw samples; containers tell their own. Anything else than 16 kHz is resampled.
            channels: of raw samples, interleaved.
            encoding: `auto` finds out by the first bytes.
            stereo: what becomes of several channels: `mix` them down to one, `refuse` them, or `split` them: each is
                recognized on its own, and events carry its number.
            enable_partials: whether `Partial` events are wanted (default: those of `options`, else True).
            all_events: also `Progress` and `Flushed`.
            **wishes: see `Wishes`.

        Yields:
            `Partial`, `Final`, `SpeechStarted` and `SpeechEnded`, with times in milliseconds from the first sample;
            `Status` when the recognizer is slow, lost or back, and `Gap` for audio that no final will ever cover.

        Raises:
            ASRError: while iterating: `bad_audio`, `not_found`, `unavailable`, `timeout` and others.
        """
        wanted = to_options(options, enable_partials, wishes)
        if not isinstance(audio, AsyncIterable):
            raise ASRError(
                Code.BAD_REQUEST,
                "audio is not an async iterator of bytes. For a plain iterable there is SyncRivaASRClient.",
                param="audio",
            )
        stream = self._stream(audio, wanted, partial(_decoder, encoding, sample_rate_hz, channels, stereo), all_events)
        # Left half-read, its parts must be closed from the outside in, which the loop's own end does not do.
        assert isinstance(stream, AsyncGeneratorType)
        self._streams.add(stream)
        return stream

    async def transcribe_file(
        self,
        source: str | Path | BinaryIO,
        options: Options | None = None,
        *,
        stereo: StereoName = "mix",
        on_progress: OnProgress | None = None,
        **wishes: Unpack[Wishes],
    ) -> Transcript:
        """Recognize a whole recording, as fast as the recognizer can, in flat memory however long it is.

        Args:
            source: a path, or an open binary file or pipe; WAV, FLAC, Ogg, MP3, M4A, WebM and more.
            options: wishes as one record; the keywords are laid over it.
            stereo: what becomes of several channels: see `stream_transcribe`. Split, the finals of all channels are in
                the order in which they begin.
            on_progress: called now and then with the milliseconds done and those in all, or None.
            **wishes: see `Wishes`.

        Raises:
            ASRError: `not_found`, `bad_audio` (the message names the file), and what a stream may raise.
        """
        wanted = to_options(options, None if options is not None else False, wishes)
        file = _File(source, stereo)
        async with aclosing(pull(file.chunks)) as chunks:
            first = await anext(chunks, b"")  # what is wrong with the file is said before a recognizer is asked
            agreement = await self._agree(replace(wanted, channels=file.channels, recording=True))
            builder = TranscriptBuilder(
                language=agreement.options.language, model=agreement.model.name, warnings=agreement.warnings
            )
            progress = _Progress(on_progress, file)
            async with aclosing(self._recognize(_after([first] if first else [], chunks), agreement)) as events:
                async for event in events:
                    builder.add(event)
                    progress.see(event)
        progress.end()
        for warning in file.warnings:
            builder.warn(warning)
        return builder.build(file.done_ms)

    def _engine(self) -> Engine:
        if self._closed:
            raise ASRError(Code.BAD_REQUEST, "The client is closed. Make a new one.")
        if self._built is None:
            is_config = isinstance(self._choice, EngineConfig)
            self._built = build_engine(self._choice) if is_config else self._choice  # type: ignore[arg-type, assignment]
        assert self._built is not None
        return self._built

    def _with_channels(self) -> Engine:
        engine = self._engine()
        return engine if isinstance(engine, ChannelsEngine) else ChannelsEngine(engine)  # one of the caller's own

    async def _agree(self, options: Options) -> Agreement:
        engine = self._engine()
        return agree(options, await engine.models(), engine.features)

    async def _stream(
        self,
        audio: AsyncIterable[AudioInput],
        options: Options,
        make_decoder: Callable[[], AudioDecoder],
        all_events: bool,
    ) -> AsyncGenerator[Event]:
        decoder = make_decoder()
        async with AsyncExitStack() as stack:
            pieces = _decoded(audio, decoder)
            if decoder.splits:
                stack.push_async_callback(pieces.aclose)
                first: list[AudioInput] = []
                while decoder.detected is None and (piece := await anext(pieces, None)) is not None:
                    first.append(piece)  # how many channels there are is in the header
                options = replace(options, channels=decoder.out_channels)
                pieces = _after(first, pieces)
            agreement = await self._agree(options)
            for warning in agreement.warnings:
                log.warning("%s", warning)
            events = await stack.enter_async_context(aclosing(self._recognize(pieces, agreement)))
            async for event in events:
                if all_events or not isinstance(event, Progress | Flushed):
                    yield event
        for warning in decoder.warnings:
            log.warning("%s", warning)

    async def _recognize(self, audio: AsyncGenerator[AudioInput], agreement: Agreement) -> AsyncGenerator[Event]:
        source = _Source(audio)
        try:
            async with (
                aclosing(source.items()) as items,
                aclosing(self._with_channels().stream(items, agreement.options)) as events,
            ):
                async for event in events:
                    yield event
        except Exception as error:
            if source.failure is not None and error is not source.failure:
                raise source.failure from None
            if error is source.failure or isinstance(error, ASRError):
                raise
            raise ASRError(
                Code.INTERNAL, f"The recognizer failed in a way that it should not ({type(error).__name__})."
            ) from error


class _Source:
    """The caller's audio on its way to an engine; remembers what went wrong in it."""

    def __init__(self, audio: AsyncGenerator[AudioInput]) -> None:
        self._audio = audio
        self.failure: Exception | None = None

    async def items(self) -> AsyncGenerator[AudioInput]:
        try:
            async with aclosing(self._audio) as audio:
                async for item in audio:
                    yield item
        except Exception as error:
            self.failure = error
            raise


class _File:
    """A recording, decoded on a thread that `pull` owns."""

    def __init__(self, source: str | Path | BinaryIO, stereo: StereoName) -> None:
        self._source = source
        self._stereo = stereo
        self.channels = 1
        self.total_ms: int | None = None
        self.pcm_bytes = 0
        self.warnings: list[str] = []

    @property
    def done_ms(self) -> int:
        """The audio that was read so far."""
        return self.pcm_bytes // (BYTES_PER_MS * self.channels)

    def chunks(self) -> Iterator[bytes]:
        from asr.audio import open_audio  # FFmpeg's libraries: only for those who read files

        with open_audio(self._source, stereo=self._stereo, chunk_ms=_FILE_CHUNK_MS) as audio:
            self.total_ms = audio.duration_ms
            self.channels = audio.channels
            self.warnings = audio.warnings
            for chunk in audio:
                self.pcm_bytes += len(chunk)
                yield chunk


class _Progress:
    """Tells a callback how far a file has come; never backwards, and the end for certain."""

    def __init__(self, tell: OnProgress | None, file: _File) -> None:
        self._tell = tell
        self._file = file
        self._done_ms = 0

    def see(self, event: Event) -> None:
        match event:
            case Progress(processed_ms):
                self._move(processed_ms)
            case Final():
                self._move(event.end_ms)

    def end(self) -> None:
        self._done_ms = max(self._done_ms, self._file.done_ms)
        if self._tell is not None:
            self._tell(self._done_ms, self._done_ms)

    def _move(self, done_ms: int) -> None:
        if self._tell is not None and done_ms > self._done_ms:
            self._done_ms = done_ms
            self._tell(done_ms, self._file.total_ms)


def _decoder(encoding: str, sample_rate_hz: int | None, channels: int, stereo: StereoName) -> AudioDecoder:
    from asr.audio import AudioDecoder, AudioFormat, Encoding  # FFmpeg's libraries and numpy: when there is audio

    names = [known.value for known in Encoding]
    if encoding not in names:
        raise ASRError(
            Code.BAD_REQUEST, f"There is no encoding {encoding!r}. Encodings: {', '.join(names)}.", param="encoding"
        )
    return AudioDecoder(AudioFormat(Encoding(encoding), sample_rate_hz, channels), stereo=stereo)


async def _decoded(audio: AsyncIterable[AudioInput], decoder: AudioDecoder) -> AsyncGenerator[AudioInput]:
    try:
        async for item in audio:
            if isinstance(item, EndUtterance):
                yield item
                continue
            if not isinstance(item, bytes | bytearray | memoryview):
                raise ASRError(Code.BAD_REQUEST, f"The audio holds a {type(item).__name__}, not bytes.", param="audio")
            for at in range(0, len(item), _SLICE_BYTES):
                pcm = decoder.feed(bytes(item[at : at + _SLICE_BYTES]))
                if pcm:
                    yield pcm
        if decoder.received_bytes:
            rest = decoder.finish()
            if rest:
                yield rest
    finally:
        # Nobody else can close a generator that was handed over in the call.
        if isinstance(audio, AsyncGenerator):
            await audio.aclose()


async def _after(first: Sequence[AudioInput], rest: AsyncIterator[AudioInput]) -> AsyncGenerator[AudioInput]:
    for piece in first:
        yield piece
    async for piece in rest:
        yield piece
