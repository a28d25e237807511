"""Rows 52, 53 and 65: many at once who mean no good, and a good client beside them."""

from __future__ import annotations

import asyncio
import random
import ssl
from contextlib import AsyncExitStack
from dataclasses import replace

from chaos.gateway_process import GatewayProcess
from chaos.numbered import frame
from chaos.raw_clients import BINARY, CONTINUATION, TEXT, Raw, closed_after, frame_of, handshake
from chaos.scene import MB, STRANGER, Row, Scene, now

SLOW_S = 10.0
"""Within so long a connection has said something whole, or is closed."""
SLACK_S = 1.0
STORM = 300
PLACES = 50


class TlsGateway(GatewayProcess):
    """The same with TLS on its port."""

    def __init__(self, endpoints: str) -> None:
        super().__init__(endpoints)
        self._command = tuple(word for word in self._command if word != "--no-tls")


async def slow_loris(scene: Scene) -> None:
    """Three hundred connections that never get on: silent, half a line, half a head, half a body, half of TLS."""
    secure = await scene.stack.enter_async_context(TlsGateway(scene.upstream.endpoint))
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    half_head = handshake("/v1/stream")[:-2]
    body = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\nabc"
    kinds: list[tuple[str, int, bytes, ssl.SSLContext | None]] = [
        ("silent", scene.gateway.port, b"", None),
        ("half a line", scene.gateway.port, b"GET /v1/str", None),
        ("half a head", scene.gateway.port, half_head, None),
        ("half a body", scene.gateway.port, body, None),
        ("no TLS", secure.port, b"", None),
        ("half a TLS record", secure.port, b"\x16\x03\x01\x02\x00\x01", None),
        ("silent over TLS", secure.port, b"", trusting),
        ("half a head over TLS", secure.port, half_head, trusting),
        ("silent at gRPC", scene.gateway.grpc_port, b"", None),
        ("half a preface at gRPC", scene.gateway.grpc_port, b"PRI * HTTP", None),
    ]
    crowd = scene.crowd(5, 160)
    await asyncio.sleep(2.5)
    struck_at = now()
    worst: dict[str, float] = {}

    async def one(n: int) -> None:
        name, port, said, tls = kinds[n % len(kinds)]
        try:
            took_s = await closed_after(port, said, SLOW_S + 5, tls=tls)
        except TimeoutError:
            scene.fail(f"{name}: still open after {SLOW_S + 5:g} s")
            return
        worst[name] = max(worst.get(name, 0.0), took_s)

    await asyncio.gather(*map(one, range(300)))
    for name, took_s in worst.items():
        scene.answered(took_s)
        scene.in_time(took_s <= SLOW_S + SLACK_S, f"{name}: closed after {took_s:.1f} s")
    scene.note(", ".join(f"{name} {took_s:.1f} s" for name, took_s in sorted(worst.items())))
    # The pool of threads that looks for the page's files has grown to its bound, which is 40.
    scene.before = replace(scene.before, threads=scene.before.threads + 40)
    records = await scene.come_out_whole(crowd)
    # The handshakes of 300 clients in this process are not the gateway's: the time after them counts.
    scene.unharmed(records, struck_at + 1.5, struck_at + 11)


async def storm(scene: Scene) -> None:
    """Three hundred ask for a stream within a fifth of a second; there is room for fifty."""
    crowd = scene.crowd(10, 60)
    await asyncio.sleep(2.5)
    struck_at = now()
    refused: list[float] = []
    async with AsyncExitStack() as stack:

        async def one(n: int) -> None:
            await asyncio.sleep(n * 0.2 / STORM)
            begun = now()
            reader, writer = await asyncio.open_connection("127.0.0.1", scene.gateway.port)
            stack.callback(_abort, writer)  # holds the writer: without it the connection would be collected
            writer.write(handshake("/v1/stream"))
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if head.split()[1] == "101":
                scene.outcome.whole += 1
                return
            refused.append(now() - begun)
            scene.check(head.split()[1] in ("503", "429"), f"refused with {head.splitlines()[0]}")
            scene.check("retry-after" in head.lower(), "refused without Retry-After")

        await asyncio.gather(*map(one, range(STORM)))
        refused.sort()
        p99_ms = refused[int(len(refused) * 0.99)] * 1000
        scene.answered(p99_ms / 1000)
        scene.outcome.refused += len(refused)
        scene.note(f"{STORM - len(refused)} admitted, {len(refused)} refused, p99 {p99_ms:.0f} ms")
        admitted = STORM - len(refused)
        # One caller gets its share; the last places are for others.
        scene.check(PLACES - 10 - 10 <= admitted <= PLACES - 10, f"{admitted} of {STORM} were admitted")
        await asyncio.sleep(1)
    records = await scene.come_out_whole(crowd)
    scene.unharmed(records, struck_at, struck_at + 1.5, slack_ms=60)


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def hostile_mix(scene: Scene) -> None:
    """Forty hostile clients of eight kinds at once, for eight seconds."""
    chance = random.Random(scene.outcome.seed)
    crowd = scene.crowd(10, 100)
    await asyncio.sleep(1.5)
    calm = scene.gateway.footprint().rss_bytes
    start = frame_of(TEXT, b'{"type":"start","pace":"file"}')
    kinds = {
        "never reads": start + b"".join(frame_of(BINARY, frame(STRANGER * 1_000 + n)) for n in range(300)),
        "half a message": start + frame_of(BINARY, bytes(900_000), length=1_000_000),
        "endless fragments": start
        + frame_of(BINARY, b"x", fin=False)
        + frame_of(CONTINUATION, b"x", fin=False) * 50_000,
        "a flood of silence": start + frame_of(BINARY, bytes(32_000)) * 300,
        "unread text": frame_of(TEXT, b'{"type":"keepalive"}') * 20_000,
        "a megabyte of text": frame_of(TEXT, b'{"type":"start","language":"' + b"x" * 1_000_000 + b'"}'),
        "asks for marks": start + frame_of(TEXT, b'{"type":"mark","id":"m"}') * 20_000,
        "asks for pongs": start + frame_of(0x9, bytes(125)) * 20_000,
    }

    async def one(said: bytes) -> None:
        async with Raw(scene.gateway.port, receive_buffer=4_096) as client:
            begun = now()
            try:
                async with asyncio.timeout(8):
                    for at in range(0, len(said), 65_536):
                        await client.send(said[at : at + 65_536])
                    await asyncio.sleep(max(begun + 8 - now(), 0))
            except TimeoutError:
                pass

    said = list(kinds.values()) * 5
    chance.shuffle(said)
    await asyncio.gather(*map(one, said))
    grown = (scene.peak_rss - calm) / MB / len(said)
    scene.note(f"memory +{grown:.1f} MB for each of {len(said)}")
    scene.check(grown <= 4, f"memory grew by {grown:.1f} MB for each of {len(said)} hostile clients")
    await scene.come_out_whole(crowd)


CROWD_ROWS = (
    Row("52", "Slow loris: silent, half a line, head, body, half of TLS", "300 connections of ten kinds", slow_loris,
        streams=305, alone=True, answer_ms=11_000),
    Row("53", "Connect storm, 300 in 0.2 s", "raw handshakes; room for 50", storm, streams=STORM + 10, alone=True,
        settings={"MAX_STREAMS": str(PLACES), "RESUME_WINDOW_MS": "0"}, why="to have fewer places than clients",
        answer_ms=100),
    Row("65", "Memory under hostile clients", "40 clients of eight kinds for 8 s", hostile_mix, streams=50,
        settings={"RESUME_WINDOW_MS": "1000", "IDLE_TIMEOUT_MS": "4000"}, why="to see what is left over"),
)  # fmt: skip
