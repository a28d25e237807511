"""Calls that AWS answers before it looks at them: too many (`throttled`), too early (`aborted`), or not allowed
(`denied`, and what a far machine's role does not permit).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from cloud.faults import FAULTS
from cloud.permissions import may

EC2 = "<Response><Errors><Error><Code>{code}</Code><Message>{text}</Message></Error></Errors></Response>"
XML = "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{text}</Message></Error></ErrorResponse>"
S3 = "<Error><Code>{code}</Code><Message>{text}</Message></Error>"
SPEAK_XML = frozenset({"iam", "sts", "s3", "route53", "cloudwatch", "sns", "autoscaling", "cloudformation"})
# The code of EC2, of others that speak XML, of those that speak JSON; the HTTP status.
DENIED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException", 403)
THROTTLED = ("RequestLimitExceeded", "Throttling", "ThrottlingException", 503)
ABORTED = ("OperationAborted", "OperationAborted", "OperationAborted", 409)
CONFLICT = "A conflicting conditional operation is currently in progress against this resource. Please try again."


class Refusals:
    """A WSGI application around another one; `cloud.calls` goes before it."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        call = environ["cloud.call"]
        name = f"{call['service']}:{call['operation']}"
        if name in FAULTS.get("denied", []) or not may(call):
            who = "assumed-role/of-the-machine" if call["key"].startswith("ASIA") else "user/operator"
            text = f"User: arn:aws:sts::123456789012:{who} is not authorized to perform: {name}"
            return _refuse(call["service"], DENIED, text, start_response)
        if FAULTS.counts("throttled", name):
            return _refuse(call["service"], THROTTLED, "Rate exceeded", start_response)
        if FAULTS.counts("aborted", name):
            return _refuse(call["service"], ABORTED, CONFLICT, start_response)
        return self._app(environ, start_response)


def _refuse(
    service: str, codes: tuple[str, str, str, int], text: str, start_response: Callable[..., Any]
) -> Iterable[bytes]:
    ec2, xml, plain, status = codes
    if service == "ec2":
        code, kind, body = ec2, "text/xml", EC2.format(code=ec2, text=text)
    elif service in SPEAK_XML:
        code, kind, body = xml, "text/xml", (S3 if service == "s3" else XML).format(code=xml, text=text)
    else:
        code, kind, body = plain, "application/x-amz-json-1.1", json.dumps({"__type": plain, "message": text})
    start_response(f"{status} Refused", [("Content-Type", kind), ("x-amzn-ErrorType", code)])
    return [body.encode()]
