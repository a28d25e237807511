"""Sessions of a scripted gateway that outlive their connections, for the page's tests.

The recognizer behind them hears a word in every 250 ms of audio and ends an utterance with every fourth; words are
numbered by the session's own clock, and utterances begin anew in each session.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from websockets.exceptions import ConnectionClosed

from e2e.page_server import Talk

BYTES_PER_MS = 32
WORD_MS = 250
WORDS = 4


class Held:
    """A session that waits for its client, or has one."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = f"session-{number}"
        self.token = f"token-{number}-0"
        self.audio = bytearray()
        self.log: list[dict[str, Any]] = []
        self.words = 0
        self.resumes = 0
        self.stopped = False

    def add(self, kind: str, **fields: Any) -> None:
        self.log.append({"type": kind, "seq": len(self.log) + 1, **fields})

    def hear(self, pcm: bytes) -> None:
        if self.stopped:
            return
        self.audio += pcm
        while (self.words + 1) * WORD_MS * BYTES_PER_MS <= len(self.audio):
            self.words += 1
            self._say(final=self.words % WORDS == 0)
            self._ack()

    def stop(self) -> None:
        if self.stopped:
            return
        self.stopped = True
        if self.words % WORDS:
            self._say(final=True)
        self._ack()
        self.add("summary", audio_ms=len(self.audio) // BYTES_PER_MS, utterances=-(-self.words // WORDS))

    def _say(self, *, final: bool) -> None:
        utterance = (self.words - 1) // WORDS
        first = utterance * WORDS
        texts = [f"s{self.number}w{n + 1}" for n in range(first, self.words)]
        times = [((first + i) * WORD_MS, (first + i + 1) * WORD_MS) for i in range(len(texts))]
        fields: dict[str, Any] = {
            "utterance_id": f"u{utterance}",
            "revision": self.words - first,
            "channel": 0,
            "start_ms": times[0][0],
            "end_ms": times[-1][1],
            "text": " ".join(texts),
        }
        if not final:
            self.add("partial", stable_chars=0, **fields)
            return
        words = [
            {"w": w, "start_ms": a, "end_ms": b, "confidence": None, "speaker": None, "language": None}
            for w, (a, b) in zip(texts, times, strict=True)
        ]
        self.add("final", words=words, confidence=None, language="en-US", reason="endpoint", **fields)

    def _ack(self) -> None:
        ms = len(self.audio) // BYTES_PER_MS
        safe = self.words // WORDS * WORDS * WORD_MS * BYTES_PER_MS
        self.add("ack", received_bytes=len(self.audio), received_ms=ms, processed_ms=ms, buffered_ms=0, safe_bytes=safe)


class Gateway:
    """A script for `page_server`: give it as it is.

    Attributes:
        sessions: all that were started, in order.
        known: those that may be resumed, by id.
        refuse: the errors with which the next connections are refused: (code, close code, retry_after_ms).
        mute: the connection stays open, but from now on nothing on it is heard or answered.
        mute_at_ms: becomes mute when a session has so much audio.
        firsts: the first message of every connection.
        paths: the connections' addresses.
        talk: the newest connection.
    """

    def __init__(self) -> None:
        self.sessions: list[Held] = []
        self.known: dict[str, Held] = {}
        self.refuse: list[tuple[str, int, int | None]] = []
        self.mute = False
        self.mute_at_ms: int | None = None
        self.firsts: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.talk: Talk | None = None

    def cut(self) -> None:
        """Break the connection without a goodbye."""
        assert self.talk is not None
        self.talk.connection.transport.abort()

    async def end(self, code: int) -> None:
        """Close the connection with a code."""
        assert self.talk is not None
        await self.talk.connection.close(code)

    def forget(self) -> None:
        """What a new process knows of the sessions before it."""
        self.known.clear()

    async def __call__(self, talk: Talk) -> None:
        with contextlib.suppress(ConnectionClosed):
            await self._talk(talk)

    async def _talk(self, talk: Talk) -> None:
        self.talk = talk
        self.firsts.append(talk.first)
        request = talk.connection.request
        assert request is not None
        self.paths.append(request.path)
        if self.refuse:
            code, close_code, retry_after_ms = self.refuse.pop(0)
            await self._refuse(talk, code, close_code, retry_after_ms)
        elif talk.first["type"] == "start":
            held = Held(len(self.sessions) + 1)
            self.sessions.append(held)
            self.known[held.id] = held
            limits = {"max_frame_bytes": 65_536, "resume_window_ms": 60_000}
            said = {"server": "scripted 1", "model": "scripted-en", "language": "en-US", "warnings": []}
            held.add("ready", session_id=held.id, resume_token=held.token, limits=limits, **said)
            await self._serve(talk, held, told=0)
        else:
            await self._resume(talk)

    async def _resume(self, talk: Talk) -> None:
        asked = talk.first
        found = self.known.get(asked["session_id"])
        if found is None or found.token != asked["resume_token"]:
            await self._refuse(talk, "not_found", 4404, None)
            return
        assert f"session={found.id}" in self.paths[-1]
        found.resumes += 1
        found.token = f"token-{found.number}-{found.resumes}"
        answer = {
            "type": "resumed",
            "seq": asked["last_seq"],
            "session_id": found.id,
            "resume_token": found.token,
            "from_bytes": len(found.audio),
            "replaying_from_seq": asked["last_seq"] + 1,
            "lost_ms": 0,
        }
        await talk.connection.send(json.dumps(answer))
        await self._serve(talk, found, told=asked["last_seq"])

    async def _refuse(self, talk: Talk, code: str, close_code: int, retry_after_ms: int | None) -> None:
        await talk.say("error", code=code, message=f"Refused: {code}.", fatal=True, retry_after_ms=retry_after_ms)
        await talk.connection.close(close_code, code)

    async def _serve(self, talk: Talk, held: Held, *, told: int) -> None:
        heard = 0
        while not self.mute:
            while told < len(held.log):
                await talk.connection.send(json.dumps(held.log[told]))
                told += 1
            if told and held.log[told - 1]["type"] == "summary":
                return
            talk.progress.clear()
            if heard == len(talk.audio) and talk.controls.empty():
                gone = asyncio.ensure_future(talk.connection.wait_closed())
                news = asyncio.ensure_future(talk.progress.wait())
                await asyncio.wait([gone, news], return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
                if gone.done():
                    return
                gone.cancel()
            if self.mute:
                break
            held.hear(bytes(talk.audio[heard:]))
            heard = len(talk.audio)
            if self.mute_at_ms is not None and len(held.audio) >= self.mute_at_ms * BYTES_PER_MS:
                self.mute, self.mute_at_ms = True, None
            while not talk.controls.empty():
                if talk.controls.get_nowait() == "stop":
                    held.stop()
        await talk.connection.wait_closed()
