"""The cloud provider: a patched moto, and a socket through which tests steer it. Started by `cloud.world`.

moto is heard at two addresses: 127.0.0.1:4566 and the router's inside the cloud, and the listener that the tests handed
over, which is of their own network.
"""

from __future__ import annotations

import json
import os
import socketserver
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

from cloud.amis import AMIS

PORT = 4566
VARIABLES = {
    "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
    "MOTO_ACM_VALIDATION_WAIT": "1",
}


def main(folder: str, listener: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as amis:
        json.dump(AMIS, amis)
    os.environ.update(VARIABLES, MOTO_AMIS_PATH=amis.name)  # moto reads them when it is imported
    from cloud.moto_app import make_app, serve
    from cloud.steering import Steering

    steering = Steering(Path(folder))
    app, steering.calls = make_app(steering.machines)
    for where in ({"host": "0.0.0.0", "port": PORT}, {"host": "127.0.0.1", "port": 0, "fd": int(listener)}):
        threading.Thread(target=serve, args=(app,), kwargs=where, daemon=True).start()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked = json.loads(self.rfile.readline())
            try:
                answer: Any = {"done": getattr(steering, "do_" + asked.pop("do"))(**asked)}
            except Exception:
                answer = {"failed": traceback.format_exc()}
            self.wfile.write(json.dumps(answer).encode())

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
        request_queue_size = 64

    with Server(os.environ["CLOUD_SOCKET"], Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
