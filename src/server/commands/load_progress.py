"""How a load run is doing: a line that moves on stderr where that is a terminal, and the rows on stdout."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from load import records
from load.summary import LoadRow
from server.commands.load_words import heading, line_of, remarks


class LoadScreen:
    """The rows as they come, and beneath them the step that runs."""

    def __init__(self, *, quiet: bool) -> None:
        """`quiet`: nothing is shown."""
        console = Console(stderr=True)
        self._quiet = quiet
        self._headed = False
        self._last: records.Progress | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("warming up", total=None, state="")

    def __enter__(self) -> LoadScreen:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, sessions: int, length_ms: float) -> None:
        """A step begins."""
        self._last = None
        self._progress.reset(
            self._task, total=length_ms, description=f"{sessions} session{'' if sessions == 1 else 's'}", state=""
        )

    def progress(self, now: records.Progress) -> None:
        """How it stands."""
        self._progress.update(self._task, completed=now.elapsed_ms, state=_state(now, self._last))
        self._last = now

    def row(self, row: LoadRow) -> None:
        """A step is over."""
        if self._quiet:
            return
        self._progress.stop()
        lines = [*(() if self._headed else heading()), line_of(row), *(f"         {one}" for one in remarks(row))]
        self._headed = True
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        self._progress.start()


def _state(now: records.Progress, before: records.Progress | None) -> str:
    told = [f"{now.active} speak", f"{now.waiting} to come", f"{now.done} done"]
    told += [f"{count} {name}" for count, name in ((now.refused, "refused"), (now.failed, "failed")) if count]
    if before is not None and now.elapsed_ms > before.elapsed_ms:
        rate = (now.partials - before.partials) * 1000 / (now.elapsed_ms - before.elapsed_ms)
        told.append(f"{rate:.0f} partials/s")
    return " · ".join([*told, f"late {now.late_p99_ms:.1f} ms"])
