"""A recognizer that says what its plan says: PCM in, Riva-shaped responses out, and nothing else.

Pure: no clock, no chance, no I/O. The same bytes, cut up in any way, give the same responses.
"""

from __future__ import annotations

import math

import numpy as np

from asr.mock.hearing import Heard, Hearing, Turn
from asr.mock.plan import FRAME_MS, MockPlan
from asr.mock.responses import EMPTY, RawResponse, RawResult, Request
from asr.mock.sections import Fault
from asr.mock.shapes import eager_result, final_result, partial_results, vad_result

_DEFAULT_REQUEST = Request()
_SAMPLE_BYTES = 2


class ScriptedRecognizer:
    """One stream.

    Attributes:
        rate_hz: of the PCM it takes.
        fault: what has broken, once the plan's point is reached; from then on there are no responses, and
            it is for the caller to act it out. May be set from the start.
    """

    def __init__(self, plan: MockPlan, request: Request = _DEFAULT_REQUEST, *, stream: int = 1) -> None:
        """`stream` counts the streams of a server or engine from 1: faults may name it."""
        self.rate_hz = request.rate_hz
        self._plan = plan
        self._shape = plan.shape
        self._request = request
        silence_ms = plan.silence_ms if request.silence_ms is None else request.silence_ms
        eager_ms = plan.shape.eager_eou_ms if request.eager_ms is None else request.eager_ms
        endless = request.manual or plan.shape.never_final
        self._hearing = Hearing(plan, math.inf if endless else silence_ms, eager_ms)
        self._frame_samples = max(1, request.rate_hz * FRAME_MS // 1000)
        self._chunk_samples = self._frame_samples * (plan.chunk_ms // FRAME_MS)
        self._loud_square = (32768.0 * 10 ** (plan.loud_dbfs / 20)) ** 2
        self._vad = plan.shape.pipeline_states == "always" or (
            plan.shape.pipeline_states == "asked" and request.vad_probabilities
        )
        self._hold = plan.shape.hold_final and request.interim_results and plan.shape.partials != "none"
        self._pending = bytearray()
        self._in_chunk = 0
        self._samples = 0
        self._chunks = 0
        self._finals = 0
        self._held: list[RawResult] = []
        self._shown = 0
        self._rough = False
        self._faults = [f for f in plan.faults if not f.streams or stream in f.streams]
        self.fault: Fault | None = next((f for f in self._faults if not f.at_ms and not f.at_chunk), None)

    @property
    def processed_ms(self) -> int:
        """How much audio has been heard; whole server chunks, but for an end."""
        return self._samples * 1000 // self.rate_hz

    def feed(self, pcm: bytes) -> list[RawResponse]:
        """Hear more PCM16 mono (any number of bytes): one response for each server chunk it completes."""
        self._pending += pcm
        responses: list[RawResponse] = []
        while self.fault is None:
            need = (self._chunk_samples - self._in_chunk) * _SAMPLE_BYTES
            if len(self._pending) < need:
                break
            block = bytes(self._pending[:need])
            del self._pending[:need]
            results = self._hear(block)
            self._in_chunk = 0
            self._chunks += 1
            responses.append(self._respond(results))
            self._check_faults()
        if self.fault is not None:
            self._pending.clear()
        return responses

    def force_eou(self) -> list[RawResponse]:
        """End the utterance here (`runtime_config.force_eou`): a response with its final, where one is open."""
        return self._flush()

    def finish(self) -> list[RawResponse]:
        """The audio is over: the last response, where there is anything to say."""
        return self._flush()

    def _flush(self) -> list[RawResponse]:
        if self.fault is not None:
            return []
        block = bytes(self._pending[: len(self._pending) // _SAMPLE_BYTES * _SAMPLE_BYTES])
        del self._pending[: len(block)]
        results = self._hear(block)
        self._in_chunk += len(block) // _SAMPLE_BYTES
        if not self._shape.never_final:
            self._end(results, self._hearing.cut(self.processed_ms))
        results = self._held + results
        self._held = []
        self._check_faults()
        return [RawResponse(tuple(results))] if results else []

    def _hear(self, block: bytes) -> list[RawResult]:
        results: list[RawResult] = []
        voiced = self._voiced(block)
        tick = self._hearing.tick
        end = self._samples + len(block) // _SAMPLE_BYTES
        start_ms = self.processed_ms
        for loud in voiced:
            self._samples = min(self._samples + self._frame_samples, end)
            now_ms = self.processed_ms
            turn = tick(start_ms, now_ms, loud)
            start_ms = now_ms
            if turn is None:
                continue
            if turn is Turn.END:
                self._end(results, self._hearing.take())
            elif self._request.interim_results:
                eager = eager_result(self._hearing.heard, self._shape, self.processed_ms)
                if eager is not None:
                    results.append(eager)
        if self._vad and voiced:
            results.append(vad_result(voiced, self._shape, self.processed_ms))
        return results

    def _end(self, results: list[RawResult], words: list[Heard]) -> None:
        self._shown = self._hearing.said
        self._rough = False
        if words:
            results.append(final_result(words, self._shape, self._request, self.processed_ms, self._finals == 0))
            self._finals += 1

    def _respond(self, results: list[RawResult]) -> RawResponse:
        partials = self._partials()
        if self._hold and not partials:
            self._held += [r for r in results if r.is_final]
            results = [r for r in results if not r.is_final]
        else:
            results = self._held + results + partials
            self._held = []
        return RawResponse(tuple(results)) if results else EMPTY

    def _partials(self) -> list[RawResult]:
        words = self._hearing.heard
        if not self._request.interim_results or self._shape.partials == "none" or not words:
            return []
        new = self._hearing.said != self._shown
        if not new and not self._rough and not self._shape.repeat_partials:
            return []
        self._shown = self._hearing.said
        self._rough = new and self._shape.partials == "rewrite"
        return partial_results(words, self._shape, self.processed_ms, rough=self._rough, request=self._request)

    def _voiced(self, block: bytes) -> list[bool]:
        samples = len(block) // _SAMPLE_BYTES
        frame = self._frame_samples
        frames = -(-samples // frame)
        if self._plan.hears == "clock":
            return [True] * frames
        pcm = np.frombuffer(block, dtype="<i2").astype(np.float32)
        whole = samples // frame
        shaped = pcm[: whole * frame].reshape(whole, frame)
        squares = np.einsum("ij,ij->i", shaped, shaped)
        voiced: list[bool] = (squares >= self._loud_square * frame).tolist()
        if frames > whole:
            rest = pcm[whole * frame :]
            voiced.append(float(rest @ rest) >= self._loud_square * len(rest))
        return voiced

    def _check_faults(self) -> None:
        for fault in self._faults:
            if (fault.at_ms and self.processed_ms >= fault.at_ms) or (
                fault.at_chunk and self._chunks >= fault.at_chunk
            ):
                self.fault = fault
                return
