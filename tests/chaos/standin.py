"""Start, steer and kill the stand-in recognizer of `chaos.upstream`, which runs as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos.behaviour import Behaviour, as_message

TESTS = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 15.0


def clean_environment() -> dict[str, str]:
    """The environment for a child: without this project's keys, with the tests to import from."""
    ours = ("ASR_", "RIVA_", "LOCAL_", "CHAOS_", "COV_")
    env = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    path = [str(TESTS), *filter(None, [env.get("PYTHONPATH")])]
    return env | {"PYTHONPATH": os.pathsep.join(path), "GRPC_VERBOSITY": "NONE"}


class StandIn:
    """One stand-in process, as an async context manager; it keeps its port when it is started again.

    Attributes:
        port: where it serves Riva's gRPC.
        starts: how often it has been started.
        frozen: it is stopped, and would not answer.
    """

    def __init__(self, behaviour: Behaviour | None = None, *, port: int = 0, arguments: tuple[str, ...] = ()) -> None:
        self.behaviour = behaviour or Behaviour()
        self.port = port
        self.starts = 0
        self.frozen = False
        self._arguments = arguments
        self._control = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def answers(self) -> bool:
        """It can be asked for its state."""
        return self.alive and not self.frozen

    async def start(self) -> None:
        """Start it, on the port of the time before."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chaos.upstream", "--port", str(self.port), *self._arguments,
            "--behaviour", json.dumps(as_message(self.behaviour)),
            stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL, env=clean_environment(),
        )  # fmt: skip
        assert self._process.stdout is not None
        self.frozen = False
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the stand-in did not start: {await self._process.wait()}")
        ports = json.loads(line)
        self.port, self._control = ports["port"], ports["control"]
        self.starts += 1

    async def behave(self, behaviour: Behaviour) -> None:
        """From now on like this; the count of faults begins anew."""
        self.behaviour = behaviour
        await self._ask({"do": "behave", **as_message(behaviour)})

    async def state(self) -> dict[str, Any]:
        """What it has counted since its start."""
        return await self._ask({"do": "state"})

    async def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        await self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: the kernel goes on answering for it."""
        self.frozen = True
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.frozen = False
        self._signal(signal.SIGCONT)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    def _signal(self, number: signal.Signals) -> None:
        if self.alive and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        if self._process is not None:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._process.wait()
            # The pipe's transport would close only with the loop.
            self._process._transport.close()  # type: ignore[attr-defined]

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._control, limit=2**26)
            try:
                writer.write(json.dumps(message).encode() + b"\n")
                answer: dict[str, Any] = json.loads(await reader.readline())
            finally:
                writer.close()
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer
