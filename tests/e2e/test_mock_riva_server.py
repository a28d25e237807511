"""The misbehaving Riva over a real socket, by gRPC stubs and by NVIDIA's own client."""

from __future__ import annotations

import asyncio
import datetime
import io
import ipaddress
import math
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import riva.client
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc.aio import EOF

from asr.mock.plan import MockPlan, load_plan
from asr.mock.riva_server import MockRivaServer, ServerTls
from asr.riva_proto import asr as pb
from asr.riva_proto import asr_grpc, health, health_grpc

PCM = bytes(32 * 5000)
LIMIT_S = 10.0


def plan(**keys: Any) -> MockPlan:
    return load_plan({"hears": "clock", "loop": False, "utterances": ["one two three", "four five"]} | keys)


@asynccontextmanager
async def stub(server: MockRivaServer) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield asr_grpc.RivaSpeechRecognitionStub(channel)


def first_message(**config: Any) -> Any:
    chosen = {"encoding": 1, "sample_rate_hertz": 16_000, "language_code": "en-US"} | config
    return pb.StreamingRecognizeRequest(
        streaming_config=pb.StreamingRecognitionConfig(config=pb.RecognitionConfig(**chosen), interim_results=True)
    )


def audio(data: bytes, step: int = 3200) -> list[Any]:
    return [pb.StreamingRecognizeRequest(audio_content=data[at : at + step]) for at in range(0, len(data), step)]


async def stream(server: MockRivaServer, messages: list[Any], **call: Any) -> list[Any]:
    async def requests() -> AsyncIterator[Any]:
        for message in messages:
            yield message

    async with stub(server) as client:
        return [r async for r in client.StreamingRecognize(requests(), timeout=LIMIT_S, **call)]


def finals(responses: list[Any]) -> list[str]:
    return [x.alternatives[0].transcript for r in responses for x in r.results if x.is_final and x.alternatives]


def wav(pcm: bytes, rate_hz: int, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm)
    return out.getvalue()


async def test_a_response_for_each_server_chunk_and_the_tail() -> None:
    async with MockRivaServer(plan()) as server:
        responses = await stream(server, [first_message(), *audio(PCM)])
    assert finals(responses) == ["one two three ", "four five "]
    assert len(responses) == 31
    assert sum(not r.results for r in responses) > 15
    processed = [r.results[0].audio_processed for r in responses if r.results]
    assert processed == sorted(processed)


async def test_empty_responses_can_be_left_out() -> None:
    async with MockRivaServer(plan(server={"send_empty": False})) as server:
        assert all(r.results for r in await stream(server, [first_message(), *audio(PCM)]))


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "ended before its configuration"),
        (audio(bytes(320)), "must hold streaming_config"),
        ([first_message(), first_message()], "only once"),
        ([first_message(audio_channel_count=2)], "Only mono"),
        (
            [first_message(encoding=2), *audio(wav(bytes(320), 16_000))],
            "config format doesn't match with header format",
        ),
        ([first_message(encoding=0), *audio(wav(bytes(320), 16_000, 2))], "Only mono"),
        ([first_message(language_code="de-DE")], "language_code=de; sample_rate=16000; type=online; "),
        ([first_message(model="nope")], "Unavailable model requested"),
    ],
)
async def test_what_riva_refuses(messages: list[Any], said: str) -> None:
    async with MockRivaServer(plan()) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream(server, messages)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in str(caught.value.details())


async def test_a_wav_header_decides_where_all_is_unset() -> None:
    t = np.arange(8000) / 8000
    pcm = (8000 * np.sin(2 * math.pi * 440 * t)).astype("<i2").tobytes() + bytes(16_000)
    async with MockRivaServer(plan(hears="speech")) as server:
        config = first_message(encoding=0, sample_rate_hertz=0, language_code="", enable_word_time_offsets=True)
        responses = await stream(server, [config, *audio(wav(pcm, 8000), 999)])
    (final,) = [x for r in responses for x in r.results if x.is_final]
    assert [w.start_time for w in final.alternatives[0].words] == [0, 280, 560]
    assert final.alternatives[0].transcript == "one two three "
    assert final.alternatives[0].confidence < 0


async def test_request_id_and_force_eou() -> None:
    config = first_message()
    config.id.value = "abc"
    cut = pb.StreamingRecognizeRequest(audio_content=bytes(3200), runtime_config={"force_eou": "true"})
    messages = [config, *audio(bytes(32 * 550)), cut, *audio(bytes(32 * 700))]
    async with MockRivaServer(plan()) as server:
        responses = await stream(server, messages)
        assert finals(responses) == ["one two ", "four five "]
        assert {r.id.value for r in responses} == {"abc"}
        server.plan = plan(server={"force_eou": False})
        assert finals(await stream(server, messages)) == ["one two three "]


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        ("unavailable", grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        ("internal", grpc.StatusCode.INTERNAL, "RST_STREAM"),
        ("exhausted", grpc.StatusCode.RESOURCE_EXHAUSTED, "Bandwidth exhausted"),
        ("unauthenticated", grpc.StatusCode.UNAUTHENTICATED, "expired"),
        ("start_flag", grpc.StatusCode.INVALID_ARGUMENT, "must specify the START flag on the first request"),
        ("model", grpc.StatusCode.INVALID_ARGUMENT, "type=online"),
        ("hang", grpc.StatusCode.DEADLINE_EXCEEDED, "hung"),
        ("stop_reading", grpc.StatusCode.DEADLINE_EXCEEDED, "stopped reading"),
    ],
)
async def test_faults_in_mid_stream(kind: str, status: grpc.StatusCode, said: str) -> None:
    faults = [{"kind": kind, "at_ms": 800, "streams": [1]}]
    async with MockRivaServer(plan(faults=faults, delay={"hang_ms": 50})) as server, stub(server) as client:
        call = client.StreamingRecognize(timeout=LIMIT_S)
        await call.write(first_message())
        for message in audio(bytes(32 * 800)):
            await call.write(message)
        for _ in range(5):
            assert await call.read() is not EOF
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is status
        assert said in str(caught.value.details())
        assert finals(await stream(server, [first_message(), *audio(PCM)]))


async def test_an_early_end_and_an_own_message() -> None:
    faults = [
        {"kind": "end", "at_ms": 960, "streams": [1]},
        {"kind": "unavailable", "message": "go away", "streams": [2]},
    ]
    async with MockRivaServer(plan(faults=faults)) as server:
        assert finals(await stream(server, [first_message(), *audio(bytes(32 * 960))])) == []
        with pytest.raises(grpc.aio.AioRpcError, match="go away"):
            await stream(server, [first_message()])


async def test_half_open_reads_and_never_answers_until_the_client_leaves() -> None:
    async with MockRivaServer(plan(faults=[{"kind": "half_open"}])) as server, stub(server) as client:
        call = client.StreamingRecognize()
        await call.write(first_message())
        for message in audio(PCM):
            await call.write(message)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(call.read())), 0.1)
        assert call.cancel()


async def test_the_idle_limit_is_told_at_the_next_chunk() -> None:
    times = iter([0.0, 1.0, 1.0, 62.0, 62.0])
    async with MockRivaServer(plan(), clock=lambda: next(times)) as server, stub(server) as client:
        call = client.StreamingRecognize(timeout=LIMIT_S)
        await call.write(first_message())
        for message in audio(bytes(6400)):
            await call.write(message)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "START flag" in str(caught.value.details())


async def test_slow_start_and_slow_responses() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with MockRivaServer(plan(delay={"first_response_ms": 3000, "response_ms": 5}), sleep=sleep) as server:
        await stream(server, [first_message(), *audio(bytes(32 * 1000))])
        assert slept == [3.0, 0.005, 0.005, 0.005, 0.005]
        slept.clear()
        async with stub(server) as client:
            config = pb.RecognitionConfig(encoding=1, sample_rate_hertz=16_000)
            await client.Recognize(pb.RecognizeRequest(config=config, audio=PCM))
        assert slept == [3.0]


async def test_a_large_message_exhausts() -> None:
    async with MockRivaServer(plan(server={"max_message_bytes": 4096})) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream(server, [first_message(), *audio(bytes(10_000), 10_000)])
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in str(caught.value.details())


async def test_metadata_is_required_and_counted() -> None:
    required = {"function-id": "f1", "authorization": ""}
    async with MockRivaServer(plan(server={"required_metadata": required})) as server:
        good = (("function-id", "f1"), ("authorization", "Bearer x"), ("function-id", "f1"))
        assert await stream(server, [first_message(), *audio(bytes(32_000))], metadata=good)
        for bad in ((), (("function-id", "f2"), ("authorization", "x"))):
            async with stub(server) as client:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await client.GetRivaSpeechRecognitionConfig(pb.RivaSpeechRecognitionConfigRequest(), metadata=bad)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert [c.delivered("function-id") for c in server.calls] == [2, 0, 1]


async def test_the_list_of_models() -> None:
    rows = [{"name": "a", "language_code": "multi"}, {"name": "b", "type": "offline", "language_code": "en-US,es-US"}]
    async with MockRivaServer(plan(server={"models": rows})) as server, stub(server) as client:
        both = await client.GetRivaSpeechRecognitionConfig(pb.RivaSpeechRecognitionConfigRequest())
        one = await client.GetRivaSpeechRecognitionConfig(pb.RivaSpeechRecognitionConfigRequest(model_name="b"))
        assert [c.parameters["type"] for c in both.model_config] == ["online", "offline"]
        assert [dict(c.parameters)["language_code"] for c in one.model_config] == ["en-US,es-US"]
        server.plan = plan(server={"models": []})
        none = await client.GetRivaSpeechRecognitionConfig(pb.RivaSpeechRecognitionConfigRequest())
        assert len(none.model_config) == 0


async def test_recognize_and_a_streaming_only_deployment() -> None:
    config = pb.RecognitionConfig(language_code="en-US", enable_word_time_offsets=True)
    async with MockRivaServer(plan()) as server, stub(server) as client:
        request = pb.RecognizeRequest(config=config, audio=wav(PCM, 16_000))
        request.id.value = "r1"
        answer = await client.Recognize(request)
        assert [r.alternatives[0].transcript for r in answer.results] == ["one two three ", "four five "]
        assert answer.results[0].alternatives[0].words[1].start_time == 280
        assert answer.id.value == "r1"
        with pytest.raises(grpc.aio.AioRpcError, match="no audio"):
            await client.Recognize(pb.RecognizeRequest(config=config))
        server.plan = plan(server={"models": [{}]})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.Recognize(request)
    assert "language_code=en; sample_rate=16000; type=offline; " in str(caught.value.details())


async def test_health() -> None:
    async with (
        MockRivaServer(plan()) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        client = health_grpc.HealthStub(channel)
        status = health.HealthCheckResponse
        assert (await client.Check(health.HealthCheckRequest())).status == status.SERVING
        watch = client.Watch(health.HealthCheckRequest(), timeout=LIMIT_S)
        assert (await watch.read()).status == status.SERVING
        server.serving = False
        assert (await watch.read()).status == status.NOT_SERVING
        watch.cancel()
        assert (await client.Check(health.HealthCheckRequest())).status == status.NOT_SERVING


async def test_a_taken_port_is_said() -> None:
    async with MockRivaServer(plan()) as server:
        with pytest.raises(OSError, match="cannot listen"):
            await MockRivaServer(plan(), port=server.port).start()


async def test_stopping_ends_streams_that_hang() -> None:
    server = MockRivaServer(plan(faults=[{"kind": "hang"}]))
    await server.start()
    async with stub(server) as client:
        call = client.StreamingRecognize()
        await call.write(first_message())
        async with asyncio.timeout(LIMIT_S):
            while not server.streams:
                await asyncio.sleep(0.005)
            await server.stop()
            assert await call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def self_signed() -> ServerTls:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return ServerTls(private, certificate.public_bytes(pem))


@pytest.mark.parametrize("secure", [False, True])
async def test_nvidias_client_streams_a_file_with_everything_unset(tmp_path: Path, secure: bool) -> None:
    tls = self_signed() if secure else None
    file = tmp_path / "a.wav"
    file.write_bytes(wav(PCM, 16_000))
    root = tmp_path / "root.pem"

    def talk(port: int) -> list[Any]:
        auth = riva.client.Auth(
            ssl_root_cert=str(root) if secure else None,
            use_ssl=secure,
            uri=f"127.0.0.1:{port}",
            metadata_args=[["function-id", "f1"]],
        )
        config = riva.client.StreamingRecognitionConfig(
            config=riva.client.RecognitionConfig(max_alternatives=1), interim_results=True
        )
        with riva.client.AudioChunkFileIterator(str(file), 1600) as chunks:
            found = list(riva.client.ASRService(auth).streaming_response_generator(chunks, config))
        auth.channel.close()
        return found

    async with MockRivaServer(plan(server={"required_metadata": {"function-id": "f1"}}), tls=tls) as server:
        if tls is not None:
            root.write_bytes(tls.certificate)
        responses = await asyncio.to_thread(talk, server.port)
        assert [c.delivered("function-id") for c in server.calls] == [2 if secure else 1]
    assert finals(responses) == ["one two three ", "four five "]
