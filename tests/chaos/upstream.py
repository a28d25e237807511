"""A recognizer in a process of its own that hears numbered frames, and misbehaves as it is told.

`python -m chaos.upstream` prints one line of JSON with its ports and then obeys JSON lines on the control port:
`{"do":"behave", …}`, `{"do":"state"}`. It says one word for each frame it receives, with exact times on the clock of
the stream, a partial with each frame and a final with every tenth. `chaos.standin` starts and steers it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import grpc.aio

from asr.riva_proto import asr as pb
from chaos.behaviour import Behaviour, from_message
from chaos.numbered import FRAMES_PER_CLIENT
from chaos.upstream_stream import EndedCleanly, Record, Stream

SERVICE = "nvidia.riva.asr.RivaSpeechRecognition"
MODEL = "numbered-asr"
KEPT_STREAMS = 20_000


class Upstream:
    """The servicer and what it counts."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.records: list[Record] = []
        self.faults: Counter[int] = Counter()
        self.open = 0
        self.peak = 0
        self.config_calls = 0

    def state(self) -> dict[str, Any]:
        """All of it, for the control port."""
        return {
            "open": self.open,
            "peak": self.peak,
            "opened": len(self.records),
            "faults": self.faults.total(),
            "config_calls": self.config_calls,
            "streams": [asdict(record) for record in self.records],
        }

    def at_fault(self, after: int, frames: list[int]) -> bool:
        """Whether a fault that is due after so many frames strikes the stream that has received these; counted."""
        if not 0 <= after <= len(frames):
            return False
        client = frames[0] // FRAMES_PER_CLIENT if frames else -1
        if 0 <= self.behaviour.faults <= self.faults[client]:
            return False
        self.faults[client] += 1
        return True

    def models(self) -> bytes:
        """The answer to `GetRivaSpeechRecognitionConfig`."""
        self.config_calls += 1
        response = pb.RivaSpeechRecognitionConfigResponse()
        if not self.behaviour.loading:
            row = response.model_config.add(model_name=MODEL)
            for key, value in {"type": "online", "language_code": "en-US", "sample_rate": "16000"}.items():
                row.parameters[key] = value
        return bytes(response.SerializeToString())

    async def stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        """One `StreamingRecognize`."""
        record = Record(time.time())
        if len(self.records) < KEPT_STREAMS:
            self.records.append(record)
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            await Stream(self, record, requests, context).run()
            record.ended = record.ended or "ok"
        except EndedCleanly:
            record.ended = "ended in mid-stream"
        except asyncio.CancelledError:
            record.ended = record.ended or "cancelled"
            raise
        except Exception as error:
            record.ended = record.ended or repr(error)[:200]
            raise
        finally:
            self.open -= 1


async def _control(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            asked = json.loads(line)
            match asked.pop("do"):
                case "behave":
                    upstream.behaviour = from_message(asked)
                    upstream.faults.clear()
                    answer: dict[str, Any] = {}
                case "state":
                    answer = upstream.state()
                case other:
                    answer = {"error": f"no such command: {other}"}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


async def serve(given: argparse.Namespace) -> None:
    """Serve until killed."""
    upstream = Upstream(replace(Behaviour(), **json.loads(given.behaviour)))
    options = [("grpc.so_reuseport", 0), ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000)]
    if given.max_age_ms:
        options += [("grpc.max_connection_age_ms", given.max_age_ms), ("grpc.max_connection_age_grace_ms", 500)]
    if given.max_concurrent:
        options.append(("grpc.max_concurrent_streams", given.max_concurrent))
    if given.max_message:
        options.append(("grpc.max_receive_message_length", given.max_message))
    server = grpc.aio.server(options=options)

    async def config(_request: bytes, _context: Any) -> bytes:
        return upstream.models()

    handlers = {
        "StreamingRecognize": grpc.stream_stream_rpc_method_handler(
            upstream.stream, request_deserializer=pb.StreamingRecognizeRequest.FromString, response_serializer=bytes
        ),
        "GetRivaSpeechRecognitionConfig": grpc.unary_unary_rpc_method_handler(config, response_serializer=bytes),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    address = f"127.0.0.1:{given.port}"
    if given.tls:
        key, certificate = (Path(path).read_bytes() for path in given.tls.split(","))
        port = server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)]))
    else:
        port = server.add_insecure_port(address)
    await server.start()
    control = await asyncio.start_server(lambda r, w: _control(upstream, r, w), "127.0.0.1", 0)
    print(json.dumps({"port": port, "control": control.sockets[0].getsockname()[1]}), flush=True)  # noqa: T201
    # Nobody listens any more: whoever started it has gone.
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--behaviour", default="{}", help="what differs from the default, as JSON")
    parser.add_argument("--max-age-ms", type=int, default=0)
    parser.add_argument("--max-concurrent", type=int, default=0)
    parser.add_argument("--max-message", type=int, default=0)
    parser.add_argument("--tls", default="", help="KEY,CERTIFICATE")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
