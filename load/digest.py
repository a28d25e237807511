"""What a worker wrote down of a session → its record: messages are read, latencies measured. Done by the conductor.

A worker that read its messages itself would send late while it does. Here it costs another process's time, at the pace
at which that one gets to it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.errors import ASRError
from asr.events import Event, Final, Gap, Partial
from asr.options import Options
from asr.riva_codec import ResponseReader
from asr.riva_proto import asr as pb
from asr.wire import decode
from evaluation.clips import Clip
from evaluation.recording import Heard, Recording
from evaluation.sets import joined
from evaluation.timing import measure
from load.plan import StepPlan
from load.records import SessionRecord
from load.speech import Measure, script, starts

MAX_HEARD = 50_000
"""Partials and finals that are kept of one session; after that only finals are."""
LATE_CELL_MS = 0.1
LATE_CELLS = 100_001
"""Lateness of all chunks of a step is counted in cells: exact to a tenth of a millisecond, up to ten seconds."""

Json = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(slots=True)
class Heap:
    """What has come of one session so far."""

    heard: list[Heard] = field(default_factory=list)
    gaps_ms: int = 0
    reader: ResponseReader | None = None


class Digest:
    """Makes the records of a step.

    Attributes:
        records: by number, of the sessions that are over.
    """

    def __init__(self, plan: StepPlan) -> None:
        """Nothing has been heard yet."""
        self._plan = plan
        self._measure = Measure(plan.chunk_ms, plan.pause_ms, plan.tail_ms)
        self._lengths = [clip.audio_ms for clip in plan.clips]
        self._rates = [(clip.audio_ms, clip.sample_rate_hz) for clip in plan.clips]
        self._heaps: dict[int, Heap] = {}
        self._late = np.zeros(LATE_CELLS, dtype=np.int64)
        self._joined = lru_cache(maxsize=64)(self._join)
        self.records: dict[int, SessionRecord] = {}

    def said(self, number: int) -> tuple[int, ...]:
        """The script of a session."""
        return script(number, self._plan.arrivals[number], self._rates, self._measure)

    def line(self, line: Json, go_s: float) -> None:
        """A line of a worker: `heard` or `session`."""
        if line["type"] == "session":
            self.session(line, go_s)
        else:
            self.heard(line, go_s)

    def heard(self, line: Json, go_s: float) -> None:
        """A part of what a session heard."""
        heap = self._heaps.setdefault(line["number"], Heap())
        moments = (_moments(line["at"]) - go_s) * 1000
        if self._plan.door.wire == "grpc":
            self._read_grpc(heap, line["frames"], moments)
        else:
            for at_ms, message in zip(moments.tolist(), line["frames"], strict=True):
                self._keep(heap, at_ms, _event(message))

    def session(self, line: Json, go_s: float) -> None:
        """A session is over."""
        number = line["number"]
        self.heard(line, go_s)
        heap = self._heaps.pop(number)
        sent_ms = (_moments(line["sent"]) - go_s) * 1000
        said = self.said(number)
        places = starts(said, self._lengths, self._measure)
        whole = [place for place, (_, end) in zip(said, places, strict=True) if end <= len(sent_ms)]
        arrival = self._plan.arrivals[number]
        cut = arrival.cut_ms is not None
        late, held = self._lateness(sent_ms, line["first_due_ms"], line["held"])
        due_ms = self._owed(sent_ms, line["first_due_ms"], line["held"])
        clips = self._plan.clips
        record = SessionRecord(
            number=number,
            start_ms=arrival.start_ms,
            connected_ms=line["connected_ms"],
            queue_ms=line["queue_ms"],
            ended_ms=line["ended_ms"],
            clips=tuple(clips[place].id for place in said),
            reference="" if cut else " ".join(clips[place].text for place in whole if clips[place].text),
            hypothesis="" if cut else " ".join(h.text for h in heap.heard if h.kind == "final" and h.text),
            audio_ms=len(sent_ms) * self._plan.chunk_ms,
            outcome=line["outcome"],
            code=line["code"],
            detail=line["detail"],
            retry_after_ms=line["retry_after_ms"],
            partials=sum(h.kind == "partial" for h in heap.heard),
            finals=sum(h.kind == "final" for h in heap.heard),
            chunks=len(sent_ms),
            late_p99_ms=float(np.percentile(late, 99)) if len(late) else 0.0,
            late_max_ms=float(late.max()) if len(late) else 0.0,
            held_chunks=len(held),
            held_max_ms=float(held.max()) if len(held) else 0.0,
            cut=cut,
            speaking_ms=line["first_due_ms"],
        )
        if not cut and len(sent_ms):
            record = replace(record, timings=self._timings(said, heap, due_ms, record, line["first_due_ms"]))
        self.records[number] = record

    def lost(self, numbers: Iterable[int], detail: str, now_ms: float, code: str = "worker_lost") -> None:
        """Of these sessions nothing is known; those that are over are left alone."""
        for number in numbers:
            if number in self.records:
                continue
            arrival = self._plan.arrivals[number]
            self.records[number] = SessionRecord(
                number=number,
                start_ms=arrival.start_ms,
                connected_ms=None,
                queue_ms=None,
                ended_ms=now_ms,
                clips=tuple(self._plan.clips[place].id for place in self.said(number)),
                reference="",
                hypothesis="",
                audio_ms=0,
                outcome="error",
                code=code,
                detail=detail,
                cut=arrival.cut_ms is not None,
            )

    def late_ms(self, share: float) -> float:
        """How late chunks were sent, over all of the step: the given share was not later. 1 is the worst."""
        total = int(self._late.sum())
        if not total:
            return 0.0
        cell = int(np.searchsorted(np.cumsum(self._late), max(share * total, 1)))
        return round(cell * LATE_CELL_MS, 1)

    # Inside ---------------------------------------------------------------------------------------

    def _lateness(self, sent_ms: Floats, first_due_ms: float | None, held: Sequence[int]) -> tuple[Floats, Floats]:
        """Of the chunks that left at their turn, and of those that the connection did not take then."""
        if first_due_ms is None or not len(sent_ms):
            return np.empty(0), np.empty(0)
        late = np.maximum(sent_ms - first_due_ms - np.arange(len(sent_ms)) * self._plan.chunk_ms, 0.0)
        free = np.ones(len(late), dtype=bool)
        free[list(held)] = False
        own = late[free]
        cells = np.minimum((own / LATE_CELL_MS).astype(np.int64), LATE_CELLS - 1)
        np.add.at(self._late, cells, 1)
        return own, late[~free]

    def _owed(self, sent_ms: Floats, first_due_ms: float | None, held: Sequence[int]) -> Floats:
        """The moments from which latencies count: when a chunk was sent, but when it was due where the connection did
        not take it then. A gateway that stops reading would else hide how long its speakers wait."""
        if first_due_ms is None or not held:
            return sent_ms
        moments, places = sent_ms.copy(), np.asarray(held)
        moments[places] = np.minimum(moments[places], first_due_ms + places * self._plan.chunk_ms)
        return moments

    def _timings(
        self, said: tuple[int, ...], heap: Heap, sent_ms: Floats, record: SessionRecord, first_due_ms: float
    ) -> Any:
        # A chunk is due when its last sample has been spoken.
        begin_ms = first_due_ms - self._plan.chunk_ms
        recording = Recording(
            chunk_ms=self._plan.chunk_ms,
            sent_at_ms=(sent_ms - begin_ms).tolist(),
            heard=[replace(h, at_ms=h.at_ms - begin_ms) for h in heap.heard],
            realtime=True,
            audio_ms=record.audio_ms,
            ready_ms=record.queue_ms,
            total_ms=record.ended_ms - begin_ms,
            late_ms=record.late_max_ms,
            outcome=record.outcome,
            detail=record.detail,
            gaps_ms=heap.gaps_ms,
        )
        return measure(self._joined(said), recording)

    def _join(self, said: tuple[int, ...]) -> Clip:
        parts: list[Clip | int] = []
        at_ms = 0
        for place, (begin, _) in zip(said, starts(said, self._lengths, self._measure), strict=True):
            clip = self._plan.clips[place]
            if gap_ms := begin * self._plan.chunk_ms - at_ms:
                parts.append(gap_ms)
            parts.append(clip)
            at_ms = begin * self._plan.chunk_ms + clip.audio_ms
        return joined("session", "load", tuple(parts))

    def _keep(self, heap: Heap, at_ms: float, event: Event | None) -> None:
        if isinstance(event, Gap):
            heap.gaps_ms += event.end_ms - event.start_ms
        elif isinstance(event, Final) or (isinstance(event, Partial) and len(heap.heard) < MAX_HEARD):
            words = tuple((word.text, word.start_ms, word.end_ms) for word in event.words)
            kind = "final" if isinstance(event, Final) else "partial"
            heap.heard.append(
                Heard(at_ms, kind, event.utterance, event.text, event.start_ms, event.end_ms, words)  # type: ignore[arg-type]
            )

    def _read_grpc(self, heap: Heap, frames: Sequence[str], moments: Floats) -> None:
        reader = heap.reader = heap.reader or ResponseReader(Options())
        for at_ms, frame in zip(moments.tolist(), frames, strict=True):
            for event in reader.read(pb.StreamingRecognizeResponse.FromString(base64.b64decode(frame))):
                self._keep(heap, at_ms, event)


def _moments(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text), dtype=np.float64)


def _event(message: Json) -> Event | None:
    try:
        return decode(message)
    except ASRError:
        return None
