"""One `StreamingRecognize` call of the stand-in: read, hear, answer, and break where the plan says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs lack it

from asr.mock.messages import request_of, streaming_response
from asr.mock.plan import MockPlan
from asr.mock.recognition import HANGS, Refusal, check_config, fault_status, invalid
from asr.mock.responses import RawResponse
from asr.mock.script import ScriptedRecognizer
from asr.mock.sections import START_FLAG_TEXT, Fault
from asr.mock.sniff import DEFAULT_RATE_HZ, BadAudioError, Sniffer


@dataclass(frozen=True, slots=True)
class Timing:
    """How delays pass (`sleep`, seconds) and what the idle limit is measured with (`clock`, seconds)."""

    sleep: Callable[[float], Awaitable[None]]
    clock: Callable[[], float]


async def play_stream(context: Any, plan: MockPlan, number: int, timing: Timing) -> None:
    """Serve the call of `context` as stream `number` of the plan; its status is the plan's."""
    try:
        await _Stream(context, plan, number, timing).run()
    except BadAudioError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except Refusal as refusal:
        await context.abort(grpc.StatusCode[refusal.status], refusal.message)


class _Stream:
    def __init__(self, context: Any, plan: MockPlan, number: int, timing: Timing) -> None:
        self._context = context
        self._plan = plan
        self._number = number
        self._timing = timing
        self._script: ScriptedRecognizer | None = None
        self._config: Any = None
        self._request_id = ""
        self._answered = False

    async def run(self) -> None:
        context = self._context
        first = await context.read()
        if first is EOF:
            raise invalid("Error: the stream ended before its configuration")
        if first.WhichOneof("streaming_request") != "streaming_config":
            raise invalid("Error: the first message must hold streaming_config")
        self._config = first.streaming_config
        self._request_id = first.id.value
        sniffer = check_config(self._plan, self._config.config, "online")
        script = self._begin(DEFAULT_RATE_HZ)
        while not script.fault:
            before = self._timing.clock()
            message = await context.read()
            if message is EOF:
                script = await self._end(sniffer)
                break
            self._check_idle(before)
            script = await self._hear(sniffer, message)
        if script.fault is not None:
            await self._break(script.fault)

    def _begin(self, rate_hz: int) -> ScriptedRecognizer:
        request = request_of(self._config.config, rate_hz=rate_hz, interim_results=self._config.interim_results)
        self._script = ScriptedRecognizer(self._plan, request, stream=self._number)
        return self._script

    async def _hear(self, sniffer: Sniffer, message: Any) -> ScriptedRecognizer:
        if message.WhichOneof("streaming_request") == "streaming_config":
            raise invalid("Error: streaming_config may come only once")
        script, responses = self._listen(sniffer.feed(message.audio_content), sniffer)
        if self._plan.server.force_eou and message.runtime_config.get("force_eou", "").lower() == "true":
            responses += script.force_eou()
        for response in responses:
            await self._answer(response)
        return script

    async def _end(self, sniffer: Sniffer) -> ScriptedRecognizer:
        # Decoding a whole file takes its time; samples are there at once.
        pcm = await asyncio.to_thread(sniffer.finish) if sniffer.gathers else sniffer.finish()
        script, responses = self._listen(pcm, sniffer)
        for response in responses + script.finish():
            await self._answer(response)
        return script

    def _listen(self, pcm: bytes, sniffer: Sniffer) -> tuple[ScriptedRecognizer, list[RawResponse]]:
        script = self._script
        assert script is not None, "run begins it"
        if not script.processed_ms and sniffer.rate_hz not in (0, script.rate_hz):
            # Only the header told the rate.
            script = self._begin(sniffer.rate_hz)
        return script, script.feed(pcm)

    async def _answer(self, response: RawResponse) -> None:
        if not response.results and not self._plan.server.send_empty:
            return
        delay = self._plan.delay
        wait_ms = 0 if self._answered else delay.first_response_ms
        if response.results:
            wait_ms += delay.response_ms
        if wait_ms:
            await self._timing.sleep(wait_ms / 1000)
        self._answered = True
        await self._context.write(streaming_response(response, self._request_id))

    def _check_idle(self, before: float) -> None:
        limit_ms = self._plan.server.idle_limit_ms
        if limit_ms and (self._timing.clock() - before) * 1000 > limit_ms:
            raise invalid(START_FLAG_TEXT)

    async def _break(self, fault: Fault) -> None:
        if fault.kind in HANGS:
            try:
                async with asyncio.timeout(self._plan.delay.hang_ms / 1000):
                    await self._hang(fault)
            except TimeoutError:
                pass
        refusal = fault_status(fault)
        if refusal is not None:
            raise refusal

    async def _hang(self, fault: Fault) -> None:
        if fault.kind != "stop_reading":
            while await self._context.read() is not EOF:
                pass
        await asyncio.Event().wait()
