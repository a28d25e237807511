"""The desk: one use of the boundary for faces that are calls."""

import asyncio
import io
import wave
from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from asr.engine import AudioInput
from asr.errors import ASRError, Code
from asr.events import Event
from asr.options import Diarization, Options
from server.admission import Admission
from server.calls import CallLimits, Desk, note_headers, while_connected
from server.forms import Upload
from server.spool import Spool
from server.telemetry.watch import StreamWatch
from word_engine import WordEngine


def wav(seconds: float, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((channels, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(int(seconds * 32_000) * channels))
    return out.getvalue()


def desk(tmp_path: Path, engine: Any = None, **more: Any) -> Desk:
    admission = Admission(2, random=lambda: 0.5, clock=lambda: 0.0, reserve_percent=0)
    return Desk(engine or WordEngine(), admission, Spool(tmp_path / "spool", 1 << 24), **more)


def watched(at: Desk) -> StreamWatch:
    return at.telemetry.open("test", kind="recording", peer="memory")


async def upload_of(at: Desk, data: bytes, name: str = "clip.wav") -> Upload:
    file = at.spool.create()
    file.write(data)
    file.close()
    return Upload(file.path, name, "", file.size_bytes, at.spool)


def request_that(*, gone: asyncio.Event | None = None, address: str = "192.0.2.1") -> Request:
    async def receive() -> dict[str, Any]:
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b"", "client": (address, 1)}
    return Request(scope, receive)


async def test_a_recording_becomes_a_transcript(tmp_path: Path):
    at = desk(tmp_path)
    agreement = await at.agree(Options(language="en", model="whisper-1", diarization=Diarization()))
    seen: list[Event] = []
    async with await upload_of(at, wav(1.2)) as upload:
        transcript = await at.transcribe(upload, agreement, watched(at), on_event=seen.append)
    assert transcript.text == "w1 w2 w3 w4 w5 w6"
    assert transcript.duration_ms == 1200
    assert (transcript.language, transcript.model) == ("en-US", "words-en")
    assert [w.split(";")[0][:40] for w in transcript.warnings] == [
        "The model 'whisper-1' is not served here",
        "This recognizer does not support diarization"[:40],
    ]
    assert seen
    assert at.spool.used_bytes == 0


async def test_what_the_recognizer_cannot_do_is_refused_by_policy(tmp_path: Path):
    at = desk(tmp_path, refuse_unsupported=True)
    with pytest.raises(ASRError) as caught:
        await at.agree(Options(diarization=Diarization()))
    assert (caught.value.code, caught.value.param) == (Code.UNSUPPORTED, "diarization")


@pytest.mark.parametrize("data", [b"not audio at all, whatever its name", b"RIFF", wav(0)])
async def test_what_cannot_be_decoded_names_the_file_as_the_client_does(tmp_path: Path, data: bytes):
    at = desk(tmp_path)
    agreement = await at.agree(Options())
    async with await upload_of(at, data, "mine.mp3") as upload:
        with pytest.raises(ASRError, match=r"^mine\.mp3") as caught:
            await at.transcribe(upload, agreement, watched(at))
    assert (caught.value.code, caught.value.param) == (Code.BAD_AUDIO, "file")
    assert ".upload" not in caught.value.message


async def test_a_recording_that_is_too_long_is_told_before_anyone_is_asked(tmp_path: Path):
    at = desk(tmp_path, limits=CallLimits(max_audio_ms=1000))
    agreement = await at.agree(Options())
    async with await upload_of(at, wav(1.5)) as upload:
        with pytest.raises(ASRError, match="longer than") as caught:
            await at.transcribe(upload, agreement, watched(at))
    assert caught.value.code is Code.BAD_REQUEST


async def test_a_length_that_no_header_tells_is_bounded_too(tmp_path: Path):
    at = desk(tmp_path, limits=CallLimits(max_audio_ms=3000))
    agreement = await at.agree(Options())
    whole = bytearray(wav(9))
    whole[4:8] = whole[40:44] = b"\xff\xff\xff\xff"
    async with await upload_of(at, bytes(whole)) as upload:
        with pytest.raises(ASRError, match="longer than"):
            await at.transcribe(upload, agreement, watched(at))


async def test_places_are_given_back(tmp_path: Path):
    at = desk(tmp_path)
    with at.admitted(request_that(), "test"), at.admitted(request_that(), "test"):
        with pytest.raises(ASRError) as caught:
            at.admit(request_that(address="192.0.2.2"))
        assert caught.value.code is Code.OVERLOADED
    at.admit(request_that()).release()


class Stuck(WordEngine):
    closed = False

    def __init__(self) -> None:
        super().__init__()
        self.started = asyncio.Event()

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        self.started.set()
        try:
            await asyncio.Event().wait()
            async for event in super().stream(audio, options):
                yield event
        finally:
            self.closed = True


async def test_a_client_that_goes_away_ends_the_work(tmp_path: Path):
    engine = Stuck()
    at = desk(tmp_path, engine)
    agreement = await at.agree(Options())
    async with await upload_of(at, wav(1)) as upload:
        with pytest.raises(ASRError) as caught:
            async with asyncio.timeout(5):
                await while_connected(request_that(gone=engine.started), at.transcribe(upload, agreement, watched(at)))
    assert caught.value.code is Code.IDLE_TIMEOUT
    assert engine.closed


async def test_work_that_is_done_is_not_disturbed():
    async def work() -> int:
        return 7

    assert await while_connected(request_that(), work()) == 7


def test_notes_are_printable_and_few():
    headers = note_headers(["a\nb", "ü", "a\nb", *(str(n) for n in range(99))])
    assert headers[:2] == [("riva-gateway-note", "a?b"), ("riva-gateway-note", "?")]
    assert len(headers) == 16
    assert headers[-1][1] == "There were 86 more notes like these."
