"""Clients of the other faces, so that these are held to the same: the END dialect, and Riva's gRPC.

Their records are spelled in the words of asr.v1.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc
from chaos.clients import Record, Script, now
from chaos.numbered import Sent


async def end_dialect(port: int, script: Script, *, patience_s: float) -> Record:
    """One conversation of the plain dialect: text without times, so these are put in from the numbers."""
    record = Record(script, begun_at=now())
    places = {s.number: s for s in script.audio()[1]}
    try:
        async with asyncio.timeout(patience_s):
            url = f"ws://127.0.0.1:{port}/ws"
            async with connect(url, proxy=None, compression=None, close_timeout=2) as websocket:

                async def listen() -> None:
                    async for text in websocket:
                        record.messages.append((now(), _from_end(text, places)))

                listening = asyncio.create_task(listen())
                async for chunk in script.chunks():
                    record.first_audio_at = record.first_audio_at or now()
                    await websocket.send(chunk)
                await websocket.send("END")
                record.stopped_at = now()
                await listening
            record.close_code = websocket.close_code or 1006
    except TimeoutError:
        record.hung = True
    except ConnectionClosed as closed:  # while it sent
        record.close_code = closed.rcvd.code if closed.rcvd else 1006
    except OSError:
        record.close_code = 1006
    record.ended_at = now()
    return record


def _from_end(text: str | bytes, places: dict[int, Sent]) -> dict[str, Any]:
    if text == "END":
        return {"type": "summary"}
    message = orjson.loads(text)
    if "error" in message:
        return {"type": "error", "fatal": True, **message["error"]}
    numbers = [int(word[1:]) for word in message["text"].split()]
    mine = [places[n] for n in numbers if n in places]
    return {
        "type": "final" if message["is_final"] else "partial",
        "text": message["text"],
        "start_ms": mine[0].start_ms if mine else 0,
        "end_ms": mine[-1].end_ms if mine else 0,
        "words": [],
    }


async def riva_grpc(port: int, script: Script, *, patience_s: float) -> Record:
    """One `StreamingRecognize` call on the gateway's Riva face."""
    record = Record(script, begun_at=now())

    async def requests() -> AsyncIterator[Any]:
        config = pb.StreamingRecognitionConfig(interim_results=True)
        config.config.encoding, config.config.sample_rate_hertz = 1, 16_000
        config.config.enable_word_time_offsets = True
        yield pb.StreamingRecognizeRequest(streaming_config=config)
        async for chunk in script.chunks():
            record.first_audio_at = record.first_audio_at or now()
            yield pb.StreamingRecognizeRequest(audio_content=chunk)
        record.stopped_at = now()

    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        call = asr_grpc.RivaSpeechRecognitionStub(channel).StreamingRecognize(requests())
        try:
            async with asyncio.timeout(patience_s):
                async for response in call:
                    for result in response.results:
                        record.messages.append((now(), _from_grpc(result)))
            record.messages.append((now(), {"type": "summary"}))
            record.close_code, record.status = 1000, "OK"
        except TimeoutError:
            record.hung = True
            call.cancel()
        except grpc.aio.AioRpcError as error:
            # When a server ends a call during a write, grpc.aio puts an INTERNAL of its own in the place of the status.
            masked = "Internal error from Core" in (error.details() or "")
            record.status = "MASKED" if masked else error.code().name
            said = {"type": "error", "fatal": True, "code": error.code().name, "message": error.details()}
            record.messages.append((now(), said))
    record.ended_at = now()
    return record


def _from_grpc(result: Any) -> dict[str, Any]:
    best = result.alternatives[0] if result.alternatives else pb.SpeechRecognitionAlternative()
    words = [{"w": w.word, "start_ms": w.start_time, "end_ms": w.end_time} for w in best.words]
    return {
        "type": "final" if result.is_final else "partial",
        "text": best.transcript.strip(),
        "start_ms": words[0]["start_ms"] if words else 0,
        "end_ms": words[-1]["end_ms"] if words else 0,
        "words": words,
    }
