"""The embedded recognizer: pocketsphinx in processes beside ours, English, nothing to download.

It is there so that everything can be tried without a GPU. Streams are spread over one process per core; audio is
pulled only as fast as it is recognized.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from asr.config import LocalConfig
from asr.engine import BYTES_PER_MS, AudioInput, EndUtterance, Features, Model, Readiness
from asr.engines.local_process import Lane, WorkerProcess, died
from asr.engines.local_wire import Kind, Tuning
from asr.errors import ASRError, Code
from asr.events import Event
from asr.options import Options

MODEL = Model("pocketsphinx-en-us", ("en-US",))
_FEATURES = Features(endpointing=True)
_SLICE_BYTES = 200 * BYTES_PER_MS
_READY_S = 5.0
_LET_GO_S = 5.0
_NO_MODEL = (
    "The embedded recognizer's model is not installed here. Set RIVA_ENDPOINTS=host:port for a Riva or NIM, or take "
    "the image that has the model (its build target is laptop)."
)


class LocalEngine:
    """Recognizes with pocketsphinx, on this machine's cores.

    Raises:
        ASRError: `bad_request`, where pocketsphinx is installed without its model.
    """

    def __init__(self, config: LocalConfig | None = None) -> None:
        if not _has_model():
            raise ASRError(Code.BAD_REQUEST, _NO_MODEL, param="settings")
        self._config = config or LocalConfig()
        self._size = self._config.workers or _cores()
        self._workers: list[WorkerProcess] = []
        self._starting = asyncio.Lock()
        self._streams = 0
        self._closed = False

    @property
    def name(self) -> str:
        """`local`."""
        return "local"

    @property
    def features(self) -> Features:
        """Partials, words and endpointing (silence and manual); no punctuation, no boosting."""
        return _FEATURES

    async def models(self) -> Sequence[Model]:
        """The one model that comes with pocketsphinx."""
        return (MODEL,)

    async def ready(self) -> Readiness:
        """Start a worker where there is none, and wait for its models."""
        try:
            async with asyncio.timeout(_READY_S):
                worker = await self._worker()
                ready = await worker.ready()
        except TimeoutError:
            return Readiness(False, "The embedded recognizer is still loading its models.")
        except ASRError as error:
            return Readiness(False, error.message)
        return Readiness(ready, "" if ready else died().message)

    def refusal(self) -> ASRError | None:
        """`overloaded` while `max_streams` are open."""
        if self._streams < self._config.max_streams:
            return None
        return ASRError(
            Code.OVERLOADED,
            f"All {self._config.max_streams} streams of the embedded recognizer are taken. "
            "Try again when one has ended.",
            retry_after_ms=1000,
        )

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        """Recognize `audio`; see `asr.engine.Engine`.

        Raises:
            ASRError: `overloaded` over `max_streams`, `unavailable` when a worker dies or cannot be started.
        """
        full = self.refusal()
        if full is not None:
            raise full
        self._streams += 1
        try:
            worker = await self._worker()
            lane = worker.open(Tuning.of(self._config, options))
            feeder = asyncio.create_task(_feed(audio, lane), name="local-feed")
            try:
                while (event := await lane.next()) is not None:
                    yield event
            finally:
                worker.close(lane)
                feeder.cancel()
                await asyncio.wait([feeder], timeout=_LET_GO_S)
        finally:
            self._streams -= 1

    async def aclose(self) -> None:
        """End the worker processes; open streams fail with `unavailable`."""
        self._closed = True
        async with self._starting:
            workers, self._workers = self._workers, []
        await asyncio.gather(*(worker.aclose() for worker in workers))

    async def _worker(self) -> WorkerProcess:
        """The worker with the fewest streams; a new one while all are busy and there are cores left."""
        async with self._starting:
            if self._closed:
                raise ASRError(Code.UNAVAILABLE, "The embedded recognizer has been shut down.")
            self._workers = [worker for worker in self._workers if worker.alive]
            best = min(self._workers, key=lambda worker: len(worker.lanes), default=None)
            if best is None or (best.lanes and len(self._workers) < self._size):
                best = await WorkerProcess.start()
                self._workers.append(best)
            return best


async def _feed(audio: AsyncIterable[AudioInput], lane: Lane) -> None:
    """Hand the audio to the worker, no faster than its results are read."""
    sent = 0
    try:
        async for item in audio:
            if isinstance(item, EndUtterance):
                lane.send(Kind.CUT)
                continue
            for start in range(0, len(item), _SLICE_BYTES):
                piece = item[start : start + _SLICE_BYTES]
                sent += len(piece)
                if not await lane.room(sent // BYTES_PER_MS):
                    return
                lane.send(Kind.AUDIO, piece)
        lane.send(Kind.FINISH)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Not this task was cancelled, but something that the caller's audio waited for.
        lane.fail(ASRError(Code.INTERNAL, "The audio was cancelled in mid-stream."))
    except Exception as error:
        # Whatever the caller's audio raises is for the caller to see, where the events are read.
        lane.fail(error)


def _has_model() -> bool:
    """Whether pocketsphinx lies there whole; the smaller of the two images leaves its model out."""
    found = find_spec("pocketsphinx")
    return found is not None and found.origin is not None and (Path(found.origin).parent / "model" / "en-us").is_dir()


def _cores() -> int:
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
