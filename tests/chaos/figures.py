"""Figures of the load-shaped proofs: one line each, with its bound, beside the rows of the fault catalogue."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos.play import RESULTS, seed
from timing import judge

FOLDER = "chaos-figures"


def long_tier() -> bool:
    """CHAOS_LONG is set: outages of a minute, soaks of minutes; `hour` for one of an hour."""
    return bool(os.environ.get("CHAOS_LONG"))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)] if ordered else 0.0


@dataclass(slots=True)
class Figure:
    """What was promised, under which load, and what came of it.

    Attributes:
        row: names it, and the file.
        promise: in words.
        load: what was done, in words.
        measured: name, value and unit, as they are to be read.
        failures: what was not as promised; empty where all was.
        late: times beyond their bounds that another tenant of the machine may have made: measured again if there is
            nothing else.
        plays: how often it was measured.
    """

    row: str
    promise: str
    load: str
    measured: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    plays: int = 1
    seed: int = field(default_factory=seed)

    @property
    def only_late(self) -> bool:
        """Nothing is wrong but a time."""
        return bool(self.late) and not self.failures

    def add(
        self, name: str, value: float, bound: float | None = None, unit: str = "", *, least: bool = False,
        timed: bool = False,
    ) -> None:  # fmt: skip
        """Note a value, and complain where it is above its bound (below it where `least`).

        One that is `timed` is a latency of milliseconds, which the machine itself may spoil.
        """
        text = f"{name} {_short(value)}{unit and ' ' + unit}"
        if bound is not None:
            text += f" ({'≥' if least else '≤'} {_short(bound)})"
            if value < bound if least else value > bound:
                (self.late if timed else self.failures).append(text)
        self.measured.append(text)

    def demand(self, good: bool, complaint: str) -> None:
        """Complain unless it is good."""
        if not good:
            self.failures.append(complaint)

    def write(self) -> None:
        """Into the results' folder."""
        folder = RESULTS / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.row}.json").write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False))

    def settle(self) -> None:
        """Write it, show it, and raise `AssertionError` where something was not as promised: `Late` if only a time."""
        self.write()
        print(f"seed {self.seed}, {self.row}: {'; '.join(self.measured)}")  # noqa: T201 - replay needs the seed
        judge(self.failures, self.late)


def settle_all(figures: Sequence[Figure]) -> None:
    """Settle them all: what failed first, then what was only late."""
    for figure in figures:
        figure.write()
    for figure in sorted(figures, key=lambda figure: not figure.failures):
        figure.settle()


def load_figures(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All that were written, by name."""
    return [json.loads(path.read_text("utf-8")) for path in sorted((folder / FOLDER).glob("*.json"))]


def figures_table(figures: Sequence[dict[str, Any]]) -> str:
    """As Markdown."""
    rows = ["| proof | promise | load | measured (bound) | verdict |", "|---|---|---|---|---|"]
    for one in figures:
        bad = one["failures"] + one["late"]
        verdict = "as promised" if not bad else f"**{len(bad)} failures**"
        verdict += f" (time {one['plays']} that it was measured)" if one["plays"] > 1 else ""
        cells = [one["row"], one["promise"], one["load"], "; ".join(one["measured"]), verdict]
        rows.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(rows)


def _short(value: float) -> str:
    if math.isinf(value):
        return "never"
    return f"{value:.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.2f}"
