"""A gRPC server that speaks Riva's protos and plays a mock plan, its bad manners included.

For tests, demos and load runs where no GPU is at hand; `docs/mock.md` lists what it can do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from asr.mock.messages import config_response
from asr.mock.plan import DEFAULT_PLAN, MockPlan
from asr.mock.recognition import Refusal, recognize
from asr.mock.streams import Timing, play_stream
from asr.riva_proto import asr_grpc, health, health_grpc

MAX_RECORDED_CALLS = 1_000
_UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A call that came in: its method's last name and its metadata, as often as each key was delivered."""

    method: str
    metadata: tuple[tuple[str, str], ...]

    def delivered(self, key: str) -> int:
        """How often `key` came with the call (NVIDIA's client delivers it twice over TLS)."""
        return sum(name == key for name, _ in self.metadata)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM texts of a TLS server; `client_ca` demands certificates of the clients."""

    key: bytes
    certificate: bytes
    client_ca: bytes | None = None


class MockRivaServer:
    """The server, as an async context manager.

    Attributes:
        port: where it listens, once started.
        calls: the last thousand calls, oldest first.
        streams: how many streams have begun.
        serving: what the health service says; may be switched at any time.
        plan: may be exchanged at any time; it holds for the streams that begin after.
    """

    def __init__(
        self,
        plan: MockPlan = DEFAULT_PLAN,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ServerTls | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Nothing is opened before `start`.

        Args:
            plan: what it says and does.
            host: the address to listen on.
            port: 0 lets the system choose.
            tls: serve TLS with these; otherwise plain text.
            sleep: how the plan's delays pass, in seconds.
            clock: the time against which the idle limit is measured, in seconds; None = the loop's.
        """
        self.plan = plan
        self.port = port
        self.calls: deque[RecordedCall] = deque(maxlen=MAX_RECORDED_CALLS)
        self.streams = 0
        self.serving = plan.server.serving
        self._host = host
        self._tls = tls
        self._sleep = sleep
        self._clock = clock
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises `OSError` when the port is taken."""
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self.plan.server.max_message_bytes),
                ("grpc.max_send_message_length", _UNLIMITED),
                ("grpc.so_reuseport", 0),
            ]
        )
        asr_grpc.add_RivaSpeechRecognitionServicer_to_server(_Recognition(self), server)
        health_grpc.add_HealthServicer_to_server(_Health(self), server)
        address = f"{self._host}:{self.port}"
        try:
            if self._tls is None:
                self.port = server.add_insecure_port(address)
            else:
                self.port = server.add_secure_port(address, _credentials(self._tls))
        except RuntimeError as error:
            raise OSError(f"The stand-in cannot listen on {address}: the port is taken or not allowed.") from error
        await server.start()
        self._server = server

    async def stop(self, grace_s: float = 0.0) -> None:
        """Stop listening; streams that are still open after `grace_s` are cancelled."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def timing(self) -> Timing:
        """How a stream's delays pass and its idle time is measured."""
        return Timing(self._sleep, self._clock or asyncio.get_running_loop().time)

    async def admit(self, context: Any, method: str) -> None:
        """Record a call and refuse it where required metadata is missing."""
        metadata = tuple((str(k), str(v)) for k, v in context.invocation_metadata() or ())
        self.calls.append(RecordedCall(method, metadata))
        problem = missing_metadata(self.plan.server.required_metadata, metadata)
        if problem:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, problem)


def missing_metadata(required: Mapping[str, str], sent: tuple[tuple[str, str], ...]) -> str:
    """What is wrong with a call's metadata, or ""; only the first value of a key counts."""
    first: dict[str, str] = {}
    for key, value in sent:
        first.setdefault(key, value)
    for key, wanted in required.items():
        if key.lower() not in first:
            return f"Metadata {key.lower()!r} is required."
        if wanted and first[key.lower()] != wanted:
            return f"Metadata {key.lower()!r} is not valid."
    return ""


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(tls.key, tls.certificate)],
        root_certificates=tls.client_ca,
        require_client_auth=tls.client_ca is not None,
    )


class _Recognition:
    def __init__(self, server: MockRivaServer) -> None:
        self._server = server

    async def StreamingRecognize(self, _requests: Any, context: Any) -> None:  # noqa: N802 - the proto's name
        server = self._server
        server.streams += 1
        number = server.streams
        await server.admit(context, "StreamingRecognize")
        await play_stream(context, server.plan, number, server.timing())

    async def Recognize(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        await self._server.admit(context, "Recognize")
        wait_ms = self._server.plan.delay.first_response_ms
        if wait_ms:
            await self._server.timing().sleep(wait_ms / 1000)
        try:
            return await asyncio.to_thread(recognize, self._server.plan, request)
        except Refusal as refusal:
            return await context.abort(grpc.StatusCode[refusal.status], refusal.message)

    async def GetRivaSpeechRecognitionConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        await self._server.admit(context, "GetRivaSpeechRecognitionConfig")
        return config_response(self._server.plan.server.models, request.model_name)


class _Health:
    def __init__(self, server: MockRivaServer) -> None:
        self._server = server

    async def Check(self, _request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        await self._server.admit(context, "Check")
        return self._answer()

    async def Watch(self, _request: Any, context: Any) -> None:  # noqa: N802 - the proto's name
        await self._server.admit(context, "Watch")
        said: Any = None
        while not context.cancelled():
            now = self._answer()
            if now != said:
                await context.write(now)
                said = now
            await asyncio.sleep(_WATCH_S)

    def _answer(self) -> Any:
        known = health.HealthCheckResponse
        return known(status=known.SERVING if self._server.serving else known.NOT_SERVING)


_WATCH_S = 0.2
