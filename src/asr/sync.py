"""The client for scripts and threads: the same names, blocking, around one event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar, Unpack

from asr.client import EncodingName, OnProgress, RivaASRClient, StereoName
from asr.config import EngineConfig
from asr.engine import AudioInput, Engine, Model, Readiness
from asr.errors import ASRError, Code
from asr.events import Event
from asr.options import Options
from asr.pulling import pull
from asr.settings import EngineName, EngineSettings
from asr.transcript import Transcript
from asr.wishes import Wishes

T = TypeVar("T")

CLOSE_TIMEOUT_S = 10.0

_END: Any = object()


class SyncRivaASRClient:
    """`RivaASRClient` without `async`. A context manager; `close` does the same, and so does the interpreter's end.

    May be used from several threads at once. Ctrl-C interrupts whatever it waits for.
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
        """Choose the recognizer; see `RivaASRClient`.

        Raises:
            ASRError: `bad_request`, when the arguments or the environment do not fit.
        """
        self._client = RivaASRClient(
            endpoint,
            engine=engine,
            mock_mode=mock_mode,
            settings=settings,
            ssl=ssl,
            token=token,
            ca_cert=ca_cert,
            insecure=insecure,
            metadata=metadata,
        )
        self._background = _Background(self._client)
        # Also run at the interpreter's end, before daemon threads are frozen.
        self._finalizer = weakref.finalize(self, self._background.close)

    def __enter__(self) -> SyncRivaASRClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections, processes and the thread. Streams that are still open end."""
        self._finalizer()

    @property
    def engine_name(self) -> str:
        """What recognizes: `local`, `riva`, `mock`, `gateway`, or the name of your own engine."""
        return self._background.run(_later(lambda: self._client.engine_name))

    def models(self) -> Sequence[Model]:
        """See `RivaASRClient.models`."""
        return self._background.run(self._client.models())

    def health(self) -> Readiness:
        """See `RivaASRClient.health`."""
        return self._background.run(self._client.health())

    def stream_transcribe(
        self,
        audio: Iterable[AudioInput],
        options: Options | None = None,
        *,
        sample_rate_hz: int | None = 16_000,
        channels: int = 1,
        encoding: EncodingName = "pcm_s16le",
        stereo: StereoName = "mix",
        enable_partials: bool | None = None,
        all_events: bool = False,
        **wishes: Unpack[Wishes],
    ) -> Generator[Event]:
        """Recognize audio while it arrives; see `RivaASRClient.stream_transcribe`.

        `audio` is iterated on a thread of its own, so that events come as soon as they are there, also while it
        waits for the next sound. Leave the loop early, or close the generator, to end the stream at once.
        """
        if not _is_pieces(audio):
            raise ASRError(
                Code.BAD_REQUEST, "audio is not an iterable of bytes. Give one piece as [piece].", param="audio"
            )
        events = self._client.stream_transcribe(
            pull(lambda: audio),
            options,
            sample_rate_hz=sample_rate_hz,
            channels=channels,
            encoding=encoding,
            stereo=stereo,
            enable_partials=enable_partials,
            all_events=all_events,
            **wishes,
        )
        return self._stream(_Steps(events))

    def transcribe_file(
        self,
        source: str | Path | BinaryIO,
        options: Options | None = None,
        *,
        stereo: StereoName = "mix",
        on_progress: OnProgress | None = None,
        **wishes: Unpack[Wishes],
    ) -> Transcript:
        """Recognize a whole recording; see `RivaASRClient.transcribe_file`. `on_progress` is called in this thread."""
        if on_progress is None:
            return self._background.run(self._client.transcribe_file(source, options, stereo=stereo, **wishes))
        news: queue.SimpleQueue[tuple[int, int | None] | None] = queue.SimpleQueue()

        def tell(done_ms: int, total_ms: int | None) -> None:
            news.put((done_ms, total_ms))

        future = self._background.submit(
            self._client.transcribe_file(source, options, stereo=stereo, on_progress=tell, **wishes)
        )
        future.add_done_callback(lambda _: news.put(None))
        try:
            while (step := news.get()) is not None:
                on_progress(*step)
            return future.result()
        except CancelledError:
            raise _closed_meanwhile() from None
        finally:
            future.cancel()

    def _stream(self, steps: _Steps) -> Generator[Event]:
        try:
            while (event := self._background.run(steps.next())) is not _END:
                yield event
        finally:
            self._background.finish(steps.close())


class _Steps:
    """An async generator, advanced and closed by turns: a step that was interrupted ends before the close."""

    def __init__(self, events: Any) -> None:
        self._events = events
        self._turn = asyncio.Lock()

    async def next(self) -> Any:
        async with self._turn:
            return await anext(self._events, _END)

    async def close(self) -> None:
        async with self._turn:
            await self._events.aclose()


class _Background:
    """The loop, its thread, and the way in. The thread starts with the first call."""

    def __init__(self, client: RivaASRClient) -> None:
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        self._closed = False
        self._ending: asyncio.Task[None] | None = None

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine."""
        with self._guard:
            if self._closed:
                coroutine.close()
                raise ASRError(Code.BAD_REQUEST, "The client is closed. Make a new one.")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run_loop, args=(self._loop,), name="asr-loop", daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. When the wait is interrupted, it is cancelled."""
        future = self.submit(coroutine)
        try:
            return future.result()
        except CancelledError:
            raise _closed_meanwhile() from None
        finally:
            future.cancel()

    def finish(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that tidies up: not at all once closed, and not for ever."""
        try:
            future = self.submit(coroutine)
        except ASRError:
            return
        with contextlib.suppress(TimeoutError, CancelledError):
            future.result(CLOSE_TIMEOUT_S)

    def close(self) -> None:
        """End what is open, then the loop and its thread, which is not waited for when called on it.

        That happens when the client is collected there: garbage is, on whichever thread allocates.
        """
        with self._guard:
            already, self._closed = self._closed, True
            loop, thread = self._loop, self._thread
        if already or loop is None or thread is None:
            return
        if threading.current_thread() is thread:
            self._ending = loop.create_task(self._end_and_stop(loop))
            return
        future = asyncio.run_coroutine_threadsafe(_end(self._client), loop)
        with contextlib.suppress(TimeoutError, ASRError):
            future.result(CLOSE_TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSE_TIMEOUT_S)

    async def _end_and_stop(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            with contextlib.suppress(TimeoutError, ASRError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await _end(self._client)
        finally:
            loop.stop()

    def _run_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


async def _later(read: Callable[[], T]) -> T:
    return read()


def _is_pieces(audio: object) -> bool:
    return isinstance(audio, Iterable) and not isinstance(audio, bytes | bytearray | memoryview)


def _closed_meanwhile() -> ASRError:
    return ASRError(Code.UNAVAILABLE, "The client was closed while this was in work.")


async def _end(client: RivaASRClient) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await client.aclose()
