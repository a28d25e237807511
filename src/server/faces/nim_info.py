"""What a NIM answers about itself: health, models, version, licence. Models come in OpenAI's list shape."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from asr.engine import Engine, Model, Readiness
from asr.errors import ASRError, Code, quoted
from server.api_docs import Json, answer, errors

RETRY_S = 5
"""When a probe may come again that was told "not ready"."""

_HEALTH: Json = {
    "type": "object",
    "required": ["object", "message", "status"],
    "properties": {"object": {"type": "string"}, "message": {"type": "string"}, "status": {"type": "string"}},
}
_NOT_READY = {"object": "health.response", "message": "The recognizer is loading.", "status": "not ready"}


def router(engine: Engine, readiness: Callable[[], Awaitable[Readiness]], *, version: str) -> APIRouter:
    """The routes under `/v1` that tell about the gateway.

    Args:
        engine: whose models are told.
        readiness: whether streams can be served now.
        version: of the gateway.
    """
    routes = APIRouter()

    @routes.get("/v1/health/live", tags=["NIM"], summary="Is it alive?")
    async def nim_live() -> dict[str, str]:
        """As a NIM answers: the process runs."""
        return {"object": "health.response", "message": "live", "status": "live"}

    @routes.get(
        "/v1/health/ready",
        tags=["NIM"],
        summary="Is it ready?",
        responses={503: answer("Not ready.", _HEALTH, _NOT_READY)},
    )
    async def nim_ready() -> JSONResponse:
        """As a NIM answers: 200 when ready, else 503."""
        state = await readiness()
        word = "ready" if state.ready else "not ready"
        body = {"object": "health.response", "message": state.detail or word, "status": word}
        return JSONResponse(body, 200) if state.ready else JSONResponse(body, 503, {"Retry-After": str(RETRY_S)})

    @routes.get("/v1/models", tags=["OpenAI"], summary="Models", responses=errors(500, 503, 504))
    async def models() -> dict[str, Any]:
        """The models that the recognizer serves, in OpenAI's list shape with our fields added."""
        return {"object": "list", "data": [_row(model, engine.name) for model in await engine.models()]}

    @routes.get("/v1/models/{model:path}", tags=["OpenAI"], summary="One model", responses=errors(404, 500, 503, 504))
    async def one_model(model: str) -> dict[str, Any]:
        """One of them."""
        served = await engine.models()
        for known in served:
            if known.name == model:
                return _row(known, engine.name)
        names = ", ".join(sorted({known.name for known in served})) or "none"
        text = f"There is no model {quoted(model)}. Models served here: {names}."
        raise ASRError(Code.NOT_FOUND, text, param="model")

    @routes.get("/v1/metadata", tags=["NIM"], summary="Versions, models and licence", responses=errors(500, 503, 504))
    async def metadata() -> dict[str, Any]:
        """As a NIM answers: versions, models and licence. The gateway carries no model files of its own."""
        licence = dict(_licence())
        licence.pop("content")
        return {
            "version": version,
            "assetInfo": [],
            "licenseInfo": licence,
            "modelInfo": [{"shortName": model.name, "modelUrl": ""} for model in await engine.models()],
            "repository_override": "",
            "selectedModelProfileId": "",
        }

    @routes.get("/v1/version", tags=["NIM"], summary="Version")
    async def nim_version() -> dict[str, str]:
        """As a NIM answers: the gateway's version, in both places."""
        return {"release": version, "api": version}

    @routes.get("/v1/license", tags=["NIM"], summary="Licence")
    async def licence() -> dict[str, Any]:
        """As a NIM answers: the gateway's licence. The recognizer's models have their own."""
        return dict(_licence())

    @routes.get("/v1/manifest", tags=["NIM"], summary="Manifest")
    async def manifest() -> dict[str, str]:
        """As a NIM answers, and empty: the gateway carries no model files."""
        return {"manifest_file": "", "repository": ""}

    return routes


def _row(model: Model, owner: str) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": owner,
        "languages": list(model.languages),
        "streaming": model.streaming,
        "offline": model.offline,
    }


@cache
def _licence() -> dict[str, Any]:
    try:
        content = distribution("riva-gateway").read_text("licenses/LICENSE") or ""
    except PackageNotFoundError:
        content = ""
    return {
        "name": "Apache License 2.0",
        "path": "LICENSE",
        "sha": hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest(),
        "size": len(content),
        "url": "https://www.apache.org/licenses/LICENSE-2.0",
        "type": "file",
        "content": content,
    }
