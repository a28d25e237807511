"""A real gateway for tests: in this process (any engine), or as a process of its own (the command)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from asr.engine import Engine
from asr.settings import load_settings
from server.serve import Addresses, serve
from server.settings import ServerSettings

PATIENCE_S = 10.0


@asynccontextmanager
async def running(engine: Engine | None, tmp_path: Path, **overrides: object) -> AsyncIterator[Addresses]:
    """Serve in this loop on free ports; on the way out the server must end within its bound."""
    given: dict[str, object] = {"port": 0, "grpc_port": 0, "tls": False, "state_dir": tmp_path, **overrides}
    settings = load_settings(ServerSettings, given, env={}, env_file=None)
    stop, announced = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(settings, announce=announced.set_result, engine=engine, stop=stop))
    await asyncio.wait([task, announced], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield await announced
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_S * 2):
            await task


def trusting(cert: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cert))


class Session:
    """A plain WebSocket client; `answer` skips acks."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.acks: list[dict[str, Any]] = []

    async def say(self, message: str | bytes) -> None:
        with contextlib.suppress(ConnectionClosed):  # the answer tells why
            await self.websocket.send(message)

    async def answer(self) -> str:
        while (text := await self.hear()).startswith('{"type":"ack"'):
            self.acks.append(json.loads(text))
        return text

    async def hear(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            try:
                text = await self.websocket.recv()
            except ConnectionClosed as closed:
                return f"close {closed.rcvd.code if closed.rcvd else 1006}"
        assert isinstance(text, str)
        return text

    async def cut(self) -> None:
        """Break the connection as a network does: no close frame, and a reset."""
        self.websocket.transport.abort()

    async def leave(self, code: int) -> None:
        await self.websocket.close(code)

    async def message(self) -> dict[str, Any]:
        text = await self.answer()
        assert text.startswith("{"), text
        return json.loads(text)  # type: ignore[no-any-return]


@asynccontextmanager
async def session(
    addresses: Addresses, path: str = "/v1/stream", *, subprotocols: Sequence[str] = (), **more: Any
) -> AsyncIterator[Session]:
    scheme = "wss" if addresses.tls else "ws"
    url = f"{scheme}://localhost:{addresses.port}{path}"
    # Where messages may wait unread without a bound, the answer to a close comes through at once.
    async with connect(
        url,
        subprotocols=list(subprotocols) or None,
        close_timeout=2,
        max_queue=None,
        proxy=None,
        max_size=2**24,
        **more,
    ) as websocket:
        yield Session(websocket)


@asynccontextmanager
async def connecting(addresses: Addresses, **more: Any) -> AsyncIterator[Callable[[str], Awaitable[Session]]]:
    """Opens connections, as many as asked for, and ends them on the way out."""
    async with contextlib.AsyncExitStack() as stack:

        async def connect(path: str) -> Session:
            return await stack.enter_async_context(session(addresses, path, **more))

        yield connect
