"""Clients of asr.v1 that send numbered frames at the pace of speech and keep every message with its time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chaos.numbered import BYTES_PER_MS, FRAME_MS, FRAMES_PER_CLIENT, Heard, Sent, Verdict, frame, judge

ANSWERS = frozenset({"partial", "final", "status", "gap", "error", "summary", "finalized", "resumed"})
"""Messages by which a person learns how it stands; an `ack` is none."""


EXPLAINS = frozenset({"degraded", "failing_over", "throttled"})


@dataclass(frozen=True, slots=True)
class Script:
    """What one client sends.

    Attributes:
        client: 0, 1 …: its frames are numbered from 1000 times that.
        frames: how many it sends.
        pauses: silent frames (zeros, sent in their time) before that frame.
        mutes: seconds in which nothing at all is sent, before that frame.
        pace: how many times faster than speech.
        min_chunk, max_chunk: bytes of a message.
        seed: of the sizes of its messages.
    """

    client: int
    frames: int
    pauses: tuple[tuple[int, int], ...] = ()
    mutes: tuple[tuple[int, float], ...] = ()
    pace: float = 1.0
    min_chunk: int = 400
    max_chunk: int = 6_400
    seed: int = 0

    def audio(self) -> tuple[bytes, list[Sent]]:
        """All its audio, and where each frame lies."""
        return _audio(self)

    def make_audio(self) -> tuple[bytes, list[Sent]]:
        """The same, made anew."""
        pieces: list[bytes] = []
        sent: list[Sent] = []
        at_ms = 0
        pauses = dict(self.pauses)
        for n in range(self.frames):
            silent = pauses.get(n, 0)
            pieces.append(bytes(silent * FRAME_MS * BYTES_PER_MS))
            at_ms += silent * FRAME_MS
            number = self.client * FRAMES_PER_CLIENT + n
            pieces.append(frame(number))
            sent.append(Sent(number, at_ms, at_ms + FRAME_MS))
            at_ms += FRAME_MS
        return b"".join(pieces), sent

    def mute_offsets(self) -> dict[int, float]:
        """Seconds of nothing by byte offset."""
        offsets, at, pauses = {}, 0, dict(self.pauses)
        mutes = dict(self.mutes)
        for n in range(self.frames):
            if n in mutes:
                offsets[at] = mutes[n]
            at += (1 + pauses.get(n, 0)) * FRAME_MS * BYTES_PER_MS
        return offsets

    async def chunks(self) -> AsyncIterator[bytes]:
        """The audio in messages of random size, each when it would have been spoken."""
        audio, _ = self.audio()
        mutes = self.mute_offsets()
        sizes = random.Random(self.seed * 1_009 + self.client)
        clock = asyncio.get_running_loop().time
        begun, at = clock(), 0
        while at < len(audio):
            if at in mutes:
                await asyncio.sleep(mutes[at])
                begun += mutes.pop(at)
            end = min(at + sizes.randint(self.min_chunk, self.max_chunk), len(audio), *mutes or (len(audio),))
            due = begun + end / BYTES_PER_MS / 1_000 / self.pace
            if due > clock():
                await asyncio.sleep(due - clock())
            yield audio[at:end]
            at = end


@lru_cache(maxsize=256)
def _audio(script: Script) -> tuple[bytes, list[Sent]]:
    return script.make_audio()


@dataclass(slots=True)
class Record:
    """What one client lived through; times are of the loop's clock, in seconds.

    Attributes:
        script: what it sent.
        opened_at, first_audio_at, stopped_at, ended_at: None where it did not come to that.
        messages: everything received, with its time.
        http_status: of a refused handshake, else 0.
        retry_after: its header of that name.
        close_code: 1006 where the connection was lost; 0 where there was none.
        hung: nothing ended within the client's patience.
        status: of a gRPC call.
    """

    script: Script
    begun_at: float = 0.0
    first_audio_at: float | None = None
    stopped_at: float | None = None
    ended_at: float = 0.0
    messages: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    http_status: int = 0
    retry_after: str = ""
    close_code: int = 0
    hung: bool = False
    status: str = ""

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The messages of a type."""
        return [message for _, message in self.messages if message.get("type") == kind]

    @property
    def whole(self) -> bool:
        """It ended as it should: the summary, and a clean close."""
        return bool(self.of("summary")) and self.close_code == 1000

    @property
    def errors(self) -> list[dict[str, Any]]:
        """Fatal ones."""
        return [error for error in self.of("error") if error.get("fatal")]

    def heard(self) -> list[Heard]:
        """Finals and gaps in the order they came."""
        heard = []
        for _, m in self.messages:
            if m.get("type") == "final":
                words = tuple((w["w"], w["start_ms"]) for w in m["words"])
                heard.append(Heard(m["start_ms"], m["end_ms"], m["text"], words))
            elif m.get("type") == "gap":
                heard.append(Heard(m["start_ms"], m["end_ms"], gap=True))
        return heard

    def verdict(self) -> Verdict:
        """What became of its audio; where the stream broke off, of the audio that was acknowledged as received."""
        sent = self.script.audio()[1]
        acks = self.of("ack")
        if acks and not self.whole:
            until_ms = max([acks[-1]["received_ms"], *(h.end_ms for h in self.heard())])
            sent = [s for s in sent if s.end_ms <= until_ms]
        return judge(sent, self.heard())

    def silences(self, since: float = 0.0) -> list[tuple[int, bool]]:
        """Every wait between two answers that ended after `since`: its milliseconds, and whether it was explained.

        A wait is explained when a status before it said that the recognizer is slow, full or lost.
        """
        answers = [(at, m) for at, m in self.messages if m.get("type") in ANSWERS]
        begun = self.first_audio_at if self.first_audio_at is not None else self.begun_at
        edges: list[tuple[float, bool]] = [(begun, False)]
        told = False
        for at, m in answers:
            told = m["state"] in EXPLAINS if m["type"] == "status" else False
            if begun < at <= self.ended_at:
                edges.append((at, told))
        edges.append((self.ended_at, False))
        return [
            (int((after - max(before, since)) * 1000), explained)
            for (before, explained), (after, _) in pairwise(edges)
            if after > since
        ]

    def answer_ms(self, since: float = 0.0) -> int:
        """The longest time that the client was left alone with nothing to explain it."""
        return max((ms for ms, explained in self.silences(since) if not explained), default=0)

    def wait_ms(self, since: float = 0.0) -> int:
        """The longest time without any answer, explained or not."""
        return max((ms for ms, _ in self.silences(since)), default=0)

    def misnumbered(self) -> int:
        """Places where `seq` is not the next number."""
        numbers = [m["seq"] for _, m in self.messages if "seq" in m and m.get("type") != "resumed"]
        return sum(b != a + 1 for a, b in pairwise(numbers))

    def overacknowledged_ms(self) -> int:
        """The most audio of frames that an ack let the client forget before a final or gap covered it."""
        speech = [(s.start_ms, s.end_ms) for s in self.script.audio()[1]]
        covered_ms = most = 0
        for _, m in self.messages:
            if m.get("type") in ("final", "gap"):
                covered_ms = max(covered_ms, m["end_ms"])
            elif m.get("type") == "ack":
                safe_ms = m["safe_bytes"] // BYTES_PER_MS
                most = max(most, sum(max(min(e, safe_ms) - max(s, covered_ms), 0) for s, e in speech))
        return most


async def native(
    port: int,
    script: Script,
    *,
    patience_s: float,
    start: dict[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Record:
    """One session of asr.v1, from the handshake to its end. Never raises for what the gateway does."""
    record = Record(script, begun_at=now())
    try:
        async with asyncio.timeout(patience_s):
            await _native(f"ws://127.0.0.1:{port}/v1/stream", record, start or {}, headers or {})
    except TimeoutError:
        record.hung = True
    except InvalidStatus as refused:
        record.http_status = refused.response.status_code
        record.retry_after = refused.response.headers.get("Retry-After", "")
    except (ConnectionClosed, OSError):
        record.close_code = record.close_code or 1006
    record.ended_at = now()
    return record


async def _native(url: str, record: Record, start: dict[str, Any], headers: Mapping[str, str]) -> None:
    async with connect(
        url, proxy=None, compression=None, close_timeout=2, open_timeout=20, ping_interval=None, max_size=2**24,
        additional_headers=headers,
    ) as websocket:  # fmt: skip
        await websocket.send(orjson.dumps({"type": "start", **start}).decode())
        listening = asyncio.create_task(_listen(websocket, record))
        try:
            async for chunk in record.script.chunks():
                if listening.done():
                    break
                record.first_audio_at = record.first_audio_at or now()
                await websocket.send(chunk)
            else:
                await websocket.send('{"type":"stop"}')
                record.stopped_at = now()
        except ConnectionClosed:
            pass
        finally:
            try:
                await asyncio.shield(listening)
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)


async def _listen(websocket: ClientConnection, record: Record) -> None:
    try:
        while True:
            text = await websocket.recv(decode=False)
            record.messages.append((now(), orjson.loads(text)))
    except ConnectionClosed as closed:
        record.close_code = closed.rcvd.code if closed.rcvd else 1006


def now() -> float:
    """The loop's clock, in seconds."""
    return asyncio.get_running_loop().time()
