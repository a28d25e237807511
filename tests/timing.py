"""Times on a machine that does other work, too: one that is missed is measured again, at most twice.

A test that raises `Late`, and nothing else, is run again (pytest-rerunfailures; `addopts` in pyproject.toml), and the
closing line counts it. A regression is late each time; another tenant of the machine is not.
"""

from __future__ import annotations

from collections.abc import Sequence

TRIES = 3


class Late(AssertionError):
    """Everything was as it should be, but for a time that was measured."""


def in_time(took: float, bound: float, what: str = "it took") -> None:
    """Raise `Late` where `took` is not below `bound`; both in the same unit."""
    if took >= bound:
        raise Late(f"{what} {took:.4g}, the bound is {bound:.4g}")


def judge(failures: Sequence[str], late: Sequence[str]) -> None:
    """Raise `AssertionError` with all of it where something failed, and `Late` where something was only late."""
    assert not failures, "\n".join([*failures, *late])
    if late:
        raise Late("\n".join(late))
