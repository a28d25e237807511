"""What the gateway is measured against: a relay from WebSocket to Riva's gRPC as one writes it in an afternoon.

It speaks as much of asr.v1 as the clients of the chaos suite need, serves with uvicorn, and does nothing about
failure: no deadline, no retry, no replay, no limits. `python load/plain_relay.py HOST:PORT` prints its ports.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc

app = FastAPI()


@app.websocket("/v1/stream")
async def stream(websocket: WebSocket) -> None:
    """One client, one call."""
    await websocket.accept()
    stub = asr_grpc.RivaSpeechRecognitionStub(app.state.channel)
    seq = 0

    async def requests() -> AsyncIterator[Any]:
        config = pb.StreamingRecognitionConfig(interim_results=True)
        config.config.encoding, config.config.sample_rate_hertz = 1, 16_000
        config.config.enable_word_time_offsets = True
        yield pb.StreamingRecognizeRequest(streaming_config=config)
        while True:
            message = await websocket.receive()
            if message.get("bytes"):
                yield pb.StreamingRecognizeRequest(audio_content=message["bytes"])
            elif message["type"] == "websocket.disconnect" or json.loads(message["text"])["type"] == "stop":
                return

    async def say(kind: str, **fields: Any) -> None:
        nonlocal seq
        seq += 1
        await websocket.send_text(json.dumps({"type": kind, "seq": seq, **fields}))

    try:
        async for response in stub.StreamingRecognize(requests()):
            for result in response.results:
                best = result.alternatives[0]
                words = [{"w": w.word, "start_ms": w.start_time, "end_ms": w.end_time} for w in best.words]
                start_ms, end_ms = (words[0]["start_ms"], words[-1]["end_ms"]) if words else (0, 0)
                kind = "final" if result.is_final else "partial"
                await say(kind, text=best.transcript.strip(), start_ms=start_ms, end_ms=end_ms, words=words)
        await say("summary")
        await websocket.close(1000)
    except grpc.aio.AioRpcError as error:
        await say("error", fatal=True, code=error.code().name.lower(), message=error.details())
        await websocket.close(1011)
    except (WebSocketDisconnect, RuntimeError):
        pass


async def main(endpoint: str) -> None:
    """Serve until killed."""
    app.state.channel = grpc.aio.insecure_channel(endpoint)
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"page, HTTP and WebSocket: http://127.0.0.1:{listening.getsockname()[1]}\nRiva gRPC: none:1", flush=True)
    await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve([listening])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
