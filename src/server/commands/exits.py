"""How a command ends: exit codes, and expected failures as one line on stderr instead of a traceback."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any, ParamSpec, TypeVar

import typer

from asr.errors import ASRError, Code
from asr.settings import SettingsError
from asr.tls_files import CertificateError

P = ParamSpec("P")
T = TypeVar("T")


INTERRUPT_GRACE_S = 2.0
"""After Ctrl-C the process is gone within this, whatever still waits in it."""


class Exit(IntEnum):
    """What a command's exit status means."""

    OK = 0
    FAILED = 1
    """Something went wrong that is nobody's input: a defect, a full disk."""
    CONFIGURATION = 2
    """A flag, a setting, a certificate or a credential is wrong; the line on stderr names it."""
    UNAVAILABLE = 3
    """The recognizer or the gateway cannot be reached, is full or is not ready. Try again later."""
    BAD_INPUT = 4
    """The audio, or what is asked of it, cannot be served: not audio, no such file, model or language."""
    INTERRUPTED = 130
    """Ctrl-C."""


_OF_CODE = {
    Code.BAD_REQUEST: Exit.BAD_INPUT,
    Code.BAD_AUDIO: Exit.BAD_INPUT,
    Code.UNSUPPORTED: Exit.BAD_INPUT,
    Code.NOT_FOUND: Exit.BAD_INPUT,
    Code.TOO_LARGE: Exit.BAD_INPUT,
    Code.UNAUTHORIZED: Exit.CONFIGURATION,
    Code.FORBIDDEN: Exit.CONFIGURATION,
    Code.SUPERSEDED: Exit.FAILED,
    Code.STORAGE_FULL: Exit.FAILED,
    Code.EXPIRED: Exit.UNAVAILABLE,
    Code.IDLE_TIMEOUT: Exit.UNAVAILABLE,
    Code.SLOW_READER: Exit.UNAVAILABLE,
    Code.RATE_LIMITED: Exit.UNAVAILABLE,
    Code.OVERLOADED: Exit.UNAVAILABLE,
    Code.UNAVAILABLE: Exit.UNAVAILABLE,
    Code.TIMEOUT: Exit.UNAVAILABLE,
    Code.INTERNAL: Exit.FAILED,
}


SETTINGS_PARAM = "settings"
"""`ASRError.param` of a failure that a flag or a setting of this command causes, whatever its code says."""


def exit_of(error: ASRError) -> Exit:
    """The exit status that a failure means."""
    return Exit.CONFIGURATION if error.param == SETTINGS_PARAM else _OF_CODE[error.code]


_OUTPUT_ERRORS = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What writing to stdout fails with; a file that was named is told about where it is written."""


class Stop(Exception):
    """End the command with this status; `message`, one line, goes to stderr."""

    def __init__(self, message: str, status: Exit) -> None:
        super().__init__(message)
        self.status = status


def complain(message: str) -> None:
    """One line on stderr, in the shape of every tool: `riva-gateway: …`."""
    line = " ".join(message.split())
    typer.echo(f"riva-gateway: {line}", err=True)


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command: its expected failures become one line and an exit status."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except Stop as stop:
            complain(str(stop))
            raise typer.Exit(stop.status) from None
        except (SettingsError, CertificateError) as error:
            complain(str(error))
            raise typer.Exit(Exit.CONFIGURATION) from None
        except ASRError as error:
            complain(error.message)
            raise typer.Exit(exit_of(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(Exit.INTERRUPTED) from None
        except OSError as error:
            raise typer.Exit(output_failed(error)) from None

    return wrapped


def output_failed(error: OSError) -> Exit:
    """Say that stdout cannot be written, or nothing where its reader has gone; what that means as a status.

    Raises:
        OSError: the same, where it is about something else.
    """
    if error.errno not in _OUTPUT_ERRORS:
        raise error
    # What is still buffered goes nowhere, or the interpreter would try and complain once more at its end.
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    if error.errno != errno.EPIPE:
        complain(f"cannot write the output: {error.strerror}")
    return Exit.FAILED


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine, on the fast loop where there is one. Ctrl-C cancels it and gives status 130."""
    if sys.platform == "win32":
        return asyncio.run(_ending_in_time(main))
    import uvloop

    return uvloop.run(_ending_in_time(main))


async def _ending_in_time(main: Coroutine[Any, Any, T]) -> T:
    try:
        return await main
    except asyncio.CancelledError:
        # A thread that waits for stdin cannot be woken, and the interpreter would wait for the thread.
        last_resort = threading.Timer(INTERRUPT_GRACE_S, os._exit, (int(Exit.INTERRUPTED),))
        last_resort.daemon = True
        last_resort.start()
        raise
