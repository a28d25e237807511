"""Callers who come at a time when there is no place for them, at each face, and what they are told how fast."""

from __future__ import annotations

import asyncio
import json
import random
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc

PATIENCE_S = 10.0


@dataclass(slots=True)
class Told:
    """What callers were told; `wrong` in words where a refusal was not as it should be."""

    times_ms: list[float] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    admitted: int = 0

    def note(self, face: str, took_s: float, said: str, retry: object, right: str) -> None:
        """One refusal, and what it should have been."""
        self.times_ms.append(took_s * 1000)
        self.said[f"{face}: {said}"] += 1
        if said != right or not retry:
            self.wrong.append(f"{face}: {said!r} with retry {retry!r}, not {right!r}")


Knock = Callable[["Doors", Told], Awaitable[None]]


class Doors:
    """Where to knock: the ports of a gateway, and one gRPC channel to it."""

    def __init__(self, port: int, grpc_port: int) -> None:
        self.port = port
        self.channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}")

    async def aclose(self) -> None:
        """Close the channel."""
        self.channel.close()


async def plain(doors: Doors, told: Told, path: str = "/v1/stream", **headers: str) -> None:
    """A program: it sees the HTTP status."""
    begun = _now()
    status, reason, retry = "admitted", "", ""
    try:
        async with _socket(doors.port, path, headers):
            told.admitted += 1
            return
    except InvalidStatus as refused:
        status = str(refused.response.status_code)
        retry = refused.response.headers.get("Retry-After", "")
        reason = "" if retry.isdigit() and int(retry) >= 1 else retry
    told.note(path, _now() - begun, status, retry if not reason else "", "503")


async def page(doors: Doors, told: Told, path: str = "/v1/stream") -> None:
    """A browser: it sees messages and close codes only."""
    begun = _now()
    async with _socket(doors.port, path, {"Origin": f"http://127.0.0.1:{doors.port}"}) as websocket:
        try:
            error: dict[str, Any] = orjson.loads(await websocket.recv(decode=False))
            error = error["error"] if path == "/ws" else error
            took_s = _now() - begun
            await websocket.recv()
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            right = f"overloaded/{1013 if path == '/ws' else 4503}"
            retry = error.get("retry_after_ms", 0) if path != "/ws" else 1
            told.note(f"{path} with Origin", took_s, f"{error.get('code')}/{code}", retry, right)


async def riva(doors: Doors, told: Told) -> None:
    """A Riva client; in a thread, since grpc.aio puts a status of its own in the place of an early refusal."""
    begun = _now()
    refused = await asyncio.to_thread(_call, doors.channel)
    if refused is None:
        told.admitted += 1
        return
    trailers = dict(refused.trailing_metadata() or ())
    right = trailers.get("riva-gateway-code") == "overloaded" and "retry-after" in trailers
    retry = trailers.get("grpc-retry-pushback-ms") if right else ""
    told.note("gRPC", _now() - begun, refused.code().name, retry, "UNAVAILABLE")


def _call(channel: grpc.Channel) -> Any:
    chosen = pb.RecognitionConfig(encoding=1, sample_rate_hertz=16_000)
    first = pb.StreamingRecognizeRequest(streaming_config=pb.StreamingRecognitionConfig(config=chosen))
    call = asr_grpc.RivaSpeechRecognitionStub(channel).StreamingRecognize(iter([first]), timeout=PATIENCE_S)
    try:
        next(call)
    except grpc.RpcError as refused:
        return refused
    except StopIteration:
        pass
    call.cancel()
    return None


async def plain_end(doors: Doors, told: Told) -> None:
    """A program at the plain dialect's path."""
    await plain(doors, told, "/ws")


async def page_end(doors: Doors, told: Told) -> None:
    """A browser there."""
    await page(doors, told, "/ws")


EVERYWHERE: tuple[Knock, ...] = (plain, page, riva, plain_end, page_end)


async def crowd(doors: Doors, count: int, until: float, *, seed: int, pause_s: float = 0.5) -> Told:
    """So many callers, spread over the faces, who come again twice a second whatever they were told."""
    told = Told()

    async def one(number: int) -> None:
        chance = random.Random(seed * 1_009 + number)
        knock = EVERYWHERE[number % len(EVERYWHERE)]
        await asyncio.sleep(chance.uniform(0, pause_s))
        while _now() < until:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await knock(doors, told)
            except (OSError, TimeoutError, ConnectionClosed) as error:
                told.wrong.append(f"{knock.__name__}: {error!r}")
            await asyncio.sleep(chance.uniform(0.8, 1.2) * pause_s)

    await asyncio.gather(*map(one, range(count)))
    return told


def readyz(port: int) -> dict[str, Any]:
    """What the gateway says of itself; blocks."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def _socket(port: int, path: str, headers: dict[str, str]) -> connect:
    return connect(
        f"ws://127.0.0.1:{port}{path}", proxy=None, compression=None, close_timeout=2, additional_headers=headers
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
