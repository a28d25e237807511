"""Usage errors in the shape of every other failure: one line on stderr, status 2.

Typer draws a box of several lines around them, in words of the libraries beneath it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

from typer import Abort, TyperException
from typer.core import TyperGroup

from server.commands.exits import Exit, complain, output_failed

_PLAIN = {
    "Value error, ": "",
    "Input should be a valid integer, unable to parse string as an integer": "this is not a whole number",
    "Input should be a valid number, unable to parse string as a number": "this is not a number",
}


class OneLineGroup(TyperGroup):
    """The root of the commands."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line and end the process with its status."""
        run = functools.partial(super().main, args, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        try:
            status = run()
        except Abort:
            sys.exit(Exit.INTERRUPTED)
        except TyperException as error:
            _tell(error)
            sys.exit(Exit.CONFIGURATION)
        except OSError as error:  # the help itself could not be written
            sys.exit(output_failed(error))
        sys.exit(status or Exit.OK)


def _tell(error: Any) -> None:
    # Without any word there is nothing wrong to name: the error is the help itself.
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    message = error.format_message()
    for theirs, ours in _PLAIN.items():
        message = message.replace(theirs, ours)
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "riva-gateway"
    complain(f"{message.rstrip('.')}. See {where} --help.")
