"""The stand-in recognizer does what it is told; tried with gRPC itself, without a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc
from chaos.behaviour import START_FLAG, Behaviour, from_message
from chaos.numbered import frame
from chaos.standin import StandIn

PATIENCE_S = 15.0


@asynccontextmanager
async def stub_of(port: int) -> AsyncIterator[Any]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        yield asr_grpc.RivaSpeechRecognitionStub(channel)


async def recognize(stub: Any, count: int, *, pause_s: float = 0.0, first: int = 0, hold_s: float = 0.0) -> list[Any]:
    """All results of `count` frames; raises as the call does."""

    async def requests() -> AsyncIterator[Any]:
        config = pb.StreamingRecognitionConfig(interim_results=True)
        config.config.enable_word_time_offsets = True
        yield pb.StreamingRecognizeRequest(streaming_config=config)
        for number in range(first, first + count):
            yield pb.StreamingRecognizeRequest(audio_content=frame(number))
            await asyncio.sleep(pause_s)
        await asyncio.sleep(hold_s)

    async with asyncio.timeout(PATIENCE_S):
        return [result async for response in stub.StreamingRecognize(requests()) for result in response.results]


async def status_of(stub: Any, count: int, **more: Any) -> tuple[str, str]:
    for _ in range(5):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await recognize(stub, count, **more)
        # grpc.aio puts an INTERNAL of its own in the place of a status that comes during a write.
        if "Internal error from Core" not in (caught.value.details() or ""):
            break
    return caught.value.code().name, caught.value.details() or ""


async def test_words_partials_finals_and_a_death() -> None:
    async with StandIn(Behaviour(finals_every=3)) as upstream, stub_of(upstream.port) as stub:
        listed = await stub.GetRivaSpeechRecognitionConfig(pb.RivaSpeechRecognitionConfigRequest())
        assert [row.model_name for row in listed.model_config] == ["numbered-asr"]
        results = await recognize(stub, 4, first=7)
        assert [(r.alternatives[0].transcript.strip(), r.is_final) for r in results] == [
            ("f00007", False), ("f00007 f00008", False), ("f00007 f00008 f00009", True), ("f00010", False),
            ("f00010", True),
        ]  # fmt: skip
        assert [(w.start_time, w.end_time) for w in results[2].alternatives[0].words] == [
            (0, 100), (100, 200), (200, 300),
        ]  # fmt: skip
        assert [round(r.audio_processed, 3) for r in results] == [0.1, 0.2, 0.3, 0.4, 0.4]
        state = await upstream.state()
        assert (state["open"], state["opened"], state["streams"][0]["frames"]) == (0, 1, [7, 8, 9, 10])
        port = upstream.port
        await upstream.kill()
        assert (await status_of(stub, 1))[0] == "UNAVAILABLE"
        await upstream.start()
        assert upstream.port == port
    async with stub_of(port) as stub:
        assert (await status_of(stub, 1))[0] == "UNAVAILABLE"


async def test_misbehaviour_is_switched_while_it_runs() -> None:
    async with StandIn() as upstream, stub_of(upstream.port) as stub:
        await upstream.behave(Behaviour(abort_after=3, abort_status="INTERNAL", abort_text="broken", faults=1))
        assert await status_of(stub, 5) == ("INTERNAL", "broken")
        assert len(await recognize(stub, 5)) == 6
        await upstream.behave(Behaviour(abort_after=0, abort_status="UNAUTHENTICATED"))
        assert (await status_of(stub, 1))[0] == "UNAUTHENTICATED"
        await upstream.behave(Behaviour(end_after=2))
        assert len(await recognize(stub, 5, pause_s=0.02)) == 1
        await upstream.behave(Behaviour(loading=True))
        assert not (await stub.GetRivaSpeechRecognitionConfig(pb.RivaSpeechRecognitionConfigRequest())).model_config
        assert (await status_of(stub, 1))[0] == "UNAVAILABLE"
        await upstream.behave(Behaviour(idle_abort_s=0.2))
        assert await status_of(stub, 1, hold_s=2.0) == ("INVALID_ARGUMENT", START_FLAG)
        await upstream.behave(Behaviour(partials=False, final_on_stop=False, finals_every=0))
        assert await recognize(stub, 5) == []
        await upstream.behave(Behaviour(audio_processed=False))
        assert {r.audio_processed for r in await recognize(stub, 5)} == {0.0}
        await upstream.behave(Behaviour(abort_on_stop="UNKNOWN", faults=1))
        assert (await status_of(stub, 2))[0] == "UNKNOWN"
    with pytest.raises(ValueError, match="no such behaviour"):
        from_message({"colour": 1})


async def test_silence_limits_lag_and_nonsense() -> None:
    async with StandIn(Behaviour(stuck_after=2)) as upstream, stub_of(upstream.port) as stub:
        stuck = asyncio.create_task(recognize(stub, 4))
        await asyncio.sleep(0.5)
        assert not stuck.done()
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)
        await upstream.behave(Behaviour(max_streams=1))
        holding = asyncio.create_task(recognize(stub, 1, hold_s=1.0))
        await asyncio.sleep(0.3)
        assert (await status_of(stub, 1))[0] == "RESOURCE_EXHAUSTED"
        await holding
        loop = asyncio.get_running_loop()
        await upstream.behave(Behaviour(start_delay_s=0.4))
        begun = loop.time()
        await recognize(stub, 1)
        assert loop.time() - begun >= 0.39
        await upstream.behave(Behaviour(lag_free_streams=0, lag_s=0.2))
        begun = loop.time()
        await recognize(stub, 1)
        assert loop.time() - begun >= 0.39
        await upstream.behave(Behaviour(shuffle_after=0, finals_every=2))
        results = await recognize(stub, 16)
        texts = {w for r in results if r.is_final and r.alternatives for w in r.alternatives[0].transcript.split()}
        assert texts == {f"f{n:05d}" for n in range(16)}
        assert len(results) > 16


async def test_options_of_the_server() -> None:
    async with StandIn(arguments=("--max-message", "8192")) as upstream, stub_of(upstream.port) as stub:
        call = stub.StreamingRecognize()
        await call.write(pb.StreamingRecognizeRequest(audio_content=bytes(20_000)))
        assert (await call.code()).name == "RESOURCE_EXHAUSTED"
    async with StandIn(arguments=("--max-age-ms", "500")) as upstream, stub_of(upstream.port) as stub:
        assert (await status_of(stub, 40, pause_s=0.05))[0] == "UNAVAILABLE"
    async with StandIn(Behaviour(undecodable_after=1)) as upstream, stub_of(upstream.port) as stub:
        # grpc.aio tells nobody: the message is None, and the call goes on.
        call = stub.StreamingRecognize()
        await call.write(pb.StreamingRecognizeRequest(audio_content=frame(1)))
        async with asyncio.timeout(PATIENCE_S):
            assert await call.read() is None
        call.cancel()
