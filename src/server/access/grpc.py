"""Access over gRPC: one interceptor in front of every method, reflection included.

It looks before the first message is read: every method is served as a stream both ways, which reads nothing on its
own, and a call that asks one thing has its message read here, within a bound. What a caller may do is handed on in a
context variable: that and the method run in one task. So many calls are served at a time, and one caller never has
all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio

from asr.errors import ASRError, Code
from server.access.attempts import site_of
from server.access.crowd import Crowd
from server.access.grants import Grant, payer_of
from server.access.porter import Porter
from server.access.rules import Rule
from server.principal import grpc_address
from server.refusals import REALM, refusal

CODE_KEY = "riva-gateway-code"
"""Metadata of a refusal: its code."""
MAX_OPEN_CALLS = 100
"""Calls of one address at a time that show no credential: watched health, above all."""
OPEN_MESSAGE_S = 10.0
MESSAGE_S = 300.0
"""How long the message of a call may take that has only one, without and with a credential: it may be 64 MiB."""

_grant: ContextVar[Grant | None] = ContextVar("grant", default=None)


class GrpcAccess(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """The interceptor.

    Args:
        porter: lets in.
        rules: what each method asks for.
        most_calls: of one caller at a time.
    """

    def __init__(self, porter: Porter, rules: Mapping[str, Rule], *, most_calls: int) -> None:
        self._porter = porter
        self._rules = rules
        self._most_calls = most_calls
        self._most_open_calls = min(MAX_OPEN_CALLS, max(most_calls // 4, 1))
        self._crowd = Crowd()

    @property
    def is_serving(self) -> bool:
        """Whether any call is being served."""
        return len(self._crowd) > 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of a call, with the gate before it. A method that is not there stays so."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method

        async def serve(requests: AsyncIterator[Any], context: Any) -> None:
            try:
                await self._serve(handler, method, requests, context)
            except ASRError as error:
                await _refuse(context, error)

        read = handler.request_deserializer
        return grpc.stream_stream_rpc_method_handler(serve, read and _strictly(read), handler.response_serializer)

    async def _serve(
        self, handler: grpc.RpcMethodHandler[Any, Any], method: str, requests: AsyncIterator[Any], context: Any
    ) -> None:
        address = grpc_address(context.peer())
        fields = list(context.invocation_metadata() or ())
        grant = self._porter.enter(self._rules.get(method), fields, address, method)
        if grant is None:
            caller, most, patience_s = f"nobody {site_of(address)}", self._most_open_calls, OPEN_MESSAGE_S
        else:
            caller, most, patience_s = payer_of(grant.principal), self._most_calls, MESSAGE_S
        with self._crowd.joined(caller, most):
            _grant.set(grant)
            await _answer(handler, requests if handler.request_streaming else await _only(context, patience_s), context)


def current_grant() -> Grant | None:
    """What the caller of the method that runs here may do; None at an open door."""
    return _grant.get()


def _strictly(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """What cannot be read is the client's mistake, and no defect of ours."""

    def reading(data: bytes) -> Any:
        try:
            return read(data)
        except Exception as error:
            text = "A message is not one of this method's. Use the proto files that the service is made from."
            raise ASRError(Code.BAD_REQUEST, text) from error

    return reading


async def _only(context: Any, patience_s: float) -> Any:
    """The message of a call that has one.

    Raises:
        ASRError: it does not come.
    """
    try:
        async with asyncio.timeout(patience_s):
            request = await context.read()
    except TimeoutError:
        raise ASRError(Code.IDLE_TIMEOUT, f"The message of this call did not come within {patience_s:g} s.") from None
    if request is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs forgot it
        raise ASRError(Code.BAD_REQUEST, "The call ended before its message. Send one.")
    return request


async def _answer(handler: grpc.RpcMethodHandler[Any, Any], given: Any, context: Any) -> None:
    methods = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    method: Any = next(method for method in methods if method is not None)
    answer = method(given, context)
    if hasattr(answer, "__aiter__"):
        async with aclosing(answer) as responses:
            async for response in responses:
                await context.write(response)
        return
    response = await answer
    if not handler.response_streaming:  # who streams in a coroutine has written
        await context.write(response)


async def _refuse(context: Any, error: ASRError) -> None:
    row = refusal(error.code)
    metadata: list[tuple[str, str]] = [(CODE_KEY, error.code.value)]
    if row.http_status == 401:
        metadata.append(("www-authenticate", f'Bearer realm="{REALM}"'))
    if error.retry_after_ms is not None:
        metadata.append(("retry-after", str(-(-error.retry_after_ms // 1000))))
    await context.abort(grpc.StatusCode[row.grpc_status], error.message, tuple(metadata))
