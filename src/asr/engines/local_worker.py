"""The recognizer process: `python -m asr.engines.local_worker`, spoken to over stdin and stdout.

Pocketsphinx holds the interpreter's lock while it decodes, so recognition lives in processes of its own. One
process takes its streams in turn, a frame at a time, and looks for new input between two frames; it sleeps in
`select` when there is nothing to do, and ends when its input ends, so it never outlives its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections import deque
from collections.abc import Iterable, Iterator

from asr import wire
from asr.engines.local_gate import FRAME_BYTES
from asr.engines.local_recognizer import Decoders, Recognizer
from asr.engines.local_wire import Frame, Kind, Tuning, Unpacker, pack
from asr.events import Event

_READ_BYTES = 1 << 16
_NICENESS = 5


class Session:
    """One stream's waiting input and its recognizer."""

    def __init__(self, tuning: Tuning, decoders: Decoders) -> None:
        self._recognizer = Recognizer(tuning, decoders)
        self._waiting: deque[bytearray | Kind] = deque([bytearray()])
        self.over = False

    def add(self, pcm: bytes) -> None:
        """More audio."""
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, bytearray):
            last += pcm
        else:
            self._waiting.append(bytearray(pcm))

    def mark(self, kind: Kind) -> None:
        """`CUT` or `FINISH`, behind the audio that is waiting."""
        self._waiting.append(kind)

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        if not self._waiting:
            return False
        first = self._waiting[0]
        return len(self._waiting) > 1 or isinstance(first, Kind) or len(first) >= FRAME_BYTES

    def step(self) -> Iterator[Event]:
        """Do one frame, or one cut."""
        first = self._waiting[0]
        if isinstance(first, bytearray) and len(first) >= FRAME_BYTES:
            frame = bytes(first[:FRAME_BYTES])
            del first[:FRAME_BYTES]
            return self._recognizer.frame(frame)
        tail = bytearray()
        if isinstance(first, bytearray):
            tail = first
            self._waiting.popleft()
        kind = self._waiting.popleft()
        # Half a sample waits for its other half behind the cut.
        half = tail[len(tail) & ~1 :]
        if half:
            rest = self._waiting[0] if self._waiting else None
            if isinstance(rest, bytearray):
                rest[:0] = half
            else:
                self._waiting.appendleft(half)
        whole = bytes(tail[: len(tail) & ~1])
        if kind is Kind.FINISH:
            self.over = True
            return self._recognizer.finish(whole)
        return self._recognizer.cut(whole)

    def release(self) -> None:
        """Give the decoder back."""
        self._recognizer.release()


class Worker:
    """All sessions of this process: `take` hears the parent, `turn` works and answers with bytes for it."""

    def __init__(self, decoders: Decoders) -> None:
        self._decoders = decoders
        self._sessions: dict[int, Session] = {}

    def take(self, frame: Frame) -> None:
        """Obey one frame."""
        if frame.kind is Kind.OPEN:
            self._sessions[frame.stream] = Session(Tuning.decode(frame.payload), self._decoders)
            return
        session = self._sessions.get(frame.stream)
        if session is None:
            return
        if frame.kind is Kind.AUDIO:
            session.add(frame.payload)
        elif frame.kind is Kind.DROP:
            self._forget(frame.stream)
        else:
            session.mark(frame.kind)

    def turn(self) -> bytes:
        """One step for each stream that has something to do; what they say."""
        said = []
        for stream, session in list(self._sessions.items()):
            if session.busy:
                said.append(self._step(stream, session))
        return b"".join(said)

    @property
    def busy(self) -> bool:
        """Whether any stream has something to do."""
        return any(session.busy for session in self._sessions.values())

    def _step(self, stream: int, session: Session) -> bytes:
        try:
            said = _events(stream, session.step())
        except Exception as error:
            # The decoder is foreign code: what it refuses ends this stream, not the others.
            self._forget(stream)
            return pack(Kind.FAILED, stream, repr(error).encode()[:1000])
        if session.over:
            self._forget(stream)
            said += pack(Kind.ENDED, stream)
        return said

    def _forget(self, stream: int) -> None:
        session = self._sessions.pop(stream, None)
        if session is not None:
            session.release()


def _events(stream: int, events: Iterable[Event]) -> bytes:
    messages = [wire.encode(event) for event in events]
    return pack(Kind.EVENTS, stream, json.dumps(messages).encode()) if messages else b""


def _serve(source: int, sink: int) -> None:
    decoders = Decoders()
    decoders.warm()
    worker = Worker(decoders)
    unpacker = Unpacker()
    _write(sink, pack(Kind.READY, 0))
    while True:
        readable, _, _ = select.select([source], [], [], 0 if worker.busy else None)
        if readable:
            data = os.read(source, _READ_BYTES)
            if not data:
                return
            for frame in unpacker.feed(data):
                worker.take(frame)
        _write(sink, worker.turn())


def _write(sink: int, data: bytes) -> None:
    while data:
        data = data[os.write(sink, data) :]


def main() -> None:
    """Serve until the parent closes our input."""
    # The parent alone decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not land between frames.
    sink = os.dup(1)
    os.dup2(2, 1)
    # The event loop that feeds us should win when both want a core.
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    with contextlib.suppress(BrokenPipeError):
        _serve(0, sink)


if __name__ == "__main__":
    main()
