"""Which calls AWS got: a layer around moto that writes down service, operation, parameters and the answer's status."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

from moto.core.request import Request
from moto.core.routing import get_service_router
from werkzeug.exceptions import NotFound

# The name that signs a request is not always the name that people type.
NAMES = {
    "tagging": "resourcegroupstaggingapi",
    "servicequotas": "service-quotas",
    "monitoring": "cloudwatch",
    "elasticloadbalancing": "elbv2",
}
QUESTIONS = re.compile("^(Describe|Get|List|Head|Batch(Get|Check)|Simulate|Search|Check)")


class Calls:
    """A WSGI application around another one."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self.all: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        call = _call(environ, body)
        environ["cloud.call"] = call

        def started(status: str, *more: Any) -> Any:
            call["status"] = int(status.split()[0])
            return start_response(status, *more)

        if not environ["PATH_INFO"].startswith("/moto-api"):
            self.all.append(call)
        return self._app(environ, started)


def _call(environ: dict[str, Any], body: bytes) -> dict[str, Any]:
    signed = re.search(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
    key, region, service = signed.groups() if signed else ("", "", "")
    service = NAMES.get(service, service)
    if service == "sagemaker" and "invocations" in environ["PATH_INFO"]:
        service = "sagemaker-runtime"
    operation, parameters = _operation(service, environ, body)
    return {
        "service": service,
        "operation": operation,
        "parameters": parameters,
        "status": 0,
        "key": key,
        "region": region,
    }


def _operation(service: str, environ: dict[str, Any], body: bytes) -> tuple[str, dict[str, Any]]:
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return target.split(".")[-1], _json(body)
    if "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", ""):
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        return form.pop("Action", "?"), form
    if found := re.search(r"/operation/(\w+)$", environ["PATH_INFO"]):
        return found[1], {}
    path = environ["PATH_INFO"]
    try:
        operation, parameters = get_service_router(service).match(
            Request(dict(environ, **{"wsgi.input": io.BytesIO(body)}))
        )
    except (NotFound, NotImplementedError, KeyError, ValueError, LookupError):
        return f"{environ['REQUEST_METHOD']} {path}", {}
    except Exception as error:  # a service that botocore does not know by this name
        return f"{environ['REQUEST_METHOD']} {path} ({type(error).__name__})", {}
    return operation.name, {**parameters, **_json(body)}


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
