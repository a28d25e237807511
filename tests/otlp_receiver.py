"""A stand-in for an OpenTelemetry collector: takes spans over HTTP as the protocol has it, in protobuf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATIENCE_S = 10.0


@dataclass
class Collector:
    """What has come in.

    Attributes:
        url: where it listens.
        spans: in the order in which they came.
        resources: attributes of the resource of each span.
        headers: of each request, names in lower case.
        paths: of each request.
        silent: takes requests and does not answer them.
    """

    url: str = ""
    spans: list[Any] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    silent: bool = False
    raw: bytes = b""

    async def has(self, count: int) -> list[Any]:
        """The spans, once there are so many."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.spans) < count:
                await asyncio.sleep(0.02)
        return self.spans

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.paths.append(first.split(" ")[1])
                self.headers.append(headers)
                if self.silent:
                    await asyncio.sleep(3600)
                self._take(body)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _take(self, body: bytes) -> None:
        self.raw += body
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = attributes(of_resource.resource)
            for scope in of_resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(span)
                    self.resources.append(resource)


def attributes(of: Any) -> dict[str, Any]:
    """The attributes of a span, an event or a resource as plain values."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in of.attributes}


@asynccontextmanager
async def collecting(*, silent: bool = False) -> AsyncIterator[Collector]:
    """A collector on a free port."""
    collector = Collector(silent=silent)
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await collector.serve(reader, writer)

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    collector.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield collector
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
