"""The parent's end of one recognizer process: start it, speak to it, notice its death, end it.

Each stream has a `Lane`: what the worker says about it, and how much of its audio the worker still owes an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Iterable

from asr import wire
from asr.engines.local_wire import Frame, Kind, Tuning, Unpacker, pack
from asr.environment import plain_environment
from asr.errors import ASRError, Code
from asr.events import Event, Flushed, Progress

_READ_BYTES = 1 << 16
_STOP_S = 2.0
_SILENCE_S = 30.0
WINDOW_MS = 1000
"""The most audio of one stream that waits unrecognized in a worker."""


def died() -> ASRError:
    """A worker ended in the middle of things."""
    return ASRError(
        Code.UNAVAILABLE,
        "The embedded recognizer's process ended unexpectedly. Start again: the next stream gets a new one.",
    )


class Lane:
    """One stream in a worker. The consumer of its events earns the credit for further audio."""

    def __init__(self, worker: WorkerProcess, number: int) -> None:
        self.worker = worker
        self.number = number
        self._events: deque[Event] = deque()
        self._ended = False
        self._error: ASRError | BaseException | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._sent_ms = 0
        self._used_ms = 0
        self._asked = 0

    def hear(self, events: Iterable[Event]) -> None:
        """The worker said something."""
        self._events.extend(events)
        self._news.set()

    def end(self) -> None:
        """The worker is done with the stream."""
        self._ended = True
        self._news.set()

    def fail(self, error: BaseException) -> None:
        """The stream is broken; the consumer sees it after what was heard until then."""
        if self._error is None and not self._ended:
            self._error = error
        self._news.set()
        self._room.set()

    async def room(self, total_ms: int) -> bool:
        """Wait until audio up to `total_ms` may be sent, as results are read; False when the stream is broken."""
        while total_ms - self._used_ms > WINDOW_MS and self._error is None:
            self._room.clear()
            await self._room.wait()
        self._sent_ms = total_ms
        return self._error is None

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Tell the worker something about this stream."""
        if kind in (Kind.CUT, Kind.FINISH):
            self._asked += 1
        self.worker.send(kind, self.number, payload)

    async def next(self) -> Event | None:
        """The next event, or None at the clean end.

        Raises:
            ASRError: `unavailable`, the worker died or answers no more.
        """
        while True:
            if self._events:
                event = self._events.popleft()
                if isinstance(event, Progress):
                    self._used_ms = event.processed_ms
                    self._room.set()
                elif isinstance(event, Flushed):
                    self._asked -= 1
                return event
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._news.clear()
            try:
                async with asyncio.timeout(_SILENCE_S):
                    await self._news.wait()
            except TimeoutError:
                owed = self._asked > 0 or self._sent_ms - self._used_ms >= WINDOW_MS // 2
                if owed and time.monotonic() - self.worker.heard_at > _SILENCE_S:
                    self.worker.kill()
                    raise died() from None


class WorkerProcess:
    """A running recognizer process.

    Attributes:
        lanes: the streams it serves, by number.
        alive: it may be given streams.
        heard_at: when it last said anything, in seconds of the monotonic clock.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self.lanes: dict[int, Lane] = {}
        self.alive = True
        self.heard_at = time.monotonic()
        self._next = 1
        self._ready = asyncio.Event()
        self._reader = asyncio.create_task(self._read(), name=f"local-worker-{process.pid}")

    @classmethod
    async def start(cls) -> WorkerProcess:
        """Start one.

        Raises:
            ASRError: `unavailable`, the system refuses a process.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "asr.engines.local_worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=plain_environment(),
                # A Ctrl-C on the terminal is for us; while it imports, the worker could only die of it, loudly.
                start_new_session=True,
            )
        except OSError as error:
            raise ASRError(
                Code.UNAVAILABLE,
                f"The embedded recognizer cannot start a process ({error.strerror or error}). "
                "Check the limits on processes and memory.",
            ) from error
        return cls(process)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def ready(self) -> bool:
        """Wait until the models are loaded; False when the process ended instead."""
        await self._ready.wait()
        return self.alive

    def open(self, tuning: Tuning) -> Lane:
        """Begin a stream."""
        lane = Lane(self, self._next)
        self._next += 1
        self.lanes[lane.number] = lane
        lane.send(Kind.OPEN, tuning.encode())
        return lane

    def close(self, lane: Lane) -> None:
        """The stream is over or abandoned: the worker forgets it."""
        self.lanes.pop(lane.number, None)
        self.send(Kind.DROP, lane.number)

    def send(self, kind: Kind, number: int, payload: bytes = b"") -> None:
        """Write a frame. What waits in the pipe is bounded by the lanes' credit."""
        if self.alive and not self._stdin.is_closing():
            self._stdin.write(pack(kind, number, payload))

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def aclose(self) -> None:
        """End it: by the end of its input and a signal, by force where that does not help within 2 s."""
        self._lost()
        self._stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        unpacker = Unpacker()
        try:
            while data := await self._stdout.read(_READ_BYTES):
                self.heard_at = time.monotonic()
                for frame in unpacker.feed(data):
                    self._heard(frame)
        except (OSError, ValueError, ASRError):
            # A torn pipe or nonsense on it: the process is of no more use.
            self.kill()
        finally:
            self._lost()
            self._stdin.close()
        await self._process.wait()

    def _heard(self, frame: Frame) -> None:
        if frame.kind is Kind.READY:
            self._ready.set()
            return
        lane = self.lanes.get(frame.stream)
        if lane is None:
            return
        if frame.kind is Kind.EVENTS:
            events = (wire.decode(message) for message in json.loads(frame.payload))
            lane.hear(event for event in events if event is not None)
        elif frame.kind is Kind.ENDED:
            lane.end()
        else:
            lane.fail(
                ASRError(Code.INTERNAL, "The embedded recognizer failed on this audio. Report it with the audio.")
            )

    def _lost(self) -> None:
        self.alive = False
        self._ready.set()
        for lane in self.lanes.values():
            lane.fail(died())
