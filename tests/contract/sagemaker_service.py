"""A stand-in for the service between a SageMaker client and its container, on loopback.

It does to requests what the service does: the path becomes `/invocations`, only a few headers go on, and a container's
failure becomes a `ModelError` with status 424 that quotes the container's body.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
_FORWARDED = ("content-type", "accept", ATTRIBUTES)
_LIMIT_S = 60.0


class Service:
    """The service in front of one container.

    Attributes:
        url: for `endpoint_url` of a client, once it runs.
        seen: the headers that the client sent with each call.
    """

    def __init__(self, container_url: str) -> None:
        self.url = ""
        self.seen: list[dict[str, str]] = []
        self._container = container_url
        path = "/endpoints/{name}/invocations"
        self.asgi = Starlette(routes=[Route(path, self.invoke, methods=["POST"])])

    async def invoke(self, request: Request) -> Response:
        """InvokeEndpoint."""
        self.seen.append(dict(request.headers))
        headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        body = await request.body()
        async with httpx2.AsyncClient(trust_env=False, timeout=_LIMIT_S) as client:
            answer = await client.post(f"{self._container}/invocations", content=body, headers=headers)
        if answer.status_code >= 400:
            return _model_error(answer)
        told = {"x-amzn-invoked-production-variant": "primary"}
        if ATTRIBUTES in answer.headers:
            told[ATTRIBUTES] = answer.headers[ATTRIBUTES]
        return Response(answer.content, media_type=answer.headers.get("content-type"), headers=told)


def _model_error(answer: httpx2.Response) -> Response:
    side = "client" if answer.status_code < 500 else "server"
    content = {
        "ErrorCode": f"{side.upper()}_ERROR_FROM_MODEL",
        "Message": f'Received {side} error ({answer.status_code}) from primary with message "{answer.text}".',
        "OriginalMessage": answer.text,
        "OriginalStatusCode": answer.status_code,
        "LogStreamArn": "",
    }
    return JSONResponse(content, 424, {"x-amzn-errortype": "ModelError"})


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The signals belong to whoever runs the test.
        yield


@asynccontextmanager
async def service(container_url: str) -> AsyncIterator[Service]:
    """Run the service on a free port."""
    stand_in = Service(container_url)
    server = _Server(uvicorn.Config(stand_in.asgi, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(10):
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
        stand_in.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield stand_in
    finally:
        server.should_exit = True
        await serving
