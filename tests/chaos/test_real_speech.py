"""The recognizer is lost at every 100 ms of real speech, and what is written is what would have been written.

Client → gateway with a Riva engine → a cable that is cut → gateway with the embedded recognizer, at its Riva face.
Several clients speak at a time, each some chunks behind the one before, so that one cut meets all of them at
different places.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import speech
from chaos.cable import Cable
from chaos.figures import Figure, percentile, settle_all
from chaos.gateway_process import GatewayProcess

CHUNK = 3_200
TICK_S = 0.1
Strike = Literal["none", "reset", "frozen"]

LANES: dict[Strike, int] = {"reset": 3, "frozen": 6}
"""Clients of a batch: the recognizer needs a quarter of a core for each that speaks."""
PATIENCE_S = 40.0
SETTINGS = {
    # The clients of a batch stand for one each: neither do their failures add up, nor what they ask of two cores.
    "ASR_BREAKER_FAILURES": "100",
    "RIVA_ADAPTIVE_LIMIT": "off",
}
IMPATIENT = {
    # A frozen connection is noticed in its time; here a short one, to play all of it in a minute.
    "RIVA_STALL_TIMEOUT_MS": "5000",
    "RIVA_FIRST_RESPONSE_TIMEOUT_MS": "5000",
    "RIVA_DRAIN_TIMEOUT_MS": "5000",
}


@dataclass(slots=True)
class Talk:
    """What became of one client; `at` is the chunk after which the cable was cut."""

    at: int
    text: str = ""
    spans: list[tuple[int, int]] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    final_ms: float = 0.0


async def talk(port: int, chunks: Sequence[bytes], start_at: float, at: int) -> Talk:
    """Speak from that time of the loop's clock on."""
    told = Talk(at)
    clock = asyncio.get_running_loop().time
    async with (
        asyncio.timeout(PATIENCE_S),
        connect(f"ws://127.0.0.1:{port}/v1/stream", proxy=None, compression=None) as websocket,
    ):
        await websocket.send('{"type":"start"}')
        arrived = 0.0

        async def listen() -> None:
            nonlocal arrived
            while True:
                try:
                    text = await websocket.recv(decode=False)
                except ConnectionClosed as closed:
                    if closed.rcvd is None or closed.rcvd.code != 1000:
                        told.problems.append(str(closed))
                    return
                message: dict[str, Any] = orjson.loads(text)
                kind = message["type"]
                if kind == "final":
                    told.text = f"{told.text} {message['text']}".strip()
                    told.spans.append((message["start_ms"], message["end_ms"]))
                    arrived = clock()
                elif kind == "status":
                    told.states.append(message["state"])
                elif kind in ("gap", "error"):
                    told.problems.append(text.decode())

        listening = asyncio.create_task(listen())
        for number, chunk in enumerate(chunks):
            await asyncio.sleep(max(start_at + number * TICK_S - clock(), 0))
            with suppress(ConnectionClosed):
                await websocket.send(chunk)
        stopped = clock()
        with suppress(ConnectionClosed):
            await websocket.send('{"type":"stop"}')
        await listening
        told.final_ms = max(arrived - stopped, 0) * 1000
    if any(b[0] < a[1] for a, b in zip(told.spans, told.spans[1:], strict=False)):
        told.problems.append(f"finals overlap: {told.spans}")
    return told


async def batch(
    gateway: GatewayProcess, cable: Cable, chunks: Sequence[bytes], at: list[int], how: Strike
) -> list[Talk]:
    """These clients at a time, and one cut when each has sent as many chunks as is said."""
    clock = asyncio.get_running_loop().time
    cut_at = clock() + 0.3 + max(at) * TICK_S
    talking = asyncio.gather(*(talk(gateway.port, chunks, cut_at - n * TICK_S, n) for n in at))
    await asyncio.sleep(cut_at - TICK_S / 2 - clock())
    if how == "reset":
        cable.reset()
    elif how == "frozen":
        cable.freeze()
    return await talking


def batches(count: int, step: int, lanes: int) -> list[list[int]]:
    """Every `step`-th chunk index from 1 to `count`, neighbours together: they begin at about the same time."""
    indices = list(range(1, count + 1, step))
    return [indices[n : n + lanes] for n in range(0, len(indices), lanes)]


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_every_chunk_of_real_speech() -> None:
    async with GatewayProcess(ASR_ENGINE="local", LOCAL_MAX_STREAMS="24") as recognizer:
        async with Cable(recognizer.grpc_port) as cable, GatewayProcess(cable.endpoint, **SETTINGS) as gateway:
            # The recognizer's processes start with their first streams.
            await batch(gateway, cable, speech_chunks("greeting"), [1, 2, 3], "none")
        figures = await asyncio.gather(
            play(recognizer, "greeting", "reset", 1),
            play(recognizer, "two_sentences", "reset", 4),
            play(recognizer, "greeting", "frozen", 6, **IMPATIENT),
        )
    settle_all(figures)


async def play(recognizer: GatewayProcess, name: str, how: Strike, step: int, **settings: str) -> Figure:
    """A clip and a fault, through a gateway of their own."""
    async with Cable(recognizer.grpc_port) as cable, GatewayProcess(cable.endpoint, **SETTINGS, **settings) as gateway:
        return await cut_everywhere(gateway, cable, name, how, step)


async def cut_everywhere(gateway: GatewayProcess, cable: Cable, name: str, how: Strike, step: int) -> Figure:
    """A clip, cut after each `step`-th of its chunks."""
    chunks = speech_chunks(name)
    hands = batches(len(chunks), step, LANES[how])
    calm = await batch(gateway, cable, chunks, hands[0], "none")
    right = calm[0]
    figure = Figure(
        f"speech-{name}-{how}",
        "Real speech, the connection lost at every place: the same text",
        f"{name}.wav, {'TCP reset' if how == 'reset' else 'connection frozen (noticed after 5 s here)'} after "
        f"{'each' if step == 1 else f'every {step}th'} chunk of 100 ms",
    )
    figure.demand(all(one.text == right.text and not one.problems for one in calm), f"unsteady: {calm}")
    found = [one for hand in hands for one in await batch(gateway, cable, chunks, hand, how)]
    different = [one for one in found if one.text != right.text]
    figure.add("places", len(found), len(range(1, len(chunks) + 1, step)), least=True)
    figure.add("texts that differ", len(different), 0)
    figure.add("gaps, errors, overlaps", sum(len(one.problems) for one in found), 0)
    # After the last chunks the recognizer may have said its last word before the cut.
    figure.add("streams that were moved", sum("recovered" in one.states for one in found), len(found) * 0.8, least=True)
    usual = percentile([one.final_ms for one in calm], 50)
    added = [max(one.final_ms - usual, 0) for one in found]
    figure.add("final after the end of speech, median", percentile([one.final_ms for one in found], 50), unit="ms")
    figure.add("without the fault", usual, unit="ms")
    noticed_ms = 0 if how == "reset" else 5_000
    figure.add("final later by, median", percentile(added, 50), noticed_ms + 4_000, "ms")
    figure.add("at most", max(added), noticed_ms + 6_000, "ms")
    figure.failures += [f"after chunk {one.at}: {one.text!r}, not {right.text!r}" for one in different[:3]]
    figure.failures += [f"after chunk {one.at}: {one.problems[0]}" for one in found if one.problems][:3]
    return figure


def speech_chunks(name: str) -> list[bytes]:
    """The clip in pieces of 100 ms."""
    pcm = speech.pcm(name)
    return [pcm[at : at + CHUNK] for at in range(0, len(pcm), CHUNK)]
