"""`aws` for tests that type it hundreds of times: one process has awscli loaded, and each command is a fork of that.

It is the installed awscli that runs, with the words, folder, variables, files, network and user of who typed it; only
the half second that Python takes to load it is spent once. COLD_AWS=1 in the environment runs it as ever.
"""

from __future__ import annotations

import ctypes
import gc
import json
import marshal
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

# Modules that are part of the interpreter alone: loading others is most of what a short program costs.
STUB = """#!{python} -IS
import _socket
import marshal
import os
import sys

# The endpoint of the machine's cloud; an operator has it in the environment.
if "{endpoint}":
    import json

    os.environ.setdefault("AWS_ENDPOINT_URL", "{endpoint}")
    with open("/var/lib/stand-in/argv", "a") as file:
        file.write(json.dumps(["aws", *sys.argv[1:]]) + "\\n")
if os.environ.get("COLD_AWS"):
    os.execv("{real}", ["aws", *sys.argv[1:]])
there = _socket.socket(_socket.AF_UNIX)
there.connect("{place}")
asked = marshal.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)])
spaces = [os.open(path, os.O_RDONLY) for path in ("/", "/proc/self/ns/net", "/proc/self/ns/pid")]
files = b"".join(file.to_bytes(4, sys.byteorder) for file in [0, 1, 2, *spaces])
there.sendmsg([len(asked).to_bytes(8, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])
there.sendall(asked)
status = there.recv(1)
os._exit(status[0] if status else 70)
"""
SOCKET = "aws.sock"
SERVICES = [
    "cloudwatch",
    "ec2",
    "ecr",
    "iam",
    "logs",
    "pricing",
    "resourcegroupstaggingapi",
    "s3",
    "sagemaker",
    "sagemaker-runtime",
    "scheduler",
    "secretsmanager",
    "service-quotas",
    "ssm",
    "sts",
    "route53",
    "application-autoscaling",
    "budgets",
]
_libc = ctypes.CDLL(None, use_errno=True)


def stub(place: str, endpoint: str = "") -> str:
    """The program that stands for `aws` on a PATH."""
    real = str(Path(sys.executable).parent / "aws")
    values = {"{python}": sys.executable, "{real}": real, "{place}": place, "{endpoint}": endpoint}
    text = STUB
    for word, value in values.items():
        text = text.replace(word, value)
    return text


def main(place: str, record: str) -> None:
    """Serves at the socket `place`; every command line is added to the file `record` as a line of JSON."""
    from awscli.clidriver import create_clidriver

    driver = create_clidriver()
    loader = driver.session.get_component("data_loader")
    commands = driver._get_command_table()
    for name in SERVICES:
        for kind in ("service-2", "endpoint-rule-set-1", "paginators-1", "waiters-2"):
            try:
                loader.load_service_model(name, kind)
            except Exception:  # not every service has every kind
                continue
        commands["s3api" if name == "s3" else name]._get_command_table()
        # The names of its methods and the rules of its endpoint are worked out for the first client, and kept.
        driver.session.create_client(name, "us-east-2", aws_access_key_id="-", aws_secret_access_key="-")
    driver.session._get_internal_component("endpoint_resolver")
    for name in ("partitions", "_retry", "sdk-default-configuration"):
        loader.load_data(name)
    gc.collect()
    gc.freeze()  # a fork that collects would copy all of this
    gc.disable()
    log = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        Path(place).chmod(0o777)
        listener.listen(64)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for the forks
        while True:
            there, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                there.sendall(bytes([_typed(there, driver, log)]))
                os._exit(0)
            there.close()


def _typed(there: socket.socket, driver: Any, log: int) -> int:
    """Becomes who typed it; returns the command's exit status."""
    head, files, _, _ = socket.recv_fds(there, 8, 6)
    size, data = int.from_bytes(head, "big"), b""
    while len(data) < size:
        data += there.recv(size - len(data))
    words, folder, variables = marshal.loads(data)
    _, user, group = struct.unpack("3i", there.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    os.write(log, json.dumps([user, words]).encode() + b"\n")
    os.close(log)
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    root, network, processes = files[3:]
    for space in (network, processes):
        if _libc.setns(space, 0):
            raise OSError(ctypes.get_errno(), "setns")
    os.fchdir(root)
    os.chroot(".")
    if child := os.fork():  # only a child is in the other process namespace
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255
    os.setgroups([group])
    os.setgid(group)
    os.setuid(user)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["aws", *words]
    status = 255
    try:
        status = driver.main(words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
