"""moto as one WSGI application, patched and written down."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from cloud.calls import Calls
from cloud.faults import FAULTS
from cloud.machines import Machines
from cloud.patches_ec2 import patch_ec2
from cloud.patches_other import patch_others
from cloud.patches_sagemaker import patch_sagemaker
from cloud.patches_ssm import patch_ssm
from cloud.permissions import patch_iam
from cloud.refusals import Refusals


class _Handler(MotoRequestHandler):
    def log(self, *_: Any) -> None:
        pass


def make_app(machines: Machines) -> tuple[Callable[..., Iterable[bytes]], Calls]:
    logging.getLogger("werkzeug").disabled = True
    patch_ec2(machines)
    patch_ssm(machines)
    patch_sagemaker()
    patch_others()
    patch_iam()
    calls = Calls(Refusals(DomainDispatcherApplication(create_backend_app)))

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/cloud/faults":
            return calls(environ, start_response)
        start_response("200 OK", [("Content-Type", "application/json")])  # the stand-ins on far machines ask
        return [json.dumps(FAULTS.all()).encode()]

    return app, calls


def serve(app: Callable[..., Iterable[bytes]], host: str, port: int, fd: int | None = None) -> None:
    """Serves until the process ends."""
    make_server(host, port, app, threaded=True, request_handler=_Handler, fd=fd).serve_forever()
