"""Real speech in real time through every way into the gateway, on the embedded recognizer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import pytest

import speech
from asr import Final, Partial, RivaASRClient
from asr.riva_proto import asr as riva
from asr.riva_proto import asr_grpc
from server.serve import Addresses
from timing import Late

from .gateway import running, session

CHUNK_MS = 100


@dataclass
class Heard:
    """What came back of one clip, and whether words were seen before the audio was over."""

    finals: list[str] = field(default_factory=list)
    partials_while_speaking: int = 0
    speaking: bool = True

    def partial(self) -> None:
        self.partials_while_speaking += self.speaking

    @property
    def text(self) -> str:
        return " ".join(self.finals)


async def in_real_time(pcm: bytes, heard: Heard) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number, begin in enumerate(range(0, len(pcm), CHUNK_MS * 32)):
        await asyncio.sleep(max(start + number * CHUNK_MS / 1000 - loop.time(), 0))
        yield pcm[begin : begin + CHUNK_MS * 32]
    heard.speaking = False


async def native(addresses: Addresses, pcm: bytes) -> Heard:
    heard = Heard()
    async with session(addresses) as client:
        await client.say('{"type":"start"}')

        async def speak() -> None:
            async for chunk in in_real_time(pcm, heard):
                await client.say(chunk)
            await client.say('{"type":"stop"}')

        speaking = asyncio.create_task(speak())
        while (message := await client.message())["type"] != "summary":
            if message["type"] == "partial":
                heard.partial()
            elif message["type"] == "final":
                heard.finals.append(message["text"])
                times = [(word["start_ms"], word["end_ms"]) for word in message["words"]]
                assert times == sorted(times)
                assert all(0 <= start < end <= len(pcm) // 32 for start, end in times)
                assert [word["w"] for word in message["words"]] == message["text"].split()
        await speaking
        assert message["audio_ms"] == len(pcm) // 32
    return heard


async def end_dialect(addresses: Addresses, pcm: bytes) -> Heard:
    heard = Heard()
    async with session(addresses, "/ws") as client:

        async def speak() -> None:
            async for chunk in in_real_time(pcm, heard):
                await client.say(chunk)
            await client.say("END")

        speaking = asyncio.create_task(speak())
        while (text := await client.answer()) != "END":
            message = json.loads(text)
            if message["is_final"]:
                heard.finals.append(message["text"])
            else:
                heard.partial()
        await speaking
        assert await client.answer() == "close 1000"
    return heard


async def riva_grpc(addresses: Addresses, pcm: bytes) -> Heard:
    heard = Heard()
    async with grpc.aio.insecure_channel(f"localhost:{addresses.grpc_port}") as channel:

        async def requests() -> AsyncIterator[object]:
            config = riva.StreamingRecognitionConfig(interim_results=True)
            config.config.encoding, config.config.sample_rate_hertz = 1, 16_000
            config.config.language_code = "en-US"
            yield riva.StreamingRecognizeRequest(streaming_config=config)
            async for chunk in in_real_time(pcm, heard):
                yield riva.StreamingRecognizeRequest(audio_content=chunk)

        async for response in asr_grpc.RivaSpeechRecognitionStub(channel).StreamingRecognize(requests()):
            for result in response.results:
                if result.is_final:
                    heard.finals.append(result.alternatives[0].transcript.strip())
                else:
                    heard.partial()
    return heard


async def through(client: RivaASRClient, pcm: bytes) -> Heard:
    heard = Heard()
    async with client:
        async for event in client.stream_transcribe(in_real_time(pcm, heard)):
            if isinstance(event, Final):
                heard.finals.append(event.text)
            elif isinstance(event, Partial):
                heard.partial()
    return heard


async def library_over_riva(addresses: Addresses, pcm: bytes) -> Heard:
    return await through(RivaASRClient(f"localhost:{addresses.grpc_port}"), pcm)


async def library_over_gateway(addresses: Addresses, pcm: bytes) -> Heard:
    return await through(RivaASRClient(addresses.url), pcm)


async def library_alone(_: Addresses, pcm: bytes) -> Heard:
    return await through(RivaASRClient(engine="local"), pcm)


Way = Callable[[Addresses, bytes], Awaitable[Heard]]
WAYS: list[Way] = [native, end_dialect, riva_grpc, library_over_riva, library_over_gateway, library_alone]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_speech_becomes_words(way: Way, tmp_path: Path) -> None:
    clips = [speech.clip(name) for name in ("greeting", "groceries", "digits")]
    async with running(None, tmp_path, asr_engine="local") as addresses:
        # Side by side, as callers are; one after another would take three times as long.
        heards = await asyncio.gather(*(way(addresses, clip.pcm) for clip in clips))
        for clip, heard in zip(clips, heards, strict=True):
            rate = speech.wer(clip.text, heard.text)
            assert rate <= clip.max_wer, f"{clip.name}: {rate:.2f}: {heard.text!r}"
            if heard.partials_while_speaking < 3:
                raise Late(f"{clip.name}: {heard.partials_while_speaking} partials came before the end of it")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_silence_gives_no_final(way: Way, tmp_path: Path) -> None:
    async with running(None, tmp_path, asr_engine="local") as addresses:
        names = ("silence", "noise")
        heards = await asyncio.gather(*(way(addresses, speech.pcm(name)) for name in names))
        assert {name: heard.finals for name, heard in zip(names, heards, strict=True)} == {name: [] for name in names}
