"""The metadata service at 169.254.169.254, one for each far machine, in its network. Version 2 only, like the instance
says: a token first.
"""

from __future__ import annotations

import ctypes
import datetime
import json
import os
import secrets
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cloud.faults import FAULTS

ADDRESS = ("169.254.169.254", 80)
_libc = ctypes.CDLL(None, use_errno=True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # without asking the DNS for the machine's name


class Imds:
    """Answers for one instance, in the network of the process `pid`, until `close`."""

    def __init__(self, pid: int, instance: Any) -> None:
        self._server: _Server | None = None
        failed: list[BaseException] = []

        def serve() -> None:
            try:
                enter_network(f"/proc/{pid}/ns/net")  # this thread alone
                self._server = _Server(ADDRESS, _handler(instance))
            except BaseException as error:
                failed.append(error)
            finally:
                begun.set()
            if self._server is not None:
                self._server.serve_forever(0.1)

        begun = threading.Event()
        threading.Thread(target=serve, daemon=True).start()
        begun.wait(30)
        if failed:
            raise failed[0]

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def enter_network(path: str) -> None:
    """Moves the calling thread into that network."""
    with Path(path).open() as file:
        if _libc.setns(file.fileno(), 0x40000000):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


def _handler(instance: Any) -> type[BaseHTTPRequestHandler]:
    tokens: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            if self.path != "/latest/api/token" or "X-aws-ec2-metadata-token-ttl-seconds" not in self.headers:
                return self._answer(400, "")
            tokens.add(token := secrets.token_urlsafe(32))
            return self._answer(200, token)

        def do_GET(self) -> None:
            if self.headers.get("X-aws-ec2-metadata-token") not in tokens:
                return self._answer(401, "")
            text = metadata(instance, self.path.removeprefix("/latest/").rstrip("/"))
            return self._answer(404, "") if text is None else self._answer(200, text)

        def _answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.send_header("X-aws-ec2-metadata-token-ttl-seconds", "21600")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def metadata(instance: Any, path: str) -> str | None:
    """What is at /latest/`path`, or None."""
    role = role_of(instance).name if role_of(instance) else None
    identity = {
        "instanceId": instance.id,
        "region": instance.ec2_backend.region_name,
        "availabilityZone": instance.availability_zone,
        "instanceType": instance.instance_type,
        "accountId": instance.owner_id,
        "imageId": instance.image_id,
        "privateIp": instance.private_ip,
    }
    texts: dict[str, str | None] = {
        "meta-data/instance-id": instance.id,
        "meta-data/ami-id": instance.image_id,
        "meta-data/instance-type": instance.instance_type,
        "meta-data/instance-life-cycle": "spot" if FAULTS.get("spot") else instance.lifecycle or "on-demand",
        "meta-data/spot/instance-action": _notice() if FAULTS.get("spot") == "taken" else None,
        "meta-data/local-ipv4": instance.private_ip,
        "meta-data/public-ipv4": instance.public_ip,
        "meta-data/local-hostname": instance.private_dns_name,
        "meta-data/public-hostname": instance.public_dns_name,
        "meta-data/hostname": instance.private_dns_name,
        "meta-data/placement/region": instance.ec2_backend.region_name,
        "meta-data/placement/availability-zone": instance.availability_zone,
        "dynamic/instance-identity/document": json.dumps(identity),
        "user-data": user_data(instance) or None,
        "meta-data/iam/security-credentials": role,
        f"meta-data/iam/security-credentials/{role}": json.dumps(_credentials(instance)) if role else None,
    }
    if instance.metadata_options.instance_metadata_tags == "enabled":
        for tag in instance.get_tags():
            texts["meta-data/tags/instance/" + tag["key"]] = tag["value"]
    return texts.get(path)


def _notice() -> str:
    """That AWS takes spot capacity back, and when."""
    return json.dumps({"action": "terminate", "time": _time(minutes=2)})


def role_of(instance: Any) -> Any:
    """The role of its instance profile, as moto keeps it, or None."""
    association = instance.ec2_backend.iam_instance_profile_associations.get(instance.id)
    roles = association.iam_instance_profile.roles if association else []
    return roles[0] if roles else None


def key_of(instance: Any) -> str:
    """The id of the access key that its role's credentials have: by it its calls are known."""
    return "ASIA" + instance.id.removeprefix("i-")[:16].upper()


def _credentials(instance: Any) -> dict[str, str]:
    return {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": key_of(instance),
        "SecretAccessKey": "of-the-role",
        "Token": "of-the-role",
        "Expiration": _time(minutes=360),
    }


def _time(*, minutes: int) -> str:
    """So many minutes from now, as AWS writes it."""
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
    return later.strftime("%Y-%m-%dT%H:%M:%SZ")


def user_data(instance: Any) -> str:
    """As it was given, "" where there is none."""
    return instance.user_data.decode() if instance.user_data else ""
