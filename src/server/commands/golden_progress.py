"""How far a run of a set has come, on stderr and only where that is a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evaluation.clips import Clip
from evaluation.results import ClipResult

_SPEED_WINDOW_S = 120.0


class ClipBar:
    """One bar over all clips, which moves with the audio that is done."""

    def __init__(self, clips: Sequence[Clip], *, tail_ms: int, quiet: bool = False) -> None:
        """Nothing is shown before the block is entered.

        Args:
            clips: all there are to do.
            tail_ms: silence after each.
            quiet: show nothing.
        """
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[clips]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
            speed_estimate_period=_SPEED_WINDOW_S,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tail_ms = tail_ms
        self._all = len(clips)
        total = sum(clip.audio_ms + tail_ms for clip in clips)
        self._task = self._progress.add_task("listening", total=total, clips=f"0/{self._all} clips")

    def __enter__(self) -> ClipBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def done(self, result: ClipResult, number: int, _total: int) -> None:
        """A clip is done, the `number`th."""
        self._progress.update(
            self._task,
            advance=result.audio_ms + self._tail_ms,
            description=result.condition,
            clips=f"{number}/{self._all} clips",
        )
