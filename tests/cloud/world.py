"""The first process of the test cloud's own namespaces: `python -m cloud.world FOLDER SOCKET_FD`, under `unshare`.

Everything of the cloud lives below it: the provider, the far machines, the operator's commands. It ends when its stdin
does, that is, with the tests however they end; the kernel then ends all that is left and drops every mount.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from cloud.groups import make_groups, remove_groups


def main(folder: str, listener: str) -> None:
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6g", "cloud", folder], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    make_groups(Path(folder))
    subprocess.Popen([sys.executable, "-m", "cloud.provider", folder, listener], pass_fds=[int(listener)])
    threading.Thread(target=_end_with_the_tests, daemon=True).start()
    with contextlib.suppress(ChildProcessError):
        while os.wait():  # the first process is everybody's heir
            pass
    remove_groups()


def _end_with_the_tests() -> None:
    while os.read(0, 1):
        pass
    with contextlib.suppress(ProcessLookupError):  # everybody but this one; then nobody is left to wait for
        os.kill(-1, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
