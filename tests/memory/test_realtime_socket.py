"""The realtime dialects behind a memory socket: a large append leaves others their turn."""

from __future__ import annotations

import asyncio
import base64
import json

from server.realtime_socket import PiecewiseSocket
from server.sockets import MemorySocket


async def test_a_large_append_is_read_piece_by_piece_and_in_order() -> None:
    inner = MemorySocket()
    socket = PiecewiseSocket(inner)
    sound = bytes(range(256)) * 4_000
    append = {"type": "input_audio_buffer.append", "audio": base64.b64encode(sound).decode()}
    inner.put('{"type":"first"}')
    inner.put(json.dumps(append))
    inner.put('{"type":"last"}')
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    heard = []
    for _ in range(200):
        message = await socket.receive()
        assert isinstance(message, str)
        heard.append(json.loads(message))
        if heard[-1]["type"] == "last":
            break
    other.cancel()
    assert heard[0]["type"] == "first"
    assert heard[-1]["type"] == "last"
    assert b"".join(base64.b64decode(event["audio"]) for event in heard[1:-1]) == sound
    assert turns >= len(heard) - 3


async def test_a_large_append_that_is_not_base64_is_one_small_message() -> None:
    inner = MemorySocket()
    socket = PiecewiseSocket(inner)
    inner.put(json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 99_997 + "%AA"}))
    inner.put('{"type":"last"}')
    assert len(str(await socket.receive())) < 1_000
    assert await socket.receive() == '{"type":"last"}'
