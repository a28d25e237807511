"""Is run B worse than run A? The release gate: paired, with its error rates stated."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.results import RunInfo
from evaluation.statistics import Interval


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of both runs, over the clips that both have.

    Attributes:
        metric: as in `evaluation.summary.Row`.
        condition: a condition, or "all".
        a, b: the figure of each run; rates as fractions, times in milliseconds.
        difference: b - a.
        interval: its 95 % confidence interval (paired bootstrap over clips), where the sample allows one.
        p_value: of "B is not worse", one-sided, paired; adjusted for the number of figures tested (Holm).
        margin: a difference below this is not called worse, however certain.
        detectable: the smallest true difference that this comparison finds with a probability of 80 %.
        worse, better: significantly, and by more than the margin.
        clips: how many pairs it rests on.
    """

    metric: str
    condition: str
    a: float
    b: float
    difference: float
    interval: Interval | None
    p_value: float
    margin: float
    detectable: float | None
    worse: bool
    better: bool
    clips: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs of one set.

    Attributes:
        a, b: what was measured.
        alpha: the probability of calling B worse in any figure although it is not.
        differences: the figures that decide ("all" rows), then those per condition, for reading.
        notes: what limits the comparison (clips missing on one side, different machines …), for people.
    """

    a: RunInfo
    b: RunInfo
    alpha: float
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()

    @property
    def worse(self) -> bool:
        """Whether B is worse in any figure that decides."""
        return any(difference.worse for difference in self.differences)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A clip in which two runs heard different words (after normalizing).

    Attributes:
        id, condition, reference: the clip's.
        a, b: the hypotheses as they came.
        a_errors, b_errors: word errors of each against the reference.
    """

    id: str
    condition: str
    reference: str
    a: str
    b: str
    a_errors: int
    b_errors: int
