"""Progress bars for files, on stderr and only where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Report = Callable[[int, int | None], None]
"""Called with the milliseconds of audio done, and all there are where that is known."""


class Bars:
    """One line per file in work. Nothing at all where stderr is not a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console(stderr=True) if console is None else console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[clock]}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
            redirect_stdout=False,  # stdout may be a pipe, and then belongs to the words alone
            redirect_stderr=False,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def file(self, name: str) -> Iterator[Report]:
        """Show a bar for `name` while it is in work."""
        label = "stdin" if name == "-" else Path(name).name
        task = self._progress.add_task(escape(label), total=None, clock="")

        def report(done_ms: int, total_ms: int | None) -> None:
            self._progress.update(task, completed=done_ms, total=total_ms, clock=clock(done_ms, total_ms))

        try:
            yield report
        finally:
            self._progress.remove_task(task)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bars away while a line is written, so that the two do not mix on one screen."""
        self._progress.stop()
        try:
            yield
        finally:
            sys.stdout.flush()
            self._progress.start()


def clock(done_ms: int, total_ms: int | None) -> str:
    """`1:05 / 12:40`, or `1:05` where the end is not known."""
    return _minutes(done_ms) if total_ms is None else f"{_minutes(done_ms)} / {_minutes(total_ms)}"


def _minutes(ms: int) -> str:
    seconds = ms // 1000
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"
