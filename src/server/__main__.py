"""The command `riva-gateway`, also `python -m server`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; the process ends with its exit status."""
    try:
        # Imported here, so that a Ctrl-C while the libraries load ends as quietly as any other.
        from server.commands.app import app

        app(prog_name="riva-gateway")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
