"""Records of streams → figures for windows of time. Pure: lines in, figures out; "now" is an argument.

However many records there are, the memory is the same: latencies are counted in bins 1 % wide, so that a percentile
comes out within half a percent. Whether an objective is kept is counted exactly.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

import orjson

from asr.errors import Code
from server.telemetry.record import Outcome, outcome_of
from server.telemetry.records import REFUSED

FIRST_PARTIAL_S = 0.3
FINAL_S = 0.8
"""What 95 of 100 streams are to keep; they have until then for the first words, and for finals."""
IN_TIME = 0.95
ERRORS = 0.005
"""Fewer streams than this may fail through no fault of their clients."""
MAX_WINDOW_S = 366 * 86_400
MAX_FACES = 64
AHEAD_S = 60.0
"""So far ahead of ours another machine's clock may be."""

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_WINDOW = re.compile(r"([1-9]\d{0,6})([smhdw])")
_BIN = math.log(1.01)
_SMALLEST = 0.0001


@dataclass(frozen=True, slots=True)
class Window:
    """The time until now, `seconds` long; `name` is how it was asked for."""

    name: str
    seconds: int


def parse_window(text: str) -> Window:
    """A window as people write it.

    Raises:
        ValueError: it is not one.

    >>> parse_window("30m"), parse_window("3d").seconds
    (Window(name='30m', seconds=1800), 259200)
    """
    found = _WINDOW.fullmatch(text.strip().lower())
    seconds = int(found[1]) * _UNITS_S[found[2]] if found else 0
    if not 0 < seconds <= MAX_WINDOW_S:
        raise ValueError(f"{text!r} is no window. Write a number with m, h, d or w, as in 30m or 3d; a year at most.")
    return Window(text.strip().lower(), seconds)


@dataclass(slots=True)
class Spread:
    """Values as counts of bins.

    Attributes:
        count: how many there are.
        in_time: those that do not exceed `limit`.
        limit: of the objective, or None.
    """

    limit: float | None = None
    count: int = 0
    in_time: int = 0
    _bins: Counter[int] = field(default_factory=Counter)
    _least: float = math.inf
    _most: float = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self.count += 1
        self.in_time += self.limit is not None and value <= self.limit
        self._bins[math.floor(math.log(max(value, _SMALLEST)) / _BIN)] += 1
        self._least, self._most = min(self._least, value), max(self._most, value)

    def take_in(self, other: Spread) -> None:
        """All of another's, too."""
        self.count += other.count
        self.in_time += other.in_time
        self._bins.update(other._bins)
        self._least, self._most = min(self._least, other._least), max(self._most, other._most)

    def percentile(self, percent: float) -> float | None:
        """The smallest value that `percent` of all do not exceed, within half a percent; None without any."""
        rank = math.ceil(self.count * percent / 100)
        for number in sorted(self._bins):
            rank -= self._bins[number]
            if rank <= 0:
                return min(max(math.exp(_BIN * (number + 0.5)), self._least), self._most)
        return None

    @property
    def keeps(self) -> bool | None:
        """Whether the objective is kept; None where there is none, or no value."""
        return None if self.limit is None or not self.count else self.in_time >= IN_TIME * self.count


@dataclass(slots=True)
class Figures:
    """What came of the streams that ended in a window.

    Attributes:
        window: which.
        streams: that were admitted and are over.
        outcomes: how often each `Outcome`.
        refused: those who were not let in; `refused_badly`: of them, those that the gateway or the recognizer failed.
        codes: how often each error code, refusals included.
        audio_s: seconds of audio recognized.
        first_partial, partial, final, queue_wait: seconds; of partials and finals, each stream's 95th percentile.
        rtfx: of recordings.
    """

    window: Window
    streams: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    refused_badly: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    audio_s: float = 0.0
    first_partial: Spread = field(default_factory=lambda: Spread(FIRST_PARTIAL_S))
    partial: Spread = field(default_factory=lambda: Spread(FIRST_PARTIAL_S))
    final: Spread = field(default_factory=lambda: Spread(FINAL_S))
    queue_wait: Spread = field(default_factory=Spread)
    rtfx: Spread = field(default_factory=Spread)

    @property
    def errors(self) -> float | None:
        """The share of streams that the gateway or the recognizer failed, refusals of that kind included."""
        asked = self.streams + self.refused_badly
        return (self.outcomes[Outcome.SERVER] + self.refused_badly) / asked if asked else None

    @property
    def errors_keep(self) -> bool | None:
        """Whether that is few enough; None without any stream."""
        return None if self.errors is None else self.errors < ERRORS

    def add(self, row: dict[str, Any]) -> None:
        """One record."""
        code = row.get("code")
        code = code if isinstance(code, str) and code in _CODES else ""
        if row.get("status") == REFUSED:
            count = row.get("count", 1)
            count = count if type(count) is int and count > 0 else 1
            self.refused += count
            self.codes[code] += count
            if outcome_of(code, complete=True) is Outcome.SERVER:
                self.refused_badly += count
            return
        self.streams += 1
        self.outcomes[row["status"]] += 1
        if code:
            self.codes[code] += 1
        self.audio_s += _number(row.get("audio_len_s")) or 0.0
        for spread, name in (
            (self.first_partial, "first_partial_s"),
            (self.partial, "partial_latency_s"),
            (self.final, "final_latency_s"),
            (self.queue_wait, "queue_wait_s"),
        ):
            value = _number(row.get(name))
            if value is not None:
                spread.add(value)
        rtfx = _number(row.get("rtfx"))
        if row.get("kind") == "recording" and rtfx:
            self.rtfx.add(rtfx)

    def take_in(self, other: Figures) -> None:
        """All of another's, too."""
        self.streams += other.streams
        self.outcomes.update(other.outcomes)
        self.refused += other.refused
        self.refused_badly += other.refused_badly
        self.codes.update(other.codes)
        self.audio_s += other.audio_s
        for mine, theirs in (
            (self.first_partial, other.first_partial),
            (self.partial, other.partial),
            (self.final, other.final),
            (self.queue_wait, other.queue_wait),
            (self.rtfx, other.rtfx),
        ):
            mine.take_in(theirs)


_CODES = frozenset(code.value for code in Code)
_STATUSES = frozenset({REFUSED, *(outcome.value for outcome in Outcome)})


@dataclass(slots=True)
class Report:
    """The figures of all windows.

    Attributes:
        windows: one for each, in the order asked for.
        faces: those that were seen.
        unreadable: lines that are no records: cut off by a full disk or a kill, or still being written.
        ahead: records from after `now`, which are in no window: a clock was wrong.
    """

    windows: list[Figures]
    faces: set[str] = field(default_factory=set)
    unreadable: int = 0
    ahead: int = 0


def tally(lines: Iterable[bytes], windows: Sequence[Window], now: datetime, face: str = "") -> Report:
    """Go through records once.

    Args:
        lines: of JSON.
        windows: all of them end `now`.
        now: with a time zone.
        face: only streams of this one; "" for all.
    """
    report = Report([Figures(window) for window in windows])
    # A record is counted in the shortest window that has it; longer ones take in the shorter.
    growing = sorted(report.windows, key=lambda figures: figures.window.seconds)
    lengths_s = [figures.window.seconds for figures in growing]
    now_s = now.timestamp()
    for line in lines:
        if not line.strip():
            continue
        row = _row(line)
        if row is None:
            report.unreadable += 1
            continue
        age_s = now_s - row["ts"]
        if age_s < -AHEAD_S:
            report.ahead += 1
            continue
        place = bisect_left(lengths_s, age_s)
        if place == len(growing):
            continue
        if len(report.faces) < MAX_FACES:
            report.faces.add(row["face"])
        if face and row["face"] != face:
            continue
        growing[place].add(row)
    for shorter, longer in pairwise(growing):
        longer.take_in(shorter)
    return report


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = orjson.loads(line)
        row["ts"] = datetime.fromisoformat(row["ts"]).timestamp()
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    status, face = row.get("status"), row.get("face")
    return row if isinstance(status, str) and status in _STATUSES and isinstance(face, str) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return None
    return float(value)


def as_json(report: Report) -> list[dict[str, Any]]:
    """For machines: one object for each window; durations in seconds, shares 0 to 1."""
    return [
        {
            "window": figures.window.name,
            "streams": figures.streams,
            "outcomes": {outcome.value: figures.outcomes[outcome] for outcome in Outcome},
            "refused": figures.refused,
            "codes": dict(sorted(figures.codes.items())),
            "errors": {"share": figures.errors, "objective": ERRORS, "kept": figures.errors_keep},
            "first_partial_s": _spread_json(figures.first_partial),
            "partial_latency_s": _spread_json(figures.partial),
            "final_latency_s": _spread_json(figures.final),
            "queue_wait_s": _spread_json(figures.queue_wait),
            "rtfx": _spread_json(figures.rtfx),
            "audio_s": round(figures.audio_s, 3),
        }
        for figures in report.windows
    ]


def _spread_json(spread: Spread) -> dict[str, Any]:
    found = {f"p{percent}": _rounded(spread.percentile(percent)) for percent in (50, 95, 99)}
    told: dict[str, Any] = {"count": spread.count, **found}
    if spread.limit is not None:
        told |= {"objective_p95": spread.limit, "kept": spread.keeps}
    return told


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
