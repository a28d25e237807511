"""The command `riva-gateway`, also `python -m server`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command line; the process ends with its exit status."""
    if os.getpid() == 1:
        # The first process of a container is not ended by a signal that it has no answer to, and the libraries take a
        # second to load. Whoever serves gives an answer of his own later.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    # gRPC would guard against forks and say so on the terminal; our recognizer processes start by exec.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # Nor does its log belong among our lines: what matters to people we tell ourselves.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        # Imported here, so that a Ctrl-C while the libraries load ends as quietly as any other.
        from server.commands.app import app

        app(prog_name="riva-gateway")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        # While the interpreter tidies up there is nobody left to catch a Ctrl-C: it simply ends the process.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
