"""`GET /metrics`: what Prometheus reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request
from fastapi.responses import Response

_TEXT = {
    "description": "The metrics, as Prometheus reads them.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


def router(page: Callable[[str], Awaitable[tuple[bytes, str]]]) -> APIRouter:
    """The route.

    Args:
        page: the text of all metrics and its content type, for an `Accept` header.
    """
    routes = APIRouter(tags=["operation"])

    @routes.get("/metrics", summary="Figures for Prometheus", response_class=Response, responses={200: _TEXT})
    async def metrics(request: Request) -> Response:
        """Every figure of this gateway, in Prometheus' text format, or as OpenMetrics where that is asked for."""
        body, content_type = await page(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    return routes
