"""What gRPC itself makes of each misbehaviour: the peer does on the wire what its name says."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest

from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc
from chaos.h2peer import MODES, H2Peer, Mode

DEADLINE_S = 1.5
EXPECTED: dict[Mode, tuple[str, str]] = {
    "accept_silent": ("DEADLINE_EXCEEDED", ""),
    "http1": ("UNAVAILABLE", ""),
    "garbage": ("UNAVAILABLE", ""),
    "http502": ("UNAVAILABLE", "502"),
    "goaway_unprocessed": ("UNAVAILABLE", "GOAWAY"),
    "goaway_mid": ("UNAVAILABLE", ""),
    "too_many_pings": ("UNAVAILABLE", ""),
    "refused_stream": ("UNAVAILABLE", ""),
    "rst_start": ("INTERNAL", ""),
    "rst_mid": ("INTERNAL", ""),
    "midfin": ("UNAVAILABLE", ""),
    "no_trailers": ("DEADLINE_EXCEEDED", "END_STREAM"),
    "window_zero": ("DEADLINE_EXCEEDED", ""),
    "frame_4gib": ("RESOURCE_EXHAUSTED", "larger than max"),
    "bad_proto": ("None", ""),
    "freeze": ("DEADLINE_EXCEEDED", ""),
    "only_pings": ("DEADLINE_EXCEEDED", ""),
}


@pytest.mark.parametrize("mode", MODES)
async def test_what_a_client_sees(mode: Mode) -> None:
    async with H2Peer(mode, after_bytes=8_000) as peer:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(peer.endpoint, options) as channel:
            call = asr_grpc.RivaSpeechRecognitionStub(channel).StreamingRecognize(timeout=DEADLINE_S)

            async def write() -> None:
                with_audio = pb.StreamingRecognizeRequest(audio_content=bytes(3_200)).SerializeToString()
                await call.wait_for_connection()
                while not call.done():
                    # One floor below `write`, which would put a status of its own over the true one.
                    await call._cython_call.send_serialized_message(with_audio)
                    await asyncio.sleep(0.02)

            writing = asyncio.create_task(write())
            try:
                async with asyncio.timeout(DEADLINE_S + 5):
                    answer = await call.read()
                    seen = "None" if answer is None else (await call.code()).name
            except grpc.aio.AioRpcError as error:
                seen, details = error.code().name, error.details() or ""
            else:
                details = ""
            finally:
                writing.cancel()
                call.cancel()
                await asyncio.gather(writing, return_exceptions=True)
        status, text = EXPECTED[mode]
        assert (seen, text in details) == (status, True), details


async def test_it_lists_a_model_meanwhile() -> None:
    async with H2Peer("rst_mid") as peer, grpc.aio.insecure_channel(peer.endpoint) as channel:
        stub = asr_grpc.RivaSpeechRecognitionStub(channel)
        listed = await stub.GetRivaSpeechRecognitionConfig(pb.RivaSpeechRecognitionConfigRequest(), timeout=5)
        assert [row.model_name for row in listed.model_config] == ["numbered-asr"]
