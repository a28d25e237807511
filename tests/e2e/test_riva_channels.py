"""The connections to a Riva endpoint over real sockets: how many, which, and what happens when one breaks."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest

from asr.config import RivaConfig
from asr.engine import AudioInput
from asr.engines.riva import RivaEngine
from asr.engines.riva_channels import MAX_CHANNELS, Channels, Lease, channel_options
from asr.errors import ASRError, Code
from asr.events import Event
from asr.mock.plan import load_plan
from asr.mock.riva_server import MockRivaServer
from asr.options import Options
from timing import in_time

LIMIT_S = 20.0
UNARY = "/nvidia.riva.asr.RivaSpeechRecognition/GetRivaSpeechRecognitionConfig"
STREAM = "/nvidia.riva.asr.RivaSpeechRecognition/StreamingRecognize"


class Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Sends bytes back, whatever is called."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        if details.method == STREAM:
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _stream(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for message in messages:
            yield message

    async def _answer(self, message: bytes, context: Any) -> bytes:
        return b"\xff" + message


async def start_echo(port: int = 0) -> tuple[Any, int]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, port


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    server, port = await start_echo()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def channels(port: int, *, idle_close_ms: int = 60_000, **config: Any) -> AsyncIterator[Channels]:
    made = Channels(RivaConfig(endpoint=f"127.0.0.1:{port}", **config), None, idle_close_ms=idle_close_ms)
    try:
        async with asyncio.timeout(LIMIT_S):
            yield made
    finally:
        await made.aclose()


async def open_call(lease: Lease) -> Any:
    call: Any = lease.channel.stream_stream(STREAM, None, None)()  # type: ignore[call-arg]
    await call.write(b"a")
    assert await call.read() == b"a"
    return call


async def end(call: Any) -> None:
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]


async def until(true: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)
    assert true(), what


async def drain(events: AsyncIterator[Event]) -> None:
    async with asyncio.timeout(LIMIT_S):
        async for _ in events:
            pass


def fds() -> int:
    return psutil.Process().num_fds()


# --- how many


async def test_nothing_is_opened_before_the_first_call() -> None:
    before = fds()
    async with channels(1) as made:
        assert (made.connections, made.calls, fds()) == (0, 0, before)


async def test_a_full_connection_makes_room_by_a_further_one() -> None:
    async with channels(1, streams_per_channel=3) as made:
        leases = [made.lease() for _ in range(7)]
        assert (made.connections, made.calls) == (3, 7)
        by_connection = [leases[at].channel for at in (0, 3, 6)]
        assert len({id(channel) for channel in by_connection}) == 3
        for lease in leases[:3]:
            lease.release()
            lease.release()  # counts once
        assert made.calls == 4
        # The first is empty now, and takes the next before the one with a single call does.
        assert made.lease().channel is by_connection[0]


async def test_connections_are_bounded() -> None:
    async with channels(1, streams_per_channel=1) as made:
        leases = [made.lease() for _ in range(MAX_CHANNELS + 10)]
        assert made.connections == MAX_CHANNELS
        for lease in leases:
            lease.release(broken=True)
        assert made.connections == 0


async def test_all_of_them_given_up_and_busy_is_still_served() -> None:
    async with channels(1, streams_per_channel=2) as made:
        leases = [made.lease() for _ in range(2 * MAX_CHANNELS)]
        for lease in leases[::2]:
            lease.release(broken=True)
        assert (made.connections, made.calls) == (MAX_CHANNELS, MAX_CHANNELS)
        made.lease()
        assert (made.connections, made.calls) == (MAX_CHANNELS, MAX_CHANNELS + 1)


async def test_connections_without_calls_are_closed_but_one() -> None:
    async with echo() as port, channels(port, streams_per_channel=1, idle_close_ms=50) as made:
        leases = [made.lease() for _ in range(4)]
        calls = [await open_call(lease) for lease in leases]
        for lease, call in zip(leases[:3], calls, strict=False):
            await end(call)
            lease.release()
        await until(lambda: made.connections == 1, "the three idle ones are closed: one is in use")
        await end(calls[3])
        leases[3].release()
        await asyncio.sleep(0.15)
        assert made.connections == 1
        again = made.lease()
        await end(await open_call(again))
        again.release()


async def test_a_connection_that_is_used_again_is_not_idle() -> None:
    now = [0.0]
    config = RivaConfig(endpoint="127.0.0.1:1", streams_per_channel=1)
    made = Channels(config, None, clock=lambda: now[0], idle_close_ms=20)
    first, second = made.lease(), made.lease()
    now[0] = 1.0
    first.release()
    second.release()
    assert made.connections == 2
    await asyncio.sleep(0.05)
    # On the given clock no time has passed: the sweep has looked, and closed nothing.
    assert made.connections == 2
    now[0] = 2.0
    await until(lambda: made.connections == 1, "one is kept")
    await made.aclose()


async def test_nothing_is_left_of_three_hundred_streams() -> None:
    async with echo() as port:
        async with channels(port, streams_per_channel=20) as warm:
            await end(await open_call(warm.lease()))
        await asyncio.sleep(0.1)
        before = fds()
        async with channels(port, streams_per_channel=20) as made:
            leases = [made.lease() for _ in range(300)]
            calls = [await open_call(lease) for lease in leases]
            assert made.connections == 15
            # Both ends of each connection are in this process.
            assert fds() - before >= 30
            for lease, call in zip(leases, calls, strict=True):
                await end(call)
                lease.release()
            assert made.calls == 0
            calls.clear()  # as long as somebody holds a call, gRPC keeps its connection
            del call
        await until(lambda: fds() <= before, "all of them are closed")


async def test_nothing_is_left_of_streams_that_end_in_every_way() -> None:
    plan = load_plan({"hears": "clock", "loop": False, "utterances": ["one two three"]})

    async def audio() -> AsyncIterator[AudioInput]:
        for _ in range(20):
            yield bytes(3200)
            await asyncio.sleep(0)

    async def failing() -> AsyncIterator[AudioInput]:
        yield bytes(3200)
        raise OSError("unplugged")

    async def use(riva: RivaEngine, number: int) -> None:
        events = riva.stream(failing() if number % 3 == 2 else audio(), Options())
        with suppress(OSError):
            async for _ in events:
                if number % 3 == 1:
                    break
        await events.aclose()

    async def round_of(port: int) -> None:
        riva = RivaEngine(RivaConfig(endpoint=f"127.0.0.1:{port}", streams_per_channel=4))
        await asyncio.gather(*(use(riva, number) for number in range(30)))
        await riva.aclose()

    async with asyncio.timeout(LIMIT_S), MockRivaServer(plan) as server:
        await round_of(server.port)
        await asyncio.sleep(0.2)
        before, tasks = fds(), len(asyncio.all_tasks())
        gc.disable()  # a connection must not stay until Python looks for rings
        try:
            for _ in range(3):
                await round_of(server.port)
            await until(lambda: fds() <= before, "all of them are closed")
        finally:
            gc.enable()
        await until(lambda: len(asyncio.all_tasks()) <= tasks, "so are their tasks")


async def test_closing_ends_open_calls_and_refuses_new_ones() -> None:
    async with echo() as port, channels(port) as made:
        lease = made.lease()
        call = await open_call(lease)
        await made.aclose()
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        lease.release(broken=True)
        with pytest.raises(ASRError) as caught:
            made.lease()
        assert (caught.value.code, caught.value.retryable) == (Code.UNAVAILABLE, False)


# --- which


async def test_a_broken_connection_gets_no_new_calls_and_keeps_its_own() -> None:
    async with echo() as port, channels(port) as made:
        broken, other = made.lease(), made.lease()
        call = await open_call(other)
        broken.release(broken=True)
        new = made.lease()
        assert new.channel is not other.channel
        await end(await open_call(new))
        await end(call)
        assert made.connections == 2
        other.release()
        assert made.connections == 1


async def test_a_connection_that_waits_to_try_again_is_not_used() -> None:
    server, port = await start_echo()
    await server.stop(None)
    async with channels(port) as made:
        lease = made.lease()
        with suppress(grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
            await open_call(lease)
        channel = lease.channel
        await until(lambda: channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE, "it could not connect")
        lease.release()  # nobody said that it is broken
        server, _ = await start_echo(port)
        again = made.lease()
        assert again.channel is not channel
        await end(await open_call(again))
        again.release()
        await server.stop(None)


async def test_a_server_that_is_back_is_found_at_once() -> None:
    plan = load_plan({"hears": "clock", "utterances": ["one two"]})

    async def audio() -> AsyncIterator[AudioInput]:
        while True:
            yield bytes(3200)
            await asyncio.sleep(0.01)

    async def first_event(riva: RivaEngine) -> Event:
        events = riva.stream(audio(), Options())
        try:
            return await anext(events)
        finally:
            await events.aclose()

    async with MockRivaServer(plan) as server:
        port = server.port
        riva = RivaEngine(RivaConfig(endpoint=f"127.0.0.1:{port}"))
        await first_event(riva)
    refused = 0
    begun = time.monotonic()
    while time.monotonic() - begun < 5:
        with pytest.raises(ASRError) as caught:
            await first_event(riva)
        assert caught.value.code is Code.UNAVAILABLE
        refused += 1
        await asyncio.sleep(0.1)
    assert refused > 10
    async with MockRivaServer(plan, port=port):
        back = time.monotonic()
        async with asyncio.timeout(LIMIT_S):
            await first_event(riva)
        in_time(time.monotonic() - back, 1.0)
    await riva.aclose()


# --- a frozen peer


class Relay:
    """Passes bytes on, until it is frozen: then it keeps its connections and passes nothing."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self) -> None:
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        for source, sink in ((reader, up_writer), (up_reader, writer)):
            task = asyncio.create_task(self._pass(source, sink))
            self._tasks.add(task)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


async def test_keepalive_notices_a_frozen_peer() -> None:
    async with echo() as port, Relay(port) as relay:
        quick = {"keepalive_time_ms": 1_000, "keepalive_timeout_ms": 700}
        async with channels(relay.port, **quick) as made:
            lease = made.lease()
            call = await open_call(lease)
            relay.freeze()
            frozen = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            in_time(time.monotonic() - frozen, 4)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            lease.release(broken=True)


async def test_a_frozen_peer_ends_a_stream_as_unavailable() -> None:
    plan = load_plan({"hears": "clock", "utterances": ["one two three"]})
    quick = {"keepalive_time_ms": 1_000, "keepalive_timeout_ms": 700, "stall_timeout_ms": 60_000}

    async def audio() -> AsyncIterator[AudioInput]:
        while True:
            yield bytes(3200)
            await asyncio.sleep(0.1)

    async with MockRivaServer(plan) as server, Relay(server.port) as relay:
        riva = RivaEngine(RivaConfig(endpoint=f"127.0.0.1:{relay.port}", **quick))  # type: ignore[arg-type]
        events = riva.stream(audio(), Options())
        await anext(events)
        relay.freeze()
        frozen = time.monotonic()
        with pytest.raises(ASRError) as caught:
            await drain(events)
        in_time(time.monotonic() - frozen, 6)
        assert (caught.value.code, caught.value.retryable) == (Code.UNAVAILABLE, True)
        await riva.aclose()


def test_pings_are_set_up_whole_or_not_at_all() -> None:
    names = {name for name, _ in channel_options(RivaConfig(keepalive_timeout_ms=700))}
    assert {"grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"} <= names
    assert dict(channel_options(RivaConfig(keepalive_timeout_ms=700)))["grpc.http2.ping_timeout_ms"] == 700
    assert not any(
        "ping" in name or "keepalive" in name for name, _ in channel_options(RivaConfig(keepalive_time_ms=0))
    )


# --- answers that cannot be read


async def test_an_answer_that_cannot_be_read_is_told_at_once() -> None:
    async with echo() as port:
        riva = RivaEngine(RivaConfig(endpoint=f"127.0.0.1:{port}"))
        begun = time.monotonic()
        with pytest.raises(ASRError) as caught:
            await riva.models()
        assert caught.value.code is Code.INTERNAL
        assert not (await riva.ready()).ready
        in_time(time.monotonic() - begun, 1)
        await riva.aclose()


async def test_neither_is_waited_for_behind_a_response_that_cannot_be_read() -> None:
    async def audio() -> AsyncIterator[AudioInput]:
        while True:
            yield b"\xff" * 3200
            await asyncio.sleep(0.02)

    class Nonsense(Echo):
        async def _stream(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for _ in messages:
                yield b"\xff\xff"

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Nonsense(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    riva = RivaEngine(RivaConfig(endpoint=f"127.0.0.1:{port}"))
    begun = time.monotonic()
    with pytest.raises(ASRError) as caught:
        await drain(riva.stream(audio(), Options()))
    assert caught.value.code is Code.INTERNAL
    in_time(time.monotonic() - begun, 1)
    await riva.aclose()
    await server.stop(None)


async def test_those_who_ask_together_are_answered_together() -> None:
    async with MockRivaServer(load_plan({})) as server:
        riva = RivaEngine(RivaConfig(endpoint=f"127.0.0.1:{server.port}"))
        answers: list[Awaitable[Any]] = [riva.models() for _ in range(20)]
        impatient = asyncio.create_task(riva.ready())
        await asyncio.sleep(0)
        impatient.cancel()
        lists = await asyncio.gather(*answers)
        assert len(server.calls) == 1
        assert all(models == lists[0] for models in lists)
        await riva.aclose()


async def test_a_question_that_nobody_waits_for_any_longer_does_not_hold_up_the_next() -> None:
    async with MockRivaServer(load_plan({})) as server, Relay(server.port) as relay:
        now = [0.0]
        riva = RivaEngine(RivaConfig(endpoint=f"127.0.0.1:{relay.port}"), clock=lambda: now[0])
        await riva.models()
        relay.freeze()
        now[0] = 10.0
        asking = asyncio.create_task(riva.models())
        await asyncio.sleep(0.1)
        now[0] = 20.0
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert relay.accepted == 1
        again = asyncio.create_task(riva.models())
        await until(lambda: relay.accepted == 2, "the frozen connection is not asked again")
        relay.thaw()
        async with asyncio.timeout(1):
            assert await again
        await riva.aclose()


async def test_a_failed_stream_makes_the_list_of_models_old() -> None:
    async def audio() -> AsyncIterator[AudioInput]:
        while True:
            yield bytes(3200)
            await asyncio.sleep(0.01)

    async with MockRivaServer(load_plan({"faults": [{"kind": "unavailable"}]})) as server:
        riva = RivaEngine(RivaConfig(endpoint=f"127.0.0.1:{server.port}"), clock=lambda: 0.5)
        assert await riva.models() == await riva.models()
        asked = len(server.calls)
        with pytest.raises(ASRError):
            await drain(riva.stream(audio(), Options()))
        await riva.models()
        assert len(server.calls) == asked + 2
        await riva.aclose()
